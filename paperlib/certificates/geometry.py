"""How far an image is from the nearest change of a spike in the first layer.

With direct encoding the first neurons receive constant currents.  Their spike trains change where a current crosses a
threshold θ/c_k, c_k = 1 + τ + ... + τ^(k-1), k = 1..T, and nowhere else (see `spiking.periods`).  A current is linear
in the image, so its l∞ distance to each threshold is exact.  Within the least of all distances no first spike changes,
and so nothing behind the first layer: the network is constant there.  That spiking networks are piecewise constant is
the subject of arXiv 2505.18023.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperlib.certificates.certificate import time_of
from paperlib.networks.architectures import WideBlock
from paperlib.networks.network import Network
from paperlib.networks.neurons import NormedLIF


def still_radius(network: nn.Module, images: Tensor) -> Tensor:
    """The radius in l∞ within which no perturbation of an image (B, C, H, W) changes a first spike, (B,) float64.

    It knows no bounds of the data.  It is smaller than the exact radius by the rounding of the network in float32.  It
    is 0 for a network in which there is no such radius: whose first layer has no spikes or no constant current, or
    whose current is used elsewhere, too.
    """
    first = _first_neurons(network)
    if first is None:
        return torch.zeros(len(images), dtype=torch.float64)
    stem, time, x = network.stem, time_of(network), _double(images)
    scale = _channels(first.weight * (first.running_var + first.eps).rsqrt())
    weight, shift = _double(stem.weight), _channels(first.bias) - _channels(first.running_mean) * scale
    bias = _channels(torch.zeros(len(weight)) if stem.bias is None else stem.bias)

    def summed(values: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(values, weight, None, stem.stride, stem.padding, stem.dilation, stem.groups)

    frames = (x - _channels(network.mean)) / _channels(network.std)
    current = (summed(frames, weight) + bias) * scale + shift
    slope = summed((1 / _channels(network.std)).expand(x.shape[1:])[None], weight.abs()) * scale.abs()  # ‖∂I/∂x‖₁
    magnitude = (summed(frames.abs(), weight.abs()) + bias.abs()) * scale.abs() + shift.abs()
    rounding = time.rounding(weight[0].numel()) * magnitude
    grown = [sum(time.tau**i for i in range(k)) for k in range(1, time.T + 1)]
    thresholds = torch.tensor([first.neuron.threshold / c for c in grown]).double()
    distance = (current[..., None] - thresholds).abs().amin(-1) - rounding
    return (distance / slope).clamp_min(0).flatten(1).amin(1)  # a neuron that no pixel reaches is ∞ away


def _double(values: Tensor | tuple[float, ...]) -> Tensor:
    return torch.as_tensor(values).detach().cpu().double()


def _channels(values: Tensor | tuple[float, ...]) -> Tensor:
    """(C,) → (C, 1, 1)."""
    return _double(values).view(-1, 1, 1)


def _first_neurons(network: nn.Module) -> NormedLIF | None:
    """The neurons behind the stem where they alone receive its constant current."""
    if not isinstance(network, Network) or network.events or network.poisson or not isinstance(network.stem, nn.Conv2d):
        return None
    first = network.body[0]
    if isinstance(first, WideBlock) and first.shortcut is not None:
        first = first.norm1
    return first if isinstance(first, NormedLIF) else None
