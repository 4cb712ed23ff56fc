"""The neuron against a stepped `snntorch.Leaky`, the paper's loop and plain numbers, on all its paths."""

import gc
import math
import weakref
from itertools import product

import pytest
import snntorch as snn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracles import FIRES, currents, gradients, on, paper_neuron, paper_spikes

from paperlib.errors import Refused
from paperlib.networks import rules
from paperlib.networks.neurons import LIF, PATHS

TRIANGLE = snn.surrogate.custom_surrogate(lambda u, grad, spikes: grad * (1 - u.abs()).clamp(min=0))
STEPPED = [
    name for name in rules.RULES if isinstance(rules.build(name), rules.Rule)
]  # rules that need one step at once
SWITCHES = [(1.0, 1.0, ">=", False), (0.9, 0.8, ">", True), (0.5, 1.0, ">", False), (0.0, 1.3, ">=", True)]


def stepped(leaky, current):
    """Spikes of `leaky` with its membrane held by us, as snnTorch's tutorials step it."""
    mem, spikes = torch.zeros_like(current[0]), []
    for i in current.unbind(0):
        s, mem = leaky(i, mem)
        spikes.append(s)
    return torch.stack(spikes)


def assert_same(one, other, rtol=1e-5):
    assert torch.equal(one[0], other[0])
    torch.testing.assert_close(one[1], other[1], rtol=rtol, atol=rtol * one[1].abs().max().item())


# Against snnTorch ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("tau", [1.0, 0.8, 0.0])
@pytest.mark.parametrize(
    "surrogate", [TRIANGLE, snn.surrogate.atan(), snn.surrogate.fast_sigmoid(slope=5), snn.surrogate.sigmoid(slope=4)]
)
def test_a_neuron_made_from_a_leaky_is_that_leaky(surrogate, tau, detach):
    leaky = snn.Leaky(beta=tau, threshold=0.7, spike_grad=surrogate, reset_mechanism="zero", reset_delay=detach)
    lif, current = LIF.from_leaky(leaky), currents(12, 4, 3, 5, dtype=torch.float)
    assert (lif.fire_at, lif.detach_reset) == (">", detach)
    expected, result = gradients(lambda i: stepped(leaky, i), current), gradients(lif, current)
    assert_same(expected, result)
    assert 0.1 < result[0].mean() < 0.9
    if surrogate is TRIANGLE:
        ours = LIF(rules.triangle(), tau=tau, threshold=leaky.threshold.item(), fire_at=">", detach_reset=detach)
        assert_same(expected, gradients(ours, current))


@pytest.mark.parametrize("fire_at", FIRES)
@pytest.mark.parametrize("detach", [False, True])
def test_a_neuron_goes_through_a_leaky_and_back(fire_at, detach):
    lif = LIF(rules.sigmoid(), tau=0.9, threshold=0.6, fire_at=fire_at, detach_reset=detach)
    leaky = lif.to_leaky()
    again = LIF.from_leaky(leaky)
    assert (again.fire_at, again.detach_reset) == (fire_at, detach)
    assert (again.tau, again.threshold) == pytest.approx((0.9, 0.6))
    current = currents(8, 3, 4, dtype=torch.float)
    for other in (again, lambda i: stepped(leaky, i)):
        assert_same(gradients(lif, current), gradients(other, current))


def test_the_reference_path_differentiates_an_snntorch_surrogate_twice():
    leaky = snn.Leaky(beta=0.5, spike_grad=snn.surrogate.atan(), reset_mechanism="zero", reset_delay=False)
    lif = LIF.from_leaky(leaky)
    lif.path, seconds = "reference", []
    for layer in (lif, lambda i: stepped(leaky, i)):
        leaf = currents(4, 2, 3, dtype=torch.float).requires_grad_()
        (first,) = torch.autograd.grad(layer(leaf).square().sum(), leaf, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), leaf)[0])
    torch.testing.assert_close(*seconds)


# Against the paper's equations --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau, threshold, fire_at, detach", SWITCHES)
@pytest.mark.parametrize("name, path", [*product([*STEPPED, "rate"], ["C", "torch"]), *product(STEPPED, ["reference"])])
def test_every_rule_in_the_papers_loop(name, tau, threshold, fire_at, detach, path):
    lif = LIF(rules.build(name), tau=tau, threshold=threshold, fire_at=fire_at, detach_reset=detach)
    current = currents(9, 3, 4)
    with on(path, lif):
        result = gradients(lif, current)
        single = gradients(lif, current.float())
    assert 0.1 < result[0].mean() < 0.9
    assert_same(gradients(lambda i: paper_spikes(i, lif), current), result, rtol=1e-12)
    assert {t.dtype for t in result} == {torch.double} and {t.dtype for t in single} == {torch.float}


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


