"""Rows of the input gradient's size and sparsity, and of what these predict of robustness (claim C5)."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from paperlib import errors, theory
from paperlib.data.sets import Split
from paperlib.measures import statistics
from paperlib.measures.ratio import TRUE, Vulnerabilities, measured
from paperlib.measures.rows import BATCH, NOTHING, by_labels, median, over_seeds, row
from paperlib.networks import Network
from paperlib.store.evaluations import Evaluation
from paperlib.store.experiment import Experiment, Opened
from paperlib.theory import gradients
from paperlib.training import regularizers

# by their names in records: gradients (B, ...) → (B,), NaN where undefined
SPARSITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "l1": gradients.l1,
    "l2": gradients.l2,
    "participation number": gradients.participation_number,
}


def probability_gradients(network: Network, samples: Split) -> Tensor:
    """∇ₓ f_y of a trained network at `samples`, by its own backward rule, (N, C, H, W) on the CPU."""
    f, device = theory.probabilities(network), gradients.device_of(network)
    batches = samples.batches(BATCH)
    return torch.cat([theory.true_class_gradient(f, x.to(device), y.to(device)).cpu() for x, y, _ in batches])


def sparsity_rows(experiment: Experiment, gradient: Tensor) -> list[dict]:
    """Medians of l1, l2 and participation number of `gradient` = ∇ₓ f_y, (N, ...), and the share where it is 0."""
    rows = []
    for name, measure in SPARSITIES.items():
        values = measure(gradient)
        rows.append(row(median(values[values.isfinite()]), [experiment], quantity=name, **experiment.labels))
    zero = statistics.wilson((gradients.l1(gradient) == 0).numpy())
    return [*rows, row(zero, [experiment], quantity="zero gradient", **experiment.labels)]


def correlation_rows(sparsity: list[dict], evaluations: Sequence[Evaluation]) -> list[dict]:
    """Spearman's r over networks of each sparsity, by `sparsity_rows`, and the accuracy under one attack (C5)."""
    by_network, rows = {e.experiment.key: e for e in evaluations}, []
    for name in SPARSITIES:
        known = [r for r in sparsity if r["quantity"] == name and r["value"] is not None]
        judged = [by_network[r["experiments"][0]] for r in known]
        pairs = [(r["value"], e.flags.mean()) for r, e in zip(known, judged, strict=True)]
        labels = {"quantity": "rank correlation", "sparsity": name} | evaluations[0].attack.labels | evaluations[0].size
        rows.append(row(_rank_correlation(pairs), [e.experiment for e in judged], **labels))
    return rows


def sparsities(thresholds: Sequence[float]) -> dict[str, Callable[[Tensor], Tensor]]:
    """The sizes and sparsities of a gradient by name, (B, ...) → (B,); l0 has its threshold in its name."""
    scale_free = {"Hoyer": gradients.hoyer, "Gini": gradients.gini}
    return SPARSITIES | scale_free | {f"l0 above {t:g}": lambda g, t=t: gradients.l0(g, t).to(g) for t in thresholds}


def predictor_rows(
    gradient: dict[str, Tensor],
    measured_ratios: Iterable[Vulnerabilities],
    attacked: Sequence[Evaluation],
    thresholds: Sequence[float],
) -> list[dict]:
    """Each sparsity for each training, over seeds, and its correlation with the measured ratio and with survival.

    `gradient` maps experiment keys to ∇ₓ f_y, (N, ...); survival is under the attacks of `attacked`.  Spearman's
    correlations are of two kinds: "across" samples of a network, their mean over networks; and "across" networks, of
    medians and accuracies.  An infinite ratio ranks above all others; samples without either number are left out.
    """
    targets: list[tuple[dict, Experiment, np.ndarray]] = []  # labels, network, and what to predict of each sample
    for v in measured_ratios:
        if v.regime == TRUE:
            ratio = v.ratio.numpy()
            finite = np.where(np.isinf(ratio), np.finfo(ratio.dtype).max / 2, ratio)  # half: a median averages two
            targets.append(({"target": "ratio", "eps_255": v.eps_255}, v.experiment, finite))
    for e in attacked:
        targets.append(({"target": "survival"} | e.attack.labels | e.size, e.experiment, e.flags.astype(float)))
    rows, networks = [], list({e.experiment.key: e.experiment for e in attacked}.values())
    for name, measure in sparsities(thresholds).items():
        sizes = {e.key: measure(gradient[e.key]).numpy() for e in networks}
        for labels, group in by_labels(networks, lambda e: e.labels):
            known = [(e, sizes[e.key][np.isfinite(sizes[e.key])]) for e in group]
            rows.append(over_seeds(known, quantity="sparsity", sparsity=name, **labels))
        for labels, group in by_labels(targets, lambda item: item[0]):
            known = [(e, values, sizes[e.key][: len(values)]) for _, e, values in group]  # of the first samples
            rows += _correlation_rows(known, sparsity=name, **labels)
    return rows


