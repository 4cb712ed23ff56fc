"""Rows of records from hand-made flags and gradients: pairing, grouping, and numbers worked out by hand."""

import dataclasses
import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from paperlib import attacks, measures, records
from paperlib.attacks import evaluation as evaluation_room
from paperlib.attacks import protocols
from paperlib.attacks.attack import Attack
from paperlib.attacks.ensembles import Ensemble, Transfer
from paperlib.data import sets
from paperlib.errors import Refused
from paperlib.store import checkpoints as experiments
from paperlib.store.evaluations import Evaluation
from paperlib.store.experiment import Experiment
from paperlib.theory import ratio as theory
from paperlib.training.loop import Schedule

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
        entry, *pairs = measures.difference_rows(iter(shuffled), "sr", "vanilla")
        assert entry["value"] == pytest.approx(0.2)
        assert bounds(entry) == pytest.approx((-0.23027, 0.63027), abs=2e-5)
        assert set(entry["seeds"]) == {0, 1, 2}
        assert set(entry["experiments"]) == {e.experiment.key for e in made}
    labels = {"training": "sr", "against": "vanilla", "attack": "PGD-20", "eps_255": 16.0}
    assert labels.items() <= entry.items() and entry["quantity"] == "difference"
    by_seed = {tuple(r["seeds"]): r["value"] for r in pairs}
    assert by_seed == {(0,): pytest.approx(0.4), (1,): pytest.approx(0.1), (2,): pytest.approx(0.1)}


def test_there_is_a_difference_for_every_attack_and_it_hears_no_other_training():
    made = [
        evaluation(experiment(t, s), attack, eps, right=base + i)
        for t, base in (("vanilla", 1), ("sr", 3), ("at", 6))
        for i, (attack, eps) in enumerate(((None, 0), ("fgsm", 16), ("pgd", 16), ("pgd", 32)))
        for s in range(2)
    ]
    found = measures.difference_rows(made, "sr", "vanilla")
    rows = [r for r in found if r["quantity"] == "difference"]
    assert [(r["attack"], r["eps_255"]) for r in rows] == [
        ("clean", 0),
        ("FGSM", 16),
        ("PGD-20", 16),
        ("PGD-20", 32),
    ]
    assert [r["value"] for r in rows] == pytest.approx([0.2] * 4)
    assert [r["quantity"] for r in found[4:]] == ["paired difference"] * 8
    assert [r["value"] for r in found[4:]] == pytest.approx([0.2] * 8)


def test_two_networks_that_meet_on_the_same_samples_by_hand():
    # 20 samples, 8 right for SR alone, 1 for vanilla alone: p = 9/22, q = 2/22, z √((11/22 - (7/22)²)/22) = 0.263867;
    # McNemar: 9 discordant pairs, one against eight: 2·(1 + 9)/2⁹ = 0.0390625
    first, second = np.zeros(20, dtype=bool), np.zeros(20, dtype=bool)
    first[:8], second[8], first[9:14], second[9:14] = True, True, True, True
    one, two = experiment("sr", 3), experiment("vanilla", 3)
    attack = attacks.standard("pgd", 16 / 255)
    mean, pair = measures.difference_rows([Evaluation(two, attack, second), Evaluation(one, attack, first)], *ORDER)
    assert (mean["quantity"], pair["quantity"]) == ("difference", "paired difference")
    assert [mean["value"], pair["value"]] == pytest.approx([7 / 20] * 2)
    assert pair["n"] == 20 and pair["seeds"] == [3] and set(pair["experiments"]) == {one.key, two.key}
    half = 1.959964 * math.sqrt((11 / 22 - (7 / 22) ** 2) / 22)
    assert bounds(pair) == pytest.approx((7 / 22 - half, 7 / 22 + half), abs=1e-6)
    assert pair["method"].endswith(", McNemar p = 0.039") and "Bonett-Price" in pair["method"]
    labels = {"training": "sr", "against": "vanilla", "attack": "PGD-20", "eps_255": 16.0}
    assert labels.items() <= pair.items()
    equal = measures.difference_rows([Evaluation(one, attack, first), Evaluation(two, attack, first)], *ORDER)[1]
    assert equal["value"] == 0 and equal["low"] < 0 < equal["high"] and equal["method"].endswith("p = 1")


