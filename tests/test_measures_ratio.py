"""The ratio theorem's rows: planted vulnerabilities, functions known in closed form, numbers by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from measures_by_hand import (
    SEEDS,
    anova,
    bounds,
    built,
    doubles,
    experiment,
    images,
    only,
    opened,
    planted,
    select,
    softmax_gradient,
)

from paperlib import theory
from paperlib.errors import Refused
from paperlib.labels import REGIMES, SMOOTH, TRUE
from paperlib.measures import exact, ratio
from paperlib.theory import RandomVulnerability

OUTCOMES = ("no gradient", "nothing can change", "undetermined", "below 3", "inside", "above 3‖g‖₀")


# ---- the statement -------------------------------------------------------------------------------------------------

# participation number 49/25, none, 2, 1; l0 2, 0, 2, 1
GRADIENT = torch.tensor([[3.0, -4.0], [0.0, 0.0], [1.0, 1.0], [5.0, 0.0]])


def values(rows):
    return {r["quantity"]: (r["value"], r["n"]) for r in rows}


def test_ratios_by_hand_count_the_gradients_that_vanish():
    rows = ratio.ratio_rows(experiment("sr", seed=3), GRADIENT)
    wanted = {"linear ratio": (pytest.approx(5.88), 3), "upper bound": (6.0, 3), "within both bounds": (1.0, 3)}
    assert values(rows) == wanted | {"zero gradient": (0.25, 4)}
    assert {(r["training"], r["lam"], *r["seeds"]) for r in rows} == {("sr", 0.1, 3)}
    flat = values(ratio.ratio_rows(SEEDS[0], torch.zeros(4, 2)))
    assert flat == dict.fromkeys(wanted, (None, 0)) | {"zero gradient": (1.0, 4)}


@pytest.mark.parametrize(
    ("ratios", "inside"),
    [
        ([5.88, 3.0, 3.0], 3),
        ([2.9, 6.0, 3.0], 2),
        ([6.1, 3.0, 3.0], 2),
        ([5.88, 6.0, 3.1], 2),
        ([6.00003, 3, 2.99999], 3),
    ],
)
def test_a_ratio_outside_either_bound_is_seen(monkeypatch, ratios, inside):
    monkeypatch.setattr(theory, "linear_ratio", lambda g: torch.tensor(ratios))
    rows = values(ratio.ratio_rows(SEEDS[0], GRADIENT[[0, 2, 3]]))  # upper bounds 6, 6, 3
    assert rows["within both bounds"][0] == pytest.approx(inside / 3)


# ---- functions known by hand ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exact_rows():
    return exact.exact_rows(draws=4000)


def test_linear_functions_have_closed_forms_that_the_intervals_cover(exact_rows):
    constants = {"uniform": 3, "sign": 1, "triangular": 6}  # 1/E δ²
    g = torch.randn(64, generator=torch.Generator().manual_seed(0)).double()
    numbers = {"one coordinate": 1, "equal magnitudes": 64, "Gaussian": (g.abs().sum() ** 2 / (g**2).sum()).item()}
    closed = {(r["case"], r["law"]): r["value"] for r in select(exact_rows, quantity="closed form")}
    assert closed == {
        (case, law): pytest.approx(c * number, rel=1e-6)
        for case, number in numbers.items()
        for law, c in constants.items()
    }
    for (case, law), value in closed.items():
        measured = only(exact_rows, quantity="measured", case=case, law=law)
        low, high = measured["low"] * (1 - 1e-9), measured["high"] * (1 + 1e-9)  # random signs may leave no spread
        assert low <= value <= high < 1.2 * low and measured["over"] == "draws"


def test_the_nine_intervals_hold_together(monkeypatch):
    # Bonferroni: each of 9 at 1 - 0.05/9, z = 2.7729 instead of 1.95996; ρ_rand is 1 ± 0.1 z, the ratio its inverse
    draws = RandomVulnerability(*(doubles([v]) for v in (1, 0.1, 0, 1)))
    monkeypatch.setattr(exact, "many_draws", lambda *args, **how: draws)
    rows = select(exact.exact_rows(draws=100), quantity="measured")
    z = [(r["value"] / r["low"] - 1) / 0.1 for r in rows]
    assert z == pytest.approx([2.7729] * 9 + [1.95996] * 3, abs=1e-4)
    assert [(1 - r["value"] / r["high"]) / 0.1 for r in rows] == pytest.approx(z)


def test_a_logistic_function_breaks_either_bound(exact_rows):
    bound = {(r["case"], r["eps"]): r["value"] for r in select(exact_rows, quantity="3‖g‖₀")}
    assert bound == {("steep at 1/2", 0.1): 3 * 53, ("saturated", 8 / 255): 600, ("saturated", 0.1): 600}
    assert only(exact_rows, quantity="measured", case="steep at 1/2")["high"] < 3
    for eps in (8 / 255, 0.1):
        measured, first = (only(exact_rows, quantity=q, case="saturated", eps=eps) for q in ("measured", "first order"))
        assert first["value"] == pytest.approx(600)  # 200 equal magnitudes
        # 200 pixels of variance (0.3 ε)²/3 are nearly one normal; the largest change is the drop by 200 · 0.3 ε
        point, weight = np.polynomial.hermite_e.hermegauss(80)
        change = 1 / (1 + np.exp(-4 - point * 0.3 * eps * np.sqrt(200 / 3))) - 1 / (1 + np.exp(-4))
        drop = 1 / (1 + np.exp(-4)) - 1 / (1 + np.exp(-4 + 60 * eps))
        assert measured["value"] == pytest.approx(drop**2 / (weight @ change**2 / weight.sum()), rel=0.05)


def test_exact_rows_are_the_same_whatever_else_is_drawn():
    torch.manual_seed(1)
    first = exact.exact_rows(draws=100)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.rand(1) == after  # it draws from a generator of its own
    assert exact.exact_rows(draws=100) == first
    built(first)


# ---- where a sample lies -------------------------------------------------------------------------------------------


def test_the_ratio_by_hand():
    v = planted([9, 4, 0, 1, 1], [3, 2, 0, 0, 2], largest=[1, 8, 0, 0, 2])
    # a draw that did more than the attack counts; 0/0; only the attack; no ratio below 1
    assert v.ratio[[0, 1, 3, 4]].tolist() == [3, 4, math.inf, 1] and v.ratio[2].isnan()


@pytest.mark.parametrize(
    ("outcome", "gradient", "attack", "noise"),
    [
        ("no gradient", (0, 0), 5, 1),
        ("no gradient", (0, 0), 0, 0),
        ("no gradient", (0, 0), 1, 0),
        ("undetermined", (1, 0), 0, 0),
        ("below 3", (1, 1), 2.99, 1),
        ("inside", (1, 1), 3, 1),
        ("inside", (1, 1e-30), 6, 1),
        ("inside", (2, 0), 3, 1),
        ("above 3‖g‖₀", (2, 0), 3.01, 1),
        ("above 3‖g‖₀", (1, 1), 6.01, 1),
        ("undetermined", (1, 1), 1e-9, 0),
    ],
)
def test_every_outcome_can_be_reached(outcome, gradient, attack, noise):
    outcomes = planted([attack], [noise], gradient=[gradient]).outcomes
    assert [name for name, flags in outcomes.items() if flags[0]] == [outcome]


def test_where_no_first_spike_can_change_the_gradient_alone_comes_first():
    v = planted([0, 0, 5], [0, 0, 1], gradient=[(1, 1), (0, 0), (1, 1)])._replace(
        still=torch.tensor([True, True, False])
    )
    reached = [[name for name, flags in v.outcomes.items() if flags[i]] for i in range(3)]
    assert reached == [["nothing can change"], ["no gradient"], ["inside"]]


amounts = st.sampled_from([0.0, 1e-12, 0.5, 1.0, 2.0, 3.0, 6.0, 7.0])


@given(st.lists(st.tuples(amounts, amounts, amounts, amounts, amounts), min_size=1, max_size=9))
def test_every_sample_has_exactly_one_outcome(samples):
    attack, noise, largest, *gradient = zip(*samples, strict=True)
    outcomes = planted(attack, noise, largest=largest, gradient=list(zip(*gradient, strict=True))).outcomes
    assert tuple(outcomes) == OUTCOMES
    assert (sum(flags.astype(int) for flags in outcomes.values()) == 1).all()


def test_the_verdict_rests_on_samples_with_a_gradient_and_a_finite_ratio():
    # gradients (3, 1): 3‖g‖₀ = 6, 3·PN = 3·16/10 = 4.8; then one without a ratio, one with ∞, one without a gradient
    v = planted([4.8, 5, 6, 6.1, 0, 1, 1], [1, 1, 1, 1, 0, 0, 1], gradient=[(3, 1)] * 6 + [(0, 0)])
    assert {name: kept.tolist() for name, kept in v.below.items()} == {
        "at most 3‖g‖₀": [True, True, True, False],
        "at most 3·PN": [True, False, False, False],
    }
    assert v.outcomes["undetermined"].tolist() == [False] * 4 + [True] * 2 + [False]  # the last has no gradient


def test_sizes_by_hand_are_the_finite_ones():
    # ε = 0.1, g = (3, -4): first order ε²·25/3 = 1/12 and ε²·49 = 0.49
    gradient, noise = [(3, -4), (3, -4), (0, 0), (3, -4)], [1 / 6, 1 / 12, 0.5, 0]
    v = planted([0.98, 0.1, 1, 0], noise, gradient=gradient, largest=[0, 0.245, 0, 0], eps_255=25.5)
    wanted = {
        "ρ_rand": noise,
        "ρ_adv": [0.98, 0.245, 1, 0],  # a draw did more than the second attack
        "ratio": [5.88, 2.94, 2],
        "ρ_rand over first order": [2, 1, 0],
        "ρ_adv over first order": [2, 0.5, 0],
    }
    assert {name: sizes.tolist() for name, sizes in v.sizes.items()} == {
        name: pytest.approx(sizes) for name, sizes in wanted.items()
    }


# ---- vulnerabilities of a network ----------------------------------------------------------------------------------

W = torch.tensor([2.0, -1.0, 0.5, 3.0], dtype=torch.double)


def logistic(x):
    """Two classes; the first has probability σ(w·x - 1)."""
    rise = x.double().flatten(1) @ W - 1
    return torch.stack([rise, torch.zeros_like(rise)], 1)


def pixels(n, classes=1):
    """A split of `n` images of 2×2."""
    drawn = torch.randint(0, 256, (n, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    return images(drawn, torch.arange(n) % classes, first=40)


def measure(network, samples, regime=TRUE, radii_255=(8.0, 48.0), draws=16, steps=4):
    (one,) = opened(network, SEEDS[0])
    return ratio.vulnerabilities(one, samples, regime, radii_255, draws=draws, steps=steps)


def test_vulnerabilities_of_a_logistic_network_by_hand():
    samples, w = pixels(7), W.numpy()
    rng, x = np.random.default_rng(0), samples.pixels().double().flatten(1).numpy()
    f = 1 / (1 + np.exp(1 - x @ w))
    for v in measure(logistic, samples, draws=400):
        eps = v.eps_255 / 255
        corners = [1 / (1 + np.exp(1 - x @ w - side * eps * np.abs(w).sum())) for side in (1, -1)]
        delta = rng.uniform(-1, 1, (20_000, 1, 4))
        noise = ((1 / (1 + np.exp(1 - (x + eps * delta) @ w)) - f) ** 2).mean(0)
        assert v.confidence.tolist() == pytest.approx(f.tolist())
        assert v.gradient.shape == (7, 1, 2, 2)
        np.testing.assert_allclose(v.gradient.flatten(1), (f * (1 - f))[:, None] * w, rtol=1e-4)
        np.testing.assert_allclose(v.adversarial, np.max((corners - f) ** 2, 0), rtol=1e-4)
        assert (np.abs(v.random.value.numpy() - noise) < 5 * v.random.error.numpy()).all()
        assert (v.random.error < 0.2 * v.random.value).all() and v.experiment == SEEDS[0]


def test_the_batch_changes_neither_gradient_nor_attack(monkeypatch):
    torch.manual_seed(0)
    A, B = torch.randn(4, 6).double(), torch.randn(6, 3).double()
    sizes = []

    def network(x):
        sizes.append(len(x))
        return torch.tanh(4 * x.double().flatten(1) @ A) @ B

    whole = measure(network, pixels(10, classes=3))
    assert set(sizes) == {10}
    sizes.clear()
    monkeypatch.setattr(ratio, "BATCH", 4)
    parts = measure(network, pixels(10, classes=3))
    assert set(sizes) == {4, 2} and [v.eps_255 for v in parts] == [v.eps_255 for v in whole] == [8.0, 48.0]
    for a, b in zip(whole, parts, strict=True):
        for name in ("gradient", "confidence", "adversarial"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name))


def test_draws_are_those_of_the_other_radii_and_of_no_other_batch(monkeypatch):
    monkeypatch.setattr(ratio, "BATCH", 5)
    samples = images(np.full((10, 1, 2, 2), 128), np.zeros(10, dtype=int))

    def linear(x):
        return (x.double().flatten(1) @ W)[:, None]

    def changes():  # f is linear, so its changes grow as ε does
        how = {"draws": 6, "steps": 2, "device": torch.device("cpu")}
        measured = ratio.measured(linear, SEEDS[0], samples, TRUE, (1.0, 8.0, 64.0), **how)
        return [(v.random.value / v.eps_255**2, v.random.largest / v.eps_255**2, v) for v in measured]

    torch.manual_seed(0)
    (value, largest, _), *others = changes()
    for other, most, v in others:
        torch.testing.assert_close(other, value, rtol=1e-4, atol=0)
        torch.testing.assert_close(most, largest, rtol=1e-4, atol=0)
        assert v.adversarial.tolist() == pytest.approx([(v.eps_255 / 255 * 6.5) ** 2] * 10, rel=1e-4)
    assert len(value.unique()) == 10  # no image, and no batch, has another's draws
    torch.manual_seed(1)
    assert changes()[0][0].equal(value)


def test_the_smooth_regime_smooths_and_the_network_is_itself_again(network, tiny):
    samples = tiny.test.take(6)
    by_regime = {regime: measure(network, samples, regime, radii_255=(1e-3,), draws=40)[0] for regime in REGIMES}
    for regime, v in by_regime.items():
        with ratio.ENTERED[regime](network):
            f, gradient = softmax_gradient(network, samples)
        torch.testing.assert_close(v.confidence, f)
        torch.testing.assert_close(v.gradient, gradient)
        assert v.regime == regime
    smooth, true = by_regime[SMOOTH], by_regime[TRUE]
    assert not torch.allclose(smooth.confidence, true.confidence, atol=1e-3)
    # so near, only the smooth function is linear and moves at all
    np.testing.assert_allclose(smooth.sizes["ρ_adv over first order"], 1, rtol=0.05)
    np.testing.assert_allclose(smooth.sizes["ρ_rand over first order"].mean(), 1, rtol=0.3)
    assert (true.random.moved < 0.5).all() and (smooth.random.moved == 1).all()
    with pytest.raises(Refused):
        measure(network, samples, SMOOTH, draws=1)
    assert {neuron.path for neuron in network.neurons()} == {"fast"}


def test_within_the_distance_to_the_nearest_threshold_nothing_moves(network, tiny):
    samples = tiny.test.take(20)
    near, far = measure(network, samples, radii_255=(0.02, 40.0), draws=20)
    assert 0 < near.still.sum() < 20 and not far.still.any()
    assert (near.reached[near.still] == 0).all()


@pytest.mark.parametrize("radii", [[], [0], [8.0, 0.0], [-1.0]])
def test_radii_at_which_nothing_can_be_measured_are_refused(radii):
    with pytest.raises(Refused, match="eps_255 is .* above 0" if radii else "no radius"):
        measure(logistic, pixels(2), radii_255=radii)


# ---- their rows ----------------------------------------------------------------------------------------------------


def test_vulnerabilities_have_a_row_for_each_training_regime_and_radius():
    size, places = {"vanilla": 1, "sr": 3}, [(regime, eps) for regime in REGIMES for eps in (8.0, 16.0)]
    made = [experiment(t, s) for t in size for s in (0, 1)]
    grid = [
        planted([4.0 * 4**e.seed * size[e.defense], 2, 0], [1, 1, 0], of=e, regime=regime, eps_255=eps)
        for regime, eps in places
        for e in made
    ]
    rows = ratio.vulnerability_rows(iter(grid))
    labels = {(r["training"], r["regime"], r["eps_255"]) for r in rows}
    assert labels == {(training, *place) for training in size for place in places}
    for training, regime, eps in labels:
        own = select(rows, training=training, regime=regime, eps_255=eps)
        over = {r["quantity"]: r for r in own if not r["quantity"].startswith("at most")}
        assert len(over) == 6 + 5 + 1 + 1 and len(own) == len(over) + 2
        assert all(r["seeds"] == [0, 1] for r in own)
        assert all(r["seeds"] == [0, 1] and len(r["experiments"]) == 2 for r in over.values())
        assert sum(over[name]["value"] for name in OUTCOMES) == pytest.approx(1)
    # ratios by seed 4, 2 and 16, 2: outcomes inside, below, undetermined and above, below, undetermined;
    # medians 3 and 9, their geometric mean √27
    value = {r["quantity"]: r["value"] for r in select(rows, training="vanilla", regime=TRUE, eps_255=16.0)}
    third, sixth = pytest.approx(1 / 3), pytest.approx(1 / 6)
    assert [value[name] for name in OUTCOMES] == [0, 0, third, third, sixth, sixth]
    assert value["ratio"] == pytest.approx(27**0.5) and value["ρ_rand"] == 1
    assert value["draws that moved f_y"] == 1  # the median over samples
    assert select(rows, quantity="ratio")[0]["method"].startswith("Student t of logs")
    built(rows)


BOUNDS = ("at most 3‖g‖₀", "at most 3·PN")  # equal where the magnitudes are: 6 for two pixels


def test_the_verdicts_rows_are_the_mean_share_over_seeds_with_the_p_value_of_the_mark():
    shares = [planted([6, 5, 4, 9, 0], [1, 1, 1, 1, 0], of=SEEDS[1]), planted([6, 5], [1, 1], of=SEEDS[2])]
    rows = ratio.vulnerability_rows(shares)
    for quantity in BOUNDS:
        one = only(rows, quantity=quantity)
        assert (one["seeds"], one["value"], one["n"], one["mark"]) == ([1, 2], 0.875, 2, 0.95)
        # shares 0.75 and 1: t of their distance to 0.95, -0.2 and 0.05, mean -0.075, error 0.125, one degree of freedom
        assert one["p"] == pytest.approx(1 - 2 / np.pi * np.arctan(0.6))
    built(rows)


def test_networks_with_ratios_of_different_images_that_all_keep_the_bound_have_the_interval_of_the_images():
    kept = [planted([6] * n, [1] * n, of=of) for n, of in ((100, SEEDS[1]), (80, SEEDS[2]))]
    one = only(ratio.vulnerability_rows(kept), quantity=BOUNDS[0])
    assert (one["seeds"], one["value"], one["n"], one["method"]) == ([1, 2], 1.0, 80, "Wilson 95 %")
    assert one["low"] > 0.95 and one["p"] < 0.05  # n / (n + z²) = 0.954 with 80 images, and 0.940 with 60
    shares = [planted([6] * n, [1] * n, of=of) for n, of in zip((60, 61), SEEDS[1:3], strict=True)]
    few = only(ratio.vulnerability_rows(shares), quantity=BOUNDS[0])
    assert few["low"] < 0.95 and few["p"] > 0.05
    same = only(ratio.vulnerability_rows([planted([6] * 60, [1] * 60, of=of) for of in SEEDS[1:3]]), quantity=BOUNDS[0])
    assert (same["low"], same["high"]) == pytest.approx(anova([[1] * 60] * 2, 0, 1)[1:]) and same[
        "over"
    ] == "seeds and samples"


def test_a_single_network_has_wilsons_interval_and_one_without_a_ratio_none():
    rows = ratio.vulnerability_rows([planted([6, 5, 4, 9, 0], [1, 1, 1, 1, 0], of=SEEDS[1])])
    nothing = ratio.vulnerability_rows([planted([0, 0], [0, 0], of=SEEDS[2])])
    for quantity in BOUNDS:
        one, none = only(rows, quantity=quantity), only(nothing, quantity=quantity)
        assert (one["seeds"], one["value"], one["n"], one["method"]) == ([1], 0.75, 4, "Wilson 95 %")
        assert bounds(one) == pytest.approx((0.30064, 0.95442), abs=2e-5)
        assert (none["seeds"], none["value"], none["n"]) == ([2], None, 0)


def test_the_correlation_of_confidence_and_ratio():
    # ratios 1 to 8 in the order of confidence, then reversed; what has no finite ratio does not count
    def against_confidence(*found):
        row = only(ratio.vulnerability_rows(found), quantity="ratio against confidence")
        return row["value"], row["n"], *bounds(row)

    rise, noise = [1.0 * i for i in range(1, 9)], [1.0] * 8 + [0, 0]
    up, down = (planted(r + [1, 0], noise, of=e) for e, r in zip(SEEDS, (rise, rise[::-1]), strict=False))
    still = planted([1] * 8, [0] * 8, of=SEEDS[1])
    assert against_confidence(up)[:2] == against_confidence(still, up)[:2] == (pytest.approx(1), 8)
    assert against_confidence(up, down) == pytest.approx((0, 2, -1, 1), abs=1e-9)  # ±1 · 12.7, cut
    assert against_confidence(still)[0] is None


# ---- for the figures -----------------------------------------------------------------------------------------------


def test_quartiles_pool_the_finite_ratios_of_all_seeds():
    drawn = ratio.quantiles(
        [
            planted([3, 5, 1], [1, 1, 0], of=SEEDS[0]),
            planted([4, 0], [1, 0], of=SEEDS[1]),
            planted([1], [0], of=SEEDS[0], eps_255=16.0),
            planted([7], [1], of=experiment("sr")),
            planted([9], [1], regime=SMOOTH),
        ]
    )
    assert drawn[TRUE]["vanilla"][0] == [3.5, 4, 4.5] and drawn[TRUE]["sr"] == [[7, 7, 7]]
    assert drawn[SMOOTH] == {"vanilla": [[9, 9, 9]]}
    arrays = built([], drawn)["arrays"]
    assert arrays[TRUE]["vanilla"] == [[3.5, 4, 4.5], [None] * 3]  # at 16/255 no ratio is finite


def test_saturation_by_hand():
    # log-odds of 1/2 and 9/10: 0 and log 9; 3‖g‖₀ = 6
    first = planted([12, 3, 1], [1, 1, 0], confidence=[0.5, 0.9, 1.0], eps_255=16.0)
    decoys = [
        planted([1, 1, 1], [1, 1, 1], of=SEEDS[1], eps_255=16.0),  # a second network
        planted([2, 2, 2], [1, 1, 1], eps_255=8.0),
        planted([1, 1, 1], [1, 1, 1], regime=SMOOTH, eps_255=48.0),
    ]
    other = planted([6], [1], of=experiment("sr"), confidence=[0.5], gradient=[(0, 0)], eps_255=16.0)
    assert ratio.saturation([decoys[1], first, *decoys, other]) == {
        "vanilla": {"margin": [0, pytest.approx(math.log(9), rel=1e-3), None], "excess": [2, 0.5, None]},
        "sr": {"margin": [0], "excess": [None]},  # without a gradient there is no bound
    }


def test_pictures_are_those_of_the_worst_samples(tiny):
    rows = [{"bound": "upper", "image": 3}, {"bound": "upper", "image": 3}, {"bound": "lower", "image": 5}]
    drawn = ratio.pictures(rows, tiny.test)
    assert set(drawn) == {"upper", "lower"} and np.shape(drawn["lower"]) == (1, 8, 8)
    for bound, image in (("upper", 3), ("lower", 5)):
        np.testing.assert_allclose(drawn[bound], tiny.test.images[image] / 255, rtol=1e-3)


# ---- the worst violations ------------------------------------------------------------------------------------------

BYTES = np.array([0, 51, 102, 153, 255])
MARGINS = BYTES / 255 * 8  # log-odds of five images of one pixel under `slope(8)`: 0, 1.6, 3.2, 4.8, 8
ONE_PIXEL = images(BYTES.reshape(5, 1, 1, 1), [0] * 5)


def slope(a):
    """A network whose log-odds are a·x."""

    def network(x):
        rise = a * x.double().flatten(1).squeeze(1)
        return torch.stack([rise, torch.zeros_like(rise)], 1)

    return network


NETWORKS = {SEEDS[0].key: slope(8.0), SEEDS[1].key: slope(0.01)}


def logistic_ratio(margin, reach):
    """Of σ around `margin` with the noise uniform within `reach`, by the trapezoidal rule."""
    change = 1 / (1 + np.exp(-margin - np.linspace(-reach, reach, 20_001))) - 1 / (1 + np.exp(-margin))
    return max(change[0] ** 2, change[-1] ** 2) / np.mean(change**2)


def estimates(ratios, **labels):
    """What a first look says of the five images; one pixel each, so that both bounds are 3."""
    confidence = 1 / (1 + np.exp(-MARGINS))
    how = {"gradient": np.ones((5, 1)), "confidence": confidence, "eps_255": 102.0} | labels
    return planted(ratios, np.ones(5), **how)


def worst(found, networks=NETWORKS, draws=10_000):
    return ratio.worst_rows(found, networks, ONE_PIXEL, draws=draws, steps=4)


def test_the_worst_sample_of_each_bound_is_found():
    # log-odds of 8 saturate most, those of 0 are steepest, more so in the larger ball; estimates say otherwise
    found = [
        estimates([3, 1e6, 4, 5, 40], eps_255=25.5),
        estimates([1.9, 2, 4, 5, 30]),
        estimates([3, 3, 3, 900, 3], of=SEEDS[1]),  # in truth this network is linear
        estimates([1, 1, 1e9, 1, 1], regime=SMOOTH, eps_255=1000.0),
    ]
    rows = worst(found)
    for bound, image, compare in (("upper", 4, max), ("lower", 0, min)):
        own = select(rows, bound=bound)
        labels = {(r["image"], r["training"], *r["seeds"], r["quantity"], r["log_odds"]) for r in own}
        assert labels == {(image, "vanilla", 0, "ratio over bound", MARGINS[image])}
        radii = [r["eps_255"] for r in own]
        assert len(radii) == 10 and radii == pytest.approx(np.geomspace(25.5, 102, 10), rel=5e-3)
        for r in own:
            truth = logistic_ratio(MARGINS[image], 8 * r["eps_255"] / 255) / 3
            assert r["value"] == pytest.approx(truth, rel=0.05) and r["low"] < r["value"] < r["high"]
        assert compare(own, key=lambda r: r["value"])["eps_255"] == 102
    built(rows)


def test_the_upper_bound_is_the_samples_own():
    # 3‖g‖₀ = 6 instead of 3; where a sample has no gradient there is no bound to break
    found = estimates([3, 3, 3, 3, 4])
    wide = found._replace(gradient=torch.ones(5, 1, 1, 2))
    without = found._replace(gradient=torch.tensor([1.0, 1, 1, 1, 0]).view(5, 1, 1, 1))
    (a, *_), (b, *_), (c, *_) = (
        select(worst([v, v._replace(eps_255=25.5)]), bound="upper") for v in (found, wide, without)
    )
    assert a["image"] == b["image"] == 4 and a["value"] == pytest.approx(2 * b["value"])
    assert c["image"] == 3


@pytest.mark.parametrize(
    ("found", "network"),
    [
        (planted([0, 0], [0, 0], gradient=[[1], [1]]), slope(8.0)),  # nothing moved
        (planted([9, 1], [1, 1], gradient=[[0], [0]]), slope(8.0)),  # no gradient
        (estimates([9, 9, 9, 9, 1]), slope(0.0)),  # what is measured anew does not move
    ],
)
def test_where_no_ratio_is_finite_there_is_no_worst_sample(found, network):
    assert worst([found], {SEEDS[0].key: network}, draws=100) == []


def test_one_radius_is_enough_to_search():
    rows = worst([estimates([3, 3, 3, 3, 4])], draws=100)
    assert {(r["bound"], r["eps_255"]) for r in rows} == {("upper", 102), ("lower", 102)}
    built(rows)
