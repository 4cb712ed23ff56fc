"""Rows of accuracies, of their differences and gaps, of passes, of the noise's energy, and the choice of λ."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from paperlib.attacks.attack import Attack
from paperlib.attacks.ensembles import AnyAttack, labels_of, members
from paperlib.data.sets import Split
from paperlib.labels import CLEAN, REFERENCE, WORST
from paperlib.measures import statistics
from paperlib.measures.doubts import doubts, union
from paperlib.measures.rows import Flagged, by_labels, by_seed, certain, mean_over_seeds, over_networks_and_samples, row
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


def in_two_phases(strong: Iterable[Evaluation], first: Iterable[Evaluation]) -> list[Evaluation]:
    """`strong` with the flags of a first phase, where there is one among `first`.

    It is the evaluation of the same network on more samples under the first member of the ensemble.  The more expensive
    members then have to be made on few samples only (see `statistics.crossed`).
    """
    phases = {(e.experiment.key, repr(e.attack)): e.flags for e in first}
    pairs = [(e, phases.get((e.experiment.key, repr(members(e.attack)[0])))) for e in strong]
    return [replace(e, wide=flags) for e, flags in pairs]


def accuracy_rows(evaluations: Iterable[Evaluation]) -> list[dict]:
    """One row for each network and attack: the share of samples that it still classifies correctly."""
    return [
        over_networks_and_samples([_flags(e)], quantity="accuracy", doubts=reasons, **e.labels)
        for e, reasons in doubted(evaluations)
    ]


def mean_rows(evaluations: Iterable[Evaluation]) -> list[dict]:
    """One row for each training and attack: that share over networks and samples (see `over_networks_and_samples`)."""
    rows = []
    for labels, group in by_labels(doubted(evaluations), lambda item: item.evaluation.labels):
        flags, reasons = [_flags(e) for e, _ in group], union(item.reasons for item in group)
        rows.append(over_networks_and_samples(flags, quantity="mean accuracy", doubts=reasons, **labels))
    return rows


def _flags(e: Evaluation) -> Flagged:
    return [e.experiment], e.flags, e.wide


def pass_rows(evaluations: Iterable[Evaluation]) -> list[dict]:
    """One row for each training and attack: the mean over seeds of the passes that a sample cost, cut at 0."""
    rows = []
    for labels, group in by_labels(evaluations, lambda e: e.labels):
        passes = [(e.experiment, e.passes.mean(), partial(statistics.bootstrap_mean, e.passes, seed=0)) for e in group]
        rows.append(mean_over_seeds(passes, within=(0, np.inf), quantity="mean passes", **labels))
    return rows


def difference_rows(evaluations: Iterable[Evaluation], training: str, against: str) -> list[dict]:
    """Accuracy of `training` minus that of `against`, paired by seed and sample.

    "difference" is over networks and samples, "paired difference" over the samples of each pair.
    """
    means, pairs = [], []
    attacks = by_labels(doubted(evaluations), lambda item: labels_of(item.evaluation.attack) | item.evaluation.size)
    for attack, group in attacks:
        if matched := by_seed(group, training, against):
            labels = {"training": training, "against": against} | attack
            means.append(mean_difference_row(matched, quantity="difference", **labels))
            pairs += [_pair_row(*pair, quantity="paired difference", **labels) for pair in matched]
    return means + pairs


def mean_difference_row(pairs: Sequence[tuple[Doubted, Doubted]], **labels) -> dict:
    """One row: the share of the first minus the share of the second of each pair, over networks and samples."""
    networks = [_difference(a.evaluation, b.evaluation) for a, b in pairs]
    reasons = union(item.reasons for pair in pairs for item in pair)
    return over_networks_and_samples(networks, within=(-1, 1), doubts=reasons, **labels)


def _difference(a: Evaluation, b: Evaluation) -> Flagged:
    """The flags of `a` minus those of `b`, (n,), and so for the first of two phases, (N,), if both have one."""
    wide = None if a.wide is None or b.wide is None else np.subtract(a.wide, b.wide, dtype=int)
    return [a.experiment, b.experiment], np.subtract(a.flags, b.flags, dtype=int), wide


def contrast_rows(evaluations: Iterable[Evaluation], pairs: Iterable[tuple[AnyAttack, AnyAttack]]) -> list[dict]:
    """Accuracy under one attack minus accuracy under another, for each of `pairs`, of one network on the same samples.

    "mean contrast" is over networks and samples, "contrast" of each network.  Labels of the second attack begin with
    "reference_".
    """
    by_network = {(item.experiment.key, repr(item.evaluation.attack)): item for item in doubted(evaluations)}
    means, single = [], []
    for attack, reference in pairs:
        matched = [
            (item, by_network[key, repr(reference)]) for (key, name), item in by_network.items() if name == repr(attack)
        ]
        for labels, group in by_labels(matched, lambda pair: pair[0].evaluation.labels):
            labels |= {REFERENCE + name: value for name, value in labels_of(reference).items()}
            means.append(mean_difference_row(group, quantity="mean contrast", **labels))
            single += [_pair_row(*pair, quantity="contrast", **labels) for pair in group]
    return means + single


def _pair_row(a: Doubted, b: Doubted, **labels) -> dict:
    """One row of the share of `a` minus the share of `b`, over samples; its method gives McNemar's p too."""
    entry = mean_difference_row([(a, b)], **labels)
    p = statistics.mcnemar(a.evaluation.flags, b.evaluation.flags)
    return entry | {"method": f"{entry['method']}, McNemar p = {p:.2g}"}