ORDER = "sr", "vanilla"


def test_networks_of_different_seeds_or_attacks_do_not_meet():
    made = [evaluation(experiment("sr", 0), "pgd", 8), evaluation(experiment("vanilla", 1), "pgd", 8)]
    made += [evaluation(experiment("sr", 2), "pgd", 8), evaluation(experiment("vanilla", 2), "pgd", 16)]
    made += [evaluation(experiment("sr", 3), "pgd", 8), evaluation(experiment("vanilla", 3), "fgsm", 8)]
    assert measures.difference_rows(made, *ORDER) == []


# ---- what it cost ------------------------------------------------------------------------------------------------


def test_passes_are_the_mean_over_samples_and_then_over_seeds():
    # per sample 3 and 6: standard error 1.5, times t(0.975, 1) = 12.7062, cut at 0
    made = [
        Evaluation(experiment(seed=s), attacks.standard("pgd", 8 / 255), flags(5), np.full(10, 2.0 + s) + flags(5) * 2)
        for s in (0, 3)
    ]
    (entry,) = measures.pass_rows(made)
    assert (entry["quantity"], entry["value"], entry["n"]) == ("mean passes", pytest.approx(4.5), 2)
    assert bounds(entry) == (0, pytest.approx(4.5 + 1.5 * 12.7062, abs=1e-4))
    assert entry["attack"] == "PGD-20" and entry["eps_255"] == 8 and entry["seeds"] == [0, 3]
    (one,) = measures.pass_rows(made[:1])
    assert one["value"] == pytest.approx(3) and 2 < one["low"] < 3 < one["high"] < 4 and one["n"] == 10
    other = Evaluation(experiment("sr"), attacks.standard("pgd", 8 / 255), flags(5), np.full(10, 7.0))
    assert [r["value"] for r in measures.pass_rows([*made, other])] == [pytest.approx(4.5), 7]


# ---- doubts ------------------------------------------------------------------------------------------------------

PGD, FGSM = attacks.standard("pgd", 8 / 255), attacks.standard("fgsm", 8 / 255)
RATE = {"name": "rate"}
WEAK, STRONG = flags(80, 100), flags(40, 100)


def made(attack, left, of=None, **told):
    return Evaluation(of or experiment(), attack, left, **told)


def steps(count, eps_255=8, **options):
    one = attacks.standard("pgd", eps_255 / 255, steps=count)
    return dataclasses.replace(one, options=one.options | options)


