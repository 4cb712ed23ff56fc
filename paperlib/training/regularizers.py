"""Penalties on the input gradient: SR, its variants, and penalties to compare it with; section 4 of the paper notes.

Each penalty takes a network, images (B, C, H, W) and labels (B,), and returns logits (B, K) and the penalty before λ, a
scalar.  SR and the loss difference estimate a norm of the gradient by a finite difference, without double
back-propagation; `exact_l1` and `exact_l2` use double back-propagation.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from paperlib import errors

Network = Callable[[Tensor], Tensor]  # images (B, C, H, W) → logits (B, K)


def _margin_probability(logits: Tensor, labels: Tensor, rival: Tensor) -> Tensor:
    """σ(z_y - z_j), (B,): the probability of y against the rival j alone.  Never overflows."""
    return torch.sigmoid((logits.gather(1, labels[:, None]) - logits.gather(1, rival[:, None])).squeeze(1))


def _softmax_probability(logits: Tensor, labels: Tensor, rival: Tensor | None = None) -> Tensor:
    """softmax(z)_y, (B,)."""
    return F.softmax(logits, dim=1).gather(1, labels[:, None]).squeeze(1)


CONFIDENCES = {"margin": _margin_probability, "softmax": _softmax_probability}
PENALTIES = {"square": torch.square, "absolute": torch.abs}  # of the quotient q
DIRECTIONS = {"+": (0, 1), "-": (-1, 0), "central": (-1, 1)}  # q = (p(x + b·h·d) - p(x + a·h·d)) / ((b - a)·h)
UPDATES = ("both", "clean")  # the passes in training mode that update BatchNorm's running statistics


class Variant(NamedTuple):
    """The axes of SR: the confidence p, the function of its quotient q, and the side of x where the probe is."""

    confidence: str = "margin"  # of the true class against the runner-up; or "softmax": against all classes
    penalty: str = "square"  # q²; or "absolute": |q|
    direction: str = "+"  # along d = sign ∇ₓp, where p grows; or "-": along -d; or "central": both


PRESETS = {"released": Variant(), "paper": Variant("softmax", "absolute")}


def variant(preset: str = "released", **axes: str) -> Variant:
    """The preset with some of its axes replaced; refuses unknown presets, axes and values."""
    errors.one_of("SR preset", preset, PRESETS)
    errors.takes("An SR variant", Variant, axes)
    result = PRESETS[preset]._replace(**axes)
    for axis, allowed in zip(Variant._fields, (CONFIDENCES, PENALTIES, DIRECTIONS), strict=True):
        errors.one_of(f"{axis} of SR", getattr(result, axis), allowed)
    return result


def named(words: str) -> Variant:
    """The variant with one word for each axis, in order: "softmax absolute central"; refuses unknown words."""
    values = words.split()
    if len(values) != len(Variant._fields):
        raise errors.Refused(f"{words!r} names no SR variant; it must be a word each for {', '.join(Variant._fields)}.")
    return variant(**dict(zip(Variant._fields, values, strict=True)))


def runner_up(logits: Tensor, labels: Tensor) -> Tensor:
    """argmax over k ≠ y of z_k, (B,); the lowest class among equal logits."""
    return logits.detach().scatter(1, labels[:, None], -torch.inf).argmax(1)


@contextmanager
def unremembered(network: Network) -> Iterator[None]:
    """Inside the block passes do not update BatchNorm's running statistics; they are normalised as before."""
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm)] if isinstance(network, nn.Module) else []
    before = [norm.track_running_stats for norm in norms]
    try:
        for norm in norms:
            norm.track_running_stats = False  # eval mode still uses the statistics that the norm has
        yield
    finally:
        for norm, tracks in zip(norms, before, strict=True):
            norm.track_running_stats = tracks


