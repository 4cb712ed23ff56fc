"""Certified robustness: proofs that no perturbation within ε changes a network's decision.

An attack bounds robust accuracy from above, a certificate from below.  Bounds of the pixels are carried through the
network, layer by layer, to a lower bound of the margin (interval bound propagation, Gowal et al., arXiv 1810.12715; for
spiking networks Liang et al., arXiv 2205.01625).  What is new here is what is bounded: see `intervals` and `spiking`.
What is not certified by the cheap bounds is tried with the tight ones, for which spike trains are tried one by one.

A perturbation is one of l∞ (`norm` "linf"), or for recordings of events also one of at most k changed cells ("l0", see
`flips`).
"""

import time as clock
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from paperlib import errors
from paperlib.certificates import flips
from paperlib.certificates.intervals import UNIT, Interval, Time, spread
from paperlib.certificates.layers import refuse_unknown, through
from paperlib.data import sets
from paperlib.networks.network import Network
from paperlib.networks.neurons import LIF, NormedLIF
from paperlib.theory import gradients

CHUNK = 10  # images that are bounded together
NORMS = ("linf", "l0")


class Ball(NamedTuple):
    """What a perturbation may do: see `certify`."""

    eps: float
    bounds: tuple[float, float]
    norm: str = "linf"


class Certificate(NamedTuple):
    """What is proved of B images; both fields are (B,) bool, on the CPU."""

    certified: Tensor  # no perturbation within ε and the bounds changes the right decision
    tried: Tensor  # the time sufficed for this image; one that is tried and not certified may still be robust


def certify(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    bounds: tuple[float, float],
    norm: str = "linf",
    seconds: float | None = None,
) -> Certificate:
    """For which images no perturbation within `eps` in `norm` and within `bounds` changes the right decision.

    `network` is one of `networks.build`, in eval mode, or one that `load` returns; `images` are (B, C, H, W), or for
    event data (B, T, C, H, W), within `bounds`; `labels` are (B,).  In `norm` "linf" `eps` is in the units of the
    images.  In "l0", for event data alone, it is the number of cells that may change, each by one event more or one
    fewer, as in `attacks.sparse_flips`.  The proof covers the rounding of the network in float32 (see `intervals`).  It
    is one-sided: an image without a certificate is undecided.  The bounds depend on the scale of the weights, so that
    an order of networks by certified accuracy is no order by robustness.

    After `seconds` no further image is begun, those with the largest margins coming first; without it all are tried.

    Refuses what has no bounds: another module, an unknown layer, random input, training mode, 16 bits, smoothed spikes.
    Refuses another `norm`, "l0" for images, an `eps` that is negative or no whole number of cells, images outside
    `bounds`, and labels that the network does not have.
    """
    _refuse(network, eps, norm, seconds)
    labels = _labels(network, images, labels)
    sets.check(images, labels, bounds=bounds, num_classes=network.head.out_features)
    started, device = clock.monotonic(), gradients.device_of(network)
    certified, tried = (torch.zeros(len(images), dtype=torch.bool) for _ in range(2))
    if not len(images):
        return Certificate(certified, tried)
    clean = gradients.margin(gradients.in_batches(network, images.to(device), CHUNK).cpu(), labels)
    tried |= clean <= 0  # nothing can be proved of these
    order = clean.argsort(descending=True)
    for rows in order[clean[order] > 0].split(CHUNK):
        if seconds is not None and clock.monotonic() - started > seconds:
            break
        tried[rows] = True
        for trains in (False, True):
            found = _lower(network, images[rows], labels[rows], Ball(eps, bounds, norm), trains=trains) > 0
            certified[rows] = found
            rows = rows[~found]
            if not len(rows):
                break
    return Certificate(certified, tried)


def margins(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    bounds: tuple[float, float],
    norm: str = "linf",
) -> Tensor:
    """A lower bound of z_y - max_{k≠y} z_k over all images within `eps` and `bounds`, (B,) float64, on the CPU.

    Arguments are those of `certify`.
    """
    return _lower(network, images, labels, Ball(eps, bounds, norm), trains=True)


def _lower(network: Network, images: Tensor, labels: Tensor, ball: Ball, *, trains: bool) -> Tensor:
    with torch.no_grad():
        *_, (_, total) = layers(network, images, ball, whole=True, trains=trains)
        return _margins(network, Interval(*(end[-1].flatten(1).cpu().double() / network.T for end in total)), labels)


def box(images: Tensor, eps: float, bounds: tuple[float, float]) -> Interval:
    """The ends of the l∞ ball, (B, ...) float64, on the CPU, with room for their rounding by an attack in float32."""
    x = images.cpu().double()
    rounding = 2 * UNIT * (x.abs() + eps)
    return Interval((x - eps - rounding).clamp_min(bounds[0]), (x + eps + rounding).clamp_max(bounds[1]))


