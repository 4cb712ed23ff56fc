"""Trainings (defenses): each computes a loss from a batch, and declares its title and colour by `register`.

Tables and figures show trainings in the order in which they are registered.
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

MANY_ROWS, SHARE = 200, 0.3  # of a linear layer with so many rows, RAT changes a random share


@dataclass(frozen=True)
class Batch:
    """The input of one training step."""

    images: Tensor  # (B, C, H, W) in `bounds`
    labels: Tensor  # (B,) int64
    index: Tensor  # (B,) int64: each sample's number in its source, which decides its random start
    bounds: tuple[float, float]  # smallest and largest value of a pixel
    seed: int  # of the epoch


class Defense(Protocol):
    """An object with a loss, and perhaps a method `after_step(network)`, called after each step of the optimiser.

    The network is in training mode before and after the call.  Torch's global generator is seeded for each step.
    """

    def loss(self, network: nn.Module, batch: Batch) -> Tensor: ...


DEFENSES: dict[str, Callable[..., Defense]] = {}  # by name: options → defense
LOSS_TAKES = ["network", "batch"]  # the first arguments of a loss


def register(name: str, *, title: str | None = None, colour: str = words.COLOUR):
    """Decorator that makes a training known as `name`, with its title in tables and its colour in figures.

    It decorates a class or function that makes a `Defense` of given options, or a loss: (network, batch, *, options).
    """

    def remember(factory):
        before = getattr(DEFENSES.get(name), "declared", DEFENSES.get(name))
        errors.registered_once("training", name, before, factory)
        is_loss = [*inspect.signature(factory).parameters][:2] == LOSS_TAKES
        DEFENSES[name] = _of_loss(factory) if is_loss else factory
        words.learn({"trainings": {name: {"title": title or name, "colour": colour}}})
        return factory

    return remember


def _of_loss(loss: Callable[..., Tensor]) -> Callable[..., Defense]:
    """A function that makes a defense of the loss; its signature, which `build` checks, holds the loss's options."""

    def factory(**options) -> Defense:
        return SimpleNamespace(loss=partial(loss, **options))

    factory.__signature__ = inspect.Signature([*inspect.signature(loss).parameters.values()][len(LOSS_TAKES) :])
    factory.declared = loss
    return factory


def build(name: str, options: dict) -> Defense:
    """The defense `name` with `options`.  Refuses unknown names and options; the sentence lists the known ones."""
    errors.one_of("defense", name, DEFENSES)
    errors.takes(f"Defense {name!r}", DEFENSES[name], options)
    return DEFENSES[name](**options)


def after_step(defense: Defense, network: nn.Module) -> None:
    """Call the `after_step` of a defense that has one."""
    if hasattr(defense, "after_step"):
        defense.after_step(network)


# ---- on clean images -------------------------------------------------------------------------------------------------


