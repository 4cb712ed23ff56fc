"""The finite-difference proposition: the l1 norm of the gradient from two forward passes."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from paperlib import errors
from paperlib.theory.gradients import Probabilities, true_class, true_class_gradient

# where the two points of the quotient lie, in units of h along d = sign g
SCHEMES = {"forward": (1.0, 0.0), "backward": (0.0, -1.0), "central": (1.0, -1.0)}


def finite_difference_l1(f: Probabilities, x: Tensor, y: Tensor, h: float, scheme: str = "forward") -> Tensor:
    """‖∇ₓ f_y‖₁ by one quotient along d = sign g, (B,): (f_y(x + a·hd) - f_y(x + b·hd))/((a - b)·h).

    `h` is in the units of `x`; the points are not clamped.  The error is (h/2)·dᵀ∇²f d + O(h²) for "forward", its
    opposite for "backward", O(h²) for "central".  Refuses an unknown scheme and h that is not above 0.
    """
    return finite_differences(f, x, y, [h], true_class_gradient(f, x, y).sign(), [scheme])[h, scheme]


def finite_differences(
    f: Probabilities,
    x: Tensor,
    y: Tensor,
    steps: Sequence[float],
    direction: Tensor,
    schemes: Sequence[str] = tuple(SCHEMES),
) -> dict[tuple[float, str], Tensor]:
    """`finite_difference_l1` for many h and schemes, {(h, scheme): (B,)}, with f called once at each point.

    `direction` is d, of the shape of `x`.
    """
    for h in steps:
        errors.number("h", h, above=0)
    for scheme in schemes:
        errors.one_of("scheme", scheme, SCHEMES)

    @cache
    def value(along: float) -> Tensor:
        with torch.no_grad():
            return true_class(f, x + along * direction, y)

    return {
        (h, scheme): (value(a * h) - value(b * h)) / ((a - b) * h)
        for h in steps
        for scheme, (a, b) in ((scheme, SCHEMES[scheme]) for scheme in schemes)
    }


def curvature(f: Probabilities, x: Tensor, y: Tensor) -> Tensor:
    """dᵀ∇²f_y d along d = sign g, (B,), by double back-propagation.

    f must be twice differentiable by autograd; a spiking network of this library is so inside `reference_path()` and
    `smoothed()`, and torch raises otherwise.
    """
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(true_class(f, leaf, y).sum(), leaf, create_graph=True)
        direction = gradient.detach().sign()
        (product,) = torch.autograd.grad((gradient * direction).sum(), leaf)
    return (product * direction).flatten(1).sum(1)
