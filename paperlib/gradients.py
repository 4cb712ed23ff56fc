"""The input gradient and its sizes.  Each measure takes (B, ...) and returns (B,)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
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


def true_probability(network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """f_y(x), the softmax probability of the true class, (B,)."""
    return F.softmax(network(images), dim=1).gather(1, labels[:, None]).squeeze(1)


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
