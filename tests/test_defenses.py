"""Defenses: how often and in which mode each calls the network, and that its loss is the one it is named for."""

import copy
from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from test_regularizers import slow_loss_difference, slow_sr
from torch import nn
from torch.nn.functional import cross_entropy

from paperlib import attacks, networks, records, words
from paperlib.errors import Refused
from paperlib.networks import rules
from paperlib.networks.neurons import LIF, NormedLIF
from paperlib.training import defenses, regularizers
from paperlib.training.defenses import Batch

PGD = {"eps": 0.1, "alpha": 0.04, "steps": 3}
LAM = 0.05
SIGMOID = {"name": "sigmoid", "slope": 4.0}


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


def adversarial(network, batch, **more):
    """The examples, made in eval mode on a copy."""
    network = copy.deepcopy(network).eval()
    start = {"seed": batch.seed, "index": batch.index}
    return attacks.pgd(network, batch.images, batch.labels, bounds=batch.bounds, **PGD | more, **start)


def agree(network, loss, oracle, expected):
    """The loss, the gradients of the weights, and BatchNorm's statistics are those of the transcription."""
    assert loss.item() == pytest.approx(expected.item(), rel=1e-10)
    loss.backward()
    expected.backward()
    for (name, ours), theirs in zip(network.named_parameters(), oracle.parameters(), strict=True):
        torch.testing.assert_close(
            ours.grad, theirs.grad, rtol=1e-8, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}"
        )
        assert theirs.grad.any(), name
    for ours, theirs in zip(network.buffers(), oracle.buffers(), strict=True):
        assert torch.equal(ours, theirs)


def one_pass(network, x):
    """BatchNorm's statistics after one pass in training mode."""
    network = copy.deepcopy(network).train()
    with torch.no_grad():
        network(x)
    return list(network.buffers())


def unchanged(buffers, others):
    return all(torch.equal(a, b) for a, b in zip(buffers, others, strict=True))


def test_vanilla_is_cross_entropy_in_one_pass(network, batch, calls):
    loss = defenses.build("vanilla", {}).loss(network, batch)
    assert [training for training, _ in calls] == [True]
    assert torch.equal(calls[0][1], batch.images)
    assert loss.item() == cross_entropy(network(batch.images), batch.labels).item()


@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize(
    ("options", "form"),
    [
        ({}, ("margin", "square", "+")),  # the released form
        ({"preset": "paper"}, ("softmax", "absolute", "+")),
        ({"preset": "paper", "axes": {"direction": "-"}}, ("softmax", "absolute", "-")),
        ({"preset": "released", "axes": {"direction": "central"}}, ("margin", "square", "central")),
    ],
)
def test_sr_is_cross_entropy_and_the_penalty_of_its_form_within_the_batchs_bounds(network, batch, options, form, clamp):
    batch = replace(batch, images=batch.images.clamp(0.2, 0.3), bounds=(0.2, 0.3))
    oracle, modes = copy.deepcopy(network), []
    network.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    loss = defenses.build("sr", {"lam": LAM, "clamp": clamp} | options).loss(network, batch)
    assert modes == [True] * (3 if form[2] == "central" else 2)
    logits, penalty = slow_sr(oracle, batch.images, batch.labels, form, clamp=batch.bounds if clamp else None)
    assert penalty > 0.01
    agree(network, loss, oracle, cross_entropy(logits, batch.labels) + LAM * penalty)


def test_with_lambda_zero_sr_is_vanilla_at_a_second_pass_h_away(network, batch, calls):
    with_pass = defenses.build("sr", {"lam": 0, "h": 0.02}).loss(network, batch)
    assert [(x - batch.images).abs().max().item() for _, x in calls] == pytest.approx([0, 0.02])
    assert with_pass.item() == defenses.build("vanilla", {}).loss(network, batch).item()


@pytest.mark.parametrize(("update", "first_alone"), [("clean", True), ("both", False)])
@pytest.mark.parametrize("name", ["sr", "loss-l1"])
def test_with_clean_updates_the_probe_leaves_the_statistics_alone(network, batch, name, update, first_alone):
    expected = one_pass(network, batch.images)
    defenses.build(name, {"lam": LAM, "update": update}).loss(network, batch)
    assert unchanged(network.buffers(), expected) == first_alone