FIRES = [  # the doubted attack, the one that breaks more, and a word of the reason
    (PGD, attacks.standard("uniform", 8 / 255), "noise of the same size"),
    (PGD, attacks.standard("sign", 8 / 255), "noise of the same size"),
    (FGSM, attacks.standard("sign", 8 / 255), "noise of the same size"),
    (PGD, Attack("random_search", 8 / 255, {"draws": 9}), "noise of the same size"),
    (PGD, attacks.standard("square", 8 / 255), "sees no gradient"),
    (PGD, Transfer(PGD, experiment(seed=9)), "sees no gradient"),
    (Attack("apgd", 8 / 255, {"steps": 9}), attacks.standard("square", 8 / 255), "sees no gradient"),
    (PGD, FGSM, "a single step"),
    (attacks.standard("pgd", 8 / 255, rule=RATE), attacks.standard("fgsm", 8 / 255, rule=RATE), "a single step"),
    (PGD, attacks.standard("pgd", 4 / 255), "a smaller radius"),
    (FGSM, attacks.standard("fgsm", 4 / 255), "a smaller radius"),
    (steps(20), steps(10), "fewer steps"),
    (attacks.standard("sparse_flips", 8), attacks.standard("random_flips", 8), "noise of the same size"),
    (attacks.standard("sparse_flips", 8), attacks.standard("sparse_flips", 4), "a smaller radius"),
]
SILENT = [
    (PGD, attacks.standard("uniform", 16 / 255)),  # another radius
    (PGD, attacks.standard("square", 16 / 255)),
    (PGD, attacks.standard("fgsm", 16 / 255)),
    (PGD, attacks.standard("pgd", 16 / 255)),
    (PGD, Transfer(attacks.standard("pgd", 16 / 255), experiment(seed=9))),
    (FGSM, attacks.standard("square", 8 / 255)),  # a single step may well be the weaker
    (FGSM, PGD),
    (steps(10), steps(20)),
    (PGD, attacks.standard("fgsm", 8 / 255, rule=RATE)),  # another rule
    (PGD, attacks.standard("pgd", 4 / 255, rule=RATE)),
    (steps(20), steps(10, eot=2)),  # another kind
    (steps(20), steps(10, eps_255=4)),
    (attacks.standard("uniform", 8 / 255), attacks.standard("sign", 8 / 255)),  # noise against noise
    (attacks.standard("square", 8 / 255), attacks.standard("uniform", 8 / 255)),
    (attacks.standard("sign", 8 / 255), PGD),
    (PGD, Attack("apgd", 8 / 255, {"steps": 9})),
    (PGD, None),
    (None, PGD),
    (PGD, Ensemble("worst", [PGD, attacks.standard("uniform", 8 / 255)])),
    (Ensemble("worst", [PGD, FGSM]), attacks.standard("uniform", 8 / 255)),
    (attacks.standard("pgd", 8.0), attacks.standard("random_flips", 8)),  # 8 counts of every cell, 8 events
    (attacks.standard("sparse_flips", 8), attacks.standard("uniform", 8.0)),
    (attacks.standard("sparse_flips", 8), attacks.standard("random_flips", 16)),
]


@pytest.mark.parametrize(("attack", "other", "reason"), FIRES)
def test_an_attack_is_doubted_where_a_weaker_one_breaks_more(attack, other, reason):
    for order in (1, -1):
        found = measures.doubts([made(attack, WEAK), made(other, STRONG)][::order])[::order]
        assert found[1] == []
        (said,) = found[0]
        assert reason in said and ";" in said  # what is wrong, and what to do
    assert measures.doubts([made(attack, STRONG), made(other, WEAK)]) == [[], []]
    assert measures.doubts([made(attack, WEAK), made(other, WEAK)]) == [[], []]
    few = flags(77, 100)  # three samples in a hundred: chance
    assert measures.doubts([made(attack, WEAK), made(other, few)]) == [[], []]
    crossed = np.roll(WEAK, 10)  # ten discordant pairs each way
    assert measures.doubts([made(attack, WEAK), made(other, crossed)]) == [[], []]
    elsewhere = made(other, STRONG, experiment(seed=1))
    assert measures.doubts([made(attack, WEAK), elsewhere]) == [[], []]


@pytest.mark.parametrize(("attack", "other"), SILENT)
def test_where_the_other_proves_nothing_it_is_believed(attack, other):
    assert measures.doubts([made(attack, WEAK), made(other, STRONG)]) == [[], []]


def test_what_an_evaluation_says_against_itself():
    ensemble = Ensemble("worst", [PGD, FGSM])
    for attack in (PGD, ensemble):
        (vanished,) = measures.doubts([made(attack, WEAK, vanished=0.11)])[0]
        assert "exactly 0" in vanished
        assert measures.doubts([made(attack, WEAK, vanished=0.1)]) == [[]]
        (strayed,) = measures.doubts([made(attack, WEAK, strayed=1)])[0]
        assert "ball" in strayed
        assert len(measures.doubts([made(attack, WEAK, vanished=0.5, strayed=3)])[0]) == 2
    assert measures.doubts([made(None, WEAK)]) == [[]]


