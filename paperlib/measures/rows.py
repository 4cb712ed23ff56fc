"""What all measures share: a row from an interval, groups of equal labels, and rows over seeds."""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
from torch import Tensor

from paperlib import records
from paperlib.attacks import evaluation
from paperlib.labels import SEEDS
from paperlib.measures import statistics
from paperlib.store.experiment import Experiment

T = TypeVar("T")
BATCH = evaluation.BATCH  # images that a network sees at once
Measured = tuple[Experiment, float, Callable[[], statistics.Interval]]  # a network, its value, and its interval
# networks of one seed (one, or a pair), their values or differences (n,), and the first of two phases (N,) or None
Flagged = tuple[Collection[Experiment], np.ndarray, np.ndarray | None]
NOTHING = statistics.Interval(np.nan, np.nan, np.nan, 0, "no sample has a gradient")


def median(values: Tensor | np.ndarray) -> statistics.Interval:
    """The median of per-sample `values` (n,) with its interval; NOTHING where there are none."""
    return statistics.bootstrap_median(np.asarray(values), seed=0) if len(values) else NOTHING


def certain(value: float, n: int, method: str = "counted") -> statistics.Interval:
    """A number without an interval, from `n` samples or seeds."""
    return statistics.Interval(value, np.nan, np.nan, n, method)


def row(interval: statistics.Interval, experiments: Collection[Experiment], **labels) -> dict:
    """One row of a record about some networks."""
    seeds, keys = dict.fromkeys(e.seed for e in experiments), dict.fromkeys(e.key for e in experiments)
    return records.row(interval, seeds=list(seeds), experiments=list(keys), **labels)


def by_labels(items: Iterable[T], labels: Callable[[T], dict]) -> list[tuple[dict, list[T]]]:
    """`items` in groups of equal labels, each as (labels, members), in order of first appearance."""
    groups: dict[str, tuple[dict, list[T]]] = {}
    for item in items:
        common = labels(item)
        groups.setdefault(repr(common), (common, []))[1].append(item)
    return list(groups.values())


def by_seed(items: Iterable[T], training: str, against: str) -> list[tuple[T, T]]:
    """Pairs of `items`, which have an `experiment`: one of `training` and one of `against`, of the same seed."""
    items = list(items)
    others = {item.experiment.seed: item for item in items if item.experiment.defense == against}
    mine = [item for item in items if item.experiment.defense == training]
    return [(item, others[item.experiment.seed]) for item in mine if item.experiment.seed in others]


def over_networks_and_samples(
    networks: Sequence[Flagged],
    *,
    within: tuple[float, float] = (0, 1),
    mark: float | None = None,
    doubts: Sequence[str] = (),
    **labels,
) -> dict:
    """One row for networks on the same samples: the mean of their flags, or of their differences (`within` -1 and 1).

    The interval is that of `statistics.crossed`; flags of one network on samples of one phase have Wilson's.  With a
    `mark`, which becomes a label, the row has the p-value of the mean being `mark`.
    """
    values = [samples for _, samples, _ in networks]
    wide = None if any(first is None for *_, first in networks) else [first for *_, first in networks]
    if wide is None and len(values) == 1 and values[0].dtype == bool:
        interval = statistics.wilson(values[0])
    else:
        interval = statistics.crossed(values, within=within, wide=wide, null=mark or 0.0)
    experiments = [e for some, *_ in networks for e in some]
    return row(interval, experiments, doubts=doubts, **labels, **_marked(mark))


def over_seeds(
    values: Sequence[tuple[Experiment, np.ndarray]],
    *,
    geometric: bool = False,
    mark: float | None = None,
    doubts: Sequence[str] = (),
    **labels,
) -> dict:
    """One row for networks that differ by their seed alone, from the values of each one's samples, (n,) each.

    Flags on equally many samples: the mean with an interval over networks and samples.  Otherwise, as each network has
    samples of its own, the mean over networks of the share of True, or of the median of values of 0 or more, with an
    interval over networks (see `mean_over_seeds`); where all these flags are equal, networks show no spread, and the
    interval is Wilson's for the network with the fewest samples.  With a `mark` the row's p is that of this share.
    """
    arrays = [np.asarray(samples) for _, samples in values]
    flags = any(array.dtype == bool for array in arrays)
    if flags and len({len(array) for array in arrays}) == 1 and len(arrays[0]):
        networks = [([e], array, None) for (e, _), array in zip(values, arrays, strict=True)]
        return over_networks_and_samples(networks, mark=mark, doubts=doubts, **labels)
    known = [array for array in arrays if len(array)]
    if flags and len(known) > 1 and len(np.unique(np.concatenate(known))) == 1:
        fewest = min(known, key=len)
        p = np.nan if mark is None else statistics.score_test(fewest, mark)
        interval = statistics.wilson(fewest)._replace(over=SEEDS, p=p)
        return row(interval, [experiment for experiment, _ in values], doubts=doubts, **labels, **_marked(mark))
    middle, interval = (np.mean, statistics.wilson) if flags else (np.median, median)
    networks = [(e, float(middle(x)) if len(x) else np.nan, partial(interval, np.asarray(x))) for e, x in values]
    limits = (0, 1 if flags else np.inf)
    return mean_over_seeds(networks, within=limits, geometric=geometric, mark=mark, doubts=doubts, **labels)


def mean_over_seeds(
    networks: Sequence[Measured],
    *,
    within: tuple[float, float] = (-np.inf, np.inf),
    geometric: bool = False,
    mark: float | None = None,
    **labels,
) -> dict:
    """One row for networks that differ by their seed alone: the mean of their values with Student's t interval.

    `networks` holds for each its experiment, its value, and a function that returns its interval over samples, which
    the row has where there is a single value.  NaN is left out.  The interval of the mean is cut to `within`; that of a
    `geometric` mean is taken of logarithms, and there is none where a value is 0.  With a `mark`, which becomes a
    label, the row has the p-value of the mean being `mark`.
    """
    known = [(value, interval) for _, value, interval in networks if not np.isnan(value)]
    values = [value for value, _ in known]
    if not known:
        interval = NOTHING
    elif len(known) == 1:
        interval = known[0][1]()
    elif not geometric:
        interval = statistics.t_interval(values)
        low, high = np.clip([interval.low, interval.high], *within)
        p = np.nan if mark is None else statistics.t_interval(np.subtract(values, mark)).p
        interval = interval._replace(low=float(low), high=float(high), p=p)
    elif min(values) > 0:
        interval = statistics.geometric_interval(values)
    else:
        interval = certain(0.0, len(values), "a network has 0: no geometric interval")
    return row(interval, [experiment for experiment, _, _ in networks], **labels, **_marked(mark))


def _marked(mark: float | None) -> dict:
    """The label of the value with which a row's p-value compares its mean; {} where that is 0."""
    return {} if mark is None else {"mark": mark}
