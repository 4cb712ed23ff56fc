"""Backward rules: how a spike is differentiated.  The forward pass never depends on them.

In formulas u = m - θ is the distance of the membrane to its threshold.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from paperlib import errors


class Rule(NamedTuple):
    """Back-propagation through time, where `derivative` gives ∂s/∂m as a function of u, elementwise, of any shape."""

    name: str
    derivative: Callable[[Tensor], Tensor]
    half_width: float | None = None  # γ of a triangle, the only rule that is also written in C (`neuron.c`)
    integral: Callable[[Tensor], Tensor] | None = None  # of the derivative, from 0 to 1: the smooth spike


class Rate(NamedTuple):
    """No gradient between steps: the gradient of each step times the slope of a rate map at the mean input over time.

    `slope` takes the mean input, of any shape, and τ.
    """

    name: str
    slope: Callable[[Tensor, float], Tensor]


class Whole(NamedTuple):
    """Back-propagation through time, where `slopes` gives ∂s/∂m of all steps at once.

    `slopes` takes u, (T, B, H, W, C), or (T, B, 1, 1, N) for a linear layer, and returns ∂s/∂m of the same shape.  It
    is called once per backward pass.  With `coupled` the slopes of a sample depend on the rest of its batch or on its
    place in it.
    """

    name: str
    slopes: Callable[[Tensor], Tensor]
    coupled: bool = False


def triangle(gamma: float = 1.0) -> Rule:
    """max(0, γ - |u|)/γ²; with γ = 1 the paper's training rule (section 2 of the paper notes)."""
    errors.number("gamma", gamma, above=0)

    def integral(u: Tensor) -> Tensor:
        u = (u / gamma).clamp(-1, 1)
        return (1 + u * (2 - u.abs())) / 2

    def derivative(u: Tensor) -> Tensor:
        return torch.rsub(u.abs(), gamma).clamp_min_(0).mul_(1 / gamma**2)

    return Rule("triangle", derivative, half_width=gamma, integral=integral)


def sigmoid(slope: float = 4.0) -> Rule:
    """k·σ(ku)·(1 - σ(ku)), the derivative of σ(ku); section 5 of the paper notes has k = 4."""
    errors.number("slope", slope, above=0)

    def derivative(u: Tensor) -> Tensor:
        s = torch.sigmoid(slope * u)
        return slope * s * (1 - s)

    return Rule("sigmoid", derivative, integral=lambda u: torch.sigmoid(slope * u))


def atan(gamma: float = 2.0) -> Rule:
    """(γ/2) / (1 + (πγu/2)²); section 5 of the paper notes has γ = 2."""
    errors.number("gamma", gamma, above=0)
    slope = math.pi * gamma / 2
    return Rule(
        "atan",
        lambda u: gamma / 2 / (1 + (slope * u).square()),
        integral=lambda u: torch.atan(slope * u) / math.pi + 0.5,
    )


def rectangle(gamma: float = 1.0) -> Rule:
    """1/γ where |u| < γ/2, else 0 (Wu et al., arXiv 1706.02609)."""
    errors.number("gamma", gamma, above=0)
    return Rule(
        "rectangle",
        lambda u: (u.abs() < gamma / 2).to(u.dtype) / gamma,
        integral=lambda u: (u / gamma + 0.5).clamp(0, 1),
    )


def exponential(gamma: float = 1.0) -> Rule:
    """exp(-|u|/γ)/(2γ): the form of Shrestha and Orchard (arXiv 1810.08646), scaled to area 1."""
    errors.number("gamma", gamma, above=0)

    def integral(u: Tensor) -> Tensor:
        half = torch.exp(torch.where(u < 0, u, -u) / gamma) / 2  # the area beyond |u|; abs would have slope 0 at 0
        return torch.where(u < 0, half, 1 - half)

    return Rule("exponential", lambda u: torch.exp(u.abs() / -gamma) / (2 * gamma), integral=integral)


def straight_through() -> Rule:
    """1 everywhere, as if the spike were the membrane (Bengio et al., arXiv 1308.3432)."""
    return Rule("straight-through", torch.ones_like)


def rate() -> Rate:
    """The RGA rule at the mean input x̄: (0.8 + 0.2τ)/(1 + τ) where 1 - τ ≤ x̄ ≤ 2, plus 0.2 where 0 ≤ x̄ ≤ 1 - τ.

    Section 5 of the paper notes.
    """

    def slope(mean: Tensor, tau: float) -> Tensor:
        fires = (1 - tau <= mean) & (mean <= 2)
        leaks = (mean >= 0) & (mean <= 1 - tau)  # at 1 - τ both hold, and the slopes add
        return fires.to(mean.dtype) * ((0.8 + 0.2 * tau) / (1 + tau)) + leaks.to(mean.dtype) * 0.2

    return Rate("rate", slope)


