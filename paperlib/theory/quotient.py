"""The finite-difference proposition: the l1 norm of the gradient from two forward passes."""

from collections.abc import Sequence
from functools import cache
from itertools import product

import torch
from torch import Tensor

from paperlib import errors
from paperlib.theory.gradients import Probabilities, true_class, true_class_gradient

# the two points (a, b) of the quotient, in units of h along d = sign g
SCHEMES = {"forward": (1.0, 0.0), "backward": (0.0, -1.0), "central": (1.0, -1.0)}


def finite_difference_l1(f: Probabilities, x: Tensor, y: Tensor, h: float, scheme: str = "forward") -> Tensor:
    """‖∇ₓ f_y‖₁ by one quotient along d = sign g, (B,): (f_y(x + a·hd) - f_y(x + b·hd))/((a - b)·h).

    `h` is in the units of `x`; the points are not clamped.  The error is (h/2)·dᵀ∇²f d + O(h²) for "forward",
    -(h/2)·dᵀ∇²f d + O(h²) for "backward", and O(h²) for "central".
    Refuses an unknown scheme and h that is not above 0.
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
    """The quotients of `finite_difference_l1` for several h and schemes, {(h, scheme): (B,)}.

    `direction` is d, of the shape of `x`.  f is called once at each point.
    """
    for h in steps:
        errors.number("h", h, above=0)
    for scheme in schemes:
        errors.one_of("scheme", scheme, SCHEMES)

    @cache
    def value(distance: float) -> Tensor:
        with torch.no_grad():
            return true_class(f, x + distance * direction, y)

    quotients = {}
    for h, scheme in product(steps, schemes):
        a, b = SCHEMES[scheme]
        quotients[h, scheme] = (value(a * h) - value(b * h)) / ((a - b) * h)
    return quotients


def curvature(f: Probabilities, x: Tensor, y: Tensor) -> Tensor:
    """dᵀ∇²f_y d along d = sign g, (B,), by double back-propagation.

    f must be twice differentiable by autograd.  A spiking network of this library is so inside `reference_path()` and
    `smoothed()`; otherwise torch raises RuntimeError.
    """
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(true_class(f, leaf, y).sum(), leaf, create_graph=True)
        direction = gradient.detach().sign()
        (hessian_times_direction,) = torch.autograd.grad((gradient * direction).sum(), leaf)
    return (hessian_times_direction * direction).flatten(1).sum(1)
