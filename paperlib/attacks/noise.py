"""Random perturbations, a lower bound for every attack.  They never query the network."""

from torch import Tensor

from paperlib.attacks.attack import register
from paperlib.attacks.core import Ball, Bounds, sign_noise


@register("uniform", title="uniform noise", noise=True)
def uniform(
    network, images: Tensor, labels: Tensor, *, eps: float, bounds: Bounds, seed: int = 0, index: Tensor | None = None
) -> Tensor:
    """images + ε·U[-1, 1], clamped to `bounds`: the random perturbation of the theorem.  One draw a sample."""
    return Ball(images, eps, bounds).start(seed, index)


@register("sign", title="sign noise", noise=True)
def sign(
    network, images: Tensor, labels: Tensor, *, eps: float, bounds: Bounds, seed: int = 0, index: Tensor | None = None
) -> Tensor:
    """images ± ε with random signs, clamped to `bounds`: a random corner of the l∞ ball.  One draw a sample."""
    return Ball(images, eps, bounds).project(images + eps * sign_noise(images, seed, index))
