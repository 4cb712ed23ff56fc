"""What a training step costs: counts worked out by hand, clocks that are set by hand, and budgets held apart."""

import gc
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from paperlib import attacks, measures, records
from paperlib.errors import Refused
from paperlib.measures import cost
from paperlib.store.evaluations import Evaluation
from paperlib.store.experiment import Experiment, Imported
from paperlib.training import defenses
from paperlib.training.loop import Schedule

PGD = {"eps": 0.1, "alpha": 0.1, "steps": 1}
OPTIONS = {"sr": {"lam": 0.1}, "at": PGD, "rat": PGD, "exact-l1": {"lam": 0.1}, "l2": {"lam": 0.1}}
DATA = {"name": "mnist5k", "train": 50, "validation": 2, "test": 4}
S, R = 9 * 3 * 28 * 28, 3 * 14 * 14 * 10  # multiply-adds an image of conv-3's one convolution and of its readout


def experiment(defense="vanilla", *, seed=0, epochs=1, **options):
    schedule = Schedule(epochs, 10, 0.1, 0.9, 5e-4)
    options = OPTIONS.get(defense, {}) | options
    return Experiment(DATA, "conv-3", 2, 1.0, "triangle", "float32", defense, options, schedule, seed)


def stepped(*names, batch=10, repeats=1):
    rows = measures.step_rows([experiment(name) for name in names], batch=batch, repeats=repeats, device="cpu")
    found = {(r["training"], r["quantity"], r["what"]): r for r in rows}
    assert len(found) == len(rows)
    return found


def values(found, training, quantity):
    return {what: r["value"] for (name, kind, what), r in found.items() if (name, kind) == (training, quantity)}


# ---- counting ----------------------------------------------------------------------------------------------------


def test_graphs_that_follow_one_another_are_not_held_at_once():
    # each product keeps its factors, 400 and 800 bytes; the first graph is gone before the second is made
    small, large = torch.ones(100, requires_grad=True), torch.ones(200, requires_grad=True)

    def loss(together):
        first = (small * small).sum()
        if not together:
            torch.autograd.grad(first, small)
        return (large * large).sum() + (first if together else 0)

    assert cost.counted(lambda: loss(False), [large]).kept == 400  # a weight is there anyway
    other = torch.ones(1, requires_grad=True)
    assert cost.counted(lambda: loss(False) * other, [other]).kept == 800 + 4  # and the loss, which `other` multiplies
    assert cost.counted(lambda: loss(True) * other, [other]).kept == 400 + 800 + 4


def test_arithmetic_is_what_torchs_own_counter_says_where_that_can_follow():
    network, x = experiment().build().train(), torch.rand(5, 1, 28, 28)
    weights = list(network.parameters())

    def loss():
        return F.cross_entropy(network(x), torch.arange(5))

    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(loss(), weights)
    assert cost.counted(loss, weights).multiply_adds == counter.get_total_flops() / 2


def test_counting_leaves_the_collector_as_it_was():
    w = torch.ones(1, requires_grad=True)
    for on in (True, False):
        (gc.enable if on else gc.disable)()
        try:
            with pytest.raises(ZeroDivisionError):
                cost.counted(lambda: 1 / 0, [w])
            assert gc.isenabled() == on
        finally:
            gc.enable()


# ---- a step ------------------------------------------------------------------------------------------------------


def test_the_arithmetic_of_a_step_by_hand():
    # Vanilla: forward; back to both weights, and through the readout to what lies before it.  SR: forward; back to the
    # image; forward; from both passes back to the weights.  AT of one step: forward and back to the image before that.
    found = stepped("vanilla", "sr", "at")
    vanilla, sr = 2 * S + 3 * R, 5 * S + 7 * R
    for training, expected in (("vanilla", vanilla), ("sr", sr), ("at", vanilla + 2 * S + 2 * R)):
        assert values(found, training, "cost of a step")["multiply-adds"] == 10 * expected
        assert values(found, training, "relative cost")["multiply-adds"] == pytest.approx(expected / vanilla)


