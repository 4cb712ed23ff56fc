"""Spiking networks and their twins without spikes: images (B, C, H, W) in the data's bounds → logits (B, K).

With direct encoding every step is fed the same normalised image, so the first convolution runs once.  With Poisson
encoding every step is fed a frame of random spikes.  Event data, (B, T, 2, H, W), hold one frame for each step.
Between the neurons, time is folded into the batch.  The last linear layer does not spike; logits are its mean over
time.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from paperlib import errors
from paperlib.networks import rules
from paperlib.networks.architectures import ANN, EVENTS, POISSON, NormedReLU, architecture, refuse_time
from paperlib.networks.neurons import LIF, NormedLIF
from paperlib.networks.rules import Rate, Rule, Whole

PRECISIONS = ("float32", "bfloat16")


class Network(nn.Module):
    """`stem` takes the normalised image once, `body` spikes over (T, B, ...), `head` takes the mean over time.

    With `poisson` the stem takes T frames, in each of which a pixel x fires independently with probability x: never
    where x ≤ 0, always where x ≥ 1.  The frames are not normalised; the gradient of a frame passes to the image
    unchanged.
    With `events` the stem takes the T frames of a sample, one for each step.

    With `precision` "bfloat16" the convolutions and matrix products of `body` run in 16 bits; stem, membranes,
    statistics and head stay in 32 bits, so that no perturbation of an image is lost by rounding.
    """

    def __init__(
        self,
        stem: nn.Module,
        body: nn.Module,
        head: nn.Module,
        *,
        T: int,
        mean,
        std,
        poisson: bool,
        events: bool,
        precision: str,
    ):
        super().__init__()
        self.stem, self.body, self.head, self.T = stem, body, head, T
        self.mean, self.std = mean, std  # Python numbers: exact in every precision, and no part of the state
        self.poisson, self.events, self.precision = poisson, events, precision
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W), or with `events` frames (B, T, C, H, W), not normalised → logits (B, K).

        Refuses images of another shape.
        """
        frames = self._poisson_frames(images) if self.poisson else self._normalised_frames(images)
        current = self.stem(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])  # (T or 1, B, C₁, H, W)
        narrow = self.precision == "bfloat16"
        with torch.autocast(images.device.type, torch.bfloat16) if narrow else nullcontext():
            spikes = self.body(current)  # where the current has one step, the first neurons use it at every step
        total = spikes.to(images.dtype).sum(0)  # and not the mean, whose backward pass writes T equal gradients
        return self.head((total / len(spikes)).flatten(1))  # linear, so the mean over time may be taken first

    def _normalised_frames(self, images: Tensor) -> Tensor:
        """The one frame of direct encoding, (1, B, C, H, W), or the T frames of event data, (T, B, C, H, W)."""
        if images.dim() != 4 + self.events or (self.events and images.shape[1] != self.T):
            shape = f"(B, {self.T}, C, H, W): {self.T} frames a sample" if self.events else "(B, C, H, W)"
            raise errors.Refused(f"The network was given {tuple(images.shape)}; it takes {shape}.")
        mean, std = (images.new_tensor(per_channel).view(-1, 1, 1) for per_channel in (self.mean, self.std))
        frames = (images - mean) / std
        return frames.transpose(0, 1) if self.events else frames[None]

    def _poisson_frames(self, images: Tensor) -> Tensor:
        """The frames of Poisson encoding, (T, B, C, H, W) of 0 and 1, with ∂frame/∂image = 1."""
        draws = torch.rand(self.T, *images.shape)  # on the CPU, so that all devices draw the same
        spikes = draws.to(images.device) < images  # draws keep their 32 bits: rounded to 16, a draw might be 1
        return spikes.to(images.dtype) + (images - images.detach())

    @property
    def stochastic(self) -> bool:
        """Whether two forward passes on the same images may differ."""
        return self.poisson

    @property
    def coupled(self) -> bool:
        """Whether, in eval mode, the result of a sample now depends on the rest of its batch or on its place in it.

        This is so where the backward rule of a neuron is `coupled`, and where the input is drawn at random, in the
        order of the batch.  Then a batch must stay whole: without one of its samples, the others get other results.
        """
        return self.stochastic or any(_couples(neuron.rule) for neuron in self.neurons())

    def neurons(self) -> list[LIF]:
        """All layers of neurons, from the first to the last."""
        return [module for module in self.modules() if isinstance(module, LIF)]

    @contextmanager
    def backward_rule(self, name: str, **options: float) -> Iterator[None]:
        """Differentiate spikes by another rule, such as ("sigmoid", slope=4.0), in forward passes inside the block.

        Logits do not change.  Names and options are those of `rules.RULES`.  Each block gives each neuron a new rule,
        so that the memory of a rule belongs to one block and one layer.  Refuses unknown names and options.
        """
        rules.build(name, **options)  # to refuse them for a network without neurons, too
        with self._set("rule", lambda: rules.build(name, **options)):
            yield

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Inside the block, backward rules with a memory, such as ASSG, use their memory and do not update it."""
        slopes = [neuron.rule.slopes for neuron in self.neurons() if isinstance(neuron.rule, Whole)]
        memories = [memory for memory in slopes if hasattr(memory, "frozen")]
        try:
            for memory in memories:
                memory.frozen = True
            yield
        finally:
            for memory in memories:
                memory.frozen = False

    @contextmanager
    def reference_path(self) -> Iterator[None]:
        """Inside the block, step `snntorch.Leaky` instead of the fused neuron: slower, and twice differentiable."""
        with self._set("path", lambda: "reference"):
            yield

    @contextmanager
    def smoothed(self) -> Iterator[None]:
        """Inside the block, every spike is replaced by the integral of its backward rule: another, smooth function.

        Weights and reset stay the same.  The exact gradient of the smooth function has the formula of the surrogate
        gradient, on other membranes.  Forward passes refuse rules without such an integral.
        """
        with self._set("path", lambda: "smooth"):
            yield

    @contextmanager
    def _set(self, attribute: str, make: Callable[[], object]) -> Iterator[None]:
        """Set `attribute` of every neuron to `make()` inside the block, and back to its value behind it."""
        changes = [(neuron, getattr(neuron, attribute), make()) for neuron in self.neurons()]
        try:
            for neuron, _, new in changes:
                setattr(neuron, attribute, new)
            yield
        finally:
            for neuron, old, _ in changes:
                setattr(neuron, attribute, old)


def build(
    name: str,
    *,
    in_channels: int,
    image_size: int,
    num_classes: int,
    T: int,
    tau: float = 1.0,
    rule: Rule | Rate | Whole | None = None,
    fire_at: str = ">=",
    detach_reset: bool = False,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    precision: str = "float32",
) -> Network:
    """A new network, with weights from torch's global generator.

    `name` is that of a registered layout ("vgg11" and "wrn16" are the paper's; section 2 of the paper notes) or
    "conv-16-32": for each number a 3×3 convolution with so many channels, BatchNorm, neuron and 2×2 average pool, then
    a linear readout.  A prefix changes the input or the neurons: "poisson-" makes the input random spikes, "events-"
    makes it frames, one for each step, "ann-" makes the twin without spikes, which has ReLUs, and T = 1 and τ = 1.
    Images are square, `image_size` pixels wide.  `rule` defaults to triangle(1); `mean` and `std`, per channel, to 0
    and 1 (Poisson input is not normalised); `precision` is one of `PRECISIONS`.  Refuses unknown names, fewer than one
    step, images too small for the pools, and rules that couple samples.
    """
    for option, value in (("T", T), ("in_channels", in_channels), ("num_classes", num_classes)):
        errors.count(option, value)
    errors.one_of("precision", precision, PRECISIONS)
    if _couples(rule):
        raise errors.Refused(
            f"The rule {rule.name} couples the samples of a batch, so no network can be built with it; "
            f"use it inside network.backward_rule({rule.name!r})."
        )
    refuse_time(name, T, tau, detach_reset)
    layout = architecture(name)

    def neuron() -> LIF:
        return LIF(rule or rules.triangle(), tau=tau, fire_at=fire_at, detach_reset=detach_reset)

    def normed(channels: int, pool: bool = False) -> NormedLIF:
        return NormedLIF(channels, neuron(), steps=T, pool=pool)

    makers = dict(neuron=nn.ReLU, normed=NormedReLU) if name.startswith(ANN) else dict(neuron=neuron, normed=normed)
    stem, body, features = layout(in_channels=in_channels, image_size=image_size, **makers)
    mean, std = mean or (0.0,) * in_channels, std or (1.0,) * in_channels
    head = nn.Linear(features, num_classes)
    encoding = dict(mean=mean, std=std, poisson=name.startswith(POISSON), events=name.startswith(EVENTS))
    network = Network(stem, nn.Sequential(*body), head, T=T, **encoding, precision=precision)
    return network.to(memory_format=torch.channels_last)  # a third less time per step on a CPU


def _couples(rule: Rule | Rate | Whole | None) -> bool:
    return isinstance(rule, Whole) and rule.coupled
