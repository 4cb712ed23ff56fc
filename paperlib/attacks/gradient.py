"""One-step and iterated gradient attacks on the cross-entropy, in l∞.

`network` is any callable from images (B, C, H, W) in `bounds` to logits (B, K); `labels` is (B,); `eps` and `alpha` are
in the images' units.  All return images of the same shape within `eps` of the originals and within `bounds`.
`batch_size` fixes how many images the network sees at once (see `core.in_batches`); `seed` and `index` name each
sample's random start (see `core.uniform_noise`).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from paperlib import errors
from paperlib.attacks.core import Ball, Bounds, loss_gradient, sign_noise, uniform_noise

Network = Callable[[Tensor], Tensor]


def fgsm(
    network: Network, images: Tensor, labels: Tensor, *, eps: float, bounds: Bounds, batch_size: int | None = None
) -> Tensor:
    """x + ε·sign ∇ₓCE (Goodfellow et al., arXiv 1412.6572)."""
    _, gradient = loss_gradient(network, images, labels, batch_size)
    return Ball(images, eps, bounds).project(images + eps * gradient.sign())


def rfgsm(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    alpha: float,
    bounds: Bounds,
    steps: int = 1,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """A random corner at distance α, then `steps` of length ε - α along sign ∇ₓCE (Tramèr et al., arXiv 1705.07204)."""
    ball = Ball(images, eps, bounds)
    errors.number("alpha", alpha, at_least=0)
    errors.count("steps", steps)
    if alpha > eps:
        raise errors.Refused(f"RFGSM's alpha is {alpha}; its random step must not be longer than eps = {eps}.")
    x = ball.project(images + alpha * sign_noise(images, seed, index))
    for _ in range(steps):
        _, gradient = loss_gradient(network, x, labels, batch_size)
        x = ball.project(x + (eps - alpha) * gradient.sign())
    return x


def pgd(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    alpha: float,
    steps: int,
    bounds: Bounds,
    random_start: bool = True,
    until_broken: bool = False,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Projected gradient ascent on the cross-entropy (Madry et al., arXiv 1706.06083).

    With `until_broken` a sample stops at its first misclassified iterate and costs nothing afterwards: at least as
    strong as judging the last iterate only, and cheaper the weaker the network.
    """
    ball = Ball(images, eps, bounds)
    errors.number("alpha", alpha, at_least=0)
    errors.count("steps", steps)
    x = ball.project(images + eps * uniform_noise(images, seed, index)) if random_start else images.clone()
    rows = torch.arange(len(x), device=x.device)  # samples still moving
    for _ in range(steps):
        logits, gradient = loss_gradient(network, x[rows], labels[rows], batch_size)
        if until_broken:
            correct = logits.argmax(1) == labels[rows]
            rows, gradient = rows[correct], gradient[correct]
            if not len(rows):
                break
        x[rows] = ball.project(x[rows] + alpha * gradient.sign(), rows)
    return x
