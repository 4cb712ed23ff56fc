"""Rows of the theory notebooks: planted vulnerabilities and quotients, numbers by hand, transcriptions on a network."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_measures import bounds, evaluation, experiment, flags

from paperlib import measures, records
from paperlib.attacks import core
from paperlib.data.sets import Split
from paperlib.errors import Refused
from paperlib.measures import SMOOTH, TRUE, rows, statistics
from paperlib.measures.cost import counted
from paperlib.measures.quotient import Quotients
from paperlib.measures.ratio import Vulnerabilities, measured
from paperlib.store import checkpoints as experiments
from paperlib.store.evaluations import Evaluation
from paperlib.theory.ratio import RandomVulnerability

SEEDS = [experiment(seed=s) for s in range(3)]
DATA = {"name": "tiny", "title": "stripes", "sha256": "0"}
OUTCOMES = ("no gradient", "nothing moved", "below 3", "inside", "above 3‖g‖₀", "only the attack moved")


def select(rows, **labels):
    """Those of `rows` that have all of `labels`."""
    return [r for r in rows if labels.items() <= r.items()]


def only(rows, **labels):
    (row,) = select(rows, **labels)
    return row


def doubles(values):
    return torch.as_tensor(values, dtype=torch.double)


def built(rows, arrays=None):
    """A record of `rows`, which `records.check` has seen."""
    how = {"profile": "smoke", "parameters": {}, "data": DATA, "recipe": 1, "device": "cpu"}
    return records.build("thm-ratio", **how, rows=rows, arrays=arrays)


@pytest.fixture
def stand_in(monkeypatch):
    """A function that puts a callable, or one for each experiment's seed, in the place of the trained networks."""

    def replace(network):
        def trained(of, *, device):
            return network[of.seed] if isinstance(network, dict) else network

        monkeypatch.setattr(experiments, "trained", trained)

    return replace


@pytest.fixture
def trained(monkeypatch, network):
    """The shared network takes the place of every experiment's; each call has a copy, as if it were loaded."""
    monkeypatch.setattr(experiments, "trained", lambda of, *, device: copy.deepcopy(network))
    return network


def softmax_gradient(network, x, y):
    """f_y (B,) and its gradient (B, ...), the softmax in 64 bits."""
    leaf = x.clone().requires_grad_()
    f = network(leaf).double().softmax(1)[torch.arange(len(y)), y]
    f.sum().backward()
    return f.detach(), leaf.grad


# ---- rows over seeds -----------------------------------------------------------------------------------------------


def test_shares_over_seeds_are_averaged_whatever_their_samples():
    # 3 of 5, 7 of 10, 16 of 20: as in `test_the_mean_over_three_seeds_by_hand`, 0.7 ± 0.24841
    found = [(e, flags(k, n)) for e, (k, n) in zip(SEEDS, ((3, 5), (7, 10), (16, 20)), strict=True)]
    row = rows.over_seeds(found, quantity="share")
    assert row["value"] == pytest.approx(0.7) and row["n"] == 3 and row["seeds"] == [0, 1, 2]
    assert bounds(row) == pytest.approx((0.45159, 0.94841), abs=2e-5)


@pytest.mark.parametrize(
    ("found", "cut"),
    [
        ([flags(5), flags(10)], (0.75, 0.0, 1.0)),  # 0.75 ± 0.25 · 12.7
        ([np.array([1.0]), np.array([9.0])], (5.0, 0.0, 5 + 4 * 12.7062)),  # no size lies below 0, but above 1
    ],
)
def test_an_interval_over_seeds_is_cut_to_what_there_can_be(found, cut):
    row = rows.over_seeds(list(zip(SEEDS, found, strict=False)), quantity="q")
    assert (row["value"], *bounds(row)) == pytest.approx(cut, rel=1e-5)


def test_of_numbers_the_networks_medians_are_averaged():
    # medians 2, 4, 6: standard error 2/√3, times t(0.975, 2) = 4.30265: ±4.96827, cut at 0
    found = [np.array([1.0, 2, 900]), np.array([4.0]), np.array([5.0, 7, 0, 8])]
    row = rows.over_seeds(list(zip(SEEDS, found, strict=True)), quantity="size")
    assert row["value"] == pytest.approx(4) and bounds(row) == pytest.approx((0, 8.96827), abs=2e-5)


def test_a_geometric_mean_of_medians():
    # medians 1, 10, 100: as in `test_geometric_interval_by_hand`, 10^(1 ± 2.48414)
    found = [(e, np.array([1, 1, 5]) * 10.0**e.seed) for e in SEEDS]
    row = rows.over_seeds(found, geometric=True, quantity="size")
    assert row["value"] == pytest.approx(10)
    assert [math.log10(b) for b in bounds(row)] == pytest.approx([1 - 2.48414, 1 + 2.48414], abs=2e-5)


def test_a_network_with_zero_leaves_a_geometric_mean_without_interval():
    found = [(e, np.array([0.0, 1, 2]) * e.seed) for e in SEEDS]
    row = rows.over_seeds(found, geometric=True, quantity="size")
    assert (row["value"], *bounds(row), row["n"]) == (0, None, None, 3) and "0" in row["method"]


@pytest.mark.parametrize("geometric", [False, True])
def test_one_network_alone_has_the_interval_of_its_samples(geometric):
    # Wilson, 3 of 4: as in `test_accuracy_by_hand`
    share = rows.over_seeds([(SEEDS[1], flags(3, 4))], geometric=geometric, quantity="share")
    assert share["value"] == 0.75 and bounds(share) == pytest.approx((0.30064, 0.95442), abs=2e-5)
    assert share["n"] == 4 and share["method"] == "Wilson 95 %" and share["seeds"] == [1]
    values = np.random.default_rng(0).exponential(size=30)
    size = rows.over_seeds([(SEEDS[1], values)], geometric=geometric, quantity="size")
    assert size["value"] == np.median(values) and size["n"] == 30 and size["method"] == "percentile bootstrap 95 %"
    assert values.min() < size["low"] < size["value"] < size["high"] < values.max()


def test_networks_that_say_nothing_are_left_out_and_still_named():
    nothing, known = np.array([]), np.array([1.0, 2, 3])
    one = rows.over_seeds(list(zip(SEEDS, (nothing, known, nothing), strict=True)), quantity="size")
    assert (one["value"], one["n"]) == (2, 3) and one["seeds"] == [0, 1, 2]
    two = rows.over_seeds(list(zip(SEEDS, (known, nothing, known + 4), strict=True)), quantity="size")
    assert (two["value"], two["n"]) == (4, 2)


@pytest.mark.parametrize("dtype", [bool, float])
@pytest.mark.parametrize("geometric", [False, True])
def test_where_no_network_says_anything_there_is_no_value(dtype, geometric):
    found = [(e, np.array([], dtype)) for e in SEEDS]
    row = rows.over_seeds(found, geometric=geometric, quantity="size")
    assert (row["value"], *bounds(row), row["n"]) == (None, None, None, 0)
    assert row["method"] == "no sample has a gradient" and row["seeds"] == [0, 1, 2]


def test_a_mean_over_seeds_leaves_nan_out_and_asks_the_samples_of_one_network_only():
    def found(*values, alone=None):
        return [(e, value, alone and partial(alone, e)) for e, value in zip(SEEDS, values, strict=True)]

    def alone(of):
        return statistics.Interval(5.0, 4.0, 6.0, 70 + of.seed, "of samples")

    # 1 and 3: 2 ± 12.7062 · 1
    two = rows.mean_over_seeds(found(1.0, math.nan, 3.0), quantity="q")
    assert (two["value"], *bounds(two)) == pytest.approx((2, -10.7062, 14.7062), rel=1e-5) and two["n"] == 2
    assert bounds(rows.mean_over_seeds(found(1.0, math.nan, 3.0), within=(0, 9), quantity="q")) == (0, 9)
    one = rows.mean_over_seeds(found(math.nan, 3.0, math.nan, alone=alone), within=(0, 1), quantity="q")
    assert (one["value"], *bounds(one), one["n"], one["method"]) == (5, 4, 6, 71, "of samples")
    none = rows.mean_over_seeds(found(math.nan, math.nan, math.nan), quantity="q")
    assert (none["value"], none["n"]) == (None, 0)


