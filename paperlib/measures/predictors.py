"""Which size or sparsity of the gradient goes with what is measured, and which moves although no decision does (C5)."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from paperlib import errors
from paperlib.data.sets import Split
from paperlib.measures import statistics
from paperlib.measures.predictors import SPARSITIES
from paperlib.measures.ratio import TRUE, Vulnerabilities, measured
from paperlib.measures.rows import BATCH, NOTHING, by_labels, median, over_seeds, row
from paperlib.store import checkpoints
from paperlib.store.evaluations import Evaluation
from paperlib.store.experiment import Experiment
from paperlib.theory import gradients
from paperlib.theory.gradients import Probabilities
from paperlib.training import regularizers


def sparsities(thresholds: Sequence[float]) -> dict[str, Callable[[Tensor], Tensor]]:
    """The sizes and sparsities of a gradient by name, (B, ...) → (B,); l0 is reported with its threshold alone."""
    found = SPARSITIES | {"Hoyer": gradients.hoyer, "Gini": gradients.gini}
    return found | {f"l0 above {t:g}": lambda g, t=t: gradients.l0(g, t).to(g) for t in thresholds}


def predictor_rows(
    gradient: dict[str, Tensor],
    found: Iterable[Vulnerabilities],
    attacked: Sequence[Evaluation],
    thresholds: Sequence[float],
) -> list[dict]:
    """Each sparsity per training, over seeds, and how well it goes with the measured ratio and surviving `attacked`.

    `gradient` maps experiment keys to ∇ₓ f_y.  Spearman's correlations: over samples, within a network, their mean over
    networks; and over networks, of medians and accuracies.  A ratio that is infinite ranks above all others.
    """
    targets: dict[str, list[tuple[Experiment, np.ndarray, np.ndarray]]] = {}  # what: (network, its samples, values)
    for v in found:
        if v.regime == TRUE:
            ratio = v.ratio.numpy()
            finite = np.where(np.isinf(ratio), np.finfo(ratio.dtype).max / 2, ratio)  # halved: two are averaged
            name = f"ratio at {v.eps_255:g}/255"
            targets.setdefault(name, []).append((v.experiment, np.flatnonzero(~np.isnan(ratio)), finite))
    for e in attacked:
        name = f"{e.attack.title} at {e.labels['eps_255']:g}/255"
        targets.setdefault(name, []).append((e.experiment, np.arange(len(e.flags)), e.flags.astype(float)))

    rows, networks = [], list({e.experiment.key: e.experiment for e in attacked}.values())
    for sparsity, measure in sparsities(thresholds).items():
        values = {e.key: measure(gradient[e.key]).numpy() for e in networks}
        for labels, group in by_labels(networks, lambda e: e.labels):
            known = [(e, values[e.key][np.isfinite(values[e.key])]) for e in group]
            rows.append(over_seeds(known, quantity="sparsity", sparsity=sparsity, **labels))
        for target, entries in targets.items():
            rows += _correlations(entries, values, sparsity=sparsity, target=target)
    return rows


def _correlations(entries: list[tuple], values: dict[str, np.ndarray], **labels) -> list[dict]:
    within, medians, of = [], [], [experiment for experiment, _, _ in entries]
    for experiment, places, target in entries:
        places = places[np.isfinite(values[experiment.key][places])]
        own, target = values[experiment.key][places], target[places]
        if len(places):
            within.append(statistics.rank_correlation(own, target).value)
            middle = np.mean if set(target) <= {0.0, 1.0} else np.median  # of flags: accuracy
            medians.append((np.median(own), middle(target)))
    within = [r for r in within if np.isfinite(r)]
    samples = statistics.t_interval(within) if within else NOTHING
    low, high = np.clip([samples.low, samples.high], -1, 1)
    method = samples.method.replace("seeds", "networks")
    samples = samples._replace(low=float(low), high=float(high), method=method)
    over = statistics.rank_correlation(*zip(*medians, strict=True)) if medians else NOTHING
    return [
        row(samples, of, quantity="rank correlation", over="samples", **labels),
        row(over, of, quantity="rank correlation", over="networks", **labels),
    ]


def scale_rows(
    experiment: Experiment,
    samples: Split,
    scales: Sequence[float],
    *,
    eps_255: float,
    draws: int,
    steps: int,
    thresholds: Sequence[float],
    device: str = "auto",
) -> list[dict]:
    """One network with its logits multiplied by 1 and each of `scales`: medians of what moves though no decision does.

    What is measured is 1 - f_y, of the same vulnerabilities, since f_y itself rounds to 1.  "participation number, two
    classes" is that of σ(c·(z_y - z_j)) with the rival j of scale 1; "no gradient in 32 bits" is the share of images
    whose f_y has none.  Refuses a scale that is not above 0, which would change decisions.
    """
    for c in scales:
        errors.number("a scale of the logits", c, above=0)
    device = checkpoints.resolve(device)
    network, rows = checkpoints.trained(experiment, device=device), []
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
        told = {name: measure(v.gradient) for name, measure in sparsities(thresholds).items()}
        told |= {"participation number, two classes": gradients.participation_number(pair)}
        told |= {name: torch.from_numpy(values) for name, values in v.sizes.items() if "first order" not in name}
        found = {name: median(values[values.isfinite()]) for name, values in told.items()}
        found |= {"no gradient in 32 bits": statistics.wilson((gradients.l1(in32) == 0).numpy())}
        found |= {"same decisions": statistics.wilson(decided.numpy())}
        for name, interval in found.items():
            labels = {"quantity": "scaled", "what": name, "scale": c, "eps_255": eps_255, **experiment.labels}
            rows.append(row(interval, [experiment], **labels))
    return rows


def _others(network: Callable[[Tensor], Tensor]) -> Probabilities:
    """1 - f_k for each class k, (B, K), as the sum of the others."""

    def f(images: Tensor) -> Tensor:
        p = gradients.probabilities(network)(images)
        return p @ (1 - torch.eye(p.shape[1]).to(p))

    return f


def probability_gradients(experiment: Experiment, samples: Split, *, device: str = "auto") -> Tensor:
    """∇ₓ f_y of a trained network at `samples`, (N, C, H, W) on the CPU: the surrogate gradient."""
    device = checkpoints.resolve(device)
    network = checkpoints.trained(experiment, device=device)
    parts = []
    for x, y, _ in samples.batches(BATCH):
        parts.append(gradients.true_class_gradient(gradients.probabilities(network), x.to(device), y.to(device)).cpu())
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
        rows.append(row(median(values[values.isfinite()]), [experiment], quantity=name, **experiment.labels))
    vanished = statistics.wilson((gradients.l1(gradient) == 0).numpy())
    return [*rows, row(vanished, [experiment], quantity="zero gradient", **experiment.labels)]



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
        rows.append(row(interval, [e.experiment for e in found], **labels))
    return rows
