"""The finite-difference proposition's rows: quotients by hand, transcriptions on a network, curvature, penalties."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from measures_by_hand import SEEDS, at, bounds, built, evaluation, experiment, only, opened, select

from paperlib import records
from paperlib.labels import REGIMES, SMOOTH, TRUE
from paperlib.measures import exact, predictors, quotient, ratio
from paperlib.measures.quotient import PRECISIONS, Quotients
from paperlib.store.experiment import Opened

# ---- quotients of a network ----------------------------------------------------------------------------------------


def quotients(network, samples, steps, regime=TRUE, precision="float64"):
    (one,) = opened(network, SEEDS[0])
    return quotient.quotients(one, samples, steps, regime=regime, precision=precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("regime", REGIMES)
def test_quotients_against_one_sample_at_a_time(monkeypatch, network, tiny, regime, precision):
    monkeypatch.setattr(quotient, "BATCH", 7)
    samples, h = tiny.test.take(10), 0.05
    found = quotients(network, samples, [h], regime, precision)
    assert next(network.parameters()).dtype == torch.float32  # the network itself keeps its precision
    network = network.to(PRECISIONS[precision])
    near = {"rel": 1e-9, "abs": 1e-12} if precision == "float64" else {"rel": 1e-3, "abs": 1e-4}
    for i in range(10):
        x = samples.pixels(slice(i, i + 1)).to(PRECISIONS[precision]).requires_grad_()
        y = samples.labels[i]
        with ratio.ENTERED[regime](network):
            p = network(x).softmax(1)[0, y]
            p.backward()
            d = x.grad.sign()
            forth, back = (network(x + side * h * d).softmax(1)[0, y].item() for side in (1, -1))
        assert found.l1[i] == pytest.approx(x.grad.abs().sum().item(), **near)
        for scheme, change in (("forward", forth - p.item()), ("backward", p.item() - back), ("central", forth - back)):
            width = 2 * h if scheme == "central" else h
            assert found.quotient[h, scheme][i] == pytest.approx(change / width, **near)
    assert (found.regime, found.precision) == (regime, precision) and found.l1.min() > 0.01


def test_the_precision_is_that_of_the_network_and_of_its_softmax(network, tiny):
    # from 2⁻¹⁰ on numbers of 32 bits are multiples of 2⁻³⁴, and so are their differences; h is a power of 2
    h, samples = 2.0**-20, tiny.test.take(10)
    coarse, fine = (
        quotients(network, samples, [h], SMOOTH, precision).quotient[h, "forward"] * h * 2**34
        for precision in ("float32", "float64")
    )
    assert (coarse % 1 == 0).all() and (coarse != 0).any() and (fine % 1 != 0).all()
    l1 = quotients(network, samples, [h], SMOOTH).l1 * h * 2**34
    assert np.abs(fine / l1 - 1).max() < 1e-3 < np.median(np.abs(coarse / l1 - 1))


def test_curvature_is_that_of_the_smooth_network_alone(monkeypatch, network, tiny):
    monkeypatch.setattr(quotient, "BATCH", 4)
    samples, h = tiny.test.take(10), 1e-5
    assert quotients(network, samples, [h]).curvature is None
    curvature = quotients(network, samples, [h], SMOOTH).curvature
    x, network = samples.pixels().double(), network.double()

    def f(images):
        return network(images).softmax(1)[torch.arange(10), samples.labels]

    with network.smoothed():
        leaf = x.clone().requires_grad_()
        f(leaf).sum().backward()
        d = leaf.grad.sign()
        with torch.no_grad():
            second = (f(x + h * d) - 2 * f(x) + f(x - h * d)) / h**2
    np.testing.assert_allclose(curvature, second, rtol=0.02, atol=1e-3)
    assert np.abs(curvature).min() > 0.1


# ---- quotients by hand ---------------------------------------------------------------------------------------------

L1 = np.array([1.0, 2, 3, 4, 5])


def planted(forward, of=SEEDS[0], regime=TRUE, precision="float64", l1=L1, curvature=None, **others):
    """Quotients by hand: `forward` by h, and whatever other schemes there are."""
    schemes = {"forward": forward} | others
    by = {(h, scheme): np.asarray(q, float) for scheme, own in schemes.items() for h, q in own.items()}
    return Quotients(of, regime, precision, np.asarray(l1, float), by, curvature)


def test_bias_and_correlation_by_hand():
    found = planted({0.1: [2, 4, 6, 8, 10], 0.2: [5, 4, 3, 2, 1], 0.3: [1, 2, 3, 5, 4], 0.4: [0] * 5})
    assert [found.bias(h, "forward") for h in (0.1, 0.2, 0.3, 0.4)] == [2, 1, 1, 0]
    correlations = [found.correlation(h, "forward").value for h in (0.1, 0.2, 0.3, 0.4)]
    assert correlations == pytest.approx([1, -1, 0.9, math.nan], nan_ok=True)
    assert math.isnan(planted({0.1: L1}, l1=L1 * 0).bias(0.1, "forward"))


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
    found = planted({0.001: L1 * 9, 0.01: changed, 0.1: L1}, central={0.001: L1})
    assert found.window("forward") == ([0.01, 0.1] if inside else [0.1])


def test_quotient_rows_by_hand():
    # relative errors over l1 of 1: 0.5 0 0 0 0.2 → median 0, and twice: all 1; bias 15.5/15 and 2
    good, double = [0.5, 2, 3, 4, 6], L1 * 2
    found = [planted({0.01: q, 0.1: L1 * 0}, of=e) for e, q in zip(SEEDS, (good, double), strict=False)]
    rows = quotient.quotient_rows(iter(found), used=0.01)
    assert {(r["regime"], r["precision"], r["training"]) for r in rows} == {(TRUE, "float64", "vanilla")}
    for h, values in ((0.01, [0, 1, 1, (15.5 / 15 + 2) / 2]), (0.1, [1, 0, None, 0])):
        own = select(rows, h=h, scheme="forward")
        quantities = ["relative error", "probability moved", "rank correlation", "quotient over l1"]
        assert [r["quantity"] for r in own] == quantities
        assert [r["value"] for r in own] == [None if v is None else pytest.approx(v) for v in values]
    assert only(rows, h=0.01, quantity="relative error")["low"] is None
    assert only(rows, h=0.01, quantity="quotient over l1")["n"] == 2
    for e in SEEDS[:2]:
        by_network = {r["quantity"]: r["value"] for r in rows if r["seeds"] == [e.seed]}
        assert by_network == {"window from": 0.01, "window to": 0.01, "correlation at SR's h": pytest.approx(1)}
    built(rows)


def test_one_network_has_intervals_over_its_samples():
    rng = np.random.default_rng(0)
    l1 = rng.uniform(1, 2, 50)
    q = l1 * rng.uniform(0.5, 1.1, 50)
    row = {r["quantity"]: r for r in quotient.quotient_rows([planted({0.01: q}, l1=l1)], used=0.01)}
    for name in ("relative error", "probability moved", "rank correlation", "quotient over l1"):
        assert row[name]["n"] == 50 and row[name]["low"] <= row[name]["value"] <= row[name]["high"]
    assert row["relative error"]["value"] == pytest.approx(np.median(np.abs(q / l1 - 1)))
    # BCa's interval of a mean of many lies where the normal one does
    mean, half = q.mean() / l1.mean(), 1.96 * q.std() / l1.mean() / 50**0.5
    assert bounds(row["quotient over l1"]) == pytest.approx((mean - half, mean + half), abs=0.2 * half)


def test_the_window_spans_the_steps_that_qualify_and_may_be_empty():
    steps = {1e-5: L1 * 0, 1e-3: L1 * 0.6, 1e-2: L1, 3e-2: L1 * 1.5, 0.1: L1 * 3}
    for q, ends in ((steps, [1e-3, 3e-2]), ({1e-2: L1 * 3}, [None, None])):
        rows = quotient.quotient_rows([planted(q)], used=1e-2)
        assert [only(rows, quantity=name)["value"] for name in ("window from", "window to")] == ends


def test_the_smooth_regime_has_errors_and_nothing_else():
    rows = quotient.quotient_rows([planted({0.01: L1 * 1.5}, regime=SMOOTH, curvature=L1)], used=0.01)
    assert [(r["quantity"], r["value"]) for r in rows] == [("relative error", 0.5)]


def test_samples_without_a_gradient_have_no_relative_error_and_no_quotient_of_sums(network, tiny):
    rows = quotient.quotient_rows([planted({0.01: [1, 2, 9, 8, 10]}, l1=[0, 0, 3, 4, 5])], used=0.01)
    error = only(rows, quantity="relative error")
    assert (error["n"], error["value"]) == (3, 1)
    torch.nn.init.zeros_(network.head.weight)
    rows = quotient.quotient_rows([quotients(network, tiny.test.take(8), [0.01])], used=0.01)
    row = {r["quantity"]: (r["value"], r["n"]) for r in select(rows, scheme="central")}
    assert row["probability moved"] == (0, 8) and row["relative error"] == row["quotient over l1"] == (None, 0)
    assert row["rank correlation"][0] is None
    built(rows)


@pytest.mark.parametrize("name", ["rank correlation", "quotient over l1"])
def test_a_single_network_that_moved_has_its_own_value_whichever_it_is(name):
    found = [planted({0.01: L1 * k}, of=e, l1=L1 * k) for k, e in enumerate(SEEDS[:2])]
    row = only(quotient.quotient_rows(found, used=0.01), quantity=name)
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
        return planted(made.pop("forward"), of, SMOOTH, l1=l1, curvature=curvature * scale, **made)

    rows = quotient.curvature_rows([found(SEEDS[0]), found(SEEDS[1], scale=0.5), planted({0.01: L1})])
    assert [(r["scheme"], r["h"]) for r in rows] == [(s, h) for s in ("forward", "backward") for h in (0.01, 0.3)]
    assert {r["quantity"] for r in rows} == {"error over prediction"}
    assert [r["value"] for r in rows] == pytest.approx([1.5] * 4)  # 1, and 2 where half the term is predicted
    alone = quotient.curvature_rows([found(SEEDS[0])])
    assert [r["value"] for r in alone] == pytest.approx([1] * 4) and {bounds(r) for r in alone} == {(None, None)}
    flat = quotient.curvature_rows([found(SEEDS[0], scale=0.0)])
    assert {r["value"] for r in flat} == {None}
    predicted, error = quotient.curvatures([found(SEEDS[0]), found(SEEDS[1], scale=0.5)], 0.3)["vanilla"]
    np.testing.assert_allclose(predicted, 0.15 * curvature, rtol=1e-3)
    np.testing.assert_allclose(predicted, error, rtol=2e-3)


def test_curvatures_are_drawn_for_one_network_of_each_training_in_64_bits():
    sr = experiment("sr", 1)
    made = [
        planted({0.5: L1 + 1}, SEEDS[0], SMOOTH, "float32", curvature=L1 * 9),
        planted({0.5: L1 + 2}, SEEDS[0], SMOOTH, "float64", curvature=L1 * 4),
        planted({0.5: L1 + 3}, SEEDS[1], SMOOTH, "float64", curvature=L1 * 7),
        planted({0.5: L1 + 4}, sr, SMOOTH, "float64", curvature=L1 * 8),
        planted({0.5: L1 + 5}, sr),
    ]
    drawn = quotient.curvatures(made, 0.5)
    assert drawn == {"vanilla": [[1, 2, 3, 4, 5], [2] * 5], "sr": [[2, 4, 6, 8, 10], [4] * 5]}


def test_the_smooth_networks_accuracy_stands_beside_the_spiking_ones(monkeypatch, network, tiny):
    monkeypatch.setattr(quotient, "BATCH", 7)
    samples = tiny.test.take(60)
    rows = quotient.smooth_accuracy_rows(opened(network, *SEEDS[:2]), samples)
    assert [(*r["seeds"], r["regime"]) for r in rows] == [(s, regime) for s in (0, 1) for regime in REGIMES]
    for regime in REGIMES:
        with ratio.ENTERED[regime](network), torch.no_grad():
            right = (network(samples.pixels()).argmax(1) == samples.labels).double().mean().item()
        for r in select(rows, regime=regime):
            assert r["value"] == pytest.approx(right) and r["n"] == 60 and r["method"] == "Wilson 95 %"
    built(rows)


def test_the_smooth_network_may_decide_otherwise(network, tiny):
    one = tiny.test.take(1)
    margins, label = [], one.labels.item()
    for regime in REGIMES:
        with ratio.ENTERED[regime](network), torch.no_grad():
            z = network(one.pixels())[0]
        margins.append(z[label] - max(z[k] for k in range(3) if k != label))
    network.head.bias.data[label] -= sum(margins) / 2  # half way between the two margins
    rows = quotient.smooth_accuracy_rows(opened(network, SEEDS[0]), one)
    assert [r["value"] for r in rows] == [float(margin > sum(margins) / 2) for margin in margins]
    assert {r["value"] for r in rows} == {0, 1}


# ---- the penalty's gradient ----------------------------------------------------------------------------------------


def test_a_tiny_step_on_the_smooth_network_gives_the_exact_gradient(network, tiny):
    rows = quotient.weight_gradient_rows(opened(network, *SEEDS[:2]), tiny.test.take(15), h=1e-6)
    smooth, quantities = select(rows, regime=SMOOTH), ("cosine", "norm ratio")
    assert [(r["layer"], r["quantity"]) for r in smooth] == [(i, q) for i in (1, 2, 3) for q in quantities]
    assert [r["value"] for r in smooth] == pytest.approx([1] * 6, abs=1e-4) and {r["n"] for r in smooth} == {2}
    # on the spiking one hardly any probability moves so near, and a gradient of 0 has no direction
    for quantity, value in zip(quantities, (None, 0), strict=True):
        assert {r["value"] for r in select(rows, regime=TRUE, quantity=quantity)} == {value}
    built(rows)


def test_layers_are_numbered_from_the_image_on(network, tiny):
    samples, h = tiny.test.take(15), 0.01
    rows = quotient.weight_gradient_rows(opened(network, SEEDS[0]), samples, h=h)
    network, x, y = network.double(), samples.pixels().double(), samples.labels
    weights = network.stem.weight, network.body[1][0].weight, network.head.weight

    def f(images):
        return network(images).softmax(1)[torch.arange(15), y]

    for regime, how in ((SMOOTH, network.smoothed), (TRUE, network.reference_path)):
        with ratio.ENTERED[regime](network):
            leaf = x.clone().requires_grad_()
            f(leaf).sum().backward()
            penalty = ((f(x + h * leaf.grad.sign()) - f(x)) / h).abs().mean()
            estimated = torch.autograd.grad(penalty, weights)
        with how():
            leaf = x.clone().requires_grad_()
            (g,) = torch.autograd.grad(f(leaf).sum(), leaf, create_graph=True)
            exact_gradient = torch.autograd.grad(g.abs().sum() / 15, weights)
        for layer, (a, b) in enumerate(zip(estimated, exact_gradient, strict=True), 1):
            cosine, size = (a * b).sum() / a.norm() / b.norm(), a.norm() / b.norm()
            own = {r["quantity"]: r["value"] for r in select(rows, regime=regime, layer=layer, h=h)}
            wanted = {"cosine": cosine.item(), "norm ratio": size.item()}
            assert own == {name: pytest.approx(value, rel=1e-6) for name, value in wanted.items()}
    cosines = [r["value"] for r in select(rows, quantity="cosine", regime=TRUE)]
    assert len(set(cosines)) == 3 and max(cosines) < 0.99  # else the numbering would not show


def test_the_cost_of_each_penalty_by_hand(network, tiny):
    # Multiply-adds a sample of stem S (it runs once), of the second convolution and the readout R.  Cross-entropy:
    # forward, by the weights, and by the input but for the image.  The quotient adds a pass forward, one back to the
    # image, and a second pass back to the weights; double back-propagation goes back through the first pass back.
    S, R = 2 * 9 * 64, 4 * (4 * 2 * 9 * 16) + 16 * 3
    least, two_passes, exact_penalty = 2 * S + 3 * R, 5 * S + 7 * R, 5 * S + 6 * R
    (one,) = opened(network, SEEDS[0])
    few, again, many = (quotient.cost_rows(one, tiny.test.take(n), h=0.01) for n in (10, 10, 40))
    cost = {(r["penalty"], r["quantity"]): r["value"] for r in few}
    assert len(cost) == len(few) == 4 and {(r["n"], r["method"]) for r in few} == {(10, "counted")}
    assert cost["finite difference", "multiply-adds"] == pytest.approx(two_passes / least)
    assert cost["double back propagation", "multiply-adds"] == pytest.approx(exact_penalty / least)
    assert 1.5 < cost["finite difference", "bytes kept"] < 2.5  # two passes are kept
    assert cost["double back propagation", "bytes kept"] > 2 * cost["finite difference", "bytes kept"]
    assert again == few
    assert [r["value"] for r in many] == pytest.approx([*cost.values()], rel=0.1)  # bytes grow with the batch alike
    built(few)


# ---- all rows of a run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("artifact", ["thm-ratio", "prop-finite-difference"])
def test_a_record_holds_all_rows_of_a_run(network, tiny, tmp_path, artifact):
    samples, several = tiny.test.take(10), []  # two trainings and seeds, with other weights in the readout
    for e in [experiment(t, s) for t in ("vanilla", "sr") for s in (0, 1)]:
        several.append(Opened(e, copy.deepcopy(network)))
        torch.manual_seed(10 * e.seed + len(e.defense))
        several[-1].network.head.weight.data += 0.3 * torch.randn(3, 16)
    if artifact == "thm-ratio":
        how, networks = {"draws": 8, "steps": 4}, {e.key: own for e, own in several}
        found = [v for r in REGIMES for o in several for v in ratio.vulnerabilities(o, samples, r, (8, 48), **how)]
        gradient = {key: predictors.probability_gradients(own, samples) for key, own in networks.items()}
        worst = ratio.worst_rows(found, networks, samples, draws=100, steps=4)
        attacked = [evaluation(e, at("pgd", 32), right=3 + e.seed) for e, _ in several]
        rows = exact.exact_rows(draws=100) + [r for e, _ in several for r in ratio.ratio_rows(e, gradient[e.key])]
        rows += ratio.vulnerability_rows(found) + worst
        rows += predictors.predictor_rows(gradient, found, attacked, [0.0, 0.01])
        rows += predictors.scale_rows(several[0], samples, [0.1, 1, 30], eps_255=16.0, thresholds=[0.01], **how)
        arrays = {"quartiles": ratio.quantiles(found), "saturation": ratio.saturation(found)}
        arrays |= {"worst": ratio.pictures(worst, samples)}
    else:
        places = itertools.product(REGIMES, PRECISIONS, several)
        found = [quotient.quotients(o, samples, [1e-6, 0.01], regime=r, precision=p) for r, p, o in places]
        rows = quotient.quotient_rows(found, used=0.01) + quotient.curvature_rows(found)
        rows += quotient.smooth_accuracy_rows(several, samples)
        rows += quotient.weight_gradient_rows(several, samples, h=0.01)
        rows += quotient.cost_rows(several[0], samples, h=0.01)
        arrays = {"curvature": quotient.curvatures(found, 0.01)}
    record = built(rows, arrays)
    records.save(record, tmp_path / "record.json")
    assert records.load(tmp_path / "record.json") == record and len(record["rows"]) == len(rows)
