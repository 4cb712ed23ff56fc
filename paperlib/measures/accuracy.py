"""Rows of accuracies, of their differences and gaps, of passes, of the noise's energy, and the choice of λ."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from paperlib.attacks.attack import Attack
from paperlib.attacks.ensembles import AnyAttack, labels_of
from paperlib.data.sets import Split
from paperlib.labels import CLEAN, REFERENCE
from paperlib.measures import statistics
from paperlib.measures.doubts import doubts, union
from paperlib.measures.rows import by_labels, certain, mean_over_seeds, over_seeds, row
from paperlib.store.evaluations import Evaluation
from paperlib.store.experiment import AnyExperiment, Experiment
from paperlib.theory import gradients


class Doubted(NamedTuple):
    """An evaluation with the reasons to doubt its number, mostly none."""

    evaluation: Evaluation
    reasons: list[str]

    @property
    def experiment(self) -> AnyExperiment:
        return self.evaluation.experiment


def doubted(evaluations: Iterable[Evaluation]) -> list[Doubted]:
    """Each evaluation with the reasons to doubt it, in the same order; only evaluations of one network are compared."""
    evaluations = list(evaluations)
    reasons: dict[int, list[str]] = {}  # by the evaluation's id
    for _, group in by_labels(evaluations, lambda e: {"network": e.experiment.key}):
        reasons |= zip(map(id, group), doubts(group), strict=True)
    return [Doubted(e, reasons[id(e)]) for e in evaluations]


def accuracy_rows(evaluations: Iterable[Evaluation]) -> list[dict]:
    """One row for each network and attack: the share of samples still classified correctly, with Wilson's interval."""
    return [
        row(statistics.wilson(e.flags), [e.experiment], quantity="accuracy", doubts=reasons, **e.labels)
        for e, reasons in doubted(evaluations)
    ]


def mean_rows(evaluations: Iterable[Evaluation]) -> list[dict]:
    """One row for each training and attack: that share's mean over seeds, cut to [0, 1] (see `mean_over_seeds`)."""
    rows = []
    for labels, group in by_labels(doubted(evaluations), lambda item: item.evaluation.labels):
        flags, reasons = [(e.experiment, e.flags) for e, _ in group], union(item.reasons for item in group)
        rows.append(over_seeds(flags, quantity="mean accuracy", doubts=reasons, **labels))
    return rows


def pass_rows(evaluations: Iterable[Evaluation]) -> list[dict]:
    """One row for each training and attack: the mean over seeds of the passes that a sample cost, cut at 0."""
    rows = []
    for labels, group in by_labels(evaluations, lambda e: e.labels):
        passes = [(e.experiment, e.passes.mean(), partial(statistics.bootstrap_mean, e.passes, seed=0)) for e in group]
        rows.append(mean_over_seeds(passes, within=(0, np.inf), quantity="mean passes", **labels))
    return rows


def difference_rows(evaluations: Iterable[Evaluation], training: str, against: str) -> list[dict]:
    """Accuracy of `training` minus that of `against`: "difference", paired by seed; "paired difference", by sample."""
    means, pairs = [], []
    attacks = by_labels(doubted(evaluations), lambda item: labels_of(item.evaluation.attack) | item.evaluation.size)
    for attack, group in attacks:
        others = {item.experiment.seed: item for item in group if item.experiment.defense == against}
        mine = [item for item in group if item.experiment.defense == training]
        matched = [(item, others[item.experiment.seed]) for item in mine if item.experiment.seed in others]
        if not matched:
            continue
        labels = {"training": training, "against": against} | attack
        interval = statistics.paired_t(*([e.flags.mean() for e, _ in side] for side in zip(*matched, strict=True)))
        experiments = [item.experiment for pair in matched for item in pair]
        reasons = union(item.reasons for pair in matched for item in pair)
        means.append(row(interval, experiments, quantity="difference", doubts=reasons, **labels))
        pairs += [_pair_row(*pair, quantity="paired difference", **labels) for pair in matched]
    return means + pairs


def contrast_rows(evaluations: Iterable[Evaluation], pairs: Iterable[tuple[AnyAttack, AnyAttack]]) -> list[dict]:
    """Accuracy under one attack minus accuracy under another, for each of `pairs`, of one network on the same samples.

    "mean contrast" is over seeds, "contrast" of each network.  Labels of the second attack begin with "reference_".
    """
    by_network = {(item.experiment.key, repr(item.evaluation.attack)): item for item in doubted(evaluations)}
    means, single = [], []
    for attack, reference in pairs:
        matched = [
            (item, by_network[key, repr(reference)]) for (key, name), item in by_network.items() if name == repr(attack)
        ]
        for labels, group in by_labels(matched, lambda pair: pair[0].evaluation.labels):
            labels |= {REFERENCE + name: value for name, value in labels_of(reference).items()}
            networks = [(a.experiment, _paired(a, b).value, partial(_paired, a, b)) for a, b in group]
            reasons = union(item.reasons for pair in group for item in pair)
            means.append(mean_over_seeds(networks, within=(-1, 1), quantity="mean contrast", doubts=reasons, **labels))
            single += [_pair_row(*pair, quantity="contrast", **labels) for pair in group]
    return means + single


