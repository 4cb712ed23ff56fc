"""Intervals against numbers worked out by hand, formulas written another way, properties and simulated coverage."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from measures_by_hand import anova
from scipy import stats

from paperlib.errors import Refused
from paperlib.measures import statistics

Z = 1.959963984540054

flags = st.integers(1, 60).flatmap(lambda n: arrays(bool, n))
flag_pairs = st.integers(1, 60).flatmap(lambda n: st.tuples(arrays(bool, n), arrays(bool, n)))
reals = st.integers(-10_000, 10_000).map(lambda i: i / 100)
value_pairs = st.integers(5, 30).flatmap(lambda n: st.tuples(*2 * [arrays(float, n, elements=reals)]))


def bounds(interval):
    return [interval.low, interval.high]


def width(interval):
    return interval.high - interval.low


def discordant(both, only_a, only_b, neither):
    """Flags a and b of the four-fold table with these counts."""
    a, b = [1, 1, 0, 0], [1, 0, 1, 0]
    counts = [both, only_a, only_b, neither]
    return np.repeat(a, counts).astype(bool), np.repeat(b, counts).astype(bool)


# ---- by hand -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "value", "low", "high", "n", "method", "over"),
    [
        # k = 8, n = 10, z² = 3.8415: centre (0.8 + 0.19207) / 1.38415 = 0.71674,
        # half 1.96 √(0.016 + 0.0096037) / 1.38415 = 0.22657
        (statistics.wilson([True] * 8 + [False] * 2), 0.8, 0.49016, 0.94332, 10, "Wilson 95 %", "samples"),
        # n = 21, 1 only a, 7 only b: p = 2/23, q = 8/23, p - q = -0.26087,
        # half 1.96 √((10/23 - 36/529) / 23) = 1.96 √0.0159447 = 0.24749
        (
            statistics.paired_difference(*discordant(1, 1, 7, 12)),
            *(-6 / 21, -0.50836, -0.01338, 21, "Bonett-Price paired 95 %", "samples"),
        ),
        # mean 3, s² = 2.5, standard error √(2.5 / 5) = 0.70711, t(0.975, 4) = 2.77645
        (
            statistics.t_interval([1, 2, 3, 4, 5]),
            *(3, 3 - 1.96324, 3 + 1.96324, 5, "Student t 95 % over seeds", "seeds"),
        ),
        # Σd² = 4: r = 1 - 24/120 = 0.8; atanh 0.8 = 1.09861, half 1.96 √(1.32 / 2) = 1.59228;
        # tanh(-0.49367) = -0.45714, tanh(2.69089) = 0.99084
        (
            statistics.rank_correlation([1, 2, 3, 4, 5], [20, 10, 400, 30, 1000]),
            *(0.8, -0.45714, 0.99084, 5, "Bonett-Wright 95 %", "pairs"),
        ),
        # a perfect order of few pairs is no certainty: centre at r = 1 - 12/990, atanh r = ln(164) / 2 = 2.54993,
        # half 1.96 √(1.5 / 7) = 0.90729; tanh 1.64264 = 0.92784
        (statistics.rank_correlation(range(10), range(10)), 1, 0.92784, 1, 10, "Bonett-Wright 95 %", "pairs"),
    ],
)
def test_intervals_by_hand(interval, value, low, high, n, method, over):
    assert interval.value == pytest.approx(value) and bounds(interval) == pytest.approx([low, high], abs=2e-5)
    assert (interval.n, interval.method, interval.over) == (n, method, over)


def test_geometric_interval_by_hand():
    # log10 of 1, 10, 100: mean 1, s = 1, t(0.975, 2) = 4.30265, half 4.30265/√3 = 2.48414
    interval = statistics.geometric_interval([100, 1, 10])
    assert interval.value == pytest.approx(10) and interval.n == 3
    assert interval.method == "Student t of logs 95 % over seeds"
    assert [math.log10(b) for b in bounds(interval)] == pytest.approx([1 - 2.48414, 1 + 2.48414], abs=2e-5)


@pytest.mark.parametrize(
    ("interval", "value", "method"),
    [
        (statistics.t_interval([0.7]), 0.7, "one seed: no interval"),
        (statistics.geometric_interval([0.7]), 0.7, "one seed: no interval"),
        (statistics.rank_correlation([1, 2, 3, 4], [1, 2, 3, 4]), 1, "fewer than 5 pairs: no interval"),
        (statistics.rank_correlation([1] * 5, range(5)), math.nan, "constant input: no rank correlation"),
        (statistics.bootstrap_median([2], seed=0), 2, "one sample: no interval"),
    ],
)
def test_where_the_data_allow_no_interval_its_method_says_so(interval, value, method):
    assert interval.value == pytest.approx(value, nan_ok=True) and interval.method == method
    assert all(map(math.isnan, bounds(interval)))


# ---- Wilson ------------------------------------------------------------------------------------------------------


@given(flags)
def test_wilson_bounds_solve_the_score_equation_mirror_and_shrink(f):
    # The interval is all p with (p̂ - p)² <= z² p (1 - p) / n, so its ends are the roots of the quadratic.
    interval, n = statistics.wilson(f), f.size
    roots = np.roots([1 + Z**2 / n, -(2 * interval.value + Z**2 / n), interval.value**2])
    assert bounds(interval) == pytest.approx(sorted(roots.real), abs=1e-6)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    assert bounds(statistics.wilson(~f)) == pytest.approx([1 - interval.high, 1 - interval.low])
    assert width(statistics.wilson(np.tile(f, 4))) < width(interval)


def test_wilson_covers():
    # The average over shares: at single shares any interval on counts swings around its level.
    rng = np.random.default_rng(0)
    shares = rng.uniform(0.02, 0.98, 2000)
    intervals = [statistics.wilson(rng.random(100) < p) for p in shares]
    assert np.mean([i.low <= p <= i.high for i, p in zip(intervals, shares, strict=True)]) >= 0.93


# ---- paired proportions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_no_discordant_pair_still_leaves_a_width(share):
    # n = 1000: half = 1.96 √(2 / 1002 / 1002) = 0.00277, near the 3 / n of the rule of three
    a = np.arange(1000) < 1000 * share
    interval = statistics.paired_difference(a, a)
    assert interval.value == 0 and bounds(interval) == pytest.approx([-0.002766, 0.002766], abs=1e-6)


@given(flag_pairs)
def test_paired_difference_contains_swaps_and_shrinks(pair):
    a, b = pair
    interval, swapped = statistics.paired_difference(a, b), statistics.paired_difference(b, a)
    assert -1 <= interval.low < interval.high <= 1
    assert interval.low - 1e-12 <= a.mean() - b.mean() <= interval.high + 1e-12
    assert bounds(swapped) == pytest.approx([-interval.high, -interval.low])
    assert width(statistics.paired_difference(np.tile(a, 9), np.tile(b, 9))) < width(interval)


@pytest.mark.parametrize(
    "table", [(0.5, 0.01, 0.0, 0.49), (0.5, 0.05, 0.05, 0.4), (0.1, 0.3, 0.1, 0.5), (0.05, 0.02, 0.01, 0.92)]
)
def test_paired_difference_covers(table):
    # The first table, few discordant pairs all one way, is where Newcombe's method 10 falls to 88 %.
    rng = np.random.default_rng(0)
    truth = table[1] - table[2]
    intervals = [statistics.paired_difference(*discordant(*counts)) for counts in rng.multinomial(200, table, 2000)]
    assert np.mean([i.low <= truth <= i.high for i in intervals]) >= 0.93


def test_mcnemar_by_hand():
    # 5 only a, 1 only b: 2 · (C(6,0) + C(6,1)) / 2⁶ = 14/64; concordant pairs do not count
    assert statistics.mcnemar(*discordant(3, 5, 1, 4)) == pytest.approx(14 / 64)
    assert statistics.mcnemar(*discordant(300, 5, 1, 0)) == pytest.approx(14 / 64)
    assert statistics.mcnemar(*discordant(3, 0, 0, 4)) == 1


@given(flag_pairs)
def test_mcnemar_is_symmetric(pair):
    a, b = pair
    assert statistics.mcnemar(a, b) == statistics.mcnemar(b, a)
    assert 0 < statistics.mcnemar(a, b) <= 1


# ---- means over seeds --------------------------------------------------------------------------------------------


@given(arrays(float, st.integers(2, 20), elements=reals), reals)
def test_t_interval_contains_moves_and_shrinks(values, shift):
    interval, moved = statistics.t_interval(values), statistics.t_interval(values + shift)
    assert interval.low <= interval.value <= interval.high
    assert bounds(moved) == pytest.approx([interval.low + shift, interval.high + shift], abs=1e-6)
    assert width(statistics.t_interval(np.tile(values, 4))) <= width(interval) + 1e-9


@given(arrays(float, st.integers(2, 20), elements=st.integers(1, 10**6).map(lambda i: i / 1000)), st.integers(1, 999))
def test_geometric_interval_contains_scales_and_inverts(values, factor):
    interval = statistics.geometric_interval(values)
    assert 0 < interval.low <= interval.value <= interval.high
    scaled, inverse = statistics.geometric_interval(values * factor), statistics.geometric_interval(1 / values)
    assert scaled[:3] == pytest.approx([part * factor for part in interval[:3]], rel=1e-6)
    assert inverse[:3] == pytest.approx([1 / interval.value, 1 / interval.high, 1 / interval.low], rel=1e-6)


# ---- rank correlation --------------------------------------------------------------------------------------------


@given(value_pairs)
def test_rank_correlation_contains_swaps_and_mirrors(pair):
    x, y = pair
    interval = statistics.rank_correlation(x, y)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert all(map(math.isnan, interval[:3]))
        return
    assert -1 <= interval.low <= interval.value <= interval.high <= 1
    assert bounds(statistics.rank_correlation(y, x)) == pytest.approx(bounds(interval), abs=1e-6)
    mirrored = statistics.rank_correlation(x, -y)
    assert bounds(mirrored) == pytest.approx([-interval.high, -interval.low], abs=1e-6)


def test_rank_correlation_shrinks_with_n():
    rng = np.random.default_rng(0)
    samples = [rng.normal(size=(2, n)) for n in (10, 100, 1000)]
    widths = [width(statistics.rank_correlation(x, x + noise)) for x, noise in samples]
    assert widths == sorted(widths, reverse=True)


# ---- rank correlations of clustered pairs ------------------------------------------------------------------------


def in_clusters(rng, *, clusters=10, size=4, shared=0.9):
    """Numbers (clusters · size,) of which the pairs of a cluster share most, and the cluster of each."""
    names = np.repeat(np.arange(clusters), size)
    own = rng.normal(size=clusters * size)
    return math.sqrt(shared) * rng.normal(size=clusters)[names] + math.sqrt(1 - shared) * own, names


def simpson(rng):
    """Trainings whose sparsities and accuracies fall together, and in which neither depends on the other."""
    training = np.repeat(np.arange(4), 10)
    configuration = np.repeat(np.arange(20), 2)
    return -6.0 * training + rng.normal(size=40), 6.0 * training + rng.normal(size=40), configuration, training


def test_without_groups_it_is_spearmans_r_of_scipy_with_ties_and_all():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, (2, 30)).astype(float)
    interval = statistics.clustered_rank_correlation(x, y, np.arange(30) // 3)
    assert interval.value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert (interval.n, interval.over) == (30, "clusters") and "10 clusters" in interval.method


def test_a_resample_is_the_correlation_of_the_pairs_written_out():
    # the slow way: pairs repeated as often as their cluster was drawn, ranked by scipy
    rng = np.random.default_rng(1)
    (x, names), (y, _) = in_clusters(rng), in_clusters(rng)
    y = y.round()
    drawn = np.random.default_rng(0).multinomial(10, np.full(10, 0.1), statistics.RESAMPLES)[:200]
    slow = [stats.spearmanr(*np.repeat([x, y], times[names], axis=1)).statistic for times in drawn]
    fast = statistics._rank_correlations(x, y, None, names * 0, drawn[:, names].T)
    np.testing.assert_allclose(fast, slow, atol=1e-12)


def test_its_interval_and_p_follow_the_formula():
    rng = np.random.default_rng(2)
    x, names = in_clusters(rng)
    y = -x + in_clusters(rng)[0]
    interval = statistics.clustered_rank_correlation(x, y, names)
    resampled = []
    for draw in np.random.default_rng(9).integers(0, 10, (1000, 10)):  # other resamples than its own
        pairs = np.concatenate([np.flatnonzero(names == name) for name in draw])
        resampled.append(stats.spearmanr(x[pairs], y[pairs]).statistic)
    spread = np.arctanh(resampled).std(ddof=1)
    centre = math.atanh(stats.spearmanr(x, y).statistic)
    ends = np.tanh([centre - 2.262157 * spread, centre + 2.262157 * spread])  # t(0.975, 9)
    assert bounds(interval) == pytest.approx(ends, abs=0.03)
    assert interval.p == pytest.approx(2 * stats.t.sf(abs(centre) / spread, 9), rel=0.5)
    assert (interval.p < 0.05) == (interval.low > 0 or interval.high < 0)


def test_within_groups_it_is_the_weighted_mean_of_the_groups_own_correlations():
    # without ties the squares of ranks / (n + 1) about 1/2 add up to n (n - 1) / (12 (n + 1)) in each group
    rng = np.random.default_rng(3)
    group = np.repeat([0, 1, 2, 3], [12, 5, 7, 1])  # the last says nothing
    x, y = rng.normal(size=(2, 25))
    interval = statistics.clustered_rank_correlation(x, y, np.arange(25), groups=group)
    own = [
        (n * (n - 1) / (n + 1), stats.spearmanr(x[group == g], y[group == g]).statistic)
        for g, n in enumerate([12, 5, 7])
    ]
    assert interval.value == pytest.approx(sum(w * r for w, r in own) / sum(w for w, _ in own))
    assert interval.n == 24 and "24 clusters" in interval.method


def test_simpsons_paradox_is_seen_through():
    found = []
    for seed in range(20):
        x, y, configuration, training = simpson(np.random.default_rng(seed))
        across = statistics.clustered_rank_correlation(x, y, configuration)
        assert across.value < -0.85 and across.high < 0
        found.append(statistics.clustered_rank_correlation(x, y, configuration, groups=training))
    assert abs(np.mean([w.value for w in found])) < 0.15
    assert np.mean([w.low <= 0 <= w.high for w in found]) >= 0.85


def test_the_partial_correlation_is_that_of_residuals():
    # the classic identity: correlate what least squares leave of the ranks of x and y after those of z
    rng = np.random.default_rng(4)
    z = rng.normal(size=30)
    x, y = z + rng.normal(size=30), -z + rng.normal(size=30)
    ranks = [stats.rankdata(values) for values in (x, y, z)]
    design = np.column_stack([np.ones(30), ranks[2]])
    left = [values - design @ np.linalg.lstsq(design, values, rcond=None)[0] for values in ranks[:2]]
    interval = statistics.clustered_rank_correlation(x, y, np.arange(30) // 3, given=z)
    assert interval.value == pytest.approx(np.corrcoef(*left)[0, 1])
    assert abs(interval.value) < abs(stats.spearmanr(x, y).statistic) - 0.2  # z made most of it


def test_clusters_of_like_pairs_widen_the_interval_and_it_covers():
    # the pairs are independent between clusters and neither depends on the other: r is 0
    rng, found, naive = np.random.default_rng(5), [], []
    for _ in range(200):
        (x, names), (y, _) = in_clusters(rng, shared=0.95), in_clusters(rng, shared=0.95)
        found.append(statistics.clustered_rank_correlation(x, y, names))
        naive.append(statistics.rank_correlation(x, y))
    assert np.mean([i.low <= 0 <= i.high for i in found]) >= 0.9
    assert np.mean([i.low <= 0 <= i.high for i in naive]) < 0.8  # as if 40 pairs were 40 trials


def test_one_perfect_order_is_no_certainty_and_too_few_clusters_have_no_interval():
    perfect = statistics.clustered_rank_correlation(range(10), range(10), range(10))
    assert perfect.value == 1 and 0.8 < perfect.low < 1 and perfect.high == 1 and perfect.p < 0.01
    few = statistics.clustered_rank_correlation(range(8), range(8), np.arange(8) // 2)
    assert few.value == 1 and math.isnan(few.low) and few.method == "fewer than 5 clusters: no interval"
    for y, held in (([1] * 8, None), (range(8), range(8))):
        none = statistics.clustered_rank_correlation(range(8), y, range(8), given=held)
        assert math.isnan(none.value) and none.method.startswith("constant or determined input")


# ---- bootstrap ---------------------------------------------------------------------------------------------------


def test_bootstrap_of_the_mean_agrees_with_the_normal_interval_where_that_holds():
    values = np.random.default_rng(0).normal(5, 2, 400)
    half = Z * values.std() / 20
    interval = statistics.bootstrap_mean(values, seed=0)
    assert bounds(interval) == pytest.approx([values.mean() - half, values.mean() + half], abs=0.05 * half)


def test_bootstrap_of_a_skewed_mean_follows_the_formula():
    # BCa reads the resampled means at Φ(z₀ + (z₀ ± z) / (1 - a (z₀ ± z))), z₀ = Φ⁻¹(share of them below the mean);
    # for a mean the jackknife's acceleration is a = Σd³ / (6 (Σd²)^1.5), d the deviations from it
    rng, normal = np.random.default_rng(0), NormalDist()
    values = rng.exponential(size=40) ** 2
    means, d = values[rng.integers(0, 40, (100_000, 40))].mean(1), values - values.mean()
    z0, a = normal.inv_cdf((means < values.mean()).mean()), (d**3).sum() / (6 * (d**2).sum() ** 1.5)
    levels = [normal.cdf(z0 + (z0 + z) / (1 - a * (z0 + z))) for z in (-Z, Z)]
    assert bounds(statistics.bootstrap_mean(values, seed=0)) == pytest.approx(np.quantile(means, levels), rel=0.03)


def test_bootstrap_of_the_median_agrees_with_order_statistics():
    # Distribution-free: of 101 sorted values, ranks 41 and 61 (50.5 ± 1.96 √101 / 2) enclose the median
    values = np.sort(np.random.default_rng(1).exponential(size=101))
    interval = statistics.bootstrap_median(values, seed=0)
    assert interval.value == values[50] and interval.method == "percentile bootstrap 95 %"
    assert values[38] <= interval.low <= values[43] and values[57] <= interval.high <= values[62]


@pytest.mark.parametrize("bootstrap", [statistics.bootstrap_mean, statistics.bootstrap_median])
def test_bootstrap_repeats_itself_and_shrinks(bootstrap):
    values = np.random.default_rng(2).exponential(size=50)
    interval = bootstrap(values, seed=3)
    assert interval == bootstrap(values, seed=3) and interval != bootstrap(values, seed=4)
    assert values.min() <= interval.low <= interval.value <= interval.high <= values.max()
    assert width(bootstrap(np.tile(values, 9), seed=3)) < width(interval)
    constant = bootstrap([0.1] * 3, seed=0)
    assert constant.low == constant.value == constant.high == pytest.approx(0.1) and constant.n == 3


# ---- networks and samples ------------------------------------------------------------------------------------------

tables = st.tuples(st.integers(1, 5), st.integers(1, 12)).flatmap(
    lambda shape: arrays(int, shape, elements=st.integers(-1, 1))
)


@given(tables)
def test_a_crossed_interval_is_that_of_an_analysis_of_variance_by_single_values(values):
    interval = statistics.crossed(values, within=(-1, 1))
    assert (interval.value, *bounds(interval)) == pytest.approx(anova(values.tolist(), -1, 1), abs=1e-9)
    assert interval.over == ("samples" if len(values) == 1 else "seeds and samples") and interval.n == values.shape[1]
    excludes = not interval.low <= 0 <= interval.high
    assert excludes == (interval.p < 0.05) or max(map(abs, bounds(interval))) == 1  # an end that was cut tells nothing


@given(tables, st.integers(0, 1000))
def test_a_first_phase_on_the_same_samples_changes_nothing(values, seed):
    wide = np.random.default_rng(seed).integers(-1, 2, values.shape)
    one, two = (statistics.crossed(values, within=(-1, 1), wide=first) for first in (None, wide))
    assert one[:4] == pytest.approx(two[:4])


def test_two_phases_by_hand_have_the_variance_of_two_disjoint_sets_of_samples():
    # One network: the strong attack on 4 of 12 samples, of which it breaks one that the cheap one left.
    wide = np.array([[1, 1, 1, 0, 1, 1, 1, 1, 0, 0, 1, 1]])
    values = np.array([[1, 1, 0, 0]])
    interval = statistics.crossed(values, within=(0, 1), wide=wide)
    assert interval.value == pytest.approx(9 / 12 - 1 / 4)
    # 8 of 12 samples are of the first phase alone: values minus 2/3 of the cheap flags, with two more around 1/6,
    own = np.array([1 / 3, 1 / 3, -2 / 3, 0, 1 / 6 - 1 / 2, 1 / 6 + 1 / 2])
    rest = np.array([1, 1, 1, 1, 0, 0, 1, 1, 0, 1]) * 2 / 3  # and 2/3 of the others, with a 0 and a 1
    variance = own.var(ddof=1) / 6 + rest.var(ddof=1) / 10
    freedom = variance**2 / ((own.var(ddof=1) / 6) ** 2 / 5 + (rest.var(ddof=1) / 10) ** 2 / 9)
    half = stats.t.ppf(0.975, freedom) * variance**0.5
    centre = own.mean() + rest.mean()
    assert bounds(interval) == pytest.approx([max(centre - half, 0), min(centre + half, 1)])


@pytest.mark.parametrize(
    ("networks", "n", "N", "spread"),
    [(3, 25, 25, 0.2), (3, 100, 400, 0.2), (5, 100, 100, 0.6), (3, 250, 250, 0.0), (5, 250, 1000, 0.2)],
)
@pytest.mark.parametrize("paired", [False, True])
def test_crossed_intervals_cover_the_mean_over_other_networks_and_other_samples(networks, n, N, spread, paired):
    """A flag is right where ease of the sample, skill of the network and chance add up to 0 or more; `wide` to -½."""
    rng, hits, repeats = np.random.default_rng(0), 0, 300
    total = (1 + spread**2 + 0.7**2) ** 0.5  # standard deviation of that sum

    def share(mean):
        return NormalDist().cdf(mean / total)

    for _ in range(repeats):
        ease = rng.normal(size=N)
        sums = [
            mean + ease + spread * rng.normal(size=(networks, 1)) + 0.7 * rng.normal(size=(networks, N))
            for mean in (0.8, -0.2)
        ]
        strong, cheap = ([(of > edge).astype(int) for of in sums] for edge in (0, -0.5))
        values = strong[0] - strong[1] if paired else strong[0]
        wide = cheap[0] - cheap[1] if paired else cheap[0]
        interval = statistics.crossed(values[:, :n], within=(-paired, 1), wide=wide if n < N else None)
        hits += interval.low <= share(0.8) - paired * share(-0.2) <= interval.high
    assert 0.90 <= hits / repeats <= 1


def test_networks_that_differ_make_a_wider_interval_than_samples_alone():
    rng = np.random.default_rng(0)
    values = rng.random((3, 200)) < np.array([[0.5], [0.6], [0.7]])
    crossed = statistics.crossed(values, within=(0, 1))
    assert width(crossed) > 2 * width(statistics.wilson(values.ravel()))
    over_networks = statistics.t_interval(values.mean(1))
    assert width(crossed) == pytest.approx(width(over_networks), rel=0.3)  # which are what is short here


def test_the_mean_at_an_end_of_the_interval_has_the_p_value_of_5_percent():
    values = np.random.default_rng(0).random((3, 200)) < 0.6
    interval = statistics.crossed(values, within=(0, 1))
    ps = [statistics.crossed(values, within=(0, 1), null=end).p for end in bounds(interval)]
    assert ps == pytest.approx([0.05, 0.05]) and 0 < interval.low < interval.high < 1


# ---- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [[], [[True]], [0, 1], [0.5], None, True])
def test_what_are_not_flags_is_refused(bad):
    with pytest.raises(Refused, match="must be"):
        statistics.wilson(bad)
    with pytest.raises(Refused, match="must be"):
        statistics.paired_difference(bad, bad)


@pytest.mark.parametrize("bad", [[], [[1.0]], [True, False], ["1"], [None, 1.0]])
def test_what_are_not_values_is_refused(bad):
    for function in (statistics.t_interval, statistics.geometric_interval, lambda v: statistics.bootstrap_mean(v, 0)):
        with pytest.raises(Refused, match="must be"):
            function(bad)


@pytest.mark.parametrize(
    ("function", "values", "reason"),
    [
        (statistics.t_interval, [1, math.nan, math.inf], "2 of 3 values are not finite"),
        (statistics.geometric_interval, [0.0, 1.0], "1 of 2 values are not above 0"),
        (statistics.geometric_interval, [-1, 0, 2], "2 of 3 values are not above 0"),
    ],
)
def test_values_that_cannot_be_used_are_counted_and_refused(function, values, reason):
    with pytest.raises(Refused, match=reason):
        function(values)


@pytest.mark.parametrize(
    ("function", "two", "one"),
    [
        (statistics.paired_difference, [True, False], [True]),
        (statistics.mcnemar, [True, False], [True]),
        (statistics.rank_correlation, [1.0, 2.0], [1.0]),
    ],
)
def test_unpaired_input_is_refused(function, two, one):
    with pytest.raises(Refused, match="2 and 1 entries"):
        function(two, one)


@pytest.mark.parametrize("bad", [[], [True], [[]], [[1.0, math.nan]], [["1"]]])
def test_values_that_are_not_crossed_are_refused(bad):
    with pytest.raises(Refused, match="must be"):
        statistics.crossed(bad, within=(0, 1))


@pytest.mark.parametrize("wide", [np.ones((2, 3)), np.ones((1, 4))])
def test_a_first_phase_of_other_networks_or_fewer_samples_is_refused(wide):
    with pytest.raises(Refused, match=r"it must be \(2, N\), N of 4 or more"):
        statistics.crossed(np.ones((2, 4)), within=(0, 1), wide=wide)


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.floats(0.02, 0.98))
def test_the_score_test_rejects_the_shares_that_wilsons_interval_leaves_out(flags, share):
    low, high = statistics.wilson(flags)[1:3]
    if min(abs(share - low), abs(share - high)) > 1e-6:
        assert (statistics.score_test(flags, share) > 0.05) == (low < share < high)


def test_the_p_value_of_a_mean_over_seeds_is_that_of_students_test():
    values = [0.1, 0.3, 0.35, -0.02]
    assert statistics.t_interval(values).p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert np.isnan(statistics.t_interval([0.2]).p) and np.isnan(statistics.t_interval([0.2, 0.2]).p)
