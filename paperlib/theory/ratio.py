"""The ratio theorem and the finite-difference proposition, checkable on any f; section 3 of the paper notes.

`f` is any callable from images (B, ...) to class probabilities (B, K), so that other models can be put in.  Nothing is
clamped: δ is the statement's, whatever bounds the data have.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from paperlib import errors
from paperlib.theory.gradients import (
    Probabilities,
    l1,
    l2,
    loss_gradient,
    participation_number,
    picked,
    true_class,
    true_class_gradient,
)


class Law(NamedTuple):
    """A law of δ in [-1, 1], coordinate by coordinate independent and of mean 0."""

    draw: Callable[[Tensor, Generator | None], Tensor]  # of the shape of its first argument
    second_moment: float  # E δ²; the constant of the ratio theorem is its inverse


def _uniform(like: Tensor, generator: Generator | None) -> Tensor:
    return torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device) * 2 - 1


LAWS = {
    "uniform": Law(_uniform, 1 / 3),  # the paper's
    "sign": Law(lambda like, generator: torch.where(_uniform(like, generator) < 0, -1.0, 1.0).to(like), 1.0),
    "triangular": Law(lambda like, generator: (_uniform(like, generator) + _uniform(like, generator)) / 2, 1 / 6),
}


def linear_ratio(gradient: Tensor, law: str = "uniform") -> Tensor:
    """Adversarial over random vulnerability of the linearised network, c·‖g‖₁²/‖g‖₂², c = 1/E δ².

    `gradient` is ∂f_y/∂x, shape (B, ...).  Returns (B,), each in [c, c·‖g‖₀]; NaN where the gradient vanishes (count
    those, never drop them).  The paper's c = 3 belongs to uniform noise, E[δδᵀ] = I/3.
    """
    errors.one_of("law of noise", law, LAWS)
    return participation_number(gradient) / LAWS[law].second_moment


def linear_vulnerabilities(gradient: Tensor, eps: float, law: str = "uniform") -> tuple[Tensor, Tensor]:
    """ρ_rand and ρ_adv to first order, both (B,): ε²·E δ²·‖g‖₂² and ε²·‖g‖₁²."""
    errors.number("eps", eps, at_least=0)
    errors.one_of("law of noise", law, LAWS)
    return LAWS[law].second_moment * (eps * l2(gradient)) ** 2, (eps * l1(gradient)) ** 2


class RandomVulnerability(NamedTuple):
    """What draws of noise did to each sample's f_y, each field (B,)."""

    value: Tensor  # mean squared change: ρ_rand
    error: Tensor  # standard error of that mean
    largest: Tensor  # largest squared change: ρ_adv is at least that
    moved: Tensor  # share of the draws that changed f_y at all


def random_vulnerability(
    f: Probabilities,
    x: Tensor,
    y: Tensor,
    eps: float,
    draws: int,
    law: str = "uniform",
    generator: Generator | None = None,
) -> RandomVulnerability:
    """ρ_rand(ε) = E (f_y(x + εδ) - f_y(x))² by Monte Carlo; f sees B images at a time, `draws` + 1 times.

    A constant f has vulnerability 0, and so has any f at ε = 0.  Refuses fewer than two draws, for which there is no
    standard error, an unknown law and a negative ε.
    """
    errors.number("eps", eps, at_least=0)
    errors.count("draws", draws, at_least=2)
    errors.one_of("law of noise", law, LAWS)
    with torch.no_grad():
        at_rest = true_class(f, x, y)
        perturbed = (true_class(f, x + eps * LAWS[law].draw(x, generator), y) for _ in range(draws))
        changes = torch.stack([(value - at_rest).square() for value in perturbed])  # (draws, B)
    value, error = changes.mean(0), changes.std(0) / draws**0.5
    return RandomVulnerability(value, error, changes.amax(0), (changes > 0).to(value.dtype).mean(0))


def adversarial_vulnerability(f: Probabilities, x: Tensor, y: Tensor, eps: float, *, steps: int = 10) -> Tensor:
    """A lower estimate of ρ_adv(ε) = sup over ‖δ‖∞ ≤ 1 of (f_y(x + εδ) - f_y(x))², (B,).

    Upwards from the corner x + ε·sign g and downwards from x - ε·sign g, which is exact where f_y is linear; then half
    of `steps` each of conditional gradient along sign ∇f_y (Frank and Wolfe's step 2/(k + 2), which never leaves the
    ball).  The largest change on the way counts.  Refuses a negative ε.
    """
    errors.number("eps", eps, at_least=0)
    errors.count("steps", steps, at_least=0)
    with torch.no_grad():
        at_rest = true_class(f, x, y)
    corner = eps * true_class_gradient(f, x, y).sign()
    best = torch.zeros_like(at_rest)
    for side in (1, -1):
        delta = side * corner
        for k in range(1, steps // 2 + 1):
            p, gradient = loss_gradient(f, x + delta, y, None, loss=picked)
            best = torch.maximum(best, (picked(p, y) - at_rest).square())
            delta = delta.lerp(side * eps * gradient.sign(), 2 / (k + 2))
        with torch.no_grad():
            best = torch.maximum(best, (true_class(f, x + delta, y) - at_rest).square())
    return best


def measured_ratio(adversarial: Tensor, random: RandomVulnerability) -> Tensor:
    """ρ_adv/ρ_rand from estimates of both, (B,): NaN where nothing changed f_y, ∞ where the attack alone did.

    A draw that changed more than the attack is an attack too, so no ratio lies below 1.
    """
    return (torch.maximum(adversarial, random.largest) / random.value).clamp_min(1)  # a mean may round to above all
