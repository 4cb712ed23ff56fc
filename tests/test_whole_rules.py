"""Rules given all steps at once: ASSG and PDSG against their formulas number by number, and what they couple.

The neuron's chain rule is written out here: ∂m[t]/∂m[t-1] = τ·((1 - s) - m·∂s/∂m) at t-1, the reset attached.
"""

import copy
import math
import statistics
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from conftest import scatter

from paperlib import networks
from paperlib.errors import Refused
from paperlib.networks import rules
from paperlib.networks.neurons import LIF, NormedLIF

A, THRESHOLD = 0.43, 1.0


def normal(*shape, seed=0, dtype=torch.double):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)) * 0.7 + 0.5


def membranes(current, tau):
    m, kept = [], torch.zeros_like(current[0])
    for i in current:
        m.append(tau * kept + i)
        kept = torch.where(m[-1] >= THRESHOLD, 0.0, m[-1])
    return torch.stack(m)


def back(m, slopes, outer, tau, detach=False):
    """The gradient of each step's current, from `outer`, that of its spikes."""
    result, later = torch.zeros_like(m), torch.zeros_like(m[0])
    for t in reversed(range(len(m))):
        fired = (m[t] >= THRESHOLD).double()
        stays = (1 - fired) if detach else (1 - fired) - m[t] * slopes[t]
        later = outer[t] * slopes[t] + later * tau * stays
        result[t] = later
    return result


class SlowAssg:
    """The formulas, one membrane after the other, in Python's own numbers."""

    def __init__(self):
        self.M, self.D = {}, {}

    def __call__(self, m):
        slopes = torch.empty_like(m)
        for at in product(*map(range, m.shape)):
            u = m[at].item() - THRESHOLD
            self.M[at] = 0.9 * self.M.get(at, 1.0) + 0.1 * abs(u)
            self.D[at] = 0.9 * self.D.get(at, 0.0) + 0.1 * abs(abs(u) - self.M[at])
            alpha = (2 / math.pi) * math.tan(math.pi * A) / (self.M[at] + 1.5 * self.D[at] + 1e-4)
            slopes[at] = (alpha / 2) / (1 + (math.pi * alpha * u / 2) ** 2)
        return slopes


def slow_pdsg(m):
    """The same of PDSG; m is (T, B, C, ...), the third axis that of channels or features."""
    slopes = torch.empty_like(m)
    for t, c in product(range(m.shape[0]), range(m.shape[2])):
        so_far = m[: t + 1, :, c].flatten().tolist()
        sigma = (statistics.stdev(so_far) if len(so_far) > 1 else 0) or 1
        u = m[t, :, c] - THRESHOLD
        slopes[t, :, c] = torch.exp(-((u - sigma / 2) ** 2) / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma)
    return slopes


