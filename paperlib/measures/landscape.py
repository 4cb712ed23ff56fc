"""Rows of the loss along lines through an image, in the attack's direction and in a random one, and the plane of both.

A gradient is *masked* where following it raises the loss no more than noise does (Athalye et al., arXiv 1802.00420).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from paperlib import errors, records
from paperlib.attacks.core import Bounds, sign_noise
from paperlib.data.sets import Split
from paperlib.measures import statistics
from paperlib.measures.rows import BATCH, NOTHING, median, row
from paperlib.store.experiment import Experiment, Opened
from paperlib.theory.gradients import Network, cross_entropy, device_of, in_batches, loss_gradient

ATTACK, RANDOM = DIRECTIONS = ("attack", "random")


class Landscape(NamedTuple):
    """The loss of one network along both directions d from N images x, at T lengths t that are symmetric around 0."""

    experiment: Experiment
    t_255: np.ndarray  # (T,), in units of 1/255
    loss: dict[str, np.ndarray]  # by direction: cross-entropy at x + t·d, (N, T)
    right: dict[str, np.ndarray]  # by direction: whether x + t·d is classified correctly, (N, T) bool
    flat: np.ndarray  # whether the gradient at x is exactly 0, so that the attack has no direction, (N,) bool


def agreed(networks: Iterable[Opened], samples: Split) -> Split:
    """Those of `samples` that every network classifies correctly.  There may be none."""
    right = torch.ones(len(samples), dtype=torch.bool)
    for _, network in networks:
        logits = in_batches(network, samples.pixels().to(device_of(network)), BATCH)
        right &= logits.argmax(1).cpu() == samples.labels
    return replace(samples, images=samples.images[right], labels=samples.labels[right], index=samples.index[right])


def landscapes(networks: Iterable[Opened], samples: Split, *, reach_255: float, points: int) -> list[Landscape]:
    """Each network's loss at x + t·d, clamped to the samples' bounds, for t from -`reach_255` to `reach_255`, in 1/255.

    d is sign ∇ₓ of the loss, or random signs, drawn by a sample's index.  `points` lengths lie on either side of t = 0.
    """
    t_255, found = _lengths(reach_255, points), []
    empty = np.empty((0, len(t_255)))
    for experiment, network in networks:
        parts, flat = {direction: [(empty, empty.astype(bool))] for direction in DIRECTIONS}, [np.empty(0, bool)]
        for image, label, index in samples.batches(BATCH) if len(samples) else ():
            x, y = image.to(device_of(network)), label.to(device_of(network))
            directions = _directions(network, x, y, index)
            flat.append((directions[ATTACK] == 0).flatten(1).all(1).cpu().numpy())
            for name, d in directions.items():
                parts[name].append(_evaluated(network, x + _spread(t_255, x) * d, y, samples.bounds))
        loss, right = ({d: np.concatenate([part[i] for part in parts[d]]) for d in DIRECTIONS} for i in (0, 1))
        found.append(Landscape(experiment, t_255, loss, right, np.concatenate(flat)))
    return found


def roughness(loss: np.ndarray) -> np.ndarray:
    """1 - |net change| / total variation along each path: losses (N, T) → (N,), in [0, 1].

    0 where the loss only rises or only falls, also in stairs as that of a spiking network; 1 where it ends where it
    began; NaN where it never changes.  A finer grid finds more steps that are undone: compare numbers of one grid.
    """
    steps = np.diff(loss, axis=1)
    total, net = np.abs(steps).sum(1), np.abs(steps.sum(1))
    share = np.divide(net, total, out=np.full(len(loss), np.nan), where=total > 0)
    return np.maximum(1 - share, 0)  # the sums are rounded


def landscape_rows(found: Sequence[Landscape]) -> list[dict]:
    """At each t the median loss and the share classified correctly; the median roughness where the loss changes."""
    rows = []
    for f in found:
        networks, labels = [f.experiment], f.experiment.labels
        for direction in DIRECTIONS:
            loss, right = f.loss[direction], f.right[direction]
            for i, t in enumerate(f.t_255):
                place = labels | {"direction": direction, "t_255": float(t)}
                rows.append(row(median(loss[:, i]), networks, quantity="loss", **place))
                rows.append(row(_share(right[:, i]), networks, quantity="still correct", **place))
            rough = roughness(loss[:, len(f.t_255) // 2 :])  # from t = 0 outwards
            interval = median(rough[np.isfinite(rough)])
            rows.append(row(interval, networks, quantity="roughness", direction=direction, **labels))
        rows.append(row(_share(f.flat), networks, quantity="zero gradient", **labels))
    return rows


def landscape_curves(found: Sequence[Landscape]) -> dict:
    """The losses of single images, for a record's arrays: "t_255" (T,); "loss" by training and direction, (N, T)."""
    loss = {f.experiment.defense: {d: records.array(f.loss[d]) for d in DIRECTIONS} for f in found}
    return {"t_255": records.array(found[0].t_255), "loss": loss}


