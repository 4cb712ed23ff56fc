"""What all measures share: a row from an interval, groups of equal labels, and rows over seeds."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
from torch import Tensor

from paperlib import records
from paperlib.attacks import evaluation
from paperlib.measures import statistics
from paperlib.store.experiment import Experiment

T = TypeVar("T")
BATCH = evaluation.BATCH  # images that a network sees at once
NOTHING = statistics.Interval(np.nan, np.nan, np.nan, 0, "no sample has a gradient")


def median(values: Tensor | np.ndarray) -> statistics.Interval:
    """The median of per-sample `values` (n,) with its interval; NOTHING where there are none."""
    return statistics.bootstrap_median(np.asarray(values), seed=0) if len(values) else NOTHING


def row(interval: statistics.Interval, of: Sequence[Experiment], **labels) -> dict:
    """One row of a record about the networks `of`."""
    seeds = list(dict.fromkeys(e.seed for e in of))
    return records.row(interval, seeds=seeds, experiments=list(dict.fromkeys(e.key for e in of)), **labels)


def by_labels(found: Iterable[T], labels: Callable[[T], dict]) -> list[tuple[dict, list[T]]]:
    """`found` in groups of equal labels, each as (labels, members), in order of first appearance."""
    groups: dict[str, tuple[dict, list[T]]] = {}
    for one in found:
        own = labels(one)
        groups.setdefault(repr(own), (own, []))[1].append(one)
    return list(groups.values())


def over_seeds(
    found: Sequence[tuple[Experiment, np.ndarray]], *, geometric: bool = False, doubts: Sequence[str] = (), **labels
) -> dict:
    """One row for networks that differ by their seed alone, from what each says of its samples, (n,) each.

    Of bool arrays it is the mean share of True, of others, none below 0, the mean of the networks' medians; `geometric`
    for those that span orders of magnitude.  See `mean_over_seeds`.
    """
    shares = any(np.asarray(values).dtype == bool for _, values in found)
    middle, interval = (np.mean, statistics.wilson) if shares else (np.median, median)
    told = [
        (experiment, float(middle(values)) if len(values) else np.nan, partial(interval, np.asarray(values)))
        for experiment, values in found
    ]
    limits = (0, 1 if shares else np.inf)
    return mean_over_seeds(told, within=limits, geometric=geometric, doubts=doubts, **labels)


def mean_over_seeds(
    found: Sequence[tuple[Experiment, float, Callable[[], statistics.Interval]]],
    *,
    within: tuple[float, float] = (-np.inf, np.inf),
    geometric: bool = False,
    **labels,
) -> dict:
    """One row for networks that differ by their seed alone: the mean of their values with Student's t interval.

    `found` holds a value for each, and what gives its interval over samples.  The mean's is cut to `within`; that of a
    `geometric` mean is taken of logarithms, and there is none where a value is 0.  Values that are NaN are left out.
    Where one is left there is no such interval: the row is that network's own, over samples, and its method says so.
    """
    known = [(value, own) for _, value, own in found if not np.isnan(value)]
    values = [value for value, _ in known]
    if not known:
        interval = NOTHING
    elif len(known) == 1:
        interval = known[0][1]()
    elif not geometric:
        interval = statistics.t_interval(values)
        low, high = np.clip([interval.low, interval.high], *within)
        interval = interval._replace(low=float(low), high=float(high))
    elif min(values) > 0:
        interval = statistics.geometric_interval(values)
    else:
        interval = statistics.Interval(0.0, np.nan, np.nan, len(values), "a network has 0: no geometric interval")
    return row(interval, [experiment for experiment, _, _ in found], **labels)
