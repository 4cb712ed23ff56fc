"""Accuracies, their differences and gaps, from flags made by hand: pairing, grouping, numbers worked out by hand."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from measures_by_hand import (
    SEEDS,
    anova,
    at,
    bounds,
    built,
    evaluation,
    experiment,
    flags,
    images,
    only,
    opened,
    select,
)

from paperlib import labels, records
from paperlib.attacks import protocols
from paperlib.attacks.attack import ATTACKS, Attack
from paperlib.attacks.ensembles import Ensemble
from paperlib.errors import Refused
from paperlib.labels import BOTH
from paperlib.measures import accuracy, clean

PGD, FGSM = at("pgd", 16), at("fgsm", 16)
ORDER = "sr", "vanilla"

# ---- shares and means --------------------------------------------------------------------------------------------


def test_an_accuracy_by_hand():
    # Wilson, 3 of 4, z² = 3.8415: centre (3/4 + z²/8)/(1 + z²/4) = 0.62753, half width 0.32689
    of = experiment("sr", seed=7, lam=0.01)
    (entry,) = accuracy.accuracy_rows([evaluation(of, at("pgd", 8), right=3, n=4)])
    wanted = {"quantity": "accuracy", "training": "sr", "lam": 0.01, "attack": "pgd", "steps": 20, "eps_255": 8.0}
    assert (wanted | {"value": 0.75, "n": 4, "over": "samples", "seeds": [7]}).items() <= entry.items()
    assert bounds(entry) == pytest.approx((0.62753 - 0.32689, 0.62753 + 0.32689), abs=2e-5)
    assert entry["experiments"] == [of.key] and "doubts" not in entry


@pytest.mark.parametrize(
    ("attack", "wanted"),
    [
        (None, {"attack": "clean", "eps_255": 0.0}),
        (FGSM, {"attack": "fgsm", "eps_255": 16.0}),
        (
            at("pgd", 16, steps=3, rule={"name": "rectangle", "gamma": 0.5}),
            {"attack": "pgd", "steps": 3, "rule": "rectangle", "gamma": 0.5, "eps_255": 16.0},
        ),
        (protocols.rules_at(16, [0.5], steps=3)[-1], {"attack": "pgd", "rules": "widths", "eps_255": 16.0}),
    ],
)
def test_a_row_carries_the_labels_of_its_attack(attack, wanted):
    for rows in (accuracy.accuracy_rows, accuracy.mean_rows, accuracy.pass_rows):
        (entry,) = rows([evaluation(experiment(), attack, passes=np.ones(10))])
        assert labels.attack(entry) | {"eps_255": entry["eps_255"]} == wanted


def test_means_are_taken_over_seeds_and_nothing_else():
    nets = [("vanilla", {}), ("sr", {"lam": 0.1}), ("sr", {"lam": 0.2})]
    attacks = [None, at("pgd", 8), PGD, at("fgsm", 8)]
    made = [
        evaluation(experiment(t, seed=s, **o), attack, right=r + s)
        for r, (t, o) in enumerate(nets)
        for attack in attacks
        for s in (1, 0, 2)
    ]
    rows = accuracy.mean_rows(made)
    assert len(rows) == 3 * 4 and {(r["quantity"], r["n"], *r["seeds"]) for r in rows} == {
        ("mean accuracy", 10, 1, 0, 2)
    }
    means = [(r["training"], r.get("lam"), r["value"]) for r in rows[::4]]
    assert means == [(t, o.get("lam"), pytest.approx(0.1 + r / 10)) for r, (t, o) in enumerate(nets)]
    assert bounds(rows[0]) == pytest.approx(anova([flags(r) for r in (1, 0, 2)], 0, 1)[1:])
    assert len(rows[0]["experiments"]) == 3 and rows[0]["over"] == "seeds and samples"


def test_two_phases_correct_the_cheap_accuracy_by_what_the_strong_attack_breaks_besides():
    # of 40 samples PGD leaves 30 and 20; of the first 10 PGD leaves 8 and 6, and everything together 5 and 6
    strong = Ensemble("worst", [PGD, at("square", 16)])
    wide = [np.arange(40) % 10 < 8, np.arange(40) % 10 < 6]
    wide[0][30:32] = wide[1][30:34] = False
    nets = SEEDS[:2]
    first = [evaluation(e, PGD, values) for e, values in zip(nets, wide, strict=True)]
    first += [evaluation(e, FGSM, flags(40, 40)) for e in nets]
    second = [evaluation(e, strong, right=r) for e, r in zip(nets, (5, 6), strict=True)]
    both = accuracy.in_two_phases(second, first)
    (mean,) = accuracy.mean_rows(both)
    assert mean["value"] == pytest.approx((30 / 40 - 3 / 10 + 20 / 40) / 2) and mean["n"] == 10
    assert [r["value"] for r in accuracy.accuracy_rows(both)] == pytest.approx([30 / 40 - 3 / 10, 20 / 40])
    assert "first of 40" in mean["method"]
    alone = accuracy.in_two_phases(second, first[2:])  # no first phase under PGD
    assert alone == second and accuracy.mean_rows(alone)[0]["value"] == pytest.approx(11 / 20)


# ---- differences -------------------------------------------------------------------------------------------------


def test_differences_are_paired_by_seed_whatever_the_order():
    # by seed 0.9 - 0.5, 0.8 - 0.7, 0.7 - 0.6: mean 0.2
    made = [evaluation(experiment("sr", s), PGD, right=9 - s) for s in range(3)]
    made += [evaluation(experiment("vanilla", s), PGD, right=r) for s, r in enumerate((5, 7, 6))]
    for shuffled in itertools.islice(itertools.permutations(made), 0, 720, 37):
        entry, *pairs = accuracy.difference_rows(iter(shuffled), *ORDER)
        differences = [flags(9 - s) * 1 - flags(r) * 1 for s, r in enumerate((5, 7, 6))]
        assert (entry["value"], *bounds(entry)) == pytest.approx(anova(differences, -1, 1))
        assert set(entry["seeds"]) == {0, 1, 2}
        assert set(entry["experiments"]) == {e.experiment.key for e in made}
        assert {tuple(r["seeds"]): round(r["value"], 9) for r in pairs} == {(0,): 0.4, (1,): 0.1, (2,): 0.1}


def test_there_is_a_difference_for_every_attack_and_it_depends_on_no_other_training():
    attacks = [None, FGSM, PGD, at("pgd", 32)]
    made = [
        evaluation(experiment(t, s), attack, right=base + i)
        for t, base in (("vanilla", 1), ("sr", 3), ("at", 6))
        for i, attack in enumerate(attacks)
        for s in range(2)
    ]
    rows = accuracy.difference_rows(made, *ORDER)
    assert [r["quantity"] for r in rows] == ["difference"] * 4 + ["paired difference"] * 8
    assert [r["value"] for r in rows] == pytest.approx([0.2] * 12)
    assert {(r["training"], r["against"]) for r in rows} == {ORDER}
    assert [(r["attack"], r["eps_255"]) for r in rows[:4]] == [("clean", 0), ("fgsm", 16), ("pgd", 16), ("pgd", 32)]


def test_two_networks_on_the_same_samples_by_hand():
    # 20 samples, 8 right for SR alone, 1 for vanilla alone, and one more of either kind: of 22 differences the mean is
    # 7/22, the variance (11 - 7²/22)/21; t(0.975, 21) = 2.079614
    # McNemar: 9 discordant pairs, one against eight: 2·(1 + 9)/2⁹ = 0.0390625
    first, second = np.zeros((2, 20), dtype=bool)
    first[:8], second[8], first[9:14], second[9:14] = True, True, True, True
    one, two = experiment("sr", 3), experiment("vanilla", 3)
    mean, pair = accuracy.difference_rows([evaluation(two, PGD, second), evaluation(one, PGD, first)], *ORDER)
    assert [mean["value"], pair["value"]] == pytest.approx([7 / 20] * 2) and bounds(mean) == bounds(pair)
    assert mean["over"] == "samples"
    assert pair["n"] == 20 and pair["seeds"] == [3] and set(pair["experiments"]) == {one.key, two.key}
    half = 2.079614 * math.sqrt((11 - 7**2 / 22) / 21 / 22)
    assert bounds(pair) == pytest.approx((7 / 22 - half, 7 / 22 + half), abs=1e-6)
    assert pair["method"].endswith(", McNemar p = 0.039")
    equal = accuracy.difference_rows([evaluation(one, PGD, first), evaluation(two, PGD, first)], *ORDER)[1]
    assert equal["value"] == 0 and equal["low"] < 0 < equal["high"] and equal["method"].endswith("p = 1")


def test_networks_of_different_seeds_or_attacks_are_not_compared():
    pairs = [(0, 1, PGD, PGD), (2, 2, PGD, at("pgd", 32)), (3, 3, PGD, FGSM), (4, 4, PGD, at("pgd", 16, steps=9))]
    made = [evaluation(experiment("sr", s), attack) for s, _, attack, _ in pairs]
    made += [evaluation(experiment("vanilla", s), attack) for _, s, _, attack in pairs]
    assert accuracy.difference_rows(made, *ORDER) == []


def test_a_contrast_is_one_network_under_two_attacks():
    # by seed 0.2 - 0.5 and 0.4 - 0.5: mean -0.2
    made = [evaluation(experiment(seed=s), PGD, right=2 + 2 * s) for s in (0, 1)]
    made += [evaluation(experiment(seed=s), FGSM, right=5) for s in (1, 0)]
    made += [evaluation(experiment("sr"), attack, right=r) for attack, r in ((PGD, 9), (FGSM, 3))]
    mean, alone, *single = accuracy.contrast_rows(iter(made), [(PGD, FGSM)])
    assert (mean["attack"], mean["steps"], mean["reference_attack"], mean["training"]) == ("pgd", 20, "fgsm", "vanilla")
    assert "reference_steps" not in mean and mean["eps_255"] == 16
    differences = [flags(2 + 2 * s) * 1 - flags(5) * 1 for s in (0, 1)]
    assert (mean["value"], *bounds(mean)) == pytest.approx(anova(differences, -1, 1)) and mean["over"] == BOTH
    assert [(r["training"], *r["seeds"], r["quantity"], r["value"]) for r in single] == [
        ("vanilla", 0, "contrast", pytest.approx(-0.3)),
        ("vanilla", 1, "contrast", pytest.approx(-0.1)),
        ("sr", 0, "contrast", pytest.approx(0.6)),
    ]
    assert bounds(single[0]) == pytest.approx(anova(differences[:1], -1, 1)[1:])
    assert "McNemar p = 0.25" in single[0]["method"]
    assert alone["quantity"] == mean["quantity"] == "mean contrast"
    assert alone["value"] == pytest.approx(0.6) and bounds(alone) == bounds(single[2])  # one seed has its samples'


def test_the_ladder_starts_clean_and_climbs_at_each_radius():
    clean_images, *rungs = protocols.ladder([16, 32], steps=7)
    names = ("uniform", "sign", "fgsm", "pgd")
    assert clean_images is None
    assert [(a.name, round(a.eps * 255, 6)) for a in rungs] == [(name, eps) for eps in (16, 32) for name in names]
    assert rungs[-1].options["steps"] == 7 and rungs[-1].options["alpha"] == pytest.approx(2.5 * 32 / 255 / 7)


# ---- passes, doubts and records ----------------------------------------------------------------------------------


def test_passes_are_the_mean_over_samples_and_then_over_seeds():
    # per sample 3 and 6: standard error 1.5, times t(0.975, 1) = 12.7062, cut at 0
    made = [evaluation(experiment(seed=s), PGD, passes=np.full(10, 2.0 + s) + flags(5) * 2) for s in (0, 3)]
    other = evaluation(experiment("sr"), PGD, passes=np.full(10, 7.0))
    entry, seven = accuracy.pass_rows([*made, other])
    assert (entry["quantity"], entry["value"], entry["n"]) == ("mean passes", pytest.approx(4.5), 2)
    assert bounds(entry) == (0, pytest.approx(4.5 + 1.5 * 12.7062, abs=1e-4)) and entry["seeds"] == [0, 3]
    assert seven["value"] == 7
    (one,) = accuracy.pass_rows(made[:1])
    assert one["value"] == pytest.approx(3) and 2 < one["low"] < 3 < one["high"] < 4 and one["n"] == 10


def test_rows_carry_the_doubts_of_their_evaluations(tmp_path):
    # of the first seed PGD's gradients vanish, of the second noise breaks more; SR is beyond doubt
    weak, strong, noise = flags(80, 100), flags(40, 100), at("uniform", 16)
    made = [evaluation(SEEDS[0], PGD, weak, vanished=0.5), evaluation(SEEDS[1], PGD, weak)]
    made += [evaluation(SEEDS[0], noise, weak), evaluation(SEEDS[1], noise, strong)]
    made += [evaluation(experiment("sr", s), PGD, strong) for s in (0, 1)]
    single, means = accuracy.accuracy_rows(iter(made)), accuracy.mean_rows(iter(made))
    ((vanished,), (noisy,)) = (r["doubts"] for r in single[:2])
    assert "exactly 0" in vanished and "noise" in noisy
    assert all("doubts" not in r for r in single[2:] + means[1:])
    assert means[0]["doubts"] == [vanished, noisy]  # the union over seeds
    mean, *pairs = differences = accuracy.difference_rows(iter(made), *ORDER)
    assert mean["doubts"] == [vanished, noisy] and [r["doubts"] for r in pairs] == [[vanished], [noisy]]
    both = [evaluation(e, PGD, weak, vanished=0.5) for e in SEEDS[:2]]
    assert only(accuracy.mean_rows(both))["doubts"] == [vanished]  # the same doubt of two seeds is given once
    record = built(single + means + differences)
    records.save(record, tmp_path / "t.json")
    assert records.load(tmp_path / "t.json") == record


# ---- the gap between noise and attack ----------------------------------------------------------------------------


def test_a_gap_pairs_noise_at_k_epsilon_with_the_attack_at_epsilon():
    # attack at 8 leaves 4 and 2 of 10, noise at 32 leaves 9 and 5; every decoy at another radius leaves all or none
    nets = SEEDS[:2]
    noise = [evaluation(e, at("uniform", 32), right=r) for e, r in zip(nets, (9, 5), strict=True)]
    noise += [evaluation(e, at("uniform", eps), right=10) for e in nets for eps in (8, 16, 64)]
    attacked = [evaluation(e, at("pgd", 8), right=r) for e, r in zip(nets[::-1], (2, 4), strict=True)]
    attacked += [evaluation(e, at("pgd", 32), right=0) for e in nets]
    rows = accuracy.gap_rows(iter(noise), iter(attacked), factors=[4])
    for shuffled in itertools.islice(itertools.permutations(noise), 0, 40000, 5000):
        assert accuracy.gap_rows(iter(shuffled), iter(attacked), factors=[4]) == rows
    assert {(r["eps_255"], r["noise"], r["factor"]) for r in rows} == {(8.0, "uniform", 4)}  # 4 · 32 has no noise
    by_seed = {r["seeds"][0]: r for r in select(rows, quantity="gap")}
    assert (by_seed[0]["value"], by_seed[1]["value"]) == (0.5, 0.3)
    differences = [flags(9) * 1 - flags(4) * 1, flags(5) * 1 - flags(2) * 1]
    assert bounds(by_seed[0]) == pytest.approx(anova(differences[:1], -1, 1)[1:])
    mean = only(rows, quantity="mean gap")
    assert set(mean["seeds"]) == {0, 1} and mean["n"] == 10
    assert (mean["value"], *bounds(mean)) == pytest.approx(anova(differences, -1, 1))


def test_gaps_hold_every_law_and_factor_and_radii_that_are_no_integers():
    laws, factors = ("uniform", "sign"), (1, 2, 4)
    noise = [evaluation(SEEDS[0], at(law, k * 2.55), right=8) for law in laws for k in factors]
    rows = accuracy.gap_rows(noise, [evaluation(SEEDS[0], at("pgd", 2.55), right=1)], factors=factors)
    wanted = set(itertools.product(laws, factors, ("gap", "mean gap")))
    assert {(r["noise"], r["factor"], r["quantity"]) for r in rows} == wanted and len(rows) == len(wanted)
    assert {round(r["value"], 9) for r in rows} == {0.7}
    assert {r["over"] for r in rows} == {"samples"}  # one seed


# ---- noise's energy ----------------------------------------------------------------------------------------------


def bytes_of(pixels):
    return images(np.asarray(pixels)[:, None, None], np.zeros(len(pixels), dtype=int), first=50)


@pytest.mark.parametrize("law", ["uniform", "sign"])
def test_the_energy_kept_against_a_direct_computation(law):
    pixels = np.random.default_rng(0).choice([0, 0, 3, 128, 255], size=(30, 40))
    samples = bytes_of(pixels)
    (entry,) = accuracy.energy_rows(samples, [Attack(law, 0.1)])
    shares = []
    for i, x in enumerate(pixels / 255):  # one sample at a time, in float64: noise belongs to the sample's number
        one = torch.full((1, 1, 1, 40), 0.5)
        context = {"bounds": (0.0, 1.0), "seed": 0, "index": samples.index[[i]]}
        draw = ATTACKS[law].function(None, one, torch.zeros(1), eps=0.1, **context)
        delta = (draw - one).numpy().ravel().astype(float)  # around 0.5 nothing is cut off
        shares.append(((np.clip(x + delta, 0, 1) - x) ** 2).sum() / (delta**2).sum())
    assert entry["value"] == pytest.approx(np.mean(shares), rel=1e-4)
    assert entry["low"] < np.mean(shares) < entry["high"] and entry["n"] == 30
    assert (entry["quantity"], entry["attack"], entry["eps_255"]) == ("noise energy kept", law, 25.5)
    assert 0.3 < entry["value"] < 0.9


def test_grey_images_keep_all_energy_and_black_ones_half_unless_the_bounds_are_wider():
    radii = [Attack("sign", 0.2), Attack("uniform", 0.2)]
    grey, black = (bytes_of(np.full((40, 400), v)) for v in (128, 0))
    for samples, kept in ((grey, 1), (black, 0.5), (replace(black, bounds=(-1.0, 1.0)), 1)):
        assert [r["value"] for r in accuracy.energy_rows(samples, radii)] == pytest.approx([kept] * 2, abs=0.02)


# ---- the choice of λ ---------------------------------------------------------------------------------------------


def sweep(accuracies):
    """λ → [(clean, under PGD) per seed], of 100 samples."""
    return [
        evaluation(experiment("sr", s, lam=lam) if lam else experiment(seed=s), attack, right=right, n=100)
        for lam, seeds in accuracies.items()
        for s, pair in enumerate(seeds)
        for attack, right in zip((None, PGD), pair, strict=True)
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
        chosen, used = accuracy.choice_rows(order, 0.01, used=0.007)
        assert (chosen["quantity"], chosen["value"]) == ("chosen λ", expected) and chosen["n"] == 100
        assert (used["quantity"], used["value"]) == ("used λ", 0.007)
        assert bounds(chosen) == bounds(used) == (None, None)
        assert "within 1 points" in chosen["method"] and "validation" in chosen["method"]


def test_the_worst_case_chooses_where_there_is_one_and_any_baseline_stands_for_0():
    worst = protocols.strongest(16, steps=20, long_steps=20, queries=30)
    adversarial = {"eps": 0.1, "alpha": 0.1, "steps": 1}
    accuracies = {("at", 0.0): (95, 50, 40), ("at+sr", 0.1): (94, 70, 30), ("at+sr", 0.2): (93, 60, 45)}
    networks = {of: experiment(of[0], **adversarial, **({"lam": of[1]} if of[1] else {})) for of in accuracies}
    made = [
        evaluation(networks[of], attack, right=right, n=100)
        for of, left in accuracies.items()
        for attack, right in zip((None, PGD, worst), left, strict=True)
    ]
    assert accuracy.chosen(made, 0.05, baseline="at") == 0.2
    assert accuracy.chosen([e for e in made if e.attack is not worst], 0.05, baseline="at") == 0.1
    rows = accuracy.weight_rows(made, {"at+sr": [*networks.values()]}, 0.05, used=lambda training: 0.1)
    assert [(r["quantity"], r["value"]) for r in rows[-2:]] == [("chosen λ", 0.2), ("used λ", 0.1)]
    assert {r["of"] for r in rows} == {"at+sr"} and {r["weight"] for r in rows[:-2]} == {0.0, 0.1, 0.2}


@pytest.mark.parametrize("clean", range(60, 100, 3))
def test_a_loss_of_exactly_the_tolerance_is_allowed(clean):
    vanilla, sr = [(clean, 10), (clean - 1, 10), (clean - 1, 10)], [(clean - right, 30) for right in (3, 3, 2)]
    for swept in ({0: [(clean, 10)], 0.1: [(clean - 2, 30)]}, {0: vanilla, 0.1: sr}):
        assert accuracy.chosen(sweep(swept), 0.02) == 0.1


def test_networks_that_differ_by_more_than_their_training_are_measured_apart():
    made = [evaluation(replace(experiment(), T=T), right=r) for T, r in ((4, 3), (2, 6))]
    rows = accuracy.apart(made, lambda e: {"T": e.T}, accuracy.mean_rows)
    assert [(r["T"], r["value"], r["n"]) for r in rows] == [(4, 0.3, 10), (2, 0.6, 10)]


# ---- clean accuracies --------------------------------------------------------------------------------------------


def test_redraws_show_how_much_is_chance():
    # draws leave 2, 4, 2, 4 of 4 right: mean 0.75, standard deviation 0.5/√3 = 0.28868; images 2 and 3 are undecided;
    # t(0.975, 3) = 3.18245, half 3.18245 · 0.28868/2
    class Drawing(torch.nn.Module):
        def forward(self, x):
            right = torch.arange(len(x)) < 2 + 2 * (torch.initial_seed() % 2)
            return torch.nn.functional.one_hot(torch.where(right, 0, 1), 2).float()

    samples = images(np.zeros((4, 1, 2, 2)), [0] * 4)
    rows = clean.redraw_rows(opened(Drawing(), experiment("sr")), samples, draws=4)
    mean, spread, undecided = rows
    assert [r["quantity"] for r in rows] == ["mean over draws", "spread over draws", "undecided"]
    assert {(r["training"], r["lam"], *r["seeds"]) for r in rows} == {("sr", 0.1, 0)}
    assert mean["value"] == pytest.approx(0.75) and mean["over"] == "draws" and mean["n"] == 4
    assert mean["high"] - mean["value"] == pytest.approx(3.18245 * 0.288675 / 2, abs=1e-5)
    assert spread["value"] == pytest.approx(0.28868, abs=1e-5) and bounds(spread) == (None, None)
    assert (undecided["value"], undecided["n"], undecided["method"]) == (0.5, 4, "Wilson 95 %")
    with pytest.raises(Refused, match="draws"):
        clean.redraw_rows(opened(Drawing(), experiment()), samples, draws=1)


def test_cut_counts_are_counts_of_0_and_1():
    class High(torch.nn.Module):
        """Class 1 where a count is above 1, which is so of no cut frame."""

        def forward(self, x):
            return torch.stack([torch.ones(len(x)), x.flatten(1).amax(1)], 1)

    samples = replace(images([[[[c]]] for c in (0, 1, 3, 3)], [0, 0, 0, 1]), one=1, bounds=(0.0, 9.0))
    (entry,) = clean.cut_rows(opened(High(), SEEDS[0]), samples)
    assert (entry["value"], entry["n"], entry["quantity"]) == (0.75, 4, "mean accuracy, counts cut to [0, 1]")