def layers(
    network: Network, images: Tensor, ball: Ball, *, whole: bool = False, trains: bool = True
) -> Iterator[tuple[nn.Module, Interval]]:
    """Each layer of stem and body, with the bounds behind it, from those of the images, (B, ...), within the ball.

    With `whole` only the plain sum over time is bounded behind the last neurons, where nothing but that is used.
    With `trains` spike trains are tried one by one, where they are few enough (`Time.countable`).
    """
    time = time_of(network)
    time = replace(time, trains=trains and time.countable)
    x = _behind_stem(network, images, ball, time)
    yield network.stem, x
    body = list(network.body)
    last = max((i for i, layer in enumerate(body) if any(isinstance(m, LIF) for m in layer.modules())), default=-1)
    whole = whole and not any(list(layer.parameters()) for layer in body[last + 1 :])
    for number, layer in enumerate(body):
        alone = number == last and isinstance(layer, LIF | NormedLIF)
        x = through(layer, x, replace(time, whole=whole and alone))
        yield layer, x


def _behind_stem(network: Network, images: Tensor, ball: Ball, time: Time) -> Interval:
    if ball.norm == "linf":
        return through(network.stem, _normalised(network, box(images, ball.eps, ball.bounds), time), time)
    clean = through(network.stem, _normalised(network, box(images, 0, ball.bounds), time), time)
    return flips.widened(clean, network, images, int(ball.eps), ball.bounds, time)


def time_of(network: Network) -> Time:
    """Steps and leak of the network; refuses neurons whose leaks differ."""
    leaks = {neuron.tau for neuron in network.neurons()} or {1.0}
    if len(leaks) > 1:
        raise errors.Refused(f"The neurons have the leaks {sorted(leaks)}; there are bounds for one leak.")
    return Time(network.T, leaks.pop())


def _normalised(network: Network, pixels: Interval, time: Time) -> Interval:
    """The bounds of the network's frames from those of the pixels: of one frame, or of the sums of T frames."""
    mean, std = (torch.tensor(values).double().view(-1, 1, 1) for values in (network.mean, network.std))
    low, high = ((end - mean) / std for end in pixels)
    rounding = time.rounding(2) * torch.maximum(low.abs(), high.abs())
    device = gradients.device_of(network)
    frames = Interval((low - rounding).float().to(device), (high + rounding).float().to(device))
    return (
        spread(frames.map(lambda end: end.transpose(0, 1)), time) if network.events else frames.map(lambda e: e[None])
    )


def _margins(network: Network, x: Interval, labels: Tensor) -> Tensor:
    """By the differences of the head's rows, in which the errors of classes that share a feature cancel."""
    weight, bias = (parameter.cpu().double() for parameter in (network.head.weight, network.head.bias))
    labels = labels.cpu()
    middle, radius = (x.low + x.high) / 2, (x.high - x.low) / 2
    difference = weight[labels][:, None] - weight  # (B, K, features)
    lowest = torch.einsum("bkf,bf->bk", difference, middle) - torch.einsum("bkf,bf->bk", difference.abs(), radius)
    magnitude = torch.maximum(x.low.abs(), x.high.abs()) @ weight.abs().T + bias.abs()
    rounding = time_of(network).rounding(weight.shape[1]) * (magnitude + magnitude.gather(1, labels[:, None]))
    lowest = lowest + bias[labels][:, None] - bias - rounding
    return lowest.scatter(1, labels[:, None], torch.inf).amin(1)


def _refuse(network: Network, eps: float, norm: str, seconds: float | None) -> None:
    if not isinstance(network, Network):
        raise errors.Refused(
            f"network is a {type(network).__name__}; there are bounds for a Network alone, which networks.build makes."
        )
    for given, what in (
        (network.training, "in training mode; call network.eval() first"),
        (network.stochastic, "given random spikes as its input, of which nothing can be proved"),
        (network.precision != "float32", f"computed in {network.precision}; there are bounds for float32 alone"),
        (any(p.dtype != torch.float32 for p in network.parameters()), "not in float32, as its bounds are"),
        (any(neuron.path == "smooth" for neuron in network.neurons()), "smoothed; there are bounds for spikes alone"),
        (not isinstance(network.head, nn.Linear), "read out by another layer than a linear one"),
    ):
        if given:
            raise errors.Refused(f"The network is {what}.")
    for layers_ in (network.stem, network.body):
        refuse_unknown(layers_)
    time_of(network)
    errors.one_of("norm", norm, NORMS)
    errors.number("eps", eps, at_least=0)
    if norm == "l0" and not network.events:
        raise errors.Refused('The norm is "l0" and the network takes images; cells of event data alone can be changed.')
    if norm == "l0" and eps != int(eps):
        raise errors.Refused(f"eps is {eps}; a number of changed cells must be whole.")
    if seconds is not None:
        errors.number("seconds", seconds, above=0)


def _labels(network: Network, images: Tensor, labels: Tensor) -> Tensor:
    if not isinstance(labels, Tensor) or labels.shape != (len(images),) or labels.is_floating_point():
        raise errors.Refused(f"labels must be a tensor of {len(images)} whole numbers, one for each image.")
    return labels.cpu().long()
