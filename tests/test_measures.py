"""Rows of records from hand-made flags and gradients: pairing, grouping, and numbers worked out by hand."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from paperlib import attacks, experiments, images, measures, protocols, records, theory
from paperlib.attacks import Attack
from paperlib.errors import Refused
from paperlib.evaluations import Evaluation
from paperlib.experiments import Experiment
from paperlib.training import Schedule

BOUNDS = (0.0, 1.0)
SCHEDULE = Schedule(epochs=1, batch_size=10, lr=0.1, momentum=0.9, weight_decay=0.0)


def experiment(training="vanilla", seed=0, **options):
    needed = {"sr": {"lam": 0.1}, "at": {"eps": 0.1, "alpha": 0.1, "steps": 1}}
    options = needed.get(training, {}) | options
    return Experiment({"name": "tiny"}, "conv-2-4", 4, 1.0, "triangle", "float32", training, options, SCHEDULE, seed)


def flags(right, n=10):
    """`n` flags of which the first `right` are True."""
    return np.arange(n) < right


def evaluation(of, attack=None, eps_255=0.0, right=5, n=10):
    return Evaluation(of, attack and attacks.standard(attack, eps_255 / 255), flags(right, n))


def bounds(entry):
    return entry["low"], entry["high"]


# ---- shares and means --------------------------------------------------------------------------------------------


def test_accuracy_by_hand():
    # Wilson, 3 of 4, z² = 3.8415: centre (3/4 + z²/8)/(1 + z²/4) = 0.62753, half width 0.32689
    of = experiment("sr", seed=7, lam=0.01)
    (entry,) = measures.accuracy_rows([evaluation(of, "pgd", 8, right=3, n=4)])
    labels = {"quantity": "accuracy", "training": "sr", "lam": 0.01, "attack": "PGD-20", "eps_255": 8.0}
    assert labels.items() <= entry.items()
    assert entry["value"] == 0.75 and entry["n"] == 4 and entry["seeds"] == [7] and entry["experiments"] == [of.key]
    assert bounds(entry) == pytest.approx((0.62753 - 0.32689, 0.62753 + 0.32689), abs=2e-5)


def test_clean_images_are_an_attack_of_radius_zero():
    (entry,) = measures.accuracy_rows([evaluation(experiment())])
    assert (entry["attack"], entry["eps_255"]) == ("clean", 0.0)


def test_the_mean_over_three_seeds_by_hand():
    # 0.6, 0.7, 0.8: standard error 0.1/√3, times t(0.975, 2) = 4.3027: ±0.24841
    (entry,) = measures.mean_rows([evaluation(experiment(seed=s), right=6 + s) for s in range(3)])
    assert entry["quantity"] == "mean accuracy" and entry["value"] == pytest.approx(0.7) and entry["n"] == 3
    assert bounds(entry) == pytest.approx((0.45159, 0.94841), abs=2e-5)
    assert entry["seeds"] == [0, 1, 2] and len(entry["experiments"]) == 3


def test_a_mean_is_cut_to_what_a_share_can_be_and_one_seed_has_its_samples_interval():
    (two,) = measures.mean_rows([evaluation(experiment(seed=s), right=5 + 5 * s) for s in range(2)])
    assert (two["value"], *bounds(two)) == (0.75, 0.0, 1.0)  # 0.75 ± 0.25 · 12.7
    (one,) = measures.mean_rows([evaluation(experiment())])
    # Wilson, k = 5 of n = 10, z = 1.96: (0.5 + z²/20 ± z·√(0.025 + z²/400)) / (1 + z²/10)
    assert (one["value"], *bounds(one)) == (0.5, pytest.approx(0.2366, abs=1e-4), pytest.approx(0.7634, abs=1e-4))
    assert one["method"] == "Wilson 95 %" and one["seeds"] == [0]


def test_means_are_taken_over_seeds_and_nothing_else():
    made = [
        evaluation(experiment(t, seed=s, **o), attack, eps, right=r)
        for r, (t, o) in enumerate([("vanilla", {}), ("sr", {"lam": 0.1}), ("sr", {"lam": 0.2})])
        for attack, eps in ((None, 0), ("pgd", 8), ("pgd", 16), ("fgsm", 8))
        for s in (1, 0)
    ]
    rows = measures.mean_rows(made)
    assert len(rows) == 3 * 4
    assert [(r["training"], r.get("lam"), r["value"]) for r in rows[::4]] == [
        ("vanilla", None, 0.0),
        ("sr", 0.1, 0.1),
        ("sr", 0.2, 0.2),
    ]
    assert {r["n"] for r in rows} == {2} and {tuple(r["seeds"]) for r in rows} == {(1, 0)}


# ---- differences -------------------------------------------------------------------------------------------------


def test_differences_are_paired_by_seed_whatever_the_order():
    # by seed 0.9 - 0.5, 0.8 - 0.7, 0.7 - 0.6: mean 0.2, standard error 0.1, times 4.3027
    made = [evaluation(experiment("sr", s, lam=0.1), "pgd", 16, right=9 - s) for s in range(3)]
    made += [evaluation(experiment("vanilla", s), "pgd", 16, right=r) for s, r in enumerate((5, 7, 6))]
    for shuffled in itertools.islice(itertools.permutations(made), 0, 720, 37):
        (entry,) = measures.difference_rows(iter(shuffled), "sr", "vanilla")
        assert entry["value"] == pytest.approx(0.2)
        assert bounds(entry) == pytest.approx((-0.23027, 0.63027), abs=2e-5)
        assert set(entry["seeds"]) == {0, 1, 2}
        assert set(entry["experiments"]) == {e.experiment.key for e in made}
    labels = {"training": "sr", "against": "vanilla", "attack": "PGD-20", "eps_255": 16.0}
    assert labels.items() <= entry.items() and entry["quantity"] == "difference"


def test_there_is_a_difference_for_every_attack_and_it_hears_no_other_training():
    made = [
        evaluation(experiment(t, s), attack, eps, right=base + i)
        for t, base in (("vanilla", 1), ("sr", 3), ("at", 6))
        for i, (attack, eps) in enumerate(((None, 0), ("fgsm", 16), ("pgd", 16), ("pgd", 32)))
        for s in range(2)
    ]
    rows = measures.difference_rows(made, "sr", "vanilla")
    assert [(r["attack"], r["eps_255"]) for r in rows] == [
        ("clean", 0),
        ("FGSM", 16),
        ("PGD-20", 16),
        ("PGD-20", 32),
    ]
    assert [r["value"] for r in rows] == pytest.approx([0.2] * 4)


# ---- the gap between noise and attack ----------------------------------------------------------------------------


def test_a_gap_pairs_noise_at_k_epsilon_with_the_attack_at_epsilon():
    # attack at 8 leaves 4 and 2 of 10, noise at 32 leaves 9 and 5; every decoy at another radius leaves all or none
    nets = [experiment(seed=s) for s in range(2)]
    noise = [evaluation(nets[0], "uniform", 32, right=9), evaluation(nets[1], "uniform", 32, right=5)]
    noise += [evaluation(e, "uniform", eps, right=10) for e in nets for eps in (8, 16, 64)]
    attacked = [evaluation(nets[1], "pgd", 8, right=2), evaluation(nets[0], "pgd", 8, right=4)]
    attacked += [evaluation(e, "pgd", 32, right=0) for e in nets]
    first = None
    for shuffled in itertools.islice(itertools.permutations(noise), 0, 40000, 5000):
        rows = measures.gap_rows(iter(shuffled), iter(attacked), factors=[4])
        first = first or rows
        assert rows == first
    assert {(r["eps_255"], r["noise"], r["factor"]) for r in rows} == {(8.0, "uniform", 4)}  # 4 · 32 has no noise
    by_seed = {r["seeds"][0]: r for r in rows if r["quantity"] == "gap"}
    assert (by_seed[0]["value"], by_seed[1]["value"]) == (0.5, 0.3)
    # Bonett-Price, 5 discordant pairs of 10, all one way: p = 6/12, q = 1/12, z √((7/12 - (5/12)²)/12) = 0.36216
    assert bounds(by_seed[0]) == pytest.approx((5 / 12 - 0.36216, 5 / 12 + 0.36216), abs=2e-5)
    (mean,) = (r for r in rows if r["quantity"] == "mean gap")
    # 0.5 and 0.3: standard error 0.1, times t(0.975, 1) = 12.7062
    assert mean["value"] == pytest.approx(0.4) and set(mean["seeds"]) == {0, 1} and mean["n"] == 2
    assert bounds(mean) == pytest.approx((0.4 - 1.27062, 0.4 + 1.27062), abs=2e-5)


def test_gaps_hold_every_law_and_factor_and_radii_that_are_no_integers():
    of = experiment()
    noise = [evaluation(of, law, k * 2.55, right=8) for law in ("uniform", "sign") for k in (1, 2, 4)]
    rows = measures.gap_rows(noise, [evaluation(of, "pgd", 2.55, right=1)], factors=[1, 2, 4])
    wanted = {(law, k, q) for law in ("uniform", "sign") for k in (1, 2, 4) for q in ("gap", "mean gap")}
    assert {(r["noise"], r["factor"], r["quantity"]) for r in rows} == wanted and len(rows) == len(wanted)
    assert {round(r["value"], 9) for r in rows} == {0.7}
    assert {bounds(r) for r in rows if r["quantity"] == "mean gap"} == {(None, None)}  # one seed


def test_a_gap_is_paired_over_samples():
    # equal shares on other samples: no difference, but ten discordant pairs of ten
    of = experiment()
    noise = Evaluation(of, attacks.standard("sign", 8 / 255), ~flags(5))
    same = Evaluation(of, attacks.standard("sign", 8 / 255), flags(5))
    attacked = evaluation(of, "pgd", 8, right=5)
    wide, narrow = (measures.gap_rows([n], [attacked], factors=[1])[0] for n in (noise, same))
    assert wide["value"] == narrow["value"] == 0
    assert wide["high"] - wide["low"] > 2 * (narrow["high"] - narrow["low"])


# ---- noise's energy ----------------------------------------------------------------------------------------------


def split(pixels):
    pixels = torch.as_tensor(pixels, dtype=torch.uint8)
    n = len(pixels)
    return images.Split(pixels.reshape(n, 1, 1, -1), torch.zeros(n, dtype=torch.int64), torch.arange(n) + 50)


@pytest.mark.parametrize("law", ["uniform", "sign"])
def test_the_energy_kept_against_a_direct_computation(law):
    pixels = np.random.default_rng(0).choice([0, 0, 3, 128, 255], size=(30, 40))
    samples, attack = split(pixels), Attack(law, 0.1)
    (entry,) = measures.energy_rows(samples, [attack], BOUNDS)
    shares = []
    for i, x in enumerate(pixels / 255):  # one sample at a time, in float64: noise belongs to the sample's number
        one = torch.full((1, 1, 1, 40), 0.5)
        draw = attacks.ATTACKS[law](None, one, torch.zeros(1), eps=0.1, bounds=BOUNDS, seed=0, index=samples.index[[i]])
        delta = (draw - one).numpy().ravel().astype(float)  # around 0.5 nothing is cut off
        shares.append(((np.clip(x + delta, 0, 1) - x) ** 2).sum() / (delta**2).sum())
    assert entry["value"] == pytest.approx(np.mean(shares), rel=1e-4)
    assert entry["low"] < np.mean(shares) < entry["high"] and entry["n"] == 30
    assert (entry["quantity"], entry["attack"], entry["eps_255"]) == ("noise energy kept", f"{law} noise", 25.5)
    assert 0.3 < entry["value"] < 0.9


def test_grey_images_keep_all_energy_and_black_ones_half():
    radii = [Attack("sign", 0.2), Attack("uniform", 0.2)]
    grey, black = (measures.energy_rows(split(np.full((40, 400), v)), radii, BOUNDS) for v in (128, 0))
    assert [r["value"] for r in grey] == pytest.approx([1, 1], rel=1e-5)
    assert [r["value"] for r in black] == pytest.approx([0.5, 0.5], abs=0.02)


# ---- gradients ---------------------------------------------------------------------------------------------------

# l1 7, 0, 2, 5; l2 5, 0, √2, 5; participation number 49/25, none, 2, 1; l0 2, 0, 2, 1
GRADIENT = torch.tensor([[3.0, -4.0], [0.0, 0.0], [1.0, 1.0], [5.0, 0.0]])


def values(rows):
    return {r["quantity"]: (r["value"], r["n"]) for r in rows}


def test_sparsities_by_hand():
    found = values(measures.sparsity_rows(experiment(), GRADIENT))
    assert found == {
        "l1": (pytest.approx(3.5), 4),
        "l2": (pytest.approx((math.sqrt(2) + 5) / 2), 4),
        "participation number": (pytest.approx(1.96), 3),
        "zero gradient": (0.25, 4),
    }


def test_ratios_by_hand_count_the_gradients_that_vanish():
    rows = measures.ratio_rows(experiment(seed=3), GRADIENT)
    assert values(rows) == {
        "linear ratio": (pytest.approx(5.88), 3),
        "upper bound": (6.0, 3),
        "within both bounds": (1.0, 3),
        "zero gradient": (0.25, 4),
    }
    assert {tuple(r["seeds"]) for r in rows} == {(3,)}


@pytest.mark.parametrize("rows", [measures.sparsity_rows, measures.ratio_rows])
def test_a_network_all_of_whose_gradients_vanish_is_counted(rows):
    found = values(rows(experiment(), torch.zeros(4, 2)))
    assert found["zero gradient"] == (1.0, 4)


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
    gradient = GRADIENT[[0, 2, 3]]  # upper bounds 6, 6, 3
    monkeypatch.setattr(theory, "linear_ratio", lambda g: torch.tensor(ratios))
    assert values(measures.ratio_rows(experiment(), gradient))["within both bounds"][0] == pytest.approx(inside / 3)


@pytest.fixture
def trained(monkeypatch, network):
    """The shared network takes the place of every experiment's."""
    monkeypatch.setattr(experiments, "trained", lambda experiment, *, device: network.to(device))
    return network


