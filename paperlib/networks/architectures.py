"""Architectures by name: what lies between the image and the logits, layer by layer."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperlib import errors

VGG11 = ((64,), (128, 256), (512, 512, 512), (512, 512))  # a 2×2 average pool between the groups

VGG11_HIDDEN = (4096, 4096)

WRN16 = (64, 128, 256)  # two blocks of each width; from the second width on the first of them halves the image

WRN16_STEM = 16

POISSON, ANN, EVENTS = PREFIXES = ("poisson-", "ann-", "events-")  # before a network's name


class TimeFolded(nn.Sequential):
    """Layers without memory on (T, B, ...): time is folded into the batch and unfolded again."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class WideBlock(nn.Module):
    """BatchNorm, neuron, 3×3 convolution, twice; mixed with a shortcut by two learned scalars (section 2 of the notes).

    Where the width changes the shortcut is a 1×1 convolution of the activated input, else it is the raw input.
    """

    def __init__(self, channels: int, width: int, stride: int, normed: Callable[..., nn.Module]):
        super().__init__()
        self.norm1 = normed(channels)
        self.conv1 = TimeFolded(nn.Conv2d(channels, width, 3, stride, padding=1, bias=False))
        self.norm2 = normed(width)
        self.conv2 = TimeFolded(nn.Conv2d(width, width, 3, padding=1, bias=False))
        self.shortcut = None if channels == width else TimeFolded(nn.Conv2d(channels, width, 1, stride, bias=False))
        self.mix = nn.Parameter(torch.full((2,), 0.5))  # shortcut, residual

    def forward(self, x: Tensor) -> Tensor:
        active = self.norm1(x)
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return self.mix[0] * shortcut + self.mix[1] * self.conv2(self.norm2(self.conv1(active)))


class NormedReLU(nn.BatchNorm2d):
    """What stands for `NormedLIF` in a network without spikes: BatchNorm, ReLU, and with `pool` a 2×2 average pool."""

    def __init__(self, channels: int, *, pool: bool = False):
        super().__init__(channels)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """(1, B, C, H, W) → the same shape, or with `pool` (1, B, C, H//2, W//2)."""
        active = F.relu(super().forward(x[0]))
        return (F.avg_pool2d(active, 2) if self.pool else active)[None]


def refuse_time(name: str, T: int, tau: float, detach_reset: bool) -> None:
    """Refuse time steps, a leak or a detached reset of a network without spikes."""
    if name.startswith(ANN) and (T, tau, detach_reset) != (1, 1, False):
        reset = " and a detached reset" * detach_reset
        raise errors.Refused(
            f"{name} is given T = {T}, tau = {tau:g}{reset}; without spikes it takes T = 1 and tau = 1."
        )


LAYOUTS: dict[str, Callable[..., tuple]] = {}


def register(name: str):
    """Decorator: make a layout known as the network `name`, alone and behind each of `PREFIXES`.

    A layout is a function (*, in_channels, image_size, neuron, normed) → (stem, body, features).  `neuron()` makes a
    neuron, `normed(channels, pool=False)` BatchNorm with a neuron and maybe a 2×2 average pool.  `stem` maps images
    (B, C, H, W) to currents; `body` is a list of modules on (T, B, ...), those without memory wrapped in `TimeFolded`,
    the last of which returns (T, B, features).  Refuses a name that another layout has.
    """

    def remember(layout: Callable[..., tuple]) -> Callable[..., tuple]:
        errors.registered_once("network", name, LAYOUTS.get(name), layout)
        LAYOUTS[name] = layout
        return layout

    return remember


def architecture(name: str) -> Callable[..., tuple]:
    """The layout of the network of that name (see `register`); refuses unknown names."""
    layers = name[len(next((p for p in PREFIXES if name.startswith(p)), "")) :]
    if layers in LAYOUTS:
        return LAYOUTS[layers]
    kind, *widths = layers.split("-")
    if kind != "conv" or not widths or not all(width.isdecimal() and int(width) for width in widths):
        allowed = [
            *LAYOUTS,
            "conv-A-B-... (channels of each convolution, such as conv-16-32)",
            f"each of these behind {', '.join(PREFIXES[:-1])} or {PREFIXES[-1]}",
        ]
        errors.one_of("network", name, allowed)
    groups = tuple((int(width),) for width in widths)
    return partial(_plain, name, groups, (), True)


@register("vgg11")
def _vgg11(**size) -> tuple:
    return _plain("vgg11", VGG11, VGG11_HIDDEN, False, **size)


@register("wrn16")
def _wrn16(**size) -> tuple:
    return _wide("wrn16", WRN16, **size)


def _plain(name, groups, hidden, pooled_end, *, in_channels, image_size, neuron, normed):
    """Groups of convolutions, a pool behind each (the last only where `pooled_end`), then hidden linear layers."""
    pools = len(groups) if pooled_end else len(groups) - 1
    size = image_size // 2**pools  # of the last feature map
    if size < 1:
        raise errors.Refused(f"{name} halves its input {pools} times; images of {image_size} pixels are too small.")
    stem, body, channels = None, [], in_channels
    for g, group in enumerate(groups):
        for place, width in enumerate(group, 1):
            convolution = nn.Conv2d(channels, width, 3, padding=1)
            if stem is None:
                stem = convolution
            else:
                body.append(TimeFolded(convolution))
            body.append(normed(width, pool=place == len(group) and g < pools))
            channels = width
    body.append(TimeFolded(nn.Flatten()))
    features = channels * size * size
    for width in hidden:
        body += [TimeFolded(nn.Linear(features, width)), neuron()]
        features = width
    return stem, body, features


def _wide(name, widths, *, in_channels, image_size, neuron, normed):
    """A WideResNet of two blocks a width: convolution, blocks, BatchNorm, neuron, average over the feature map."""
    if image_size < 2 ** (len(widths) - 1):
        raise errors.Refused(f"{name} halves its input {len(widths) - 1} times; {image_size} pixels are too few.")
    stem, body, channels = nn.Conv2d(in_channels, WRN16_STEM, 3, padding=1, bias=False), [], WRN16_STEM
    for g, width in enumerate(widths):
        for place in range(2):
            stride = 2 if g and place == 0 else 1
            body.append(WideBlock(channels, width, stride, normed))
            channels = width
    body += [normed(channels), TimeFolded(nn.AdaptiveAvgPool2d(1), nn.Flatten())]
    return stem, body, channels
