"""Flags and gradients → the rows of a record, each with its interval: what every notebook measures."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from paperlib import attacks, experiments, gradients, records, statistics, theory
from paperlib.attacks import Attack
from paperlib.experiments import Evaluation, Experiment
from paperlib.images import Split

BATCH = 100  # images whose gradients are taken at once
NOTHING = statistics.Interval(np.nan, np.nan, np.nan, 0, "no sample has a gradient")


# ---- from flags --------------------------------------------------------------------------------------------------


def accuracy_rows(evaluations: Iterable[Evaluation]) -> list[dict]:
    """One row a network and attack: the share of samples still classified correctly, with Wilson's interval."""
    return [_row(statistics.wilson(e.flags), [e.experiment], quantity="accuracy", **e.labels) for e in evaluations]


def mean_rows(evaluations: Iterable[Evaluation]) -> list[dict]:
    """One row a training and attack: the mean of that share over seeds, with Student's t interval cut to [0, 1].

    A single seed has no such interval; its row is that network's own, over samples, and its method says so.
    """
    rows = []
    for labels, group in _grouped(evaluations):
        mean = statistics.t_interval([e.flags.mean() for e in group])
        low, high = np.clip([mean.low, mean.high], 0, 1)
        mean = mean._replace(low=float(low), high=float(high)) if len(group) > 1 else statistics.wilson(group[0].flags)
        rows.append(_row(mean, [e.experiment for e in group], quantity="mean accuracy", **labels))
    return rows


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
        rows.append(_row(interval, [e.experiment for pair in pairs for e in pair], quantity="difference", **labels))
    return rows


def gap_rows(noise: Iterable[Evaluation], attacked: Iterable[Evaluation], *, factors: Sequence[int]) -> list[dict]:
    """Accuracy under noise at k·ε minus accuracy under the attack at ε, for each k of `factors` (claim C1).

    A row a network, paired over its samples, and a row over seeds.  Radii at which either side was not evaluated are
    passed over.
    """
    rows = []
    attacked = list(attacked)
    by_network = {(e.experiment.key, e.attack.name, e.labels["eps_255"]): e for e in noise}
    laws = dict.fromkeys(law for _, law, _ in by_network)
    for labels, group in _grouped(attacked):
        for law in laws:
            for k in factors:
                pairs = [(by_network.get((e.experiment.key, law, round(k * labels["eps_255"], 6))), e) for e in group]
                pairs = [(n, a) for n, a in pairs if n is not None]
                if not pairs:
                    continue
                told = labels | {"noise": law, "factor": k}
                for n, a in pairs:
                    interval = statistics.paired_difference(n.flags, a.flags)
                    rows.append(_row(interval, [a.experiment], quantity="gap", **told))
                mean = statistics.paired_t([n.flags.mean() for n, _ in pairs], [a.flags.mean() for _, a in pairs])
                rows.append(_row(mean, [a.experiment for _, a in pairs], quantity="mean gap", **told))
    return rows


# ---- from noise and gradients ------------------------------------------------------------------------------------


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
        rows.append(_row(statistics.bootstrap_mean(share, seed=0), [], **labels))
    return rows


def probability_gradients(experiment: Experiment, samples: Split, *, device: str = "auto") -> Tensor:
    """∇ₓ f_y of a trained network at `samples`, (N, C, H, W) on the CPU: the surrogate gradient."""
    device = experiments.resolve(device)
    network = experiments.trained(experiment, device=device)
    parts = []
    for x, y, _ in samples.batches(BATCH):
        value = partial(gradients.true_probability, network, labels=y.to(device))
        parts.append(gradients.input_gradient(value, x.to(device)).cpu())
    return torch.cat(parts)


# name in records: (B, ...) → (B,); NaN where undefined
SPARSITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "l1": gradients.l1,
    "l2": gradients.l2,
    "participation number": gradients.participation_number,
}


def sparsity_rows(experiment: Experiment, gradient: Tensor) -> list[dict]:
    """Median over samples of l1, l2 and participation number of ∇ₓ f_y, and the share of samples where it vanishes.

    Medians, since l1 spans orders of magnitude over samples.  Vanished gradients count as l1 = 0 and have no
    participation number.
    """
    rows = []
    for name, measure in SPARSITIES.items():
        values = measure(gradient)
        rows.append(_row(_median(values[values.isfinite()]), [experiment], quantity=name, **experiment.labels))
    vanished = statistics.wilson((gradients.l1(gradient) == 0).numpy())
    return [*rows, _row(vanished, [experiment], quantity="zero gradient", **experiment.labels)]


def ratio_rows(experiment: Experiment, gradient: Tensor) -> list[dict]:
    """The linear ratio of the theorem and its bounds at each sample: its median, and how many lie within (C2).

    Rounding is allowed for: a bound counts as kept within one part in 10⁵.
    """
    ratio = theory.linear_ratio(gradient)
    defined = ratio.isfinite()
    ratio, support = ratio[defined], theory.l0(gradient[defined], threshold=0.0)
    inside = (ratio >= 3 * (1 - 1e-5)) & (ratio <= 3 * support * (1 + 1e-5))
    measured = {
        "linear ratio": _median(ratio),
        "upper bound": _median(3.0 * support),
        "within both bounds": statistics.wilson(inside.numpy()) if len(inside) else NOTHING,
        "zero gradient": statistics.wilson((~defined).numpy()),
    }
    return [_row(interval, [experiment], quantity=name, **experiment.labels) for name, interval in measured.items()]