def test_probability_gradients_against_one_sample_at_a_time(monkeypatch, trained, tiny):
    monkeypatch.setattr("paperlib.measures.sparsity.BATCH", 7)
    samples = tiny.test.take(20)
    found = measures.probability_gradients(experiment(), samples, device="cpu")
    for i in range(20):
        x = samples.pixels(slice(i, i + 1)).requires_grad_()
        torch.softmax(trained(x).double(), 1)[0, samples.labels[i]].backward()
        torch.testing.assert_close(found[i], x.grad[0])
    assert found.shape == (20, 1, 8, 8) and found.abs().sum() > 0


# ---- correlation and choice --------------------------------------------------------------------------------------


def test_the_correlation_pairs_each_network_with_its_own_accuracy():
    # participation numbers 1 to 5 against 0.9, 0.8, 0.6, 0.7, 0.5: Σd² = 38, r = 1 - 6·38/120 = -0.9
    nets = [experiment(t, s) for t, s in (("vanilla", 0), ("vanilla", 1), ("sr", 0), ("at", 0), ("at", 1))]
    robust = [evaluation(e, "pgd", 32, right=r) for e, r in zip(nets, (9, 8, 6, 7, 5), strict=True)]
    sparsity = []
    for i, e in enumerate(nets):
        sizes = {"participation number": i + 1.0, "l1": 10.0**-i, "l2": 1.0}
        for name, value in sizes.items():
            made = SimpleNamespace(value=value, low=None, high=None, n=9, method="by hand")
            sparsity.append(records.row(made, seeds=[e.seed], experiments=[e.key], quantity=name, **e.labels))
    for order in itertools.islice(itertools.permutations(robust), 0, 120, 11):
        by_name = {r["sparsity"]: r for r in measures.correlation_rows(sparsity, order)}
        assert by_name["participation number"]["value"] == pytest.approx(-0.9)
        assert by_name["l1"]["value"] == pytest.approx(0.9)
        assert by_name["l2"]["value"] is None  # equal for all
    entry = by_name["participation number"]
    assert (entry["quantity"], entry["attack"], entry["eps_255"]) == ("rank correlation", "PGD-20", 32.0)
    assert entry["n"] == 5 and entry["low"] < -0.9 < entry["high"] < 1
    assert set(entry["experiments"]) == {e.key for e in nets} and set(entry["seeds"]) == {0, 1}