# in eighths every sum is exact, so that membranes meet the threshold, the tips of the triangle and 0 exactly
@given(arrays(float, (5, 6), elements=st.integers(-8, 16).map(lambda i: i / 8)), st.sampled_from([1.0, 0.5]))
@settings(max_examples=60, deadline=None)
def test_ties_follow_the_papers_loop(current, tau):
    current = torch.from_numpy(current)
    for fire_at, path in product(FIRES, ["C", "torch", "reference"]):
        lif = LIF(rules.triangle(), tau=tau, fire_at=fire_at)
        with on(path, lif):
            result = gradients(lif, current)
        assert_same(gradients(lambda i, lif=lif: paper_spikes(i, lif), current), result, rtol=1e-12)


def test_three_steps_by_hand():
    # θ = 1, τ = 1, I = 0.5, 0.75, 0.5: m = 0.5, 1.25, 0.5; s = 0, 1, 0; slopes 1 - |m - 1| = 0.5, 0.75, 0.5.
    # s[2] = s(m[2]), m[2] = (1 - s[1])·m[1] + I[2]: ∂m[2]/∂m[1] = (1 - 1) - 1.25·0.75 = -0.9375
    # m[1] = (1 - s[0])·m[0] + I[1]: ∂m[1]/∂m[0] = (1 - 0) - 0.5·0.5 = 0.75
    current = torch.tensor([0.5, 0.75, 0.5]).view(3, 1, 1).requires_grad_()
    spikes = LIF(rules.triangle())(current)
    assert spikes.flatten().tolist() == [0, 1, 0]
    (gradient,) = torch.autograd.grad(spikes[2].sum(), current)
    assert gradient.flatten().tolist() == [0.5 * -0.9375 * 0.75, 0.5 * -0.9375, 0.5]


@pytest.mark.parametrize("path", ["C", "torch"])
@pytest.mark.parametrize("rule", [rules.triangle(), rules.atan()], ids=lambda rule: rule.name)
def test_sixteen_bits_are_kept_and_thirty_two_computed(rule, path):
    # the same as in float32 on the rounded currents; the result is rounded once
    current, outer = currents(6, 8, 50).bfloat16(), currents(6, 8, 50, seed=1).bfloat16()
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


# The smooth path ----------------------------------------------------------------------------------------------------

AREAS = {  # integrals of the rules at their usual widths, by hand
    "triangle": lambda u: 0.5 + u - u * abs(u) / 2 if abs(u) < 1 else float(u > 0),
    "sigmoid": lambda u: 1 / (1 + math.exp(-4 * u)),
    "atan": lambda u: 0.5 + math.atan(math.pi * u) / math.pi,
    "rectangle": lambda u: min(max(0.5 + u, 0), 1),
    "exponential": lambda u: math.exp(u) / 2 if u < 0 else 1 - math.exp(-u) / 2,
}


def slow_smooth(current, area, *, tau, threshold, resets=None):
    """The smooth neuron on currents (T, N), number by number; reset by its own spikes, or by `resets`."""
    spikes = torch.empty_like(current)
    for n in range(current.shape[1]):
        v = 0.0
        for t in range(len(current)):
            m = tau * v + current[t, n].item()
            spikes[t, n] = area(m - threshold)
            v = (1 - (spikes if resets is None else resets)[t, n].item()) * m
    return spikes


def smooth(name, *, gamma=None, **options):
    lif = LIF(rules.build(name, **({} if gamma is None else {"gamma": gamma})), **options)
    lif.path = "smooth"
    return lif


@pytest.mark.parametrize("name", AREAS)
@pytest.mark.parametrize(
    "tau, threshold, detach", [(1.0, 1.0, False), (0.9, 0.7, True), (0.5, 1.3, False), (0.0, 1.0, True)]
)
def test_the_smooth_neuron_is_the_slow_loop_with_its_exact_gradient(tau, threshold, detach, name):
    # where resets are detached they are constants of the loop that is differentiated
    current, oracle = currents(5, 4), dict(area=AREAS[name], tau=tau, threshold=threshold)
    spikes, gradient = gradients(smooth(name, tau=tau, threshold=threshold, detach_reset=detach), current)
    expected = slow_smooth(current, **oracle)
    torch.testing.assert_close(spikes, expected, rtol=1e-12, atol=1e-12)
    assert 0.1 < spikes.mean() < 0.9

    weights = torch.randn(5, 4, dtype=torch.double, generator=torch.Generator().manual_seed(1))  # of `gradients`
    differences, h = torch.empty_like(current), 1e-6
    for place in product(range(5), range(4)):
        step = torch.zeros_like(current)
        step[place] = h
        ends = [slow_smooth(current + d, **oracle, resets=expected if detach else None) for d in (step, -step)]
        differences[place] = ((ends[0] - ends[1]) * weights).sum() / (2 * h)
    torch.testing.assert_close(gradient, differences, rtol=1e-6, atol=1e-8)


