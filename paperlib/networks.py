"""Spiking networks with direct encoding: images (B, C, H, W) in the data's bounds → logits (B, K).

The normalised image is fed at each of T steps, so the first convolution and its BatchNorm run once.  Between the
neurons time is folded into the batch.  The last linear layer does not spike; logits are its mean over time.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from paperlib import errors, rules
from paperlib.neurons import LIF
from paperlib.rules import Rule

VGG11 = ((64,), (128, 256), (512, 512, 512), (512, 512))  # a 2×2 average pool between the groups
VGG11_HIDDEN = (4096, 4096)


class RepeatedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm on (B, C, H, W), with the running statistics of the same batch seen `repeats` times.

    Repetition changes neither mean nor biased variance; only the factor N/(N - 1) of the running variance differs.
    """

    def __init__(self, channels: int, repeats: int):
        super().__init__(channels)
        self.repeats = repeats

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        kept = (1 - self.momentum) * self.running_var
        y = super().forward(x)
        count = x.numel() // x.shape[1]
        factor = self.repeats * (count - 1) / (self.repeats * count - 1)
        self.running_var = kept + (self.running_var - kept) * factor  # a new tensor: backward still reads the old one
        return y


class TimeFolded(nn.Sequential):
    """Layers without memory on (T, B, ...): time is folded into the batch and unfolded again."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Network(nn.Module):
    """`stem` sees the normalised image once, `body` spikes over (T, B, ...), `head` reads the mean over time."""

    def __init__(self, stem: nn.Module, body: nn.Module, head: nn.Module, *, T: int, mean, std):
        super().__init__()
        self.stem, self.body, self.head, self.T = stem, body, head, T
        self.mean, self.std = mean, std  # plain numbers, so that they are exact in every precision
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W), unnormalised → logits (B, K)."""
        mean, std = (images.new_tensor(per_channel).view(-1, 1, 1) for per_channel in (self.mean, self.std))
        current = self.stem((images - mean) / std)  # (B, C₁, H, W)
        spikes = self.body(current.expand(self.T, *current.shape))  # (T, B, ...)
        return self.head(spikes.mean(0))  # linear, so the mean over time may be taken first

    @contextmanager
    def reference_path(self) -> Iterator[None]:
        """Step `snntorch.Leaky` instead of the fused neuron; slower, and twice differentiable."""
        neurons = [module for module in self.modules() if isinstance(module, LIF)]
        for neuron in neurons:
            neuron.reference = True
        try:
            yield
        finally:
            for neuron in neurons:
                neuron.reference = False


def build(
    name: str,
    *,
    in_channels: int,
    image_size: int,
    num_classes: int,
    T: int,
    tau: float = 1.0,
    rule: Rule | None = None,
    fire_at: str = ">=",
    detach_reset: bool = False,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Network:
    """A fresh network.  Weights come from torch's global generator.

    `name` is "vgg11" (section 2 of the paper notes) or "conv-16-32": one 3×3 convolution, BatchNorm, neuron and 2×2
    average pool per number, then a linear readout.  Images are square, `image_size` pixels
    wide.  `rule` defaults to triangle(1); `mean` and `std`, per channel, to 0 and 1.  Refuses unknown names, fewer than
    one step, and images too small for the pools.
    """
    for what, given in (("T", T), ("in_channels", in_channels), ("num_classes", num_classes)):
        errors.count(what, given)
    groups, hidden, pooled_end = architecture(name)
    pools = len(groups) if pooled_end else len(groups) - 1
    size = image_size // 2**pools  # of the last feature map
    if size < 1:
        raise errors.Refused(f"{name} halves its input {pools} times; images of {image_size} pixels are too small.")

    def neuron() -> LIF:
        return LIF(rule or rules.triangle(), tau=tau, fire_at=fire_at, detach_reset=detach_reset)

    first = groups[0][0]
    stem = nn.Sequential(nn.Conv2d(in_channels, first, 3, padding=1), RepeatedBatchNorm2d(first, repeats=T))
    body, memoryless, channels = [neuron()], [], first  # `memoryless` gathers layers until the next neuron
    for g, group in enumerate(groups):
        for wider in group if g else group[1:]:
            memoryless += [nn.Conv2d(channels, wider, 3, padding=1), nn.BatchNorm2d(wider)]
            body += [TimeFolded(*memoryless), neuron()]
            memoryless, channels = [], wider
        if g < pools:
            memoryless.append(nn.AvgPool2d(2))
    memoryless.append(nn.Flatten())
    inputs = channels * size * size
    for features in hidden:
        memoryless.append(nn.Linear(inputs, features))
        body += [TimeFolded(*memoryless), neuron()]
        memoryless, inputs = [], features
    if memoryless:
        body.append(TimeFolded(*memoryless))
    mean, std = mean or (0.0,) * in_channels, std or (1.0,) * in_channels
    network = Network(stem, nn.Sequential(*body), nn.Linear(inputs, num_classes), T=T, mean=mean, std=std)
    return network.to(memory_format=torch.channels_last)  # a third less time per step on a CPU


def architecture(name: str) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...], bool]:
    """Groups of convolutions, hidden linear layers, whether a pool follows the last group; refuses unknown names."""
    if name == "vgg11":
        return VGG11, VGG11_HIDDEN, False
    kind, *widths = name.split("-")
    if kind != "conv" or not widths or not all(width.isdecimal() and int(width) for width in widths):
        errors.one_of("network", name, ["vgg11", "conv-A-B-... (channels of each convolution, such as conv-16-32)"])
    return tuple((int(width),) for width in widths), (), True