def test_the_loss_difference_is_cross_entropy_and_penalty_in_two_passes(network, batch, calls):
    oracle = copy.deepcopy(network)
    oracle._forward_pre_hooks.clear()
    loss = defenses.build("loss-l1", {"lam": LAM, "h": 0.01}).loss(network, batch)
    assert [training for training, _ in calls] == [True, True]
    logits, penalty = slow_loss_difference(oracle, batch.images, batch.labels, "l1")
    assert penalty > 0.01
    agree(network, loss, oracle, cross_entropy(logits, batch.labels) + LAM * penalty)


def slow_exact(network, images, labels, norm):
    """Logits and the mean norm of ∇ₓ Σ f_y, which BatchNorm couples: sample by sample but for the passes."""
    leaf = images.clone().requires_grad_()
    z = network(leaf)
    total = sum(torch.exp(row[y]) / torch.exp(row).sum() for row, y in zip(z, labels.tolist(), strict=True))
    (gradient,) = torch.autograd.grad(total, leaf, create_graph=True)
    sizes = [g.abs().sum() if norm == "l1" else (g * g).sum().sqrt() for g in gradient]
    return z, sum(sizes) / len(sizes)


@pytest.mark.parametrize("kind", ["spiking", "smooth"])
@pytest.mark.parametrize(("name", "norm"), [("exact-l1", "l1"), ("l2", "l2")])
def test_the_exact_penalties_step_the_neurons_and_end_on_the_fast_path(network, batch, name, norm, kind):
    network, paths = smooth() if kind == "smooth" else network, []
    oracle = copy.deepcopy(network)
    if kind == "spiking":
        network.register_forward_pre_hook(lambda module, _: paths.append({neuron.path for neuron in module.neurons()}))
    loss = defenses.build(name, {"lam": LAM}).loss(network, batch)
    if kind == "spiking":
        assert paths == [{"reference"}]
        assert {neuron.path for neuron in network.neurons()} == {"fast"} and network.training
    with oracle.reference_path() if kind == "spiking" else nullcontext():
        logits, penalty = slow_exact(oracle, batch.images, batch.labels, norm)
    assert penalty > 0.01
    agree(network, loss, oracle, cross_entropy(logits, batch.labels) + LAM * penalty)


def smooth():
    """A network of three classes without neurons, in float64 and training mode."""
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3)
    return nn.Sequential(*layers).double().train()


# ---- on adversarial examples -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["at", "rat"])
def test_at_and_rat_train_on_examples_made_in_eval_mode_and_keep_none_of_their_gradients(network, batch, calls, name):
    expected = adversarial(network, batch)
    calls.clear()
    oracle = copy.deepcopy(network)
    oracle._forward_pre_hooks.clear()
    loss = defenses.build(name, PGD).loss(network, batch)
    assert [training for training, _ in calls] == [False] * PGD["steps"] + [True]
    assert torch.equal(calls[-1][1], expected) and not torch.equal(expected, batch.images)
    assert network.training
    agree(network, loss, oracle, cross_entropy(oracle(expected), batch.labels))


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
    assert defenses.build("trades", PGD) == defenses.build("trades", PGD | {"beta": 6.0})
    built = defenses.build("at+sr", PGD | {"lam": LAM, "h": 0.02, "preset": "paper"})
    assert built == defenses.AT(**PGD, then=defenses.SR(LAM, 0.02, "paper"))


def test_at_without_a_random_start_and_with_one_full_step_is_fgsm(network, batch, calls):
    oracle = copy.deepcopy(network).eval()
    expected = attacks.fgsm(oracle, batch.images, batch.labels, eps=0.1, bounds=batch.bounds)
    calls.clear()
    fgsm = {"eps": 0.1, "alpha": 0.1, "steps": 1, "random_start": False}
    defenses.build("at", fgsm).loss(network, batch)
    assert torch.equal(calls[0][1], batch.images)
    assert torch.equal(calls[-1][1], expected) and not torch.equal(expected, batch.images)