# ---- functions known by hand ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exact():
    return measures.exact_rows(draws=4000)


CONSTANTS = {"uniform": 3, "sign": 1, "triangular": 6}  # 1/E δ²


def test_closed_forms_by_hand(exact):
    closed = {(r["case"], r["law"]): r["value"] for r in select(exact, quantity="closed form")}
    assert len(closed) == 9
    g = torch.randn(64, generator=torch.Generator().manual_seed(0)).double()
    for law, c in CONSTANTS.items():
        assert closed["one coordinate", law] == pytest.approx(c)
        assert closed["equal magnitudes", law] == pytest.approx(64 * c)
        assert closed["Gaussian", law] == pytest.approx(c * (g.abs().sum() ** 2 / (g**2).sum()).item(), rel=1e-6)


def test_intervals_cover_the_closed_forms_and_are_narrow(exact):
    cases = select(exact, quantity="closed form")
    for closed in cases:
        measured = only(exact, quantity="measured", case=closed["case"], law=closed["law"])
        low, high = measured["low"] * (1 - 1e-9), measured["high"] * (1 + 1e-9)  # random signs may leave no spread
        assert low <= closed["value"] <= high < 1.2 * low
    assert len({(r["case"], r["law"]) for r in cases}) == 9


def test_the_nine_intervals_hold_together(monkeypatch):
    # Bonferroni: each of 9 at 1 - 0.05/9, z = 2.7729 instead of 1.95996; ρ_rand is 1 ± 0.1 z, the ratio its inverse
    draws = RandomVulnerability(*(doubles([v]) for v in (1, 0.1, 0, 1)))
    monkeypatch.setattr("paperlib.measures.exact.many_draws", lambda *args, **how: draws)
    rows = select(measures.exact_rows(draws=100), quantity="measured")
    z = [(r["value"] / r["low"] - 1) / 0.1 for r in rows]
    assert z == pytest.approx([2.7729] * 9 + [1.95996] * 3, abs=1e-4)
    assert [(1 - r["value"] / r["high"]) / 0.1 for r in rows] == pytest.approx(z)


def test_a_logistic_function_breaks_either_bound(exact):
    cases = {r["case"]: r for r in select(exact, quantity="3‖g‖₀")}
    steep, *saturated = cases
    assert cases[steep]["value"] == 3 * 53 and "steep" in steep
    assert only(exact, quantity="measured", case=steep)["high"] < 3
    for case, eps in zip(saturated, (8 / 255, 0.1), strict=True):
        measured, first = (only(exact, quantity=q, case=case)["value"] for q in ("measured", "first order"))
        assert cases[case]["value"] == 600 and first == pytest.approx(600)  # 200 equal magnitudes
        # 200 pixels of variance (0.3 ε)²/3 are nearly one normal; the largest change is the drop by 200 · 0.3 ε
        point, weight = np.polynomial.hermite_e.hermegauss(80)
        change = 1 / (1 + np.exp(-4 - point * 0.3 * eps * np.sqrt(200 / 3))) - 1 / (1 + np.exp(-4))
        drop = 1 / (1 + np.exp(-4)) - 1 / (1 + np.exp(-4 + 60 * eps))
        assert measured == pytest.approx(drop**2 / (weight @ change**2 / weight.sum()), rel=0.05)


def test_exact_rows_are_the_same_whatever_else_is_drawn():
    torch.manual_seed(1)
    first = measures.exact_rows(draws=100)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.rand(1) == after  # it draws from a generator of its own
    assert measures.exact_rows(draws=100) == first
    built(first)


# ---- where a sample lies -------------------------------------------------------------------------------------------


def planted(attack, noise, *, gradient=None, confidence=None, largest=0.0, of=SEEDS[0], regime=TRUE, eps_255=8.0):
    """Vulnerabilities of N samples; the gradient of each is (1, 1) unless it is given, so that 3‖g‖₀ = 6."""
    attack, noise = doubles(attack), doubles(noise)
    n = len(attack)
    gradient = torch.ones(n, 2) if gradient is None else torch.as_tensor(gradient, dtype=torch.float)
    confidence = torch.linspace(0.1, 0.9, n) if confidence is None else confidence
    random = RandomVulnerability(noise, noise / 10, torch.zeros(n) + doubles(largest), (noise > 0).double())
    return Vulnerabilities(of, regime, eps_255, gradient.view(n, 1, 1, -1), doubles(confidence), random, attack)


def test_the_ratio_by_hand():
    found = planted([9, 4, 0, 1, 1], [3, 2, 0, 0, 2], largest=[1, 8, 0, 0, 2])
    # a draw that did more than the attack counts; 0/0; only the attack; no ratio below 1
    assert found.ratio[[0, 1, 3, 4]].tolist() == [3, 4, math.inf, 1] and found.ratio[2].isnan()


@pytest.mark.parametrize(
    ("outcome", "gradient", "attack", "noise"),
    [
        ("no gradient", (0, 0), 5, 1),
        ("no gradient", (0, 0), 0, 0),
        ("no gradient", (0, 0), 1, 0),
        ("nothing moved", (1, 0), 0, 0),
        ("below 3", (1, 1), 2.99, 1),
        ("inside", (1, 1), 3, 1),
        ("inside", (1, 1e-30), 6, 1),
        ("inside", (2, 0), 3, 1),
        ("above 3‖g‖₀", (2, 0), 3.01, 1),
        ("above 3‖g‖₀", (1, 1), 6.01, 1),
        ("only the attack moved", (1, 1), 1e-9, 0),
    ],
)
def test_every_outcome_can_be_reached(outcome, gradient, attack, noise):
    found = planted([attack], [noise], gradient=[gradient])
    assert [name for name, flags in found.outcomes.items() if flags[0]] == [outcome]


amounts = st.sampled_from([0.0, 1e-12, 0.5, 1.0, 2.0, 3.0, 6.0, 7.0])


@given(st.lists(st.tuples(amounts, amounts, amounts, amounts, amounts), min_size=1, max_size=9))
def test_every_sample_has_exactly_one_outcome(samples):
    attack, noise, largest, *gradient = zip(*samples, strict=True)
    found = planted(attack, noise, largest=largest, gradient=list(zip(*gradient, strict=True)))
    assert tuple(found.outcomes) == OUTCOMES
    assert (sum(flags.astype(int) for flags in found.outcomes.values()) == 1).all()


def test_the_verdict_rests_on_samples_with_a_gradient_and_a_ratio():
    # gradients (3, 1): 3‖g‖₀ = 6, 3·PN = 3·16/10 = 4.8; then one without a ratio, one with ∞, one without a gradient
    found = planted([4.8, 5, 6, 6.1, 0, 1, 1], [1, 1, 1, 1, 0, 0, 1], gradient=[(3, 1)] * 6 + [(0, 0)])
    assert {name: kept.tolist() for name, kept in found.below.items()} == {
        "at most 3‖g‖₀": [True, True, True, False, False],
        "at most 3·PN": [True, False, False, False, False],
    }


def test_sizes_by_hand_are_the_finite_ones():
    # ε = 0.1, g = (3, -4): first order ε²·25/3 = 1/12 and ε²·49 = 0.49
    gradient = [(3, -4), (3, -4), (0, 0), (3, -4)]
    found = planted(
        [0.98, 0.1, 1, 0], [1 / 6, 1 / 12, 0.5, 0], gradient=gradient, largest=[0, 0.245, 0, 0], eps_255=25.5
    )
    wanted = {
        "ρ_rand": [1 / 6, 1 / 12, 0.5, 0],
        "ρ_adv": [0.98, 0.245, 1, 0],  # a draw did more than the second attack
        "ratio": [5.88, 2.94, 2],
        "ρ_rand over first order": [2, 1, 0],
        "ρ_adv over first order": [2, 0.5, 0],
    }
    assert {name: values.tolist() for name, values in found.sizes.items()} == {
        name: pytest.approx(values) for name, values in wanted.items()
    }


# ---- vulnerabilities of a network ----------------------------------------------------------------------------------

W = torch.tensor([2.0, -1.0, 0.5, 3.0], dtype=torch.double)


def logistic(x):
    """Two classes; the first has probability σ(w·x - 1)."""
    rise = x.double().flatten(1) @ W - 1
    return torch.stack([rise, torch.zeros_like(rise)], 1)


