"""The ratio theorem and the finite-difference proposition, checkable on any f; section 3 of the paper notes.

`f` is any callable from images (B, ...) to class probabilities (B, K), so that other models can be put in.
"""

from collections.abc import Callable

from torch import Tensor

from paperlib import errors
from paperlib.gradients import input_gradient, l0, l1, l2, participation_number

Probabilities = Callable[[Tensor], Tensor]


def linear_ratio(gradient: Tensor) -> Tensor:
    """Adversarial over random vulnerability of the linearised network, 3‖g‖₁²/‖g‖₂².

    `gradient` is ∂f_y/∂x, shape (B, ...).  Returns (B,), each in [3, 3‖g‖₀]; NaN where the gradient vanishes (count
    those, never drop them).  The 3 belongs to uniform noise, E[δδᵀ] = I/3.
    """
    return 3 * participation_number(gradient)


def true_class_gradient(f: Probabilities, x: Tensor, y: Tensor) -> Tensor:
    """∇ₓ f_y(x), shape of `x`; of a spiking network it is the surrogate gradient."""
    return input_gradient(lambda images: f(images).gather(1, y[:, None]), x)


# where the two points of the quotient lie, in units of h along d = sign g
SCHEMES = {"forward": (1.0, 0.0), "backward": (0.0, -1.0), "central": (0.5, -0.5)}


def finite_difference_l1(f: Probabilities, x: Tensor, y: Tensor, h: float, scheme: str = "forward") -> Tensor:
    """‖∇ₓ f_y‖₁ by one quotient along d = sign g, (B,): (f_y(x + a·hd) - f_y(x + b·hd))/h, a - b = 1.

    `h` is in the units of `x`; the points are not clamped.  The error of "forward" is (h/2)·dᵀ∇²f d + O(h²).
    Refuses an unknown scheme and h that is not above 0.
    """
    errors.one_of("scheme", scheme, SCHEMES)
    errors.number("h", h, above=0)
    direction = true_class_gradient(f, x, y).sign()
    a, b = (f(x + part * h * direction).gather(1, y[:, None]).squeeze(1).detach() for part in SCHEMES[scheme])
    return (a - b) / h


__all__ = [
    "finite_difference_l1",
    "l0",
    "l1",
    "l2",
    "linear_ratio",
    "participation_number",
    "true_class_gradient",
]