def _pair_row(a: Doubted, b: Doubted, **labels) -> dict:
    """One row of the share of `a` minus the share of `b`."""
    return row(_paired(a, b), [a.experiment, b.experiment], doubts=union([a.reasons, b.reasons]), **labels)


def _paired(a: Doubted, b: Doubted) -> statistics.Interval:
    """The share of `a` minus the share of `b`, which are of the same samples; its method gives McNemar's p too."""
    flags = a.evaluation.flags, b.evaluation.flags
    interval = statistics.paired_difference(*flags)
    return interval._replace(method=f"{interval.method}, McNemar p = {statistics.mcnemar(*flags):.2g}")


def gap_rows(noise: Iterable[Evaluation], attacked: Iterable[Evaluation], *, factors: Sequence[int]) -> list[dict]:
    """Accuracy under noise at k·ε minus accuracy under the attack at ε, for each k of `factors` (claim C1).

    "gap" is of a network, paired by sample, "mean gap" over seeds, at each radius ε where both sides were evaluated.
    """
    rows = []
    by_network = {(e.experiment.key, e.attack.name, *e.size.items()): e for e in noise}
    laws = dict.fromkeys(law for _, law, _ in by_network)
    for attack, group in by_labels(attacked, lambda e: e.labels):
        ((unit, eps),) = group[0].size.items()
        for law, k in itertools.product(laws, factors):
            radius = (unit, round(k * eps, 6))
            places = [(e.experiment.key, law, radius) for e in group]
            pairs = [(by_network[place], e) for place, e in zip(places, group, strict=True) if place in by_network]
            labels = attack | {"noise": law, "factor": k}
            for n, e in pairs:
                interval = statistics.paired_difference(n.flags, e.flags)
                rows.append(row(interval, [e.experiment], quantity="gap", **labels))
            if pairs:
                mean = statistics.paired_t([n.flags.mean() for n, _ in pairs], [e.flags.mean() for _, e in pairs])
                rows.append(row(mean, [e.experiment for _, e in pairs], quantity="mean gap", **labels))
    return rows


def energy_rows(samples: Split, radii: Sequence[Attack]) -> list[dict]:
    """One row for each of `radii`, which draw noise alone: the mean share of its energy ‖δ‖₂² that clamping leaves."""
    x, rows = samples.pixels(), []
    for attack in radii:
        perturb = attack.bind(seed=0, index=samples.index)
        clamped = perturb(None, x, samples.labels, bounds=samples.bounds) - x
        free = perturb(None, x, samples.labels, bounds=(-np.inf, np.inf)) - x
        share = (gradients.l2(clamped) / gradients.l2(free)).square().numpy()
        mean, radius = statistics.bootstrap_mean(share, seed=0), round(attack.eps * 255, 6)
        rows.append(row(mean, [], quantity="noise energy kept", **attack.labels, eps_255=radius))
    return rows


def chosen(evaluations: Iterable[Evaluation], tolerance: float) -> float:
    """The λ of the highest mean accuracy under attack that loses at most `tolerance` of the clean accuracy at λ = 0."""
    clean: dict[float, float] = {}  # mean accuracies by λ
    attacked: dict[float, float] = {}
    for labels, group in by_labels(evaluations, lambda e: e.labels):
        means = clean if labels["attack"] == CLEAN else attacked
        means[labels.get("lam", 0.0)] = float(np.mean([e.flags.mean() for e in group]))
    # rounded, as shares are no binary fractions
    allowed = [lam for lam, accuracy in clean.items() if round(clean[0.0] - accuracy, 9) <= tolerance]
    return max(allowed, key=lambda lam: attacked[lam])


def choice_rows(evaluations: Sequence[Evaluation], tolerance: float, *, used: float) -> list[dict]:
    """The λ that validation data choose (see `chosen`), then the one that the profile uses."""
    n, experiments = len(evaluations[0].flags), [e.experiment for e in evaluations]
    rule = f"best under attack within {tolerance:g} of clean accuracy, on validation data"
    return [
        row(certain(chosen(evaluations, tolerance), n, rule), experiments, quantity="chosen λ"),
        row(certain(used, n, "set in the profile"), experiments, quantity="used λ"),
    ]


def apart(
    evaluations: Iterable[Evaluation], labels: Callable[[Experiment], dict], measure: Callable[..., list[dict]]
) -> list[dict]:
    """The rows of `measure` for each group of evaluations whose networks have the same `labels`, with these labels."""
    groups = by_labels(evaluations, lambda e: labels(e.experiment))
    return [entry | common for common, group in groups for entry in measure(group)]
