"""The input gradient of trained networks: its size and sparsity, and whether these go with robustness (C5)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from paperlib import experiments, gradients, statistics, theory
from paperlib.evaluations import Evaluation
from paperlib.experiments import Experiment
from paperlib.images import Split
from paperlib.measures.core import BATCH, NOTHING, median, row


def probability_gradients(experiment: Experiment, samples: Split, *, device: str = "auto") -> Tensor:
    """∇ₓ f_y of a trained network at `samples`, (N, C, H, W) on the CPU: the surrogate gradient."""
    device = experiments.resolve(device)
    network = experiments.trained(experiment, device=device)
    parts = []
    for x, y, _ in samples.batches(BATCH):
        parts.append(theory.true_class_gradient(theory.probabilities(network), x.to(device), y.to(device)).cpu())
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