def test_a_network_that_draws_needs_more_than_one_draw_a_gradient():
    drawing = dataclasses.replace(experiment(), network="poisson-conv-2-4")
    one, ten = steps(10), steps(10, eot=10)
    assert "each gradient is one draw" in measures.doubts([made(one, WEAK, drawing)])[0][0]
    overwritten = attacks.standard("overwritten_eot", 8 / 255)
    assert "each gradient is one draw" in measures.doubts([made(overwritten, WEAK, drawing)])[0][0]
    assert "each gradient is one draw" in measures.doubts([made(Ensemble("two", [ten, one]), WEAK, drawing)])[0][0]
    believed = [ten, attacks.standard("uniform", 8 / 255), attacks.standard("square", 8 / 255), None]
    for attack in [*believed, Ensemble("two", believed[:2])]:
        assert measures.doubts([made(attack, WEAK, drawing)]) == [[]]
    assert measures.doubts([made(one, WEAK)]) == [[]]  # an ordinary network


def test_several_reasons_are_told_once_each():
    nets = [made(PGD, WEAK, vanished=0.4), made(FGSM, STRONG), made(attacks.standard("uniform", 8 / 255), STRONG)]
    nets += [made(attacks.standard("sign", 8 / 255), STRONG)]
    found = measures.doubts(nets)
    assert len(found[0]) == len(set(found[0])) == 3 and found[1:] == [[], [], []]


def doubted():
    """Two seeds: of the first PGD's gradients vanish, of the second noise breaks more; SR is beyond doubt."""
    nets = [experiment(seed=s) for s in (0, 1)]
    found = [made(PGD, WEAK, nets[0], vanished=0.5), made(PGD, WEAK, nets[1])]
    found += [made(attacks.standard("uniform", 8 / 255), STRONG if s else WEAK, of) for s, of in enumerate(nets)]
    return found + [made(PGD, STRONG, experiment("sr", s)) for s in (0, 1)]


def test_rows_carry_their_doubts_and_others_have_no_such_key():
    rows = measures.accuracy_rows(iter(doubted()))
    said = [r.get("doubts") for r in rows]
    assert said[2:] == [None] * 4 and all("doubts" not in r for r in rows[2:])
    ((vanished,), (noise,)) = said[:2]
    assert "exactly 0" in vanished and "noise" in noise
    pgd, uniform, sr = measures.mean_rows(iter(doubted()))
    assert pgd["doubts"] == [vanished, noise]  # the union over seeds
    assert "doubts" not in uniform and "doubts" not in sr
    mean, *pairs = measures.difference_rows(iter(doubted()), *ORDER)
    assert mean["doubts"] == [vanished, noise]
    assert [r["doubts"] for r in pairs] == [[vanished], [noise]]


def test_the_same_doubt_of_two_seeds_is_told_once():
    both = [made(PGD, WEAK, experiment(seed=s), vanished=0.5) for s in (0, 1)]
    (entry,) = measures.mean_rows(both)
    assert len(entry["doubts"]) == 1


def test_doubted_rows_fit_into_a_record(tmp_path):
    rows = [row for make in (measures.accuracy_rows, measures.mean_rows) for row in make(doubted())]
    rows += measures.difference_rows(doubted(), *ORDER)
    data = {"name": "tiny", "title": "stripes", "sha256": "0"}
    built = records.build("tab-ablation", profile="smoke", parameters={}, data=data, recipe=1, device="cpu", rows=rows)
    records.save(built, tmp_path / "t.json")
    assert records.load(tmp_path / "t.json") == built


# ---- one network, two attacks ------------------------------------------------------------------------------------


