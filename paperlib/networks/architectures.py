"""Architectures by name: the layers between the image and the readout."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperlib import errors

Layout = Callable[..., tuple[nn.Module, list[nn.Module], int]]  # see `register`

VGG11 = ((64,), (128, 256), (512, 512, 512), (512, 512))  # a 2×2 average pool between the groups
VGG11_HIDDEN = (4096, 4096)
WRN16 = (64, 128, 256)  # two blocks of each width; from the second width on, the first block halves the image
WRN16_STEM = 16

POISSON, ANN, EVENTS = PREFIXES = ("poisson-", "ann-", "events-")  # before the name of a layout


class TimeFolded(nn.Sequential):
    """Layers without memory on (T, B, ...): the batch of T·B passes through them, then time is unfolded again."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class WideBlock(nn.Module):
    """BatchNorm, neuron and 3×3 convolution, twice, plus a shortcut; two learned scalars weight the two.

    The shortcut is the raw input; where the width changes, it is a 1×1 convolution of the activated input (section 2 of
    the paper notes).
    """

    def __init__(self, channels: int, width: int, stride: int, normed: Callable[..., nn.Module]):
        super().__init__()
        self.norm1 = normed(channels)
        self.conv1 = TimeFolded(nn.Conv2d(channels, width, 3, stride, padding=1, bias=False))
        self.norm2 = normed(width)
        self.conv2 = TimeFolded(nn.Conv2d(width, width, 3, padding=1, bias=False))
        self.shortcut = None if channels == width else TimeFolded(nn.Conv2d(channels, width, 1, stride, bias=False))
        self.mix = nn.Parameter(torch.full((2,), 0.5))  # weights of shortcut and residual

    def forward(self, x: Tensor) -> Tensor:
        active = self.norm1(x)
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return self.mix[0] * shortcut + self.mix[1] * self.conv2(self.norm2(self.conv1(active)))


class NormedReLU(nn.BatchNorm2d):
    """The counterpart of `NormedLIF` in a network without spikes: BatchNorm, ReLU, with `pool` a 2×2 average pool."""

    def __init__(self, channels: int, *, pool: bool = False):
        super().__init__(channels)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """(1, B, C, H, W) → the same shape, or with `pool` (1, B, C, H//2, W//2)."""
        active = F.relu(super().forward(x[0]))
        return (F.avg_pool2d(active, 2) if self.pool else active)[None]


def refuse_time(name: str, T: int, tau: float, detach_reset: bool) -> None:
    """Refuse time steps, a leak or a detached reset for a network without spikes."""
    if name.startswith(ANN) and (T, tau, detach_reset) != (1, 1, False):
        reset = " and a detached reset" if detach_reset else ""
        raise errors.Refused(
            f"{name} is given T = {T}, tau = {tau:g}{reset}; without spikes it takes T = 1 and tau = 1."
        )


LAYOUTS: dict[str, Layout] = {}


def register(name: str) -> Callable[[Layout], Layout]:
    """Decorator: make a layout known as the network `name`, alone and behind each of `PREFIXES`.

    A layout is a function (*, in_channels, image_size, neuron, normed) → (stem, body, features).  `neuron()` makes a
    neuron; `normed(channels, pool=False)` makes BatchNorm with a neuron and, with `pool`, a 2×2 average pool.  `stem`
    maps images (B, C, H, W) to currents.  `body` is a list of modules on (T, B, ...); modules without memory are
    wrapped in `TimeFolded`, and the last module returns (T, B, ...) with `features` numbers a sample and step.
    Refuses a name that another layout has.
    """

    def remember(layout: Layout) -> Layout:
        errors.registered_once("network", name, LAYOUTS.get(name), layout)
        LAYOUTS[name] = layout
        return layout

    return remember


def architecture(name: str) -> Layout:
    """The layout of the network `name`, with or without one of `PREFIXES` (see `register`); refuses unknown names."""
    text = name if isinstance(name, str) else ""  # anything else is refused below
    layout = text.removeprefix(next((prefix for prefix in PREFIXES if text.startswith(prefix)), ""))
    if layout in LAYOUTS:
        return LAYOUTS[layout]
    kind, *widths = layout.split("-")
    if kind != "conv" or not widths or not all(width.isdecimal() and int(width) for width in widths):
        allowed = [
            *LAYOUTS,
            "conv-A-B-... (channels of each convolution, such as conv-16-32)",
            f"each of these behind {', '.join(PREFIXES[:-1])} or {PREFIXES[-1]}",
        ]
        errors.one_of("network", name, allowed)
    groups = tuple((int(width),) for width in widths)
    return partial(_plain, layout, groups, hidden=(), pool_last=True)


@register("vgg11")
def _vgg11(**options) -> tuple[nn.Module, list[nn.Module], int]:
    return _plain("vgg11", VGG11, hidden=VGG11_HIDDEN, pool_last=False, **options)


@register("wrn16")
def _wrn16(**options) -> tuple[nn.Module, list[nn.Module], int]:
    return _wide("wrn16", WRN16, **options)


def _plain(name, groups, *, hidden, pool_last, in_channels, image_size, neuron, normed):
    """Groups of convolutions with a pool behind each group, then hidden linear layers.

    Behind the last group there is a pool only with `pool_last`.
    """
    pools = len(groups) if pool_last else len(groups) - 1
    size = image_size // 2**pools  # of the last feature map
    if size < 1:
        raise errors.Refused(f"{name} halves its input {pools} times; images of {image_size} pixels are too small.")
    stem, body, channels = None, [], in_channels
    for number, group in enumerate(groups, 1):
        for place, width in enumerate(group, 1):
            convolution = nn.Conv2d(channels, width, 3, padding=1)
            if stem is None:
                stem = convolution
            else:
                body.append(TimeFolded(convolution))
            body.append(normed(width, pool=place == len(group) and number <= pools))
            channels = width
    features = channels * size * size
    if hidden:
        body.append(TimeFolded(nn.Flatten()))
    for width in hidden:
        body += [TimeFolded(nn.Linear(features, width)), neuron()]
        features = width
    return stem, body, features


def _wide(name, widths, *, in_channels, image_size, neuron, normed):
    """A WideResNet with two blocks of each width: convolution, blocks, BatchNorm, neuron, mean over the feature map."""
    halvings = len(widths) - 1
    if image_size < 2**halvings:
        raise errors.Refused(f"{name} halves its input {halvings} times; images of {image_size} pixels are too small.")
    stem, body, channels = nn.Conv2d(in_channels, WRN16_STEM, 3, padding=1, bias=False), [], WRN16_STEM
    for number, width in enumerate(widths):
        for stride in (2 if number else 1, 1):
            body.append(WideBlock(channels, width, stride, normed))
            channels = width
    body += [normed(channels), TimeFolded(nn.AdaptiveAvgPool2d(1), nn.Flatten())]
    return stem, body, channels