def pixels(n, classes=1, seed=0):
    """A split of `n` images of 2×2."""
    images = torch.randint(0, 256, (n, 1, 2, 2), generator=torch.Generator().manual_seed(seed))
    return Split(images.to(torch.uint8), torch.arange(n) % classes, torch.arange(n) + 40)


def measure(samples, regime=TRUE, radii_255=(8.0, 48.0), draws=16, steps=4, of=SEEDS[0]):
    return measures.vulnerabilities(of, samples, regime, radii_255, draws=draws, steps=steps, device="cpu")


def test_vulnerabilities_of_a_logistic_network_by_hand(stand_in):
    stand_in(logistic)
    samples = pixels(7)
    rng, at = np.random.default_rng(0), samples.pixels().double().flatten(1).numpy()
    w = W.numpy()
    f = 1 / (1 + np.exp(1 - at @ w))
    for found in measure(samples, draws=400):
        eps = found.eps_255 / 255
        corners = [1 / (1 + np.exp(1 - at @ w - side * eps * np.abs(w).sum())) for side in (1, -1)]
        delta = rng.uniform(-1, 1, (20_000, 1, 4))
        noise = ((1 / (1 + np.exp(1 - (at + eps * delta) @ w)) - f) ** 2).mean(0)
        assert found.confidence.tolist() == pytest.approx(f.tolist())
        assert found.gradient.shape == (7, 1, 2, 2)
        np.testing.assert_allclose(found.gradient.flatten(1), (f * (1 - f))[:, None] * w, rtol=1e-4)
        np.testing.assert_allclose(found.adversarial, np.max((corners - f) ** 2, 0), rtol=1e-4)
        assert (np.abs(found.random.value.numpy() - noise) < 5 * found.random.error.numpy()).all()
        assert (found.random.error < 0.2 * found.random.value).all() and found.experiment == SEEDS[0]


def test_the_batch_is_of_no_account_for_gradient_and_attack(monkeypatch, stand_in):
    torch.manual_seed(0)
    A, B = torch.randn(4, 6).double(), torch.randn(6, 3).double()
    seen = []

    def network(x):
        seen.append(len(x))
        return torch.tanh(4 * x.double().flatten(1) @ A) @ B

    stand_in(network)
    whole = measure(pixels(10, classes=3))
    assert set(seen) == {10}
    seen.clear()
    monkeypatch.setattr(core, "BATCH", 4)
    parts = measure(pixels(10, classes=3))
    assert set(seen) == {4, 2} and [v.eps_255 for v in parts] == [v.eps_255 for v in whole] == [8.0, 48.0]
    for a, b in zip(whole, parts, strict=True):
        for name in ("gradient", "confidence", "adversarial"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name))


def test_draws_are_those_of_the_other_radii_and_no_other_batchs(monkeypatch):
    monkeypatch.setattr(core, "BATCH", 5)
    samples = Split(torch.full((10, 1, 2, 2), 128, dtype=torch.uint8), torch.zeros(10).long(), torch.arange(10))

    def changes():  # f is linear, so its changes grow as ε does
        found = measured(
            lambda x: (x.double().flatten(1) @ W)[:, None], SEEDS[0], samples, TRUE, (1.0, 8.0, 64.0),
            draws=6, steps=2, device="cpu",
        )  # fmt: skip
        return [(v.random.value / v.eps_255**2, v.random.largest / v.eps_255**2, v) for v in found]

    torch.manual_seed(0)
    (value, largest, _), *others = changes()
    for other, most, found in others:
        torch.testing.assert_close(other, value, rtol=1e-4, atol=0)
        torch.testing.assert_close(most, largest, rtol=1e-4, atol=0)
        assert found.adversarial.tolist() == pytest.approx([(found.eps_255 / 255 * 6.5) ** 2] * 10, rel=1e-4)
    assert len(value.unique()) == 10  # no image, and no batch, has another's draws
    torch.manual_seed(1)
    assert changes()[0][0].equal(value)


def test_the_smooth_regime_smooths_and_the_network_is_itself_again(stand_in, network, tiny):
    stand_in(network)
    samples = tiny.test.take(6)
    x, y = samples.pixels(), samples.labels
    found = {regime: measure(samples, regime, radii_255=(1e-3,), draws=40)[0] for regime in measures.REGIMES}
    for regime, v in found.items():
        with measures.REGIMES[regime](network):
            f, gradient = softmax_gradient(network, x, y)
        torch.testing.assert_close(v.confidence, f)
        torch.testing.assert_close(v.gradient, gradient)
        assert v.regime == regime
    assert not torch.allclose(found[SMOOTH].confidence, found[TRUE].confidence, atol=1e-3)
    # so near, only the smooth function is linear and moves at all
    np.testing.assert_allclose(found[SMOOTH].sizes["ρ_adv over first order"], 1, rtol=0.05)
    np.testing.assert_allclose(found[SMOOTH].sizes["ρ_rand over first order"].mean(), 1, rtol=0.3)
    assert (found[TRUE].random.moved < 0.5).all() and (found[SMOOTH].random.moved == 1).all()
    with pytest.raises(Refused):
        measure(samples, SMOOTH, draws=1)
    assert {neuron.path for neuron in network.neurons()} == {"fast"}


# ---- their rows ----------------------------------------------------------------------------------------------------


def grid():
    """Three samples for each of 2 trainings, 2 seeds, 2 regimes and 2 radii; ratios about 4^seed."""
    made = [experiment(t, s) for t in ("vanilla", "sr") for s in (0, 1)]
    size = {"vanilla": 1, "sr": 3}
    return [
        planted([4.0 * 4**e.seed * size[e.defense], 2, 0], [1, 1, 0], of=e, regime=regime, eps_255=eps)
        for regime in measures.REGIMES
        for eps in (8.0, 16.0)
        for e in made
    ]


def test_vulnerabilities_have_a_row_for_each_training_regime_and_radius():
    rows = measures.vulnerability_rows(iter(grid()))
    labels = {(r["training"], r["regime"], r["eps_255"]) for r in rows}
    assert len(labels) == 8
    for training, regime, eps in labels:
        own = select(rows, training=training, regime=regime, eps_255=eps)
        over = {r["quantity"]: r for r in own if not r["quantity"].startswith("at most")}
        assert len(over) == 6 + 5 + 2 and len(own) == len(over) + 2 * 2
        assert all(r["seeds"] == [0, 1] and len(r["experiments"]) == 2 for r in over.values())
        assert sum(over[name]["value"] for name in OUTCOMES) == pytest.approx(1)
    built(rows)


def test_vulnerabilities_over_seeds_by_hand():
    # ratios by seed 4, 2 and 16, 2: outcomes inside, below, nothing moved and above, below, nothing moved;
    # medians 3 and 9, their geometric mean √27
    rows = select(measures.vulnerability_rows(grid()), training="vanilla", regime=TRUE, eps_255=16.0)
    value = {r["quantity"]: r["value"] for r in rows}
    third = pytest.approx(1 / 3)
    shares = {"no gradient": 0, "nothing moved": third, "below 3": third, "inside": pytest.approx(1 / 6)}
    shares |= {"above 3‖g‖₀": pytest.approx(1 / 6), "only the attack moved": 0}
    assert {name: value[name] for name in OUTCOMES} == shares
    assert value["ratio"] == pytest.approx(27**0.5) and value["ρ_rand"] == 1
    assert value["draws that moved f_y"] == 1  # the median over samples
    assert only(rows, quantity="ratio")["method"].startswith("Student t of logs")


def test_the_verdicts_rows_stand_per_network_with_wilsons_interval():
    kept = planted([6, 5, 4, 9, 0], [1, 1, 1, 1, 0], of=SEEDS[1])
    nothing = planted([0, 0], [0, 0], of=SEEDS[2])
    rows = measures.vulnerability_rows([kept, nothing])
    for quantity in ("at most 3‖g‖₀", "at most 3·PN"):  # equal magnitudes: 6 both
        one, none = select(rows, quantity=quantity)
        assert (one["seeds"], one["value"], one["n"], one["method"]) == ([1], 0.75, 4, "Wilson 95 %")
        assert bounds(one) == pytest.approx((0.30064, 0.95442), abs=2e-5)
        assert (none["seeds"], none["value"], none["n"]) == ([2], None, 0)


