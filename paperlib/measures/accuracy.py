"""Flags → accuracies, their differences and gaps; and how much of the noise clamping leaves."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np

from paperlib.attacks.attack import Attack
from paperlib.attacks.ensembles import AnyAttack, labels_of
from paperlib.data.sets import Split
from paperlib.labels import CLEAN, REFERENCE
from paperlib.measures import statistics
from paperlib.measures.doubts import doubts, union
from paperlib.measures.rows import by_labels, certain, mean_over_seeds, over_seeds, row
from paperlib.store.evaluations import Evaluation
from paperlib.store.experiment import Experiment
from paperlib.theory import gradients


def accuracy_rows(evaluations: Iterable[Evaluation]) -> list[dict]:
    """One row a network and attack: the share of samples still classified correctly, with Wilson's interval."""
    return [
        row(statistics.wilson(e.flags), [e.experiment], quantity="accuracy", doubts=why, **e.labels)
        for e, why in doubted(evaluations)
    ]


def mean_rows(evaluations: Iterable[Evaluation]) -> list[dict]:
    """One row a training and attack: the mean of that share over seeds, with Student's t interval cut to [0, 1].

    With a single seed there is no interval over seeds: the row is that network's own, over samples.
    """
    return [
        over_seeds(
            [(e.experiment, e.flags) for e, _ in group],
            quantity="mean accuracy",
            doubts=union(why for _, why in group),
            **labels,
        )
        for labels, group in by_labels(doubted(evaluations), lambda item: item[0].labels)
    ]


def pass_rows(evaluations: Iterable[Evaluation]) -> list[dict]:
    """One row a training and attack: forward and backward passes it cost per sample, the mean over seeds."""
    return [
        mean_over_seeds(
            [(e.experiment, e.passes.mean(), partial(statistics.bootstrap_mean, e.passes, seed=0)) for e in group],
            within=(0, np.inf),
            quantity="mean passes",
            **labels,
        )
        for labels, group in by_labels(evaluations, lambda e: e.labels)
    ]


def difference_rows(evaluations: Iterable[Evaluation], training: str, against: str) -> list[dict]:
    """One row an attack: accuracy of `training` minus that of `against`, paired by seed, with its t interval.

    Then one row a pair of networks, which share their samples: Bonett and Price's interval, McNemar's p beside it.
    """
    by_attack = by_labels(doubted(evaluations), lambda item: labels_of(item[0].attack) | item[0].size)
    means, pairs = [], []
    for attack, group in by_attack:
        others = {e.experiment.seed: (e, why) for e, why in group if e.experiment.defense == against}
        matched = [
            (e, why, *others[e.experiment.seed])
            for e, why in group
            if e.experiment.defense == training and e.experiment.seed in others
        ]
        if not matched:
            continue
        labels = {"training": training, "against": against} | attack
        interval = statistics.paired_t([a.flags.mean() for a, *_ in matched], [b.flags.mean() for *_, b, _ in matched])
        both = [e.experiment for a, _, b, _ in matched for e in (a, b)]
        reasons = union(why for _, first, _, second in matched for why in (first, second))
        means.append(row(interval, both, quantity="difference", doubts=reasons, **labels))
        for a, first, b, second in matched:
            reasons = union([first, second])
            experiments = [a.experiment, b.experiment]
            pairs.append(row(_paired(a, b), experiments, quantity="paired difference", doubts=reasons, **labels))
    return means + pairs


def contrast_rows(evaluations: Iterable[Evaluation], pairs: Iterable[tuple[AnyAttack, AnyAttack]]) -> list[dict]:
    """Accuracy under one attack minus accuracy under another, for each of `pairs`, of one network on the same samples.

    A row a training, the mean over seeds (see `mean_over_seeds`), then a row a network: Bonett and Price's interval,
    McNemar's p beside it.  The labels of the second attack have "reference_" before their names.
    """
    by_network = {(e.experiment.key, repr(e.attack)): (e, why) for e, why in doubted(evaluations)}
    means, single = [], []
    for attack, reference in pairs:
        matched = [
            (*one, *by_network[key, repr(reference)]) for (key, name), one in by_network.items() if name == repr(attack)
        ]
        for labels, group in by_labels(matched, lambda one: one[0].labels):
            labels |= {REFERENCE + name: value for name, value in labels_of(reference).items()}
            networks = []
            for a, first, b, second in group:
                interval = _paired(a, b)
                networks.append((a.experiment, interval.value, interval._replace))
                reasons = union([first, second])
                single.append(row(interval, [a.experiment], quantity="contrast", doubts=reasons, **labels))
            reasons = union(why for _, first, _, second in group for why in (first, second))
            means.append(mean_over_seeds(networks, within=(-1, 1), quantity="mean contrast", doubts=reasons, **labels))
    return means + single