def quotient_rows(
    experiment: Experiment, samples: Split, steps: Sequence[float], *, scheme: str, device: str = "auto"
) -> list[dict]:
    """The finite-difference quotient against ‖∇f_y‖₁ of the surrogate gradient, for each h of `steps`.

    Per h: Spearman's correlation over samples, the ratio of sums (quotient over l1; 1 is unbiased), and the share of
    samples whose probability moved at all, since the forward pass is piecewise constant.
    """
    device = experiments.resolve(device)
    network = experiments.trained(experiment, device=device)

    def f(images: Tensor) -> Tensor:
        return torch.softmax(network(images), dim=1)

    def over_batches(measure: Callable[[Tensor, Tensor], Tensor]) -> np.ndarray:
        parts = [measure(x.to(device), y.to(device)) for x, y, _ in samples.batches(BATCH)]
        return torch.cat(parts).cpu().numpy()

    exact = over_batches(lambda x, y: gradients.l1(theory.true_class_gradient(f, x, y)))
    rows = []
    for h in steps:
        quotient = over_batches(partial(theory.finite_difference_l1, f, h=h, scheme=scheme))
        labels = experiment.labels | {"h": h, "scheme": scheme}
        bias = statistics.bootstrap_mean(quotient / exact.mean(), seed=0) if exact.any() else NOTHING
        rows += [
            _row(statistics.rank_correlation(quotient, exact), [experiment], quantity="rank correlation", **labels),
            _row(bias, [experiment], quantity="quotient over l1", **labels),
            _row(statistics.wilson(quotient != 0), [experiment], quantity="probability moved", **labels),
        ]
    return rows


def correlation_rows(sparsity: list[dict], evaluations: Sequence[Evaluation]) -> list[dict]:
    """Spearman's correlation over networks between each sparsity and the accuracy under attack (C5)."""
    robust = {e.experiment.key: e for e in evaluations}
    rows = []
    for name in SPARSITIES:
        chosen = [r for r in sparsity if r["quantity"] == name and r["value"] is not None]
        found = [robust[r["experiments"][0]] for r in chosen]
        interval = NOTHING
        if chosen:
            interval = statistics.rank_correlation([r["value"] for r in chosen], [e.flags.mean() for e in found])
        attack = {key: evaluations[0].labels[key] for key in ("attack", "eps_255")}
        labels = {"quantity": "rank correlation", "sparsity": name} | attack
        rows.append(_row(interval, [e.experiment for e in found], **labels))
    return rows


def choice_rows(evaluations: Sequence[Evaluation], tolerance: float, *, used: float) -> list[dict]:
    """The λ that validation data choose, beside the one that the profile uses.

    Of all λ whose mean clean accuracy lies at most `tolerance` below that of λ = 0 (vanilla), the one with the highest
    mean accuracy under attack.  `evaluations` holds clean images and one attack for each network.
    """
    means: dict[float, dict[bool, float]] = {}
    for labels, group in _grouped(evaluations):
        accuracy = float(np.mean([e.flags.mean() for e in group]))
        means.setdefault(labels.get("lam", 0.0), {})[labels["attack"] == "clean"] = accuracy
    allowed = [lam for lam, mean in means.items() if mean[True] >= means[0.0][True] - tolerance]
    chosen = max(allowed, key=lambda lam: means[lam][False])
    n, of = len(evaluations[0].flags), [e.experiment for e in evaluations]
    method = f"best under attack within {tolerance:g} of clean accuracy, on validation data"
    return [
        _row(statistics.Interval(value, np.nan, np.nan, n, how), of, quantity=name)
        for name, value, how in (("chosen λ", chosen, method), ("used λ", used, "set in the profile"))
    ]


def ladder(eps_255: Sequence[float], *, steps: int) -> list[Attack | None]:
    """Clean, then at each radius uniform and sign noise, FGSM and PGD: the columns of the tables."""
    names = [*attacks.RANDOM, "fgsm", "pgd"]
    return [None, *(attacks.standard(name, e / 255, steps=steps) for e in eps_255 for name in names)]


def _grouped(evaluations: Iterable[Evaluation]):
    """(labels, evaluations) for everything that differs by its seed alone, in order of first appearance."""
    groups: dict[str, tuple[dict, list[Evaluation]]] = {}
    for e in evaluations:
        groups.setdefault(repr(e.labels), (e.labels, []))[1].append(e)
    return groups.values()


def _median(values: Tensor) -> statistics.Interval:
    return statistics.bootstrap_median(values.numpy(), seed=0) if len(values) else NOTHING


def _row(interval: statistics.Interval, of: Sequence[Experiment], **labels) -> dict:
    seeds = list(dict.fromkeys(e.seed for e in of))
    return records.row(interval, seeds=seeds, experiments=list(dict.fromkeys(e.key for e in of)), **labels)