def test_confidence_goes_with_the_ratio_or_against_it():
    # ratios 1 to 8 in the order of confidence, then reversed; what has no finite ratio does not count
    rise = [1.0 * i for i in range(1, 9)]
    noise = [1.0] * 8 + [0, 0]
    up, down = (planted(r + [1, 0], noise, of=e) for e, r in zip(SEEDS, (rise, rise[::-1]), strict=False))
    (one,) = select(measures.vulnerability_rows([up]), quantity="ratio against confidence")
    assert one["value"] == pytest.approx(1) and one["n"] == 8 and one["method"] == "Bonett-Wright 95 %"
    (two,) = select(measures.vulnerability_rows([up, down]), quantity="ratio against confidence")
    assert (two["value"], *bounds(two)) == pytest.approx((0, -1, 1), abs=1e-9)  # ±1 · 12.7, cut
    still = planted([1, 1], [0, 0])
    (none,) = select(measures.vulnerability_rows([still]), quantity="ratio against confidence")
    assert none["value"] is None


def test_confidence_of_the_only_network_with_ratios_whichever_it_is():
    still, known = planted([1] * 8, [0] * 8), planted(np.arange(1.0, 9), np.ones(8), of=SEEDS[1])
    row = only(measures.vulnerability_rows([still, known]), quantity="ratio against confidence")
    assert (row["value"], row["n"]) == (pytest.approx(1), 8)


# ---- for the figures -----------------------------------------------------------------------------------------------


def test_quartiles_pool_the_finite_ratios_of_all_seeds():
    found = [
        planted([3, 5, 1], [1, 1, 0], of=SEEDS[0]),
        planted([4, 0], [1, 0], of=SEEDS[1]),
        planted([1], [0], of=SEEDS[0], eps_255=16.0),
        planted([7], [1], of=experiment("sr")),
        planted([9], [1], regime=SMOOTH),
    ]
    drawn = measures.quantiles(found)
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
    drawn = measures.saturation([decoys[1], first, *decoys, other])
    assert set(drawn) == {"vanilla", "sr"}
    assert drawn["vanilla"] == {"margin": [0, pytest.approx(math.log(9), rel=1e-3), None], "excess": [2, 0.5, None]}
    assert drawn["sr"] == {"margin": [0], "excess": [None]}  # without a gradient there is no bound


def test_pictures_are_those_of_the_worst_samples(tiny):
    rows = [{"bound": "upper", "image": 3}, {"bound": "upper", "image": 3}, {"bound": "lower", "image": 5}]
    drawn = measures.pictures(rows, tiny.test)
    assert set(drawn) == {"upper", "lower"} and np.shape(drawn["lower"]) == (1, 8, 8)
    np.testing.assert_allclose(drawn["upper"], tiny.test.images[3] / 255, rtol=1e-3)
    np.testing.assert_allclose(drawn["lower"], tiny.test.images[5] / 255, rtol=1e-3)


# ---- the worst violations ------------------------------------------------------------------------------------------

MARGINS = np.array([0, 51, 102, 153, 255]) / 255 * 8  # of five images of one pixel: 0, 1.6, 3.2, 4.8, 8


@pytest.fixture
def one_pixel(stand_in):
    """Images whose log-odds are 8x; a second network, of seed 1, is nearly linear."""

    def slope(a):
        def network(x):
            rise = a * x.double().flatten(1).squeeze(1)
            return torch.stack([rise, torch.zeros_like(rise)], 1)

        return network

    stand_in({0: slope(8.0), 1: slope(0.01)})
    images = torch.tensor([0, 51, 102, 153, 255], dtype=torch.uint8).view(5, 1, 1, 1)
    return Split(images, torch.zeros(5).long(), torch.arange(5))


def logistic_ratio(margin, reach):
    """Of σ around `margin` with the noise uniform within `reach`, by the trapezoidal rule."""
    change = 1 / (1 + np.exp(-margin - np.linspace(-reach, reach, 20_001))) - 1 / (1 + np.exp(-margin))
    return max(change[0] ** 2, change[-1] ** 2) / np.mean(change**2)


def estimates(ratios, of=SEEDS[0], regime=TRUE, eps_255=102.0):
    """What a first look says of the five images; one pixel each, so that both bounds are 3."""
    confidence = 1 / (1 + np.exp(-MARGINS))
    found = planted(ratios, np.ones(5), gradient=np.ones((5, 1)), confidence=confidence, of=of)
    return found._replace(regime=regime, eps_255=eps_255)


def worst(found, samples, draws=10_000):
    return measures.worst_rows(found, samples, draws=draws, steps=4, device="cpu")


def test_the_worst_sample_of_each_bound_is_found(one_pixel):
    # log-odds of 8 saturate most, those of 0 are steepest, more so in the larger ball; estimates say otherwise
    found = [
        estimates([3, 1e6, 4, 5, 40], eps_255=25.5),
        estimates([1.9, 2, 4, 5, 30]),
        estimates([3, 3, 3, 900, 3], of=SEEDS[1]),  # in truth this network is linear
        estimates([1, 1, 1e9, 1, 1], regime=SMOOTH, eps_255=1000.0),
    ]
    rows = worst(found, one_pixel)
    for bound, image, compare in (("upper", 4, max), ("lower", 0, min)):
        own = select(rows, bound=bound)
        assert {(r["image"], r["training"], *r["seeds"], r["quantity"]) for r in own} == {
            (image, "vanilla", 0, "ratio over bound")
        }
        assert {r["log_odds"] for r in own} == {MARGINS[image]}
        radii = [r["eps_255"] for r in own]
        assert len(radii) == 10 and radii == pytest.approx(np.geomspace(25.5, 102, 10), rel=5e-3)
        for r in own:
            truth = logistic_ratio(MARGINS[image], 8 * r["eps_255"] / 255) / 3
            assert r["value"] == pytest.approx(truth, rel=0.05) and r["low"] < r["value"] < r["high"]
        assert compare(own, key=lambda r: r["value"])["eps_255"] == 102
    built(rows)


def test_the_upper_bound_is_the_samples_own(one_pixel):
    # three times 3‖g‖₀ = 6 instead of 3; where a sample has no gradient there is no bound to break
    found = estimates([3, 3, 3, 3, 4])
    wide = found._replace(gradient=torch.ones(5, 1, 1, 2))
    without = found._replace(gradient=torch.tensor([1.0, 1, 1, 1, 0]).view(5, 1, 1, 1))
    (a, *_), (b, *_), (c, *_) = (
        select(worst([v, v._replace(eps_255=25.5)], one_pixel), bound="upper") for v in (found, wide, without)
    )
    assert a["image"] == b["image"] == 4 and a["value"] == pytest.approx(2 * b["value"])
    assert c["image"] == 3


@pytest.mark.parametrize(
    ("attack", "noise", "gradient"),
    [
        ([0, 0], [0, 0], [[1], [1]]),  # nothing moved
        ([9, 1], [1, 1], [[0], [0]]),  # no gradient
    ],
)
def test_where_no_ratio_is_finite_there_is_no_worst_sample(one_pixel, attack, noise, gradient):
    found = planted(attack, noise, gradient=gradient)
    assert worst([found], one_pixel, draws=100) == []


def test_what_does_not_move_when_it_is_measured_anew_is_not_the_worst(stand_in, one_pixel):
    stand_in(lambda x: torch.zeros(len(x), 2).double() + 0 * x.double().flatten(1))
    assert worst([estimates([9, 9, 9, 9, 1])], one_pixel, draws=100) == []


def test_one_radius_is_enough_to_search(one_pixel):
    rows = worst([estimates([3, 3, 3, 3, 4])], one_pixel, draws=100)
    assert {(r["bound"], r["eps_255"]) for r in rows} == {("upper", 102), ("lower", 102)}
    built(rows)


# ---- predictors ----------------------------------------------------------------------------------------------------

SIX = torch.arange(1.0, 7)
RISING = SIX.view(6, 1, 1, 1).expand(6, 1, 2, 2)  # ‖g‖₁ rises from sample to sample, all shapes are alike


