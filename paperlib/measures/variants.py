"""SR's variants against each other: each at the λ that validation data choose for it."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from paperlib.measures import statistics
from paperlib.measures.accuracy import apart, choice_rows, doubted, mean_rows
from paperlib.measures.doubts import union
from paperlib.measures.predictors import SPARSITIES
from paperlib.measures.rows import by_labels, mean_over_seeds, over_seeds
from paperlib.store.evaluations import Evaluation
from paperlib.store.experiment import Experiment
from paperlib.training import defenses, regularizers

FIRST, BASELINE = "the first", "vanilla"  # what a variant is compared with
ELSEWHERE = "mean accuracy at another λ"  # than the chosen


def variant_labels(experiment: Experiment) -> dict:
    """The axes of SR's penalty: confidence, penalty, direction and h; {} of a training without."""
    if experiment.defense == BASELINE:
        return {}
    sr = defenses.build(experiment.defense, experiment.options)
    return regularizers.variant(sr.preset, **sr.axes)._asdict() | {"h": sr.h}


def variant_rows(
    validation: Sequence[Evaluation], test: Sequence[Evaluation], gradients: Mapping[str, Tensor], tolerance: float
) -> list[dict]:
    """Every variant at its own λ: what it leaves of accuracy, against the first and vanilla, and its gradient's size.

    `validation` holds clean images and one attack, by which `chosen` takes each variant's λ; `test` what judges them;
    `gradients` are ∇ₓ f_y by experiment key.  Of networks whose λ was not chosen there are the accuracies alone: of all
    of a variant where validation data choose λ = 0.
    """
    vanilla = [e for e in test if not variant_labels(e.experiment)]
    rows = mean_rows(vanilla) + _sizes(vanilla, gradients)
    rows += [entry | {"split": "validation"} for entry in apart(validation, variant_labels, mean_rows)]
    first: list[Evaluation] | None = None
    for form, candidates in _parts(validation):
        choice, _ = choice_rows(candidates, tolerance, used=np.nan)
        mine = [e for e in test if variant_labels(e.experiment) == form]
        selected = [e for e in mine if e.labels["lam"] == choice["value"]]
        others = [e for e in mine if e.labels["lam"] != choice["value"]]
        added = [choice, *mean_rows(selected), *_sizes(selected, gradients)]
        added += [r | {"quantity": ELSEWHERE} for r in mean_rows(others)]
        added += _differences(selected, vanilla, BASELINE) + _differences(selected, first or [], FIRST)
        rows += [r | form for r in added]
        first = selected if first is None else first
    return rows


def _parts(evaluations: Sequence[Evaluation]) -> list[tuple[dict, list[Evaluation]]]:
    """Of each variant its labels, and its evaluations after those of vanilla networks."""
    parts = by_labels(evaluations, lambda e: variant_labels(e.experiment))
    vanilla = [e for form, judged in parts for e in judged if not form]
    return [(form, vanilla + judged) for form, judged in parts if form]


def _sizes(evaluations: Sequence[Evaluation], gradients: Mapping[str, Tensor]) -> list[dict]:
    """The medians of `sparsity_rows`, as a mean over the seeds of the networks that were evaluated."""
    networks = {e.experiment.key: e.experiment for e in evaluations}.values()
    rows = []
    for labels, group in by_labels(networks, lambda e: e.labels):
        for name, measure in SPARSITIES.items():
            values = [measure(gradients[e.key]) for e in group]
            known = [(e, v[v.isfinite()].numpy()) for e, v in zip(group, values, strict=True)]
            rows.append(over_seeds(known, geometric=True, quantity=name, **labels))
    return rows


def _differences(mine: Sequence[Evaluation], others: Sequence[Evaluation], against: str) -> list[dict]:
    """One row an attack: accuracy of `mine` minus that of `others`, by seed and sample (see `mean_over_seeds`)."""
    by_seed = {(e.experiment.seed, repr(e.attack)): e for e in others}
    pairs = [(a, by_seed[a.experiment.seed, repr(a.attack)]) for a in mine if by_seed]
    reasons = {id(e): why for e, why in doubted([*mine, *others])}
    rows = []
    for labels, group in by_labels(pairs, lambda pair: pair[0].labels):
        intervals = [statistics.paired_difference(a.flags, b.flags) for a, b in group]
        networks = [(a.experiment, i.value, i._replace) for (a, _), i in zip(group, intervals, strict=True)]
        why = union(reasons[id(e)] for pair in group for e in pair)
        labels |= {"against": against}
        rows.append(mean_over_seeds(networks, within=(-1, 1), quantity="difference", doubts=why, **labels))
    return rows
