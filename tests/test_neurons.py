"""The fused neuron against `snntorch.Leaky` stepped by hand and a slow loop of the paper's equations; C against torch.

BatchNorm, neuron and pool in one pass are held against nn.BatchNorm2d on the T-fold batch, that loop, and nn.AvgPool2d;
the smooth neuron against a loop over plain numbers, its gradients against finite differences.
"""

import gc
import math
import warnings
import weakref
from contextlib import contextmanager, nullcontext
from itertools import product

import pytest
import snntorch as snn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from paperlib.errors import Refused
from paperlib.networks import kernel, rules
from paperlib.networks.neurons import LIF, PATHS, NormedLIF

FIRES = {">=": torch.ge, ">": torch.gt}
TAUS = [1.0, 0.9, 0.5, 0.0]


def triangle(u):
    return (1 - u.abs()).clamp(min=0)


def stepped(leaky, current):
    """Spikes of `leaky` with its membrane held by us, as snnTorch's own tutorials step it."""
    mem, spikes = torch.zeros_like(current[0]), []
    for i in current.unbind(0):
        s, mem = leaky(i, mem)
        spikes.append(s)
    return torch.stack(spikes)


def by_the_paper(current, slope=triangle, *, tau=1.0, fire_at=">=", detach=False, curvature=None, centres=None):
    """Section 2 of the paper notes, step by step, each spike written as a polynomial in the membrane around `centres`.

    Its value there is the comparison, its first derivative `slope`, its second `curvature`.  Without `centres` it is
    expanded where it stands, so that autograd sees what surrogate back-propagation means.
    """
    v, spikes, at = torch.zeros_like(current[0]), [], []
    for t, i in enumerate(current.unbind(0)):
        m = tau * v + i
        at.append(m.detach() if centres is None else centres[t])
        d, u = m - at[t], at[t] - 1
        fired = FIRES[fire_at](u, 0).to(m)
        s = fired + slope(u) * d
        if curvature is not None:
            s = s + curvature(u) / 2 * d**2
        v = (1 - (fired if detach else s)) * m
        spikes.append(s)
    return torch.stack(spikes), at


def currents(*shape, dtype=torch.float, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)) * 0.7 + 0.5


def with_gradient(layer, current):
    """Spikes, and the gradient of a fixed random weighting of them with respect to the currents."""
    leaf = current.detach().requires_grad_()
    spikes = layer(leaf)
    weights = torch.randn(spikes.shape, dtype=current.dtype, generator=torch.Generator().manual_seed(1))
    return spikes.detach(), torch.autograd.grad((spikes * weights).sum(), leaf)[0]


def normed(channels=3, rule=None, *, steps=5, pool=False, seed=0, dtype=torch.double, **options):
    """A `NormedLIF` away from where it starts."""
    torch.manual_seed(seed)
    layer = NormedLIF(channels, LIF(rule or rules.triangle(), **options), steps=steps, pool=pool)
    nn.init.uniform_(layer.weight, 0.5, 1.5)
    nn.init.uniform_(layer.bias, -0.2, 0.7)
    nn.init.uniform_(layer.running_mean, -0.2, 0.5)
    nn.init.uniform_(layer.running_var, 0.5, 2)
    return layer.to(dtype)


