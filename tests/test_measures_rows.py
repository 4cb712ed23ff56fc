"""Rows over seeds by hand: means, intervals and what they are cut to, networks that give no value."""

import math
from functools import partial

import numpy as np
import pytest
from measures_by_hand import SEEDS, anova, bounds, flags

from paperlib.measures import rows, statistics


def over_seeds(values, **how):
    """A row of the first networks of `SEEDS`, one for each of `values`."""
    return rows.over_seeds(list(zip(SEEDS, values, strict=False)), quantity="q", **how)


@pytest.mark.parametrize(
    ("values", "geometric", "expected"),
    [
        # 3 of 5, 7 of 10, 16 of 20: standard error 0.1/√3, times t(0.975, 2) = 4.30265
        ([flags(3, 5), flags(7), flags(16, 20)], False, (0.7, 0.45159, 0.94841)),
        ([flags(5), flags(20, 20)], False, (0.75, 0, 1)),  # 0.75 ± 0.25 · 12.7, cut to what a share can be
        ([[1.0], [9.0]], False, (5, 0, 5 + 4 * 12.7062)),  # no size lies below 0, but above 1
        # medians 2, 4, 6: standard error 2/√3
        ([[1.0, 2, 900], [4.0], [5.0, 7, 0, 8]], False, (4, 0, 8.96827)),
        # medians 1, 10, 100: as in `test_geometric_interval_by_hand`
        ([np.array([1, 1, 5]) * 10.0**s for s in range(3)], True, (10, 10**-1.48414, 10**3.48414)),
    ],
)
def test_means_over_seeds_by_hand(values, geometric, expected):
    entry = over_seeds([np.asarray(v) for v in values], geometric=geometric)
    assert (entry["value"], *bounds(entry)) == pytest.approx(expected, rel=5e-5)
    assert entry["n"] == len(values) and entry["seeds"] == list(range(len(values))) and entry["over"] == "seeds"


def test_flags_of_several_networks_on_the_same_samples_are_crossed():
    values = [flags(3), flags(7), flags(8)]
    entry = over_seeds(values)
    assert (entry["value"], *bounds(entry)) == pytest.approx(anova(values, 0, 1))
    assert entry["n"] == 10 and entry["seeds"] == [0, 1, 2] and entry["over"] == "seeds and samples"


def test_a_network_with_zero_leaves_a_geometric_mean_without_interval():
    entry = over_seeds([np.array([0.0, 1, 2]) * s for s in range(3)], geometric=True)
    assert (entry["value"], *bounds(entry), entry["n"], entry["over"]) == (0, None, None, 3, None)
    assert "0" in entry["method"]


@pytest.mark.parametrize("geometric", [False, True])
def test_one_network_alone_has_the_interval_of_its_samples(geometric):
    share = over_seeds([flags(3, 4)], geometric=geometric)  # Wilson, 3 of 4: as in `test_an_accuracy_by_hand`
    assert share["value"] == 0.75 and bounds(share) == pytest.approx((0.30064, 0.95442), abs=2e-5)
    assert share["n"] == 4 and share["method"] == "Wilson 95 %" and share["over"] == "samples"
    values = np.random.default_rng(0).exponential(size=30)
    size = over_seeds([values], geometric=geometric)
    assert size["value"] == np.median(values) and size["n"] == 30 and size["method"] == "percentile bootstrap 95 %"
    assert values.min() < size["low"] < size["value"] < size["high"] < values.max()


def test_networks_that_give_no_value_are_left_out_and_still_named():
    nothing, known = np.array([]), np.array([1.0, 2, 3])
    one, two = over_seeds([nothing, known, nothing]), over_seeds([known, nothing, known + 4])
    assert (one["value"], one["n"], one["seeds"]) == (2, 3, [0, 1, 2])
    assert (two["value"], two["n"]) == (4, 2)


@pytest.mark.parametrize("dtype", [bool, float])
@pytest.mark.parametrize("geometric", [False, True])
def test_where_no_network_gives_a_value_there_is_none(dtype, geometric):
    entry = over_seeds([np.array([], dtype)] * 3, geometric=geometric)
    assert (entry["value"], *bounds(entry), entry["n"]) == (None, None, None, 0)
    assert entry["method"] == "no sample has a gradient" and entry["seeds"] == [0, 1, 2]


def test_a_mean_over_seeds_leaves_nan_out_and_takes_samples_of_a_single_network_only():
    def mean(*values, alone=None, **how):
        networks = [(e, value, alone and partial(alone, e)) for e, value in zip(SEEDS, values, strict=True)]
        return rows.mean_over_seeds(networks, quantity="q", **how)

    def alone(of):
        return statistics.Interval(5.0, 4.0, 6.0, 70 + of.seed, "of samples")

    two = mean(1.0, math.nan, 3.0)  # 1 and 3: 2 ± 12.7062 · 1
    assert (two["value"], *bounds(two)) == pytest.approx((2, -10.7062, 14.7062), rel=1e-5) and two["n"] == 2
    assert bounds(mean(1.0, math.nan, 3.0, within=(0, 9))) == (0, 9)
    one = mean(math.nan, 3.0, math.nan, alone=alone, within=(0, 1))
    assert (one["value"], *bounds(one), one["n"], one["method"]) == (5, 4, 6, 71, "of samples")
    assert mean(*[math.nan] * 3)["value"] is None


def test_groups_keep_the_order_of_first_appearance():
    groups = rows.by_labels(iter([3, 1, 5, 2, 4]), lambda i: {"odd": i % 2})
    assert groups == [({"odd": 1}, [3, 1, 5]), ({"odd": 0}, [2, 4])]
