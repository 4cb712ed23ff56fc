"""Trainings: each turns a batch into a loss.  Built by name from an experiment; `register` adds your own."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from paperlib import attacks, errors, regularizers


@dataclass(frozen=True)
class Batch:
    """What one step sees.  `seed` differs from epoch to epoch; `index` names each sample, for its random start."""

    images: Tensor  # (B, C, H, W) in `bounds`
    labels: Tensor  # (B,)
    index: Tensor  # (B,)
    bounds: tuple[float, float]
    seed: int


class Defense(Protocol):
    """Anything with a loss; the network comes, and must be left, in training mode."""

    def loss(self, network: nn.Module, batch: Batch) -> Tensor: ...


DEFENSES: dict[str, Callable[..., Defense]] = {}


def register(name: str):
    """Class or function decorator: make a defense known as `name` to experiments and parameter files."""

    def remember(factory):
        DEFENSES[name] = factory
        return factory

    return remember


def build(name: str, options: dict) -> Defense:
    """The defense `name` with `options`; refuses unknown names and options, and says which it takes."""
    errors.one_of("defense", name, DEFENSES)
    errors.takes(f"Defense {name!r}", DEFENSES[name], options)
    return DEFENSES[name](**options)


@register("vanilla")
@dataclass(frozen=True)
class Vanilla:
    """Cross-entropy on clean images: one pass, nothing else."""

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(network(batch.images), batch.labels)


@register("sr")
@dataclass(frozen=True)
class SR:
    """Cross-entropy plus λ times the sparsity penalty of `regularizers.sr`; both passes update BatchNorm."""

    lam: float
    h: float = 0.01
    preset: str = "released"

    def __post_init__(self):
        errors.number("lam", self.lam, at_least=0)
        errors.number("h", self.h, above=0)
        errors.one_of("SR preset", self.preset, regularizers.PRESETS)

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        logits, penalty = regularizers.sr(network, batch.images, batch.labels, preset=self.preset, h=self.h)
        return F.cross_entropy(logits, batch.labels) + self.lam * penalty


@dataclass(frozen=True)
class AT:
    """Adversarial training: PGD examples, made in eval mode, take the images' place in the loss `then`.

    One step of α = 1.25·ε from a random start is "fast" FGSM training (Wong et al., arXiv 2001.03994).
    """

    eps: float
    alpha: float
    steps: int
    then: Defense = Vanilla()

    def __post_init__(self):
        errors.number("eps", self.eps, above=0)
        errors.number("alpha", self.alpha, above=0)
        errors.count("steps", self.steps)

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        network.eval()
        adversarial = attacks.pgd(
            network,
            batch.images,
            batch.labels,
            eps=self.eps,
            alpha=self.alpha,
            steps=self.steps,
            bounds=batch.bounds,
            seed=batch.seed,
            index=batch.index,
        )
        network.train()
        return self.then.loss(network, replace(batch, images=adversarial))


@register("at")
def at(*, eps: float, alpha: float, steps: int) -> AT:
    """Cross-entropy on adversarial examples alone."""
    return AT(eps, alpha, steps)


@register("at+sr")
def at_sr(*, eps: float, alpha: float, steps: int, lam: float, h: float = 0.01, preset: str = "released") -> AT:
    """SR on adversarial examples: cross-entropy and penalty are both taken there."""
    return AT(eps, alpha, steps, then=SR(lam, h, preset))
