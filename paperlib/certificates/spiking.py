"""Bounds of the spikes of a hard-reset neuron from bounds of its current.

    m[t] = τ·v[t-1] + I[t]      s[t] = 1(m[t] ≥ θ)      v[t] = (1 - s[t])·m[t]

After a spike at step a the membrane at step t is the sum of the current over the stretch from a + 1 to t, until it
reaches θ.  So the neuron is at each step in one of T + 1 states, the step of its last spike, 0 for none, and its spikes
are bounded by the ways through these states.  This takes the stretches between two spikes one by one, though a longer
stretch bounds several together: n spikes need n·θ of the current over all of them.  With `Time.trains` each of the 2^T
spike trains is therefore tried against all stretches at once (see `_possible`), where the ways leave a sum open.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from paperlib.certificates.intervals import Interval, Time, size

NEURONS = 2**14  # whose spike trains are tried together


def spikes(current: Interval, time: Time, threshold: float, *, sums: Tensor) -> Interval:
    """The bounds of some sums of the spikes, (len(sums), B, ...), from the bounds of the currents.

    `sums` holds the factors of the steps in each sum, rows of `Time.weights`.
    """
    of = _of_constant if current.constant else _of_changing
    ends = Interval(*of(current, time, threshold, sums.to(current.low.device)))
    if time.trains and not current.constant:
        ends = _narrowed(ends, current, time, threshold, sums)
    whole = time.tau in (0.0, 1.0)  # then the sums are whole numbers, and not rounded
    return ends if whole else ends.widened(time.rounding(0) * ends.high)


def periods(current: Interval, time: Time, threshold: float) -> tuple[Tensor, Tensor]:
    """The fewest and the most steps from reset to spike under a constant current, (B, ...) of 1..T, or T + 1 for never.

    The membrane after k steps is c_k·I with c_k = 1 + τ + ... + τ^(k-1), so the period is the first k with c_k·I ≥ θ.
    It never grows with I.
    """
    widened = current.widened(time.rounding(0) * size(current, time))
    fewest, most = (torch.full(end[0].shape, time.T + 1, device=end.device) for end in widened)
    for k in range(time.T, 0, -1):
        grown = sum(time.tau**i for i in range(k))
        fewest[grown * widened.high[0] >= threshold] = k
        most[grown * widened.low[0] >= threshold] = k
    return fewest, most


def _of_constant(current: Interval, time: Time, threshold: float, sums: Tensor) -> tuple[Tensor, Tensor]:
    """Exact: a constant current makes the neuron fire at the multiples of its period, a quantiser of T + 1 levels."""
    fewest, most = periods(current, time, threshold)
    levels = range(1, time.T + 2)
    trains = sums.new_tensor([[float(t % period == 0) for t in range(1, time.T + 1)] for period in levels])
    by_period = sums @ trains.T  # (len(sums), T + 1)
    possible = torch.tensor([time.tau > 0 or k in (1, time.T + 1) for k in levels])  # without memory at once or never
    low, high = (torch.zeros(len(sums), time.T + 1, time.T + 1, device=sums.device) for _ in range(2))
    for first in range(time.T + 1):
        for last in range(first, time.T + 1):
            between = by_period[:, first : last + 1][:, possible[first : last + 1]]
            if between.numel():
                low[:, first, last], high[:, first, last] = between.amin(1), between.amax(1)
    places = (fewest - 1) * (time.T + 1) + most - 1
    return low.flatten(1)[:, places], high.flatten(1)[:, places]


def _of_changing(current: Interval, time: Time, threshold: float, sums: Tensor) -> tuple[Tensor, Tensor]:
    """The cheapest and the dearest way through the states, where a spike at step b costs its factor in the sum."""
    fires, rests = _edges(current, time, threshold)
    factors = sums.T.view(time.T, len(sums), *[1] * rests[0].dim())
    low, high = [], []  # of each sum over all ways on from state a, (len(sums), B, ...), from the last state back
    for a in range(time.T, -1, -1):
        least = torch.where(rests[a], 0.0, torch.inf).expand(len(sums), *rests[a].shape)
        most = -least
        for b in range(a + 1, time.T + 1):
            least = torch.minimum(least, torch.where(fires[a, b], low[time.T - b] + factors[b - 1], torch.inf))
            most = torch.maximum(most, torch.where(fires[a, b], high[time.T - b] + factors[b - 1], -torch.inf))
        low.append(least)
        high.append(most)
    return low[-1], high[-1]


def _edges(current: Interval, time: Time, threshold: float) -> tuple[dict[tuple[int, int], Tensor], list[Tensor]]:
    """Whether a neuron that spiked at a may spike next at b, by (a, b); whether it may not spike again, by a."""
    rounding, place = time.rounding(0), {stretch: number for number, stretch in enumerate(time.stretches)}
    membrane = current.widened(rounding * size(current, time))
    fires, rests = {}, []
    for a in range(time.T + 1):
        stays, highest = torch.ones_like(membrane.low[0], dtype=torch.bool), None
        for t in range(a + 1, time.T + 1):
            low, high = membrane.low[place[a, t]], membrane.high[place[a, t]]
            if highest is not None:  # what did not spike at the step before lay below the threshold then
                kept = time.tau * highest.clamp_max(threshold) + rounding * threshold
                high = torch.minimum(high, kept + membrane.high[place[t - 1, t]])
            fires[a, t] = stays & (high >= threshold)
            stays = stays & (low < threshold)
            highest = high
        rests.append(stays)
    return fires, rests


def _narrowed(ends: Interval, current: Interval, time: Time, threshold: float, sums: Tensor) -> Interval:
    """The bounds of the sums, narrowed to those of the spike trains that no bound of the current excludes."""
    low, high = (end.flatten(1).clone() for end in ends)
    bounds = [end.flatten(1) for end in (*current, size(current, time))]
    for neurons in (low != high).any(0).nonzero()[:, 0].split(NEURONS):
        *stretches, sizes = (end[:, neurons].double() for end in bounds)
        least, most = (low.new_full((len(sums), len(neurons)), end) for end in (torch.inf, -torch.inf))
        for train, possible in _possible(Interval(*stretches), sizes, time, threshold):
            value = (sums @ sums.new_tensor(train)).to(low.device)[:, None]
            least = torch.where(possible, torch.minimum(least, value), least)
            most = torch.where(possible, torch.maximum(most, value), most)
        low[:, neurons] = torch.maximum(low[:, neurons], least)
        high[:, neurons] = torch.minimum(high[:, neurons], most)
    return Interval(low.view_as(ends.low), high.view_as(ends.high))


def _possible(
    current: Interval, sizes: Tensor, time: Time, threshold: float
) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Each spike train that a neuron may have, with the neurons that may, (N,) bool.

    The sums of the currents are (S, N) float64.  With Q[t] = Σ_{s≤t} τ^(-s) I[s] the sum over a stretch (a, t) is
    τ^t (Q[t] - Q[a]), and a train says which of them reach θ.  Such bounds of differences can be met together unless
    they add up to less than 0 around a circle, which the shortest paths between the Q tell (Floyd, Warshall).  The
    membrane's rounding widens θ; it is counted so generously that the rounding in float64 is covered, too.
    """
    most = torch.zeros(time.T + 1, time.T + 1, current.low.shape[1], dtype=torch.float64, device=current.low.device)
    for number, (a, t) in enumerate(time.stretches):  # most[a, t] bounds Q[t] - Q[a] from above
        most[a, t], most[t, a] = current.high[number] / time.tau**t, -current.low[number] / time.tau**t
    for via in range(time.T + 1):
        most = torch.minimum(most, most[:, via : via + 1] + most[via : via + 1])
    rounding = {stretch: time.rounding(0) * (sizes[n] + threshold) for n, stretch in enumerate(time.stretches)}
    return _grown((), 0, most, torch.ones_like(most[0, 0], dtype=torch.bool), rounding, time, threshold)


def _grown(
    train: tuple[int, ...],
    last: int,
    most: Tensor,
    possible: Tensor,
    rounding: dict[tuple[int, int], Tensor],
    time: Time,
    threshold: float,
) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """All trains that begin with `train`, whose last spike was at step `last`; `most` are its shortest paths."""
    t = len(train) + 1
    if t > time.T:
        yield train, possible
        return
    for spike in (0, 1):
        a, b = (t, last) if spike else (last, t)
        length = (rounding[last, t] + (-threshold if spike else threshold)) / time.tau**t  # of the edge from a to b
        still = possible & (most[b, a] + length >= 0)
        if still.any():
            paths = most
            if t < time.T:
                paths = torch.minimum(most, most[:, a : a + 1] + length + most[b : b + 1])
            yield from _grown((*train, spike), t if spike else last, paths, still, rounding, time, threshold)