def gap_rows(noise: Iterable[Evaluation], attacked: Iterable[Evaluation], *, factors: Sequence[int]) -> list[dict]:
    """Accuracy under noise at k·ε minus accuracy under the attack at ε, for each k of `factors` (claim C1).

    "gap" is of a network, paired by sample, "mean gap" over networks and samples, at each radius ε where both sides
    were evaluated.
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
            networks = [_difference(n, e) for n, e in pairs]
            sets = [("gap", [network]) for network in networks] + ([("mean gap", networks)] if networks else [])
            rows += [over_networks_and_samples(s, within=(-1, 1), quantity=name, **labels) for name, s in sets]
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


def chosen(evaluations: Iterable[Evaluation], tolerance: float, *, baseline: str = "vanilla") -> float:
    """The weight with which a training is most robust, of those that cost at most `tolerance` of clean accuracy.

    `evaluations` are clean and under attack on validation data, of one training with several weights and of `baseline`,
    which stands for the weight 0 and from which the cost is measured.  Of several attacks the worst case decides.
    Accuracies are means over the networks of a weight.
    """
    shares: dict[str, dict[float, list[float]]] = {}  # by attack and weight, one for each network
    for e in evaluations:
        by_weight = shares.setdefault(labels_of(e.attack)["attack"], {})
        by_weight.setdefault(_weight(e.experiment, baseline), []).append(share(e))
    means = {attack: {at: np.mean(values) for at, values in own.items()} for attack, own in shares.items()}
    clean = means.pop(CLEAN)
    (attacked,) = [means[WORST]] if WORST in means else means.values()
    # rounded, as shares are no binary fractions
    allowed = [at for at, accuracy in clean.items() if round(clean[0.0] - accuracy, 9) <= tolerance]
    return max(allowed, key=lambda at: attacked[at])


def share(e: Evaluation) -> float:
    """The share of samples that are still classified correctly, estimated from both phases if there are two."""
    return statistics.two_phase_mean(e.flags, e.flags if e.wide is None else e.wide)


def choice_rows(
    evaluations: Sequence[Evaluation], tolerance: float, *, used: float, baseline: str = "vanilla"
) -> list[dict]:
    """The weight that validation data choose (see `chosen`), then the one that the profile uses."""
    n, experiments = len(evaluations[0].flags), [e.experiment for e in evaluations]
    rule = f"most robust within {100 * tolerance:g} points of clean accuracy, on validation data"
    return [
        row(certain(chosen(evaluations, tolerance, baseline=baseline), n, rule), experiments, quantity="chosen λ"),
        row(certain(used, n, "set in the profile"), experiments, quantity="used λ"),
    ]


def weight_rows(
    evaluations: Iterable[Evaluation],
    sweeps: Mapping[str, Sequence[Experiment]],
    tolerance: float,
    *,
    used: Callable[[str], float],
) -> list[dict]:
    """For each training of `sweeps`: the accuracies with each weight, the weight chosen and the one that is `used`.

    `sweeps` holds the networks of a training, those of its baseline first (see `chosen`), on validation data.
    """
    rows = []
    evaluations = list(evaluations)
    for training, networks in sweeps.items():
        baseline, keys = networks[0].defense, {e.key for e in networks}
        own = [e for e in evaluations if e.experiment.key in keys]
        weights = [(_weight(e.experiment, baseline), e) for e in own]
        for at, group in by_labels(weights, lambda pair: {"weight": pair[0]}):
            rows += [entry | at | {"of": training} for entry in mean_rows(e for _, e in group)]
        choice = choice_rows(own, tolerance, used=used(training), baseline=baseline)
        rows += [entry | {"of": training} for entry in choice]
    return rows


def _weight(experiment: Experiment, baseline: str) -> float:
    """The weight of a network's penalty; the networks of `baseline` stand for 0."""
    return 0.0 if experiment.defense == baseline else experiment.weight


def apart(
    evaluations: Iterable[Evaluation], labels: Callable[[Experiment], dict], measure: Callable[..., list[dict]]
) -> list[dict]:
    """The rows of `measure` for each group of evaluations whose networks have the same `labels`, with these labels."""
    groups = by_labels(evaluations, lambda e: labels(e.experiment))
    return [entry | common for common, group in groups for entry in measure(group)]
