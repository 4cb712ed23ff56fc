"""Gradients with respect to the input, their norms and sparsities, and calls of networks in batches.

Each norm or sparsity takes a gradient (B, ...) and returns one number a sample, (B,).
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from paperlib import errors

Network = Callable[[Tensor], Tensor]  # images (B, C, H, W) → logits (B, K)
Loss = Callable[[Tensor, Tensor], Tensor]  # logits (B, K) and labels (B,) → one number a sample (B,)
GRAIN, LEAST = 4, 16  # batches have a multiple of GRAIN images, and at least LEAST (see `padded`)
Probabilities = Callable[[Tensor], Tensor]  # f: images (B, C, H, W) → class probabilities (B, K)

# ---- norms and sparsities ---------------------------------------------------------------------------------------


def l0(gradient: Tensor, threshold: float) -> Tensor:
    """The number of coordinates with a magnitude above `threshold`.  Report it only together with the threshold.

    Refuses a threshold below 0.
    """
    errors.number("threshold", threshold, at_least=0)
    return (gradient.flatten(1).abs() > threshold).sum(1)


def l1(gradient: Tensor) -> Tensor:
    """‖g‖₁."""
    return gradient.flatten(1).norm(p=1, dim=1)


def l2(gradient: Tensor) -> Tensor:
    """‖g‖₂."""
    return gradient.flatten(1).norm(dim=1)


def participation_number(gradient: Tensor) -> Tensor:
    """‖g‖₁²/‖g‖₂², in [1, ‖g‖₀]; k for k nonzero coordinates of equal magnitude; NaN where g = 0.

    Unlike l1 it does not depend on the scale of g (section 3 of the paper notes, caution 3).
    """
    g = gradient.flatten(1)
    g = g / g.abs().amax(1, keepdim=True)  # the squares of tiny gradients would underflow
    return g.norm(p=1, dim=1).square() / g.norm(dim=1).square()


def hoyer(gradient: Tensor) -> Tensor:
    """(√m - ‖g‖₁/‖g‖₂)/(√m - 1): 0 for m equal magnitudes, 1 for one nonzero coordinate (Hoyer 2004, JMLR 5:1457).

    The fraction ‖g‖₁/‖g‖₂ is the root of the participation number.  NaN where g = 0, and for a single coordinate.
    """
    root = gradient.shape[1:].numel() ** 0.5
    difference = root - participation_number(gradient).rsqrt().reciprocal()  # not sqrt: see `arithmetic`
    return difference / (root - 1 if root > 1 else torch.nan)


def gini(gradient: Tensor) -> Tensor:
    """Gini index of |g|: 0 for equal magnitudes, 1 - 1/m for one nonzero coordinate; NaN where g = 0.

    1 - 2 Σ_k |g|₍ₖ₎/‖g‖₁ · (m - k + ½)/m over the ascending magnitudes (Hurley and Rickard, arXiv 0811.4706).
    """
    g = gradient.flatten(1).abs().sort(1).values
    g = g / g[:, -1:]  # the sums of huge gradients would overflow
    m = g.shape[1]
    weights = torch.arange(m - 0.5, 0, -1, dtype=g.dtype, device=g.device) / m
    return 1 - 2 * (g @ weights) / g.sum(1)


# ---- the gradient of a probability -------------------------------------------------------------------------------


def input_gradient(value: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """∂ Σ value(images) / ∂ images, of the shape of `images`, detached.

    `value` maps images (B, ...) to one number a sample (B,).  Where samples do not interact, as in eval mode, row i is
    the gradient of the number of sample i.
    """
    with torch.enable_grad():
        leaf = images.detach().requires_grad_()
        return torch.autograd.grad(value(leaf).sum(), leaf)[0]


def probabilities(network: Callable[[Tensor], Tensor]) -> Probabilities:
    """The f of a network: its softmax, (B, C, H, W) → (B, K).

    In 64 bits where the device has them: near 1 the numbers of float32 lie 6e-8 apart, more than the smallest steps
    change f.
    """

    def f(images: Tensor) -> Tensor:
        logits = network(images)
        return logits.softmax(1, dtype=None if logits.device.type == "mps" else torch.float64)

    return f


def true_class_gradient(f: Probabilities, x: Tensor, y: Tensor) -> Tensor:
    """g = ∇ₓ f_y(x), of the shape of `x`; for a spiking network the surrogate gradient."""
    return input_gradient(lambda images: true_class(f, images, y), x)


def true_class(f: Probabilities, x: Tensor, y: Tensor) -> Tensor:
    """f_y(x), (B,)."""
    return picked(f(x), y)


def picked(p: Tensor, y: Tensor) -> Tensor:
    """p_y of each sample, (B,) from (B, K)."""
    return p.gather(1, y[:, None]).squeeze(1)


# ---- networks in batches -----------------------------------------------------------------------------------------


def device_of(network: Network) -> torch.device:
    """The device of the parameters of a network; the CPU where it has none."""
    parameters = network.parameters() if hasattr(network, "parameters") else iter(())
    return next((parameter.device for parameter in parameters), torch.device("cpu"))


def padded(count: int) -> int:
    """The size to which a batch of `count` images is padded: a multiple of `GRAIN`, and at least `LEAST`.

    Matrix products sum the rows of a batch in blocks, and the rows of an incomplete block in another order.  On one
    thread of an x86-64 processor a sample has the same logits and gradients, to the bit, in batches of all these sizes.
    """
    return max(LEAST, -(-count // GRAIN) * GRAIN)


def in_batches(network: Network, images: Tensor, batch_size: int | None) -> Tensor:
    """Logits (B, K) of `images`, without a graph; a call of the network gets at most `batch_size` images.

    None puts all images into one batch.  Otherwise batches are padded: to a size of `padded`, or to the size of a full
    batch on a GPU.  So the result of a sample does not depend on the number of images.
    """
    with torch.no_grad():
        return torch.cat([network(part)[:count] for part, count, _ in _parts(images, None, batch_size)])


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """z_y - max_{k≠y} z_k of each sample, (B,)."""
    index = labels[:, None]
    return (logits.gather(1, index) - logits.scatter(1, index, -torch.inf).amax(1, keepdim=True)).squeeze(1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(z)_y of each sample, (B,)."""
    return F.cross_entropy(logits, labels, reduction="none")


def loss_gradient(
    network: Network, images: Tensor, labels: Tensor, batch_size: int | None, loss: Loss = cross_entropy
) -> tuple[Tensor, Tensor]:
    """Logits (B, K), and the gradient of the `loss` of each sample with respect to its image, (B, ...).

    Batches are those of `in_batches`.
    """
    logits, gradients = [], []
    for part, count, targets in _parts(images, labels, batch_size):
        leaf = part.detach().requires_grad_()
        with torch.enable_grad():
            z = network(leaf)
            gradients.append(torch.autograd.grad(loss(z, targets).sum(), leaf)[0][:count])
        logits.append(z.detach()[:count])
    return torch.cat(logits), torch.cat(gradients)


def _parts(
    images: Tensor, labels: Tensor | None, batch_size: int | None
) -> Iterator[tuple[Tensor, int, Tensor | None]]:
    """Batches: (images, number of images that are no padding, labels).  They are padded with their first sample."""
    full = len(images) if batch_size is None else padded(batch_size)
    for start in range(0, len(images), full):
        count = min(full, len(images) - start)
        size = padded(count) if batch_size is not None and images.device.type == "cpu" else full
        rows = torch.arange(start, start + size)
        rows[count:] = start
        yield images[rows], count, None if labels is None else labels[rows]
