"""The input gradient and its sizes.  Each measure takes (B, ...) and returns (B,)."""

from collections.abc import Callable

import torch
from torch import Tensor

from paperlib import errors


def input_gradient(value: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """∂ Σ value(images) / ∂ images, of the shape of `images`, detached.

    `value` maps images (B, ...) to one number a sample (B,).  Where samples do not interact (eval mode), row i is the
    gradient of sample i's own number.
    """
    with torch.enable_grad():
        leaf = images.detach().requires_grad_()
        return torch.autograd.grad(value(leaf).sum(), leaf)[0]


def l0(gradient: Tensor, threshold: float) -> Tensor:
    """How many coordinates exceed `threshold` in magnitude, strictly.  Report it only with its threshold."""
    errors.number("threshold", threshold, at_least=0)
    return (gradient.flatten(1).abs() > threshold).sum(1)


def l1(gradient: Tensor) -> Tensor:
    """‖g‖₁."""
    return gradient.flatten(1).norm(p=1, dim=1)


def l2(gradient: Tensor) -> Tensor:
    """‖g‖₂."""
    return gradient.flatten(1).norm(dim=1)


def participation_number(gradient: Tensor) -> Tensor:
    """‖g‖₁²/‖g‖₂², in [1, ‖g‖₀]: how many equal coordinates would share the gradient alike; NaN where g = 0.

    Free of scale, unlike l1 (section 3 of the paper notes, caution 3).
    """
    g = gradient.flatten(1)
    g = g / g.abs().amax(1, keepdim=True)  # squares of tiny gradients would underflow
    return g.norm(p=1, dim=1).square() / g.norm(dim=1).square()


def hoyer(gradient: Tensor) -> Tensor:
    """(√m - ‖g‖₁/‖g‖₂)/(√m - 1): 0 for m equal magnitudes, 1 for one nonzero coordinate (Hoyer 2004, JMLR 5:1457).

    √PN in other words.  NaN where g = 0, and for a single coordinate.
    """
    root = gradient.shape[1:].numel() ** 0.5
    spread = root - participation_number(gradient).sqrt()
    return spread / (root - 1 if root > 1 else torch.nan)


def gini(gradient: Tensor) -> Tensor:
    """Gini index of |g|: 0 for equal magnitudes, 1 - 1/m for one nonzero coordinate; NaN where g = 0.

    1 - 2 Σ_k |g|₍ₖ₎/‖g‖₁ · (m - k + ½)/m over the ascending magnitudes (Hurley and Rickard, arXiv 0811.4706).
    """
    g = gradient.flatten(1).abs().sort(1).values
    g = g / g[:, -1:]  # sums of huge gradients would overflow
    m = g.shape[1]
    weights = torch.arange(m - 0.5, 0, -1, dtype=g.dtype, device=g.device) / m
    return 1 - 2 * (g @ weights) / g.sum(1)
