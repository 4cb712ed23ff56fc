"""Layouts of networks against the paper's layers and parameter counts, against slow versions, and new layouts."""

import copy
import itertools
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from oracles import MEAN, STD, logits_and_gradient, paper_network, paper_neuron, pictures, small, smooth, stem_inputs
from torch import nn

from paperlib import networks
from paperlib.attacks.attack import Attack
from paperlib.attacks.evaluation import chance
from paperlib.errors import Refused
from paperlib.networks import architectures
from paperlib.networks.architectures import TimeFolded, WideBlock
from paperlib.networks.neurons import LIF, NormedLIF
from paperlib.training import defenses, loop

NAMES = ["conv-4-6", "vgg11", "wrn16"]


def spiking(current, **options):
    return paper_neuron(current, **options)[0]


KINDS = {  # prefix of the name, oracle of the neuron with options, options of the network
    "spiking": ("", spiking, {}, {}),
    "other neuron": ("", spiking, dict(tau=0.9, detach=True), dict(tau=0.9, detach_reset=True)),
    "smooth": ("", smooth, dict(tau=0.9), dict(tau=0.9)),
    "twin": ("ann-", lambda current: torch.where(current > 0, current, 0.0), {}, {}),
    "poisson": ("poisson-", spiking, dict(tau=0.9), dict(tau=0.9)),
    "events": ("events-", spiking, {}, {}),
}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    "name, kind", [("vgg11", "spiking"), ("vgg11", "twin"), *itertools.product(["conv-4-6", "wrn16"], KINDS)]
)
def test_a_network_is_the_papers_layers_on_the_repeated_batch(name, kind, training):
    prefix, neuron, neuron_options, options = KINDS[kind]
    network = small(prefix + name, **options).train(training)
    plain, T = copy.deepcopy(network), network.T
    images = pictures(3, T, 2, 8, 8) if kind == "events" else pictures(3, 2, 8, 8)
    leaf, labels = images.clone().requires_grad_(), torch.tensor([0, 2, 1])
    with stem_inputs(network) as inputs, network.smoothed() if kind == "smooth" else nullcontext():
        logits = network(leaf)
    gradients = torch.autograd.grad(F.cross_entropy(logits, labels), [leaf, *network.parameters()])

    frames = inputs[0].unflatten(0, (-1, 3))
    mean, std = (torch.tensor(v, dtype=torch.double).view(2, 1, 1) for v in (MEAN, STD))
    if kind == "poisson":  # not normalised, random
        assert frames.shape == (T, 3, 2, 8, 8) and ((frames == 0) | (frames == 1)).all()
    else:
        expected = (images - mean) / std
        torch.testing.assert_close(frames, expected.transpose(0, 1) if kind == "events" else expected[None])
    frames.requires_grad_()
    expected, statistics = paper_network(
        plain, name, frames.expand(T, *frames.shape[1:]), lambda x: neuron(x, **neuron_options)
    )
    by_frames, *others = torch.autograd.grad(F.cross_entropy(expected, labels), [frames, *plain.parameters()])
    if kind == "events":
        by_images = by_frames.transpose(0, 1) / std
    else:
        by_images = by_frames.sum(0) / (1 if kind == "poisson" else std)
    assert logits.shape == (3, 3) and logits.std() > 0.01
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(gradients, (by_images, *others), rtol=1e-7, atol=1e-10)
    assert gradients[0].abs().max() > 1e-6 and all(gradient.any() for gradient in gradients)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    torch.testing.assert_close([(m.running_mean, m.running_var) for m in norms], statistics, rtol=1e-9, atol=1e-12)


# Shapes and first weights -------------------------------------------------------------------------------------------


