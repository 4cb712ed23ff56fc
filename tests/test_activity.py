"""What neurons do in a pass, against an `snn.Leaky` stepped by hand; fan-outs against a slow count of Jacobians."""

import pytest
import snntorch as snn
import torch
import torch.nn.functional as F
from oracles import MEAN, STD, pictures, small
from torch import nn

from paperlib.errors import Refused
from paperlib.networks.activity import fan_out, observe

ALL = pytest.mark.parametrize("name", ["conv-4-6", "vgg11", "wrn16", "events-conv-4-6"])


def ready(name, size=8, **options):
    """A network in eval mode and three inputs for it."""
    network = small(name, image_size=size, **options).eval()
    return network, pictures(3, *[network.T] * network.events, 2, size, size)


def stepped(currents, tau=1.0):
    """Membranes and spikes of currents (T, B, ...) by snnTorch's neuron, which fires at > (nothing is at 1 exactly)."""
    beta = torch.tensor(tau, dtype=torch.double)
    leaky, mem = (
        snn.Leaky(beta=beta, threshold=torch.ones_like(beta), reset_mechanism="zero", reset_delay=False),
        torch.zeros_like(currents[0]),
    )
    membranes, spikes = [], []
    for i in currents:
        membranes.append(tau * mem + i)
        spike, mem = leaky(i, mem)
        spikes.append(spike.to(i))
    return torch.stack(membranes), torch.stack(spikes)


@pytest.mark.parametrize("tau", [1.0, 0.6])
@pytest.mark.parametrize("name", ["conv-4-6", "events-conv-4-6"])
def test_layer_by_layer_it_is_a_leaky_stepped_by_hand(name, tau):
    network, images = ready(name, tau=tau)
    logits, layers = observe(network, images)
    (norm1, conv, norm2), (mean, std) = network.body, (torch.tensor(v).view(2, 1, 1) for v in (MEAN, STD))
    x = (images - mean) / std
    frames = x.transpose(0, 1) if network.events else x.expand(network.T, *x.shape)
    current = torch.stack([batch_norm(norm1, network.stem(frame)) for frame in frames])
    for layer, norm in zip(layers, (norm1, norm2), strict=True):
        membranes, spikes = stepped(current, tau)
        torch.testing.assert_close(layer.membranes, membranes)
        assert torch.equal(layer.spikes, spikes) and 0.02 < spikes.mean() < 0.98
        pooled = torch.stack([F.avg_pool2d(spike, 2) for spike in spikes])
        if norm is norm1:
            current = torch.stack([batch_norm(norm2, conv[0](spike)) for spike in pooled])
    torch.testing.assert_close(network.head(pooled.mean(0).flatten(1)), logits)


def batch_norm(norm, x):
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)


@ALL
def test_the_logits_are_the_networks_own_and_a_membrane_at_the_threshold_is_a_spike(name):
    network, images = ready(name)
    logits, layers = observe(network, images)
    assert torch.equal(logits, network(images)) and not logits.requires_grad
    assert len(layers) == len(network.neurons())
    for layer in layers:
        assert torch.equal(layer.spikes, (layer.membranes >= 1).to(layer.spikes))
        assert layer.spikes.shape[:2] == (network.T, 3)


def test_nothing_stays_behind_in_the_network_even_if_the_pass_fails():
    network, images = ready("conv-4-6")
    observe(network, images), fan_out(network, images[:1])
    with pytest.raises(Refused):
        observe(network, images[0])
    assert not any(module._forward_hooks for module in network.modules())
    assert {neuron.path for neuron in network.neurons()} == {"fast"}


def test_a_network_without_spikes_is_refused():
    network = small("ann-conv-4-6", T=1).eval()
    with pytest.raises(Refused, match="no spiking neurons"):
        observe(network, pictures(1, 2, 8, 8))


def test_fan_out_by_hand():
    network, images = ready("conv-4-6", size=7)  # pools of 7 and 3 cells: the last row and column are dropped
    stem, first, last = fan_out(network, images[:1])
    # a pixel inside enters 9 places of 4 channels, in a corner 4; two colours
    assert stem.shape == (2, 7, 7) and stem[0, 3, 3] == 36 and stem[1, 0, 6] == 16 and stem[0, 0, 3] == 24
    # of 3×3 pooled cells the middle one enters 9 places of 6 channels
    assert first.shape == (4, 7, 7) and first[0, 2, 3] == first[3, 3, 2] == 54 and first[2, 0, 1] == 24
    assert first[:, 6].sum() == first[:, :, 6].sum() == 0
    assert last.shape == (6, 3, 3) and (last[:, :2, :2] == 3).all() and last.sum() == 6 * 4 * 3  # three classes


@ALL
def test_fan_out_counts_the_nonzero_entries_of_jacobians(name):
    """A value is raised alone, with all weights positive: it reaches what changes in the next layers' currents."""
    network, images = ready(name)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    counted = fan_out(network, images[:1])
    for source, count in zip([None, *network.neurons()], counted, strict=True):
        reached = reached_from(network, images[:1], source)
        for index in some(count):
            assert reached(index) == count[index], (name, source)


def some(count):
    """A few places of a map: corners, an edge, the middle."""
    if count.dim() == 1:
        return [(0,), (len(count) - 1,)]
    c, h, w = count.shape
    return list(dict.fromkeys([(0, 0, 0), (c - 1, h - 1, w - 1), (0, 0, w // 2), (c // 2, h // 2, w // 2)]))


def reached_from(network, image, source):
    """A function of a place: how many outputs of the layers that `source` feeds change with the value at that place."""

    def outputs(index):
        seen, state = [], {"on": source is None}

        def raise_one(neuron, inputs, spikes):
            state["on"] = neuron is source
            if state["on"] and index is not None:
                spikes = spikes.clone()
                spikes[(0, 0, *index)] += 1
            return spikes

        def note(layer, inputs, output):
            if state["on"]:
                seen.append(output[:1].detach().clone())

        handles = [neuron.register_forward_hook(raise_one) for neuron in network.neurons()]
        kinds = (nn.Conv2d, nn.Linear)
        handles += [m.register_forward_hook(note) for m in network.modules() if isinstance(m, kinds)]
        x = image.clone()
        if source is None and index is not None:
            x[(0, 0, *index) if network.events else (0, *index)] += 1
        with torch.no_grad(), network.reference_path():
            network(x)
        for handle in handles:
            handle.remove()
        return torch.cat([output.flatten() for output in seen])

    before = outputs(None)
    return lambda index: int((outputs(index) != before).sum())