def sr(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    preset: str = "released",
    h: float = 0.01,
    clamp: tuple[float, float] | None = None,
    update: str = "both",
    **axes: str,
) -> tuple[Tensor, Tensor]:
    """Logits (B, K), and the mean of q² or |q|, where q = (p(x + h·d) - p(x))/h estimates ‖∇ₓp‖₁ of a sample.

    The direction d = sign ∇ₓΣp, with the sum over the batch, and the runner-up are constants.  The preset "released"
    squares q, and p is the probability of the true class against the runner-up; the preset "paper" has |q|, and p is
    the softmax probability of the true class.  `axes` replace single axes of the preset (see `Variant`), as in
    sr(..., direction="central").  `h` is in the units of the images.  Probes are clamped to the bounds `clamp`, if
    given; the released code does not clamp.  Gradients flow through all passes, in train and in eval mode.  With
    `update` "clean" the probes do not update BatchNorm's running statistics.
    Refuses unknown presets, axes and updates, and h that is not above 0.
    """
    confidence, penalty, direction = variant(preset, **axes)
    errors.number("h", h, above=0)
    errors.one_of("update", update, UPDATES)
    p = CONFIDENCES[confidence]
    leaf = images.detach().requires_grad_()
    logits = network(leaf)
    rival = runner_up(logits, labels)
    values = {0: p(logits, labels, rival)}  # {place: p at x + place·h·d}
    d = torch.autograd.grad(values[0].sum(), leaf, retain_graph=True)[0].sign()
    low, high = DIRECTIONS[direction]
    with unremembered(network) if update == "clean" else nullcontext():
        for place in [place for place in (low, high) if place != 0]:  # x was the first pass
            probe = images + place * h * d
            values[place] = p(network(probe if clamp is None else probe.clamp(*clamp)), labels, rival)
    return logits, PENALTIES[penalty]((values[high] - values[low]) / ((high - low) * h)).mean()


def loss_difference(
    network: Network, images: Tensor, labels: Tensor, *, norm: str = "l1", h: float = 0.01, update: str = "both"
) -> tuple[Tensor, Tensor]:
    """Logits (B, K), and the mean of ((ℓ(x + h·d) - ℓ(x))/h)², an estimate of ‖∇ₓℓ‖² of the cross-entropy ℓ.

    The direction is d = sign ∇ₓℓ for the norm "l1" and ∇ₓℓ/‖∇ₓℓ‖₂ for "l2"; it is a constant.  The probe is not clamped
    (Finlay and Oberman, arXiv 1905.11468).  `h` and `update` are those of `sr`.
    Refuses unknown norms and updates, and h that is not above 0.
    """
    errors.one_of("norm", norm, ("l1", "l2"))
    errors.number("h", h, above=0)
    errors.one_of("update", update, UPDATES)
    leaf = images.detach().requires_grad_()
    logits = network(leaf)
    loss = F.cross_entropy(logits, labels, reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), leaf, retain_graph=True)
    d = gradient.sign() if norm == "l1" else F.normalize(gradient.flatten(1)).view_as(gradient)
    with unremembered(network) if update == "clean" else nullcontext():
        probed = F.cross_entropy(network(images + h * d), labels, reduction="none")
    return logits, ((probed - loss) / h).square().mean()


def exact_l1(network: Network, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, K), and the mean of ‖∇ₓ f_y‖₁ by double back-propagation, f_y the true class's softmax probability.

    This is the norm that `sr` with the preset "paper" estimates.  `network` must be twice differentiable.  A spiking
    network of this library is so inside `network.reference_path()` or `network.smoothed()`; otherwise the backward pass
    of the penalty raises RuntimeError.
    """
    logits, gradient = _differentiable_gradient(network, images, labels)
    return logits, gradient.abs().flatten(1).sum(1).mean()


def exact_l2(network: Network, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """`exact_l1` with ‖∇ₓ f_y‖₂, a norm that does not favour sparse gradients."""
    logits, gradient = _differentiable_gradient(network, images, labels)
    return logits, gradient.flatten(1).norm(dim=1).mean()


def _differentiable_gradient(network: Network, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, K) and ∇ₓ Σ f_y, (B, C, H, W), with the graph of the gradient."""
    leaf = images.detach().requires_grad_()
    logits = network(leaf)
    f_y = _softmax_probability(logits, labels)
    return logits, torch.autograd.grad(f_y.sum(), leaf, create_graph=True)[0]
