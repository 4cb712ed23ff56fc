"""The input gradient of trained networks: its size and sparsity, and whether these predict robustness (C5)."""

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
from paperlib.theory.gradients import Probabilities
from paperlib.training import regularizers

# name in records: (B, ...) → (B,); NaN where undefined
SPARSITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "l1": gradients.l1,
    "l2": gradients.l2,
    "participation number": gradients.participation_number,
}


def probability_gradients(network: Network, samples: Split) -> Tensor:
    """∇ₓ f_y of a trained network at `samples`, (N, C, H, W) on the CPU: the surrogate gradient."""
    f, device = theory.probabilities(network), gradients.device_of(network)
    batches = samples.batches(BATCH)
    return torch.cat([theory.true_class_gradient(f, x.to(device), y.to(device)).cpu() for x, y, _ in batches])


def sparsity_rows(experiment: Experiment, gradient: Tensor) -> list[dict]:
    """Median over samples of l1, l2 and participation number of ∇ₓ f_y, and the share of samples where it vanishes.

    Medians, since l1 spans orders of magnitude over samples.  Vanished gradients count as l1 = 0 and have no
    participation number.
    """
    rows = []
    for name, measure in SPARSITIES.items():
        values = measure(gradient)
        rows.append(row(median(values[values.isfinite()]), [experiment], quantity=name, **experiment.labels))
    vanished = statistics.wilson((gradients.l1(gradient) == 0).numpy())
    return [*rows, row(vanished, [experiment], quantity="zero gradient", **experiment.labels)]


def correlation_rows(sparsity: list[dict], evaluations: Sequence[Evaluation]) -> list[dict]:
    """Spearman's correlation over networks between each sparsity and the accuracy under attack (C5)."""
    robust = {e.experiment.key: e for e in evaluations}
    rows = []
    for name in SPARSITIES:
        known = [r for r in sparsity if r["quantity"] == name and r["value"] is not None]
        judged = [robust[r["experiments"][0]] for r in known]
        interval = NOTHING
        if known:
            interval = statistics.rank_correlation([r["value"] for r in known], [e.flags.mean() for e in judged])
        labels = {"quantity": "rank correlation", "sparsity": name} | evaluations[0].attack.labels | evaluations[0].size
        rows.append(row(interval, [e.experiment for e in judged], **labels))
    return rows


def sparsities(thresholds: Sequence[float]) -> dict[str, Callable[[Tensor], Tensor]]:
    """The sizes and sparsities of a gradient by name, (B, ...) → (B,); l0 is reported with its threshold alone."""
    scale_free = {"Hoyer": gradients.hoyer, "Gini": gradients.gini}
    return SPARSITIES | scale_free | {f"l0 above {t:g}": lambda g, t=t: gradients.l0(g, t).to(g) for t in thresholds}


def predictor_rows(
    gradient: dict[str, Tensor],
    measured_ratios: Iterable[Vulnerabilities],
    attacked: Sequence[Evaluation],
    thresholds: Sequence[float],
) -> list[dict]:
    """Each sparsity per training, over seeds, and its correlation with the measured ratio and with surviving attacks.

    `gradient` maps experiment keys to ∇ₓ f_y.  Spearman's correlations: over samples, within a network, their mean over
    networks; and over networks, of medians and accuracies.  A ratio that is infinite ranks above all others.
    """
    targets: list[tuple[dict, tuple[Experiment, np.ndarray, np.ndarray]]] = []  # labels, (network, samples, values)
    for v in measured_ratios:
        if v.regime == TRUE:
            ratio = v.ratio.numpy()
            finite = np.where(np.isinf(ratio), np.finfo(ratio.dtype).max / 2, ratio)  # halved: two are averaged
            entry = v.experiment, np.flatnonzero(~np.isnan(ratio)), finite
            targets.append(({"target": "ratio", "eps_255": v.eps_255}, entry))
    for e in attacked:
        entry = e.experiment, np.arange(len(e.flags)), e.flags.astype(float)
        targets.append(({"target": "survival"} | e.attack.labels | e.size, entry))

    rows, networks = [], list({e.experiment.key: e.experiment for e in attacked}.values())
    for sparsity, measure in sparsities(thresholds).items():
        values = {e.key: measure(gradient[e.key]).numpy() for e in networks}
        for labels, group in by_labels(networks, lambda e: e.labels):
            known = [(e, values[e.key][np.isfinite(values[e.key])]) for e in group]
            rows.append(over_seeds(known, quantity="sparsity", sparsity=sparsity, **labels))
        for labels, group in by_labels(targets, lambda target: target[0]):
            rows += _correlations([entry for _, entry in group], values, sparsity=sparsity, **labels)
    return rows


