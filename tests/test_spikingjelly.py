"""The neuron against SpikingJelly's multi-step neurons, which share no code with snnTorch nor with ours."""

import pytest
import torch
from oracles import currents

from paperlib.networks import rules
from paperlib.networks.neurons import LIF

neuron = pytest.importorskip("spikingjelly.activation_based.neuron", reason="SpikingJelly is not installed")
surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate")


def theirs(tau, detach):
    """SpikingJelly's neuron: v ← v·(1 - 1/τ') + I, so that our τ is 1 - 1/τ'; at τ = 1 it is the IF neuron."""
    options = dict(v_reset=0.0, detach_reset=detach, step_mode="m")
    options["surrogate_function"] = surrogate.PiecewiseQuadratic(1.0)  # the triangle of γ = 1
    return neuron.IFNode(**options) if tau == 1 else neuron.LIFNode(1 / (1 - tau), decay_input=False, **options)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("tau", [1.0, 0.75, 0.5])
def test_spikes_and_gradients_are_those_of_spikingjelly(tau, detach):
    x = currents(6, 4, 30, dtype=torch.float64)  # τ' is 4 or 2, exact in binary; no membrane meets the threshold
    weights = currents(6, 4, 30, dtype=torch.float64, seed=1)
    results = []
    for layer in (LIF(rules.triangle(), tau=tau, detach_reset=detach), theirs(tau, detach)):
        leaf = x.clone().requires_grad_()
        spikes = layer(leaf)
        results.append((spikes.detach(), *torch.autograd.grad((spikes * weights).sum(), leaf)))
    (spikes, gradient), (expected, expected_gradient) = results
    assert 0.1 < expected.mean() < 0.9
    assert torch.equal(spikes, expected)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=1e-14)
