"""Attacks on recordings in time: events are moved to other steps, and none is added or removed.

Each pixel and polarity keeps its number of events, so that no count over the whole recording gives the attack away (the
threat of Spike-Retiming, arXiv 2602.03284).  `eps` is the budget, a whole number k of moved events: Σ|δ| ≤ 2k, and δ
sums to 0 over time.  Whole counts stay whole and within `bounds`.

Arguments are those of `flips`: frames (B, T, C, H, W) of counts, and labels (B,).
"""

import numpy as np
import torch
from torch import Tensor

from paperlib import errors
from paperlib.attacks.attack import register
from paperlib.attacks.core import Bounds, queried, shares, whole
from paperlib.theory.gradients import Network, margin


@register(
    "retiming",
    title="retiming",
    norm="moves",
    gradients=lambda options: options["steps"],
)
def retiming(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    bounds: Bounds,
    steps: int = 10,
    batch_size: int | None = None,
) -> Tensor:
    """Move the events whose new time raises the loss most, a part of the budget at each of `steps`.

    The gain of a move from step s to step t is the growth of max_{k≠y} z_k - z_y, to first order: the difference of the
    gradient between the two cells.  In one step each pixel and polarity makes its best feasible move at most.  A sample
    stops at its first misclassified iterate.
    """
    network, budget = queried(network, images, labels, batch_size), whole(eps)
    errors.count("steps", steps)
    x, rows = images.clone(), torch.arange(len(images), device=images.device)
    for share in filter(None, shares(budget, steps)):
        logits, gradient = network.gradient(x[rows], rows, loss=lambda logits, y: -margin(logits, y))
        correct = logits.argmax(1) == labels[rows]
        rows, gradient = rows[correct], gradient[correct]
        if not len(rows):
            return x
        x[rows] = _moved(x[rows], gradient, share, bounds)
    return x


@register("random_retiming", title="random retiming", norm="moves", noise=True)
def random_retiming(
    network, images: Tensor, labels: Tensor, *, eps: float, bounds: Bounds, seed: int = 0, index: Tensor | None = None
) -> Tensor:
    """Move k events, each equally likely, to another step at random, where it fits: a lower bound for `retiming`."""
    budget, index = whole(eps), range(len(images)) if index is None else index.tolist()
    x = images.clone()
    for frames, number in zip(x, index, strict=True):
        rng, steps = np.random.default_rng((seed, number)), len(frames)
        counts = frames.flatten(1).cpu().numpy().copy()  # (T, pixels and polarities)
        cells = np.repeat(np.arange(counts.size), counts.astype(int).ravel())  # one entry an event
        events = rng.permutation(cells)[:budget]
        later = rng.integers(1, max(steps, 2), len(events))  # steps to go on, around the end
        for source, pixel, more in zip(*np.divmod(events, counts.shape[1]), later, strict=True):
            target = (source + more) % steps
            if target != source and counts[target, pixel] + 1 <= bounds[1] and counts[source, pixel] - 1 >= bounds[0]:
                counts[source, pixel] -= 1
                counts[target, pixel] += 1
        frames.copy_(torch.from_numpy(counts).view_as(frames))
    return x


def _moved(x: Tensor, gradient: Tensor, count: int, bounds: Bounds) -> Tensor:
    """`x` (n, T, ...) after the `count` moves of largest gain in each sample, or as many as gain."""
    lost = torch.where(x - 1 >= bounds[0], gradient, torch.inf).flatten(2)  # (n, T, pixels and polarities)
    gained = torch.where(x + 1 <= bounds[1], gradient, -torch.inf).flatten(2)
    (least, source), (most, target) = lost.min(1), gained.max(1)
    gain = torch.where((most > least) & (source != target), most - least, 0)  # 0 too where no event is or fits
    best = gain.topk(min(count, gain.shape[1]))
    moves = torch.zeros_like(gain).scatter(1, best.indices, (best.values > 0).to(gain))[:, None]
    delta = torch.zeros_like(lost).scatter_add(1, target[:, None], moves).scatter_add(1, source[:, None], -moves)
    return x + delta.view_as(x)