def test_what_moves_weights_after_a_step_counts_too():
    # RAT is AT, and W·Wᵀ and that times W for the convolution, 3 × 9, and for the readout, 10 × 588
    found = stepped("vanilla", "at", "rat")
    at, rat = (values(found, name, "cost of a step")["multiply-adds"] for name in ("at", "rat"))
    assert rat - at == 2 * (3 * 3 * 9) + 2 * (10 * 10 * 588)


def test_passes_are_those_of_the_training_and_an_epoch_has_whole_batches():
    found = stepped("vanilla", "sr", "exact-l1", batch=20)  # 50 images: 2 batches of 20
    for training, forward, backward in (("vanilla", 1, 1), ("sr", 2, 3), ("exact-l1", 1, 3)):
        step, epoch = (values(found, training, f"cost of {of}") for of in ("a step", "an epoch"))
        assert (step["forward passes"], step["backward passes"]) == (forward, backward)
        assert (epoch["forward passes"], epoch["backward passes"]) == (2 * forward, 2 * backward)
        assert epoch["multiply-adds"] == 2 * step["multiply-adds"]
        assert epoch["seconds"] == pytest.approx(2 * step["seconds"])
        assert "bytes kept" not in epoch
        assert values(found, training, "relative cost")["passes"] == (forward + backward) / 2


def test_memory_of_one_pass_of_two_and_of_double_back_propagation():
    kept = {name: values(stepped("vanilla", name), name, "relative cost")["bytes kept"] for name in OPTIONS}
    assert (
        kept["at"] == kept["rat"] == pytest.approx(1, abs=0.01)
    )  # its examples' graph is gone before the loss has its own
    assert kept["sr"] == pytest.approx(2, abs=0.1)
    assert min(kept["exact-l1"], kept["l2"]) > 3


def test_vanilla_relative_to_itself_is_one_in_everything():
    found = stepped("sr", "vanilla", repeats=3)
    assert set(values(found, "vanilla", "relative cost").values()) == {1.0}
    entry = found["vanilla", "relative cost", "seconds"]
    assert (entry["low"], entry["high"]) == (1, 1)


def test_only_seconds_are_of_this_machine():
    first, second = (stepped("vanilla", "exact-l1", batch=5, repeats=2) for _ in range(2))
    for key, entry in first.items():
        timed = key[2] == "seconds"
        assert entry.get(records.TIMED, False) == timed
        assert timed or entry == second[key]
        assert entry["method"].startswith("median of steps" if timed else "counted") and entry["n"] == (
            2 if timed else 5
        )
        assert (entry["low"] is not None and entry["low"] <= entry["value"] <= entry["high"]) == timed


def test_trainings_take_turns_after_one_to_warm_up_and_ratios_are_of_one_turn(monkeypatch):
    # by turn: vanilla 9 1 2 3 s, SR 9 4 2 12 s; ratios 4, 1, 4
    clock = itertools.chain([9, 9], [1, 4], [2, 2], [3, 12])
    order = []
    monkeypatch.setattr(cost._Step, "seconds", lambda step: order.append(type(step.defense).__name__) or next(clock))
    found = stepped("vanilla", "sr", batch=20, repeats=3)
    assert order == ["Vanilla", "SR"] * 4
    for key, expected in (
        (("vanilla", "cost of a step"), (2, 1, 3)),
        (("sr", "cost of a step"), (4, 2, 12)),
        (("sr", "cost of an epoch"), (8, 4, 24)),
        (("sr", "relative cost"), (4, 1, 4)),
    ):
        entry = found[*key, "seconds"]
        assert (entry["value"], entry["low"], entry["high"], entry["n"]) == (*expected, 3)


def test_a_timed_step_is_the_whole_step(monkeypatch):
    # as `training.epochs` takes it: loss, gradient, optimiser, and what comes after
    step = cost._Step(experiment("rat"), 10, "cpu")
    after = []
    monkeypatch.setattr(type(step.defense), "after_step", lambda self, network: after.append(network))
    before = [weight.detach().clone() for weight in step.weights]
    assert step.network.training and step.seconds() > 0
    assert after == [step.network]
    lr, decay = 0.1, 5e-4
    for old, weight in zip(before, step.weights, strict=True):
        assert torch.allclose(weight, old - lr * (weight.grad + decay * old), atol=1e-6)