@pytest.mark.parametrize("name", ["at", "at+sr", "rat", "trades", "trades+sr"])
def test_examples_by_another_backward_rule_and_the_loss_by_the_networks_own(network, batch, name):
    seen = []

    def see(module, inputs):
        seen.append((module.training, {neuron.rule.name for neuron in module.neurons()}))

    network.register_forward_pre_hook(see)
    options = PGD | {"rule": SIGMOID} | ({"lam": LAM} if name.endswith("sr") else {})
    defenses.build(name, options).loss(network, batch)
    made = [rule for training, rule in seen if not training][-PGD["steps"] :]  # TRADES looks at the images first
    assert made == [{"sigmoid"}] * PGD["steps"]
    losses = [rule for training, rule in seen if training]
    assert losses and all(rule == {"triangle"} for rule in losses)
    assert {neuron.rule.name for neuron in network.neurons()} == {"triangle"}


def test_at_by_another_backward_rule_is_that_rules_attack(network, batch, calls):
    oracle = copy.deepcopy(network)
    oracle._forward_pre_hooks.clear()
    with oracle.backward_rule("sigmoid", slope=4.0):
        expected = adversarial(oracle, batch)
        by_rule = cross_entropy(copy.deepcopy(oracle)(expected), batch.labels)
    calls.clear()
    loss = defenses.build("at", PGD | {"rule": SIGMOID}).loss(network, batch)
    assert torch.equal(calls[-1][1], expected)
    assert not torch.equal(expected, adversarial(oracle, batch))
    agree(network, loss, oracle, cross_entropy(oracle(expected), batch.labels))  # by the oracle's own rule
    assert by_rule.item() == loss.item()  # forward there is no difference


# ---- TRADES ------------------------------------------------------------------------------------------------------


def divergences(p, q):
    """Σ_k p_k·log(p_k / q_k) of each row, from logits."""
    p, q = torch.exp(p) / torch.exp(p).sum(1, keepdim=True), torch.exp(q) / torch.exp(q).sum(1, keepdim=True)
    return (p * torch.log(p / q)).sum(1)


def slow_trades_examples(network, batch, eps, alpha, steps):
    """PGD on the divergence from what the network in eval mode says of the images; also where it starts."""
    network = copy.deepcopy(network).eval()
    target = network(batch.images).detach()
    start = attacks.uniform(None, batch.images, None, eps=eps, bounds=batch.bounds, seed=batch.seed, index=batch.index)
    x = start
    for _ in range(steps):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(divergences(target, network(x)).sum(), x)
        x = x.detach() + alpha * gradient.sign()
        x = batch.images + (x - batch.images).clamp(-eps, eps)
        x = x.clamp(*batch.bounds)
    return start, x.detach()


@pytest.mark.parametrize("update", ["both", "clean"])
@pytest.mark.parametrize("beta", [0, 6.0, 0.5])
@pytest.mark.parametrize("kind", ["smooth", "spiking"])
def test_trades_is_cross_entropy_and_the_divergence_where_it_is_largest(network, batch, kind, beta, update):
    network, seen = smooth() if kind == "smooth" else network, []
    oracle = copy.deepcopy(network)
    _, x = slow_trades_examples(oracle, batch, **PGD)
    clean = oracle(batch.images)
    before = [value.clone() for value in oracle.buffers()]
    moved = oracle(x)
    if update == "clean":
        for value, kept in zip(oracle.buffers(), before, strict=True):
            value.data = kept
    expected = cross_entropy(clean, batch.labels) + beta * divergences(clean, moved).mean()

    network.register_forward_pre_hook(lambda module, given: seen.append((module.training, given[0].detach().clone())))
    loss = defenses.build("trades", PGD | {"beta": beta, "update": update}).loss(network, batch)
    assert [training for training, _ in seen] == [False] * (1 + PGD["steps"]) + [True, True]
    assert torch.equal(seen[0][1], batch.images) and torch.equal(seen[-2][1], batch.images)
    torch.testing.assert_close(seen[-1][1], x, rtol=0, atol=1e-12)
    assert network.training
    assert divergences(clean, moved).mean() > 1e-3
    agree(network, loss, oracle, expected)


