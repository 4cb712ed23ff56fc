"""Attacks on whole events, against brute force and sorting on linear networks."""

from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlib import attacks
from paperlib.attacks.attack import standard
from paperlib.attacks.core import Queried
from paperlib.attacks.flips import random_flips, sparse_flips

BOUNDS = (0.0, 3.0)


class Linear:
    """Two classes; z₁ - z₀ = w·x + b: everything about it can be worked out by sorting."""

    def __init__(self, weights: torch.Tensor, bias: float = 0.0):
        self.weights, self.bias = weights, bias

    def __call__(self, x):
        z = (x * self.weights).flatten(1).sum(1) + self.bias
        return torch.stack([torch.zeros_like(z), z], 1)


def counts(*shape, seed=0) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(seed).randint(0, 4, shape)).double()


def weights(*shape, seed=1) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape))


def changes(found: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return (found != x).flatten(1).sum(1)


def feasible(found: torch.Tensor, x: torch.Tensor, budget: int) -> bool:
    whole = torch.equal(found, found.round()) and (found - x).abs().max() <= 1
    return bool(whole and found.min() >= BOUNDS[0] and found.max() <= BOUNDS[1] and changes(found, x).max() <= budget)


def gains(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """What class 1 loses by the better change of each cell, the largest first, (B, cells)."""
    return (torch.where(w > 0, x - 1 >= 0, x + 1 <= 3) * w.abs()).flatten(1).sort(1, descending=True).values


@pytest.mark.parametrize("budget", [1, 2, 3])
def test_on_a_linear_network_no_other_changes_gain_more(budget):
    x, w = counts(1, 2, 2, 1, 2), weights(2, 2, 1, 2)
    network = Linear(w, bias=100.0)  # never broken, so the whole budget is spent
    found = sparse_flips(network, x, torch.tensor([1]), eps=budget, steps=1, bounds=BOUNDS)
    flat, best = x.flatten(), np.inf
    for cells in combinations(range(8), budget):
        for signs in product((-1, 0, 1), repeat=budget):
            tried = flat.clone()
            tried[list(cells)] += torch.tensor(signs, dtype=flat.dtype)
            if BOUNDS[0] <= tried.min() and tried.max() <= BOUNDS[1]:
                best = min(best, float(tried @ w.flatten()))
    assert float(found.flatten() @ w.flatten()) == pytest.approx(best)
    assert feasible(found, x, budget)


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_steps_share_the_budget_and_on_a_linear_network_end_alike(steps):
    x, w = counts(5, 3, 2, 4, 4), weights(3, 2, 4, 4)
    network, labels = Linear(w, bias=100.0), torch.ones(5, dtype=int)
    found = sparse_flips(network, x, labels, eps=10, steps=steps, bounds=BOUNDS)
    torch.testing.assert_close(((x - found) * w).flatten(1).sum(1), gains(x, w)[:, :10].sum(1))
    assert (changes(found, x) == 10).all()


def test_what_was_not_needed_is_taken_back():
    x, w = torch.ones(1, 1, 2, 4, 4).double(), torch.full((1, 2, 4, 4), 0.01).double()
    w[0, 0, 0, 0] = 5.0
    network = Linear(w, bias=-4.0)  # z = 1.31: one event less of the heavy cell is enough
    found = sparse_flips(network, x, torch.tensor([1]), eps=16, steps=1, bounds=BOUNDS)
    assert network(found).argmax(1).tolist() == [0]
    assert changes(found, x).tolist() == [1] and found[0, 0, 0, 0, 0] == 0


def test_a_sample_leaves_when_it_is_broken_and_a_wrong_one_is_not_touched():
    x, w = counts(6, 2, 2, 3, 3), weights(2, 2, 3, 3)
    lead = (x * w).flatten(1).sum(1)
    network, labels = Linear(w, bias=float(-lead.median()) + 1e-3), torch.ones(6, dtype=int)
    wrong = network(x).argmax(1) != labels
    assert 0 < wrong.sum() < 6
    found = sparse_flips(network, x, labels, eps=12, steps=12, bounds=BOUNDS)
    assert torch.equal(found[wrong], x[wrong])
    spent = changes(found, x)[~wrong]
    assert (network(found).argmax(1) == 0)[~wrong].all() and spent.min() < 12
    for lead, gain, many in zip(network(x)[~wrong, 1], gains(x, w)[~wrong], spent.tolist(), strict=True):
        assert lead - gain[: many - 1].sum() >= 0 > lead - gain[:many].sum()  # by the fewest there can be


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 30), st.integers(1, 5), st.sampled_from(["sparse_flips", "random_flips"]))
def test_flips_are_feasible_events_within_the_budget(seed, budget, steps, name):
    x, w = counts(3, 2, 2, 3, 3, seed=seed), weights(2, 2, 3, 3, seed=seed)
    network = Linear(w, bias=-float((x * w).flatten(1).sum(1).mean()))
    perturb = standard(name, budget, steps=steps).bind(seed=seed)
    found = perturb(network, x, network(x).argmax(1), bounds=BOUNDS)
    assert feasible(found, x, budget)
    assert name == "sparse_flips" or (changes(found, x) == min(budget, 36)).all()


