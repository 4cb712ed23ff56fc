"""Trainings (defenses): each turns a batch into a loss and declares its title and colour by `register`.

A defense may also have `after_step(network)`, called when the optimiser has moved the weights.  The order in this file
is the order of tables and figures.
"""

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperlib import errors, words
from paperlib.attacks.attack import Attack
from paperlib.networks.architectures import WideBlock
from paperlib.networks.network import Network
from paperlib.training import regularizers

MANY_ROWS, SHARE = 200, 0.3  # RAT moves this share of a linear layer's rows where there are so many


@dataclass(frozen=True)
class Batch:
    """What one step sees.  `seed` differs from epoch to epoch; `index` names each sample, for its random start."""

    images: Tensor  # (B, C, H, W) in `bounds`
    labels: Tensor  # (B,)
    index: Tensor  # (B,)
    bounds: tuple[float, float]
    seed: int


class Defense(Protocol):
    """Anything with a loss; the network comes, and must be left, in training mode.

    Torch's global chance is seeded for each step.
    """

    def loss(self, network: nn.Module, batch: Batch) -> Tensor: ...


DEFENSES: dict[str, Callable[..., Defense]] = {}
LOSS_TAKES = ["network", "batch"]  # before its options


def register(name: str, *, title: str | None = None, colour: str = words.COLOUR):
    """Decorator: make a training known as `name` to experiments, parameter files, tables and figures.

    It decorates a class, or a function that makes a `Defense` of its options; or just a loss, a function of
    (network, batch, *, options).  `title` is its name for readers, `colour` its colour in every figure.  Refuses a name
    that another training has.
    """

    def remember(factory):
        before = getattr(DEFENSES.get(name), "declared", DEFENSES.get(name))
        errors.registered_once("training", name, before, factory)
        takes = [*inspect.signature(factory).parameters]
        DEFENSES[name] = _of_loss(factory) if takes[:2] == LOSS_TAKES else factory
        words.learn({"trainings": {name: {"title": title or name, "colour": colour}}})
        return factory

    return remember


def _of_loss(loss: Callable[..., Tensor]) -> Callable[..., Defense]:
    """A function of the loss's options that makes a defense; its signature says which options there are."""

    def made(**options) -> Defense:
        return SimpleNamespace(loss=partial(loss, **options))

    made.__signature__ = inspect.Signature([*inspect.signature(loss).parameters.values()][len(LOSS_TAKES) :])
    made.declared = loss
    return made


def build(name: str, options: dict) -> Defense:
    """The defense `name` with `options`; refuses unknown names and options, and says which it takes."""
    errors.one_of("defense", name, DEFENSES)
    errors.takes(f"Defense {name!r}", DEFENSES[name], options)
    return DEFENSES[name](**options)


def after_step(defense: Defense, network: nn.Module) -> None:
    """Call the `after_step` of a defense that has one."""
    if hasattr(defense, "after_step"):
        defense.after_step(network)


# ---- on the batch as it is: each has `terms`, the loss and the logits on the batch's images --------------------------


