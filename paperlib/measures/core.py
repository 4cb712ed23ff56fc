"""What all measures share: a row from an interval, and rows over seeds."""

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from paperlib import records, statistics
from paperlib.experiments import Experiment

BATCH = 100  # images that a network sees at once
NOTHING = statistics.Interval(np.nan, np.nan, np.nan, 0, "no sample has a gradient")


def median(values: Tensor | np.ndarray) -> statistics.Interval:
    """The median of per-sample `values` (n,) with its interval; NOTHING where there are none."""
    return statistics.bootstrap_median(np.asarray(values), seed=0) if len(values) else NOTHING


def row(interval: statistics.Interval, of: Sequence[Experiment], **labels) -> dict:
    """One row of a record about the networks `of`."""
    seeds = list(dict.fromkeys(e.seed for e in of))
    return records.row(interval, seeds=seeds, experiments=list(dict.fromkeys(e.key for e in of)), **labels)


def over_seeds(found: Sequence[tuple[Experiment, np.ndarray]], *, geometric: bool = False, **labels) -> dict:
    """One row for networks that differ by their seed alone, from what each says of its samples, (n,) each.

    Of bool arrays it is the mean share of True, of others, none below 0, the mean of the networks' medians; `geometric`
    for those that span orders of magnitude.  See `mean_over_seeds`.
    """
    shares = any(np.asarray(values).dtype == bool for _, values in found)
    told = [
        (experiment, float((np.mean if shares else np.median)(values)) if len(values) else np.nan)
        for experiment, values in found
    ]

    def alone() -> statistics.Interval:
        (values,) = (np.asarray(values) for _, values in found if len(values))
        return statistics.wilson(values) if shares else median(values)

    return mean_over_seeds(told, alone, within=(0, 1 if shares else np.inf), geometric=geometric, **labels)


def mean_over_seeds(
    found: Sequence[tuple[Experiment, float]],
    alone: Callable[[], statistics.Interval],
    *,
    within: tuple[float, float] = (-np.inf, np.inf),
    geometric: bool = False,
    **labels,
) -> dict:
    """One row for networks that differ by their seed alone: the mean of their values with Student's t interval.

    The interval is cut to `within`; that of a `geometric` mean is taken of logarithms, and there is none where a value
    is 0.  Values that are NaN are left out.  One network has no such interval; its row is its own, over samples, as
    `alone` has it, and its method says so.
    """
    known = [value for _, value in found if not np.isnan(value)]
    if not known:
        interval = NOTHING
    elif len(known) == 1:
        interval = alone()
    elif not geometric:
        interval = statistics.t_interval(known)
        low, high = np.clip([interval.low, interval.high], *within)
        interval = interval._replace(low=float(low), high=float(high))
    elif min(known) > 0:
        interval = statistics.geometric_interval(known)
    else:
        interval = statistics.Interval(0.0, np.nan, np.nan, len(known), "a network has 0: no geometric interval")
    return row(interval, [experiment for experiment, _ in found], **labels)