def all_gradients(layer, x):
    """Output, and the gradients of a fixed random weighting of it with respect to the input and every parameter."""
    leaf = x.detach().requires_grad_()
    out = layer(leaf)
    weights = torch.randn(out.shape, dtype=torch.double, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    gradients = torch.autograd.grad((out * weights).sum(), [leaf, *layer.parameters()])
    return out.detach(), *gradients


@contextmanager
def in_torch():
    """Without the compiled neuron."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "library", lambda dtype: None)
        yield


@contextmanager
def on(path, lif):
    """`lif` on one of its paths, of which the fast one runs in "C" or in "torch"."""
    lif.path = path if path in PATHS else "fast"
    with in_torch() if path == "torch" else nullcontext():
        yield


@contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def assert_same(one, other, rtol=1e-5):
    assert torch.equal(one[0], other[0])
    torch.testing.assert_close(one[1], other[1], rtol=rtol, atol=rtol * one[1].abs().max().item())


# Against snnTorch -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("tau", TAUS)
def test_fused_neuron_is_a_stepped_leaky(tau, detach):
    surrogate = snn.surrogate.custom_surrogate(lambda u, grad, spikes: grad * (1 - u.abs()).clamp(min=0))
    leaky = snn.Leaky(beta=tau, spike_grad=surrogate, reset_mechanism="zero", reset_delay=detach)
    ours = LIF(rules.triangle(), tau=tau, fire_at=">", detach_reset=detach)
    current = currents(12, 4, 3, 5)
    expected, got = with_gradient(lambda i: stepped(leaky, i), current), with_gradient(ours, current)
    assert_same(expected, got)
    assert 0.1 < got[0].mean() < 0.9  # the neurons neither sleep nor fire always


def test_the_resets_own_gradient_matters():
    current = currents(12, 200)
    attached = with_gradient(LIF(rules.triangle()), current)
    detached = with_gradient(LIF(rules.triangle(), detach_reset=True), current)
    assert torch.equal(attached[0], detached[0])
    assert torch.cosine_similarity(attached[1].flatten(), detached[1].flatten(), dim=0) < 0.95


@pytest.mark.parametrize("fire_at, spikes", [(">=", [1, 1, 1, 1, 1, 1]), (">", [0, 1, 0, 1, 0, 1])])
def test_exactly_at_the_threshold(fire_at, spikes):
    # constant input 1: `>=` fires at m = 1 and starts again; `>` waits for m = 2
    lif = LIF(rules.triangle(), fire_at=fire_at)
    for path in ("fast", "reference"):
        lif.path = path
        assert lif(torch.ones(6, 1, 1)).flatten().tolist() == spikes


@pytest.mark.parametrize("path", ["C", "torch", "reference"])
@pytest.mark.parametrize("dtype", [torch.float, torch.double], ids=str)
@pytest.mark.parametrize("threshold", [1.0, 0.7, 0.1, 3e-5])
def test_one_bit_from_the_threshold(threshold, dtype, path):
    at = torch.tensor(threshold, dtype=dtype)
    current = torch.stack([torch.nextafter(at, torch.zeros_like(at)), at, torch.nextafter(at, at + 1)]).view(1, 1, 3)
    for fire_at, spikes in ((">=", [0, 1, 1]), (">", [0, 0, 1])):
        lif = LIF(rules.triangle(), threshold=threshold, fire_at=fire_at)
        with on(path, lif):
            assert lif(current).flatten().tolist() == spikes


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize(
    "surrogate", [snn.surrogate.atan(), snn.surrogate.fast_sigmoid(slope=5), snn.surrogate.sigmoid(slope=4)]
)
def test_from_leaky_takes_over_an_snntorch_surrogate(surrogate, detach):
    leaky = snn.Leaky(beta=0.8, threshold=0.7, spike_grad=surrogate, reset_mechanism="zero", reset_delay=detach)
    lif = LIF.from_leaky(leaky)
    assert (lif.fire_at, lif.detach_reset) == (">", detach)
    current = currents(8, 3, 4)
    assert_same(with_gradient(lambda i: stepped(leaky, i), current), with_gradient(lif, current))


@pytest.mark.parametrize("fire_at", FIRES)
@pytest.mark.parametrize("detach", [False, True])
def test_round_trip_through_leaky(fire_at, detach):
    lif = LIF(rules.sigmoid(), tau=0.9, threshold=0.6, fire_at=fire_at, detach_reset=detach)
    leaky = lif.to_leaky()
    again = LIF.from_leaky(leaky)
    assert (again.fire_at, again.detach_reset) == (fire_at, detach)
    assert (again.tau, again.threshold) == pytest.approx((0.9, 0.6))
    current = currents(8, 3, 4)
    expected = with_gradient(lif, current)
    assert_same(expected, with_gradient(lambda i: stepped(leaky, i), current))
    assert_same(expected, with_gradient(again, current))


# Against the paper's equations --------------------------------------------------------------------------------------


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("fire_at", FIRES)
@pytest.mark.parametrize("tau", TAUS)
def test_fused_neuron_is_the_papers_loop(tau, fire_at, detach):
    current = currents(9, 3, 4, dtype=torch.double)
    lif = LIF(rules.triangle(), tau=tau, fire_at=fire_at, detach_reset=detach)
    expected = with_gradient(lambda i: by_the_paper(i, tau=tau, fire_at=fire_at, detach=detach)[0], current)
    assert_same(expected, with_gradient(lif, current), rtol=1e-12)


# in eighths every sum is exact, so that membranes meet the threshold, the tips of the triangle and 0 exactly
@given(arrays(float, (5, 6), elements=st.integers(-8, 16).map(lambda i: i / 8)), st.sampled_from([1.0, 0.5]))
@settings(max_examples=60, deadline=None)
def test_ties_follow_the_papers_loop(current, tau):
    current = torch.from_numpy(current)
    for fire_at in FIRES:
        expected = with_gradient(lambda i, f=fire_at: by_the_paper(i, tau=tau, fire_at=f)[0], current)
        lif = LIF(rules.triangle(), tau=tau, fire_at=fire_at)
        for path in ("fast", "reference"):
            lif.path = path
            assert_same(expected, with_gradient(lif, current), rtol=1e-12)


def test_three_steps_by_hand():
    # θ = 1, τ = 1, I = 0.5, 0.75, 0.5: m = 0.5, 1.25, 0.5; s = 0, 1, 0; slopes 1 - |m - 1| = 0.5, 0.75, 0.5.
    # s[2] = s(m[2]), m[2] = (1 - s[1])·m[1] + I[2]: ∂m[2]/∂m[1] = (1 - 1) - 1.25·0.75 = -0.9375
    # m[1] = (1 - s[0])·m[0] + I[1]: ∂m[1]/∂m[0] = (1 - 0) - 0.5·0.5 = 0.75
    current = torch.tensor([0.5, 0.75, 0.5]).view(3, 1, 1).requires_grad_()
    spikes = LIF(rules.triangle())(current)
    assert spikes.flatten().tolist() == [0, 1, 0]
    (gradient,) = torch.autograd.grad(spikes[2].sum(), current)
    assert gradient.flatten().tolist() == [0.5 * -0.9375 * 0.75, 0.5 * -0.9375, 0.5]


def test_the_paper_is_the_default():
    current = torch.full((4, 2, 3), 0.5, dtype=torch.double)  # meets the threshold exactly at every second step
    assert_same(with_gradient(lambda i: by_the_paper(i)[0], current), with_gradient(LIF(rules.triangle()), current))


def test_the_forward_pass_does_not_depend_on_the_rule():
    current = currents(8, 50)
    spikes, gradients = zip(*(with_gradient(LIF(rules.build(name)), current) for name in rules.RULES), strict=True)
    assert all(torch.equal(spikes[0], other) for other in spikes)
    for i, j in product(range(len(gradients)), repeat=2):
        assert i == j or not torch.allclose(gradients[i], gradients[j])


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("name", [name for name in rules.RULES if isinstance(rules.build(name), rules.Rule)])
def test_every_rule_in_the_papers_loop(name, detach):
    rule, current = rules.build(name), currents(7, 3, 4, dtype=torch.double)
    expected = with_gradient(lambda i: by_the_paper(i, rule.derivative, tau=0.9, detach=detach)[0], current)
    assert_same(expected, with_gradient(LIF(rule, tau=0.9, detach_reset=detach), current), rtol=1e-12)


# The rate rule ------------------------------------------------------------------------------------------------------


def rate_slope(mean, tau):
    slope = 0.0
    if 1 - tau <= mean <= 2:
        slope += (0.8 + 0.2 * tau) / (1 + tau)
    if 0 <= mean <= 1 - tau:
        slope += 0.2
    return slope


@pytest.mark.parametrize("fire_at", FIRES)
@pytest.mark.parametrize("tau", [1.0, 0.9, 0.5])
def test_rate_rule_is_the_slow_transcription(tau, fire_at):
    current = currents(6, 40, dtype=torch.double)
    current[:, 0], current[:, 1], current[:, 2] = 0, 1 - tau, 2  # the ends
    current[:, 3], current[:, 4] = -0.3, 2.3
    current[:3, 5], current[3:, 5] = -0.25, 0.25  # 0 on average, at no step
    weights = torch.randn(6, 40, dtype=torch.double)
    leaf = current.clone().requires_grad_()
    spikes = LIF(rules.rate(), tau=tau, fire_at=fire_at)(leaf)
    (gradient,) = torch.autograd.grad((spikes * weights).sum(), leaf)
    assert torch.equal(spikes, by_the_paper(current, tau=tau, fire_at=fire_at)[0])
    for n in range(40):
        slope = rate_slope(sum(current[:, n].tolist()) / 6, tau)
        for t in range(6):
            assert gradient[t, n].item() == pytest.approx(weights[t, n].item() * slope, rel=1e-12)
    assert gradient[:, [3, 4]].eq(0).all() and gradient[:, :3].ne(0).all()


def test_the_rate_rule_couples_no_steps():
    for t in range(5):
        leaf = currents(5, 30).requires_grad_()
        (gradient,) = torch.autograd.grad(LIF(rules.rate())(leaf)[t].sum(), leaf)
        assert gradient[t].any() and not gradient[torch.arange(5) != t].any()


@pytest.mark.parametrize("tau", [1.0, 0.5])
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("constant", [False, True])
def test_rate_rule_behind_batch_norm(constant, pool, tau):
    # in eval mode BatchNorm is a scale and a shift; a constant input gathers what all steps send back
    layer = normed(2, rules.rate(), steps=4, pool=pool, tau=tau).eval()
    x = currents(1 if constant else 4, 2, 2, 4, 5, dtype=torch.double)
    out, gradient, *_ = all_gradients(layer, x)
    weights = torch.randn(out.shape, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    scale = layer.weight / (layer.running_var + layer.eps).sqrt()
    current = ((x.transpose(2, -1) - layer.running_mean) * scale + layer.bias).transpose(2, -1)
    expected = torch.zeros_like(x)
    for b, c, h, w in product(*map(range, x.shape[1:])):
        slope = rate_slope(current[:, b, c, h, w].mean().item(), tau)
        for t in range(4):
            if pool and w == 4:
                continue  # the fifth column is dropped
            outer = weights[t, b, c, h // 2, w // 2] / 4 if pool else weights[t, b, c, h, w]
            expected[0 if constant else t, b, c, h, w] += outer * slope * scale[c]
    assert gradient.any()
    torch.testing.assert_close(gradient, expected.detach(), rtol=1e-12, atol=1e-14)


def test_the_rate_rule_cannot_be_stepped():
    lif = LIF(rules.rate())
    with pytest.raises(Refused, match="rate rule.*all time steps"):
        lif.to_leaky()
    lif.path = "reference"
    with pytest.raises(Refused, match="rate rule"):
        lif(currents(3, 2))


# C and torch ----------------------------------------------------------------------------------------------------------

DTYPES = [torch.float32, torch.float64, torch.bfloat16]
compiled = pytest.mark.skipif(not all(map(kernel.library, DTYPES)), reason="no C compiler")


def assert_bits(one, other):
    for a, b in zip(one, other, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert torch.equal(a, b), f"{(a != b).sum()} of {a.numel()} differ"


@compiled
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_c_and_torch_give_the_same_bits(training, constant, pool, dtype):
    x = currents(1 if constant else 5, 3, 4, 5, 7).to(dtype)  # odd both ways: the pool drops a row and a column
    weights = torch.promote_types(dtype, torch.float32)  # as under autocast
    results = []
    for tau, fire_at, detach, gamma in product([1.0, 0.9, 0.5], FIRES, [False, True], [1.0, 0.3, 2.5]):
        layer = normed(4, rules.triangle(gamma), pool=pool, tau=tau, fire_at=fire_at, detach_reset=detach)
        layer.to(weights).train(training)
        results.append(all_gradients(layer, x))
        for count in (1, 3):
            with threads(count):
                assert_bits(results[-1], all_gradients(layer, x))
        with in_torch():
            assert_bits(results[-1], all_gradients(layer, x))
    assert all(result[1].any() for result in results)
    assert not all(torch.equal(results[0][1], other[1]) for other in results[1:])


@compiled
@given(
    # T, B, C, H, W
    shape=st.tuples(*(st.integers(low, high) for low, high in ((1, 6), (1, 3), (1, 5), (2, 6), (2, 6)))),
    constant=st.booleans(),
    pool=st.booleans(),
    detach=st.booleans(),
    fire_at=st.sampled_from(list(FIRES)),
    dtype=st.sampled_from(DTYPES),
    tau=st.floats(0, 1, width=16),
    threshold=st.floats(0.125, 2),
    gamma=st.floats(0.0625, 4),
    count=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=150, deadline=None)
def test_c_and_torch_give_the_same_bits_whatever_the_sizes(
    shape, constant, pool, detach, fire_at, dtype, tau, threshold, gamma, count, seed
):
    options = dict(tau=tau, threshold=threshold, fire_at=fire_at, detach_reset=detach)
    layer = normed(shape[2], rules.triangle(gamma), steps=shape[0], pool=pool, dtype=torch.float, **options).eval()
    layer.to(torch.promote_types(dtype, torch.float32))
    x = currents(1 if constant else shape[0], *shape[1:], seed=seed).to(dtype)
    with threads(count):
        fast = all_gradients(layer, x)
    with in_torch():
        assert_bits(fast, all_gradients(layer, x))
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
        fast = with_gradient(lif, current)
        with in_torch():
            assert_bits(fast, with_gradient(lif, current))


@pytest.mark.parametrize("path", ["C", "torch"])
@pytest.mark.parametrize("rule", [rules.triangle(), rules.atan()], ids=lambda rule: rule.name)
def test_sixteen_bits_are_kept_and_thirty_two_computed(rule, path):
    # the same as in float32 on the rounded currents, and what leaves is rounded once
    current = currents(6, 8, 50).bfloat16()
    outer = currents(6, 8, 50, seed=1).bfloat16()
    lif, results = LIF(rule, tau=0.9), []
    for x, grad in ((current, outer), (current.float(), outer.float())):
        leaf = x.clone().requires_grad_()
        with on(path, lif):
            spikes = lif(leaf)
            spikes.backward(grad)
        results.append((spikes, leaf.grad))
    (spikes, gradient), (wide_spikes, wide_gradient) = results
    assert spikes.dtype == gradient.dtype == torch.bfloat16
    assert torch.equal(spikes.float(), wide_spikes)
    assert torch.equal(gradient, wide_gradient.bfloat16()) and not torch.equal(gradient.float(), wide_gradient)


def test_membranes_of_sixteen_bit_currents_have_thirty_two():
    # 0.75 + 200·0.0015 passes 1; a membrane of 16 bits would stay at 0.75, whose neighbours are 0.004 away
    current = torch.full((200, 1, 1, 1, 1), 0.0015).bfloat16()
    current[0] = 0.75
    spikes = LIF(rules.triangle())(current).flatten()
    expected = current.double().cumsum(0).flatten() >= 1
    assert expected.any() and spikes.nonzero()[0] == expected.nonzero()[0]


@compiled
@pytest.mark.parametrize("name", rules.RULES)
def test_c_runs_forward_for_every_rule_and_backward_for_the_training_rule(name, monkeypatch):
    calls, real = [], kernel.run
    monkeypatch.setattr(kernel, "run", lambda what, *given: (calls.append(what), real(what, *given))[1])
    results = [with_gradient(LIF(rules.build(name)), currents(4, 3, 5))]
    assert calls == (["forward", "backward"] if name == "triangle" else ["forward"])
    with in_torch():
        results.append(with_gradient(LIF(rules.build(name)), currents(4, 3, 5)))
    assert_bits(*results)


@compiled
def test_a_triangle_that_says_no_width_runs_in_torch(monkeypatch):
    current, calls, real = currents(4, 3, 5), [], kernel.run
    expected = with_gradient(LIF(rules.triangle(0.7)), current)
    monkeypatch.setattr(kernel, "run", lambda what, *given: (calls.append(what), real(what, *given))[1])
    assert_bits(expected, with_gradient(LIF(rules.triangle(0.7)._replace(half_width=None)), current))
    assert calls == ["forward"]


@pytest.mark.parametrize("dtype", [torch.int64, torch.float16])
def test_c_takes_no_other_numbers(dtype):
    assert dtype not in kernel.NUMBERS  # or a new precision wants the tests above


@pytest.fixture
def compiler(monkeypatch):
    """A function of a command: it stands for the C compiler, and nothing is compiled yet."""

    def set_to(command):
        monkeypatch.setenv("CC", command)
        kernel.library.cache_clear()

    yield set_to
    monkeypatch.undo()
    kernel.library.cache_clear()


@pytest.mark.parametrize("command", ["there-is-no-such-compiler", "false", "true"])  # missing; failing; writes nothing
def test_without_a_compiler_the_numbers_stay(command, compiler):
    layer, x = normed(dtype=torch.float, pool=True), currents(5, 3, 3, 5, 4)
    expected = all_gradients(layer, x)
    compiler(command)
    with pytest.warns(UserWarning, match="neuron stays uncompiled") as told:
        got = all_gradients(layer, x)
    assert len(told) == 1 and kernel.library(torch.float) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once
        assert_bits(got, all_gradients(layer, x))
    assert_bits(expected, got)


@compiled
def test_the_compiler_may_have_options(compiler):
    compiler("cc -O0")  # other optimisation, the same bits
    layer, x = normed(dtype=torch.float), currents(5, 3, 3, 5, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = all_gradients(layer, x)
    with in_torch():
        assert_bits(fast, all_gradients(layer, x))


# BatchNorm, neuron and pool -------------------------------------------------------------------------------------------


def plainly(layer, x, slope=triangle, curvature=None, centres=None):
    """What `layer` is said to be: nn.BatchNorm2d on T·B inputs, the paper's loop, nn.AvgPool2d; and the membranes."""
    x = x.expand(layer.steps, *x.shape[1:])
    current = nn.BatchNorm2d.forward(layer, x.flatten(0, 1)).unflatten(0, x.shape[:2])
    lif = layer.neuron
    options = dict(tau=lif.tau, fire_at=lif.fire_at, detach=lif.detach_reset, curvature=curvature, centres=centres)
    spikes, at = by_the_paper(current, slope, **options)
    return (nn.AvgPool2d(2)(spikes.flatten(0, 1)).unflatten(0, x.shape[:2]) if layer.pool else spikes), at


class Plain(nn.BatchNorm2d):
    """`plainly` as a module, with the state of `layer`."""

    def __init__(self, layer, slope=triangle):
        super().__init__(layer.num_features, dtype=torch.double)
        self.load_state_dict(layer.state_dict())
        self.neuron, self.steps, self.pool, self.slope = layer.neuron, layer.steps, layer.pool, slope

    def forward(self, x):
        return plainly(self, x, self.slope)[0]


@pytest.mark.parametrize("path", ["C", "torch", "reference"])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("fire_at, detach, tau, name", [(">=", False, 1.0, "triangle"), (">", True, 0.5, "sigmoid")])
def test_the_layer_is_batch_norm_neuron_and_pool(fire_at, detach, tau, name, pool, constant, path):
    rule = rules.build(name)
    layer = normed(rule=rule, pool=pool, tau=tau, fire_at=fire_at, detach_reset=detach)
    plain = Plain(layer, rule.derivative)
    steps, options = 1 if constant else 5, dict(rtol=1e-9, atol=1e-12)
    for training, seed in ((True, 0), (False, 1), (True, 2)):
        layer.train(training), plain.train(training)
        x = currents(steps, 4, 3, 3, 5, dtype=torch.double, seed=seed)  # odd both ways; 60 or 300 values a channel
        expected = all_gradients(plain, x)
        with on(path, layer.neuron):
            got = all_gradients(layer, x)
        assert torch.equal(got[0], expected[0]) and 0.05 < got[0].mean() < 0.95
        torch.testing.assert_close(got, expected, **options)
        torch.testing.assert_close(layer.state_dict(), plain.state_dict(), **options)


def test_the_layer_is_batch_norm_a_stepped_leaky_and_a_pool():
    # nothing of ours in it: torch's BatchNorm and pool, snnTorch's neuron
    surrogate = snn.surrogate.custom_surrogate(lambda u, grad, spikes: grad * (1 - u.abs()).clamp(min=0))
    norm, pool = nn.BatchNorm2d(3, dtype=torch.double), nn.AvgPool2d(2)
    leaky = snn.Leaky(beta=0.9, spike_grad=surrogate, reset_mechanism="zero", reset_delay=False)
    layer = normed(pool=True, tau=leaky.beta.item(), fire_at=">")
    norm.load_state_dict(layer.state_dict())
    x = currents(1, 4, 3, 4, 6, dtype=torch.double).requires_grad_()
    weights = currents(5, 4, 3, 2, 3, dtype=torch.double, seed=1)

    current = norm(x[0].repeat(5, 1, 1, 1)).unflatten(0, (5, 4))
    expected = torch.stack([pool(spikes) for spikes in stepped(leaky, current)])
    got = layer(x)
    assert torch.equal(got, expected)
    gradients = torch.autograd.grad((got * weights).sum(), [x, *layer.parameters()])
    expected_gradients = torch.autograd.grad((expected * weights).sum(), [x, *norm.parameters()])
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-5, atol=1e-6)  # snnTorch's spikes are float32
    torch.testing.assert_close(layer.state_dict(), norm.state_dict(), rtol=1e-12, atol=0)