def sweep(accuracies, n=100):
    """λ → [(clean, under PGD) per seed], in samples of `n`."""
    return [
        evaluation(experiment("sr", s, lam=lam) if lam else experiment(seed=s), attack, eps, right=right, n=n)
        for lam, seeds in accuracies.items()
        for s, pair in enumerate(seeds)
        for (attack, eps), right in zip(((None, 0), ("pgd", 32)), pair, strict=True)
    ]


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ({0: [(95, 10)], 0.1: [(95, 30)], 0.2: [(93, 40)]}, 0.1),  # the most robust costs two points too many
        ({0: [(95, 10)], 0.1: [(95, 30)], 0.2: [(94, 40)]}, 0.2),  # one point is allowed
        ({0: [(95, 10)], 0.1: [(80, 90)]}, 0.0),  # rather none than a broken training
        ({0: [(95, 50)], 0.1: [(96, 40)]}, 0.0),
        ({0: [(90, 0), (100, 0)], 0.1: [(94, 60), (96, 0)], 0.2: [(95, 20), (95, 20)]}, 0.1),  # means over seeds
    ],
)
def test_the_choice_of_lambda(accuracies, expected):
    made = sweep(accuracies)
    for order in (made, made[::-1]):
        chosen, used = measures.choice_rows(order, 0.01, used=0.007)
        assert (chosen["quantity"], chosen["value"]) == ("chosen λ", expected)
        assert (used["quantity"], used["value"]) == ("used λ", 0.007)
        assert bounds(chosen) == bounds(used) == (None, None) and chosen["n"] == 100
        assert "0.01" in chosen["method"] and "validation" in chosen["method"]


