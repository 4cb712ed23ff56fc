"""BatchNorm, neuron and pool in one pass against torch's layers, the paper's loop and snnTorch; C against torch."""

import warnings
from contextlib import contextmanager, nullcontext
from itertools import product

import pytest
import snntorch as snn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracles import FIRES, Plain, assert_bits, currents, gradients, in_torch, normed, on, paper_neuron
from torch import nn

from paperlib.errors import Refused
from paperlib.networks import fused, kernel, rules
from paperlib.networks.neurons import LIF

DTYPES = [torch.float32, torch.float64, torch.bfloat16]
compiled = pytest.mark.skipif(not all(map(kernel.library, DTYPES)), reason="no C compiler")
TRAINING = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
CONSTANT = pytest.mark.parametrize("constant", [False, True], ids=["T steps", "one step"])
POOL = pytest.mark.parametrize("pool", [False, True], ids=["", "pool"])


CHANNELS = st.sampled_from([1, 2, 3, 5, 8, 16])  # for 8 and 16 the C file has loops of their own
SIDE = st.integers(2, 7)
SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 3), CHANNELS, SIDE, SIDE)  # T, B, C, H, W


@contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# Against torch's layers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["C", "torch", "reference"])
@CONSTANT
@POOL
@pytest.mark.parametrize(
    "name, tau, fire_at, detach",
    [
        ("triangle", 1.0, ">=", False),
        ("triangle", 0.9, ">", True),
        ("sigmoid", 0.5, ">=", True),
        ("rate", 0.5, ">", False),
    ],
)
def test_the_layer_is_batch_norm_neuron_and_pool(name, tau, fire_at, detach, pool, constant, path):
    layer = normed(rule=rules.build(name), pool=pool, tau=tau, fire_at=fire_at, detach_reset=detach)
    plain, tolerance = Plain(layer), dict(rtol=1e-9, atol=1e-12)
    for training, seed in ((True, 0), (False, 1), (True, 2)):
        layer.train(training), plain.train(training)
        x = currents(1 if constant else 5, 4, 3, 3, 5, seed=seed)  # odd both ways; 60 or 300 values a channel
        expected = gradients(plain, x)
        if path == "reference" and name == "rate":
            continue  # which refuses it
        with on(path, layer.neuron):
            result = gradients(layer, x)
        assert torch.equal(result[0], expected[0]) and 0.05 < result[0].mean() < 0.95
        torch.testing.assert_close(result, expected, **tolerance)
        torch.testing.assert_close(layer.state_dict(), plain.state_dict(), **tolerance)


