"""Sizes and sparsities of gradients by hand, what they predict in planted relations, and logits that are scaled."""

import itertools
import math

import numpy as np
import pytest
import torch
from measures_by_hand import (
    SEEDS,
    at,
    bounds,
    built,
    evaluation,
    experiment,
    flags,
    only,
    opened,
    planted,
    select,
    softmax_gradient,
)

from paperlib import records
from paperlib.errors import Refused
from paperlib.labels import SMOOTH, TRUE
from paperlib.measures import predictors, ratio
from paperlib.measures.rows import certain

# ---- gradients -----------------------------------------------------------------------------------------------------


def test_sparsities_by_hand():
    # l1 7, 0, 2, 5; l2 5, 0, √2, 5; participation number 49/25, none, 2, 1
    def values(gradient):
        return {r["quantity"]: (r["value"], r["n"]) for r in predictors.sparsity_rows(experiment(), gradient)}

    assert values(torch.tensor([[3.0, -4.0], [0.0, 0.0], [1.0, 1.0], [5.0, 0.0]])) == {
        "l1": (pytest.approx(3.5), 4),
        "l2": (pytest.approx((math.sqrt(2) + 5) / 2), 4),
        "participation number": (pytest.approx(1.96), 3),
        "zero gradient": (0.25, 4),
    }
    nothing = {"participation number": (None, 0), "zero gradient": (1.0, 4)}
    assert values(torch.zeros(4, 2)) == {"l1": (0, 4), "l2": (0, 4)} | nothing


def test_probability_gradients_against_one_sample_at_a_time(monkeypatch, network, tiny):
    monkeypatch.setattr(predictors, "BATCH", 7)
    samples = tiny.test.take(20)
    gradients = predictors.probability_gradients(network, samples)
    for i in range(20):
        x = samples.pixels(slice(i, i + 1)).requires_grad_()
        torch.softmax(network(x).double(), 1)[0, samples.labels[i]].backward()
        torch.testing.assert_close(gradients[i], x.grad[0])
    assert gradients.shape == (20, 1, 8, 8) and gradients.abs().sum() > 0


def sizes(networks, **values):
    """Rows of the three sizes of each network's gradient."""
    return [
        records.row(certain(value, 9), seeds=[e.seed], experiments=[e.key], quantity=name, **e.labels)
        for i, e in enumerate(networks)
        for name, value in (("participation number", values["number"][i]), ("l1", values["l1"][i]), ("l2", 1.0))
    ]


def test_the_correlation_pairs_each_network_with_its_own_accuracy():
    # participation numbers 1 to 5 against 0.9, 0.8, 0.6, 0.7, 0.5: Σd² = 38, r = 1 - 6·38/120 = -0.9
    nets = [experiment(t, s) for t, s in (("vanilla", 0), ("vanilla", 1), ("sr", 0), ("at", 0), ("at", 1))]
    robust = [evaluation(e, at("pgd", 32), right=r) for e, r in zip(nets, (9, 8, 6, 7, 5), strict=True)]
    sparsity = sizes(nets, number=range(1, 6), l1=[10.0**-i for i in range(5)])
    for order in itertools.islice(itertools.permutations(robust), 0, 120, 11):
        rows = predictors.correlation_rows(sparsity, order)
        by_name = {r["sparsity"]: r for r in select(rows, across="networks") if "given" not in r}
        assert by_name["participation number"]["value"] == pytest.approx(-0.9)
        assert by_name["l1"]["value"] == pytest.approx(0.9)
        assert by_name["l2"]["value"] is None  # equal for all
    entry = by_name["participation number"]
    assert (entry["quantity"], entry["attack"], entry["eps_255"]) == ("rank correlation", "pgd", 32.0)
    assert (entry["n"], entry["low"]) == (5, None) and "fewer than 5 configurations" in entry["method"]
    assert set(entry["experiments"]) == {e.key for e in nets} and set(entry["seeds"]) == {0, 1}
    assert only(rows, sparsity="participation number", across="networks", given="l1")["value"] is None  # same order
    # within vanilla and within AT accuracy falls from one to the other, so r = -1; SR's single network has no pair
    within = only([r for r in rows if "given" not in r], sparsity="participation number", across="within trainings")
    assert within["value"] == pytest.approx(-1) and within["n"] == 4
    alone = only([r for r in rows if "given" not in r], sparsity="participation number", across="within SR")
    assert alone["value"] is None and alone["seeds"] == [0]