@pytest.mark.parametrize("clean", range(60, 100, 3))
def test_a_loss_of_exactly_the_tolerance_is_allowed(clean):
    chosen, _ = measures.choice_rows(sweep({0: [(clean, 10)], 0.1: [(clean - 2, 30)]}), 0.02, used=0.1)
    assert chosen["value"] == 0.1


# ---- the columns of the tables -----------------------------------------------------------------------------------


def test_the_ladder_starts_clean_and_climbs_at_each_radius():
    rungs = protocols.ladder([16, 32], steps=7)
    assert rungs[0] is None
    assert [(a.name, round(a.eps * 255, 6)) for a in rungs[1:]] == [
        (name, eps) for eps in (16, 32) for name in ("uniform", "sign", "fgsm", "pgd")
    ]
    pgd = rungs[-1].options
    assert pgd["steps"] == 7 and pgd["alpha"] == pytest.approx(2.5 * 32 / 255 / 7)


@pytest.mark.parametrize("eps", [-4, math.nan, math.inf])
def test_a_radius_that_cannot_be_is_refused(eps):
    with pytest.raises(Refused, match="eps is .*; it must be a finite number of at least 0"):
        protocols.ladder([eps], steps=3)


def test_every_kind_of_row_fits_into_a_record():
    found = ((t, s, a) for t in ("vanilla", "sr") for s in (0, 1) for a in ((None, 0), ("pgd", 8)))
    made = [evaluation(experiment(t, s), *a) for t, s, a in found]
    rows = measures.accuracy_rows(made) + measures.mean_rows(made) + measures.difference_rows(made, "sr", "vanilla")
    rows += [row for s in range(2) for row in measures.ratio_rows(experiment(seed=s), GRADIENT)]
    data = {"name": "tiny", "title": "stripes", "sha256": "0"}
    built = records.build("tab-ablation", profile="smoke", parameters={}, data=data, recipe=1, device="cpu", rows=rows)
    assert len(built["rows"]) == len(rows)
