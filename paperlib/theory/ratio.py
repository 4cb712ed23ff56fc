"""The two vulnerabilities of the ratio theorem and their ratio, for any function f; section 3 of the paper notes.

`f` is any callable from images (B, ...) to class probabilities (B, K).  Perturbed images are not clamped: the theorem
knows no bounds of the data.
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
    """A distribution of δ in [-1, 1] with independent coordinates and mean 0."""

    draw: Callable[[Tensor, Generator | None], Tensor]  # of shape, dtype and device of its first argument
    second_moment: float  # E δ²; its inverse is the constant of the ratio theorem


def _uniform(like: Tensor, generator: Generator | None) -> Tensor:
    return torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device) * 2 - 1


LAWS = {
    "uniform": Law(_uniform, 1 / 3),  # the paper's
    "sign": Law(lambda like, generator: torch.where(_uniform(like, generator) < 0, -1.0, 1.0).to(like), 1.0),
    "triangular": Law(lambda like, generator: (_uniform(like, generator) + _uniform(like, generator)) / 2, 1 / 6),
}


def linear_ratio(gradient: Tensor, law: str = "uniform") -> Tensor:
    """Adversarial over random vulnerability of the linearised network, c·‖g‖₁²/‖g‖₂² with c = 1/E δ², (B,).

    `gradient` is ∂f_y/∂x, (B, ...).  The ratio is in [c, c·‖g‖₀], and NaN where the gradient vanishes; such samples
    are to be counted, not dropped.  The paper's c = 3 belongs to uniform noise, E[δδᵀ] = I/3.  Refuses an unknown law.
    """
    errors.one_of("law of noise", law, LAWS)
    return participation_number(gradient) / LAWS[law].second_moment


def linear_vulnerabilities(gradient: Tensor, eps: float, law: str = "uniform") -> tuple[Tensor, Tensor]:
    """ρ_rand and ρ_adv to first order, both (B,): ε²·E δ²·‖g‖₂² and ε²·‖g‖₁².

    Refuses a negative ε and an unknown law.
    """
    errors.number("eps", eps, at_least=0)
    errors.one_of("law of noise", law, LAWS)
    return LAWS[law].second_moment * (eps * l2(gradient)) ** 2, (eps * l1(gradient)) ** 2


class RandomVulnerability(NamedTuple):
    """The effect of draws of noise on f_y of each sample, each field (B,)."""

    value: Tensor  # mean squared change, the estimate of ρ_rand
    error: Tensor  # standard error of `value`
    largest: Tensor  # largest squared change, a lower bound of ρ_adv
    moved: Tensor  # share of the draws that changed f_y


def random_vulnerability(
    f: Probabilities,
    x: Tensor,
    y: Tensor,
    eps: float,
    draws: int,
    law: str = "uniform",
    generator: Generator | None = None,
) -> RandomVulnerability:
    """ρ_rand(ε) = E (f_y(x + εδ) - f_y(x))² by Monte Carlo, with `draws` + 1 calls of f on B images.

    `eps` is ε, in the units of `x`.  Without a `generator`, torch's global one is used.  Refuses fewer than two draws,
    which have no standard error, an unknown law and a negative ε.
    """
    errors.number("eps", eps, at_least=0)
    errors.count("draws", draws, at_least=2)
    errors.one_of("law of noise", law, LAWS)
    with torch.no_grad():
        clean = true_class(f, x, y)
        perturbed = (true_class(f, x + eps * LAWS[law].draw(x, generator), y) for _ in range(draws))
        changes = torch.stack([(value - clean).square() for value in perturbed])  # (draws, B)
    value, error = changes.mean(0), changes.std(0) / draws**0.5
    return RandomVulnerability(value, error, changes.amax(0), (changes > 0).to(value.dtype).mean(0))


def adversarial_vulnerability(f: Probabilities, x: Tensor, y: Tensor, eps: float, *, steps: int = 10) -> Tensor:
    """A lower bound of ρ_adv(ε) = sup over ‖δ‖∞ ≤ 1 of (f_y(x + εδ) - f_y(x))², (B,).

    There are two searches: upwards from the corner x + ε·sign g and downwards from x - ε·sign g.  The corners are exact
    where f_y is linear.  Each search takes half of `steps` of the conditional gradient method of Frank and Wolfe, along
    sign ∇f_y with step size 2/(k + 2), which never leaves the ball.  The result is the largest change of all iterates.
    `eps` is ε, in the units of `x`.  Refuses a negative ε.
    """
    errors.number("eps", eps, at_least=0)
    errors.count("steps", steps, at_least=0)
    with torch.no_grad():
        clean = true_class(f, x, y)
    corner = eps * true_class_gradient(f, x, y).sign()
    best = torch.zeros_like(clean)
    for side in (1, -1):
        delta = side * corner
        for k in range(1, steps // 2 + 1):
            p, gradient = loss_gradient(f, x + delta, y, None, loss=picked)
            best = torch.maximum(best, (picked(p, y) - clean).square())
            delta = delta.lerp(side * eps * gradient.sign(), 2 / (k + 2))
        with torch.no_grad():
            best = torch.maximum(best, (true_class(f, x + delta, y) - clean).square())
    return best


def measured_ratio(adversarial: Tensor, random: RandomVulnerability) -> Tensor:
    """ρ_adv/ρ_rand from estimates of both, (B,): NaN where nothing changed f_y, ∞ where only the attack changed it.

    A draw of noise that changed f_y more than the attack replaces the attack, so no ratio is below 1.
    """
    largest = torch.maximum(adversarial, random.largest)
    return (largest / random.value).clamp_min(1)  # the mean of equal changes may be rounded to above the largest
