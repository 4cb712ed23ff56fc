"""Bounds through a network: one function a kind of layer."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from paperlib import errors
from paperlib.certificates import spiking
from paperlib.certificates.intervals import Interval, Time, linear, offset, scaled, size, spread
from paperlib.networks.architectures import NormedReLU, TimeFolded, WideBlock
from paperlib.networks.neurons import LIF, NormedLIF

RULES: dict[type, Callable[[nn.Module, Interval, Time], Interval]] = {}  # by the type of the layer


def through(layer: nn.Module, x: Interval, time: Time) -> Interval:
    """The bounds behind `layer` from those before it."""
    return RULES[type(layer)](layer, x, time)


def refuse_unknown(layers: nn.Module) -> None:
    """Refuse a layer that has no rule, and so a subclass of one that has: its forward pass may be another."""
    for layer in layers.modules():
        if type(layer) not in RULES:
            raise errors.Refused(f"A layer is a {type(layer).__name__}; there are no bounds for it.")
        if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
            raise errors.Refused(f"A convolution pads with {layer.padding_mode}; there are bounds for zeros alone.")
        if isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size != 1:
            raise errors.Refused(f"A pool has the output size {layer.output_size}; there are bounds for 1 alone.")


def _rule(*kinds: type) -> Callable:
    """Decorator: the function gives the bounds behind layers of these types."""

    def remember(function: Callable) -> Callable:
        RULES.update(dict.fromkeys(kinds, function))
        return function

    return remember


@_rule(nn.Sequential, TimeFolded)
def _sequential(layer, x: Interval, time: Time) -> Interval:
    for part in layer:
        x = through(part, x, time)
    return x


@_rule(nn.Flatten)
def _flatten(layer, x: Interval, time: Time) -> Interval:
    return x.map(lambda end: end.flatten(2))


@_rule(nn.Conv2d)
def _convolution(layer, x: Interval, time: Time) -> Interval:
    def apply(values: Tensor, weight: Tensor) -> Tensor:
        geometry = layer.stride, layer.padding, layer.dilation, layer.groups
        return F.conv2d(values.flatten(0, 1), weight, None, *geometry).unflatten(0, values.shape[:2])

    return linear(x, time, apply, layer.weight, layer.bias, terms=layer.weight[0].numel())


@_rule(nn.Linear)
def _linear(layer, x: Interval, time: Time) -> Interval:
    return linear(x, time, F.linear, layer.weight, layer.bias, terms=layer.in_features)


@_rule(nn.AdaptiveAvgPool2d)
def _mean(layer, x: Interval, time: Time) -> Interval:
    rounding = time.rounding(x.low[0, 0, 0].numel()) * size(x, time).mean((-2, -1), keepdim=True)
    return x.map(lambda end: end.mean((-2, -1), keepdim=True)).widened(rounding)


@_rule(LIF)
def _neuron(layer, x: Interval, time: Time) -> Interval:
    return spiking.spikes(x, time, layer.threshold, sums=time.asked)


@_rule(NormedLIF)
def _normed_neuron(layer, x: Interval, time: Time) -> Interval:
    return _pooled(through(layer.neuron, _normed(layer, x, time), time), layer.pool)


@_rule(NormedReLU)
def _normed_relu(layer, x: Interval, time: Time) -> Interval:
    return _pooled(_normed(layer, x, time).map(lambda end: end.clamp_min(0)), layer.pool)


@_rule(WideBlock)
def _block(layer, x: Interval, time: Time) -> Interval:
    active = through(layer.norm1, x, time)
    residual = through(layer.conv2, through(layer.norm2, through(layer.conv1, active, time), time), time)
    shortcut = x if layer.shortcut is None else through(layer.shortcut, active, time)
    shortcut = spread(shortcut, time) if shortcut.constant else shortcut
    parts = [scaled(part, mix) for part, mix in zip((shortcut, residual), layer.mix, strict=True)]
    rounding = time.rounding(2) * sum(size(part, time) for part in parts)
    return Interval(parts[0].low + parts[1].low, parts[0].high + parts[1].high).widened(rounding)


def _normed(layer: NormedLIF | NormedReLU, x: Interval, time: Time) -> Interval:
    """Behind BatchNorm with the statistics of the training."""
    scale = layer.weight * (layer.running_var + layer.eps).rsqrt()
    g = time.rounding(8)  # the scale is rounded, too
    product = scaled(x, scale.view(-1, 1, 1)).widened(g * size(x, time) * scale.abs().view(-1, 1, 1))
    return offset(offset(product, time, layer.bias, g), time, -layer.running_mean * scale, g)


def _pooled(x: Interval, pool: bool) -> Interval:
    """Behind a 2×2 average pool.  Spikes are averaged without rounding."""
    if not pool:
        return x
    return x.map(lambda end: F.avg_pool2d(end.flatten(0, 1), 2).unflatten(0, end.shape[:2]))