def test_one_step_stands_for_all():
    # 12 values a channel: N/(N - 1) of the running variance differs visibly from 60/59
    x = currents(1, 2, 3, 2, 3, dtype=torch.double)
    once, repeated = normed(), normed()
    for _ in range(3):
        expected = all_gradients(repeated, x.repeat(5, 1, 1, 1, 1))
        out, gradient, *of_parameters = all_gradients(once, x)
        assert torch.equal(out, expected[0])
        torch.testing.assert_close(gradient, expected[1].sum(0, keepdim=True))
        torch.testing.assert_close(tuple(of_parameters), expected[2:])
        torch.testing.assert_close(once.state_dict(), repeated.state_dict())
    assert once.num_batches_tracked == 3


@pytest.mark.parametrize("name", ["triangle", "sigmoid", "atan"])
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_reference_path_has_the_fast_paths_bits(training, constant, pool, name):
    # in float32: mean and variance must be the same numbers too, or now and then a spike would move
    fast, slow = (normed(rule=rules.build(name), pool=pool, tau=0.9, dtype=torch.float) for _ in range(2))
    slow.neuron.path = "reference"
    for seed in range(5):
        x = currents(1 if constant else 5, 8, 3, 9, 9, seed=seed)
        got, expected = (all_gradients(layer.train(training), x) for layer in (fast, slow))
        assert torch.equal(got[0], expected[0])
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * b.abs().max().item())
        assert_bits(fast.state_dict().values(), slow.state_dict().values())


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_double_backward_of_the_layer(training, constant, pool, detach):
    # As for the neuron alone: around the membranes of one input the plain layer is a smooth function of input, weight
    # and bias; its Hessian times a direction, from central differences of the gradient that autograd gives through
    # nn.BatchNorm2d, against the gradient of the reference path's gradient.
    rule = rules.sigmoid()
    layer = normed(2, rule, steps=4, pool=pool, tau=0.5, detach_reset=detach).train(training)
    x = currents(1 if constant else 4, 2, 2, 3, 3, dtype=torch.double)
    point = [x, layer.weight.detach().clone(), layer.bias.detach().clone()]
    direction = [torch.randn(p.shape, dtype=torch.double, generator=torch.Generator().manual_seed(3)) for p in point]
    smooth = dict(slope=rule.derivative, curvature=CURVATURES["sigmoid"])
    out, centres = plainly(layer, x, **smooth)
    c = torch.randn(out.shape, dtype=torch.double, generator=torch.Generator().manual_seed(4))

    def gradient(h):
        with torch.no_grad():
            leaf = point[0] + h * direction[0]
            layer.weight.copy_(point[1] + h * direction[1]), layer.bias.copy_(point[2] + h * direction[2])
        leaf.requires_grad_()
        value = (plainly(layer, leaf, **smooth, centres=centres)[0] * c).sum()
        return torch.autograd.grad(value, [leaf, *layer.parameters()])

    h = 1e-5
    expected = [(a - b) / (2 * h) for a, b in zip(gradient(h), gradient(-h), strict=True)]

    gradient(0)  # back to the point
    layer.neuron.path = "reference"
    leaves = [x.clone().requires_grad_(), *layer.parameters()]
    first = torch.autograd.grad((layer(leaves[0]) * c).sum(), leaves, create_graph=True)
    along = sum((f * v).sum() for f, v in zip(first, direction, strict=True))
    second = torch.autograd.grad(along, leaves)
    assert all(part.abs().max() > 0.1 for part in second)
    torch.testing.assert_close(list(second), expected, rtol=1e-5, atol=1e-6)