def test_random_flips_take_every_feasible_change_alike():
    x = torch.tensor([0.0, 0.0, 1.0, 3.0]).view(1, 1, 1, 1, 4)  # +; +; + and -; -
    found = torch.cat([random_flips(None, x, None, eps=1, bounds=BOUNDS, seed=seed) for seed in range(4000)])
    cells, share = (found - x).view(-1, 4), 1 / 5
    seen = [(cells[:, 0] == 1), (cells[:, 1] == 1), (cells[:, 2] == 1), (cells[:, 2] == -1), (cells[:, 3] == -1)]
    assert sum(each.sum().item() for each in seen) == 4000
    for each in seen:
        assert abs(each.double().mean().item() - share) < 4 * (share * (1 - share) / 4000) ** 0.5


def test_fractional_counts_change_by_one_event_too():
    x = torch.tensor([0.4, 2.7]).view(1, 1, 1, 1, 2)
    network = Linear(torch.tensor([1.0, -1.0]).view(1, 1, 1, 2), bias=100.0)
    found = sparse_flips(network, x, torch.tensor([1]), eps=2, steps=1, bounds=BOUNDS)
    assert torch.equal(found, x)  # neither can lose what class 1 likes nor gain what it dislikes within 0 and 3
    wide = sparse_flips(network, x, torch.tensor([1]), eps=2, steps=1, bounds=(-1.0, 4.0))
    torch.testing.assert_close(wide - x, torch.tensor([-1.0, 1.0]).view_as(x))


@pytest.mark.parametrize("budget", [1, 7, 8])
def test_a_sample_costs_at_most_what_the_attack_says(budget):
    """One that breaks in the last step alone, all its changes needed: nothing can be had for more."""
    x, w = torch.ones(1, 1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    network, labels = Linear(w, bias=-16.0 + budget - 0.5), torch.tensor([1])
    attack, queried = standard("sparse_flips", budget, steps=4), Queried(network, x, labels, None)
    found = attack.bind()(queried, x, labels, bounds=BOUNDS)
    assert network(found).argmax(1) == 0 and changes(found, x) == budget
    assert attack.gradients == 4 >= queried.backward.item()
    assert queried.forward.item() - queried.backward.item() <= attack.queries < budget + 4


@pytest.mark.parametrize("name", [name for name in attacks.ATTACKS if name != "overwritten_eot"])
def test_every_attack_takes_frames_and_keeps_to_counts(name):
    x, w = counts(6, 3, 2, 8, 8).float(), weights(3, 2, 8, 8).float()
    network = Linear(w, bias=-float((x * w).flatten(1).sum(1).median()))
    for eps in (0, 1):
        attack = standard(name, eps, steps=3, queries=8)
        found = attack.bind(seed=0, index=torch.arange(6))(network, x, network(x).argmax(1), bounds=BOUNDS)
        assert found.shape == x.shape and found.min() >= 0 and found.max() <= 3
        assert (found - x).abs().max() <= eps + 1e-6
        assert torch.equal(found, x) == (eps == 0)