def _correlations(entries: list[tuple], values: dict[str, np.ndarray], **labels) -> list[dict]:
    within, medians, networks = [], [], [experiment for experiment, _, _ in entries]
    for experiment, places, target in entries:
        places = places[np.isfinite(values[experiment.key][places])]
        sizes, target = values[experiment.key][places], target[places]
        if len(places):
            within.append(statistics.rank_correlation(sizes, target).value)
            middle = np.mean if set(target) <= {0.0, 1.0} else np.median  # of flags: accuracy
            medians.append((np.median(sizes), middle(target)))
    within = [r for r in within if np.isfinite(r)]
    samples = statistics.t_interval(within) if within else NOTHING
    low, high = np.clip([samples.low, samples.high], -1, 1)
    method = samples.method.replace("seeds", "networks")
    samples = samples._replace(low=float(low), high=float(high), method=method, over="networks")
    pairs = statistics.rank_correlation(*zip(*medians, strict=True)) if medians else NOTHING
    return [
        row(samples, networks, quantity="rank correlation", across="samples", **labels),
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
    """One network with its logits multiplied by 1 and each of `scales`: medians of sizes that move with no decision.

    The measures are of 1 - f_y, which has the same vulnerabilities, as f_y itself rounds to 1.  "participation number,
    two classes" is that of σ(c·(z_y - z_j)) with the rival j of scale 1; "no gradient in 32 bits" is the share of
    images whose f_y has none.  Refuses a scale that is not above 0, which would change decisions.
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

        def two(images: Tensor) -> Tensor:
            z = scaled(images)
            margin = (z.gather(1, y[:, None]) - z.gather(1, rival[:, None])).squeeze(1)
            return -margin.sign() * torch.sigmoid(-margin.abs())  # σ(margin) but for a constant; never rounded to 1

        (v,) = measured(_others(scaled), experiment, samples, TRUE, [eps_255], draws=draws, steps=steps, device=device)
        pair = gradients.input_gradient(two, x).cpu()
        in32 = gradients.input_gradient(lambda i: scaled(i).softmax(1).gather(1, y[:, None]).squeeze(1), x).cpu()
        with torch.no_grad():
            decided = (scaled(x).argmax(1) == logits.argmax(1)).cpu()
        values = {name: measure(v.gradient) for name, measure in sparsities(thresholds).items()}
        values |= {"participation number, two classes": gradients.participation_number(pair)}
        values |= {name: torch.from_numpy(v.sizes[name]) for name in ("ρ_rand", "ρ_adv", "ratio")}
        intervals = {name: median(sizes[sizes.isfinite()]) for name, sizes in values.items()}
        intervals |= {"no gradient in 32 bits": statistics.wilson((gradients.l1(in32) == 0).numpy())}
        intervals |= {"same decisions": statistics.wilson(decided.numpy())}
        for name, interval in intervals.items():
            labels = {"quantity": "scaled", "what": name, "scale": c, "eps_255": eps_255, **experiment.labels}
            rows.append(row(interval, [experiment], **labels))
    return rows


def _others(network: Callable[[Tensor], Tensor]) -> Probabilities:
    """1 - f_k for each class k, (B, K), as the sum of the others."""

    def f(images: Tensor) -> Tensor:
        p = gradients.probabilities(network)(images)
        return p @ (1 - torch.eye(p.shape[1]).to(p))

    return f