def test_the_layers_fast_path_refuses_a_second_backward():
    leaf = currents(5, 2, 3, 2, 2, dtype=torch.double).requires_grad_()
    (first,) = torch.autograd.grad(normed()(leaf).square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()


@pytest.mark.parametrize("path", ["C", "torch"])
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("training", [False, True])
def test_only_the_convolutions_output_is_kept(training, steps, path):
    layer, kept = normed(rule=rules.sigmoid() if path == "torch" else None, pool=True).train(training), []
    x = currents(steps, 4, 3, 6, 6, dtype=torch.double).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: (kept.append(saved), saved)[1], lambda saved: saved):
        layer(x)
    large = [saved for saved in kept if saved.numel() > 3]
    assert [saved.data_ptr() for saved in large] == [x.data_ptr()]


def test_two_passes_may_share_one_backward():
    # as in training with SR: running statistics move between a pass and its backward, and must not matter there
    x, z = currents(1, 4, 3, 4, 4, dtype=torch.double), currents(1, 4, 3, 4, 4, dtype=torch.double, seed=1)
    layer = normed()
    (layer(x).sum() + layer(z).square().sum()).backward()
    together = [p.grad for p in layer.parameters()]
    other = normed()
    other(x).sum().backward()
    other(z).square().sum().backward()
    torch.testing.assert_close(together, [p.grad for p in other.parameters()])


