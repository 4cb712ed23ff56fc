"""The fused neuron against `snntorch.Leaky` stepped by hand, and against a slow loop of the paper's equations."""

import gc
import weakref

import pytest
import snntorch as snn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from paperlib import rules
from paperlib.errors import Refused
from paperlib.neurons import LIF

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
    for reference in (False, True):
        lif.reference = reference
        assert lif(torch.ones(6, 1, 1)).flatten().tolist() == spikes


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
        assert_same(expected, with_gradient(lif, current), rtol=1e-12)
        lif.reference = True
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
    assert torch.equal(spikes[0], spikes[1]) and torch.equal(spikes[0], spikes[2])
    assert not torch.allclose(gradients[0], gradients[1]) and not torch.allclose(gradients[0], gradients[2])


# The two paths ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("fire_at", FIRES)
@pytest.mark.parametrize("tau", TAUS)
def test_reference_path_is_the_fast_path(tau, fire_at, detach, dtype):
    lif = LIF(rules.atan(), tau=tau, threshold=0.8, fire_at=fire_at, detach_reset=detach)
    current = currents(8, 3, 4, dtype=dtype)
    fast = with_gradient(lif, current)
    lif.reference = True
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
    lif.reference = True
    leaf = x.clone().requires_grad_()
    (first,) = torch.autograd.grad((lif(leaf) * c).sum(), leaf, create_graph=True)
    (second,) = torch.autograd.grad((first * v).sum(), leaf)
    assert second.abs().max() > 0.1
    torch.testing.assert_close(second, expected, rtol=1e-6, atol=1e-7)


def test_double_backward_through_an_snntorch_surrogate():
    leaky = snn.Leaky(beta=0.5, spike_grad=snn.surrogate.atan(), reset_mechanism="zero", reset_delay=False)
    lif = LIF.from_leaky(leaky)
    lif.reference = True
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


# State, memory layout -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", [False, True])
def test_no_state_outlives_a_call(reference):
    a, b = LIF(rules.triangle(), tau=0.9), LIF(rules.triangle(), tau=0.5)
    for lif in (a, b):
        lif.reference = reference
    charge, small = torch.full((3, 2, 4), 0.9), torch.full((3, 2, 4), 0.2)  # after `charge`, 0.2 more would fire
    alone = a(small), b(small)
    a(charge), b(charge), a(torch.full((5, 7, 1), 0.9))
    assert torch.equal(a(small), alone[0]) and torch.equal(b(small), alone[1])
    assert not alone[0].any()


@pytest.mark.parametrize("reference", [False, True])
def test_the_graph_of_a_call_is_freed(reference):
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
    lif.reference = reference
    lif(marked)
    lif.reference = False
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
    LIF(rules.triangle(), tau=0.9)(leaf).backward(outer)
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
