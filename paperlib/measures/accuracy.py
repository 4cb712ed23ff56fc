"""Flags → accuracies, their differences and gaps; and how much of the noise clamping leaves."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np

from paperlib.attacks.attack import Attack
from paperlib.attacks.ensembles import AnyAttack
from paperlib.data.sets import Split
from paperlib.measures import statistics
from paperlib.measures.doubts import doubts, union
from paperlib.measures.rows import by_labels, mean_over_seeds, over_seeds, row
from paperlib.store.evaluations import Evaluation
from paperlib.store.experiment import Experiment
from paperlib.theory import gradients


def accuracy_rows(evaluations: Iterable[Evaluation]) -> list[dict]:
    """One row a network and attack: the share of samples still classified correctly, with Wilson's interval."""
    return [
        row(statistics.wilson(e.flags), [e.experiment], quantity="accuracy", doubts=why, **e.labels)
        for e, why in _doubted(evaluations)
    ]


def mean_rows(evaluations: Iterable[Evaluation]) -> list[dict]:
    """One row a training and attack: the mean of that share over seeds, with Student's t interval cut to [0, 1].

    A single seed has no such interval; its row is that network's own, over samples, and its method says so.
    """
    return [
        over_seeds(
            [(e.experiment, e.flags) for e, _ in group],
            quantity="mean accuracy",
            doubts=union(why for _, why in group),
            **labels,
        )
        for labels, group in by_labels(_doubted(evaluations), lambda item: item[0].labels)
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

    Then one row a pair of networks, which meet on the same samples: Bonett and Price's interval, McNemar's p beside it.
    """
    found = {(e.experiment.defense, e.labels["attack"], *e.size.items(), e.experiment.seed): (e, why)
             for e, why in _doubted(evaluations)}  # fmt: skip
    means, pairs = [], []
    for attack, radius in dict.fromkeys((a, s) for _, a, s, _ in found):
        met = [
            (*one, *found[against, attack, radius, seed])
            for (name, a, s, seed), one in found.items()
            if (name, a, s) == (training, attack, radius) and (against, attack, radius, seed) in found
        ]
        if not met:
            continue
        labels = {"training": training, "against": against, "attack": attack} | dict([radius])
        interval = statistics.paired_t([a.flags.mean() for a, *_ in met], [b.flags.mean() for _, _, b, _ in met])
        both = [e.experiment for a, _, b, _ in met for e in (a, b)]
        doubted = union(why for _, first, _, second in met for why in (first, second))
        means.append(row(interval, both, quantity="difference", doubts=doubted, **labels))
        for a, first, b, second in met:
            of = [a.experiment, b.experiment]
            told = {"quantity": "paired difference", "doubts": union([first, second])}
            pairs.append(row(_on_the_same(a, b), of, **told, **labels))
    return means + pairs


def contrast_rows(evaluations: Iterable[Evaluation], pairs: Iterable[tuple[AnyAttack, AnyAttack]]) -> list[dict]:
    """Accuracy under one attack minus accuracy under another, for each of `pairs`, of one network on the same samples.

    A row a training, the mean over seeds (see `mean_over_seeds`), then a row a network: Bonett and Price's interval,
    McNemar's p beside it.  The second attack is the row's `reference`.
    """
    found = {(e.experiment.key, repr(e.attack)): (e, why) for e, why in _doubted(evaluations)}
    means, single = [], []
    for attack, reference in pairs:
        met = [(*one, *found[key, repr(reference)]) for (key, name), one in found.items() if name == repr(attack)]
        for labels, group in by_labels(met, lambda one: one[0].labels):
            labels |= {"reference": "clean" if reference is None else reference.title}
            own = []
            for a, first, b, second in group:
                interval = _on_the_same(a, b)
                own.append((a.experiment, interval.value, interval._replace))
                told = {"quantity": "contrast", "doubts": union([first, second])}
                single.append(row(interval, [a.experiment], **told, **labels))
            doubted = union(why for _, first, _, second in group for why in (first, second))
            means.append(mean_over_seeds(own, within=(-1, 1), quantity="mean contrast", doubts=doubted, **labels))
    return means + single


def rule_rows(rows: Iterable[dict], attacks: Iterable[AnyAttack]) -> list[dict]:
    """`rows`, each that is of one of `attacks` labelled with its backward rule, that rule's width `gamma`, its steps.

    The rule of an attack that brings none is the network's "own".  Ensembles and clean images stay as they are.
    """
    labels = {
        attack.title: {"rule": "own"}
        | {"rule" if label == "name" else label: value for label, value in attack.rule.items()}
        | {"steps": attack.options["steps"]}
        for attack in attacks
        if isinstance(attack, Attack)
    }
    return [row | labels.get(row["attack"], {}) for row in rows]


def _on_the_same(a: Evaluation, b: Evaluation) -> statistics.Interval:
    """Share of `a` minus share of `b`, which are of the same samples; its method tells McNemar's p too."""
    interval = statistics.paired_difference(a.flags, b.flags)
    return interval._replace(method=f"{interval.method}, McNemar p = {statistics.mcnemar(a.flags, b.flags):.2g}")


def _doubted(evaluations: Iterable[Evaluation]) -> list[tuple[Evaluation, list[str]]]:
    """Each with what speaks against its number."""
    evaluations = list(evaluations)
    return list(zip(evaluations, doubts(evaluations), strict=True))


def gap_rows(noise: Iterable[Evaluation], attacked: Iterable[Evaluation], *, factors: Sequence[int]) -> list[dict]:
    """Accuracy under noise at k·ε minus accuracy under the attack at ε, for each k of `factors` (claim C1).

    A row a network, paired over its samples, and a row over seeds.  Radii at which either side was not evaluated are
    passed over.
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
                told = labels | {"noise": law, "factor": k}
                for n, a in pairs:
                    interval = statistics.paired_difference(n.flags, a.flags)
                    rows.append(row(interval, [a.experiment], quantity="gap", **told))
                mean = statistics.paired_t([n.flags.mean() for n, _ in pairs], [a.flags.mean() for _, a in pairs])
                rows.append(row(mean, [a.experiment for _, a in pairs], quantity="mean gap", **told))
    return rows


def energy_rows(samples: Split, radii: Sequence[Attack], bounds: tuple[float, float]) -> list[dict]:
    """Share of the noise's energy ‖δ‖₂² that is left after clamping to `bounds`, per law and radius, over `samples`."""
    x = samples.pixels()
    rows = []
    for attack in radii:
        perturb = attack.bind(seed=0, index=samples.index)
        clamped = perturb(None, x, samples.labels, bounds=bounds) - x
        free = perturb(None, x, samples.labels, bounds=(-np.inf, np.inf)) - x
        share = (gradients.l2(clamped) / gradients.l2(free)).square().numpy()
        labels = {"quantity": "noise energy kept", "attack": attack.title, "eps_255": round(attack.eps * 255, 6)}
        rows.append(row(statistics.bootstrap_mean(share, seed=0), [], **labels))
    return rows


def chosen(evaluations: Iterable[Evaluation], tolerance: float) -> float:
    """The λ that validation data choose.

    Of all λ whose mean clean accuracy lies at most `tolerance` below that of λ = 0 (vanilla), the one with the highest
    mean accuracy under attack.  `evaluations` holds clean images and one attack for each network.
    """
    means: dict[float, dict[bool, float]] = {}
    for labels, group in by_labels(evaluations, lambda e: e.labels):
        accuracy = float(np.mean([e.flags.mean() for e in group]))
        means.setdefault(labels.get("lam", 0.0), {})[labels["attack"] == "clean"] = accuracy
    lost = {lam: round(means[0.0][True] - mean[True], 9) for lam, mean in means.items()}  # shares are not exact binary
    allowed = [lam for lam in means if lost[lam] <= tolerance]
    return max(allowed, key=lambda lam: means[lam][False])


def choice_rows(evaluations: Sequence[Evaluation], tolerance: float, *, used: float) -> list[dict]:
    """The λ that validation data choose (see `chosen`), beside the one that the profile uses."""
    n, of = len(evaluations[0].flags), [e.experiment for e in evaluations]
    method = f"best under attack within {tolerance:g} of clean accuracy, on validation data"
    return [
        row(statistics.Interval(value, np.nan, np.nan, n, how), of, quantity=name)
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
    """The rows that `measure` makes of each part of `evaluations`, parted and labelled by what `labels` says.

    For networks that differ by more than what a row says of their training.
    """
    parts = by_labels(evaluations, lambda e: labels(e.experiment))
    return [found | own for own, part in parts for found in measure(part)]