def layers(name, *, channels, size, classes):
    """The network, and type and output shape (without batch and time) of its layers in order of use."""
    torch.manual_seed(0)
    network, shapes = networks.build(name, in_channels=channels, image_size=size, num_classes=classes, T=2), []

    def note(module, inputs, out):
        folded = 2 if isinstance(module, (LIF, NormedLIF)) else 1
        shapes.append((type(module).__name__, *out.shape[folded:]))

    for module in network.modules():
        if isinstance(module, (nn.Conv2d, NormedLIF, LIF, nn.Linear)):
            module.register_forward_hook(note)
    with torch.no_grad():
        assert network.eval()(torch.rand(2, channels, size, size)).shape == (2, classes)
    return network, shapes


def test_vgg11_has_the_papers_layers_and_parameters():
    network, shapes = layers("vgg11", channels=3, size=32, classes=10)
    expected, size = [], 32
    for width, pooled in ((64, 1), (128, 0), (256, 1), (512, 0), (512, 0), (512, 1), (512, 0), (512, 0)):
        expected.append(("Conv2d", width, size, size))
        size = size // 2 if pooled else size
        expected.append(("NormedLIF", width, size, size))
    assert shapes == [*expected, *[("Linear", 4096), ("LIF", 4096)] * 2, ("Linear", 10)]

    ends = [3, 64, 128, 256, 512, 512, 512, 512, 512]
    convolutions = sum(9 * a * b + 3 * b for a, b in zip(ends, ends[1:], strict=False))  # bias, two of BatchNorm
    linear = (8192 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 10
    assert sum(p.numel() for p in network.parameters()) == convolutions + linear == 61_377_034


def test_wrn16_has_the_papers_layers_parameters_and_first_weights():
    network, shapes = layers("wrn16", channels=3, size=32, classes=100)
    expected, channels, size = [("Conv2d", 16, 32, 32)], 16, 32
    for width, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1)):
        after = (width, size // stride, size // stride)
        expected.append(("NormedLIF", channels, size, size))
        expected += [("Conv2d", *after)] if channels != width else []  # the shortcut
        expected += [("Conv2d", *after), ("NormedLIF", *after), ("Conv2d", *after)]
        channels, size = width, size // stride
    assert shapes == [*expected, ("NormedLIF", 256, 8, 8), ("Linear", 100)]

    # the usual WRN-16-4 for 10 classes, the mixing weights, 90 classes more
    assert sum(p.numel() for p in network.parameters()) == 2_748_890 + 12 + 90 * 257
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert [m.kernel_size for m in convolutions].count((3, 3)) == 13 and len(convolutions) == 16
    for convolution in convolutions:
        fan_out = convolution.weight[:, 0].numel()
        assert convolution.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
    assert [m.mix.tolist() for m in network.modules() if isinstance(m, WideBlock)] == [[0.5, 0.5]] * 6
    assert len({id(neuron) for neuron in network.neurons()}) == 13


@pytest.mark.parametrize(
    "name, size, flat",
    [
        ("conv-16-32", 28, 32 * 7 * 7),
        ("conv-8", 5, 8 * 2 * 2),  # the pool drops an odd row
        ("conv-4-4-6", 8, 6),
        ("vgg11", 48, 512 * 36),  # as for event frames
        ("wrn16", 28, 256),
        ("wrn16", 9, 256),  # the mean is over the map that is left
        ("wrn16", 4, 256),
    ],
)
def test_the_first_linear_layer_fits_the_image(name, size, flat):
    network, _ = layers(name, channels=1, size=size, classes=10)
    assert next(m for m in network.modules() if isinstance(m, nn.Linear)).in_features == flat


def test_first_weights_are_those_of_he_and_of_torch():
    network, _ = layers("conv-64-32", channels=3, size=16, classes=50)
    first, second = (m for m in network.modules() if isinstance(m, nn.Conv2d))
    for convolution, fan_out in ((first, 64 * 9), (second, 32 * 9)):
        assert convolution.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.06)
        assert convolution.bias.any()
    assert not network.head.bias.any()
    assert network.head.weight.abs().max().item() == pytest.approx((32 * 16) ** -0.5, rel=0.01)


