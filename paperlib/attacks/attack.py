"""Attacks by name: a function is registered as an attack, and `Attack` is a registered name with its options.

    @register("mine", title="My attack")
    def mine(network, images, labels, *, eps, bounds, steps=10): ...

A registered attack is planned, costed, checked and drawn like the attacks of this library.
"""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, wraps

import torch
from torch import Tensor, nn

from paperlib import errors, words
from paperlib.attacks.core import Queried, admitted, shown, whole
from paperlib.networks import rules

# Parameters of an attack function that are not options: the caller sets them, or no parameter file can hold them.
CONTEXT = {"network", "images", "labels", "eps", "bounds", "seed", "index", "batch_size", "ascend"}
TITLED = ("loss", "steps", "queries", "draws")  # options that a title shows
UNUSUAL = {"restarts": 1, "eot": 1, "norm": "linf"}  # options that a title shows unless they have these values
NORMS = ("linf", "l2", "l0", "moves")
EVENTS = ("l0", "moves")  # norms that count events


@dataclass(frozen=True)
class Declared:
    """What is known of a registered attack, whatever its radius and options."""

    name: str
    function: Callable
    title: str
    norm: str  # the norm of `eps` where no option sets it; see `Attack.norm`
    noise: bool  # whether the attack only draws at random
    gradients: Callable[[dict], int] | None  # options → the most gradients that a sample costs
    queries: Callable[[dict], int] | None  # options and eps → the most passes without a gradient, except the last
    standard: Callable[[float, int, int], dict] | None  # eps, steps and queries → the options of the tables

    @property
    def takes(self) -> dict[str, inspect.Parameter]:
        """The options that the function takes, by name."""
        parameters = inspect.signature(self.function).parameters
        return {name: parameter for name, parameter in parameters.items() if name not in CONTEXT}

    @property
    def defaults(self) -> dict:
        """The options that have a default value."""
        return {name: p.default for name, p in self.takes.items() if p.default is not inspect.Parameter.empty}


ATTACKS: dict[str, Declared] = {}


def register(
    name: str,
    *,
    title: str | None = None,
    norm: str = "linf",
    noise: bool = False,
    gradients: Callable[[dict], int] | None = None,
    queries: Callable[[dict], int] | None = None,
    standard: Callable[[float, int, int], dict] | None = None,
):
    """Decorator: register a function (network, images, labels, *, eps, bounds, ...) as the attack `name`.

    The function returns images of the same shape within `eps` and `bounds`.  It receives `seed`, `index` and
    `batch_size` if it takes them (see `core`).  Its other parameters are the options of the attack.

    `title` is the name that readers see, by default `name`.  `norm` is one of `NORMS`, which `eps` bounds.  `noise`
    says that the attack only draws at random.  `gradients` and `queries` give the cost of a sample from the options; an
    attack that declares neither, and is not noise, has its passes counted on a small network.  `standard` gives the
    options for (eps, steps, queries); without it the options named "steps" and "queries" get these numbers.
    Whoever calls the function passes the door of all attacks first (`core.admitted`), which refuses what none of them
    could attack.  Refuses a name that another function has.
    """
    errors.one_of("norm", norm, NORMS)
    is_blind = noise and not queries  # it looks at neither network nor labels, which may be None

    def remember(attack: Callable) -> Callable:
        @wraps(attack)
        def function(network: Callable | None, images: Tensor, labels: Tensor | None, **options) -> Tensor:
            if "bounds" in options and not isinstance(network, Queried):  # whoever counts its passes has looked at it
                images, whole_numbers = admitted(network, images, None if is_blind else labels, options["bounds"])
                labels = labels if is_blind else whole_numbers
                if norm == "moves" and images.dim() < 3:
                    raise errors.Refused(f"images is {shown(images)}; events move in time, in frames (B, T, ...).")
            return attack(network, images, labels, **options)

        errors.registered_once("attack", name, getattr(ATTACKS.get(name), "function", None), function)
        ATTACKS[name] = Declared(name, function, title or name, norm, noise, gradients, queries, standard)
        words.learn({"attacks": {name: title or name}})
        return function

    return remember


