"""Rows of the input gradient's size and sparsity, and of what these predict of robustness (claim C5)."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

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
from paperlib.theory.gradients import Probabilities
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
    """Median over samples of l1, l2 and participation number of ∇ₓ f_y, and the share of samples where it is 0.

    `gradient` is ∇ₓ f_y, (N, ...).  Medians, since l1 spans orders of magnitude over samples.  A gradient of 0 has
    l1 = 0 and no participation number.
    """
    rows = []
    for name, measure in SPARSITIES.items():
        values = measure(gradient)
        rows.append(row(median(values[values.isfinite()]), [experiment], quantity=name, **experiment.labels))
    zero = statistics.wilson((gradients.l1(gradient) == 0).numpy())
    return [*rows, row(zero, [experiment], quantity="zero gradient", **experiment.labels)]


def correlation_rows(sparsity: list[dict], evaluations: Sequence[Evaluation]) -> list[dict]:
    """Spearman's correlation over networks between each sparsity and the accuracy under attack (C5).

    `sparsity` holds the rows of `sparsity_rows` for the networks of `evaluations`, which are all of one attack.
    """
    by_network = {e.experiment.key: e for e in evaluations}
    rows = []
    for name in SPARSITIES:
        known = [r for r in sparsity if r["quantity"] == name and r["value"] is not None]
        judged = [by_network[r["experiments"][0]] for r in known]
        interval = NOTHING
        if known:
            interval = statistics.rank_correlation([r["value"] for r in known], [e.flags.mean() for e in judged])
        labels = {"quantity": "rank correlation", "sparsity": name} | evaluations[0].attack.labels | evaluations[0].size
        rows.append(row(interval, [e.experiment for e in judged], **labels))
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

    `gradient` maps experiment keys to ∇ₓ f_y, (N, ...).  Survival is that of the attacks of `attacked`.  Spearman's
    correlations are of two kinds, which the label "across" tells: over samples within a network, their mean over
    networks; and over networks, of medians and accuracies.  An infinite ratio ranks above all others; samples without a
    ratio or without a sparsity are left out.
    """
    targets: list[tuple[dict, _Target]] = []  # with their labels
    for v in measured_ratios:
        if v.regime == TRUE:
            ratio = v.ratio.numpy()
            finite = np.where(np.isinf(ratio), np.finfo(ratio.dtype).max / 2, ratio)  # half: a median averages two
            target = _Target(v.experiment, np.flatnonzero(~np.isnan(ratio)), finite)
            targets.append(({"target": "ratio", "eps_255": v.eps_255}, target))
    for e in attacked:
        target = _Target(e.experiment, np.arange(len(e.flags)), e.flags.astype(float))
        targets.append(({"target": "survival"} | e.attack.labels | e.size, target))

    rows, networks = [], list({e.experiment.key: e.experiment for e in attacked}.values())
    for name, measure in sparsities(thresholds).items():
        sizes = {e.key: measure(gradient[e.key]).numpy() for e in networks}
        for labels, group in by_labels(networks, lambda e: e.labels):
            known = [(e, sizes[e.key][np.isfinite(sizes[e.key])]) for e in group]
            rows.append(over_seeds(known, quantity="sparsity", sparsity=name, **labels))
        for labels, group in by_labels(targets, lambda item: item[0]):
            rows += _correlation_rows([target for _, target in group], sizes, sparsity=name, **labels)
    return rows


class _Target(NamedTuple):
    """What a sparsity should predict of one network."""

    experiment: Experiment
    samples: np.ndarray  # the places of the samples that have a value, int
    values: np.ndarray  # of all N samples


def _correlation_rows(targets: list[_Target], sizes: dict[str, np.ndarray], **labels) -> list[dict]:
    """Two rows: the correlation over samples, and that over networks; `sizes` maps experiment keys to (N,)."""
    within, medians = [], []  # a correlation for each network; a pair of medians for each
    for experiment, samples, values in targets:
        samples = samples[np.isfinite(sizes[experiment.key][samples])]
        x, y = sizes[experiment.key][samples], values[samples]
        if len(samples):
            within.append(statistics.rank_correlation(x, y).value)
            middle = np.mean if set(y) <= {0.0, 1.0} else np.median  # the mean of flags is the accuracy
            medians.append((np.median(x), middle(y)))
    within = [r for r in within if np.isfinite(r)]
    mean = statistics.t_interval(within) if within else NOTHING
    low, high = np.clip([mean.low, mean.high], -1, 1)
    method = mean.method.replace("seeds", "networks")
    mean = mean._replace(low=float(low), high=float(high), method=method, over="networks")
    pairs = statistics.rank_correlation(*zip(*medians, strict=True)) if medians else NOTHING
    networks = [target.experiment for target in targets]
    return [
        row(mean, networks, quantity="rank correlation", across="samples", **labels),
        row(pairs, networks, quantity="rank correlation", across="networks", **labels),
    ]


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

    No scale changes a decision.  The measures are of 1 - f_y, which has the same vulnerabilities, as f_y itself rounds
    to 1.  "participation number, two classes" is that of σ(c·(z_y - z_j)), with j the rival class at scale 1.  "no
    gradient in 32 bits" is the share of images where the gradient of f_y is 0.  Refuses a scale that is not above 0.
    """
    for c in scales:
        errors.number("a scale of the logits", c, above=0)
    experiment, network = opened
    device, rows = gradients.device_of(network), []
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

        f = _complements(scaled)
        (v,) = measured(f, experiment, samples, TRUE, [eps_255], draws=draws, steps=steps, device=device)
        pair, in_32_bits = (gradients.input_gradient(value, x).cpu() for value in (two_classes, true_class))
        with torch.no_grad():
            same = (scaled(x).argmax(1) == logits.argmax(1)).cpu()
        values = {name: measure(v.gradient) for name, measure in sparsities(thresholds).items()}
        values |= {"participation number, two classes": gradients.participation_number(pair)}
        values |= {name: torch.from_numpy(v.sizes[name]) for name in ("ρ_rand", "ρ_adv", "ratio")}
        intervals = {name: median(sizes[sizes.isfinite()]) for name, sizes in values.items()}
        intervals |= {"no gradient in 32 bits": statistics.wilson((gradients.l1(in_32_bits) == 0).numpy())}
        intervals |= {"same decisions": statistics.wilson(same.numpy())}
        for name, interval in intervals.items():
            labels = {"quantity": "scaled", "what": name, "scale": c, "eps_255": eps_255, **experiment.labels}
            rows.append(row(interval, [experiment], **labels))
    return rows


def _complements(network: Callable[[Tensor], Tensor]) -> Probabilities:
    """1 - f_k for each class k, (B, K), as the sum of the other classes, which does not round to 0."""

    def f(images: Tensor) -> Tensor:
        p = gradients.probabilities(network)(images)
        return p @ (1 - torch.eye(p.shape[1]).to(p))

    return f
