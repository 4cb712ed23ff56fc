"""The Triton kernels in Triton's interpreter, against the C and the torch form.

`test_neuron_triton.py` runs this file in a process of its own with TRITON_INTERPRET=1, which must be set before Triton
is imported; the file's name keeps it out of other runs.
"""

from contextlib import contextmanager

import pytest
import torch
from conftest import scatter
from oracles import currents, gradients, in_torch, normed
from torch import nn

from paperlib import networks
from paperlib.networks import fused, neuron_triton, rules
from paperlib.networks.neurons import LIF
from paperlib.theory.gradients import loss_gradient

# Gradients relative to the largest.  The interpreter rounds to bfloat16 in a way of its own, up to a unit in the last
# place (2⁻⁷) each of the two times that a gradient is stored.
TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 2 * 2**-7}


@contextmanager
def in_triton():
    """Inside the block the Triton form takes tensors on the CPU, as it takes those on a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "_on_gpu", lambda x, cell=None: neuron_triton)
        yield


def assert_near(result, expected, tolerance):
    for ours, theirs in zip(result, expected, strict=True):
        ours, theirs = ours.float(), theirs.float()
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("detach", [False, True], ids=["", "detached"])
@pytest.mark.parametrize("pool", [False, True], ids=["", "pool"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("constant", [False, True], ids=["T steps", "one step"])
def test_the_layer_is_that_of_the_cpu(constant, training, pool, detach, dtype):
    channels, gamma = (70, 0.5) if pool else (3, 1.0)  # 70: two blocks of channels, the second not full
    layer = normed(channels, rules.triangle(gamma), steps=4, pool=pool, tau=0.9, detach_reset=detach).float()
    layer.train(training)
    x = currents(1 if constant else 4, 2, channels, 5, 7, dtype=torch.float32).to(dtype)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    expected = gradients(layer, x)
    after = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.load_state_dict(before)
    with in_triton():
        result = gradients(layer, x)
    assert torch.equal(result[0], expected[0]) and 0.05 < result[0].float().mean() < 0.95
    assert_near(result[1:], expected[1:], TOLERANCES[dtype])
    torch.testing.assert_close(layer.state_dict(), after, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("other", [in_torch, None], ids=["torch", "C"])
@pytest.mark.parametrize("pool", [False, True], ids=["", "pool"])
def test_given_the_same_statistics_every_spike_is_the_same(pool, other):
    # the bits of x·scale + shift and of the membranes do not depend on the form
    x = currents(6, 5, 24, 9, 7, dtype=torch.float32)
    layer = normed(24, steps=6, pool=pool, tau=0.9).float().eval()
    with in_triton():
        result = gradients(layer, x)
    if other:
        with other():
            expected = gradients(layer, x)
    else:
        expected = gradients(layer, x)
    assert torch.equal(result[0], expected[0]) and torch.equal(result[1], expected[1])  # spikes, gradient of x
    assert_near(result[2:], expected[2:], 2e-6)


@pytest.mark.parametrize("mean", [0, 1000])
def test_statistics(mean):
    x = currents(4, 6, 70, 9, 5, dtype=torch.float32) + mean
    var, expected = torch.var_mean(x.double(), (0, 1, 3, 4), correction=0)
    with in_triton():
        result = fused.statistics(x)
    torch.testing.assert_close([values.double() for values in result], [expected, var], rtol=3e-6, atol=0)


def test_neurons_behind_a_linear_layer():
    x, neuron = currents(5, 3, 130, dtype=torch.float32), LIF(rules.triangle(), tau=0.9)
    expected = gradients(neuron, x)
    with in_triton():
        result = gradients(neuron, x)
    assert torch.equal(result[0], expected[0])
    torch.testing.assert_close(result[1], expected[1], rtol=0, atol=0)


def test_one_gradient_for_all_steps():
    layer, x = normed(8, steps=5, pool=True).float(), currents(5, 4, 8, 5, 6, dtype=torch.float32).requires_grad_()
    with in_triton():
        out = layer(x)
        grad = currents(1, *out.shape[1:], seed=2, dtype=torch.float32).expand_as(out)
        leaves = [x, *layer.parameters()]
        result, expected = (torch.autograd.grad(out, leaves, g, retain_graph=True) for g in (grad, grad.contiguous()))
    assert all(map(torch.equal, result, expected))


@pytest.mark.parametrize("name", ["conv-4-6", "wrn16"])
def test_a_network_and_its_input_gradient(name):
    torch.manual_seed(0)
    network = networks.build(name, in_channels=3, image_size=8, num_classes=4, T=2).eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            scatter(layer)
    images, labels = torch.rand(2, 3, 8, 8), torch.tensor([0, 3])
    expected = network(images).detach(), loss_gradient(network, images, labels, None)[1]
    with in_triton():
        result = network(images).detach(), loss_gradient(network, images, labels, None)[1]
    assert expected[1].abs().max() > 0
    assert_near(result, expected, 1e-5)


def test_other_rules_go_to_torch():
    x, layer = currents(3, 2, 4, 4, 4, dtype=torch.float32), normed(4, rules.sigmoid(), steps=3).float().eval()
    expected = gradients(layer, x)
    with in_triton():
        result = gradients(layer, x)
    assert_near(result, expected, 2e-6)