def test_a_half_frozen_layer_has_the_gradients_that_are_asked_for():
    x = currents(5, 4, 3, 4, 4, dtype=torch.double)
    full = all_gradients(normed(), x)
    frozen = normed().requires_grad_(False)
    leaf = x.clone().requires_grad_()
    out = frozen(leaf)
    weights = torch.randn(out.shape, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    assert torch.equal(torch.autograd.grad((out * weights).sum(), leaf)[0], full[1])
    layer = normed()
    out = layer(x)  # and no gradient of the input
    gradients = torch.autograd.grad((out * weights).sum(), list(layer.parameters()))
    assert_bits(gradients, full[2:])


@pytest.mark.parametrize("path", ["C", "torch"])
@pytest.mark.parametrize("pool", [False, True])
def test_no_samples(pool, path):
    layer, x = normed(pool=pool).eval(), torch.zeros(1, 0, 3, 4, 6, dtype=torch.double)
    with in_torch() if path == "torch" else threads(3):
        assert layer(x).shape == ((5, 0, 3, 2, 3) if pool else (5, 0, 3, 4, 6))


def test_no_samples_have_gradients_too():
    layer, x = normed().eval(), torch.zeros(1, 0, 3, 4, 6, dtype=torch.double, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.shape == x.shape and not layer.weight.grad.any()


def test_one_value_per_channel_has_no_variance():
    x = torch.ones(1, 1, 3, 1, 1, dtype=torch.double)
    with pytest.raises(Refused, match="needs at least two values per channel"):
        normed(steps=1)(x)
    layer = normed(steps=1)
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    with pytest.raises(Refused):
        layer(x)
    assert_bits(layer.state_dict().values(), before.values())  # and is not remembered
    assert layer.eval()(x).shape == (1, 1, 3, 1, 1)


def test_steps_that_differ_have_a_variance():
    layer, x = normed(), currents(5, 1, 3, 1, 1, dtype=torch.double)
    torch.testing.assert_close(all_gradients(layer, x), all_gradients(Plain(normed()), x))


def test_an_input_of_neither_one_nor_all_steps_is_refused():
    with pytest.raises((Refused, RuntimeError)):
        normed(steps=5).eval()(currents(3, 2, 3, 4, 4, dtype=torch.double))


@compiled
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_weights_of_another_precision(weights):
    layer = normed(256, dtype=weights).eval()
    x = currents(5, 2, 256, 2, 2).to(torch.bfloat16 if weights == torch.bfloat16 else torch.float64)
    with in_torch():
        expected = layer(x)
    assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("layer", [LIF(rules.triangle()), normed(dtype=torch.float)], ids=["neuron", "layer"])
def test_reference_path_has_the_fast_paths_bits_in_sixteen(layer):
    x = currents(5, 20, 3, 9, 9).bfloat16()
    fast = layer(x)
    neuron = layer if isinstance(layer, LIF) else layer.neuron
    neuron.path = "reference"
    assert_bits([fast], [layer(x)])


def test_the_layer_has_the_state_of_batch_norm():
    layer = normed()
    assert isinstance(layer, nn.BatchNorm2d)
    assert layer.state_dict().keys() == nn.BatchNorm2d(3).state_dict().keys()
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]


# The reference path -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("fire_at", FIRES)
@pytest.mark.parametrize("tau", TAUS)
def test_reference_path_is_the_fast_path(tau, fire_at, detach, dtype):
    lif = LIF(rules.atan(), tau=tau, threshold=0.8, fire_at=fire_at, detach_reset=detach)
    current = currents(8, 3, 4, dtype=dtype)
    fast = with_gradient(lif, current)
    lif.path = "reference"
    slow = with_gradient(lif, current)
    assert fast[0].dtype == slow[0].dtype == slow[1].dtype == dtype
    assert_same(fast, slow, rtol=1e-5 if dtype == torch.float else 1e-12)


CURVATURES = {  # derivatives of the rules, by hand
    "triangle": lambda u: -u.sign() * (u.abs() < 1),
    "sigmoid": lambda u: 16 * torch.sigmoid(4 * u) * torch.sigmoid(-4 * u) * (1 - 2 * torch.sigmoid(4 * u)),
}


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("name", CURVATURES)
def test_double_backward_of_the_reference_path(name, detach):
    # The polynomial of `by_the_paper` around the membranes of x is an ordinary smooth function; the Hessian of one
    # weighting of its outputs at x, times a vector, follows from central differences of its first derivative.
    rule, (x, c, v) = rules.build(name), torch.stack([currents(4, 2, 3, dtype=torch.double, seed=s) for s in (2, 3, 4)])
    oracle = dict(slope=rule.derivative, curvature=CURVATURES[name], tau=0.5, detach=detach)
    _, centres = by_the_paper(x, **oracle)

    def slope(x):
        leaf = x.detach().requires_grad_()
        value = (by_the_paper(leaf, **oracle, centres=centres)[0] * c).sum()
        return torch.autograd.grad(value, leaf)[0]

    h = 1e-5
    expected = (slope(x + h * v) - slope(x - h * v)) / (2 * h)

    lif = LIF(rule, tau=0.5, detach_reset=detach)
    lif.path = "reference"
    leaf = x.clone().requires_grad_()
    (first,) = torch.autograd.grad((lif(leaf) * c).sum(), leaf, create_graph=True)
    (second,) = torch.autograd.grad((first * v).sum(), leaf)
    assert second.abs().max() > 0.1
    torch.testing.assert_close(second, expected, rtol=1e-6, atol=1e-7)


def test_double_backward_through_an_snntorch_surrogate():
    leaky = snn.Leaky(beta=0.5, spike_grad=snn.surrogate.atan(), reset_mechanism="zero", reset_delay=False)
    lif = LIF.from_leaky(leaky)
    lif.path = "reference"
    seconds = []
    for layer in (lif, lambda i: stepped(leaky, i)):
        leaf = currents(4, 2, 3).requires_grad_()
        (first,) = torch.autograd.grad(layer(leaf).square().sum(), leaf, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), leaf)[0])
    torch.testing.assert_close(*seconds)


