"""What a training step costs: counts worked out by hand, clocks that are set by hand, and budgets held apart."""

import gc
import itertools
import math
from dataclasses import replace

import measures_by_hand as by_hand
import pytest
import torch
import torch.nn.functional as F
from measures_by_hand import OPTIONS, at, built, only, select
from torch.utils.flop_counter import FlopCounterMode

from paperlib import records
from paperlib.errors import Refused
from paperlib.measures import cost
from paperlib.store.experiment import Imported
from paperlib.training import defenses
from paperlib.training.loop import Schedule

DATA = {"name": "mnist5k", "train": 50, "validation": 2, "test": 4}
S, R = 9 * 3 * 28 * 28, 3 * 14 * 14 * 10  # multiply-adds an image of conv-3's one convolution and of its readout


def experiment(defense="vanilla", *, seed=0, epochs=1, **options):
    schedule = Schedule(epochs, 10, 0.1, 0.9, 5e-4)
    return replace(by_hand.experiment(defense, seed, **options), data=DATA, network="conv-3", T=2, schedule=schedule)


def stepped(*names, batch=10, repeats=1):
    """Rows by training, quantity and what."""
    rows = cost.step_rows([experiment(name) for name in names], batch=batch, repeats=repeats, device="cpu")
    by_what = {(r["training"], r["quantity"], r["what"]): r for r in rows}
    assert len(by_what) == len(rows)
    return by_what


def values(rows, training, quantity):
    return {what: r["value"] for (name, kind, what), r in rows.items() if (name, kind) == (training, quantity)}


# ---- counting ----------------------------------------------------------------------------------------------------


def test_a_product_counted_by_hand():
    # x W, (5, 4)(4, 3): 60 multiply-adds forward and 60 back to W; for it x is kept, 80 bytes;
    # the product with itself keeps y once, 60 bytes; the weights are there anyway, though the way back to x needs them
    x, W = torch.ones(5, 4, requires_grad=True), torch.ones(4, 3, requires_grad=True)

    def loss():
        y = x @ W
        return (y * y).sum()

    assert cost.counted(loss, [W]) == (120, 80 + 60)
    assert cost.counted(loss, [W], after=lambda: W @ W.T) == (120 + 48, 80 + 60)  # of what comes after no memory


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
    # RAT is AT, and after its step W·Wᵀ and that times W for the convolution, 3 × 9, and for the readout, 10 × 588
    rows = stepped("vanilla", "sr", "at", "rat")
    vanilla, after = 10 * (2 * S + 3 * R), 2 * (3 * 3 * 9) + 2 * (10 * 10 * 588)
    adversarial = vanilla + 10 * (2 * S + 2 * R)
    wanted = {"vanilla": vanilla, "sr": 10 * (5 * S + 7 * R), "at": adversarial, "rat": adversarial + after}
    for training, expected in wanted.items():
        assert values(rows, training, "cost of a step")["multiply-adds"] == expected
        assert values(rows, training, "relative cost")["multiply-adds"] == pytest.approx(expected / vanilla)


def test_passes_are_those_of_the_training_and_an_epoch_has_whole_batches():
    rows = stepped("vanilla", "sr", "exact-l1", batch=20)  # 50 images: 2 batches of 20
    for training, forward, backward in (("vanilla", 1, 1), ("sr", 2, 3), ("exact-l1", 1, 3)):
        step, epoch = (values(rows, training, f"cost of {unit}") for unit in ("a step", "an epoch"))
        assert (step["forward passes"], step["backward passes"]) == (forward, backward)
        assert epoch == {what: pytest.approx(2 * value) for what, value in step.items() if what != "bytes kept"}
        assert values(rows, training, "relative cost")["passes"] == (forward + backward) / 2


def test_memory_of_one_pass_of_two_and_of_double_back_propagation():
    rows = stepped("vanilla", *OPTIONS)
    kept = {name: values(rows, name, "relative cost")["bytes kept"] for name in OPTIONS}
    # the graph of AT's examples is gone before the loss has its own
    assert kept["at"] == kept["rat"] == pytest.approx(1, abs=0.01)
    assert kept["sr"] == pytest.approx(2, abs=0.1)
    assert min(kept["exact-l1"], kept["l2"]) > 3


def test_only_seconds_differ_between_two_runs():
    first, second = (stepped("vanilla", "exact-l1", batch=5, repeats=2) for _ in range(2))
    for key, entry in first.items():
        timed = key[2] == "seconds"
        assert entry.get(records.TIMED, False) == timed and (timed or entry == second[key])
        method, n, over = ("median of steps", 2, "steps") if timed else ("counted", 5, None)
        assert entry["method"].startswith(method) and (entry["n"], entry["over"]) == (n, over)
        assert (entry["low"] is not None and entry["low"] <= entry["value"] <= entry["high"]) == timed


