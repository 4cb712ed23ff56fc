"""Rows of certified accuracy: the share of samples on which no perturbation within ε changes the right decision."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from paperlib import errors
from paperlib.certificates import certify
from paperlib.data.sets import Split
from paperlib.measures.doubts import CONTRADICTED, union
from paperlib.measures.rows import by_labels, by_seed, certain, over_networks_and_samples, row
from paperlib.store import evaluations
from paperlib.store.experiment import AnyExperiment, Opened

WITHIN = ("linf", "l2")  # norms whose ball lies within the ball of l∞


class Certified(NamedTuple):
    """One network with the certificates of N samples at one radius."""

    experiment: AnyExperiment
    eps: float  # in the units of the samples
    flags: np.ndarray  # (N,) bool: certified

    @property
    def labels(self) -> dict:
        """The labels of a record's row: training and radius."""
        return self.experiment.labels | self.size

    @property
    def size(self) -> dict:
        """The radius, as a label of a record's row."""
        return evaluations.radius(self.experiment, self.eps)


def certified(networks: Iterable[Opened], samples: Split, radii: Sequence[float]) -> list[Certified]:
    """Which samples are certified for each network at each of `radii`, which are in the units of the samples.

    What has no certificate at a radius is not tried at a larger one.  Refuses radii of 0 or less.
    """
    errors.refuse_while_planning("certifies")
    x, found = samples.pixels(), []
    for experiment, network in networks:
        flags = torch.ones(len(samples), dtype=torch.bool)
        for eps in sorted(radii):
            errors.number("eps", eps, above=0)
            left = flags.nonzero()[:, 0]
            result = certify(network, x[left], samples.labels[left], eps=eps, bounds=samples.bounds)
            flags = torch.zeros_like(flags).index_fill(0, left[result.certified], True)
            found.append(Certified(experiment, eps, flags.numpy()))
    return found


def certified_rows(found: Iterable[Certified]) -> list[dict]:
    """One row for each training and radius: the share of certified samples over networks and samples."""
    groups = by_labels(found, lambda c: c.labels)
    return [
        over_networks_and_samples(
            [([c.experiment], c.flags, None) for c in group], quantity="mean certified accuracy", **common
        )
        for common, group in groups
    ]


def difference_rows(found: Iterable[Certified], training: str, against: str) -> list[dict]:
    """Certified accuracy of `training` minus that of `against` at each radius, paired by seed and sample."""
    rows = []
    for size, group in by_labels(found, lambda c: c.size):
        if pairs := by_seed(group, training, against):
            changes = [([a.experiment, b.experiment], np.subtract(a.flags, b.flags, dtype=int), None) for a, b in pairs]
            common = {"quantity": "certified difference", "training": training, "against": against} | size
            rows.append(over_networks_and_samples(changes, within=(-1, 1), **common))
    return rows


class Check(NamedTuple):
    """The certificates of one network beside all attacks on it whose flags are on disk."""

    experiment: AnyExperiment
    certified: int  # images and radii that are certified
    broken: int  # those of them that an attack within the radius broke: 0, unless certificate or attack is wrong


def checks(found: Iterable[Certified], *, split: str = "test") -> list[Check]:
    """For each network, how its certified samples fared under all attacks whose flags are on disk.

    `split` is that of the samples.  The first samples of a split are the same in every evaluation.  How many attacks
    are on disk depends on what has run before, so they are not counted.
    """
    result = []
    for _, group in by_labels(found, lambda c: {"network": c.experiment.key}):
        stored, broken = list(evaluations.stored(group[0].experiment, split=split)), 0
        for c in group:
            lost = np.zeros(len(c.flags), dtype=bool)
            for attack, flags in stored:
                if attack.norm in WITHIN and attack.eps <= c.eps:
                    lost[: len(flags)] |= flags[: len(lost)] == 0
            broken += int((lost & c.flags).sum())
        result.append(Check(group[0].experiment, sum(int(c.flags.sum()) for c in group), broken))
    return result


def check_rows(found: Iterable[Check]) -> list[dict]:
    """One row for each training: how many of `n` certified images and radii an attack broke."""
    return [
        row(
            certain(sum(c.broken for c in group), sum(c.certified for c in group)),
            [c.experiment for c in group],
            quantity="certified images broken",
            **common,
        )
        for common, group in by_labels(found, lambda c: c.experiment.labels)
    ]


def doubted(rows: Iterable[dict], found: Iterable[Check]) -> list[dict]:
    """The same rows, with a doubt at every number of a network of which an attack broke a certified image."""
    wrong = {c.experiment.key for c in found if c.broken}
    return [
        entry | {"doubts": union([entry.get("doubts", []), [CONTRADICTED]])}
        if wrong.intersection(entry["experiments"])
        else entry
        for entry in rows
    ]