def landscape_plane(networks: Iterable[Opened], samples: Split, *, reach_255: float, points: int) -> dict:
    """The loss over the plane of both directions from the first of `samples`, if there is one, for a record's arrays.

    "t_255" (T,) as in `landscapes`, "image" (C, H, W), and by training "loss" and "right" (T, T): columns along the
    attack's direction, rows along the random one.
    """
    t_255 = _lengths(reach_255, points)
    plane = {"t_255": records.array(t_255), "loss": {}, "right": {}}
    if not len(samples):
        return plane
    ((image, label, index),) = samples.take(1).batches(1)
    plane["image"] = records.array(image[0])
    for experiment, network in networks:
        x, y = image.to(device_of(network)), label.to(device_of(network))
        t = _spread(t_255, x)
        attack, random = _directions(network, x, y, index).values()
        places = x + t * attack + t[:, None] * random  # (T, T, 1, C, H, W), the random direction first
        loss, right = _evaluated(network, places.flatten(0, 1), y, samples.bounds)
        plane["loss"][experiment.defense] = records.array(loss.reshape(len(t), len(t)))
        plane["right"][experiment.defense] = right.reshape(len(t), len(t)).tolist()
    return plane


def _evaluated(network: Network, places: Tensor, labels: Tensor, bounds: Bounds) -> tuple[np.ndarray, np.ndarray]:
    """Loss and correctness (B, P) at `places` (P, B, C, H, W), clamped to `bounds`; `labels` are (B,)."""
    logits = in_batches(network, places.flatten(0, 1).clamp(*bounds), BATCH)
    targets = labels.repeat(len(places))
    values = _loss(logits, targets), logits.argmax(1) == targets
    return tuple(v.view(len(places), -1).T.cpu().numpy() for v in values)


def _directions(network: Network, x: Tensor, y: Tensor, index: Tensor) -> dict[str, Tensor]:
    """The attack's direction from `x` by the network's own backward rule, and a random one, of the shape of `x`."""
    return {ATTACK: loss_gradient(network, x, y, None, loss=_loss)[1].sign(), RANDOM: sign_noise(x, 0, index)}


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy (B,) in 64 bits; in 32 bits that of a confident network rounds to 0."""
    return cross_entropy(logits.double(), labels)


def _lengths(reach_255: float, points: int) -> np.ndarray:
    """The grid of `landscapes`, (2·points + 1,) in 1/255; refuses what would not be one."""
    errors.number("reach_255", reach_255, above=0)
    errors.count("points", points)
    return np.arange(-points, points + 1) / points * reach_255  # 0 itself in the middle


def _spread(t_255: np.ndarray, x: Tensor) -> Tensor:
    """Lengths (T,) as (T, 1, ...), in pixels, to be multiplied with a batch like `x`."""
    return torch.from_numpy(t_255 / 255).to(x).view(-1, *[1] * x.dim())


def _share(flags: np.ndarray) -> statistics.Interval:
    return statistics.wilson(flags) if len(flags) else NOTHING._replace(method="no image is classified correctly")
