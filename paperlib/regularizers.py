"""Sparsity regularisation of the input gradient (SR); section 4 of the paper notes.

Both forms estimate the gradient's l1 norm by a finite difference along its own sign, d = sign ∇ₓ(confidence), which
needs no double back-propagation.  The probe x + h·d is not clamped to the data's bounds, as in the released code.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from paperlib import errors


def _margin_probability(logits: Tensor, labels: Tensor, rival: Tensor) -> Tensor:
    """σ(z_y - z_j): the two-class probability against the frozen rival j, (B,).  Never overflows."""
    return torch.sigmoid((logits.gather(1, labels[:, None]) - logits.gather(1, rival[:, None])).squeeze(1))


def _softmax_probability(logits: Tensor, labels: Tensor, rival: Tensor | None = None) -> Tensor:
    return F.softmax(logits, dim=1).gather(1, labels[:, None]).squeeze(1)


# name: the confidence p that is differenced, and what the mean is taken of, given q = (p₂ - p₁)/h
PRESETS = {
    "released": (_margin_probability, torch.square),
    "paper": (_softmax_probability, torch.abs),
}


def runner_up(logits: Tensor, labels: Tensor) -> Tensor:
    """argmax over k ≠ y of z_k, (B,); of equal logits the lower class."""
    return logits.detach().scatter(1, labels[:, None], -torch.inf).argmax(1)


def sr(
    network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, *, preset: str = "released", h: float = 0.01
) -> tuple[Tensor, Tensor]:
    """Logits (B, K) and the penalty before λ, a scalar: the mean of q² ("released") or |q| ("paper").

    q = (p(x + h·d) - p(x))/h with p the two-class probability against the runner-up ("released") or the softmax
    probability of the true class ("paper"), and d = sign ∇ₓ Σp over the whole batch, a constant.  `images` is
    (B, C, H, W); `h` is in their units.  Gradients flow through both passes, in whichever mode the network is.
    Refuses an unknown preset and h that is not above 0.
    """
    errors.one_of("SR preset", preset, PRESETS)
    errors.number("h", h, above=0)
    confidence, size = PRESETS[preset]
    leaf = images.detach().requires_grad_()
    logits = network(leaf)
    rival = runner_up(logits, labels)
    p1 = confidence(logits, labels, rival)
    direction = torch.autograd.grad(p1.sum(), leaf, retain_graph=True)[0].sign()
    p2 = confidence(network(images + h * direction), labels, rival)
    return logits, size((p2 - p1) / h).mean()


def exact_l1(network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, K) and the mean of ‖∇ₓ f_y‖₁ by double back-propagation, f_y the true class's softmax probability.

    What `sr` with the preset "paper" estimates.  `network` must be twice differentiable: a spiking network of this
    library is so inside `network.reference_path()` or `network.smoothed()`, and refused by torch otherwise.
    """
    leaf = images.detach().requires_grad_()
    logits = network(leaf)
    f_y = _softmax_probability(logits, labels)
    (gradient,) = torch.autograd.grad(f_y.sum(), leaf, create_graph=True)
    return logits, gradient.abs().flatten(1).sum(1).mean()