@pytest.mark.parametrize("update", ["both", "clean"])
def test_trades_with_sr_takes_the_penalty_at_the_clean_images(network, batch, calls, update):
    oracle = copy.deepcopy(network)
    oracle._forward_pre_hooks.clear()
    after_one = one_pass(oracle, batch.images)
    _, x = slow_trades_examples(oracle, batch, **PGD)
    options = PGD | {"beta": 2.0, "lam": LAM, "preset": "paper", "update": update}
    loss = defenses.build("trades+sr", options).loss(network, batch)
    assert [training for training, _ in calls] == [False] * (1 + PGD["steps"]) + [True, True, True]
    assert torch.equal(calls[-3][1], batch.images)
    assert (calls[-2][1] - batch.images).abs().max().item() == pytest.approx(0.01)  # SR's probe
    torch.testing.assert_close(calls[-1][1], x, rtol=0, atol=1e-12)
    logits, penalty = slow_sr(oracle, batch.images, batch.labels, ("softmax", "absolute", "+"))
    divergence = divergences(logits, oracle(x)).mean()
    if update == "clean":
        for value, kept in zip(oracle.buffers(), after_one, strict=True):
            value.data = kept
    agree(network, loss, oracle, cross_entropy(logits, batch.labels) + LAM * penalty + 2 * divergence)


# ---- RAT after a step --------------------------------------------------------------------------------------------


def drawn(weight, beta):
    """(1+β)·W - β·W·Wᵀ·W of rows of numbers, by loops."""
    rows = range(len(weight))
    products = [[sum(a * b for a, b in zip(weight[i], weight[j], strict=True)) for j in rows] for i in rows]
    return [
        [(1 + beta) * w - beta * sum(products[i][j] * weight[j][k] for j in rows) for k, w in enumerate(weight[i])]
        for i in rows
    ]