def test_a_contrast_is_one_network_under_two_attacks():
    # by seed 0.2 - 0.5 and 0.4 - 0.5: mean -0.2, standard error 0.1, times t(0.975, 1) = 12.7062, cut to [-1, 1]
    fgsm, pgd = attacks.standard("fgsm", 0.1), attacks.standard("pgd", 0.1)
    made = [Evaluation(experiment(seed=s), pgd, flags(2 + 2 * s)) for s in (0, 1)]
    made += [Evaluation(experiment(seed=s), fgsm, flags(5)) for s in (1, 0)]
    made += [Evaluation(experiment("sr", lam=0.1), attack, flags(r)) for attack, r in ((pgd, 9), (fgsm, 3))]
    mean, alone, *single = measures.contrast_rows(iter(made), [(pgd, fgsm)])
    assert (mean["attack"], mean["reference"], mean["training"]) == ("PGD-20", "FGSM", "vanilla")
    assert mean["value"] == pytest.approx(-0.2) and bounds(mean) == (-1, 1)
    assert [(r["training"], *r["seeds"], r["value"]) for r in single] == [
        ("vanilla", 0, pytest.approx(-0.3)),
        ("vanilla", 1, pytest.approx(-0.1)),
        ("sr", 0, pytest.approx(0.6)),
    ]
    # Bonett-Price, 3 discordant pairs of 10: p = 1/12, q = 4/12, z √((5/12 - (3/12)²)/12) = 0.33673
    assert bounds(single[0]) == pytest.approx((-0.25 - 0.33673, -0.25 + 0.33673), abs=2e-5)
    assert "McNemar p = 0.25" in single[0]["method"]
    assert alone["quantity"] == mean["quantity"] == "mean contrast"
    assert alone["value"] == pytest.approx(0.6) and bounds(alone) == bounds(single[2])  # one seed has its samples'


def test_rows_are_labelled_with_the_rules_of_their_attacks():
    swept = protocols.rules_at(16, [0.5], steps=3)
    rows = measures.mean_rows([Evaluation(experiment(), attack, flags(5)) for attack in swept])
    found = {r["attack"]: (r.get("rule"), r.get("gamma"), r.get("steps")) for r in measures.rule_rows(rows, swept)}
    assert found["clean"] == found["all widths together"] == (None, None, None)
    assert found["PGD-3"] == ("own", None, 3) and found["PGD-9"] == ("own", None, 9)  # 3 families of 3 steps
    assert found["PGD-3 rectangle 0.5"] == ("rectangle", 0.5, 3) and found["PGD-3 assg"] == ("assg", None, 3)


def test_what_is_compared_in_expectation():
    told = [(a.title, b.title) for a, b in protocols.expectation_pairs(16, [2, 5], steps=3)]
    loops = ["PGD-3 EOT 2 overwritten", "PGD-3 EOT 5 overwritten"]
    assert told == [(loops[0], "PGD-3"), (loops[1], "PGD-3"), ("PGD-3 EOT 2", loops[0]), ("PGD-3 EOT 5", loops[1])]


def test_redraws_tell_how_much_is_chance(monkeypatch):
    # draws leave 2, 4, 2, 4 of 4 right: mean 0.75, standard deviation 0.5/√3 = 0.28868; images 2 and 3 are undecided
    data = SimpleNamespace(bounds=BOUNDS, num_classes=2, test=SimpleNamespace(take=lambda count: count))
    monkeypatch.setattr(Experiment, "load_data", lambda self: data)
    monkeypatch.setattr(experiments, "trained", lambda of, device: None)
    monkeypatch.setattr(
        evaluation_room, "flags", lambda network, images, seed, **how: torch.arange(images) < 2 + 2 * (seed % 2)
    )
    mean, spread, undecided = measures.redraw_rows([experiment()], samples=4, draws=4, device="cpu")
    assert mean["value"] == pytest.approx(0.75) and spread["value"] == pytest.approx(0.28868, abs=1e-5)
    assert (undecided["value"], undecided["n"], mean["n"]) == (0.5, 4, 4)
    with pytest.raises(Refused, match="draws"):
        measures.redraw_rows([experiment()], samples=4, draws=1)


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
    return sets.Split(pixels.reshape(n, 1, 1, -1), torch.zeros(n, dtype=torch.int64), torch.arange(n) + 50)


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
    monkeypatch.setattr("paperlib.measures.predictors.BATCH", 7)
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
    vanilla, sr = [(clean, 10), (clean - 1, 10), (clean - 1, 10)], [(clean - right, 30) for right in (3, 3, 2)]
    chosen, _ = measures.choice_rows(sweep({0: vanilla, 0.1: sr}), 0.02, used=0.1)
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
