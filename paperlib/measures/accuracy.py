"""Flags → accuracies, their differences and gaps; and how much of the noise clamping leaves."""

from collections.abc import Iterable, Sequence

import numpy as np

from paperlib import attacks, gradients, statistics
from paperlib.attacks import Attack
from paperlib.experiments import Evaluation
from paperlib.images import Split
from paperlib.measures.core import by_labels, over_seeds, row


def accuracy_rows(evaluations: Iterable[Evaluation]) -> list[dict]:
    """One row a network and attack: the share of samples still classified correctly, with Wilson's interval."""
    return [row(statistics.wilson(e.flags), [e.experiment], quantity="accuracy", **e.labels) for e in evaluations]


def mean_rows(evaluations: Iterable[Evaluation]) -> list[dict]:
    """One row a training and attack: the mean of that share over seeds, with Student's t interval cut to [0, 1].

    A single seed has no such interval; its row is that network's own, over samples, and its method says so.
    """
    return [
        over_seeds([(e.experiment, e.flags) for e in group], quantity="mean accuracy", **labels)
        for labels, group in by_labels(evaluations, lambda e: e.labels)
    ]


def difference_rows(evaluations: Iterable[Evaluation], training: str, against: str) -> list[dict]:
    """One row an attack: accuracy of `training` minus that of `against`, paired by seed, with its t interval."""
    found = {(e.experiment.defense, e.labels["attack"], e.labels["eps_255"], e.experiment.seed): e for e in evaluations}
    rows = []
    for attack, eps in dict.fromkeys((a, r) for _, a, r, _ in found):
        pairs = [
            (e, found[against, attack, eps, seed])
            for (name, a, r, seed), e in found.items()
            if (name, a, r) == (training, attack, eps)
        ]
        interval = statistics.paired_t([a.flags.mean() for a, _ in pairs], [b.flags.mean() for _, b in pairs])
        labels = {"training": training, "against": against, "attack": attack, "eps_255": eps}
        rows.append(row(interval, [e.experiment for pair in pairs for e in pair], quantity="difference", **labels))
    return rows


def gap_rows(noise: Iterable[Evaluation], attacked: Iterable[Evaluation], *, factors: Sequence[int]) -> list[dict]:
    """Accuracy under noise at k·ε minus accuracy under the attack at ε, for each k of `factors` (claim C1).

    A row a network, paired over its samples, and a row over seeds.  Radii at which either side was not evaluated are
    passed over.
    """
    rows = []
    by_network = {(e.experiment.key, e.attack.name, e.labels["eps_255"]): e for e in noise}
    laws = dict.fromkeys(law for _, law, _ in by_network)
    for labels, group in by_labels(attacked, lambda e: e.labels):
        for law in laws:
            for k in factors:
                pairs = [(by_network.get((e.experiment.key, law, round(k * labels["eps_255"], 6))), e) for e in group]
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


def choice_rows(evaluations: Sequence[Evaluation], tolerance: float, *, used: float) -> list[dict]:
    """The λ that validation data choose, beside the one that the profile uses.

    Of all λ whose mean clean accuracy lies at most `tolerance` below that of λ = 0 (vanilla), the one with the highest
    mean accuracy under attack.  `evaluations` holds clean images and one attack for each network.
    """
    means: dict[float, dict[bool, float]] = {}
    for labels, group in by_labels(evaluations, lambda e: e.labels):
        accuracy = float(np.mean([e.flags.mean() for e in group]))
        means.setdefault(labels.get("lam", 0.0), {})[labels["attack"] == "clean"] = accuracy
    allowed = [lam for lam, mean in means.items() if mean[True] >= means[0.0][True] - tolerance]
    chosen = max(allowed, key=lambda lam: means[lam][False])
    n, of = len(evaluations[0].flags), [e.experiment for e in evaluations]
    method = f"best under attack within {tolerance:g} of clean accuracy, on validation data"
    return [
        row(statistics.Interval(value, np.nan, np.nan, n, how), of, quantity=name)
        for name, value, how in (("chosen λ", chosen, method), ("used λ", used, "set in the profile"))
    ]


def ladder(eps_255: Sequence[float], *, steps: int) -> list[Attack | None]:
    """Clean, then at each radius uniform and sign noise, FGSM and PGD: the columns of the tables."""
    names = [*attacks.RANDOM, "fgsm", "pgd"]
    return [None, *(attacks.standard(name, e / 255, steps=steps) for e in eps_255 for name in names)]