def test_fast_path_refuses_a_second_backward():
    leaf = currents(4, 3).requires_grad_()
    (first,) = torch.autograd.grad(LIF(rules.triangle())(leaf).square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()


# The smooth path ----------------------------------------------------------------------------------------------------


AREAS = {  # integrals of the rules at their usual widths, by hand
    "triangle": lambda u: 0.5 + u - u * abs(u) / 2 if abs(u) < 1 else float(u > 0),
    "sigmoid": lambda u: 1 / (1 + math.exp(-4 * u)),
    "atan": lambda u: 0.5 + math.atan(math.pi * u) / math.pi,
    "rectangle": lambda u: min(max(0.5 + u, 0), 1),
    "exponential": lambda u: math.exp(u) / 2 if u < 0 else 1 - math.exp(-u) / 2,
}


def smoothly(current, area, *, tau, threshold, resets=None):
    """The smooth neuron on currents (T, N), number by number; reset by its own spikes, or by `resets`."""
    spikes = torch.empty_like(current)
    for n in range(current.shape[1]):
        v = 0.0
        for t in range(len(current)):
            m = tau * v + current[t, n].item()
            spikes[t, n] = area(m - threshold)
            v = (1 - (spikes if resets is None else resets)[t, n].item()) * m
    return spikes


def smooth(name, **options):
    lif = LIF(rules.build(name), **options)
    lif.path = "smooth"
    return lif


@pytest.mark.parametrize("name", AREAS)
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("tau, threshold", [(1.0, 1.0), (0.9, 0.7), (0.5, 1.3), (0.0, 1.0)])
def test_smooth_neuron_is_the_slow_loop(tau, threshold, detach, name):
    # its gradient is that of the loop, whose resets stand still where they are detached
    current = currents(5, 4, dtype=torch.double)
    oracle = dict(area=AREAS[name], tau=tau, threshold=threshold)
    spikes, gradient = with_gradient(smooth(name, tau=tau, threshold=threshold, detach_reset=detach), current)
    expected = smoothly(current, **oracle)
    torch.testing.assert_close(spikes, expected, rtol=1e-12, atol=1e-12)
    assert 0.1 < spikes.mean() < 0.9

    weights = torch.randn(5, 4, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    differences, h = torch.empty_like(current), 1e-6
    for place in product(range(5), range(4)):
        step = torch.zeros_like(current)
        step[place] = h
        ends = [smoothly(current + way, **oracle, resets=expected if detach else None) for way in (step, -step)]
        differences[place] = ((ends[0] - ends[1]) * weights).sum() / (2 * h)
    torch.testing.assert_close(gradient, differences, rtol=1e-6, atol=1e-8)


def test_three_smooth_steps_by_hand():
    # θ = 1, τ = 1, I = 0.5, 0.5, 0.5; s = (1 + u)²/2 for u ≤ 0, 1 - (1 - u)²/2 above.
    # m[0] = 0.5, s = 1/8, v = 7/16;  m[1] = 15/16, s = 225/512, v = 287/512 · 15/16
    lif = smooth("triangle")
    spikes = lif(torch.full((3, 1, 1), 0.5, dtype=torch.double)).flatten().tolist()
    last = 0.5 + 287 * 15 / (512 * 16)  # above the threshold
    assert spikes == [1 / 8, 225 / 512, 1 - (2 - last) ** 2 / 2]


@pytest.mark.parametrize("name", ["sigmoid", "atan"])
def test_smooth_neuron_can_be_differentiated_twice(name):
    lif = smooth(name, tau=0.9, threshold=0.8)
    leaf = currents(4, 2, 2, dtype=torch.double).requires_grad_()
    assert torch.autograd.gradcheck(lif, leaf)
    assert torch.autograd.gradgradcheck(lif, leaf)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("name", AREAS)
def test_the_first_surrogate_gradient_is_that_of_the_smooth_neuron(name, detach):
    # up to the first spike the membranes are the same; from the second step on the resets differ
    hard = LIF(rules.build(name), tau=0.9, detach_reset=detach)
    soft = smooth(name, tau=0.9, detach_reset=detach)
    for steps in (1, 3):
        current = currents(steps, 8, 5, dtype=torch.double)
        (spikes, surrogate), (areas, exact) = (with_gradient(lif, current) for lif in (hard, soft))
        assert surrogate.any() and not torch.allclose(spikes, areas)
        assert torch.allclose(surrogate, exact, rtol=1e-12, atol=1e-14) == (steps == 1)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("name, widths", [("triangle", 1), ("rectangle", 2)])  # wide on either side: γ, γ/2
def test_a_narrow_smooth_neuron_spikes(name, widths, detach):
    current = currents(12, 4, 20, dtype=torch.double)
    spikes, membranes = by_the_paper(current, tau=0.9)
    nearest = (torch.stack(membranes) - 1).abs().min().item()
    narrow, wide = (
        LIF(rules.build(name, gamma=f * widths * nearest), tau=0.9, detach_reset=detach) for f in (0.99, 500)
    )
    narrow.path = wide.path = "smooth"
    assert torch.equal(narrow(current), spikes) and 0.1 < spikes.mean() < 0.9
    assert not torch.equal(wide(current), spikes)


def test_a_smooth_neuron_has_no_edge_to_fire_at():
    current = torch.ones(6, 3, 2)  # meets the threshold exactly
    assert torch.equal(smooth("triangle", fire_at=">=")(current), smooth("triangle", fire_at=">")(current))


@pytest.mark.parametrize("name", AREAS)
@pytest.mark.parametrize("dtype", [torch.float, torch.double, torch.bfloat16], ids=str)
def test_precision_of_the_smooth_neuron(dtype, name):
    # sixteen bits are kept, thirty-two computed, and what leaves is rounded once
    current, lif = currents(6, 8, 20).to(dtype), smooth(name, tau=0.9)
    spikes, gradient = with_gradient(lif, current)
    assert spikes.dtype == gradient.dtype == dtype
    if dtype == torch.bfloat16:
        assert torch.equal(spikes, lif(current.float()).bfloat16())
    else:
        torch.testing.assert_close(spikes.double(), lif(current.double()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("constant", [False, True])
def test_the_smooth_layer_is_batch_norm_smooth_neuron_and_pool(constant, pool, training):
    layer = normed(rule=rules.triangle(), pool=pool, tau=0.9).train(training)
    norm = nn.BatchNorm2d(3, dtype=torch.double).train(training)
    norm.load_state_dict(layer.state_dict())
    layer.neuron.path = "smooth"
    x = currents(1 if constant else 5, 4, 3, 3, 5, dtype=torch.double)
    got = all_gradients(layer, x)

    def plain(x):
        current = norm(x.expand(5, *x.shape[1:]).flatten(0, 1)).unflatten(0, (5, 4))
        spikes = smooth("triangle", tau=0.9)(current)
        return nn.AvgPool2d(2)(spikes.flatten(0, 1)).unflatten(0, (5, 4)) if pool else spikes

    plain.parameters = norm.parameters
    torch.testing.assert_close(got, all_gradients(plain, x), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(layer.state_dict(), norm.state_dict(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("training", [False, True])
def test_the_smooth_layer_can_be_differentiated_twice(training):
    layer = normed(2, rules.sigmoid(), steps=3, pool=True, tau=0.5).train(training)
    layer.neuron.path = "smooth"

    def output(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, x)

    leaves = [currents(1, 2, 2, 2, 3, dtype=torch.double).requires_grad_(), *layer.parameters()]
    assert torch.autograd.gradcheck(output, leaves)
    assert torch.autograd.gradgradcheck(output, leaves)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("pool", [False, True])
def test_the_surrogate_gradient_of_one_step_is_that_of_the_smooth_layer(pool, training):
    layer, x = normed(steps=1, pool=pool).train(training), currents(1, 4, 3, 4, 5, dtype=torch.double)
    out, *surrogate = all_gradients(layer, x)
    layer.neuron.path = "smooth"
    areas, *exact = all_gradients(layer, x)
    assert not torch.allclose(out, areas)
    torch.testing.assert_close(surrogate, exact, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "rule, name",
    [
        (rules.rate(), "rate"),
        (rules.straight_through(), "straight-through"),
        (rules.from_surrogate(snn.surrogate.atan()), "snntorch"),
    ],
)
def test_a_rule_without_an_integral_cannot_be_smoothed(rule, name):
    lif = LIF(rule)
    lif.path = "smooth"
    with pytest.raises(Refused, match=f"rule {name} has no integral"):
        lif(currents(3, 2))
    layer = normed(rule=rule)
    layer.neuron.path = "smooth"
    with pytest.raises(Refused, match=f"rule {name} has no integral"):
        layer(currents(5, 2, 3, 4, 4, dtype=torch.double))


# State, memory layout -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_no_state_outlives_a_call(path):
    a, b = LIF(rules.triangle(0.1), tau=0.9), LIF(rules.triangle(0.1), tau=0.5)
    a.path = b.path = path
    charge, small = torch.full((3, 2, 4), 0.9), torch.full((3, 2, 4), 0.2)  # after `charge`, 0.2 more would fire
    alone = a(small), b(small)
    a(charge), b(charge), a(torch.full((5, 7, 1), 0.9))
    assert torch.equal(a(small), alone[0]) and torch.equal(b(small), alone[1])
    assert not alone[0].any()


@pytest.mark.parametrize("path", PATHS)
def test_the_graph_of_a_call_is_freed(path):
    class Mark(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad

    marked = Mark.apply(currents(3, 2).requires_grad_())
    node = weakref.ref(marked.grad_fn)
    lif = LIF(rules.triangle())
    lif.path = path
    lif(marked)
    del marked
    gc.collect()
    assert node() is None


LAYOUTS = {
    "permuted": lambda: currents(3, 4, 6, 5).permute(2, 0, 3, 1),
    "every second": lambda: currents(12, 4, 6)[::2, :, ::2],
    "expanded over time": lambda: currents(4, 3, 5, 5).expand(6, 4, 3, 5, 5),
    "expanded inside": lambda: currents(6, 4, 1).expand(6, 4, 5),
    "channels last": lambda: currents(4, 3, 5, 5).to(memory_format=torch.channels_last).expand(6, 4, 3, 5, 5),
    "one step": lambda: currents(1, 4, 3),
    "no samples": lambda: currents(6, 0, 3),
}


NORMED_LAYOUTS = {
    "channels last": lambda: currents(20, 3, 4, 6).to(memory_format=torch.channels_last).unflatten(0, (5, 4)),
    "permuted": lambda: currents(3, 4, 6, 5, 4).permute(3, 4, 0, 1, 2),
    "every second": lambda: currents(10, 4, 6, 4, 6)[::2, :, ::2],
    "expanded over time": lambda: currents(4, 3, 4, 6).expand(5, 4, 3, 4, 6),
    "expanded inside": lambda: currents(1, 4, 3, 4, 1).expand(1, 4, 3, 4, 6),
}


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("layout", NORMED_LAYOUTS)
def test_memory_layout_changes_nothing_in_the_layer(layout, pool):
    x = NORMED_LAYOUTS[layout]().double()
    got = all_gradients(normed(pool=pool), x)
    expected = all_gradients(Plain(normed(pool=pool)), x.clone(memory_format=torch.contiguous_format))
    assert torch.equal(got[0], expected[0])
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layout_changes_nothing(layout):
    lif, current = LIF(rules.triangle(), tau=0.9), LAYOUTS[layout]()
    leaf = current.detach().requires_grad_()
    weights = torch.linspace(-1, 1, current.numel()).view(current.shape)
    spikes = lif(leaf)
    (gradient,) = torch.autograd.grad((spikes * weights).sum(), leaf)

    plain = current.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    expected = by_the_paper(plain, tau=0.9)[0]
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), plain)
    assert spikes.shape == current.shape and torch.equal(spikes, expected)
    torch.testing.assert_close(gradient, expected_gradient)


def test_the_input_and_the_outer_gradient_are_left_alone():
    current, outer = currents(5, 4), currents(5, 4, seed=1)
    kept = current.clone(), outer.clone()
    leaf = current.requires_grad_()
    every = [rules.triangle(), rules.sigmoid(), rules.rate()]
    for rule, path in [*product(every, ["fast"]), *product(every[:2], ["reference", "smooth"])]:
        lif = LIF(rule, tau=0.9)
        lif.path = path
        lif(leaf).backward(outer)
        assert torch.equal(leaf.detach(), kept[0]) and torch.equal(outer, kept[1])


# Refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, sentence",
    [
        (dict(tau=1.01), r"tau is 1\.01.*\[0, 1\]"),
        (dict(tau=-0.1), "tau is -0.1"),
        (dict(tau=float("nan")), "tau is nan"),
        (dict(tau="1"), "tau is '1'"),
        (dict(threshold=0), "threshold is 0"),
        (dict(threshold=-1.0), "threshold is -1.0"),
        (dict(fire_at="=="), "fire_at '=='.*>=, >"),
    ],
)
def test_refused(options, sentence):
    with pytest.raises(Refused, match=sentence):
        LIF(rules.triangle(), **options)


@pytest.mark.filterwarnings("ignore:Inhibition is an unstable feature")
@pytest.mark.parametrize(
    "options, sentence",
    [
        (dict(), "reset_mechanism = 'subtract'.*'zero'"),
        (dict(reset_mechanism="none"), "reset_mechanism = 'none'"),
        (dict(reset_mechanism="zero", beta=torch.rand(3)), "betas = 3"),
        (dict(reset_mechanism="zero", threshold=torch.rand(4)), "thresholds = 4"),
        (dict(reset_mechanism="zero", graded_spikes_factor=2.0), "graded_spikes_factor"),
        (dict(reset_mechanism="zero", inhibition=True), "inhibition"),
        (dict(reset_mechanism="zero", state_quant=torch.round), "state_quant"),
    ],
)
def test_a_leaky_that_is_another_neuron_is_refused(options, sentence):
    with pytest.raises(Refused, match=sentence):
        LIF.from_leaky(snn.Leaky(**{"beta": 0.9, **options}))
