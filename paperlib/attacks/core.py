"""What all attacks share: the ball, the noise of each sample, and gradients taken in batches of one fixed size."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from paperlib import errors

Bounds = tuple[float, float]


class Ball:
    """All images within `eps` of `images` in l∞ and within `bounds`."""

    def __init__(self, images: Tensor, eps: float, bounds: Bounds):
        errors.number("eps", eps, at_least=0)
        low, high = bounds
        self.low, self.high = (images - eps).clamp_min(low), (images + eps).clamp_max(high)

    def project(self, x: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """The nearest point of the ball to each of `x`, which are the samples `rows`."""
        return torch.minimum(torch.maximum(x, self.low[rows]), self.high[rows])


def uniform_noise(images: Tensor, seed: int, index: Tensor | None) -> Tensor:
    """U[-1, 1] of the shape of `images`; sample i's draw depends on `seed` and `index[i]` alone.

    `index` (B,) is each sample's number in its data set, by default its place in the batch, so that a sample draws the
    same noise whichever samples it stands beside.
    """
    index = range(len(images)) if index is None else index.tolist()
    draws = [np.random.default_rng((seed, i)).random(images.shape[1:], dtype=np.float32) for i in index]
    return 2 * torch.from_numpy(np.stack(draws)).to(images) - 1


def sign_noise(images: Tensor, seed: int, index: Tensor | None) -> Tensor:
    """-1 or 1 with equal chance, drawn as `uniform_noise` is."""
    return torch.where(uniform_noise(images, seed, index) < 0, -1.0, 1.0).to(images)


def in_batches(network: Callable[[Tensor], Tensor], images: Tensor, batch_size: int | None) -> Tensor:
    """Logits of `images`, with the network called on exactly `batch_size` at a time (padded), without a graph.

    Convolutions may sum in another order for another batch size; a fixed one keeps each sample's result its own.
    """
    with torch.no_grad():
        return torch.cat([network(part)[:count] for part, count, _ in _parts(images, None, batch_size)])


def loss_gradient(
    network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, batch_size: int | None
) -> tuple[Tensor, Tensor]:
    """Logits (B, K) and the gradient of each sample's cross-entropy by its own image, (B, ...)."""
    logits, gradients = [], []
    for part, count, targets in _parts(images, labels, batch_size):
        leaf = part.detach().requires_grad_()
        with torch.enable_grad():
            z = network(leaf)
            loss = F.cross_entropy(z, targets, reduction="sum")
            gradients.append(torch.autograd.grad(loss, leaf)[0][:count])
        logits.append(z.detach()[:count])
    return torch.cat(logits), torch.cat(gradients)


def _parts(images: Tensor, labels: Tensor | None, batch_size: int | None):
    """Yield (images, how many of them count, labels); a short part is filled up with its first sample."""
    size = len(images) if batch_size is None else batch_size
    for start in range(0, len(images), size):
        rows = torch.arange(start, start + size)
        count = min(size, len(images) - start)
        rows[count:] = start
        yield images[rows], count, None if labels is None else labels[rows]