def test_the_layer_is_batch_norm_a_stepped_leaky_and_a_pool():
    # nothing of ours in it: torch's BatchNorm and pool, snnTorch's neuron
    surrogate = snn.surrogate.custom_surrogate(lambda u, grad, spikes: grad * (1 - u.abs()).clamp(min=0))
    leaky = snn.Leaky(beta=0.9, spike_grad=surrogate, reset_mechanism="zero", reset_delay=False)
    layer = normed(pool=True, tau=leaky.beta.item(), fire_at=">")

    def stepped(current):
        mem, spikes = torch.zeros_like(current[0]), []
        for i in current:
            spike, mem = leaky(i, mem)
            spikes.append(spike)
        return torch.stack(spikes)

    plain, x = Plain(layer, stepped), currents(1, 4, 3, 4, 6)
    result, expected = gradients(layer, x), gradients(plain, x)
    assert torch.equal(result[0], expected[0])
    torch.testing.assert_close(result[1:], expected[1:], rtol=1e-5, atol=1e-6)  # snnTorch's spikes are float32
    torch.testing.assert_close(layer.state_dict(), plain.state_dict(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("path", ["C", "torch"])
@given(shape=SHAPES, constant=st.booleans(), training=st.booleans(), pool=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_its_gradients_are_those_of_autograd(path, shape, constant, training, pool, seed):
    layer = normed(shape[2], steps=shape[0], pool=pool, tau=0.9).train(training)
    plain, x = Plain(layer), currents(1 if constant else shape[0], *shape[1:], seed=seed)
    with on(path, layer.neuron):
        result = gradients(layer, x)
    torch.testing.assert_close(result, gradients(plain, x), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(layer.state_dict(), plain.state_dict(), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float, torch.double], ids=str)
@pytest.mark.parametrize("path", ["C", "torch"])
def test_statistics_where_the_mean_is_large(path, dtype):
    x = (currents(4, 6, 8, 9, 5) + 1000).to(dtype)
    var, mean = torch.var_mean(x.double(), (0, 1, 3, 4), correction=0)
    with in_torch() if path == "torch" else nullcontext():
        result = fused.statistics(x)
    assert all(values.dtype == dtype for values in result)
    torch.testing.assert_close([values.double() for values in result], [mean, var], rtol=2e-6, atol=0)


@CONSTANT
@POOL
@pytest.mark.parametrize("path", ["C", "torch"])
def test_one_gradient_for_all_steps(path, pool, constant):
    # behind a sum over time autograd gives one step and repeats it without a copy
    layer, x = normed(8, pool=pool), currents(1 if constant else 5, 4, 8, 5, 6).requires_grad_()
    with on(path, layer.neuron):
        out = layer(x)
        grad = currents(1, *out.shape[1:], seed=2).expand_as(out)
        leaves = [x, *layer.parameters()]
        result, expected = (torch.autograd.grad(out, leaves, g, retain_graph=True) for g in (grad, grad.contiguous()))
    assert_bits(result, expected)


LAYOUTS = {
    "channels last": lambda: currents(20, 3, 4, 6).to(memory_format=torch.channels_last).unflatten(0, (5, 4)),
    "permuted": lambda: currents(3, 4, 6, 5, 4).permute(3, 4, 0, 1, 2),
    "every second": lambda: currents(10, 4, 6, 4, 6)[::2, :, ::2],
    "expanded over time": lambda: currents(4, 3, 4, 6).expand(5, 4, 3, 4, 6),
    "expanded inside": lambda: currents(1, 4, 3, 4, 1).expand(1, 4, 3, 4, 6),
}


@POOL
@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layout_changes_nothing(layout, pool):
    x = LAYOUTS[layout]()
    result = gradients(normed(pool=pool), x)
    expected = gradients(Plain(normed(pool=pool)), x.clone(memory_format=torch.contiguous_format))
    assert torch.equal(result[0], expected[0])
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-12)


@CONSTANT
@POOL
@TRAINING
@pytest.mark.parametrize("dtype", [torch.float, torch.bfloat16], ids=str)
def test_the_reference_path_has_the_bits_of_the_fast_path(training, constant, pool, dtype):
    # mean and variance must be the same numbers too, or now and then a spike would move
    fast, slow = (normed(pool=pool, tau=0.9, dtype=torch.float).train(training) for _ in range(2))
    slow.neuron.path = "reference"
    for seed in range(5):
        x = currents(1 if constant else 5, 8, 3, 9, 9, seed=seed).to(dtype)
        result, expected = (gradients(layer, x) for layer in (fast, slow))
        assert_bits(result[:1], expected[:1])
        for a, b in zip(result, expected, strict=True):
            if dtype == torch.float:
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * b.abs().max().item())
        assert_bits(fast.state_dict().values(), slow.state_dict().values())


CURVATURES = {  # derivatives of the rules, by hand
    "triangle": lambda u: -u.sign() * (u.abs() < 1),
    "sigmoid": lambda u: 16 * torch.sigmoid(4 * u) * torch.sigmoid(-4 * u) * (1 - 2 * torch.sigmoid(4 * u)),
}


@pytest.mark.parametrize("detach", [False, True])
@POOL
@CONSTANT
@TRAINING
@pytest.mark.parametrize("name", CURVATURES)
def test_double_backward_of_the_reference_path(name, training, constant, pool, detach):
    # Around the membranes of one input the plain layer is a smooth function of input, weight and bias; its Hessian
    # times a direction, from central differences of the gradient that autograd gives through nn.BatchNorm2d, against
    # the gradient of the reference path's gradient.
    rule = rules.build(name)
    layer = normed(2, rule, steps=4, pool=pool, tau=0.5, detach_reset=detach).train(training)
    centres = None

    def expanded(current):
        nonlocal centres
        options = dict(tau=0.5, detach=detach, curvature=CURVATURES[name], centres=centres)
        spikes, centres = paper_neuron(current, rule.derivative, **options)
        return spikes

    plain, x = Plain(layer, expanded), currents(1 if constant else 4, 2, 2, 3, 3)
    out = plain(x)  # which sets the centres
    point = [x, *(parameter.detach().clone() for parameter in layer.parameters())]
    direction = [torch.randn(p.shape, dtype=torch.double, generator=torch.Generator().manual_seed(3)) for p in point]
    c = torch.randn(out.shape, dtype=torch.double, generator=torch.Generator().manual_seed(4))

    def gradient(h):
        leaf, weight, bias = (p + h * d for p, d in zip(point, direction, strict=True))
        with torch.no_grad():
            plain.weight.copy_(weight), plain.bias.copy_(bias)
        return torch.autograd.grad((plain(leaf.requires_grad_()) * c).sum(), [leaf, *plain.parameters()])

    h = 1e-5
    expected = [(a - b) / (2 * h) for a, b in zip(gradient(h), gradient(-h), strict=True)]
    layer.neuron.path = "reference"
    leaves = [x.clone().requires_grad_(), *layer.parameters()]
    first = torch.autograd.grad((layer(leaves[0]) * c).sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum((f * v).sum() for f, v in zip(first, direction, strict=True)), leaves)
    assert all(part.abs().max() > 0.1 for part in second)
    torch.testing.assert_close(list(second), expected, rtol=1e-5, atol=1e-6)


@TRAINING
@POOL
@CONSTANT
def test_the_smooth_layer_is_batch_norm_smooth_neuron_and_pool(constant, pool, training):
    layer, neuron = normed(pool=pool, tau=0.9).train(training), LIF(rules.triangle(), tau=0.9)
    layer.neuron.path = neuron.path = "smooth"
    plain, x = Plain(layer, neuron), currents(1 if constant else 5, 4, 3, 3, 5)
    torch.testing.assert_close(gradients(layer, x), gradients(plain, x), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(layer.state_dict(), plain.state_dict(), rtol=1e-12, atol=1e-14)


@TRAINING
def test_the_smooth_layer_can_be_differentiated_twice(training):
    layer = normed(2, rules.sigmoid(), steps=3, pool=True, tau=0.5).train(training)
    layer.neuron.path = "smooth"

    def output(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, x)

    leaves = [currents(1, 2, 2, 2, 3).requires_grad_(), *layer.parameters()]
    assert torch.autograd.gradcheck(output, leaves)
    assert torch.autograd.gradgradcheck(output, leaves)


# C and torch --------------------------------------------------------------------------------------------------------


@compiled
@given(
    shape=SHAPES,
    constant=st.booleans(),
    training=st.booleans(),
    pool=st.booleans(),
    detach=st.booleans(),
    fire_at=st.sampled_from(list(FIRES)),
    dtype=st.sampled_from(DTYPES),
    tau=st.sampled_from([1.0, 0.9, 0.5]) | st.floats(0, 1, width=16),
    threshold=st.just(1.0) | st.floats(0.125, 2),
    gamma=st.just(1.0) | st.floats(0.0625, 4),
    count=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=300, deadline=None)
def test_c_and_torch_give_the_same_bits(
    shape, constant, training, pool, detach, fire_at, dtype, tau, threshold, gamma, count, seed
):
    options = dict(tau=tau, threshold=threshold, fire_at=fire_at, detach_reset=detach)
    layer = normed(shape[2], rules.triangle(gamma), steps=shape[0], pool=pool, dtype=torch.float, **options)
    layer.to(torch.promote_types(dtype, torch.float32)).train(training)  # as under autocast
    x = currents(1 if constant else shape[0], *shape[1:], seed=seed).to(dtype)
    with threads(count):
        fast = gradients(layer, x)
    with in_torch():
        assert_bits(fast, gradients(layer, x))
    height, width = (shape[3] // 2, shape[4] // 2) if pool else shape[3:]
    assert fast[0].shape == (*shape[:3], height, width)


# in eighths membranes meet the threshold, the tips of the triangle and 0 exactly, in 16 bits as well
@compiled
@given(arrays(float, (4, 9), elements=st.integers(-16, 16).map(lambda i: i / 8)), st.sampled_from(DTYPES))
@settings(max_examples=60, deadline=None)
def test_c_and_torch_agree_on_ties(current, dtype):
    current = torch.from_numpy(current).to(dtype)
    for fire_at, detach, tau in product(FIRES, [False, True], [1.0, 0.5]):
        lif = LIF(rules.triangle(0.5), tau=tau, fire_at=fire_at, detach_reset=detach)
        fast = gradients(lif, current)
        with in_torch():
            assert_bits(fast, gradients(lif, current))


@compiled
@pytest.mark.parametrize("name", [*rules.RULES, "triangle without a width"])
def test_c_runs_forward_for_every_rule_and_backward_for_the_triangle(name, monkeypatch):
    def neuron():
        width = {} if name in rules.RULES else {"half_width": None}
        return LIF(rules.build(name.split()[0])._replace(**width))

    calls, run = [], kernel.run
    monkeypatch.setattr(kernel, "run", lambda function, *inputs: (calls.append(function), run(function, *inputs))[1])
    results = [gradients(neuron(), currents(4, 3, 5))]
    assert calls == (["forward", "backward"] if name == "triangle" else ["forward"])
    with in_torch():
        assert_bits(*results, gradients(neuron(), currents(4, 3, 5)))


@pytest.mark.parametrize("dtype", [torch.int64, torch.float16])
def test_c_takes_no_other_numbers(dtype):
    assert dtype not in kernel.NUMBERS  # a new precision needs the tests above


@compiled
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_weights_of_another_precision(weights):
    layer = normed(256, dtype=weights).eval()
    x = currents(5, 2, 256, 2, 2).to(torch.bfloat16 if weights == torch.bfloat16 else torch.float64)
    with in_torch():
        expected = layer(x)
    assert torch.equal(layer(x), expected)


@pytest.fixture
def compiler(monkeypatch):
    """A function of a command, which then stands for the C compiler; nothing is compiled yet."""

    def set_to(command):
        monkeypatch.setenv("CC", command)
        kernel.library.cache_clear()

    yield set_to
    monkeypatch.undo()
    kernel.library.cache_clear()


@pytest.mark.parametrize("command", ["there-is-no-such-compiler", "false", "true"])  # missing; failing; writes nothing
def test_without_a_compiler_there_is_one_warning_and_the_same_bits(command, compiler):
    layer, x = normed(dtype=torch.float, pool=True), currents(5, 3, 3, 5, 4, dtype=torch.float)
    expected = gradients(layer, x)
    compiler(command)
    with pytest.warns(UserWarning, match="neuron was not compiled; torch computes it") as caught:
        assert_bits(expected, gradients(layer, x))
    assert len(caught) == 1 and kernel.library(torch.float) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradients(layer, x)


@compiled
def test_the_compiler_may_have_options(compiler):
    compiler("cc -O0")  # other optimisation, the same bits
    layer, x = normed(dtype=torch.float), currents(5, 3, 3, 5, 4, dtype=torch.float)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = gradients(layer, x)
    with in_torch():
        assert_bits(fast, gradients(layer, x))


# Memory and gradients -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [LIF(rules.triangle()), normed()], ids=["neuron", "layer"])
def test_the_fast_path_refuses_a_second_backward(layer):
    leaf = currents(5, 2, 3, 2, 2).requires_grad_()
    (first,) = torch.autograd.grad(layer(leaf).square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()


@pytest.mark.parametrize("path", ["C", "torch"])
@CONSTANT
@TRAINING
def test_only_the_output_of_the_convolution_is_kept(training, constant, path):
    layer, kept = normed(rule=rules.sigmoid() if path == "torch" else None, pool=True).train(training), []
    x = currents(1 if constant else 5, 4, 3, 6, 6).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: (kept.append(saved), saved)[1], lambda saved: saved):
        layer(x)
    assert [saved.data_ptr() for saved in kept if saved.numel() > 3] == [x.data_ptr()]


@compiled
@TRAINING
def test_nothing_is_summed_for_weights_that_are_frozen(training, monkeypatch):
    calls, run = [], kernel.run
    monkeypatch.setattr(kernel, "run", lambda name, *inputs: (calls.append((name, inputs)), run(name, *inputs))[1])
    layer, x = normed().requires_grad_(False).train(training), currents(5, 4, 3, 4, 4).requires_grad_()
    layer(x).sum().backward()
    ((_, inputs),) = (call for call in calls if call[0] == "backward")
    assert all((grad is None) != training for grad in inputs[-2:])  # in training mode x itself needs the sums


def test_two_passes_may_share_one_backward():
    # as in training with SR: running statistics move between a pass and its backward, and must not matter there
    x, z, layer, other = currents(1, 4, 3, 4, 4), currents(1, 4, 3, 4, 4, seed=1), normed(), normed()
    (layer(x).sum() + layer(z).square().sum()).backward()
    other(x).sum().backward()
    other(z).square().sum().backward()
    torch.testing.assert_close([p.grad for p in layer.parameters()], [p.grad for p in other.parameters()])


def test_a_half_frozen_layer_has_the_gradients_that_are_asked_for():
    x = currents(5, 4, 3, 4, 4)
    expected, frozen, layer = gradients(normed(), x), normed().requires_grad_(False), normed()
    assert_bits(gradients(lambda x: frozen(x), x), expected[:2])
    out = layer(x)  # and no gradient of the input
    weights = torch.randn(out.shape, dtype=torch.double, generator=torch.Generator().manual_seed(1))  # of `gradients`
    assert_bits(torch.autograd.grad((out * weights).sum(), list(layer.parameters())), expected[2:])


@pytest.mark.parametrize("path", ["C", "torch"])
@POOL
def test_no_samples(pool, path):
    layer, x = normed(pool=pool).eval(), torch.zeros(1, 0, 3, 4, 6, dtype=torch.double, requires_grad=True)
    with on(path, layer.neuron), threads(3):
        out = layer(x)
        out.sum().backward()
    assert out.shape == ((5, 0, 3, 2, 3) if pool else (5, 0, 3, 4, 6))
    assert x.grad.shape == x.shape and not layer.weight.grad.any()


def test_one_value_per_channel_has_no_variance_but_steps_that_differ_have():
    layer, x = normed(steps=1), currents(1, 1, 3, 1, 1)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    with pytest.raises(Refused, match="needs at least two values per channel"):
        layer(x)
    assert_bits(layer.state_dict().values(), before.values())
    assert layer.eval()(x).shape == (1, 1, 3, 1, 1)
    steps = currents(5, 1, 3, 1, 1)
    torch.testing.assert_close(gradients(normed(), steps), gradients(Plain(normed()), steps))


def test_an_input_that_does_not_fit_is_refused():
    with pytest.raises(Refused, match="has 3 steps; it must have 1 or 5"):
        normed(steps=5).eval()(currents(3, 2, 3, 4, 4))
    with pytest.raises(Refused, match="1×4 cells is too small for a 2×2 pool"):
        normed(pool=True).eval()(currents(5, 2, 3, 1, 4))


def test_the_layer_has_the_state_of_batch_norm():
    layer = normed()
    assert isinstance(layer, nn.BatchNorm2d) and layer.state_dict().keys() == nn.BatchNorm2d(3).state_dict().keys()
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
