"""Penalties on the input gradient: SR in its variants, and what it is compared with; section 4 of the paper notes.

Each takes a network, images (B, C, H, W) and labels (B,), and returns logits (B, K) with a penalty before λ, a scalar.
SR and the loss difference estimate a norm by a finite difference along the direction that attains it, which needs no
double back-propagation; `exact_l1` and `exact_l2` take it.
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
    """σ(z_y - z_j): the two-class probability against the frozen rival j, (B,).  Never overflows."""
    return torch.sigmoid((logits.gather(1, labels[:, None]) - logits.gather(1, rival[:, None])).squeeze(1))


def _softmax_probability(logits: Tensor, labels: Tensor, rival: Tensor | None = None) -> Tensor:
    return F.softmax(logits, dim=1).gather(1, labels[:, None]).squeeze(1)


CONFIDENCES = {"margin": _margin_probability, "softmax": _softmax_probability}
PENALTIES = {"square": torch.square, "absolute": torch.abs}  # of the quotient q
DIRECTIONS = {"+": (0, 1), "-": (-1, 0), "central": (-1, 1)}  # q = (p(x + b·h·d) - p(x + a·h·d)) / ((b - a)·h)
UPDATES = ("both", "clean")  # which of two passes in training mode move BatchNorm's running statistics


class Variant(NamedTuple):
    """The axes of SR: the confidence p, what is taken of its quotient q, and on which side of x the probe lies."""

    confidence: str = "margin"  # against the runner-up; or "softmax": of the true class
    penalty: str = "square"  # q²; or "absolute": |q|
    direction: str = "+"  # forward along d = sign ∇ₓp, where p grows; or "-": backward; or "central"


PRESETS = {"released": Variant(), "paper": Variant("softmax", "absolute")}


def variant(preset: str = "released", **axes: str) -> Variant:
    """The preset with some of its axes replaced; refuses what there is not."""
    errors.one_of("SR preset", preset, PRESETS)
    errors.takes("An SR variant", Variant, axes)
    found = PRESETS[preset]._replace(**axes)
    for axis, allowed in zip(Variant._fields, (CONFIDENCES, PENALTIES, DIRECTIONS), strict=True):
        errors.one_of(f"{axis} of SR", getattr(found, axis), allowed)
    return found


def named(words: str) -> Variant:
    """The variant that a word an axis names, in order: "softmax absolute central"; refuses what there is not."""
    given = words.split()
    if len(given) != len(Variant._fields):
        raise errors.Refused(f"{words!r} names no SR variant; it must be a word each for {', '.join(Variant._fields)}.")
    return variant(**dict(zip(Variant._fields, given, strict=True)))


def runner_up(logits: Tensor, labels: Tensor) -> Tensor:
    """argmax over k ≠ y of z_k, (B,); of equal logits the lower class."""
    return logits.detach().scatter(1, labels[:, None], -torch.inf).argmax(1)


@contextmanager
def unremembered(network: Network) -> Iterator[None]:
    """Passes inside the block leave BatchNorm's running statistics as they are; they are normalised as ever."""
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm)] if isinstance(network, nn.Module) else []
    own = [norm.track_running_stats for norm in norms]
    try:
        for norm in norms:
            norm.track_running_stats = False  # as long as it has them, eval mode uses them nonetheless
        yield
    finally:
        for norm, tracks in zip(norms, own, strict=True):
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
    """Logits and the mean of q² or |q|, where q estimates ‖∇ₓp‖₁ along d = sign ∇ₓΣp over the whole batch, a constant.

    "released": q = (p(x + h·d) - p(x))/h squared, p the two-class probability against the runner-up; "paper": |q| of
    the true class's softmax probability.  Any axis of `Variant` may be given beside the preset, as in
    sr(..., direction="central").  `h` is in the images' units.  Probes are clamped to the bounds `clamp`; the released
    code does not.  Gradients flow through all passes, in whichever mode the network is; with `update` "clean" the
    probes leave BatchNorm's running statistics alone.  Refuses what there is not, and h that is not above 0.
    """
    confidence, penalty, direction = variant(preset, **axes)
    errors.number("h", h, above=0)
    errors.one_of("update", update, UPDATES)
    p = CONFIDENCES[confidence]
    leaf = images.detach().requires_grad_()
    logits = network(leaf)
    rival = runner_up(logits, labels)
    at = {0: p(logits, labels, rival)}  # p at x + place·h·d
    d = torch.autograd.grad(at[0].sum(), leaf, retain_graph=True)[0].sign()
    low, high = DIRECTIONS[direction]
    with unremembered(network) if update == "clean" else nullcontext():
        for place in filter(None, (low, high)):
            probe = images + place * h * d
            at[place] = p(network(probe if clamp is None else probe.clamp(*clamp)), labels, rival)
    return logits, PENALTIES[penalty]((at[high] - at[low]) / ((high - low) * h)).mean()


def loss_difference(
    network: Network, images: Tensor, labels: Tensor, *, norm: str = "l1", h: float = 0.01, update: str = "both"
) -> tuple[Tensor, Tensor]:
    """Logits and the mean of ((ℓ(x + h·d) - ℓ(x))/h)², ℓ the cross-entropy: ‖∇ₓℓ‖² by a finite difference.

    d = sign ∇ₓℓ for the norm "l1", ∇ₓℓ/‖∇ₓℓ‖₂ for "l2", a constant; the probe is not clamped (Finlay and Oberman, arXiv
    1905.11468).  `h`, `update` and what is refused are those of `sr`.
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
    """Logits and the mean of ‖∇ₓ f_y‖₁ by double back-propagation, f_y the true class's softmax probability.

    What `sr` with the preset "paper" estimates.  `network` must be twice differentiable: a spiking network of this
    library is so inside `network.reference_path()` or `network.smoothed()`, and refused by torch otherwise.
    """
    logits, gradient = _differentiable_gradient(network, images, labels)
    return logits, gradient.abs().flatten(1).sum(1).mean()


def exact_l2(network: Network, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and the mean of ‖∇ₓ f_y‖₂: `exact_l1` with another norm, one that does not ask for sparsity."""
    logits, gradient = _differentiable_gradient(network, images, labels)
    return logits, gradient.flatten(1).norm(dim=1).mean()


def _differentiable_gradient(network: Network, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and ∇ₓ Σ f_y with its own graph."""
    leaf = images.detach().requires_grad_()
    logits = network(leaf)
    f_y = _softmax_probability(logits, labels)
    return logits, torch.autograd.grad(f_y.sum(), leaf, create_graph=True)[0]