def predicted(ratios, survivors=3, scale=(1.0, 1.0, 1.0), gradient=RISING, thresholds=(0.01, 4.5), regime=TRUE):
    """Rows of three networks: `ratios` is (3, 6) or (6,), `survivors` how many of the last images stay correct."""
    ratios, survivors = np.broadcast_to(ratios, (3, 6)), np.broadcast_to(survivors, 3)
    found = []
    for e, own in zip(SEEDS, ratios, strict=True):
        noise = np.isfinite(own).astype(float)
        found.append(planted(np.where(np.isnan(own), 0, np.minimum(own, 1e9)), noise, of=e, regime=regime))
    attacked = [
        Evaluation(e, evaluation(e, "pgd", 16).attack, flags(k, 6)[::-1]) for e, k in zip(SEEDS, survivors, strict=True)
    ]
    gradients = {e.key: gradient * c for e, c in zip(SEEDS, scale, strict=True)}
    return measures.predictor_rows(gradients, found, attacked, thresholds)


def correlation(rows, sparsity="l1", over="samples", target="ratio at 8/255"):
    return only(rows, quantity="rank correlation", sparsity=sparsity, over=over, target=target)


def test_predictors_of_planted_monotone_relations():
    rising = np.arange(1.0, 7)
    for ratios, value in ((rising, 1), (rising[::-1], -1), ([rising, rising, rising[::-1]], 1 / 3)):
        rows = predicted(ratios)
        found = correlation(rows)
        assert found["value"] == pytest.approx(value) and found["n"] == 3 and found["seeds"] == [0, 1, 2]
        assert correlation(rows, "l2")["value"] == pytest.approx(value)
    # 1 to 6 against 0 0 0 1 1 1: Spearman's r = √(13.5/17.5)
    survived = correlation(rows, target="PGD-20 at 16/255")
    assert survived["value"] == pytest.approx((13.5 / 17.5) ** 0.5)
    assert {r["target"] for r in select(rows, quantity="rank correlation")} == {"ratio at 8/255", "PGD-20 at 16/255"}
    built(rows)


def test_a_sparsity_that_is_the_same_everywhere_predicts_nothing():
    rows = predicted(np.arange(1.0, 7))
    for name in ("participation number", "Hoyer", "Gini", "l0 above 0.01"):
        assert correlation(rows, name)["value"] is None and correlation(rows, name, "networks")["value"] is None
    # 4.5 is exceeded by the gradients of two images: 1 to 6 against 0 0 0 0 1 1, r = √(12/17.5)
    assert correlation(rows, "l0 above 4.5")["value"] == pytest.approx((12 / 17.5) ** 0.5)
    built(rows)


def test_an_infinite_ratio_ranks_above_all_others_and_an_undefined_one_not_at_all():
    inf, nan = math.inf, math.nan
    assert correlation(predicted([1, 2, 3, 4, 5, inf]))["value"] == pytest.approx(1)
    # ranks 6 1 2 3 4 5: Σd² = 25 + 5
    assert correlation(predicted([inf, 1, 2, 3, 4, 5]))["value"] == pytest.approx(1 - 6 * 30 / 210)
    assert correlation(predicted([nan, 1, 2, nan, 4, 5]))["value"] == pytest.approx(1)
    none = correlation(predicted([nan] * 6))
    assert (none["value"], none["n"]) == (None, 0)


def test_networks_are_compared_by_medians_and_accuracies():
    # ‖g‖₁ doubles from network to network; ratios fall within and rise between them, accuracies fall
    ratios = [np.arange(6.0, 0, -1) + 10 * i for i in range(3)]
    rows = predicted(ratios, survivors=[5, 4, 2], scale=(1.0, 2.0, 4.0))
    assert correlation(rows)["value"] == pytest.approx(-1)
    assert correlation(rows, over="networks")["value"] == pytest.approx(1)
    assert correlation(rows, over="networks", target="PGD-20 at 16/255")["value"] == pytest.approx(-1)
    ratios[0] = [math.inf] * 3 + [9, 2, 1]  # now the first network has the largest median
    assert correlation(predicted(ratios, scale=(1.0, 2.0, 4.0)), over="networks")["value"] == pytest.approx(-0.5)


def test_a_network_half_of_whose_ratios_are_infinite_is_compared_too():
    ratios = [[math.inf] * 4 + [1, 2], np.arange(1.0, 7), np.arange(2.0, 8)]
    assert correlation(predicted(ratios, scale=(1.0, 2.0, 4.0)), over="networks")["value"] == pytest.approx(-0.5)


def test_no_correlation_lies_beyond_one():
    rising = np.arange(1.0, 7)
    assert bounds(correlation(predicted([rising, rising, rising[::-1]]))) == (-1, 1)  # 1/3 ± 2.9


def test_only_the_true_regime_is_predicted():
    rows = predicted(np.arange(1.0, 7), regime=SMOOTH)
    assert {r["target"] for r in select(rows, quantity="rank correlation")} == {"PGD-20 at 16/255"}


def test_sparsities_per_training_by_hand():
    # (3, 4, 0): l1 7, l2 5, PN 49/25, Hoyer (√3 - 7/5)/(√3 - 1), Gini 1 - 2(3/7·1.5/3 + 4/7·0.5/3), l0 2 and 1
    gradient = torch.tensor([[3.0, 4, 0]] * 5 + [[0, 0, 0]]).view(6, 1, 1, 3)  # the last counts for sizes alone
    rows = select(predicted(np.ones(6), gradient=gradient, thresholds=(0.01, 3.5)), quantity="sparsity")
    hoyer, gini = (3**0.5 - 1.4) / (3**0.5 - 1), 1 - 2 * (1.5 * 3 + 0.5 * 4) / 21
    wanted = {"l1": 7, "l2": 5, "participation number": 1.96, "Hoyer": hoyer, "Gini": gini}
    wanted |= {"l0 above 0.01": 2, "l0 above 3.5": 1}
    assert {r["sparsity"]: r["value"] for r in rows} == {name: pytest.approx(v) for name, v in wanted.items()}
    assert {tuple(r["seeds"]) for r in rows} == {(0, 1, 2)} and {r["training"] for r in rows} == {"vanilla"}


# ---- the logits scaled ---------------------------------------------------------------------------------------------

SCALES = [0.1, 1, 10, 30, 1000.0]


@pytest.fixture
def scaled(trained, tiny):
    """Values by what and scale, of 15 images."""
    rows = measures.scale_rows(
        SEEDS[0], tiny.test.take(15), SCALES, eps_255=16.0, draws=8, steps=4, thresholds=[0.01], device="cpu"
    )
    built(rows)
    assert {(r["quantity"], r["eps_255"], r["training"]) for r in rows} == {("scaled", 16.0, "vanilla")}
    found = {(r["what"], r["scale"]): r["value"] for r in rows}
    assert len(found) == len(rows)
    return found


def test_a_factor_of_one_changes_nothing(scaled, trained, tiny):
    samples = tiny.test.take(15)
    _, gradient = softmax_gradient(trained, samples.pixels(), samples.labels)
    g = gradient.flatten(1).abs().double()
    wanted = {
        "l1": g.sum(1),
        "l2": (g**2).sum(1) ** 0.5,
        "participation number": g.sum(1) ** 2 / (g**2).sum(1),
        "l0 above 0.01": (g > 0.01).double().sum(1),
    }
    assert {name: scaled[name, 1] for name in wanted} == {
        name: pytest.approx(values.median().item(), rel=1e-4) for name, values in wanted.items()
    }
    (plain,) = measure(samples, radii_255=(16.0,), draws=8)
    for name in ("ρ_rand", "ρ_adv", "ratio"):
        assert scaled[name, 1] == pytest.approx(np.median(plain.sizes[name]), rel=1e-3)


def test_no_factor_changes_a_decision_and_only_some_measures_notice(scaled, trained, tiny):
    assert {scaled["same decisions", c] for c in SCALES} == {1}
    for name in ("l1", "l2", "ρ_rand"):
        assert abs(math.log(scaled[name, 0.1] / scaled[name, 1])) > 0.1
        assert abs(math.log(scaled[name, 10] / scaled[name, 1])) > 1
    assert 0 < scaled["ρ_rand", 30] < 1e-30  # where f_y rounds to 1 in 64 bits, 1 - f_y still moves
    samples = tiny.test.take(15)
    leaf = samples.pixels().requires_grad_()
    z = trained(leaf).double()
    rival = z.detach().scatter(1, samples.labels[:, None], -math.inf).argmax(1)
    torch.sigmoid(z[torch.arange(15), samples.labels] - z[torch.arange(15), rival]).sum().backward()
    g = leaf.grad.flatten(1).abs().double()
    number = (g.sum(1) ** 2 / (g**2).sum(1)).median().item()
    two = [scaled["participation number, two classes", c] for c in (0.1, 1, 10)]
    assert two == pytest.approx([number] * 3, rel=1e-4)


