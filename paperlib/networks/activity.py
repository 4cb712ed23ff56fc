"""What the neurons of a network do in a forward pass, and how many synapses a spike of each of them reaches."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from paperlib import errors
from paperlib.networks.network import Network
from paperlib.networks.neurons import LIF, NormedLIF


class Activity(NamedTuple):
    """One layer of neurons in one forward pass; both are (T, B, ...), before the pool behind the layer."""

    membranes: Tensor  # m[t], before the reset
    spikes: Tensor  # s[t], 0 or 1


def observe(network: Network, images: Tensor) -> tuple[Tensor, list[Activity]]:
    """The logits (B, K) of `images`, and what every layer of neurons did, from the first layer to the last.

    The pass steps `snntorch.Leaky` (see `Network.reference_path`), because the fused neuron keeps neither membranes nor
    the spikes before a pool.  The logits are the network's own.  No gradient is kept.
    Refuses a network without spikes, and one whose rule the reference path refuses.
    """
    layers: list[Activity] = []

    def note(neuron: LIF, inputs: tuple[Tensor], spikes: Tensor) -> None:
        layers.append(Activity(_membranes(inputs[0], spikes, neuron.tau), spikes))

    if not network.neurons():
        raise errors.Refused("The network has no spiking neurons, so there is nothing to observe.")
    with torch.no_grad(), network.reference_path():
        return _with_hooks(network, {LIF: note}, images), layers


def _membranes(current: Tensor, spikes: Tensor, tau: float) -> Tensor:
    """m[t] = τ·v[t-1] + I[t] from the currents and spikes (T, B, ...) of one layer (section 2 of the paper notes)."""
    membranes, v = [], torch.zeros_like(current[0])
    for i, s in zip(current.unbind(0), spikes.unbind(0), strict=True):
        membranes.append(tau * v + i)
        v = (1 - s) * membranes[-1]
    return torch.stack(membranes)


def fan_out(network: Network, image: Tensor) -> list[Tensor]:
    """How many synapses each value reaches: of the input, (C, H, W), then of each layer of neurons, without T and B.

    A synapse is a weight of a convolution or of a linear layer, used at one place.  The pool between a neuron and a
    convolution counts as part of the weights, so a neuron reaches what its pooled cell does; a neuron in a row that the
    pool drops reaches nothing.  At the border a convolution has fewer places.  `image` is one input, (1, ...).
    """
    counts = [torch.zeros(image.shape[-3:], dtype=torch.double)]
    pools = [1]  # the width of the pool in a layer's `NormedLIF`

    def begin(neuron: LIF, inputs: tuple[Tensor], spikes: Tensor) -> None:
        counts.append(torch.zeros(spikes.shape[2:], dtype=torch.double))
        pools.append(1)

    def pool(normed: NormedLIF, inputs: tuple[Tensor], spikes: Tensor) -> None:
        pools[-1] = 2 if normed.pool else 1

    def add(layer: nn.Conv2d | nn.Linear, inputs: tuple[Tensor], output: Tensor) -> None:
        places = _places(layer, inputs[0].shape[1:], output.shape[1:])
        counts[-1] += _spread(places, counts[-1].shape, pools[-1])

    with torch.no_grad(), network.reference_path():
        _with_hooks(network, {LIF: begin, NormedLIF: pool, nn.Conv2d: add, nn.Linear: add}, image)
    return counts


def _places(layer: nn.Conv2d | nn.Linear, inputs: torch.Size, outputs: torch.Size) -> Tensor:
    """How many outputs of `layer` each of its inputs enters, in the shape of one input."""
    if isinstance(layer, nn.Linear):
        return torch.full(inputs, float(layer.out_features), dtype=torch.double)
    weights = torch.ones(layer.weight.shape, dtype=torch.double)
    ones = torch.ones(1, *outputs, dtype=torch.double)
    geometry = layer.stride, layer.padding, layer.dilation, layer.groups
    return conv2d_input((1, *inputs), weights, ones, *geometry)[0]  # every path from an input to an output counts 1


def _spread(counts: Tensor, shape: torch.Size, pool: int) -> Tensor:
    """Counts of pooled, perhaps flattened cells as counts of the cells (C, H, W) before the pool.

    Behind the pool of width `pool` there may be a mean over the map.
    """
    if counts.shape == shape:
        return counts
    channels, height, _ = shape
    side = math.isqrt(counts.numel() // channels)
    repeated = pool * (height // pool // side)
    cells = counts.view(channels, side, side).repeat_interleave(repeated, 1).repeat_interleave(repeated, 2)
    dropped = height - side * repeated
    return nn.functional.pad(cells, (0, dropped, 0, dropped))


def _with_hooks(network: Network, hooks: dict[type, Callable], images: Tensor) -> Tensor:
    """The network's output, while each module of one of the types is followed by its hook."""
    handles = []
    try:
        for module in network.modules():
            handles += [module.register_forward_hook(hook) for kind, hook in hooks.items() if isinstance(module, kind)]
        return network(images)
    finally:
        for handle in handles:
            handle.remove()