def test_the_seed_decides_the_weights():
    one, same, other = (small(seed=seed).stem.weight for seed in (3, 3, 4))
    assert torch.equal(one, same) and not torch.equal(one, other)


# Twins without spikes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_all_kinds_of_a_network_have_the_same_state(name):
    states = [small(prefix + name, T=1).state_dict() for prefix in ("", *architectures.PREFIXES)]
    for state in states[1:]:
        assert state.keys() == states[0].keys()  # mean and std of the data are no part of it
        assert all(torch.equal(value, states[0][key]) for key, value in state.items())


@pytest.mark.parametrize("name", ["ann-conv-4-6", "ann-wrn16"])
def test_no_rule_and_no_path_changes_a_twin(name):
    network, images = small(name).eval(), pictures(4, 2, 8, 8)
    assert not network.neurons() and not network.stochastic
    expected = logits_and_gradient(network, images)
    rules = [network.backward_rule("sigmoid", slope=4.0), network.backward_rule("pdsg"), network.backward_rule("rate")]
    for block in [*rules, network.reference_path(), network.smoothed(), network.frozen()]:
        with block:
            assert not network.coupled
            assert all(map(torch.equal, logits_and_gradient(network, images), expected))
    with pytest.raises(Refused, match="no backward rule 'cubic'"), network.backward_rule("cubic"):
        pass


def test_the_gradient_of_a_twin_is_exact_and_differentiable():
    network, images = small("ann-conv-4-6").eval().requires_grad_(False), pictures(2, 2, 8, 8)
    assert torch.autograd.gradcheck(network, images.requires_grad_())
    assert torch.autograd.gradgradcheck(lambda x: network(x).softmax(1), images)


@pytest.mark.parametrize("name", ["ann-conv-4-6", "ann-wrn16"])
def test_pgd_raises_the_loss_of_a_twin_whatever_its_rule(name):
    network, images, labels = small(name).eval(), pictures(6, 2, 8, 8), torch.arange(6) % 3
    attacked, by_rule = (
        Attack("pgd", 0.1, {"alpha": 0.03, "steps": 5}, rule).bind(seed=0)(network, images, labels, bounds=(0, 1))
        for rule in (None, {"name": "sigmoid", "slope": 4.0})
    )
    before, after = (F.cross_entropy(network(x), labels, reduction="none") for x in (images, attacked))
    assert (after > before).all() and (attacked - images).abs().max() <= 0.1 + 1e-12
    assert torch.equal(by_rule, attacked)


# Names and new layouts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", architectures.PREFIXES)
def test_one_prefix_may_stand_before_a_name(prefix):
    assert networks.architecture(f"{prefix}vgg11") is networks.architecture("vgg11")
    other = "poisson-" if prefix == "ann-" else "ann-"
    names = ["", "box", "conv-", f"{prefix}conv-4", f"{other}conv-4"]
    for name in [prefix[:-1], f"conv-4-{prefix}", *(prefix + rest for rest in names)]:
        with pytest.raises(Refused, match=f"no network '{name}'.*vgg11.*behind poisson-, ann- or events-"):
            networks.architecture(name)


@pytest.fixture
def layout(monkeypatch):
    """The layout "mine", known inside the test: a convolution without a pool, and a hidden linear layer."""
    monkeypatch.setattr(architectures, "LAYOUTS", dict(architectures.LAYOUTS))

    @architectures.register("mine")
    def mine(*, in_channels, image_size, neuron, normed):
        hidden = TimeFolded(nn.Flatten(), nn.Linear(4 * image_size**2, 8))
        return nn.Conv2d(in_channels, 4, 3, padding=1), [normed(4), hidden, neuron()], 8

    return mine