def _correlation_rows(targets: list[tuple[Experiment, np.ndarray, np.ndarray]], **labels) -> list[dict]:
    """Two rows: the correlation over samples, and that over networks; `targets` are (network, values, sparsities)."""
    within, medians = [], []  # a correlation for each network; a pair of medians for each
    for _, values, sizes in targets:
        known = np.isfinite(sizes) & ~np.isnan(values)
        x, y = sizes[known], values[known]
        if len(x):
            within.append(statistics.rank_correlation(x, y).value)
            middle = np.mean if set(y) <= {0.0, 1.0} else np.median  # the mean of flags is the accuracy
            medians.append((np.median(x), middle(y)))
    within = [r for r in within if np.isfinite(r)]
    mean = statistics.t_interval(within) if within else NOTHING
    low, high = np.clip([mean.low, mean.high], -1, 1)
    method = mean.method.replace("seeds", "networks")
    mean = mean._replace(low=float(low), high=float(high), method=method, over="networks")
    return [
        row(interval, [e for e, *_ in targets], quantity="rank correlation", across=across, **labels)
        for across, interval in (("samples", mean), ("networks", _rank_correlation(medians)))
    ]


def _rank_correlation(pairs: list[tuple[float, float]]) -> statistics.Interval:
    return statistics.rank_correlation(*zip(*pairs, strict=True)) if pairs else NOTHING


def scale_rows(
    opened: Opened,
    samples: Split,
    scales: Sequence[float],
    *,
    eps_255: float,
    draws: int,
    steps: int,
    thresholds: Sequence[float],
) -> list[dict]:
    """Medians of gradients and vulnerabilities of one network with its logits multiplied by 1 and by each of `scales`.

    The measures are of 1 - f_y, which has the same vulnerabilities, as f_y itself rounds to 1.  "participation number,
    two classes" is that of σ(c·(z_y - z_j)), j the rival class.  "no gradient in 32 bits" is the share where that of
    f_y is 0.  Refuses a scale that is not above 0.
    """
    for c in scales:
        errors.number("a scale of the logits", c, above=0)
    (experiment, network), rows = opened, []
    device = gradients.device_of(network)
    x, y = samples.pixels().to(device), samples.labels.to(device)
    with torch.no_grad():
        logits = network(x)
    rival = regularizers.runner_up(logits, y)
    for c in sorted({1.0, *scales}):

        def scaled(images: Tensor, c: float = c) -> Tensor:
            return c * network(images)

        def true_class(images: Tensor) -> Tensor:
            return gradients.picked(scaled(images).softmax(1), y)

        def two_classes(images: Tensor) -> Tensor:
            z = scaled(images)
            margin = gradients.picked(z, y) - gradients.picked(z, rival)
            return -margin.sign() * torch.sigmoid(-margin.abs())  # σ(margin) but for a constant; never rounded to 1

        def complements(images: Tensor) -> Tensor:
            p = gradients.probabilities(scaled)(images)
            return p @ (1 - torch.eye(p.shape[1]).to(p))  # 1 - f_k as a sum, which does not round to 0

        (v,) = measured(complements, experiment, samples, TRUE, [eps_255], draws=draws, steps=steps, device=device)
        pair, in_32_bits = (gradients.input_gradient(value, x).cpu() for value in (two_classes, true_class))
        with torch.no_grad():
            same = (scaled(x).argmax(1) == logits.argmax(1)).cpu()
        values = {name: measure(v.gradient) for name, measure in sparsities(thresholds).items()}
        values["participation number, two classes"] = gradients.participation_number(pair)
        values |= {name: torch.from_numpy(v.sizes[name]) for name in ("ρ_rand", "ρ_adv", "ratio")}
        intervals = {name: median(sizes[sizes.isfinite()]) for name, sizes in values.items()}
        shares = {"no gradient in 32 bits": gradients.l1(in_32_bits) == 0, "same decisions": same}
        intervals |= {name: statistics.wilson(flags.numpy()) for name, flags in shares.items()}
        for name, interval in intervals.items():
            labels = {"quantity": "scaled", "what": name, "scale": c, "eps_255": eps_255, **experiment.labels}
            rows.append(row(interval, [experiment], **labels))
    return rows
