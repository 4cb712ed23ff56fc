"""One-step and iterated gradient attacks on the cross-entropy, in l∞ or, where they take a `norm`, in l2.

`network` is any callable from images (B, C, H, W) in `bounds` to logits (B, K); `labels` is (B,); `eps` and `alpha` are
in the images' units.  All return images of the same shape within `eps` of the originals, in `norm` "linf" or "l2", and
within `bounds`.  A step goes along the gradient's sign in l∞ and along g/‖g‖₂ in l2 (see `core.Ball`).  `batch_size`
fixes how many images the network sees at once (see `core.in_batches`); `seed` and `index` name each sample's random
start (see `core.uniform_noise`); with `eot` each gradient is the mean of so many passes of a network that draws at
random (see `core.Queried`).  Arguments that cannot be used are refused (`errors.Refused`).
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
    """A random corner at distance α, then `steps` of length ε - α along sign ∇ₓCE (Tramèr et al., arXiv 1705.07204).

    `alpha` is ε/2 by default.
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
    """Projected gradient ascent on the cross-entropy (Madry et al., arXiv 1706.06083), or on what `ascend` gives.

    The step `alpha` is 2.5·ε/steps by default.  `ascend` maps logits (B, K) and labels (B,) to a number a sample, (B,).

    With `until_broken` a sample stops at its first misclassified iterate and costs nothing afterwards: at least as
    strong as judging the last iterate only, and cheaper the weaker the network.
    """
    ball = Ball(images, eps, bounds, norm)
    errors.count("steps", steps)
    alpha = 2.5 * eps / steps if alpha is None else alpha
    network = queried(network, images, labels, batch_size)
    errors.number("alpha", alpha, at_least=0)
    x = ball.start(seed, index) if random_start else images.clone()
    rows = torch.arange(len(x), device=x.device)  # samples still moving
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
    """PGD that draws `draws` times for each gradient and keeps the last: the released code's loop, for comparison.

    Section 5 of the paper notes, fault 1.  It takes no expectation, whatever it costs; `pgd(..., eot=draws)` does.
    """
    errors.count("draws", draws)
    network = queried(network, images, labels, batch_size)

    def last(x: Tensor) -> Tensor:
        for _ in range(draws):
            logits = network.network(x)
        return logits

    last.coupled = network.coupled
    ball = {"eps": eps, "bounds": bounds, "seed": seed, "index": index}
    inner = queried(last, images, labels, network.batch_size)
    x = pgd(inner, images, labels, alpha=alpha, steps=steps, **ball)
    network.forward += draws * inner.forward  # in the draws' own network, so that no padding is counted
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
    """Steps of length α along a momentum of gradients, `mu` of it kept at each (Dong et al., arXiv 1710.06081).

    The step `alpha` is ε/steps by default.
    Each gradient enters divided by its l1 norm, up to the number of pixels, which no direction depends on.  No random
    start.
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
