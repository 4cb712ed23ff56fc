"""Attacks that move events in time, against brute force on linear networks."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_attacks_flips import BOUNDS, Linear, counts, weights

from paperlib.attacks.attack import standard
from paperlib.attacks.evaluation import _strayed
from paperlib.attacks.retiming import random_retiming, retiming


def moved(found: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return (found - x).abs().flatten(1).sum(1) / 2


def feasible(found: torch.Tensor, x: torch.Tensor, budget: int) -> bool:
    """Whole counts within bounds, every pixel and polarity with its events, at most `budget` of them moved."""
    kept = torch.equal(found.sum(1), x.sum(1)) and torch.equal(found, found.round())
    return bool(kept and found.min() >= BOUNDS[0] and found.max() <= BOUNDS[1] and (moved(found, x) <= budget).all())


def single_moves(x: torch.Tensor):
    """Every recording (1, T, ...) that one feasible move makes of `x`."""
    flat = x.flatten(2)
    for pixel, source, target in product(range(flat.shape[2]), range(x.shape[1]), range(x.shape[1])):
        if source != target and flat[0, source, pixel] - 1 >= BOUNDS[0] and flat[0, target, pixel] + 1 <= BOUNDS[1]:
            changed = flat.clone()
            changed[0, source, pixel] -= 1
            changed[0, target, pixel] += 1
            yield changed.view_as(x)


@pytest.mark.parametrize("seed", range(5))
def test_one_move_is_the_best_of_all_and_two_are_the_best_of_two_pixels(seed):
    x, w = counts(1, 3, 2, 1, 2, seed=seed), weights(3, 2, 1, 2, seed=seed + 1)
    network, label = Linear(w, bias=100.0), torch.tensor([1])  # never broken, so the whole budget is spent
    one = retiming(network, x, label, eps=1, steps=1, bounds=BOUNDS)
    assert float((one * w).sum()) == pytest.approx(min(float((y * w).sum()) for y in single_moves(x)))
    two = retiming(network, x, label, eps=2, steps=2, bounds=BOUNDS)
    pairs = (z for y in single_moves(x) for z in single_moves(y))
    assert float((two * w).sum()) == pytest.approx(min(float((z * w).sum()) for z in pairs))
    assert feasible(one, x, 1) and feasible(two, x, 2)


def test_a_broken_recording_is_left_as_it_is_and_a_move_that_gains_nothing_is_not_made():
    x = torch.zeros(2, 2, 2, 1, 1).double()
    x[:, 0] = 2
    w = torch.zeros(2, 2, 1, 1).double()
    w[0, 0] = 1.0  # earlier events of one polarity speak for class 1
    found = retiming(Linear(w, bias=-1.5), x, torch.tensor([1, 0]), eps=8, steps=8, bounds=BOUNDS)
    assert moved(found, x).tolist() == [1, 0]  # 2 - 1.5 > 0 > 1 - 1.5; the second is wrong from the beginning
    flat = retiming(Linear(0 * w, bias=1.0), x, torch.tensor([1, 1]), eps=8, steps=8, bounds=BOUNDS)
    assert torch.equal(flat, x)


@given(st.integers(0, 12), st.integers(1, 4), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_both_keep_the_events_of_each_pixel_and_the_budget(budget, steps, seed):
    x, w = counts(3, 3, 2, 2, 2, seed=seed), weights(3, 2, 2, 2, seed=seed)
    for found in (
        retiming(Linear(w, bias=50.0), x, torch.ones(3, dtype=int), eps=budget, steps=steps, bounds=BOUNDS),
        random_retiming(None, x, torch.ones(3, dtype=int), eps=budget, bounds=BOUNDS, seed=seed),
    ):
        assert feasible(found, x, budget)


def test_random_moves_depend_on_seed_and_number_alone_and_reach_every_step():
    x = torch.zeros(200, 3, 2, 2, 2)
    x[:, 1] = 1
    label, index = torch.zeros(200, dtype=int), torch.arange(200)
    found = random_retiming(None, x, label, eps=1, bounds=BOUNDS, seed=3, index=index)
    assert (moved(found, x) == 1).all()
    again = random_retiming(None, x[50:60], label[50:60], eps=1, bounds=BOUNDS, seed=3, index=index[50:60])
    assert torch.equal(again, found[50:60])
    assert not torch.equal(found, random_retiming(None, x, label, eps=1, bounds=BOUNDS, seed=4, index=index))
    gained = (found - x).clamp_min(0).sum((0, 2, 3, 4))
    assert gained[1] == 0 and (gained[[0, 2]] > 70).all()  # 100 each, standard deviation 7


def test_what_leaves_its_budget_or_adds_an_event_has_strayed():
    x, attack = torch.ones(4, 2, 2, 1, 1), standard("retiming", 1)
    found = x.clone()
    found[1, 0, 0] -= 1  # one event moved
    found[1, 1, 0] += 1
    found[2, 0, 0] += 1  # one added
    found[3, 0] -= 1  # two moved
    found[3, 1] += 1
    assert _strayed(found, x, attack, BOUNDS).tolist() == [False, False, True, True]
