"""Which evaluations are doubted, which are not, and why."""

from dataclasses import replace

import numpy as np
import pytest
from measures_by_hand import at, evaluation, experiment, flags

from paperlib.attacks.attack import Attack, standard
from paperlib.attacks.ensembles import Ensemble, Transfer
from paperlib.attacks.evaluation import Judged
from paperlib.measures.accuracy import doubted
from paperlib.measures.doubts import doubts, union

PGD, FGSM, SQUARE, UNIFORM, SIGN = (at(name, 8) for name in ("pgd", "fgsm", "square", "uniform", "sign"))
RATE = {"name": "rate"}
APGD = Attack("apgd", 8 / 255, {"steps": 9})
WEAK, STRONG = flags(80, 100), flags(40, 100)


def transfer(attack):
    return Transfer(attack, experiment(seed=9))


def steps(count, eps_255=8, **options):
    attack = at("pgd", eps_255, steps=count)
    return replace(attack, options=attack.options | options)


FIRES = [  # the doubted attack, the one that breaks more, and a word of the reason
    (PGD, UNIFORM, "noise of the same size"),
    (PGD, SIGN, "noise of the same size"),
    (FGSM, SIGN, "noise of the same size"),
    (PGD, Attack("random_search", 8 / 255, {"draws": 9}), "noise of the same size"),
    (PGD, SQUARE, "sees no gradient"),
    (PGD, transfer(PGD), "sees no gradient"),
    (APGD, SQUARE, "sees no gradient"),
    (PGD, FGSM, "a single step"),
    (at("pgd", 8, rule=RATE), at("fgsm", 8, rule=RATE), "a single step"),
    (PGD, at("pgd", 4), "a smaller radius"),
    (FGSM, at("fgsm", 4), "a smaller radius"),
    (steps(20), steps(10), "fewer steps"),
    (standard("sparse_flips", 8), standard("random_flips", 8), "noise of the same size"),
    (standard("sparse_flips", 8), standard("sparse_flips", 4), "a smaller radius"),
]
SILENT = [
    (PGD, at("uniform", 16)),  # another radius
    (PGD, at("square", 16)),
    (PGD, at("fgsm", 16)),
    (PGD, at("pgd", 16)),
    (PGD, transfer(at("pgd", 16))),
    (FGSM, SQUARE),  # a single step may well be the weaker
    (FGSM, PGD),
    (steps(10), steps(20)),
    (PGD, at("fgsm", 8, rule=RATE)),  # another rule
    (PGD, at("pgd", 4, rule=RATE)),
    (steps(20), steps(10, eot=2)),  # another kind
    (steps(20), steps(10, eps_255=4)),
    (UNIFORM, SIGN),  # noise against noise
    (SQUARE, UNIFORM),
    (SIGN, PGD),
    (PGD, APGD),
    (PGD, None),
    (None, PGD),
    (PGD, Ensemble("worst", [PGD, UNIFORM])),
    (Ensemble("worst", [PGD, FGSM]), UNIFORM),
    (standard("pgd", 8.0), standard("random_flips", 8)),  # 8 counts of every cell, 8 events
    (standard("sparse_flips", 8), standard("uniform", 8.0)),
    (standard("sparse_flips", 8), standard("random_flips", 16)),
]


@pytest.mark.parametrize(("attack", "other", "reason"), FIRES)
def test_an_attack_is_doubted_where_a_weaker_one_breaks_more(attack, other, reason):
    for order in (1, -1):
        reasons = doubts([Judged(attack, WEAK), Judged(other, STRONG)][::order])[::order]
        assert reasons[1] == []
        (why,) = reasons[0]
        assert reason in why and ";" in why  # what is wrong, and what to do
    chance = flags(77, 100)  # three samples in a hundred
    crossed = np.roll(WEAK, 10)  # ten discordant pairs each way
    for mine, theirs in ((STRONG, WEAK), (WEAK, WEAK), (WEAK, chance), (WEAK, crossed)):
        assert doubts([Judged(attack, mine), Judged(other, theirs)]) == [[], []]


@pytest.mark.parametrize(("attack", "other"), SILENT)
def test_where_the_other_proves_nothing_an_attack_is_believed(attack, other):
    assert doubts([Judged(attack, WEAK), Judged(other, STRONG)]) == [[], []]


def test_the_reasons_that_an_evaluation_gives_by_itself():
    for attack in (PGD, Ensemble("worst", [PGD, FGSM])):
        (vanished,), (strayed,), both = doubts(
            [Judged(attack, WEAK, vanished=0.11), Judged(attack, WEAK, strayed=1)]
            + [Judged(attack, WEAK, vanished=0.5, strayed=3)]
        )
        assert "exactly 0" in vanished and "ball" in strayed and both == [vanished, strayed]
        assert doubts([Judged(attack, WEAK, vanished=0.1)]) == [[]]
    assert doubts([Judged(None, WEAK)]) == [[]]


def test_a_network_that_draws_needs_more_than_one_draw_a_gradient():
    one, ten = steps(10), steps(10, eot=10)
    for attack in (one, at("overwritten_eot", 8), Ensemble("two", [ten, one])):
        (why,) = doubts([Judged(attack, WEAK, stochastic=True)])[0]
        assert "each gradient is one draw" in why
    believed = [ten, UNIFORM, SQUARE, None]
    for attack in [*believed, Ensemble("two", believed[:2])]:
        assert doubts([Judged(attack, WEAK, stochastic=True)]) == [[]]
    assert doubts([Judged(one, WEAK)]) == [[]]  # an ordinary network


def test_several_reasons_are_given_once_each():
    first, *others = doubts([Judged(PGD, WEAK, vanished=0.4), *(Judged(a, STRONG) for a in (FGSM, UNIFORM, SIGN))])
    assert len(first) == len(set(first)) == 3 and others == [[], [], []]
    assert union([["b", "a"], [], ["a", "c"]]) == ["b", "a", "c"]


def test_an_evaluation_is_held_against_those_of_the_same_network_alone():
    nets = [experiment(seed=s) for s in (0, 1)]
    made = [evaluation(nets[0], PGD, WEAK), evaluation(nets[1], UNIFORM, STRONG), evaluation(nets[0], UNIFORM, WEAK)]
    assert [why for _, why in doubted(iter(made))] == [[], [], []]
    made += [evaluation(nets[1], PGD, WEAK)]
    assert [(e, bool(why)) for e, why in doubted(iter(made))] == [*((e, False) for e in made[:3]), (made[3], True)]