def _paired(a: Evaluation, b: Evaluation) -> statistics.Interval:
    """Share of `a` minus share of `b`, which are of the same samples; its method gives McNemar's p too."""
    interval = statistics.paired_difference(a.flags, b.flags)
    return interval._replace(method=f"{interval.method}, McNemar p = {statistics.mcnemar(a.flags, b.flags):.2g}")


def doubted(evaluations: Iterable[Evaluation]) -> list[tuple[Evaluation, list[str]]]:
    """Each evaluation with the reasons to doubt it, in the same order."""
    evaluations = list(evaluations)
    reasons: dict[int, list[str]] = {}
    for _, group in by_labels(enumerate(evaluations), lambda item: {"network": item[1].experiment.key}):
        places, own = zip(*group, strict=True)
        reasons |= dict(zip(places, doubts(own), strict=True))
    return [(e, reasons[place]) for place, e in enumerate(evaluations)]


def gap_rows(noise: Iterable[Evaluation], attacked: Iterable[Evaluation], *, factors: Sequence[int]) -> list[dict]:
    """Accuracy under noise at k·ε minus accuracy under the attack at ε, for each k of `factors` (claim C1).

    A row a network, paired over its samples, and a row over seeds.  Radii at which either side was not evaluated are
    left out.
    """
    rows = []
    by_network = {(e.experiment.key, e.attack.name, *e.size.items()): e for e in noise}
    laws = dict.fromkeys(law for _, law, _ in by_network)
    for labels, group in by_labels(attacked, lambda e: e.labels):
        ((unit, eps),) = group[0].size.items()
        for law in laws:
            for k in factors:
                pairs = [(by_network.get((e.experiment.key, law, (unit, round(k * eps, 6)))), e) for e in group]
                pairs = [(n, a) for n, a in pairs if n is not None]
                if not pairs:
                    continue
                of_noise = labels | {"noise": law, "factor": k}
                for n, a in pairs:
                    interval = statistics.paired_difference(n.flags, a.flags)
                    rows.append(row(interval, [a.experiment], quantity="gap", **of_noise))
                mean = statistics.paired_t([n.flags.mean() for n, _ in pairs], [a.flags.mean() for _, a in pairs])
                rows.append(row(mean, [a.experiment for _, a in pairs], quantity="mean gap", **of_noise))
    return rows


def energy_rows(samples: Split, radii: Sequence[Attack]) -> list[dict]:
    """Share of the noise's energy ‖δ‖₂² that is left after clamping to the bounds, per law and radius, over samples."""
    x, rows = samples.pixels(), []
    for attack in radii:
        perturb = attack.bind(seed=0, index=samples.index)
        clamped = perturb(None, x, samples.labels, bounds=samples.bounds) - x
        free = perturb(None, x, samples.labels, bounds=(-np.inf, np.inf)) - x
        share = (gradients.l2(clamped) / gradients.l2(free)).square().numpy()
        labels = attack.labels | {"eps_255": round(attack.eps * 255, 6)}
        rows.append(row(statistics.bootstrap_mean(share, seed=0), [], quantity="noise energy kept", **labels))
    return rows


def chosen(evaluations: Iterable[Evaluation], tolerance: float) -> float:
    """The λ that validation data choose.

    Of all λ whose mean clean accuracy lies at most `tolerance` below that of λ = 0 (vanilla), the one with the highest
    mean accuracy under attack.  `evaluations` holds clean images and one attack for each network.
    """
    means: dict[float, dict[bool, float]] = {}
    for labels, group in by_labels(evaluations, lambda e: e.labels):
        accuracy = float(np.mean([e.flags.mean() for e in group]))
        means.setdefault(labels.get("lam", 0.0), {})[labels["attack"] == CLEAN] = accuracy
    lost = {lam: round(means[0.0][True] - mean[True], 9) for lam, mean in means.items()}  # shares are not exact binary
    allowed = [lam for lam in means if lost[lam] <= tolerance]
    return max(allowed, key=lambda lam: means[lam][False])


def choice_rows(evaluations: Sequence[Evaluation], tolerance: float, *, used: float) -> list[dict]:
    """The λ that validation data choose (see `chosen`), beside the one that the profile uses."""
    n, experiments = len(evaluations[0].flags), [e.experiment for e in evaluations]
    method = f"best under attack within {tolerance:g} of clean accuracy, on validation data"
    return [
        row(certain(value, n, how), experiments, quantity=name)
        for name, value, how in (
            ("chosen λ", chosen(evaluations, tolerance), method),
            ("used λ", used, "set in the profile"),
        )
    ]


def apart(
    evaluations: Iterable[Evaluation],
    labels: Callable[[Experiment], dict],
    measure: Callable[[list[Evaluation]], list[dict]],
) -> list[dict]:
    """The rows that `measure` makes of each part of `evaluations`, parted and labelled by `labels`.

    For networks that differ by more than the labels of their training.
    """
    parts = by_labels(evaluations, lambda e: labels(e.experiment))
    return [entry | common for common, part in parts for entry in measure(part)]