def test_each_question_is_about_its_own_networks_and_clusters_are_configurations():
    # a paradox: SR's networks are sparser and more robust than AT's, and within both more robust where less sparse
    nets = [experiment(t, s, lam=lam) for t in ("sr", "l2") for lam in (0.1, 0.2, 0.3, 0.4) for s in range(3)]
    rank = np.arange(12.0)
    number = [*(20 + rank), *(60 + rank)]
    right = [*(60 + 3 * rank), *(10 + 3 * rank)]
    l1 = np.random.default_rng(0).permutation(24) + 1.0
    robust = [evaluation(e, at("pgd", 32), right=int(r), n=100) for e, r in zip(nets, right, strict=True)]
    rows = predictors.correlation_rows(sizes(nets, number=number, l1=l1), robust)
    built(rows)
    found = {r["across"]: r for r in select(rows, sparsity="participation number") if "given" not in r}
    assert found["networks"]["value"] < -0.4
    assert found["within trainings"]["value"] == pytest.approx(1) and found["within trainings"]["low"] > 0.5
    assert found["within SR"]["value"] == pytest.approx(1) and found["within SR"]["n"] == 12
    assert found["within SR"]["low"] is None  # four configurations
    assert "8 configurations" in found["networks"]["method"] and found["networks"]["over"] == "configurations"
    assert {r["given"] for r in select(rows, sparsity="l1") if "given" in r} == {"participation number"}


def gradients_of(networks, l1):
    """Gradients (3, 1, 1, 2) of each network with this l1."""
    return {e.key: torch.full((3, 1, 1, 2), size / 2) for e, size in zip(networks, l1, strict=True)}


def test_the_weights_of_nearest_magnitude_are_compared_by_seed():
    # l1's norms 1, 2 and 4 at its weights, l2's 1.9 and 8: 2 and 1.9 are nearest; accuracies would say otherwise
    nets = [experiment("exact-l1", s, lam=lam) for lam in (0.3, 0.2, 0.1) for s in (0, 1)]
    nets += [experiment("l2", s, lam=lam) for lam in (2.0, 1.0) for s in (0, 1)]
    size = [1, 1, 2, 2, 4, 4, 1.9, 1.9, 8, 8]
    right = [10, 10, 9, 7, 5, 5, 4, 6, 0, 0]
    evaluations = [evaluation(e, a, right=r) for a in (None, at("pgd", 32)) for e, r in zip(nets, right, strict=True)]
    sparsity = sizes(nets, number=[10, 10, 20, 30, 40, 40, 80, 60, 9, 9], l1=size)
    rows = predictors.matched_rows(gradients_of(nets, size), sparsity, evaluations, ["exact-l1", "l2"])
    built(rows)
    assert {(r["training"], r["lam"], r["against"], r["against_lam"]) for r in rows} == {("exact-l1", 0.2, "l2", 2.0)}
    ratios = {r["sparsity"]: r["value"] for r in select(rows, quantity="matched ratio")}
    # participation numbers 20/80 and 30/60: their geometric mean is √(1/8)
    assert ratios == {"l1": pytest.approx(2 / 1.9), "participation number": pytest.approx(0.125**0.5), "l2": 1.0}
    clean, pgd = select(rows, quantity="matched difference")
    assert clean["attack"] == "clean" and pgd["attack"] == "pgd"
    assert pgd["value"] == pytest.approx((0.9 - 0.4 + 0.7 - 0.6) / 2) and pgd["seeds"] == [0, 1]
    others = predictors.matched_rows(gradients_of(nets[4:], size[4:]), sparsity, evaluations, ["exact-l1", "l2"])
    assert {r["lam"] for r in others} == {0.1}  # of the networks with gradients alone
    turned = predictors.matched_rows(gradients_of(nets, size), sparsity, evaluations, ["l2", "exact-l1"])
    assert only(turned, attack="pgd")["value"] == pytest.approx(-pgd["value"])


def test_without_gradients_seeds_or_trainings_nothing_is_matched():
    nets = [experiment("exact-l1", 0), experiment("l2", 0), experiment("l2", 1, lam=5.0)]
    evaluations = [evaluation(e) for e in nets]
    sparsity = sizes(nets, number=[1, 1, 1], l1=[1, 1, 1])
    for l1, trainings in (([0, 1, 1], ["exact-l1", "l2"]), ([1, 0, 1], ["exact-l1", "l2"]), ([1, 1, 1], [])):
        assert predictors.matched_rows(gradients_of(nets, l1), sparsity, evaluations, trainings) == []
    with pytest.raises(Refused, match="matched names sr; it must name two trainings, or none"):
        predictors.matched_rows({}, sparsity, evaluations, ["sr"])


