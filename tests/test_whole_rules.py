"""Rules that need all steps at once: ASSG and PDSG against their formulas number by number, and what they couple."""

import copy
import math
import statistics
from itertools import product

import pytest
import torch
from oracles import Plain, assert_bits, currents, gradients, logits_and_gradient, normed, paper_neuron, pictures, small

from paperlib import networks
from paperlib.errors import Refused
from paperlib.networks import rules
from paperlib.networks.neurons import LIF


class SlowAssg:
    """The formulas, one membrane after the other, in Python's own numbers."""

    def __init__(self):
        self.M, self.D = {}, {}

    def __call__(self, u):
        slopes = torch.empty_like(u)
        for at in product(*map(range, u.shape)):
            value = u[at].item()
            self.M[at] = 0.9 * self.M.get(at, 1.0) + 0.1 * abs(value)
            self.D[at] = 0.9 * self.D.get(at, 0.0) + 0.1 * abs(abs(value) - self.M[at])
            alpha = (2 / math.pi) * math.tan(math.pi * 0.43) / (self.M[at] + 1.5 * self.D[at] + 1e-4)
            slopes[at] = (alpha / 2) / (1 + (math.pi * alpha * value / 2) ** 2)
        return slopes


def slow_pdsg(u):
    """The same of PDSG; u is (T, B, C, ...), the third axis that of channels or features."""
    slopes = torch.empty_like(u)
    for t, c in product(range(u.shape[0]), range(u.shape[2])):
        so_far = u[: t + 1, :, c].flatten().tolist()
        sigma = (statistics.stdev(so_far) if len(so_far) > 1 else 0) or 1
        slopes[t, :, c] = torch.exp(-((u[t, :, c] - sigma / 2) ** 2) / (2 * sigma**2)) / (
            math.sqrt(2 * math.pi) * sigma
        )
    return slopes


