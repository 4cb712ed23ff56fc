"""Backward rules: how a spike is differentiated.  The forward pass never depends on them."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from paperlib import errors


class Rule(NamedTuple):
    """∂s/∂m as a function of u = m - θ, elementwise and of any shape."""

    name: str
    derivative: Callable[[Tensor], Tensor]


def triangle(gamma: float = 1.0) -> Rule:
    """max(0, γ - |u|)/γ²; the paper's training rule (section 2 of the paper notes) with γ = 1."""
    errors.number("gamma", gamma, above=0)
    return Rule("triangle", lambda u: torch.rsub(u.abs(), gamma).clamp_min_(0).div_(gamma**2))


def sigmoid(slope: float = 4.0) -> Rule:
    """k·σ(ku)·(1 - σ(ku)), the derivative of σ(ku); section 5 of the paper notes, k = 4."""
    errors.number("slope", slope, above=0)

    def derivative(u: Tensor) -> Tensor:
        s = torch.sigmoid(slope * u)
        return slope * s * (1 - s)

    return Rule("sigmoid", derivative)


def atan(gamma: float = 2.0) -> Rule:
    """(γ/2) / (1 + (πγu/2)²); section 5 of the paper notes, γ = 2."""
    errors.number("gamma", gamma, above=0)
    return Rule("atan", lambda u: gamma / 2 / (1 + (math.pi * gamma / 2 * u).square()))


def from_surrogate(spike_grad: Callable[[Tensor], Tensor]) -> Rule:
    """The rule inside an snnTorch surrogate: what its own backward says at u."""

    def derivative(u: Tensor) -> Tensor:
        with torch.enable_grad():
            point = u if u.requires_grad else u.detach().requires_grad_()
            return torch.autograd.grad(spike_grad(point).sum(), point, create_graph=u.requires_grad)[0]

    return Rule("snntorch", derivative)


RULES = {"triangle": triangle, "sigmoid": sigmoid, "atan": atan}


def build(name: str, **options: float) -> Rule:
    """The rule of that name; `options` are its widths.  Refuses an unknown name."""
    errors.one_of("backward rule", name, RULES)
    return RULES[name](**options)