@register("vanilla", title="vanilla", colour="#4d4d4d")
@dataclass(frozen=True)
class Vanilla:
    """Cross-entropy on clean images."""

    def terms(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss, and the logits (B, K) on the batch's images."""
        logits = network(batch.images)
        return F.cross_entropy(logits, batch.labels), logits

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        return self.terms(network, batch)[0]


@dataclass(frozen=True)
class Penalised(Vanilla):
    """Cross-entropy plus λ times a penalty; a subclass has `penalty`, which returns logits (B, K) and a scalar."""

    lam: float

    def __post_init__(self):
        errors.number("lam", self.lam, at_least=0)

    def terms(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        logits, penalty = self.penalty(network, batch)
        return F.cross_entropy(logits, batch.labels) + self.lam * penalty, logits


@register("sr", title="SR", colour="#0072b2")
@dataclass(frozen=True)
class SR(Penalised):
    """The sparsity penalty of `regularizers.sr`."""

    h: float = 0.01  # step of the finite difference
    preset: str = "released"
    axes: dict = field(default_factory=dict)  # fields of `regularizers.Variant` that differ from the preset
    clamp: bool = False  # whether the second point of the difference is kept within bounds
    update: str = "both"  # which passes update BatchNorm: "both" as in the released code, or the "clean" one alone

    def __post_init__(self):
        super().__post_init__()
        errors.number("h", self.h, above=0)
        errors.takes("An SR variant", regularizers.Variant, self.axes)
        regularizers.variant(self.preset, **self.axes)
        errors.one_of("clamp", self.clamp, (False, True))
        errors.one_of("update", self.update, regularizers.UPDATES)

    def penalty(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        clamp = batch.bounds if self.clamp else None
        options = {"preset": self.preset, "h": self.h, "clamp": clamp, "update": self.update} | self.axes
        return regularizers.sr(network, batch.images, batch.labels, **options)


# ---- on adversarial examples ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Examples:
    """Adversarial examples by PGD; one step of α = 1.25·ε is "fast" FGSM training (Wong et al., arXiv 2001.03994)."""

    eps: float
    alpha: float  # length of a step
    steps: int
    random_start: bool = True
    rule: dict = field(default_factory=dict)  # backward rule, as in `attacks.Attack`; {}: the network's own

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
        """The examples, (B, C, H, W), made in eval mode; `more` are arguments of `attacks.pgd`."""
        network.eval()
        perturb = self._attack().bind(seed=batch.seed, index=batch.index, **more)
        examples = perturb(network, batch.images, batch.labels, bounds=batch.bounds)
        network.train()
        return examples


@dataclass(frozen=True)
class AT(Examples):
    """Adversarial training: the loss `then` is computed on the examples in place of the images."""

    then: Vanilla = Vanilla()

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        return self.then.loss(network, replace(batch, images=self.made(network, batch)))


@register("at", title="AT", colour="#e69f00")
def at(*, eps: float, alpha: float, steps: int, random_start: bool = True, rule: dict | None = None) -> AT:
    """Cross-entropy on adversarial examples alone."""
    return AT(eps, alpha, steps, random_start, rule or {})


@register("at-pgd", title="AT of PGD", colour="#ddcc77")
def at_pgd(*, eps: float, alpha: float, steps: int = 7, rule: dict | None = None) -> AT:
    """AT whose examples take several steps (Madry et al., arXiv 1706.06083): what AT+SR has to hold against.

    An AT of one step may owe what SR adds to the weakness of its examples.
    """
    return AT(eps, alpha, steps, rule=rule or {})


@register("at+sr", title="AT+SR", colour="#009e73")
def at_sr(*, eps: float, alpha: float, steps: int, random_start: bool = True, rule: dict | None = None, **sr) -> AT:
    """Cross-entropy and SR penalty, both on adversarial examples.  `sr` are the options of "sr"."""
    errors.takes("Defense 'at+sr'", SR, sr)
    return AT(eps, alpha, steps, random_start, rule or {}, then=SR(**sr))


@register("rat", title="RAT", colour="#999933")
@dataclass(frozen=True)
class RAT(Examples):
    """AT that moves every weight matrix towards orthonormal rows after each step, as described for SNN-RAT.

    W ← (1+β)·W - β·W·Wᵀ·W for linear layers and convolutions, whose weights are flattened to out × rest; the mixing
    scalars of wide blocks are projected onto the simplex.  (SNN-RAT has no weight decay, and batches of 64.)
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
                weight = module.weight.flatten(1)  # a copy, if the convolution is channels_last
                rows = torch.arange(len(weight))
                if isinstance(module, nn.Linear) and len(weight) >= MANY_ROWS:
                    rows = torch.randperm(len(weight))[: round(SHARE * len(weight))]
                w = weight[rows]
                module.weight[rows] = ((1 + self.beta) * w - self.beta * (w @ w.T) @ w).view_as(module.weight[rows])
            elif isinstance(module, WideBlock):
                first = ((module.mix[0] - module.mix[1] + 1) / 2).clamp(0, 1)  # of the nearest point on the simplex
                module.mix.copy_(torch.stack([first, 1 - first]))


@dataclass(frozen=True)
class TRADES(Examples):
    """The loss `then` on clean images plus β·KL(f(x) ‖ f(x′)); PGD finds x′ (Zhang et al., arXiv 1901.08573).

    PGD maximises the divergence from a uniform random start in the ball.  After the original's, x + 0.001·N(0, 1), the
    logits of many spiking networks are as they were, and there the divergence has no gradient.
    """

    beta: float = 6.0
    update: str = "both"  # which passes update BatchNorm: "both" of those in training mode, or the "clean" one alone
    then: Vanilla = Vanilla()

    def __post_init__(self):
        super().__post_init__()
        errors.number("beta", self.beta, at_least=0)
        errors.one_of("update", self.update, regularizers.UPDATES)

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        with torch.no_grad():
            target = F.log_softmax(network.eval()(batch.images), dim=1)
        examples = self.made(network, batch, ascend=lambda logits, labels: _divergence(target, logits))
        loss, clean = self.then.terms(network, batch)
        with regularizers.unremembered(network) if self.update == "clean" else nullcontext():
            adversarial = network(examples)
        return loss + self.beta * _divergence(F.log_softmax(clean, dim=1), adversarial).mean()


def _divergence(target: Tensor, logits: Tensor) -> Tensor:
    """KL(p ‖ softmax(logits)) of each sample, (B,); `target` is log p, (B, K)."""
    return F.kl_div(F.log_softmax(logits, dim=1), target, reduction="none", log_target=True).sum(1)


@register("trades", title="TRADES", colour="#882255")
def trades(
    *, eps: float, alpha: float, steps: int, beta: float = 6.0, rule: dict | None = None, update: str = "both"
) -> TRADES:
    """Cross-entropy on clean images plus the divergence."""
    return TRADES(eps, alpha, steps, rule=rule or {}, beta=beta, update=update)


@register("trades+sr", title="TRADES+SR", colour="#44aa99")
def trades_sr(
    *, eps: float, alpha: float, steps: int, beta: float = 6.0, rule: dict | None = None, update: str = "both", **sr
) -> TRADES:
    """TRADES with SR on the clean images.  `sr` are the options of "sr"."""
    errors.takes("Defense 'trades+sr'", SR, sr)
    return TRADES(eps, alpha, steps, rule=rule or {}, beta=beta, update=update, then=SR(update=update, **sr))


# ---- other penalties: other norms and other gradients ---------------------------------------------------------------


@dataclass(frozen=True)
class Exact(Penalised):
    """A norm of ∇ₓ f_y by double backpropagation, which the fast path of our networks does not allow."""

    norm: Callable = regularizers.exact_l1

    def penalty(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        with network.reference_path() if isinstance(network, Network) else nullcontext():
            return self.norm(network, batch.images, batch.labels)


@register("l2", title="exact l2", colour="#aa4499")
def exact_l2(*, lam: float) -> Exact:
    """The exact penalty with the l2 norm, which does not favour sparse gradients."""
    return Exact(lam, regularizers.exact_l2)


@register("loss-l1", title="loss l1", colour="#88ccee")
@dataclass(frozen=True)
class LossDifference(Penalised):
    """Finlay and Oberman's penalty, `regularizers.loss_difference`, with the l1 norm of the loss gradient."""

    h: float = 0.01  # step of the finite difference
    update: str = "both"  # see `SR`

    def __post_init__(self):
        super().__post_init__()
        errors.number("h", self.h, above=0)
        errors.one_of("update", self.update, regularizers.UPDATES)

    def penalty(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        return regularizers.loss_difference(network, batch.images, batch.labels, h=self.h, update=self.update)


@register("exact-l1", title="exact l1", colour="#332288")
def exact_l1(*, lam: float) -> Exact:
    """The exact penalty with the l1 norm, which the paper's form of SR estimates."""
    return Exact(lam, regularizers.exact_l1)