SLOW = {"assg": SlowAssg, "pdsg": lambda: slow_pdsg}
BOTH = pytest.mark.parametrize("name", SLOW)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("tau", [1.0, 0.6])
@BOTH
def test_a_linear_layer_follows_the_formulas(name, tau, detach):
    lif, slow = LIF(rules.build(name), tau=tau, detach_reset=detach), SLOW[name]()
    for step in range(3):  # as in an attack: the images move, and ASSG keeps its memory
        current = currents(4, 3, 5, seed=step)
        result = gradients(lif, current)
        expected = gradients(lambda i: paper_neuron(i, slow, tau=tau, detach=detach)[0], current)
        assert torch.equal(result[0], expected[0]) and 0 < result[0].mean() < 1
        torch.testing.assert_close(result[1], expected[1], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("pool", [False, True])
@BOTH
def test_a_convolution_follows_the_formulas(name, pool, constant):
    layer, slow = normed(2, rules.build(name), steps=3, pool=pool, tau=0.9).eval(), SLOW[name]()
    plain = Plain(layer, lambda current: paper_neuron(current, slow, tau=0.9)[0])
    for step in range(2):
        x = currents(1 if constant else 3, 2, 2, 2, 4, seed=step)
        torch.testing.assert_close(gradients(layer, x), gradients(plain, x), rtol=1e-9, atol=1e-12)


@BOTH
def test_thirty_two_bits_agree_with_sixty_four(name):
    u, rule, wide = currents(6, 30, 5, 5, 3, dtype=torch.float) - 1, rules.build(name), rules.build(name)
    u[..., 1] += 3  # a channel that always fires
    u[0, 0, 0, 0, 2] = -40  # and one in which the first value is far from the rest
    before = u.clone()
    slopes = rule.slopes(u)
    assert torch.equal(u, before) and slopes.shape == u.shape and slopes.dtype == u.dtype
    torch.testing.assert_close(slopes.double(), wide.slopes(u.double()), rtol=2e-5, atol=1e-9)


@BOTH
def test_no_samples(name):
    leaf = torch.zeros(3, 0, 4, requires_grad=True)
    LIF(rules.build(name))(leaf).sum().backward()
    assert leaf.grad.shape == leaf.shape


@pytest.mark.parametrize("dtype", [torch.float, torch.double, torch.bfloat16], ids=str)
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("name", ["triangle", "sigmoid", "atan", "rectangle", "exponential", "straight-through"])
def test_all_steps_at_once_give_the_bits_of_step_by_step(name, detach, dtype):
    rule, current = (
        rules.build(name),
        currents(6, 4, 32).to(dtype),
    )  # whole vectors: torch rounds the rest of one otherwise
    layers = (LIF(r, tau=0.9, detach_reset=detach) for r in (rule, rules.Whole(name, rule.derivative)))
    one, other = (gradients(layer, current) for layer in layers)
    assert one[1].any()
    assert_bits(one, other)


# PDSG where there is no spread --------------------------------------------------------------------------------------


def bell(u):
    return math.exp(-((u - 0.5) ** 2) / 2) / math.sqrt(2 * math.pi)  # σ = 1


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_pdsg_of_one_value_has_a_spread_of_1(dtype):
    u = torch.tensor([0.3, -0.7, 0.1], dtype=dtype).view(3, 1, 1, 1, 1)
    slopes = rules.pdsg().slopes(u).flatten().tolist()
    sigma = math.sqrt(0.5)  # of 0.3 and -0.7, unbiased
    assert slopes[:2] == pytest.approx([bell(0.3), bell(-0.7 / sigma) / sigma])
    assert rules.pdsg().slopes(u.view(1, 1, 1, 1, 3)).flatten().tolist() == pytest.approx([bell(v) for v in u.view(-1)])


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_pdsg_of_equal_values_has_a_spread_of_1(dtype):
    u = torch.full((4, 7, 3, 3, 2), 0.1, dtype=dtype)  # sums of 0.1 are rounded
    u[3, :, :, :, 1] = 0.4
    slopes = rules.pdsg().slopes(u)
    equal = torch.cat([slopes[:3].flatten(), slopes[3, ..., 0].flatten()])
    torch.testing.assert_close(equal, torch.full_like(equal, bell(0.1)), rtol=1e-6, atol=0)
    sigma = statistics.stdev([0.1] * 189 + [0.4] * 63)
    assert slopes[3, 0, 0, 0, 1].item() == pytest.approx(bell(0.4 / sigma) / sigma, rel=1e-5)


# The memory of ASSG -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("a", [0.5, 0.7, 1])
def test_a_sharpness_of_a_half_or_more_is_refused(a):
    with pytest.raises(Refused, match=f"a is {a}; .* below 0.5"):
        rules.assg(a)


@pytest.mark.parametrize("a", [0.1, 0.25, 0.45])
def test_the_slope_of_assg_at_the_threshold_by_hand(a):
    # at u = 0: M = 0.9, D = 0.1·0.9, slope α/2
    alpha = 2 / math.pi * math.tan(math.pi * a) / (0.9 + 1.5 * 0.09 + 1e-4)
    slope = rules.assg(a).slopes(torch.zeros(1, 1, 1, 1, 1, dtype=torch.double))
    assert slope.item() == pytest.approx(alpha / 2)


def network(name="conv-4-6"):
    return small(name, tau=0.9).eval()


def images(count=4, seed=1):
    return pictures(count, 2, 8, 8, seed=seed)


def gradient(network, x):
    return logits_and_gradient(network, x)[1]


def test_memory_moves_with_backward_passes_alone_and_ends_with_its_block():
    net, x = network(), images()
    with net.backward_rule("assg"):
        first, second = gradient(net, x), gradient(net, x)
    assert not torch.allclose(first, second)
    with net.backward_rule("assg"):
        with torch.no_grad():
            net(x), net(x[:1])
        net(x.clone().requires_grad_())  # and no backward
        assert torch.equal(gradient(net, x), first)
        with torch.no_grad():
            net(images(seed=2))
        assert torch.equal(gradient(net, x), second)
        with net.backward_rule("assg"):
            assert torch.equal(gradient(net, x), first)


def test_a_frozen_memory_is_used_and_does_not_move():
    net, x = network(), images()
    with net.backward_rule("assg"):
        first, second = gradient(net, x), gradient(net, x)
    with net.backward_rule("assg"):
        gradient(net, x)
        with net.frozen():
            assert torch.equal(gradient(net, x), first)  # as the one step left it
            assert torch.equal(gradient(net, x), first)
        assert torch.equal(gradient(net, x), second)  # and it goes on from there


def test_each_neuron_and_each_copy_has_a_memory_of_its_own():
    net, x = network("conv-4-4"), images()
    with net.backward_rule("assg"):
        assert len({id(neuron.rule.slopes) for neuron in net.neurons()}) == 2
        first = gradient(net, x)
        copied = copy.deepcopy(net)
        second = gradient(net, x)
        assert torch.equal(gradient(copied, x), second) and not torch.equal(first, second)


def test_another_batch_is_refused():
    net = network()
    with net.backward_rule("assg"):
        gradient(net, images(4))
        with pytest.raises(Refused, match=r"batch of 4 samples.*given 3 samples.*Keep the batch whole"):
            gradient(net, images(3))
        gradient(net, images(4))
    with net.backward_rule("assg"):
        gradient(net, images(3))


# Coupled samples ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", rules.RULES)
def test_a_network_says_whether_its_samples_are_coupled(name):
    net, x = network(), images()
    other = x.clone()
    other[2:] = images(2, seed=3)
    assert not net.coupled
    with net.backward_rule(name):
        assert net.coupled == (name in SLOW)
        gradient(net, other.flip(0))
        one = gradient(net, x)
    with net.backward_rule(name):
        gradient(net, other)
        two = gradient(net, other)
    assert torch.allclose(one[:2], two[:2]) == (name not in SLOW)
    assert not net.coupled


def test_one_coupled_neuron_is_enough():
    net = network()
    net.neurons()[1].rule = rules.pdsg()
    assert net.coupled
    net.neurons()[1].rule = rules.Whole("alone", torch.ones_like)
    assert not net.coupled


@BOTH
def test_no_network_is_built_with_a_coupled_rule(name):
    with pytest.raises(Refused, match=f"{name} couples the samples.*backward_rule"):
        networks.build("conv-4", in_channels=1, image_size=4, num_classes=2, T=2, rule=rules.build(name))


@pytest.mark.parametrize("name", ["vgg11", "wrn16"])
@pytest.mark.parametrize("rule", SLOW)
def test_both_rules_run_in_the_papers_networks(rule, name):
    net, x = network(name), images(2)
    logits = net(x)
    with net.backward_rule(rule):
        found = logits_and_gradient(net, x)
    assert torch.equal(found[0], logits) and found[1].isfinite().all() and found[1].any()


@pytest.mark.parametrize("name", [*SLOW, "rate"])
def test_a_rule_that_needs_all_steps_can_be_neither_stepped_nor_smoothed(name):
    net = network()
    logits = net(images(1))
    with net.backward_rule(name):
        with pytest.raises(Refused, match=f"{name} rule needs all time steps at once"):
            net.neurons()[0].to_leaky()
        with pytest.raises(Refused, match=f"{name} rule"), net.reference_path():
            net(images(1))
        with pytest.raises(Refused, match=f"{name} has no integral"), net.smoothed():
            net(images(1))
    assert torch.equal(net(images(1)), logits)