def test_gradients_of_a_very_confident_network_vanish_in_32_bits(scaled):
    assert scaled["no gradient in 32 bits", 1] == 0 and scaled["no gradient in 32 bits", 1000.0] == 1


# ---- the quotient --------------------------------------------------------------------------------------------------


def quotient(samples, steps, regime=TRUE, precision="float64"):
    return measures.quotients(SEEDS[0], samples, steps, regime=regime, precision=precision, device="cpu")


@pytest.mark.parametrize("precision", measures.PRECISIONS)
@pytest.mark.parametrize("regime", measures.REGIMES)
def test_quotients_against_one_sample_at_a_time(monkeypatch, trained, tiny, regime, precision):
    monkeypatch.setattr(core, "BATCH", 7)
    samples, h = tiny.test.take(10), 0.05
    found = quotient(samples, [h], regime, precision)
    network = trained.double() if precision == "float64" else trained
    for i in range(10):
        x = samples.pixels(slice(i, i + 1)).to(measures.PRECISIONS[precision]).requires_grad_()
        y = samples.labels[i]
        with measures.REGIMES[regime](network):
            p = network(x).softmax(1)[0, y]
            p.backward()
            d = x.grad.sign()
            forth, back = (network(x + side * h * d).softmax(1)[0, y].item() for side in (1, -1))
        wanted = {"forward": forth - p.item(), "backward": p.item() - back, "central": (forth - back) / 2}
        near = {"rel": 1e-9, "abs": 1e-12} if precision == "float64" else {"rel": 1e-3, "abs": 1e-4}
        assert found.l1[i] == pytest.approx(x.grad.abs().sum().item(), **near)
        assert {scheme: found.quotient[h, scheme][i] for scheme in wanted} == {
            scheme: pytest.approx(value / h, **near) for scheme, value in wanted.items()
        }
    assert (found.regime, found.precision) == (regime, precision) and found.l1.min() > 0.01


def test_the_precision_is_that_of_the_network_and_of_its_softmax(trained, tiny):
    # from 2⁻¹⁰ on numbers of 32 bits are multiples of 2⁻³⁴, and so are their differences; h is a power of 2
    h = 2.0**-20
    coarse, fine = (
        quotient(tiny.test.take(10), [h], SMOOTH, precision).quotient[h, "forward"] * h * 2**34
        for precision in ("float32", "float64")
    )
    assert (coarse % 1 == 0).all() and (coarse != 0).any() and (fine % 1 != 0).all()
    l1 = quotient(tiny.test.take(10), [h], SMOOTH).l1 * h * 2**34
    assert np.abs(fine / l1 - 1).max() < 1e-3 < np.median(np.abs(coarse / l1 - 1))


def test_curvature_is_that_of_the_smooth_network_alone(monkeypatch, trained, tiny):
    monkeypatch.setattr(core, "BATCH", 4)
    samples, h = tiny.test.take(10), 1e-5
    assert quotient(samples, [h]).curvature is None
    found = quotient(samples, [h], SMOOTH)
    x, network = samples.pixels().double(), trained.double()

    def f(images):
        return network(images).softmax(1)[torch.arange(10), samples.labels]

    with network.smoothed():
        leaf = x.clone().requires_grad_()
        f(leaf).sum().backward()
        d = leaf.grad.sign()
        with torch.no_grad():
            second = (f(x + h * d) - 2 * f(x) + f(x - h * d)) / h**2
    np.testing.assert_allclose(found.curvature, second, rtol=0.02, atol=1e-3)
    assert np.abs(found.curvature).min() > 0.1


L1 = np.array([1.0, 2, 3, 4, 5])


def quotients(forward, of=SEEDS[0], regime=TRUE, precision="float64", l1=L1, curvature=None, **others):
    """Quotients by hand: `forward` by h, and whatever other schemes there are."""
    schemes = {"forward": forward} | others
    by = {(h, scheme): np.asarray(q, float) for scheme, own in schemes.items() for h, q in own.items()}
    return Quotients(of, regime, precision, np.asarray(l1, float), by, curvature)


def test_bias_and_correlation_by_hand():
    found = quotients({0.1: [2, 4, 6, 8, 10], 0.2: [5, 4, 3, 2, 1], 0.3: [1, 2, 3, 5, 4], 0.4: [0] * 5})
    assert [found.bias(h, "forward") for h in (0.1, 0.2, 0.3, 0.4)] == [2, 1, 1, 0]
    correlations = [found.correlation(h, "forward").value for h in (0.1, 0.2, 0.3, 0.4)]
    assert correlations[:3] == pytest.approx([1, -1, 0.9]) and math.isnan(correlations[3])
    assert math.isnan(quotients({0.1: L1}, l1=L1 * 0).bias(0.1, "forward"))


@pytest.mark.parametrize(
    ("changed", "inside"),
    [
        (L1 * 0.5, True),
        (L1 * 2, True),
        (L1 * 0.49, False),
        (L1 * 2.01, False),
        (-L1, False),
        (L1[[0, 1, 2, 4, 3]], True),  # Spearman's r: 1 - 12/120 = 0.9
        (L1[[1, 2, 0, 3, 4]], False),  # 1 - 36/120 = 0.7
        (L1 * 0 + 3, False),  # constant: no correlation
    ],
)
def test_the_window_needs_both_correlation_and_mean(changed, inside):
    found = quotients({0.001: L1 * 9, 0.01: changed, 0.1: L1}, central={0.001: L1})
    assert found.window("forward") == ([0.01, 0.1] if inside else [0.1])


def test_quotient_rows_by_hand():
    # relative errors over l1 of 1: 0.5 0 0 0 0.2 → median 0, and twice: all 1; bias 14.5/15 and 2
    good, double = [0.5, 2, 3, 4, 6], L1 * 2
    found = [quotients({0.01: q, 0.1: L1 * 0}, of=e) for e, q in zip(SEEDS, (good, double), strict=False)]
    rows = measures.quotient_rows(iter(found), used=0.01)
    assert {(r["regime"], r["precision"], r["training"]) for r in rows} == {(TRUE, "float64", "vanilla")}
    at = {r["quantity"]: r for r in select(rows, h=0.01, scheme="forward")}
    assert set(at) == {"relative error", "probability moved", "rank correlation", "quotient over l1"}
    assert at["relative error"]["value"] == 0 and at["relative error"]["low"] is None
    assert at["probability moved"]["value"] == 1 and at["rank correlation"]["value"] == pytest.approx(1)
    assert at["quotient over l1"]["value"] == pytest.approx((15.5 / 15 + 2) / 2) and at["quotient over l1"]["n"] == 2
    still = {r["quantity"]: r["value"] for r in select(rows, h=0.1)}
    assert still == {
        "relative error": pytest.approx(1),
        "probability moved": 0,
        "rank correlation": None,
        "quotient over l1": 0,
    }
    for e in SEEDS[:2]:
        own = {r["quantity"]: r for r in rows if r["seeds"] == [e.seed]}
        assert set(own) == {"window from", "window to", "correlation at SR's h"}
        assert own["window from"]["value"] == own["window to"]["value"] == 0.01
        assert own["correlation at SR's h"]["value"] == pytest.approx(1)
    built(rows)


def test_one_network_has_intervals_over_its_samples():
    rng = np.random.default_rng(0)
    l1 = rng.uniform(1, 2, 50)
    q = l1 * rng.uniform(0.5, 1.1, 50)
    rows = measures.quotient_rows([quotients({0.01: q}, l1=l1)], used=0.01)
    at = {r["quantity"]: r for r in rows}
    for name in ("relative error", "probability moved", "rank correlation", "quotient over l1"):
        assert at[name]["n"] == 50 and at[name]["low"] <= at[name]["value"] <= at[name]["high"]
    assert at["relative error"]["value"] == pytest.approx(np.median(np.abs(q / l1 - 1)))
    # BCa's interval of a mean of many lies where the normal one does
    half = 1.96 * q.std() / l1.mean() / 50**0.5
    assert bounds(at["quotient over l1"]) == pytest.approx(
        (q.mean() / l1.mean() - half, q.mean() / l1.mean() + half), abs=0.2 * half
    )


