"""The same networks as one would write them without the neuron of paperlib; the benchmark compares ours with them.

Both are made from a `paperlib.networks.Network` ("vgg11" or "conv-A-B-..."), with copies of its weights and statistics,
and map the same images (B, C, H, W) to the same logits (B, K).  Their weights have the memory format of PyTorch.
"""

import copy
from collections.abc import Callable

import snntorch as snn
import torch
from torch import Tensor, nn

from paperlib.networks.network import Network
from paperlib.networks.neurons import LIF, NormedLIF


class Triangle(torch.autograd.Function):
    """Forward 1(u ≥ 0), or with `strict` 1(u > 0); backward max(0, γ - |u|)/γ², as written with autograd."""

    @staticmethod
    def forward(ctx, u: Tensor, gamma: float, strict: bool) -> Tensor:
        ctx.save_for_backward(u)
        ctx.gamma = gamma
        return (u > 0 if strict else u >= 0).to(u.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (u,) = ctx.saved_tensors
        return grad * (ctx.gamma - u.abs()).clamp(min=0) / ctx.gamma**2, None, None


class Stepping(nn.Module):
    """A Python loop over the T steps with `snn.Leaky` as the neuron, as a careful snnTorch user would write it.

    The first convolution and its BatchNorm see the same image at every step, so they run once, before the loop.  A
    neuron fires where its membrane is above the threshold, as in snnTorch.  In training mode every BatchNorm in the
    loop takes the statistics of the batch at one step, so the function is the same in eval mode only; the amount of
    work is the same in both modes.
    """

    def __init__(self, network: Network):
        super().__init__()
        self.T, self.mean, self.std = network.T, network.mean, network.std
        first, norm, *rest = _layers(network, _leaky)
        self.once, self.each_step = nn.Sequential(first, norm), nn.ModuleList(rest)
        self.to(memory_format=torch.contiguous_format)

    def forward(self, images: Tensor) -> Tensor:
        current = self.once(_normalised(images, self.mean, self.std))
        membranes = {layer: layer.reset_mem() for layer in self.each_step if isinstance(layer, snn.Leaky)}
        logits = 0
        for _ in range(self.T):
            x = current
            for layer in self.each_step:
                if layer in membranes:
                    x, membranes[layer] = layer(x, membranes[layer])
                else:
                    x = layer(x)
            logits = logits + x
        return logits / self.T


class Folded(nn.Module):
    """Time is folded into the batch for all layers except the neurons, which loop over the steps inside autograd.

    The images are repeated T times at the input, and BatchNorm takes the statistics of all T·B of them.
    """

    def __init__(self, network: Network, neuron: Callable[[LIF, int], nn.Module] | None = None):
        super().__init__()
        self.T, self.mean, self.std = network.T, network.mean, network.std
        self.layers = nn.Sequential(*_layers(network, lambda lif: (neuron or LoopedLIF)(lif, network.T)))
        self.to(memory_format=torch.contiguous_format)

    def forward(self, images: Tensor) -> Tensor:
        repeated = _normalised(images, self.mean, self.std).repeat(self.T, 1, 1, 1)
        return self.layers(repeated).unflatten(0, (self.T, -1)).mean(0)


class SpikingJelly(Folded):
    """Like `Folded`, with SpikingJelly's multi-step neuron, on a GPU in the implementation that it chooses.

    Its LIF decays by 1 - 1/τ' a step, so τ' = 1 / (1 - τ); at τ = 1 it is its IF neuron.
    """

    def __init__(self, network: Network):
        super().__init__(network, _spikingjelly)

    def forward(self, images: Tensor) -> Tensor:
        from spikingjelly.activation_based import functional  # a slow import

        functional.reset_net(self)  # it remembers membranes from call to call
        return super().forward(images)


class Unfolded(nn.Module):
    """A multi-step neuron, which takes (T, B, ...), on (T·B, ...)."""

    def __init__(self, neuron: nn.Module, T: int):
        super().__init__()
        self.neuron, self.T = neuron, T

    def forward(self, current: Tensor) -> Tensor:
        return self.neuron(current.unflatten(0, (self.T, -1))).flatten(0, 1)


class LoopedLIF(nn.Module):
    """The neuron on (T·B, ...), step by step.  The reset is differentiated; autograd keeps what it needs."""

    def __init__(self, neuron: LIF, T: int):
        super().__init__()
        self.T, self.tau, self.threshold, self.gamma = T, neuron.tau, neuron.threshold, neuron.rule.half_width

    def forward(self, current: Tensor) -> Tensor:
        kept, spikes = 0.0, []
        for step in current.unflatten(0, (self.T, -1)).unbind(0):
            membrane = self.tau * kept + step
            spike = Triangle.apply(membrane - self.threshold, self.gamma, False)
            kept = (1 - spike) * membrane
            spikes.append(spike)
        return torch.cat(spikes)


def _layers(network: Network, neuron: Callable[[LIF], nn.Module]) -> list[nn.Module]:
    """Copies of the layers of `network` in their order, as modules of torch, and `neuron` of each LIF."""
    layers = [network.stem]
    for layer in network.body:
        if isinstance(layer, NormedLIF):
            layers += [_norm(layer), neuron(layer.neuron)]
            if layer.pool:
                layers.append(nn.AvgPool2d(2))
        elif isinstance(layer, LIF):
            layers.append(neuron(layer))
        else:  # without memory
            layers += list(layer)
    return copy.deepcopy([*layers, nn.Flatten(), network.head])


def _norm(layer: NormedLIF) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(layer.num_features, eps=layer.eps, momentum=layer.momentum).to(layer.weight)
    norm.load_state_dict(layer.state_dict())
    return norm


def _leaky(neuron: LIF) -> snn.Leaky:
    gamma = neuron.rule.half_width
    return snn.Leaky(
        beta=neuron.tau,
        threshold=neuron.threshold,
        spike_grad=lambda u: Triangle.apply(u, gamma, True),
        reset_mechanism="zero",
        reset_delay=False,
    )


def _normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    mean, std = (images.new_tensor(per_channel).view(-1, 1, 1) for per_channel in (mean, std))
    return (images - mean) / std


def _spikingjelly(neuron: LIF, T: int) -> nn.Module:
    from spikingjelly.activation_based import neuron as neurons
    from spikingjelly.activation_based import surrogate

    options = {"v_threshold": neuron.threshold, "v_reset": 0.0, "detach_reset": neuron.detach_reset, "step_mode": "m"}
    options["surrogate_function"] = surrogate.PiecewiseQuadratic(1 / neuron.rule.half_width)
    if neuron.tau == 1:
        return Unfolded(neurons.IFNode(**options), T)
    return Unfolded(neurons.LIFNode(1 / (1 - neuron.tau), decay_input=False, **options), T)