@register("vanilla", title="vanilla", colour="#4d4d4d")
@dataclass(frozen=True)
class Vanilla:
    """Cross-entropy on clean images: one pass, nothing else."""

    def terms(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = network(batch.images)
        return F.cross_entropy(logits, batch.labels), logits

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        return self.terms(network, batch)[0]


@dataclass(frozen=True)
class Penalised:
    """Cross-entropy plus λ times what `penalty` of a subclass says: logits and a penalty of a batch."""

    lam: float

    def __post_init__(self):
        errors.number("lam", self.lam, at_least=0)

    def terms(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        logits, penalty = self.penalty(network, batch)
        return F.cross_entropy(logits, batch.labels) + self.lam * penalty, logits

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        return self.terms(network, batch)[0]


@register("sr", title="SR", colour="#0072b2")
@dataclass(frozen=True)
class SR(Penalised):
    """The sparsity penalty of `regularizers.sr`: its preset, or single axes beside it; `clamp` keeps probes in bounds.

    Both passes update BatchNorm, as in the released code, or with `update` "clean" the first alone.
    """

    h: float = 0.01
    preset: str = "released"
    axes: dict = field(default_factory=dict)  # of `regularizers.Variant`
    clamp: bool = False
    update: str = "both"

    def __post_init__(self):
        super().__post_init__()
        errors.number("h", self.h, above=0)
        errors.takes("An SR variant", regularizers.Variant, self.axes)
        regularizers.variant(self.preset, **self.axes)
        errors.one_of("clamp", self.clamp, (False, True))
        errors.one_of("update", self.update, regularizers.UPDATES)

    def penalty(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        clamp = batch.bounds if self.clamp else None
        how = {"preset": self.preset, "h": self.h, "clamp": clamp, "update": self.update} | self.axes
        return regularizers.sr(network, batch.images, batch.labels, **how)


# ---- on adversarial examples ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Examples:
    """PGD in eval mode: `steps` of length `alpha` within `eps`, by the backward `rule` of `attacks.Attack`.

    One step of α = 1.25·ε from a random start is "fast" FGSM training (Wong et al., arXiv 2001.03994); one of α = ε
    without a random start is FGSM.
    """

    eps: float
    alpha: float
    steps: int
    random_start: bool = True
    rule: dict = field(default_factory=dict)  # {}: the training's own

    def __post_init__(self):
        errors.number("eps", self.eps, above=0)
        errors.number("alpha", self.alpha, above=0)
        errors.count("steps", self.steps)
        errors.one_of("random_start", self.random_start, (False, True))
        self._attack()

    def _attack(self) -> Attack:
        options = {"alpha": self.alpha, "steps": self.steps, "random_start": self.random_start}
        return Attack("pgd", self.eps, options, self.rule)

    def made(self, network: nn.Module, batch: Batch, **more) -> Tensor:
        """The examples, (B, C, H, W); `more` goes to `attacks.pgd`.  The network is left in training mode."""
        network.eval()
        perturb = self._attack().bind(seed=batch.seed, index=batch.index, **more)
        found = perturb(network, batch.images, batch.labels, bounds=batch.bounds)
        network.train()
        return found


@dataclass(frozen=True)
class AT(Examples):
    """Adversarial training: the examples take the images' place in the loss `then`."""

    then: Vanilla | Penalised = Vanilla()

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        return self.then.loss(network, replace(batch, images=self.made(network, batch)))


@register("at", title="AT", colour="#e69f00")
def at(*, eps: float, alpha: float, steps: int, random_start: bool = True, rule: dict | None = None) -> AT:
    """Cross-entropy on adversarial examples alone."""
    return AT(eps, alpha, steps, random_start, rule or {})


@register("at+sr", title="AT+SR", colour="#009e73")
def at_sr(*, eps: float, alpha: float, steps: int, random_start: bool = True, rule: dict | None = None, **sr) -> AT:
    """SR on adversarial examples: cross-entropy and penalty are both taken there.  `sr` are the options of "sr"."""
    errors.takes("Defense 'at+sr'", SR, sr)
    return AT(eps, alpha, steps, random_start, rule or {}, then=SR(**sr))


@register("rat", title="RAT", colour="#999933")
@dataclass(frozen=True)
class RAT(Examples):
    """Regularised AT: after each step every weight matrix is drawn towards orthogonal rows (SNN-RAT, as described).

    W ← (1+β)·W - β·W·Wᵀ·W of convolutions, flattened to out × rest, and of linear layers; of those with many rows a
    random share of them.  Mixing scalars of wide blocks are brought onto the simplex.  Its own recipe has no weight
    decay and batches of 64: set them beside its options in the profile.
    """

    beta: float = 5e-4

    def __post_init__(self):
        super().__post_init__()
        errors.number("beta", self.beta, at_least=0)

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(network(self.made(network, batch)), batch.labels)

    @torch.no_grad()
    def after_step(self, network: nn.Module) -> None:
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                weight = module.weight.flatten(1)  # of a convolution in channels_last a copy
                rows = torch.arange(len(weight))
                if isinstance(module, nn.Linear) and len(weight) >= MANY_ROWS:
                    rows = torch.randperm(len(weight))[: round(SHARE * len(weight))]
                w = weight[rows]
                module.weight[rows] = ((1 + self.beta) * w - self.beta * (w @ w.T) @ w).view_as(module.weight[rows])
            elif isinstance(module, WideBlock):
                first = ((module.mix[0] - module.mix[1] + 1) / 2).clamp(0, 1)  # the simplex's nearest point
                module.mix.copy_(torch.stack([first, 1 - first]))


@dataclass(frozen=True)
class TRADES(Examples):
    """`then` on clean images plus β·KL(f(x) ‖ f(x′)), x′ where it is largest (Zhang et al., arXiv 1901.08573).

    PGD's random start is the uniform one of the ball, not the original's 0.001·N(0, 1): so small a step leaves the
    logits of many a spiking network where they were, and there the divergence has no gradient.  Both passes in training
    mode update BatchNorm, or with `update` "clean" the one on clean images alone.
    """

    beta: float = 6.0
    update: str = "both"
    then: Vanilla | Penalised = Vanilla()

    def __post_init__(self):
        super().__post_init__()
        errors.number("beta", self.beta, at_least=0)
        errors.one_of("update", self.update, regularizers.UPDATES)

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        with torch.no_grad():
            target = F.log_softmax(network.eval()(batch.images), dim=1)
        x = self.made(network, batch, ascend=lambda logits, labels: _divergence(target, logits))
        loss, logits = self.then.terms(network, batch)
        with regularizers.unremembered(network) if self.update == "clean" else nullcontext():
            moved = network(x)
        return loss + self.beta * _divergence(F.log_softmax(logits, dim=1), moved).mean()


def _divergence(target: Tensor, logits: Tensor) -> Tensor:
    """KL(p ‖ softmax(logits)) of each sample, (B,), from log p."""
    return F.kl_div(F.log_softmax(logits, dim=1), target, reduction="none", log_target=True).sum(1)


@register("trades", title="TRADES", colour="#882255")
def trades(
    *, eps: float, alpha: float, steps: int, beta: float = 6.0, rule: dict | None = None, update: str = "both"
) -> TRADES:
    """Cross-entropy on clean images, and a divergence that holds their neighbourhood to it."""
    return TRADES(eps, alpha, steps, rule=rule or {}, beta=beta, update=update)


@register("trades+sr", title="TRADES+SR", colour="#44aa99")
def trades_sr(
    *, eps: float, alpha: float, steps: int, beta: float = 6.0, rule: dict | None = None, update: str = "both", **sr
) -> TRADES:
    """TRADES with SR on the clean images.  `sr` are the options of "sr"."""
    errors.takes("Defense 'trades+sr'", SR, sr)
    return TRADES(eps, alpha, steps, rule=rule or {}, beta=beta, update=update, then=SR(update=update, **sr))


# ---- rivals: other norms and other gradients ------------------------------------------------------------------------


@dataclass(frozen=True)
class Exact(Penalised):
    """A norm of ∇ₓ f_y by double back-propagation, for which a spiking network steps its neurons one by one."""

    norm: Callable = regularizers.exact_l1

    def penalty(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        with network.reference_path() if isinstance(network, Network) else nullcontext():
            return self.norm(network, batch.images, batch.labels)


@register("l2", title="exact l2", colour="#aa4499")
def exact_l2(*, lam: float) -> Exact:
    """The exact penalty with the l2 norm, which does not ask for sparsity."""
    return Exact(lam, regularizers.exact_l2)


@register("loss-l1", title="loss l1", colour="#88ccee")
@dataclass(frozen=True)
class LossDifference(Penalised):
    """Finlay and Oberman's penalty, `regularizers.loss_difference`, of the loss gradient's l1 norm."""

    h: float = 0.01
    update: str = "both"

    def __post_init__(self):
        super().__post_init__()
        errors.number("h", self.h, above=0)
        errors.one_of("update", self.update, regularizers.UPDATES)

    def penalty(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        return regularizers.loss_difference(network, batch.images, batch.labels, h=self.h, update=self.update)


@register("exact-l1", title="exact l1", colour="#332288")
def exact_l1(*, lam: float) -> Exact:
    """What the paper's form of SR estimates."""
    return Exact(lam, regularizers.exact_l1)