def test_the_window_spans_the_steps_that_qualify_and_may_be_empty():
    steps = {1e-5: L1 * 0, 1e-3: L1 * 0.6, 1e-2: L1, 3e-2: L1 * 1.5, 0.1: L1 * 3}
    rows = measures.quotient_rows([quotients(steps)], used=1e-2)
    ends = [only(rows, quantity=q)["value"] for q in ("window from", "window to")]
    assert ends == [1e-3, 3e-2]
    empty = measures.quotient_rows([quotients({0.01: L1 * 3})], used=0.01)
    assert [only(empty, quantity=q)["value"] for q in ("window from", "window to")] == [None, None]


def test_the_smooth_regime_has_errors_and_nothing_else():
    rows = measures.quotient_rows([quotients({0.01: L1 * 1.5}, regime=SMOOTH, curvature=L1)], used=0.01)
    assert [(r["quantity"], r["value"]) for r in rows] == [("relative error", 0.5)]


def test_samples_without_a_gradient_have_no_relative_error_and_no_quotient_of_sums(trained, tiny):
    rows = measures.quotient_rows([quotients({0.01: [1, 2, 9, 8, 10]}, l1=[0, 0, 3, 4, 5])], used=0.01)
    assert only(rows, quantity="relative error")["n"] == 3 and only(rows, quantity="relative error")["value"] == 1
    torch.nn.init.zeros_(trained.head.weight)
    rows = measures.quotient_rows([quotient(tiny.test.take(8), [0.01])], used=0.01)
    at = {r["quantity"]: (r["value"], r["n"]) for r in select(rows, scheme="central")}
    assert at["probability moved"] == (0, 8) and at["relative error"] == at["quotient over l1"] == (None, 0)
    assert at["rank correlation"][0] is None
    built(rows)


def test_the_correlation_of_the_only_network_that_moved_whichever_it_is():
    found = [quotients({0.01: L1 * k}, of=e) for k, e in enumerate(SEEDS[:2])]
    row = only(measures.quotient_rows(found, used=0.01), quantity="rank correlation")
    assert (row["value"], row["n"]) == (pytest.approx(1), 5)


def test_the_quotient_of_sums_of_the_only_network_with_gradients_whichever_it_is():
    found = [quotients({0.01: L1 * k}, of=e, l1=L1 * k) for k, e in enumerate(SEEDS[:2])]
    row = only(measures.quotient_rows(found, used=0.01), quantity="quotient over l1")
    assert (row["value"], row["n"]) == (pytest.approx(1), 5)


# ---- the curvature -------------------------------------------------------------------------------------------------


def test_the_error_of_a_quadratic_function_is_its_prediction():
    # f(x) = g·x + xᵀHx/2, one f a sample, around 0; the quotient along sign g from its values, dᵀHd as it stands
    rng = np.random.default_rng(0)
    g, H = rng.normal(size=(9, 4)), rng.normal(size=(9, 4, 4))
    d = np.sign(g)
    curvature = np.einsum("ni,nij,nj->n", d, H, d)

    def f(t):
        return np.einsum("ni,ni->n", g, t * d) + np.einsum("ni,nij,nj->n", t * d, H, t * d) / 2

    def found(of, scale=1.0):
        schemes = {"forward": lambda h: f(h) / h, "backward": lambda h: -f(-h) / h}
        schemes |= {"central": lambda h: (f(h) - f(-h)) / 2 / h}
        made = {name: {h: q(h) for h in (0.01, 0.3)} for name, q in schemes.items()}
        l1 = np.abs(g).sum(1)
        return quotients(made.pop("forward"), of, SMOOTH, l1=l1, curvature=curvature * scale, **made)

    rows = measures.curvature_rows([found(SEEDS[0]), found(SEEDS[1], scale=0.5), quotients({0.01: L1})])
    assert {(r["scheme"], r["h"]) for r in rows} == {(s, h) for s in ("forward", "backward") for h in (0.01, 0.3)}
    assert len(rows) == 4 and {r["quantity"] for r in rows} == {"error over prediction"}
    assert [r["value"] for r in rows] == pytest.approx([1.5] * 4)  # 1, and 2 where half the term is predicted
    alone = measures.curvature_rows([found(SEEDS[0])])
    assert [r["value"] for r in alone] == pytest.approx([1] * 4) and {bounds(r) for r in alone} == {(None, None)}
    flat = measures.curvature_rows([found(SEEDS[0], scale=0.0)])
    assert {r["value"] for r in flat} == {None}
    predicted, error = measures.curvatures([found(SEEDS[0]), found(SEEDS[1], scale=0.5)], 0.3)["vanilla"]
    np.testing.assert_allclose(predicted, 0.15 * curvature, rtol=1e-3)
    np.testing.assert_allclose(predicted, error, rtol=2e-3)


def test_curvatures_are_drawn_for_one_network_of_each_training_in_64_bits():
    sr = experiment("sr", 1)
    made = [
        quotients({0.5: L1 + 1}, SEEDS[0], SMOOTH, "float32", curvature=L1 * 9),
        quotients({0.5: L1 + 2}, SEEDS[0], SMOOTH, "float64", curvature=L1 * 4),
        quotients({0.5: L1 + 3}, SEEDS[1], SMOOTH, "float64", curvature=L1 * 7),
        quotients({0.5: L1 + 4}, sr, SMOOTH, "float64", curvature=L1 * 8),
        quotients({0.5: L1 + 5}, sr),
    ]
    drawn = measures.curvatures(made, 0.5)
    assert drawn == {"vanilla": [[1, 2, 3, 4, 5], [2] * 5], "sr": [[2, 4, 6, 8, 10], [4] * 5]}


def test_the_smooth_network_is_judged_beside_the_spiking_one(monkeypatch, trained, tiny):
    monkeypatch.setattr(core, "BATCH", 7)
    samples = tiny.test.take(60)
    rows = measures.smooth_accuracy_rows(SEEDS[:2], samples, device="cpu")
    assert [(*r["seeds"], r["regime"]) for r in rows] == [(s, regime) for s in (0, 1) for regime in measures.REGIMES]
    for regime, entered in measures.REGIMES.items():
        with entered(trained), torch.no_grad():
            right = (trained(samples.pixels()).argmax(1) == samples.labels).double().mean().item()
        for r in select(rows, regime=regime):
            assert r["value"] == pytest.approx(right) and r["n"] == 60 and r["method"] == "Wilson 95 %"
    built(rows)


def test_the_smooth_network_may_decide_otherwise(trained, tiny):
    one = tiny.test.take(1)
    margins, label = [], one.labels.item()
    for entered in measures.REGIMES.values():
        with entered(trained), torch.no_grad():
            z = trained(one.pixels())[0]
        margins.append(z[label] - max(z[k] for k in range(3) if k != label))
    trained.head.bias.data[label] -= sum(margins) / 2  # half way between what the two say
    rows = measures.smooth_accuracy_rows(SEEDS[:1], one, device="cpu")
    assert [r["value"] for r in rows] == [float(margin > sum(margins) / 2) for margin in margins]
    assert {r["value"] for r in rows} == {0, 1}


# ---- the penalty's gradient ----------------------------------------------------------------------------------------


def test_a_tiny_step_on_the_smooth_network_gives_the_exact_gradient(trained, tiny):
    rows = measures.weight_gradient_rows(SEEDS[:2], tiny.test.take(15), h=1e-6, device="cpu")
    smooth = select(rows, regime=SMOOTH)
    assert [(r["layer"], r["quantity"]) for r in smooth] == [
        (i, q) for i in (1, 2, 3) for q in ("cosine", "norm ratio")
    ]
    assert [r["value"] for r in smooth] == pytest.approx([1] * 6, abs=1e-4) and {r["n"] for r in smooth} == {2}
    # on the spiking one hardly any probability moves so near, and a gradient of 0 has no direction
    assert {r["value"] for r in select(rows, regime=TRUE, quantity="norm ratio")} == {0}
    assert {r["value"] for r in select(rows, regime=TRUE, quantity="cosine")} == {None}
    built(rows)


