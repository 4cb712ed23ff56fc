"""Defenses: how often and in which mode each calls the network, and that its loss is the one it is named for."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch.nn.functional import cross_entropy

from paperlib import attacks, defenses, regularizers
from paperlib.defenses import Batch
from paperlib.errors import Refused

PGD = {"eps": 0.1, "alpha": 0.04, "steps": 3}
LAM = 0.05


@pytest.fixture
def batch(tiny):
    images, labels, index = next(tiny.train.batches(20))
    return Batch(images.double(), labels, index, tiny.bounds, seed=11)


@pytest.fixture
def network(network):
    return network.double().train()


@pytest.fixture
def calls(network):
    """(training mode, images) of every forward pass of `network`."""
    seen = []
    network.register_forward_pre_hook(lambda module, inputs: seen.append((module.training, inputs[0].detach().clone())))
    return seen


def adversarial(network, batch):
    """The examples, made in eval mode on a copy."""
    network = copy.deepcopy(network).eval()
    start = {"seed": batch.seed, "index": batch.index}
    return attacks.pgd(network, batch.images, batch.labels, bounds=batch.bounds, **PGD, **start)


def test_vanilla_is_cross_entropy_in_one_pass(network, batch, calls):
    loss = defenses.build("vanilla", {}).loss(network, batch)
    assert [training for training, _ in calls] == [True]
    assert torch.equal(calls[0][1], batch.images)
    assert loss.item() == cross_entropy(network(batch.images), batch.labels).item()


@pytest.mark.parametrize("preset", ["released", "paper"])
def test_sr_is_cross_entropy_and_penalty_in_two_passes(network, batch, calls, preset):
    oracle = copy.deepcopy(network)
    loss = defenses.build("sr", {"lam": LAM, "preset": preset, "h": 0.02}).loss(network, batch)
    assert [training for training, _ in calls] == [True, True]
    logits, penalty = regularizers.sr(oracle, batch.images, batch.labels, preset=preset, h=0.02)
    expected = cross_entropy(logits, batch.labels) + LAM * penalty
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert penalty > 0.01
    loss.backward()
    expected.backward()
    for ours, theirs in zip(network.parameters(), oracle.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_sr_is_by_default_the_released_form(network, batch):
    default, released, paper = (
        defenses.build("sr", {"lam": LAM} | options).loss(network, batch).item()
        for options in ({}, {"preset": "released", "h": 0.01}, {"preset": "paper"})
    )
    assert default == released != paper


def test_at_trains_on_examples_made_in_eval_mode(network, batch, calls):
    expected = adversarial(network, batch)
    calls.clear()
    before = {name: value.clone() for name, value in network.named_buffers()}
    loss = defenses.build("at", PGD).loss(network, batch)
    assert [training for training, _ in calls] == [False] * PGD["steps"] + [True]
    assert torch.equal(calls[-1][1], expected)
    assert not torch.equal(expected, batch.images)
    assert network.training
    assert loss.item() == cross_entropy(network(expected), batch.labels).item()
    assert any(not torch.equal(value, before[name]) for name, value in network.named_buffers())  # the last pass alone
    loss.backward()
    assert all(weight.grad is not None for weight in network.parameters())


def test_at_leaves_no_gradients_from_its_examples(network, batch):
    expected = adversarial(network, batch)
    oracle = copy.deepcopy(network)
    cross_entropy(oracle(expected), batch.labels).backward()
    defenses.build("at", PGD).loss(network, batch).backward()
    for ours, theirs in zip(network.parameters(), oracle.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


def test_the_random_start_changes_with_the_seed_and_belongs_to_the_index(network, batch):
    def loss(shift, seed):
        moved = Batch(batch.images, batch.labels, batch.index + shift, batch.bounds, seed)
        return defenses.build("at", PGD).loss(copy.deepcopy(network), moved).item()

    assert loss(0, 11) == loss(0, 11)
    assert len({loss(0, 11), loss(0, 12), loss(1, 11)}) == 3


def test_at_with_sr_takes_both_terms_at_the_adversarial_batch(network, batch, calls):
    expected = adversarial(network, batch)
    calls.clear()
    loss = defenses.build("at+sr", PGD | {"lam": LAM}).loss(network, batch)
    assert [training for training, _ in calls] == [False] * PGD["steps"] + [True, True]
    assert torch.equal(calls[-2][1], expected)
    probe = calls[-1][1]  # x₂ = x_adv + h·d: it may lie ε + h from x, and outside the bounds
    assert (probe - expected).abs().max().item() == pytest.approx(0.01)
    assert (probe - batch.images).abs().max() > PGD["eps"] + 0.005
    assert probe.min() < 0
    logits, penalty = regularizers.sr(network, expected, batch.labels)
    assert loss.item() == pytest.approx((cross_entropy(logits, batch.labels) + LAM * penalty).item(), rel=1e-12)


def test_at_with_sr_hands_its_options_on():
    built = defenses.build("at+sr", PGD | {"lam": LAM, "h": 0.02, "preset": "paper"})
    assert built == defenses.AT(**PGD, then=defenses.SR(LAM, 0.02, "paper"))


def test_lambda_zero_is_the_same_loss_at_a_second_pass(network, batch, calls):
    with_pass = defenses.build("sr", {"lam": 0}).loss(network, batch)
    assert len(calls) == 2
    assert with_pass.item() == defenses.build("vanilla", {}).loss(network, batch).item()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sar", {}, "There is no defense 'sar'. Allowed: vanilla, sr, loss-l1, "),
        ("vanilla", {"lam": 1}, "'vanilla' cannot take {'lam': 1}: .*unexpected.*'lam'"),
        ("sr", {}, "'sr' cannot take {}: .*missing.*'lam'.* It takes .*preset"),
        ("sr", {"lam": 1, "lambda_": 2}, "'lambda_'"),
        ("at", {"eps": 0.1, "alpha": 0.1}, "missing.*'steps'"),
        ("at+sr", {"eps": 0.1, "alpha": 0.1, "steps": 1}, "missing.*'lam'"),
        ("sr", {"lam": -1}, "lam is -1; it must be a finite number of at least 0."),
        ("sr", {"lam": float("nan")}, "lam is nan"),
        ("sr", {"lam": 1, "h": 0}, "h is 0; it must be a finite number above 0."),
        ("sr", {"lam": 1, "preset": "l0"}, "There is no SR preset 'l0'. Allowed: released, paper."),
        ("at", PGD | {"eps": 0}, "eps is 0"),
        ("at", PGD | {"alpha": "1"}, "alpha is '1'"),
        ("at+sr", PGD | {"lam": 1, "steps": 0}, "steps is 0"),
        ("at+sr", PGD | {"lam": -1}, "lam is -1"),
        ("at", PGD | {"steps": 1.5}, "steps is 1.5; it must be a whole number of at least 1."),
    ],
)
def test_unknown_names_and_options_are_refused_in_one_sentence(name, options, message):
    with pytest.raises(Refused, match=message) as refusal:
        defenses.build(name, options)
    assert "\n" not in str(refusal.value)


def test_register_adds_a_defense(network, batch, monkeypatch):
    monkeypatch.setattr(defenses, "DEFENSES", dict(defenses.DEFENSES))

    @defenses.register("margin")
    @dataclass(frozen=True)
    class Margin:
        weight: float = 1.0

        def loss(self, network, batch):
            return self.weight * network(batch.images).sum()

    assert defenses.build("margin", {"weight": 2.0}) == Margin(2.0)
    assert defenses.build("margin", {}).loss(network, batch).shape == ()
    with pytest.raises(Refused, match="'margin' cannot take .* It takes .*weight: float = 1.0"):
        defenses.build("margin", {"height": 1})
    with pytest.raises(Refused, match="trades\\+sr, margin"):
        defenses.build("margins", {})


# ---- a defense of the reader's own -------------------------------------------------------------------------------


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(defenses, "DEFENSES", dict(defenses.DEFENSES))


def test_a_registered_loss_is_a_defense_and_takes_its_options(network, batch, registry):
    @defenses.register("brighter")
    def brighter(network, batch, *, by, twice=False):
        """Cross-entropy on brighter images."""
        return cross_entropy(network(batch.images + by), batch.labels) * (1 + twice)

    expected = cross_entropy(network(batch.images + 0.1), batch.labels).item()
    assert defenses.build("brighter", {"by": 0.1}).loss(network, batch).item() == expected
    assert defenses.build("brighter", {"by": 0.1, "twice": True}).loss(network, batch).item() == 2 * expected
    for options in ({}, {"by": 0.1, "bye": 1}):
        with pytest.raises(Refused, match=r"It takes \(\*, by, twice=False\)\."):
            defenses.build("brighter", options)
    assert brighter(network, batch, by=0.1).item() == expected  # it stays what it was
