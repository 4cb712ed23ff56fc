"""FGSM, RFGSM, PGD and MIM: attacks by gradients of the cross-entropy, in l∞ or, if they take a `norm`, in l2.

`network` is any callable from images (B, C, H, W) in `bounds` to logits (B, K); `labels` is (B,); `eps` and `alpha` are
in the images' units.  All return images of the same shape within `eps` of the originals, in `norm` "linf" or "l2", and
within `bounds`.  A step follows the gradient's sign in l∞ and g/‖g‖₂ in l2 (see `core.Ball`).

`batch_size` is the number of images in a call of the network (see `gradients.in_batches`).  `seed` and `index`
determine each sample's random start (see `core.uniform_noise`).  Each gradient is the mean of `eot` passes, which
differ if the network draws at random (see `core.Queried`).  Arguments that cannot be used are refused
(`errors.Refused`).
"""

import torch
from torch import Tensor

from paperlib import errors
from paperlib.attacks.attack import register
from paperlib.attacks.core import Ball, Bounds, over_mean, queried, sign_noise
from paperlib.theory.gradients import Loss, Network, cross_entropy


@register("fgsm", title="FGSM", gradients=lambda options: options["eot"], standard=lambda eps, steps, queries: {})
def fgsm(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    bounds: Bounds,
    eot: int = 1,
    norm: str = "linf",
    batch_size: int | None = None,
) -> Tensor:
    """x + ε·sign ∇ₓCE, in l2 x + ε·g/‖g‖₂ (Goodfellow et al., arXiv 1412.6572)."""
    ball = Ball(images, eps, bounds, norm)
    _, gradient = queried(network, images, labels, batch_size).gradient(images, eot=eot)
    return ball.project(images + eps * ball.direction(gradient))


@register(
    "rfgsm",
    title="RFGSM",
    gradients=lambda options: options["steps"] * options["eot"],
    standard=lambda eps, steps, queries: {"alpha": eps / 2},
)
def rfgsm(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    bounds: Bounds,
    alpha: float | None = None,
    steps: int = 1,
    eot: int = 1,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """A random corner at distance α, then `steps` steps of length ε - α along sign ∇ₓCE (arXiv 1705.07204).

    Tramèr et al.  The distance `alpha` is ε/2 by default; it must not exceed `eps`.
    """
    ball = Ball(images, eps, bounds)
    alpha = eps / 2 if alpha is None else alpha
    network = queried(network, images, labels, batch_size)
    errors.number("alpha", alpha, at_least=0)
    errors.count("steps", steps)
    if alpha > eps:
        raise errors.Refused(f"RFGSM's alpha is {alpha}; its random step must not be longer than eps = {eps}.")
    x = ball.project(images + alpha * sign_noise(images, seed, index))
    for _ in range(steps):
        _, gradient = network.gradient(x, eot=eot)
        x = ball.project(x + (eps - alpha) * gradient.sign())
    return x


@register(
    "pgd",
    title="PGD",
    gradients=lambda options: options["steps"] * options["eot"],
    standard=lambda eps, steps, queries: {"alpha": 2.5 * eps / steps, "steps": steps, "until_broken": True},
)
def pgd(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    bounds: Bounds,
    alpha: float | None = None,
    steps: int = 20,
    random_start: bool = True,
    until_broken: bool = False,
    ascend: Loss = cross_entropy,
    eot: int = 1,
    norm: str = "linf",
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Projected gradient ascent on the loss `ascend`, by default the cross-entropy (Madry et al., arXiv 1706.06083).

    The length of a step, `alpha`, is 2.5·ε/steps by default.  `ascend` maps logits (B, K) and labels (B,) to one number
    a sample, (B,).

    With `until_broken` a sample stops at its first misclassified iterate and costs nothing afterwards.  This breaks at
    least the samples that are misclassified at the last iterate, at less cost.
    """
    ball = Ball(images, eps, bounds, norm)
    errors.count("steps", steps)
    alpha = 2.5 * eps / steps if alpha is None else alpha
    network = queried(network, images, labels, batch_size)
    errors.number("alpha", alpha, at_least=0)
    x = ball.start(seed, index) if random_start else images.clone()
    rows = torch.arange(len(x), device=x.device)  # samples that still move
    for _ in range(steps):
        logits, gradient = network.gradient(x[rows], rows, loss=ascend, eot=eot)
        if until_broken:
            correct = logits.argmax(1) == labels[rows]
            rows, gradient = rows[correct], gradient[correct]
            if not len(rows):
                break
        x[rows] = ball.project(x[rows] + alpha * ball.direction(gradient), rows)
    return x


@register(
    "overwritten_eot",
    title="PGD",
    gradients=lambda options: options["steps"] * options["draws"],
    standard=lambda eps, steps, queries: {"alpha": 2.5 * eps / steps, "steps": steps, "draws": 10},
)
def overwritten_eot(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    bounds: Bounds,
    alpha: float | None = None,
    steps: int = 20,
    draws: int = 10,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """PGD that draws `draws` times for each gradient and uses the last draw alone, as the released code does.

    Section 5 of the paper notes, fault 1.  The cost is that of `pgd(..., eot=draws)`, but no expectation is taken.
    """
    errors.count("draws", draws)
    network = queried(network, images, labels, batch_size)

    def last(x: Tensor) -> Tensor:
        for _ in range(draws):
            logits = network.network(x)
        return logits

    last.coupled = network.coupled
    inner = queried(last, images, labels, network.batch_size)
    kwargs = {"eps": eps, "bounds": bounds, "alpha": alpha, "steps": steps, "seed": seed, "index": index}
    x = pgd(inner, images, labels, **kwargs)
    network.forward += draws * inner.forward  # `last` bypasses `network`, which has counted nothing
    network.backward += inner.backward
    network.vanished += inner.vanished
    return x


@register(
    "mim",
    title="MIM",
    gradients=lambda options: options["steps"] * options["eot"],
    standard=lambda eps, steps, queries: {"alpha": eps / steps, "steps": steps},
)
def mim(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    bounds: Bounds,
    alpha: float | None = None,
    steps: int = 10,
    mu: float = 1.0,
    eot: int = 1,
    norm: str = "linf",
    batch_size: int | None = None,
) -> Tensor:
    """Steps along a momentum of gradients, m ← µ·m + g/mean|g|, without a random start (Dong et al., arXiv 1710.06081).

    The length of a step, `alpha`, is ε/steps by default.  The paper divides g by ‖g‖₁; the mean differs from it by a
    constant factor, which changes no direction.
    """
    ball = Ball(images, eps, bounds, norm)
    network = queried(network, images, labels, batch_size)
    errors.count("steps", steps)
    alpha = eps / steps if alpha is None else alpha
    errors.number("alpha", alpha, at_least=0)
    errors.number("mu", mu, at_least=0)
    x, momentum = images, torch.zeros_like(images)
    for _ in range(steps):
        _, gradient = network.gradient(x, eot=eot)
        momentum = mu * momentum + over_mean(gradient)
        x = ball.project(x + alpha * ball.direction(momentum))
    return x
