"""Backward rules: how a spike is differentiated.  The forward pass never depends on them."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from paperlib import errors


class Rule(NamedTuple):
    """Back-propagation through time with ∂s/∂m as a function of u = m - θ, elementwise and of any shape."""

    name: str
    derivative: Callable[[Tensor], Tensor]
    half_width: float | None = None  # of a triangle, the one rule that is also written in C (`neuron.c`)
    integral: Callable[[Tensor], Tensor] | None = None  # of the derivative, from 0 at -∞ to 1: the spike made smooth


class Rate(NamedTuple):
    """No coupling between the steps: each step's gradient times the slope of a rate map at the time-mean input.

    `slope` takes that input, of any shape, and τ.
    """

    name: str
    slope: Callable[[Tensor, float], Tensor]


def triangle(gamma: float = 1.0) -> Rule:
    """max(0, γ - |u|)/γ²; the paper's training rule (section 2 of the paper notes) with γ = 1."""
    errors.number("gamma", gamma, above=0)

    def integral(u: Tensor) -> Tensor:
        u = (u / gamma).clamp(-1, 1)
        return (1 + u * (2 - u.abs())) / 2

    def derivative(u: Tensor) -> Tensor:
        return torch.rsub(u.abs(), gamma).clamp_min_(0).mul_(1 / gamma**2)

    return Rule("triangle", derivative, half_width=gamma, integral=integral)


def sigmoid(slope: float = 4.0) -> Rule:
    """k·σ(ku)·(1 - σ(ku)), the derivative of σ(ku); section 5 of the paper notes, k = 4."""
    errors.number("slope", slope, above=0)

    def derivative(u: Tensor) -> Tensor:
        s = torch.sigmoid(slope * u)
        return slope * s * (1 - s)

    return Rule("sigmoid", derivative, integral=lambda u: torch.sigmoid(slope * u))


def atan(gamma: float = 2.0) -> Rule:
    """(γ/2) / (1 + (πγu/2)²); section 5 of the paper notes, γ = 2."""
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
    """exp(-|u|/γ)/(2γ), of area 1 (the form of Shrestha and Orchard, arXiv 1810.08646)."""
    errors.number("gamma", gamma, above=0)

    def integral(u: Tensor) -> Tensor:
        half = torch.exp(torch.where(u < 0, u, -u) / gamma) / 2  # the area beyond |u|; abs has no slope at 0
        return torch.where(u < 0, half, 1 - half)

    return Rule("exponential", lambda u: torch.exp(u.abs() / -gamma) / (2 * gamma), integral=integral)


def straight_through() -> Rule:
    """1 everywhere, as if the spike were the membrane itself (Bengio et al., arXiv 1308.3432)."""
    return Rule("straight-through", torch.ones_like)


def rate() -> Rate:
    """(0.8 + 0.2τ)/(1 + τ) for 1 - τ ≤ x̄ ≤ 2, plus 0.2 for 0 ≤ x̄ ≤ 1 - τ: the RGA rule, section 5 of the notes."""

    def slope(mean: Tensor, tau: float) -> Tensor:
        fires = (1 - tau <= mean) & (mean <= 2)
        leaks = (mean >= 0) & (mean <= 1 - tau)  # where both end the slopes add
        return fires.to(mean.dtype) * ((0.8 + 0.2 * tau) / (1 + tau)) + leaks.to(mean.dtype) * 0.2

    return Rate("rate", slope)


def from_surrogate(spike_grad: Callable[[Tensor], Tensor]) -> Rule:
    """The rule inside an snnTorch surrogate: what its own backward says at u."""

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
}


def build(name: str, **options: float) -> Rule | Rate:
    """The rule of that name; `options` are its widths.  Refuses an unknown name and an option it does not take."""
    errors.one_of("backward rule", name, RULES)
    errors.takes(f"Backward rule {name!r}", RULES[name], options)
    return RULES[name](**options)