# ---- predictors ----------------------------------------------------------------------------------------------------

UP = np.arange(1.0, 7)
RISING = torch.arange(1.0, 7).view(6, 1, 1, 1).expand(6, 1, 2, 2)  # ‖g‖₁ rises over samples, all shapes are alike
RATIO, SURVIVAL = {"target": "ratio", "eps_255": 8.0}, {"target": "survival", "attack": "pgd", "eps_255": 16.0}


def predicted(ratios, survivors=3, scale=(1.0, 1.0, 1.0), gradient=RISING, thresholds=(0.01, 4.5), regime=TRUE):
    """Rows of three networks: `ratios` is (3, 6) or (6,), `survivors` how many of the last images stay correct."""
    measured, attacked = [], []
    for e, own, k in zip(SEEDS, np.broadcast_to(ratios, (3, 6)), np.broadcast_to(survivors, 3), strict=True):
        noise = np.isfinite(own).astype(float)
        measured.append(planted(np.where(np.isnan(own), 0, np.minimum(own, 1e9)), noise, of=e, regime=regime))
        attacked.append(evaluation(e, at("pgd", 16), flags(k, 6)[::-1]))
    gradients = {e.key: gradient * c for e, c in zip(SEEDS, scale, strict=True)}
    rows = predictors.predictor_rows(gradients, measured, attacked, thresholds)
    built(rows)
    return rows


def correlation(rows, sparsity="l1", across="samples", target=RATIO):
    return only(rows, quantity="rank correlation", sparsity=sparsity, across=across, **target)


def test_predictors_of_planted_monotone_relations():
    for ratios, value in ((UP, 1), (UP[::-1], -1), ([UP, UP, UP[::-1]], 1 / 3)):
        rows = predicted(ratios)
        entry = correlation(rows)
        assert entry["value"] == pytest.approx(value) and entry["n"] == 3 and entry["seeds"] == [0, 1, 2]
        assert correlation(rows, "l2")["value"] == pytest.approx(value)
    assert bounds(entry) == (-1, 1) and entry["over"] == "networks"  # 1/3 ± 2.9, cut
    # 1 to 6 against 0 0 0 1 1 1: Spearman's r = √(13.5/17.5)
    assert correlation(rows, target=SURVIVAL)["value"] == pytest.approx((13.5 / 17.5) ** 0.5)
    found = {(r["target"], r["eps_255"]) for r in select(rows, quantity="rank correlation")}
    assert found == {("ratio", 8), ("survival", 16)}
    smooth = select(predicted(UP, regime=SMOOTH), quantity="rank correlation")
    assert {r["target"] for r in smooth} == {"survival"}  # only the true regime is predicted


def test_ratios_and_flags_of_the_first_samples_go_with_the_gradients_of_these():
    longer = torch.cat([RISING, torch.full((3, 1, 2, 2), 0.5)])  # three more images, which nobody attacked
    assert correlation(predicted(UP, gradient=longer))["value"] == pytest.approx(1)


def test_a_sparsity_that_is_the_same_everywhere_predicts_nothing():
    rows = predicted(UP)
    for name in ("participation number", "Hoyer", "Gini", "l0 above 0.01"):
        assert correlation(rows, name)["value"] is None and correlation(rows, name, "networks")["value"] is None
    # 4.5 is exceeded by the gradients of two images: 1 to 6 against 0 0 0 0 1 1, r = √(12/17.5)
    assert correlation(rows, "l0 above 4.5")["value"] == pytest.approx((12 / 17.5) ** 0.5)


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
    ratios, scale = [np.arange(6.0, 0, -1) + 10 * i for i in range(3)], (1.0, 2.0, 4.0)
    rows = predicted(ratios, survivors=[5, 4, 2], scale=scale)
    assert correlation(rows)["value"] == pytest.approx(-1)
    assert correlation(rows, across="networks")["value"] == pytest.approx(1)
    assert correlation(rows, across="networks", target=SURVIVAL)["value"] == pytest.approx(-1)
    for first in ([math.inf] * 3 + [9, 2, 1], [math.inf] * 4 + [1, 2]):  # now the first network's median is largest
        rows = predicted([first, UP, UP + 1], scale=scale)
        assert correlation(rows, across="networks")["value"] == pytest.approx(-0.5)


