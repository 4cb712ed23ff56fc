"""Whole networks: independence of samples and calls, paths, backward rules, precision and Poisson input."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from oracles import logits_and_gradient, pictures, small, stem_inputs
from torch import nn

from paperlib import networks
from paperlib.attacks.evaluation import chance
from paperlib.errors import Refused
from paperlib.networks import rules
from paperlib.networks.neurons import LIF, NormedLIF

BOTH = pytest.mark.parametrize("name", ["conv-4-6", "wrn16"])
MODES = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])


# Samples, calls and copies ------------------------------------------------------------------------------------------


@BOTH
def test_samples_interact_in_train_mode_alone(name):
    network, images = small(name).eval(), pictures(5, 2, 8, 8)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    torch.testing.assert_close(network(images), torch.cat([network(image[None]) for image in images]))
    for training in (False, True):
        leaf = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(network.train(training)(leaf)[2].sum(), leaf)
        assert gradient[2].any() and gradient[[0, 1, 3, 4]].any() == training
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items()) != training


def test_no_state_passes_between_calls_or_networks():
    a, b = small(seed=0).eval(), small(seed=1).eval()
    x, y = pictures(3, 2, 8, 8), pictures(4, 2, 8, 8, seed=2)
    first, kept = (a(x), b(y)), x.clone()
    b(x), a(y)
    assert torch.equal(a(x), first[0]) and torch.equal(b(y), first[1])
    small().train()(x)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("name", ["conv-4-6", "poisson-conv-4-6"])
def test_a_batch_may_be_empty(name):
    assert small(name).eval()(pictures(0, 2, 8, 8)).shape == (0, 3)


@MODES
@BOTH
def test_a_copy_is_the_same_network_with_a_state_of_its_own(name, training):
    network, images = small(name).train(training), pictures(3, 2, 8, 8)
    copied = copy.deepcopy(network)
    logits = copied(images)
    kept = {key: value.clone() for key, value in copied.state_dict().items()}
    assert torch.equal(network(images), logits)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1)
    network(images + 1)
    assert all(torch.equal(value, kept[key]) for key, value in copied.state_dict().items())
    with network.backward_rule("atan"), network.reference_path():
        assert {(neuron.rule.name, neuron.path) for neuron in copied.neurons()} == {("triangle", "fast")}


@pytest.mark.parametrize("precision", networks.PRECISIONS)
@BOTH
def test_a_state_goes_through_a_file_into_either_precision(name, precision):
    network, images, file = small(name, precision=precision).float().eval(), pictures(3, 2, 8, 8).float(), io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other = small(name, seed=7, precision=precision).float().eval()
    assert not torch.equal(other(images), network(images))
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert torch.equal(other(images), network(images))
    small(name, seed=8).float().load_state_dict(network.state_dict(), strict=True)


def test_neurons_get_the_options_of_the_network():
    rule = rules.sigmoid()
    options = [vars(n) for n in small(T=2, tau=0.5, rule=rule, fire_at=">", detach_reset=True).neurons()]
    defaults = [vars(n) for n in small(T=2).neurons()]
    keys = ("tau", "threshold", "fire_at", "detach_reset", "path")
    assert [[o[key] for key in keys] for o in options] == [[0.5, 1.0, ">", True, "fast"]] * 2
    assert [[o[key] for key in keys] for o in defaults] == [[1.0, 1.0, ">=", False, "fast"]] * 2
    assert all(o["rule"] is rule for o in options) and [o["rule"].half_width for o in defaults] == [1.0] * 2


# Paths and backward rules -------------------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize("name", ["conv-4-6", "vgg11", "wrn16", "poisson-conv-4-6"])
def test_the_reference_path_gives_the_same_spikes_and_a_gradient_with_a_graph(name, training):
    # in float32 a single spike that differs would show, and so would statistics that differ in their last bit
    fast, outs = small(name, tau=0.9).float().train(training), {}
    slow, images = copy.deepcopy(fast), pictures(4, 2, 8, 8).float()
    for network in (fast, slow):
        for key, module in network.named_modules():
            if isinstance(module, (NormedLIF, LIF)):
                module.register_forward_hook(lambda m, x, out, place=(network, key): outs.__setitem__(place, out))

    def run(network):
        leaf = images.clone().requires_grad_()
        with chance(0):
            logits = network(leaf)
        return logits, torch.autograd.grad(logits.square().sum(), leaf, create_graph=True)[0]

    logits, gradient = run(fast)
    with slow.reference_path():
        expected, expected_gradient = run(slow)
        expected_gradient.square().sum().backward()
    assert all(torch.equal(outs[fast, key], outs[slow, key]) for network, key in outs if network is fast)
    assert torch.equal(logits, expected)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max().item())
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.square().sum().backward()


def test_blocks_nest_and_give_each_neuron_its_own_path_and_rule_back():
    network = small()
    first, second = network.neurons()
    first.path, second.rule = "smooth", rules.atan()
    before, keys = [(neuron.path, neuron.rule) for neuron in network.neurons()], network.state_dict().keys()

    def now():
        ((path, rule),) = {(neuron.path, neuron.rule.name) for neuron in network.neurons()}
        return path, rule

    with network.reference_path(), network.backward_rule("sigmoid"):
        assert now() == ("reference", "sigmoid")
        with pytest.raises(KeyError), network.smoothed(), network.backward_rule("rate"):
            with network.reference_path(), network.backward_rule("triangle", gamma=0.5):
                assert now() == ("reference", "triangle") and first.rule.half_width == second.rule.half_width == 0.5
            assert now() == ("smooth", "rate")
            raise KeyError
        assert now() == ("reference", "sigmoid") and network.state_dict().keys() == keys
        for name, options in (("box", {}), ("triangle", {"slope": 1.0}), ("sigmoid", {"slope": 0})):
            with pytest.raises(Refused), network.backward_rule(name, **options):
                pytest.fail("the block must not begin")
        assert now() == ("reference", "sigmoid")
    for neuron, (path, rule) in zip(network.neurons(), before, strict=True):
        assert neuron.path == path and neuron.rule is rule


@pytest.mark.parametrize(
    "block", [lambda network: network.backward_rule("sigmoid"), lambda network: network.smoothed()]
)
def test_a_block_decides_for_the_forward_passes_inside_it(block):
    network, leaf = small().eval(), pictures(3, 2, 8, 8).requires_grad_()

    def gradient_of(logits):
        return torch.autograd.grad(logits.square().sum(), leaf)[0]

    outside = network(leaf)
    with block(network):
        within = network(leaf)
        inside = gradient_of(network(leaf))
        outside = gradient_of(outside)  # of a pass before the block
    assert torch.equal(gradient_of(within), inside)
    assert torch.equal(gradient_of(network(leaf)), outside) and not torch.allclose(outside, inside)


ALONE = [name for name in rules.RULES if name not in ("assg", "pdsg")]  # rules that do not couple samples
RULES = [*((name, {}) for name in ALONE), ("triangle", {"gamma": 0.5}), ("sigmoid", {"slope": 2.0})]


@pytest.mark.parametrize("network_name", ["conv-4-6", "wrn16", "poisson-conv-4-6"])
@pytest.mark.parametrize("name, options", RULES)
def test_backward_rule_is_that_of_a_network_built_with_it(name, options, network_name):
    network, images = small(network_name, tau=0.9).eval(), pictures(3, 2, 8, 8)
    other = small(network_name, tau=0.9, rule=rules.build(name, **options)).eval()
    logits, gradient = logits_and_gradient(network, images)
    with network.backward_rule(name, **options):
        within = logits_and_gradient(network, images)
    assert torch.equal(within[0], logits) and all(map(torch.equal, within, logits_and_gradient(other, images)))
    assert torch.equal(within[1], gradient) == (name == "triangle" and not options)


@pytest.mark.parametrize("name, options", [("sigmoid", {"slope": 2}), ("triangle", {"gamma": 0.5}), ("rectangle", {})])
def test_a_backward_rule_decides_the_smooth_function(name, options):
    network, images = small(tau=0.9).eval(), pictures(3, 2, 8, 8)
    other = small(tau=0.9, rule=rules.build(name, **options)).eval()
    with network.smoothed(), other.smoothed():
        default, expected = (logits_and_gradient(net, images) for net in (network, other))
        with network.backward_rule(name, **options):
            inner = logits_and_gradient(network, images)
    with network.backward_rule(name, **options), network.smoothed():
        outer = logits_and_gradient(network, images)
    for a, b, c, d in zip(inner, outer, expected, default, strict=True):
        assert torch.equal(a, c) and torch.equal(b, c) and not torch.allclose(c, d)


# Precision ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
@BOTH
def test_precision_follows_the_network(name, dtype):
    network, leaf = small(name).to(dtype).eval(), pictures(2, 2, 8, 8).to(dtype).requires_grad_()
    logits = network(leaf)
    logits.sum().backward()
    assert {logits.dtype, leaf.grad.dtype, *(p.grad.dtype for p in network.parameters())} == {dtype}


def pair(name, **options):
    """Networks with the same weights in 32 and in 16 bits, in eval mode."""
    return (small(name, precision=precision, **options).float().eval() for precision in networks.PRECISIONS)


def traced(network, images):
    """Convolutions, linear layers, neurons and norms, each with input and output, in order of use."""
    seen, handles = [], []
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, LIF, NormedLIF)):
            note = lambda m, inputs, out: seen.append((m, inputs[0].detach(), out.detach()))  # noqa: E731
            handles.append(module.register_forward_hook(note))
    network(images)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("smoothed", [False, True], ids=["spiking", "smooth"])
@pytest.mark.parametrize("name", ["conv-8-16", "vgg11", "wrn16"])
def test_sixteen_bits_change_logits_and_gradient_a_little(name, smoothed):
    # a spike that moves moves others, so in a deep network without training only the mean over images is near
    plain, halved = pair(name, T=4)
    images = pictures(32, 2, 8, 8).float()
    for network in (plain, halved):
        for neuron in network.neurons():
            neuron.path = "smooth" if smoothed else "fast"
    (expected, one), (logits, other) = (logits_and_gradient(network, images) for network in (plain, halved))
    assert logits.dtype == other.dtype == torch.float and not torch.equal(logits, expected)
    assert not torch.equal(other, other.bfloat16().float())  # the image is never rounded, nor its gradient
    assert (logits - expected).mean(0).abs().max() < 0.1 * expected.abs().mean()
    if smoothed:
        assert (logits - expected).abs().max() < 0.02 * expected.abs().max()
    elif name == "conv-8-16":
        assert (logits - expected).abs().mean() < 0.2 * (expected - expected.mean(0)).abs().mean()
    if smoothed or name == "conv-8-16":
        similarity = torch.cosine_similarity(one.flatten(), other.flatten(), dim=0)
        assert similarity > (0.99 if smoothed else 0.9)


@pytest.mark.parametrize("name", ["conv-8-16", "vgg11", "wrn16"])
def test_only_products_of_the_body_have_sixteen_bits(name):
    # each layer against itself in 32 bits on the same input: products within the rounding, spikes exactly
    plain, halved = pair(name)
    images = pictures(3, 2, 8, 8).float()
    trace = traced(halved, images)
    for module, x, out in trace:
        with torch.no_grad():
            expected = module(x.float())
        if isinstance(module, (LIF, NormedLIF)):
            assert torch.equal(out.float(), expected) and 0 < expected.mean() < 1
        else:
            torch.testing.assert_close(out.float(), expected, rtol=2**-7, atol=0.02 * expected.std().item())
    stem, *middle, head = trace
    assert stem[0] is halved.stem and head[0] is halved.head
    for _, x, out in (stem, head):
        assert x.dtype == out.dtype == torch.float and not torch.equal(out, out.bfloat16().float())
    products = [out.dtype for module, _, out in middle if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert products and set(products) == {torch.bfloat16}
    first = next(x for module, x, _ in middle if isinstance(module, NormedLIF))
    assert first.dtype == torch.float and torch.equal(first[0], stem[2])
    assert {out.dtype for _, _, out in traced(plain, images)} == {torch.float}


@pytest.mark.parametrize("name", ["conv-8-16", "wrn16", "ann-conv-4-6"])
def test_sixteen_bits_leave_weights_and_statistics_at_thirty_two(name):
    plain, halved = (network.train() for network in pair(name))
    before, images = {key: value.clone() for key, value in halved.state_dict().items()}, pictures(4, 2, 8, 8).float()
    logits = halved(images)
    assert not torch.equal(logits, plain(images)) and not torch.is_autocast_enabled("cpu")
    F.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    for parameter in halved.parameters():
        assert parameter.dtype == parameter.grad.dtype == torch.float
        assert parameter.grad.isfinite().all() and parameter.grad.any()
    for key, value in halved.state_dict().items():
        assert value.dtype == before[key].dtype
        assert "running" not in key or not torch.equal(value, before[key])


def test_sixteen_bits_end_with_a_pass_that_fails():
    with pytest.raises(RuntimeError):
        small(precision="bfloat16").float().eval()(pictures(2, 2, 4, 4).float())  # too small for the readout
    assert not torch.is_autocast_enabled("cpu")


# Poisson input ------------------------------------------------------------------------------------------------------


def frames(network, images):
    """What the stem takes, (T, B, C, H, W)."""
    with stem_inputs(network) as inputs:
        network(images)
    return inputs[0].unflatten(0, (network.T, len(images)))


def test_poisson_frames_have_the_rates_of_the_pixels():
    # 20,000 draws a pixel: five standard errors are below 0.018
    network, images = small("poisson-conv-1", image_size=2, T=20_000).eval(), pictures(3, 2, 2, 2)
    torch.testing.assert_close(frames(network, images).mean(0), images, rtol=0, atol=0.018)


def test_no_two_poisson_draws_are_shared():
    seen = frames(small("poisson-conv-4", T=60).eval(), torch.full((4, 2, 8, 8), 0.5, dtype=torch.double))
    for flat in (seen.flatten(1), seen.transpose(0, 1).flatten(1), seen.flatten(0, 1).flatten(1).T):
        # of steps, of samples, of pixels: the correlation of each pair is near 0
        assert flat.corrcoef().fill_diagonal_(0).abs().max() < 0.5


@pytest.mark.parametrize("draw", [None, 0.0, 1 - 2**-24])  # any; the least and the largest that torch draws
@pytest.mark.parametrize("dtype", [torch.double, torch.float, torch.bfloat16], ids=str)
def test_poisson_pixels_never_fire_at_0_and_always_at_1(dtype, draw, monkeypatch):
    values = torch.tensor([-0.5, -0.0, 0.0, 2.0**-40, 0.5, 1.0, 1.5, 1.7], dtype=dtype)
    network, images = small("poisson-conv-4", T=500 if draw is None else 1).to(dtype).eval(), values.expand(1, 2, 8, 8)
    if draw is not None:
        monkeypatch.setattr(torch, "rand", lambda *shape: torch.full(shape, draw))
    seen = frames(network, images)
    assert seen.dtype == dtype and not seen[..., :3].any() and seen[..., 5:].all()
    assert draw is None or (seen[..., 3:5] == (draw == 0)).all()


def test_a_poisson_network_draws_anew_and_by_its_seed():
    network, images = small("poisson-conv-4-6", T=8).eval(), pictures(4, 2, 8, 8)

    def drawn(seed):
        with chance(seed):
            return network(images), network(images)

    first = drawn(3)
    assert not torch.equal(*first)
    assert all(map(torch.equal, drawn(3), first))
    assert not torch.equal(drawn(4)[0], first[0])


@pytest.mark.parametrize("dtype", [torch.float, torch.bfloat16])
def test_the_draws_of_a_seed_are_the_same_in_every_precision(dtype):
    images = pictures(3, 2, 8, 8).to(dtype).double()  # the same numbers in either
    wide, narrow = small("poisson-conv-4").eval(), small("poisson-conv-4").to(dtype).eval()
    with chance(4):
        drawn = frames(wide, images)
    with chance(4):
        assert torch.equal(drawn, frames(narrow, images.to(dtype)).double())


def test_poisson_input_alone_is_random_and_couples_the_batch():
    # the draws of a sample depend on its place: at another place it gets others
    network, images = small("poisson-conv-4", T=8).eval(), pictures(4, 2, 8, 8)
    assert network.stochastic and network.coupled
    with chance(0):
        together = network(images)
    with chance(0):
        assert not torch.equal(network(images[1:])[0], together[1])
    direct, before = small().eval(), torch.get_rng_state()
    direct(images)
    assert not direct.stochastic and not direct.coupled and torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("precision", networks.PRECISIONS)
@pytest.mark.parametrize("name", ["poisson-conv-4-6", "poisson-wrn16"])
def test_a_poisson_network_learns(name, precision):
    network = small(name, precision=precision).float().train()
    images, labels = pictures(8, 2, 8, 8).float(), torch.arange(8) % 3
    weights = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    before = [weight.clone() for weight in weights]
    optimiser, losses = torch.optim.SGD(network.parameters(), lr=0.05), []
    for _ in range(12):
        with chance(0):
            loss = F.cross_entropy(network(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert not any(map(torch.equal, before, weights)) and min(losses[6:]) < losses[0]