def test_three_smooth_steps_by_hand():
    # θ = 1, τ = 1, I = 0.5, 0.5, 0.5; s = (1 + u)²/2 for u ≤ 0, 1 - (1 - u)²/2 above.
    # m[0] = 0.5, s = 1/8, v = 7/16;  m[1] = 15/16, s = 225/512, v = 287/512 · 15/16
    last = 0.5 + 287 * 15 / (512 * 16)  # above the threshold
    for fire_at in FIRES:
        spikes = smooth("triangle", fire_at=fire_at)(torch.full((3, 1, 1), 0.5, dtype=torch.double))
        assert spikes.flatten().tolist() == [1 / 8, 225 / 512, 1 - (2 - last) ** 2 / 2]


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("name", AREAS)
def test_the_first_surrogate_gradient_is_that_of_the_smooth_neuron(name, detach):
    # up to the first spike the membranes are the same; from the second step on the resets differ
    hard, soft = LIF(rules.build(name), tau=0.9, detach_reset=detach), smooth(name, tau=0.9, detach_reset=detach)
    for steps in (1, 3):
        (spikes, surrogate), (areas, exact) = (gradients(lif, currents(steps, 8, 5)) for lif in (hard, soft))
        assert surrogate.any() and not torch.allclose(spikes, areas)
        assert torch.allclose(surrogate, exact, rtol=1e-12, atol=1e-14) == (steps == 1)


@pytest.mark.parametrize("name, widths", [("triangle", 1), ("rectangle", 2)])  # wide on either side: γ, γ/2
def test_a_narrow_smooth_neuron_spikes(name, widths):
    current = currents(12, 4, 20)
    spikes, membranes = paper_neuron(current, tau=0.9)
    nearest = (membranes - 1).abs().min().item()
    narrow, wide = (smooth(name, gamma=f * widths * nearest, tau=0.9) for f in (0.99, 500))
    assert torch.equal(narrow(current), spikes) and 0.1 < spikes.mean() < 0.9
    assert not torch.equal(wide(current), spikes)


@pytest.mark.parametrize("name", AREAS)
@pytest.mark.parametrize("dtype", [torch.float, torch.double, torch.bfloat16], ids=str)
def test_precision_of_the_smooth_neuron(dtype, name):
    # sixteen bits are kept and thirty-two computed; the result is rounded once
    current, lif = currents(6, 8, 20).to(dtype), smooth(name, tau=0.9)
    spikes, gradient = gradients(lif, current)
    assert spikes.dtype == gradient.dtype == dtype
    if dtype == torch.bfloat16:
        assert torch.equal(spikes, lif(current.float()).bfloat16())
    else:
        torch.testing.assert_close(spikes.double(), lif(current.double()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", [rules.rate(), rules.straight_through(), rules.from_surrogate(snn.surrogate.atan())])
def test_a_rule_without_an_integral_cannot_be_smoothed(rule):
    lif = LIF(rule)
    lif.path = "smooth"
    with pytest.raises(Refused, match=f"rule {rule.name} has no integral"):
        lif(currents(3, 2))


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
    def hook(gradient):  # the graph holds it
        return gradient

    current, lif, alive = currents(3, 2).requires_grad_() * 1, LIF(rules.triangle()), weakref.ref(hook)
    current.register_hook(hook)
    lif.path = path
    lif(current)
    del current, hook
    gc.collect()
    assert alive() is None


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
    result = gradients(lif, current)
    expected = gradients(lambda i: paper_spikes(i, lif), current.clone(memory_format=torch.contiguous_format))
    assert result[0].shape == current.shape and torch.equal(result[0], expected[0])
    torch.testing.assert_close(result[1], expected[1])


@pytest.mark.parametrize("name, path", [*product(["triangle", "sigmoid"], PATHS), ("rate", "fast")])
def test_the_input_and_the_outer_gradient_are_left_alone(name, path):
    current, outer = currents(5, 4), currents(5, 4, seed=1)
    kept, lif = (current.clone(), outer.clone()), LIF(rules.build(name), tau=0.9)
    lif.path = path
    lif(current.requires_grad_()).backward(outer)
    assert torch.equal(current.detach(), kept[0]) and torch.equal(outer, kept[1])


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
def test_options_that_no_neuron_has_are_refused(options, sentence):
    with pytest.raises(Refused, match=sentence):
        LIF(rules.triangle(), **options)


def test_an_unknown_path_is_refused():
    lif = LIF(rules.triangle())
    lif.path = "slow"
    with pytest.raises(Refused, match="no path of a neuron 'slow'.*fast, reference, smooth"):
        lif(currents(2, 2))


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