SLOW = {"assg": SlowAssg, "pdsg": lambda: slow_pdsg}


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("tau", [1.0, 0.6])
@pytest.mark.parametrize("name", SLOW)
def test_linear_layer_by_the_formulas(name, tau, detach):
    lif, slow = LIF(rules.build(name), tau=tau, detach_reset=detach), SLOW[name]()
    for step in range(3):  # as an attack: the images move, and ASSG remembers
        leaf, outer = normal(4, 3, 5, seed=step).requires_grad_(), normal(4, 3, 5, seed=9 + step)
        spikes = lif(leaf)
        (gradient,) = torch.autograd.grad((spikes * outer).sum(), leaf)
        m = membranes(leaf.detach(), tau)
        assert torch.equal(spikes, (m >= THRESHOLD).double()) and 0 < spikes.mean() < 1
        torch.testing.assert_close(gradient, back(m, slow(m), outer, tau, detach), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("name", SLOW)
def test_convolution_by_the_formulas(name, pool, constant):
    torch.manual_seed(0)
    layer, slow = NormedLIF(2, LIF(rules.build(name), tau=0.9), steps=3, pool=pool), SLOW[name]()
    scatter(layer.double().eval())
    scale = (layer.weight / (layer.running_var + layer.eps).sqrt()).detach().view(-1, 1, 1)
    for step in range(2):
        leaf = normal(1 if constant else 3, 2, 2, 2, 4, seed=step).requires_grad_()
        spikes = layer(leaf)
        outer = normal(*spikes.shape, seed=9 + step)
        (gradient,) = torch.autograd.grad((spikes * outer).sum(), leaf)
        current = (leaf.detach() - layer.running_mean.view(-1, 1, 1)) * scale + layer.bias.detach().view(-1, 1, 1)
        m = membranes(current.expand(3, 2, 2, 2, 4), 0.9)
        spread = outer.repeat_interleave(2, -1).repeat_interleave(2, -2) / 4 if pool else outer
        expected = back(m, slow(m), spread, 0.9) * scale
        expected = expected.sum(0, keepdim=True) if constant else expected
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", SLOW)
def test_thirty_two_bits_agree_with_sixty_four(name):
    u, rule, wide = normal(6, 30, 5, 5, 3, dtype=torch.float) - 1, rules.build(name), rules.build(name)
    u[..., 1] += 3  # a channel that always fires
    u[0, 0, 0, 0, 2] = -40  # and one in which the first of all is far from the rest
    before = u.clone()
    slopes = rule.slopes(u)
    assert torch.equal(u, before) and slopes.shape == u.shape and slopes.dtype == u.dtype
    torch.testing.assert_close(slopes.double(), wide.slopes(u.double()), rtol=2e-5, atol=1e-9)


# PDSG where the spread is none --------------------------------------------------------------------------------------


def bell(u):
    return math.exp(-((u - 0.5) ** 2) / 2) / math.sqrt(2 * math.pi)  # σ = 1


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_pdsg_of_one_value_has_a_spread_of_1(dtype):
    u = torch.tensor([0.3, -0.7, 0.1], dtype=dtype).view(3, 1, 1, 1, 1)
    slopes = rules.pdsg().slopes(u).flatten().tolist()
    sigma = math.sqrt(0.5)  # of 0.3 and -0.7, unbiased
    assert slopes[0] == pytest.approx(bell(0.3))
    assert slopes[1] == pytest.approx(bell(-0.7 / sigma) / sigma)
    assert rules.pdsg().slopes(u.view(1, 1, 1, 1, 3)).flatten().tolist() == pytest.approx([bell(v) for v in u.view(-1)])


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_pdsg_of_equal_values_has_a_spread_of_1(dtype):
    u = torch.full((4, 7, 3, 3, 2), 0.1, dtype=dtype)  # sums of 0.1 are rounded
    u[3, :, :, :, 1] = 0.4
    slopes = rules.pdsg().slopes(u)
    assert slopes[:3].flatten().tolist() == pytest.approx([bell(0.1)] * 3 * 126, rel=1e-6)
    assert slopes[3, ..., 0].flatten().tolist() == pytest.approx([bell(0.1)] * 63, rel=1e-6)
    sigma = statistics.stdev([0.1] * 189 + [0.4] * 63)
    assert slopes[3, 0, 0, 0, 1].item() == pytest.approx(bell(0.4 / sigma) / sigma, rel=1e-5)


def test_pdsg_sees_no_later_step_and_no_other_channel():
    u = normal(4, 3, 2, 2, 3)
    other = u.clone()
    other[2:] += 5
    other[:, ..., 1] -= 3
    one, two = (rules.pdsg().slopes(v) for v in (u, other))
    assert torch.equal(one[:2][..., [0, 2]], two[:2][..., [0, 2]])


@pytest.mark.parametrize("name", SLOW)
def test_no_samples(name):
    leaf = torch.zeros(3, 0, 4, requires_grad=True)
    LIF(rules.build(name))(leaf).sum().backward()
    assert leaf.grad.shape == leaf.shape


# What ASSG remembers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("a", [0.5, 0.7, 1])
def test_a_sharpness_of_a_half_or_more_is_refused(a):
    with pytest.raises(Refused, match=f"a is {a}; .* below 0.5"):
        rules.assg(a)


def test_assg_is_sharper_with_more_a():
    u = torch.zeros(1, 1, 1, 1, 1, dtype=torch.double)
    for a in (0.1, 0.25, 0.45):  # at u = 0: M = 0.9, D = 0.1·0.9, slope α/2
        alpha = 2 / math.pi * math.tan(math.pi * a) / (0.9 + 1.5 * 0.09 + 1e-4)
        assert rules.assg(a).slopes(u).item() == pytest.approx(alpha / 2)


def network(name="conv-4-6", seed=0):
    torch.manual_seed(seed)
    made = networks.build(name, in_channels=2, image_size=8, num_classes=3, T=3, tau=0.9).double().eval()
    for norm in (m for m in made.modules() if isinstance(m, NormedLIF)):
        scatter(norm)
    return made


def pictures(count, seed=1):
    return torch.rand(count, 2, 8, 8, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


def gradient(of, images):
    leaf = images.clone().requires_grad_()
    loss = F.cross_entropy(of(leaf), torch.arange(len(images)) % 3, reduction="sum")
    return torch.autograd.grad(loss, leaf)[0]


def test_memory_moves_with_backward_passes_alone_and_ends_with_its_block():
    net, images = network(), pictures(4)
    with net.backward_rule("assg"):
        first, second = gradient(net, images), gradient(net, images)
    assert not torch.allclose(first, second)
    with net.backward_rule("assg"):
        with torch.no_grad():
            net(images), net(images[:1])
        net(images.clone().requires_grad_())  # and no backward
        assert torch.equal(gradient(net, images), first)
        with torch.no_grad():
            net(pictures(4, seed=2))
        assert torch.equal(gradient(net, images), second)
        with net.backward_rule("assg"):
            assert torch.equal(gradient(net, images), first)
    with net.backward_rule("assg"):
        assert torch.equal(gradient(net, images), first)


def test_a_frozen_memory_is_used_and_does_not_move():
    net, images = network(), pictures(4)
    with net.backward_rule("assg"):
        first, second = gradient(net, images), gradient(net, images)
    with net.backward_rule("assg"):
        gradient(net, images)
        with net.frozen():
            third, fourth = gradient(net, images), gradient(net, images)
        assert torch.equal(third, fourth) and torch.equal(third, first)  # as the one step left it
        assert torch.equal(gradient(net, images), second)  # and it goes on from there


def test_each_neuron_and_each_copy_remembers_for_itself():
    net, images = network("conv-4-4"), pictures(4)
    with net.backward_rule("assg"):
        assert len({id(neuron.rule.slopes) for neuron in net.neurons()}) == 2
        first = gradient(net, images)
        twin = copy.deepcopy(net)
        second = gradient(net, images)
        assert torch.equal(gradient(twin, images), second) and not torch.equal(first, second)


def test_another_batch_is_refused():
    net = network()
    with net.backward_rule("assg"):
        gradient(net, pictures(4))
        with pytest.raises(Refused, match=r"batch of 4 samples.*given 3 samples.*Keep the batch whole"):
            gradient(net, pictures(3))
        gradient(net, pictures(4))
    with net.backward_rule("assg"):
        gradient(net, pictures(3))


# What they couple -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", rules.RULES)
def test_a_network_says_whether_its_samples_are_coupled(name):
    net, images = network(), pictures(4)
    other = images.clone()
    other[2:] = pictures(2, seed=3)
    assert not net.coupled
    with net.backward_rule(name):
        assert net.coupled == (name in SLOW)
        gradient(net, other.flip(0))
        one = gradient(net, images)
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


@pytest.mark.parametrize("name", SLOW)
def test_no_network_has_a_coupled_rule_for_good(name):
    with pytest.raises(Refused, match=f"{name} couples the samples.*backward_rule"):
        networks.build("conv-4", in_channels=1, image_size=4, num_classes=2, T=2, rule=rules.build(name))


@pytest.mark.parametrize("name", ["vgg11", "wrn16"])
@pytest.mark.parametrize("rule", SLOW)
def test_both_rules_run_in_the_papers_networks(rule, name):
    net, images = network(name), pictures(2)
    own = net(images)
    with net.backward_rule(rule):
        assert torch.equal(net(images), own)
        found = gradient(net, images)
    assert found.isfinite().all() and found.any()


# The other paths ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SLOW)
def test_what_needs_all_steps_can_be_neither_stepped_nor_smoothed(name):
    net = network()
    with net.backward_rule(name):
        with pytest.raises(Refused, match=f"{name} rule needs all time steps at once"):
            net.neurons()[0].to_leaky()
        with pytest.raises(Refused, match=f"{name} rule"), net.reference_path():
            net(pictures(1))
        with pytest.raises(Refused, match=f"{name} has no integral"), net.smoothed():
            net(pictures(1))


@pytest.mark.parametrize("dtype", [torch.float, torch.double, torch.bfloat16], ids=str)
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("name", ["triangle", "sigmoid", "atan", "rectangle", "exponential", "straight-through"])
def test_all_steps_at_once_give_the_bits_of_step_by_step(name, detach, dtype):
    rule, outer, found = rules.build(name), normal(6, 4, 32, seed=1).to(dtype), []
    for same in (rule, rules.Whole(name, rule.derivative)):
        leaf = normal(6, 4, 32).to(dtype).requires_grad_()  # whole vectors: torch rounds the rest of one otherwise
        spikes = LIF(same, tau=0.9, detach_reset=detach)(leaf)
        spikes.backward(outer)
        found.append((spikes, leaf.grad))
    assert all(map(torch.equal, *found)) and found[0][1].any()
