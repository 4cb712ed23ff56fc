"""Spiking networks, and their twins without spikes: images (B, C, H, W) in the data's bounds → logits (B, K).

With direct encoding the normalised image is fed at each of T steps, so the first convolution runs once; with Poisson
encoding each step has a frame of random spikes; of event data, (B, T, 2, H, W), each step has its own frame.  Between
the neurons time is folded into the batch.  The last linear layer does not spike; logits are its mean over time.
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
    """`stem` sees the normalised image once, `body` spikes over (T, B, ...), `head` reads the mean over time.

    With `poisson` the stem sees T frames, in each of which a pixel x fires by itself with probability x: never where
    x ≤ 0, always where x ≥ 1.  They are not normalised, and each hands its whole gradient on to the image.
    With `events` the stem sees the T frames that a sample has, one a step, each gradient its frame's own.

    `precision` "bfloat16" runs the convolutions and matrix products of `body` in 16 bits; stem, membranes, statistics
    and head stay in 32, so that no perturbation of an image is rounded away.
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
        self.mean, self.std = mean, std  # plain numbers, so that they are exact in every precision
        self.poisson, self.events, self.precision = poisson, events, precision
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W), or frames (B, T, C, H, W), unnormalised → logits (B, K)."""
        frames = self._fired(images) if self.poisson else self._normalised(images)
        current = self.stem(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])  # (T or 1, B, C₁, H, W)
        narrow = self.precision == "bfloat16"
        with torch.autocast(images.device.type, torch.bfloat16) if narrow else nullcontext():
            spikes = self.body(current)  # a current of one step: the first neurons take it at every step
        return self.head(spikes.to(images.dtype).mean(0))  # linear, so the mean over time may be taken first

    def _normalised(self, images: Tensor) -> Tensor:
        """The one frame of direct encoding, (1, B, C, H, W), or the T of an event sample, (T, B, C, H, W)."""
        if images.dim() != 4 + self.events or (self.events and images.shape[1] != self.T):
            takes = f"(B, {self.T}, C, H, W): {self.T} frames a sample" if self.events else "(B, C, H, W)"
            raise errors.Refused(f"The network was given {tuple(images.shape)}; it takes {takes}.")
        mean, std = (images.new_tensor(per_channel).view(-1, 1, 1) for per_channel in (self.mean, self.std))
        frames = (images - mean) / std
        return frames.transpose(0, 1) if self.events else frames[None]

    def _fired(self, images: Tensor) -> Tensor:
        """The frames of Poisson encoding, (T, B, C, H, W) of 0 and 1; ∂frame/∂image = 1."""
        draws = torch.rand(self.T, *images.shape)  # on the CPU, so that devices agree
        spikes = draws.to(images.device) < images  # 32 bits against whatever images have: rounded, a draw might be 1
        return spikes.to(images.dtype) + (images - images.detach())

    @property
    def stochastic(self) -> bool:
        """Whether two forward passes on the same images may differ."""
        return self.poisson

    @property
    def coupled(self) -> bool:
        """Whether, in eval mode, a sample's result now depends on the samples beside it or on its place among them.

        So it does where the backward rule of a neuron is `coupled`, or where the input is drawn at random, in the order
        of the batch.  Then no sample may leave its batch, or the others get other results.
        """
        return self.stochastic or any(_couples(neuron.rule) for neuron in self.neurons())

    def neurons(self) -> list[LIF]:
        """All of them, from the first layer to the last."""
        return [module for module in self.modules() if isinstance(module, LIF)]

    @contextmanager
    def backward_rule(self, name: str, **options: float) -> Iterator[None]:
        """Differentiate spikes by another rule, such as ("sigmoid", slope=4.0), for forward passes inside the block.

        The forward pass stays what it is.  Names and options are those of `rules.RULES`.  Each neuron has a rule of its
        own, new with each block, so that what one remembers belongs to this block and this layer.
        """
        rules.build(name, **options)  # what is refused is so of a network without neurons, too
        with self._set("rule", lambda: rules.build(name, **options)):
            yield

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Backward rules that remember, such as ASSG, keep what they know inside the block and do not learn."""
        rules_ = [neuron.rule for neuron in self.neurons() if isinstance(neuron.rule, Whole)]
        memories = [rule.slopes for rule in rules_ if hasattr(rule.slopes, "frozen")]
        try:
            for memory in memories:
                memory.frozen = True
            yield
        finally:
            for memory in memories:
                memory.frozen = False

    @contextmanager
    def reference_path(self) -> Iterator[None]:
        """Step `snntorch.Leaky` instead of the fused neuron; slower, and twice differentiable."""
        with self._set("path", lambda: "reference"):
            yield

    @contextmanager
    def smoothed(self) -> Iterator[None]:
        """Every spike replaced by the integral of its backward rule, the reset kept: another, smooth function.

        Same weights; its exact gradient follows the formula of the surrogate one, on other membranes.  Refuses, when it
        is called, rules without such an integral.
        """
        with self._set("path", lambda: "smooth"):
            yield

    @contextmanager
    def _set(self, attribute: str, make: Callable[[], object]) -> Iterator[None]:
        """Every neuron's attribute inside the block, `make()` for each; its own again behind it."""
        changes = [(neuron, getattr(neuron, attribute), make()) for neuron in self.neurons()]
        try:
            for neuron, _, value in changes:
                setattr(neuron, attribute, value)
            yield
        finally:
            for neuron, own, _ in changes:
                setattr(neuron, attribute, own)


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
    """A fresh network.  Weights come from torch's global generator.

    `name` is "vgg11" or "wrn16" (section 2 of the paper notes) or "conv-16-32": one 3×3 convolution, BatchNorm, neuron
    and 2×2 average pool per number, then a linear readout.  "poisson-" before any of them makes its input random
    spikes; "ann-" makes it the twin without spikes, a ReLU for each neuron, which has no time: T is 1 and τ is 1;
    "events-" lets it take frames, one a step.
    Images are square, `image_size` pixels wide.  `rule` defaults to triangle(1); `mean` and `std`, per channel, to 0
    and 1 (Poisson input does without); `precision` is one of `PRECISIONS`.  Refuses unknown names, fewer than one step,
    images too small for the pools, and rules that couple samples.
    """
    for what, given in (("T", T), ("in_channels", in_channels), ("num_classes", num_classes)):
        errors.count(what, given)
    errors.one_of("precision", precision, PRECISIONS)
    if _couples(rule):
        raise errors.Refused(
            f"The rule {rule.name} couples the samples of a batch, so no network has it for good. "
            f"Take it for an attack: network.backward_rule({rule.name!r})."
        )
    refuse_time(name, T, tau, detach_reset)
    layout = architecture(name)

    def neuron() -> LIF:
        return LIF(rule or rules.triangle(), tau=tau, fire_at=fire_at, detach_reset=detach_reset)

    def normed(channels: int, pool: bool = False) -> NormedLIF:
        return NormedLIF(channels, neuron(), steps=T, pool=pool)

    cells = dict(neuron=nn.ReLU, normed=NormedReLU) if name.startswith(ANN) else dict(neuron=neuron, normed=normed)
    stem, body, features = layout(in_channels=in_channels, image_size=image_size, **cells)
    mean, std = mean or (0.0,) * in_channels, std or (1.0,) * in_channels
    head = nn.Linear(features, num_classes)
    encoding = dict(mean=mean, std=std, poisson=name.startswith(POISSON), events=name.startswith(EVENTS))
    network = Network(stem, nn.Sequential(*body), head, T=T, **encoding, precision=precision)
    return network.to(memory_format=torch.channels_last)  # a third less time per step on a CPU


def _couples(rule: Rule | Rate | Whole | None) -> bool:
    return isinstance(rule, Whole) and rule.coupled