def test_layers_are_numbered_from_the_image_on(trained, tiny):
    samples, h = tiny.test.take(15), 0.01
    rows = measures.weight_gradient_rows(SEEDS[:1], samples, h=h, device="cpu")
    network, x, y = trained.double(), samples.pixels().double(), samples.labels
    convolution = network.body[1][0]
    for regime, how in ((SMOOTH, network.smoothed), (TRUE, network.reference_path)):
        with measures.REGIMES[regime](network):
            leaf = x.clone().requires_grad_()
            network(leaf).softmax(1)[torch.arange(15), y].sum().backward()
            d = leaf.grad.sign()
            p, moved = (network(images).softmax(1)[torch.arange(15), y] for images in (x, x + h * d))
            penalty = ((moved - p) / h).abs().mean()
            weights = network.stem.weight, convolution.weight, network.head.weight
            estimated = torch.autograd.grad(penalty, weights)
        with how():
            leaf = x.clone().requires_grad_()
            f = network(leaf).softmax(1)[torch.arange(15), y].sum()
            (g,) = torch.autograd.grad(f, leaf, create_graph=True)
            exact = torch.autograd.grad(g.abs().sum() / 15, weights)
        for layer, (a, b) in enumerate(zip(estimated, exact, strict=True), 1):
            cosine, size = (a * b).sum() / a.norm() / b.norm(), a.norm() / b.norm()
            found = {r["quantity"]: r["value"] for r in select(rows, regime=regime, layer=layer, h=h)}
            assert found == {
                "cosine": pytest.approx(cosine.item(), rel=1e-6),
                "norm ratio": pytest.approx(size.item(), rel=1e-6),
            }
    cosines = [r["value"] for r in select(rows, quantity="cosine", regime=TRUE)]
    assert len(set(cosines)) == 3 and max(cosines) < 0.99  # else the numbering would not show


def test_the_arithmetic_of_each_penalty_by_hand(trained, tiny):
    # Multiply-adds a sample of stem S (it runs once), of the second convolution and the readout R.  Cross-entropy:
    # forward, by the weights, and by the input but for the image.  The quotient adds a pass forward, one back to the
    # image, and a second pass back to the weights; double back-propagation goes back through the first pass back.
    S, R = 2 * 9 * 64, 4 * (4 * 2 * 9 * 16) + 16 * 3
    least, two_passes, exact = 2 * S + 3 * R, 5 * S + 7 * R, 5 * S + 6 * R
    rows = measures.cost_rows(SEEDS[0], tiny.test.take(10), h=0.01, device="cpu")
    cost = {(r["penalty"], r["quantity"]): r["value"] for r in rows}
    assert len(cost) == len(rows) == 4 and {(r["n"], r["method"]) for r in rows} == {(10, "counted")}
    assert cost["finite difference", "multiply-adds"] == pytest.approx(two_passes / least)
    assert cost["double back propagation", "multiply-adds"] == pytest.approx(exact / least)
    assert 2 < cost["finite difference", "multiply-adds"] < 3
    assert 1.5 < cost["finite difference", "bytes kept"] < 2.5  # two passes are kept
    assert cost["double back propagation", "bytes kept"] > 2 * cost["finite difference", "bytes kept"]
    assert measures.cost_rows(SEEDS[0], tiny.test.take(10), h=0.01, device="cpu") == rows
    built(rows)


def test_what_is_counted_by_hand():
    # x W, (5, 4)(4, 3): 60 multiply-adds forward and 60 back to W; for it x is kept, 80 bytes;
    # the product with itself keeps y once, 60 bytes; the weights are there anyway, though the way back to x needs them
    x, W = torch.ones(5, 4, requires_grad=True), torch.ones(4, 3, requires_grad=True)

    def step():
        y = x @ W
        return (y * y).sum()

    assert counted(step, [W]) == (120, 80 + 60)


def test_bytes_grow_with_the_batch_and_their_proportion_does_not(trained, tiny):
    few, many = (
        [r["value"] for r in measures.cost_rows(SEEDS[0], tiny.test.take(n), h=0.01, device="cpu")] for n in (10, 40)
    )
    assert many == pytest.approx(few, rel=0.1)


# ---- all of it -----------------------------------------------------------------------------------------------------


@pytest.fixture
def several(monkeypatch, network):
    """Networks of two trainings and seeds, each the shared one with other weights in the readout."""

    def trained(of, *, device):
        own = copy.deepcopy(network)
        torch.manual_seed(10 * of.seed + len(of.defense))
        own.head.weight.data += 0.3 * torch.randn_like(own.head.weight)
        return own

    monkeypatch.setattr(experiments, "trained", trained)
    return [experiment(t, s) for t in ("vanilla", "sr") for s in (0, 1)]


def test_a_record_of_the_ratio_holds_all_rows_of_a_run(several, tiny, tmp_path):
    samples = tiny.test.take(10)
    gradient = {e.key: measures.probability_gradients(e, samples, device="cpu") for e in several}
    found = [v for regime in measures.REGIMES for e in several for v in measure(samples, regime, draws=8, of=e)]
    attacked = [evaluation(e, "pgd", 32, right=3 + e.seed) for e in several]
    broken = worst(found, samples, draws=100)
    rows = measures.exact_rows(draws=100)
    rows += [r for e in several for r in measures.ratio_rows(e, gradient[e.key])]
    rows += measures.vulnerability_rows(found) + broken
    rows += measures.predictor_rows(gradient, found, attacked, [0.0, 0.01])
    rows += measures.scale_rows(
        several[0], samples, [0.1, 1, 30], eps_255=16.0, draws=4, steps=2, thresholds=[0.01], device="cpu"
    )
    arrays = {"quartiles": measures.quantiles(found), "saturation": measures.saturation(found)}
    arrays |= {"worst": measures.pictures(broken, samples)}
    record = built(rows, arrays)
    records.save(record, tmp_path / "thm-ratio.json")
    assert records.load(tmp_path / "thm-ratio.json") == record and len(record["rows"]) == len(rows)
    assert {r["bound"] for r in broken} == {"upper", "lower"}


def test_a_record_of_the_quotient_holds_all_rows_of_a_run(several, tiny, tmp_path):
    samples = tiny.test.take(10)
    found = [
        measures.quotients(e, samples, [1e-6, 0.01], regime=regime, precision=precision, device="cpu")
        for regime in measures.REGIMES
        for precision in measures.PRECISIONS
        for e in several
    ]
    rows = measures.quotient_rows(found, used=0.01) + measures.curvature_rows(found)
    rows += measures.smooth_accuracy_rows(several, samples, device="cpu")
    rows += measures.weight_gradient_rows(several, samples, h=0.01, device="cpu")
    rows += measures.cost_rows(several[0], samples, h=0.01, device="cpu")
    record = built(rows, {"curvature": measures.curvatures(found, 0.01)})
    records.save(record, tmp_path / "prop-finite-difference.json")
    assert records.load(tmp_path / "prop-finite-difference.json") == record and len(record["rows"]) == len(rows)


@pytest.mark.parametrize("scale", [0, -1.0, math.inf])
def test_a_scale_that_would_change_decisions_is_refused(trained, tiny, scale):
    how = {"eps_255": 16.0, "draws": 2, "steps": 0, "thresholds": [], "device": "cpu"}
    with pytest.raises(Refused, match="scale of the logits is .* above 0"):
        measures.scale_rows(SEEDS[0], tiny.test.take(2), [1, scale], **how)


def test_the_unscaled_network_is_always_among_the_scales(trained, tiny):
    how = {"eps_255": 16.0, "draws": 2, "steps": 0, "thresholds": [], "device": "cpu"}
    assert {r["scale"] for r in measures.scale_rows(SEEDS[0], tiny.test.take(2), [2], **how)} == {1, 2}


def test_no_radius_is_refused(trained, tiny):
    with pytest.raises(Refused, match="no radius"):
        measures.vulnerabilities(SEEDS[0], tiny.test.take(2), TRUE, [], draws=2, steps=0, device="cpu")


@pytest.mark.parametrize("radii", [[0], [8.0, 0.0], [-1.0]])
def test_a_radius_that_would_divide_by_zero_is_refused(trained, tiny, radii):
    with pytest.raises(Refused, match="eps_255 is .* above 0"):
        measures.vulnerabilities(SEEDS[0], tiny.test.take(2), TRUE, radii, draws=2, steps=0, device="cpu")