def test_trainings_take_turns_after_one_to_warm_up_and_ratios_are_of_one_turn(monkeypatch):
    # by turn: vanilla 9 1 2 3 s, SR 9 4 2 12 s; ratios 4, 1, 4
    clock = itertools.chain([9, 9], [1, 4], [2, 2], [3, 12])
    order = []

    def seconds(timed):
        order.append(type(timed.step.defense).__name__)
        return next(clock)

    monkeypatch.setattr(cost._Timed, "seconds", seconds)
    rows = stepped("vanilla", "sr", batch=20, repeats=3)
    assert order == ["Vanilla", "SR"] * 4
    for training, quantity, expected in (
        ("vanilla", "cost of a step", (2, 1, 3)),
        ("sr", "cost of a step", (4, 2, 12)),
        ("sr", "cost of an epoch", (8, 4, 24)),
        ("sr", "relative cost", (4, 1, 4)),
        ("vanilla", "relative cost", (1, 1, 1)),
    ):
        entry = rows[training, quantity, "seconds"]
        assert (entry["value"], entry["low"], entry["high"], entry["n"]) == (*expected, 3)
    assert set(values(rows, "vanilla", "relative cost").values()) == {1}


def test_a_timed_step_is_the_whole_step(monkeypatch):
    # as `loop.epochs` takes it: loss, gradient, optimiser, and what comes after
    timed = cost._Timed(experiment("rat"), 10, "cpu")
    step, after = timed.step, []
    monkeypatch.setattr(type(step.defense), "after_step", lambda self, network: after.append(network))
    before = [weight.detach().clone() for weight in step.parameters]
    assert step.network.training and timed.seconds() > 0
    assert after == [step.network]
    lr, decay = 0.1, 5e-4
    for old, weight in zip(before, step.parameters, strict=True):
        assert torch.allclose(weight, old - lr * (weight.grad + decay * old), atol=1e-6)


def test_measuring_draws_nothing_from_the_global_generator():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    stepped("vanilla", "at")
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(
    ("names", "changes", "reason"),
    [
        (["sr", "at"], {}, "vanilla"),
        (["vanilla"], {"repeats": 0}, "repeats"),
        (["vanilla"], {"batch": 1}, "batch is 1"),
        (["vanilla"], {"batch": 51}, "51"),
    ],
)
def test_steps_that_cannot_be_measured_are_refused(names, changes, reason):
    with pytest.raises(Refused, match=reason):
        stepped(*names, **changes)


def test_a_training_of_the_readers_own_stands_beside_the_others(monkeypatch):
    monkeypatch.setattr(defenses, "DEFENSES", dict(defenses.DEFENSES))

    @defenses.register("noise")
    def noise(network, batch, *, sigma):
        return F.cross_entropy(network(batch.images + sigma * torch.randn_like(batch.images)), batch.labels)

    rows = cost.step_rows([experiment(), experiment("noise", sigma=0.1)], batch=10, repeats=1, device="cpu")
    own = {r["what"]: r["value"] for r in select(rows, training="noise", quantity="relative cost")}
    assert own["passes"] == own["multiply-adds"] == 1 and own["seconds"] > 0


# ---- budgets -----------------------------------------------------------------------------------------------------


def evaluation(defense, right, *, seed=0, epochs=1):
    return by_hand.evaluation(experiment(defense, seed=seed, epochs=epochs), at("pgd", 25.5), right)


def test_budgets_by_hand():
    # one network in both lists, and vanilla once for 1 epoch, once for 2
    same = evaluation("sr", 6)
    budgets = {
        "equal epochs": [evaluation("vanilla", 2), same],
        "equal passes": [evaluation("vanilla", 4, epochs=2), same],
    }
    rows = cost.budget_rows(budgets)
    assert {r["budget"] for r in rows} == set(budgets)
    for quantity, labels, expected in (
        ("mean accuracy", {"training": "sr"}, [0.6, 0.6]),
        ("mean accuracy", {"training": "vanilla"}, [0.2, 0.4]),
        ("accuracy", {"training": "sr"}, [0.6, 0.6]),
        ("accuracy", {"training": "vanilla"}, [0.2, 0.4]),
        ("difference", {"training": "sr", "against": "vanilla"}, [0.4, 0.2]),
        ("paired difference", {"training": "sr", "against": "vanilla"}, [0.4, 0.2]),
        ("epochs", {"training": "vanilla"}, [1, 2]),
        ("epochs", {"training": "sr"}, [1, 1]),
        ("passes per image", {"training": "vanilla"}, [2, 4]),  # one forward and one backward an epoch
        ("passes per image", {"training": "sr"}, [5, 5]),
    ):
        assert [r["value"] for r in select(rows, quantity=quantity, **labels)] == pytest.approx(expected)
    built(rows)


def test_several_seeds_of_a_training_cost_the_same_and_are_one_row():
    made = [evaluation("vanilla", 3 + seed, seed=seed, epochs=4) for seed in (0, 1)]
    passes = only(cost.budget_rows({"equal epochs": made}), quantity="passes per image")
    assert (passes["value"], passes["seeds"], passes["low"]) == (8, [0, 1], None)


def test_of_imported_networks_no_cost_is_known():
    of = Imported("a" * 64, "vgg11", "cifar10", "sr", DATA)
    rows = cost.budget_rows({"equal epochs": [by_hand.evaluation(of, None, 3)]})
    assert {r["quantity"] for r in rows} == {"mean accuracy", "accuracy"}
    assert not any(math.isnan(r["value"]) for r in rows)