@dataclass(frozen=True)
class Attack:
    """One attack with everything that determines its result: a registered name, radius, options and backward rule.

    `rule` holds the name and the widths of a rule of `rules.RULES`, {"name": "sigmoid", "slope": 4.0}, by which the
    attack differentiates spikes.  If it is empty, the network keeps its own rule.
    """

    name: str
    eps: float
    options: dict = field(default_factory=dict)
    rule: dict = field(default_factory=dict)

    def __post_init__(self):
        errors.one_of("attack", self.name, ATTACKS)
        errors.number("eps", self.eps, at_least=0)
        for option in self.options:
            errors.one_of(f"option of {self.name}", option, self.declared.takes)
        if self.norm in EVENTS:
            whole(self.eps)
        if self.rule:
            errors.takes("A backward rule", rules.build, self.rule)
            rules.build(**self.rule)

    @property
    def declared(self) -> Declared:
        return ATTACKS[self.name]

    @property
    def norm(self) -> str:
        """The norm of `eps`: "linf", "l2", "l0", which counts changed events, or "moves", events moved in time."""
        return self.options.get("norm", self.declared.norm)

    @property
    def labels(self) -> dict:
        """The labels of a record's row that name the attack (see `labels.ATTACK`); the radius is not among them."""
        titled = {name: self.options[name] for name in TITLED if name in self.options}
        unusual = {name: self.options[name] for name in UNUSUAL if self.options.get(name) not in (None, UNUSUAL[name])}
        rule = {"rule" if name == "name" else name: value for name, value in self.rule.items()}
        return {"attack": self.name} | titled | unusual | rule

    @property
    def title(self) -> str:
        """The name in tables and figures: "PGD-20", "APGD-DLR-20", "Square-200", "PGD-10 sigmoid 4"."""
        return words.attack(self.labels)

    @property
    def gradients(self) -> int:
        """The most gradients that a sample costs."""
        return self._cost[0]

    @property
    def queries(self) -> int:
        """The most forward passes without a gradient that a sample costs, except the last."""
        return self._cost[1]

    @cached_property
    def _cost(self) -> tuple[int, int]:
        """Gradients and queries of a sample, as declared or, where nothing is declared, as counted."""
        declared = self.declared
        if not (declared.gradients or declared.queries or declared.noise):
            return self._counted()
        options = declared.defaults | self.options
        gradients = declared.gradients(options) if declared.gradients else 0
        return gradients, declared.queries(options | {"eps": self.eps}) if declared.queries else 0

    def _counted(self) -> tuple[int, int]:
        """Gradients and queries of a sample of a small linear network, which classifies every image as class 0.

        The bias of class 0 exceeds whatever images in [0, 1] add to the other classes: no sample ends early.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            images, labels, linear = torch.rand(4, 1, 4, 4), torch.zeros(4, dtype=torch.long), nn.Linear(16, 3)
            with torch.no_grad():
                linear.bias[0] += 10
            network = Queried(nn.Sequential(nn.Flatten(), linear), images, labels, None)
            perturb = replace(self, rule={}).bind(seed=0, index=torch.arange(4), batch_size=None)
            try:
                perturb(network, images, labels, bounds=(0.0, 1.0))
            except Exception as problem:
                raise errors.Refused(
                    f"The passes of attack {self.name!r} cannot be counted on images of 4 × 4 pixels and 3 classes "
                    f"({type(problem).__name__}: {problem}). Register it with gradients= or queries=."
                ) from problem
        forward, backward = (round(passes.max().item()) for passes in (network.forward, network.backward))
        return backward, max(forward - backward, 0)

    def ruled(self, network: Callable) -> AbstractContextManager:
        """A context in which `network` differentiates spikes by the attack's rule; refuses a network without rules."""
        if not self.rule:
            return nullcontext()
        if not hasattr(network, "backward_rule"):
            raise errors.Refused(
                f"{self.title} brings a backward rule; a network of your own needs `backward_rule` to take it."
            )
        return network.backward_rule(**self.rule)

    def bind(self, **context) -> Callable:
        """The attack as a function (network, images, labels, *, bounds).

        `context` holds seed, index and batch_size; the attack receives those that it takes.
        """
        function = self.declared.function
        takes = inspect.signature(function).parameters
        kwargs = self.options | {name: value for name, value in context.items() if name in takes}

        def perturb(network: Callable, images: Tensor, labels: Tensor, *, bounds: tuple[float, float]) -> Tensor:
            with self.ruled(network):
                return function(network, images, labels, eps=self.eps, bounds=bounds, **kwargs)

        return perturb


def standard(name: str, eps: float, *, steps: int = 20, queries: int = 200, rule: dict | None = None) -> Attack:
    """The attack with the options of this companion's tables.

    PGD: α = 2.5·ε/steps, random start, a sample counts as broken at its first misclassified iterate.
    RFGSM: α = ε/2, one step.  MIM: α = ε/steps.  APGD and SA-PGD set their own steps.  Square and random search:
    `queries` forward passes.  `rule` is that of `Attack`.
    """
    errors.one_of("attack", name, ATTACKS)
    errors.number("eps", eps, at_least=0)
    errors.count("steps", steps)
    errors.count("queries", queries)
    declared = ATTACKS[name]
    if declared.standard:
        options = declared.standard(eps, steps, queries)
    else:
        numbers = {"steps": steps, "queries": queries}
        options = {option: number for option, number in numbers.items() if option in declared.takes}
    return Attack(name, eps, options, rule or {})