class Parts(nn.Module):
    """A convolution that lies channels-last in memory, a linear layer, a norm, and a wide block."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.linear, self.norm = nn.Conv2d(2, 3, 3), nn.Linear(6, 4), nn.BatchNorm2d(3)
        self.block = networks.WideBlock(2, 3, 1, lambda width: NormedLIF(width, LIF(rules.triangle()), steps=1))
        self.double().to(memory_format=torch.channels_last)


def rat(beta):
    return defenses.build("rat", PGD | {"beta": beta})


@pytest.mark.parametrize("beta", [0.3, 0])
def test_rat_draws_every_weight_matrix_by_the_formula_and_in_place(beta):
    parts = Parts()
    weights = {
        name: module.weight for name, module in parts.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))
    }
    assert len(weights) == 5 and not weights["conv"].is_contiguous()
    expected = {name: drawn([row.flatten().tolist() for row in weight], beta) for name, weight in weights.items()}
    where = {name: (weight.data_ptr(), weight.stride()) for name, weight in weights.items()}
    others = {
        name: value.clone()
        for name, value in parts.state_dict().items()
        if not any(name == f"{of}.weight" for of in weights)
    }
    assert defenses.after_step(rat(beta), parts) is None
    for name, weight in weights.items():
        found = weight.detach().flatten(1)
        torch.testing.assert_close(found, torch.tensor(expected[name], dtype=torch.double))
        assert (weight.data_ptr(), weight.stride()) == where[name]
        assert weight.requires_grad and weight.is_leaf and weight.grad is None
    for name, value in others.items():  # biases, norms and mixing scalars, which lie on the simplex already
        assert torch.equal(parts.state_dict()[name], value)


def moved_rows(layer, seed):
    """Which rows one step of chance `seed` moves, of a copy; and the copy."""
    layer = copy.deepcopy(layer)
    before = layer.weight.clone()
    torch.manual_seed(seed)
    defenses.after_step(rat(0.2), layer)
    return (layer.weight != before).flatten(1).any(1).nonzero().flatten().tolist(), layer


@pytest.mark.parametrize(("rows", "moved"), [(199, 199), (200, 60), (205, 62), (333, 100)])  # 61.5 to even; 99.9
def test_of_many_rows_rat_moves_a_random_share(rows, moved):
    torch.manual_seed(0)
    layer = nn.Linear(7, rows).double()
    found, after = moved_rows(layer, 1)
    assert len(found) == moved
    expected = drawn(layer.weight[found].tolist(), 0.2)  # products among the rows that were drawn
    torch.testing.assert_close(after.weight[found].detach(), torch.tensor(expected, dtype=torch.double))
    assert moved_rows(layer, 1)[0] == found
    assert (moved_rows(layer, 2)[0] == found) == (rows == 199)
    assert moved_rows(nn.Conv2d(2, rows, 1).double(), 1)[0] == [*range(rows)]  # of a convolution all


@pytest.mark.parametrize("mix", [(0.5, 0.5), (0.9, 0.3), (1.7, 0.1), (-0.4, 0.2), (0.2, 2.5), (-1.0, -1.2), (0.3, 0.7)])
def test_rat_brings_a_mix_to_the_nearest_point_of_the_simplex(mix):
    parts = Parts()
    with torch.no_grad():
        parts.block.mix.copy_(torch.tensor(mix))
    defenses.after_step(rat(0.1), parts)
    grid = [i / 20_000 for i in range(20_001)]
    nearest = min(grid, key=lambda t: (mix[0] - t) ** 2 + (mix[1] - (1 - t)) ** 2)
    first, second = parts.block.mix.tolist()
    assert first == pytest.approx(nearest, abs=1e-4) and first + second == pytest.approx(1, abs=1e-12)
    assert min(first, second) >= 0


def test_what_has_no_after_step_does_nothing_after_one(network):
    before = copy.deepcopy(network.state_dict())
    for name, options in (("vanilla", {}), ("sr", {"lam": LAM}), ("at", PGD), ("trades", PGD)):
        defenses.after_step(defenses.build(name, options), network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


# ---- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sar", {}, "There is no defense 'sar'. Allowed: vanilla, sr, at, .*, exact-l1."),
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
        ("sr", {"lam": 1, "axes": {"direction": "up"}}, "There is no direction of SR 'up'. Allowed: .*, central."),
        ("sr", {"lam": 1, "axes": {"probe": "-"}}, "'probe'.* It takes .*direction"),
        ("sr", {"lam": 1, "axes": "central"}, "An SR variant cannot take central: "),
        ("sr", {"lam": 1, "direction": "-"}, "'direction'.* It takes .*axes"),
        ("sr", {"lam": 1, "clamp": [0, 1]}, "There is no clamp \\[0, 1\\]. Allowed: False, True."),
        ("sr", {"lam": 1, "update": "clear"}, "There is no update 'clear'. Allowed: both, clean."),
        ("loss-l1", {"lam": 1, "update": "clear"}, "There is no update 'clear'. Allowed: both, clean."),
        ("loss-l1", {"lam": 1, "h": -1}, "h is -1; it must be a finite number above 0."),
        ("loss-l1", {"lam": 1, "norm": "l2"}, "'norm'"),
        ("loss-l1", {"lam": -1}, "lam is -1"),
        ("l2", {}, "missing.*'lam'"),
        ("l2", {"lam": 1, "h": 0.01}, "'h'. It takes .*lam: float"),
        ("exact-l1", {"lam": "1"}, "lam is '1'; it must be a finite number of at least 0."),
        ("exact-l1", {"lam": 1, "norm": "l2"}, "'norm'"),
        ("at", PGD | {"random_start": "no"}, "There is no random_start 'no'. Allowed: False, True."),
        ("at", PGD | {"rule": {"name": "cubic"}}, "no backward rule 'cubic'. Allowed: triangle"),
        ("at", PGD | {"rule": {"name": "sigmoid", "width": 1}}, "'width'"),
        ("at", PGD | {"rule": "sigmoid"}, "A backward rule cannot take sigmoid: "),
        ("at", PGD | {"lam": 1}, "'lam'"),
        ("at+sr", PGD | {"lam": 1, "update": "clear"}, "There is no update 'clear'"),
        ("at+sr", PGD | {"lam": 1, "beta": 6}, "Defense 'at\\+sr' cannot take .*'beta'"),
        ("rat", PGD | {"beta": -1}, "beta is -1; it must be a finite number of at least 0."),
        ("rat", PGD | {"eps": -1}, "eps is -1"),
        ("rat", PGD | {"lam": 1}, "'lam'"),
        ("trades", PGD | {"beta": float("inf")}, "beta is inf; it must be a finite number of at least 0."),
        ("trades", PGD | {"steps": 0}, "steps is 0"),
        ("trades", PGD | {"update": "clear"}, "There is no update 'clear'"),
        ("trades", PGD | {"random_start": False}, "'random_start'"),
        ("trades+sr", PGD, "Defense 'trades\\+sr' cannot take .*missing.*'lam'"),
        ("trades+sr", PGD | {"lam": 1, "update": "clear"}, "There is no update 'clear'"),
        ("trades+sr", PGD | {"lam": 1, "penalty": "square"}, "'penalty'"),
    ],
)
def test_unknown_names_and_options_are_refused_in_one_sentence(name, options, message):
    with pytest.raises(Refused, match=message) as refusal:
        defenses.build(name, options)
    assert "\n" not in str(refusal.value)


# ---- a training of the reader's own ------------------------------------------------------------------------------


@pytest.fixture
def registry(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(defenses, "DEFENSES", dict(defenses.DEFENSES))
    monkeypatch.setattr(words, "_trainings", dict(words._trainings))


def test_a_registered_class_is_a_defense_and_its_after_step_is_called(network, batch, registry):
    @defenses.register("clipped")
    @dataclass(frozen=True)
    class Clipped(defenses.Vanilla):
        to: float = 1.0

        def after_step(self, network):
            with torch.no_grad():
                network.head.weight.clamp_(-self.to, self.to)

    built = defenses.build("clipped", {"to": 0.01})
    assert built == Clipped(0.01) and built.loss(network, batch).shape == ()
    assert network.head.weight.abs().max() > 0.01
    defenses.after_step(built, network)
    assert network.head.weight.abs().max() == 0.01
    with pytest.raises(Refused, match="'clipped' cannot take .* It takes .*to: float = 1.0"):
        defenses.build("clipped", {"height": 1})
    with pytest.raises(Refused, match="trades\\+sr, .*clipped"):
        defenses.build("margins", {})


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


def test_title_and_colour_of_a_registered_training_are_in_the_records_that_name_it(registry):
    @defenses.register("mine", title="My training", colour="#123456")
    def mine(network, batch):
        return network(batch.images).sum()

    @defenses.register("plain")
    def plain(network, batch):
        return network(batch.images).sum()

    interval = SimpleNamespace(value=0.5, low=0.4, high=0.6, over="samples", n=10, method="Wilson 95 %")
    rows = [records.row(interval, seeds=[0], experiments=["ab"], training=name) for name in ("mine", "sr", "plain")]
    common = {"profile": "laptop", "parameters": {}, "data": {}, "recipe": 1, "arithmetic": "portable", "device": "cpu"}
    assert records.build("tab", rows=rows, **common)["words"]["trainings"] == {
        "sr": {"title": "SR", "colour": "#0072b2"},
        "mine": {"title": "My training", "colour": "#123456"},
        "plain": {"title": "plain", "colour": words.COLOUR},
    }


def test_no_other_function_takes_the_name_of_a_training_but_it_may_be_defined_again(registry):
    def defined(factor):
        @defenses.register("mine", title=f"Mine, times {factor}")
        def mine(network, batch):
            return torch.tensor(factor)

    defined(1)
    defined(2)  # as when a notebook's cell runs again
    assert defenses.build("mine", {}).loss(None, None) == 2 and words.title("mine") == "Mine, times 2"
    for name, owner in (("mine", "defined.<locals>.mine of test_defenses"), ("sr", "SR of paperlib.training.defenses")):
        with pytest.raises(Refused, match=f"name {name!r} is taken already by the training .*{owner}; choose another"):
            defenses.register(name, title="Yours")(lambda network, batch: torch.tensor(3))
        assert words.title(name) in ("Mine, times 2", "SR")