def test_measuring_draws_nothing_from_the_global_chance():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    stepped("vanilla", "at")
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(
    ("names", "changes", "said"),
    [
        (["sr", "at"], {}, "vanilla"),
        (["vanilla"], {"repeats": 0}, "repeats"),
        (["vanilla"], {"batch": 1}, "batch is 1"),
        (["vanilla"], {"batch": 51}, "51"),
    ],
)
def test_steps_that_cannot_be_measured_are_refused(names, changes, said):
    with pytest.raises(Refused, match=said):
        stepped(*names, **changes)


def test_a_training_of_the_readers_own_stands_beside_the_others(monkeypatch):
    monkeypatch.setattr(defenses, "DEFENSES", dict(defenses.DEFENSES))

    @defenses.register("noise")
    def noise(network, batch, *, sigma):
        return F.cross_entropy(network(batch.images + sigma * torch.randn_like(batch.images)), batch.labels)

    found = measures.step_rows([experiment(), experiment("noise", sigma=0.1)], batch=10, repeats=1, device="cpu")
    own = {r["what"]: r["value"] for r in found if (r["training"], r["quantity"]) == ("noise", "relative cost")}
    assert own["passes"] == own["multiply-adds"] == 1 and own["seconds"] > 0


# ---- budgets -----------------------------------------------------------------------------------------------------


def evaluation(defense, right, *, seed=0, epochs=1, attack=None):
    return Evaluation(experiment(defense, seed=seed, epochs=epochs), attack, np.arange(10) < right)


def test_budgets_by_hand():
    # one network in both lists, and vanilla once for 1 epoch, once for 2
    attack = attacks.standard("pgd", 0.1)
    same = evaluation("sr", 6, attack=attack)
    budgets = {
        "equal epochs": [evaluation("vanilla", 2, attack=attack), same],
        "equal passes": [evaluation("vanilla", 4, epochs=2, attack=attack), same],
    }
    rows = measures.budget_rows(budgets)
    assert {r["budget"] for r in rows} == set(budgets)

    def told(quantity, **labels):
        return [r["value"] for r in rows if r["quantity"] == quantity and labels.items() <= r.items()]

    for quantity in ("mean accuracy", "accuracy"):
        assert told(quantity, training="sr") == [0.6, 0.6]
        assert told(quantity, training="vanilla") == [0.2, 0.4]
    assert told("difference", training="sr", against="vanilla") == pytest.approx([0.4, 0.2])
    assert told("paired difference", training="sr", against="vanilla") == pytest.approx([0.4, 0.2])
    assert told("epochs", training="vanilla") == [1, 2] and told("epochs", training="sr") == [1, 1]
    assert told("passes per image", training="vanilla") == [2, 4]  # one forward and one backward an epoch
    assert told("passes per image", training="sr") == [5, 5]
    records.check({"artifact": "x", "schema": 1, "provenance": dict.fromkeys(records.PROVENANCE), "rows": rows})


def test_several_seeds_of_a_training_cost_the_same_and_are_one_row():
    made = [evaluation("vanilla", 3 + seed, seed=seed, epochs=4) for seed in (0, 1)]
    rows = measures.budget_rows({"equal epochs": made})
    (passes,) = [r for r in rows if r["quantity"] == "passes per image"]
    assert (passes["value"], passes["seeds"], passes["low"]) == (8, [0, 1], None)


def test_of_imported_networks_no_cost_is_known():
    of = Imported("a" * 64, "vgg11", "cifar10", "sr", DATA)
    rows = measures.budget_rows({"equal epochs": [replace(evaluation("vanilla", 3), experiment=of)]})
    assert {r["quantity"] for r in rows} == {"mean accuracy", "accuracy"}
    assert not any(math.isnan(r["value"]) for r in rows)