def test_sparsities_per_training_by_hand():
    # (3, 4, 0): l1 7, l2 5, PN 49/25, Hoyer (√3 - 7/5)/(√3 - 1), Gini 1 - 2(3/7·1.5/3 + 4/7·0.5/3), l0 2 and 1
    gradient = torch.tensor([[3.0, 4, 0]] * 5 + [[0, 0, 0]]).view(6, 1, 1, 3)  # the last counts for sizes alone
    rows = select(predicted(np.ones(6), gradient=gradient, thresholds=(0.01, 3.5)), quantity="sparsity")
    hoyer, gini = (3**0.5 - 1.4) / (3**0.5 - 1), 1 - 2 * (1.5 * 3 + 0.5 * 4) / 21
    wanted = {"l1": 7, "l2": 5, "participation number": 1.96, "Hoyer": hoyer, "Gini": gini}
    wanted |= {"l0 above 0.01": 2, "l0 above 3.5": 1}
    assert {r["sparsity"]: r["value"] for r in rows} == {name: pytest.approx(v) for name, v in wanted.items()}
    assert {(*r["seeds"], r["training"]) for r in rows} == {(0, 1, 2, "vanilla")}


# ---- the logits scaled ---------------------------------------------------------------------------------------------

SCALES = [0.1, 10, 30, 1000.0]


def scale_rows(network, samples, scales, thresholds=(), **how):
    (one,) = opened(network, SEEDS[0])
    how = {"eps_255": 16.0, "draws": 2, "steps": 0} | how
    return predictors.scale_rows(one, samples, scales, thresholds=thresholds, **how)


@pytest.fixture
def scaled(network, tiny):
    """Values by what and scale, of 15 images."""
    rows = scale_rows(network, tiny.test.take(15), SCALES, [0.01], draws=8, steps=4)
    built(rows)
    assert {(r["quantity"], r["eps_255"], r["training"]) for r in rows} == {("scaled", 16.0, "vanilla")}
    by_what = {(r["what"], r["scale"]): r["value"] for r in rows}
    assert len(by_what) == len(rows) and {c for _, c in by_what} == {1, *SCALES}
    return by_what


def test_a_factor_of_one_changes_nothing(scaled, network, tiny):
    samples = tiny.test.take(15)
    g = softmax_gradient(network, samples)[1].flatten(1).abs().double()
    wanted = {
        "l1": g.sum(1),
        "l2": (g**2).sum(1) ** 0.5,
        "participation number": g.sum(1) ** 2 / (g**2).sum(1),
        "l0 above 0.01": (g > 0.01).double().sum(1),
    }
    (one,) = opened(network, SEEDS[0])
    (plain,) = ratio.vulnerabilities(one, samples, TRUE, [16.0], draws=8, steps=4)
    wanted |= {name: torch.from_numpy(plain.sizes[name]) for name in ("ρ_rand", "ρ_adv", "ratio")}
    for name, sizes in wanted.items():
        assert scaled[name, 1] == pytest.approx(np.median(sizes), rel=1e-3)


def test_no_factor_changes_a_decision_and_only_some_measures_change(scaled, network, tiny):
    assert {scaled["same decisions", c] for c in SCALES} == {1}
    for name in ("l1", "l2", "ρ_rand"):
        assert abs(math.log(scaled[name, 0.1] / scaled[name, 1])) > 0.1
        assert abs(math.log(scaled[name, 10] / scaled[name, 1])) > 1
    assert 0 < scaled["ρ_rand", 30] < 1e-30  # where f_y rounds to 1 in 64 bits, 1 - f_y still moves
    assert [scaled["no gradient in 32 bits", c] for c in (1, 1000.0)] == [0, 1]  # of a very confident network
    samples = tiny.test.take(15)
    leaf = samples.pixels().requires_grad_()
    z = network(leaf).double()
    rival = z.detach().scatter(1, samples.labels[:, None], -math.inf).argmax(1)
    torch.sigmoid(z[torch.arange(15), samples.labels] - z[torch.arange(15), rival]).sum().backward()
    g = leaf.grad.flatten(1).abs().double()
    number = (g.sum(1) ** 2 / (g**2).sum(1)).median().item()
    two = [scaled["participation number, two classes", c] for c in (0.1, 1, 10)]
    assert two == pytest.approx([number] * 3, rel=1e-4)


@pytest.mark.parametrize("scale", [0, -1.0, math.inf])
def test_a_scale_that_would_change_decisions_is_refused(network, tiny, scale):
    with pytest.raises(Refused, match="scale of the logits is .* above 0"):
        scale_rows(network, tiny.test.take(2), [1, scale])
