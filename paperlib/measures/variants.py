"""Rows of SR's variants against each other, each at the λ that validation data choose for it."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from paperlib.measures.accuracy import apart, choice_rows, doubted, mean_difference_row, mean_rows
from paperlib.measures.predictors import SPARSITIES
from paperlib.measures.rows import by_labels, over_seeds
from paperlib.store.evaluations import Evaluation
from paperlib.store.experiment import Experiment
from paperlib.training import defenses, regularizers

FIRST, BASELINE = "the first", "vanilla"  # what a variant is compared with
ELSEWHERE = "mean accuracy at another λ"  # of networks whose λ was not chosen


def variant_labels(experiment: Experiment) -> dict:
    """A network's variant: the axes of SR's penalty, which are confidence, penalty, direction and h; {} of vanilla."""
    if experiment.defense == BASELINE:
        return {}
    sr = defenses.build(experiment.defense, experiment.options)
    return regularizers.variant(sr.preset, **sr.axes)._asdict() | {"h": sr.h}


def variant_rows(
    validation: Sequence[Evaluation], test: Sequence[Evaluation], gradients: Mapping[str, Tensor], tolerance: float
) -> list[dict]:
    """Every variant at its own λ: its accuracies, its differences from the first and vanilla, its gradient's size.

    `accuracy.chosen` chooses each λ by `validation`; variants are compared by `test`; `gradients` maps experiment keys
    to ∇ₓ f_y.  Networks of another λ, which are all where λ = 0 is chosen, have accuracies alone, as `ELSEWHERE`.
    """
    vanilla = [e for e in test if not variant_labels(e.experiment)]
    rows = mean_rows(vanilla) + _size_rows(vanilla, gradients)
    rows += [entry | {"split": "validation"} for entry in apart(validation, variant_labels, mean_rows)]
    first: list[Evaluation] | None = None
    baseline = [e for e in validation if not variant_labels(e.experiment)]
    for variant, candidates in by_labels(validation, lambda e: variant_labels(e.experiment)):
        if not variant:
            continue
        choice, _ = choice_rows(baseline + candidates, tolerance, used=np.nan)
        evaluations = [e for e in test if variant_labels(e.experiment) == variant]
        selected = [e for e in evaluations if e.labels["lam"] == choice["value"]]
        others = [e for e in evaluations if e.labels["lam"] != choice["value"]]
        added = [choice, *mean_rows(selected), *_size_rows(selected, gradients)]
        added += [r | {"quantity": ELSEWHERE} for r in mean_rows(others)]
        added += _difference_rows(selected, vanilla, BASELINE) + _difference_rows(selected, first or [], FIRST)
        rows += [r | variant for r in added]
        first = selected if first is None else first
    return rows


def _size_rows(evaluations: Sequence[Evaluation], gradients: Mapping[str, Tensor]) -> list[dict]:
    """The medians of `predictors.sparsity_rows`, as a mean over the seeds of the networks that were evaluated."""
    networks, rows = {e.experiment.key: e.experiment for e in evaluations}.values(), []
    for labels, group in by_labels(networks, lambda e: e.labels):
        for name, measure in SPARSITIES.items():
            values = [(e, measure(gradients[e.key])) for e in group]
            known = [(e, v[v.isfinite()].numpy()) for e, v in values]
            rows.append(over_seeds(known, geometric=True, quantity=name, **labels))
    return rows


def _difference_rows(mine: Sequence[Evaluation], others: Sequence[Evaluation], against: str) -> list[dict]:
    """Accuracy of `mine` minus that of `others`, one row for each attack, paired by seed and sample."""
    by_seed = {(item.experiment.seed, repr(item.evaluation.attack)): item for item in doubted(others)}
    pairs = [(a, by_seed[a.experiment.seed, repr(a.evaluation.attack)]) for a in doubted(mine) if by_seed]
    rows = []
    for labels, group in by_labels(pairs, lambda pair: pair[0].evaluation.labels):
        rows.append(mean_difference_row(group, quantity="difference", against=against, **labels))
    return rows