def assg(a: float = 0.43) -> Whole:
    """The ASSG rule (arXiv 2512.22522, section 6 of the notes): atan with a sharpness α of each sample and neuron.

    Each backward pass updates M ← 0.9M + 0.1|u|, which starts at 1, then D ← 0.9D + 0.1·||u| - M|, which starts at 0.
    The slope is then (α/2) / (1 + (παu/2)²) with α = (2/π)·tan(πa) / (M + 1.5D + 1e-4).  The rule holds M and D of one
    layer and one batch, so each layer needs a rule of its own, and each attack needs new ones.  While `slopes.frozen`
    is True, M and D are used and not updated.  Refuses `a` outside (0, 0.5), and membranes of another shape than M.
    """
    errors.number("a", a, above=0)
    if a >= 0.5:
        raise errors.Refused(f"a is {a!r}; it must be a number above 0 and below 0.5.")
    return Whole("assg", _Assg(2 / math.pi * math.tan(math.pi * a)), coupled=True)


class _Assg:
    """The slopes of `assg`: an object, not a closure, so that the copy of a network has a memory of its own."""

    def __init__(self, sharpness: float):
        self.sharpness, self.frozen = sharpness, False  # (2/π)·tan(πa)
        self.mean = self.deviation = None  # M and D, of the shape of u

    def __call__(self, u: Tensor) -> Tensor:
        distance = u.abs()
        if self.mean is None:
            self.mean, self.deviation = torch.ones_like(u), torch.zeros_like(u)
        if u.shape != self.mean.shape:
            raise errors.Refused(
                f"ASSG holds a batch of {self.mean.shape[1]} samples, membranes of shape {tuple(self.mean.shape)}; "
                f"it was given {u.shape[1]} samples, {tuple(u.shape)}. Keep the batch whole."
            )
        if not self.frozen:
            self.mean.mul_(0.9).add_(distance, alpha=0.1)
            self.deviation.mul_(0.9).add_((distance - self.mean).abs_(), alpha=0.1)
        alpha = self.sharpness / (self.mean + 1.5 * self.deviation + 1e-4)
        return alpha / 2 / (1 + (math.pi / 2 * alpha * u).square())


def pdsg() -> Whole:
    """exp(-(u - σ/2)²/(2σ²)) / (√(2π)σ), where σ is the spread of the membranes so far: PDSG, section 6 of the notes.

    For each channel or feature, σ is the unbiased standard deviation over the batch, space, and the steps up to and
    including the present one.  Where it is 0, or not defined because there is one value, σ = 1.
    """

    def slopes(u: Tensor) -> Tensor:
        spread = _spread_so_far(u)
        spread = torch.where(spread == 0, 1, spread)[:, None, None, None]
        return torch.exp(-(u / spread - 0.5).square() / 2) / (math.sqrt(2 * math.pi) * spread)

    return Whole("pdsg", slopes, coupled=True)


def _spread_so_far(u: Tensor) -> Tensor:
    """Unbiased standard deviation of u[: t + 1] for each t and channel, (T, B, H, W, C) → (T, C); of one value 0."""
    u = u - u[:1, :1, :1, :1]  # so that equal values have a spread of exactly 0, although their mean is rounded
    means = u.mean((1, 2, 3))
    squares = (u - means[:, None, None, None]).square().sum((1, 2, 3))  # about the mean of each step
    count, mean, total, spreads = u[0, ..., 0].numel(), means[0], 0.0, []
    for t in range(len(u)):  # Chan's algorithm joins the steps without a difference of large sums
        difference = means[t] - mean
        mean = mean + difference / (t + 1)
        total = total + squares[t] + difference.square() * (count * t / (t + 1))
        spreads.append((total / max((t + 1) * count - 1, 1)).rsqrt().reciprocal())  # not sqrt: see `arithmetic`
    return torch.stack(spreads)


def from_surrogate(spike_grad: Callable[[Tensor], Tensor]) -> Rule:
    """The rule of an snnTorch surrogate: the gradient that its backward pass gives at u."""

    def derivative(u: Tensor) -> Tensor:
        with torch.enable_grad():
            point = u if u.requires_grad else u.detach().requires_grad_()
            return torch.autograd.grad(spike_grad(point).sum(), point, create_graph=u.requires_grad)[0]

    return Rule("snntorch", derivative)


RULES = {
    "triangle": triangle,
    "sigmoid": sigmoid,
    "atan": atan,
    "rectangle": rectangle,
    "exponential": exponential,
    "straight-through": straight_through,
    "rate": rate,
    "assg": assg,
    "pdsg": pdsg,
}


def build(name: str, **options: float) -> Rule | Rate | Whole:
    """A new rule of that name; `options` set its width.  Refuses unknown names and options that it does not take."""
    errors.one_of("backward rule", name, RULES)
    errors.takes(f"Backward rule {name!r}", RULES[name], options)
    return RULES[name](**options)