@pytest.mark.parametrize("prefix", ["", *architectures.PREFIXES])
@pytest.mark.parametrize("defense", ["vanilla", "sr"])
def test_a_registered_layout_builds_and_trains_one_step(layout, tiny, defense, prefix):
    T, (images, labels, index) = 1 if prefix == "ann-" else 4, next(tiny.train.batches(20))
    torch.manual_seed(0)
    network = networks.build(f"{prefix}mine", in_channels=1, image_size=8, num_classes=3, T=T).train()
    assert len(network.neurons()) == (0 if prefix == "ann-" else 2)
    if prefix == "events-":
        images = images[:, None].repeat(1, T, 1, 1, 1)
    batch = loop.Batch(images, labels, index, tiny.bounds, seed=0)
    schedule = loop.Schedule(epochs=1, batch_size=20, lr=0.05, momentum=0.9, weight_decay=0.0)
    step = loop.Step(network, defenses.build(defense, {} if defense == "vanilla" else {"lam": 0.01}), schedule)
    weights = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    before = [weight.clone() for weight in weights]
    with chance(0):
        loss = step.loss(batch)
    step.move(loss)
    assert len(weights) == 3 and not any(map(torch.equal, weights, before))
    with chance(0):
        assert step.loss(batch) < loss


def test_a_name_that_another_layout_has_is_refused_in_one_sentence(layout):
    def another(**options):
        return layout(**options)

    for name, owner in (("mine", "layout.<locals>.mine of test_architectures"), ("vgg11", "_vgg11 of paperlib")):
        with pytest.raises(Refused, match=f"'{name}'.*already.*{owner}") as refusal:
            architectures.register(name)(another)
        assert str(refusal.value).count(". ") == str(refusal.value).count("\n") == 0
    assert networks.architecture("mine") is layout
    architectures.register("mine")(layout)  # the same function defined again, as by a notebook's cell
    assert "Allowed: vgg11, wrn16, mine, conv-" in str(pytest.raises(Refused, networks.architecture, "box").value)


# Refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, sentence",
    [
        (dict(name="resnet"), "no network 'resnet'.*vgg11, wrn16, conv-"),
        (dict(name="wrn-16"), "no network 'wrn-16'"),
        (dict(name="conv"), "no network 'conv'"),
        (dict(name="conv-16-x"), "no network 'conv-16-x'"),
        (dict(name="conv-16-0"), "no network 'conv-16-0'"),
        (dict(name="wrn16", image_size=3), "wrn16 halves its input 2 times; images of 3 pixels are too small"),
        (dict(name="wrn16", image_size=0), "wrn16 halves its input"),
        (dict(name="vgg11", image_size=7), "vgg11 halves its input 3 times; images of 7 pixels are too small"),
        (dict(image_size=3), "conv-4-6 halves its input 2 times; images of 3 pixels are too small"),
        (dict(image_size=-16), "too small"),
        (dict(precision="float16"), "no precision 'float16'.*float32, bfloat16"),
        (dict(precision=None), "no precision None"),
        (dict(precision=torch.bfloat16), "no precision torch.bfloat16"),
        (dict(T=0), "T is 0"),
        (dict(T=2.5), "T is 2.5.*whole number"),
        (dict(num_classes=0), "num_classes is 0"),
        (dict(in_channels=0), "in_channels is 0"),
        (dict(tau=1.5), "tau is 1.5"),
        (dict(fire_at="<"), "fire_at '<'"),
        (dict(name="ann-conv-4"), "^ann-conv-4 is given T = 2, tau = 1; without spikes it takes T = 1 and tau = 1.$"),
        (dict(name="ann-vgg11", T=1, tau=0.5), "ann-vgg11 is given T = 1, tau = 0.5; without spikes"),
        (dict(name="ann-wrn16", T=1, detach_reset=True), "T = 1, tau = 1 and a detached reset; without spikes"),
        (dict(name="ann-wrn16", T=1, image_size=3), "wrn16 halves its input 2 times"),
    ],
)
def test_what_build_refuses(changes, sentence):
    options = {"name": "conv-4-6", "in_channels": 1, "image_size": 8, "num_classes": 3, "T": 2, **changes}
    with pytest.raises(Refused, match=sentence):
        networks.build(options.pop("name"), **options)
