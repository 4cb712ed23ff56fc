"""One attack: a function that declares itself by `register`, and `Attack`, which names it with all its options.

    @register("mine", title="My attack")
    def mine(network, images, labels, *, eps, bounds, steps=10): ...

A registered attack is planned, costed, checked and drawn like those of this library.
"""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from paperlib import errors, words
from paperlib.attacks.core import Queried, whole
from paperlib.networks import rules

CONTEXT = {"network", "images", "labels", "eps", "bounds", "seed", "index", "batch_size"}  # set by the caller
CONTEXT |= {"ascend", "start"}  # and what no parameter file can say
TITLED = ("loss", "steps", "queries", "draws")  # options that a title shows
UNUSUAL = {"restarts": 1, "eot": 1, "norm": "linf"}  # options that it shows where they differ from these
NORMS = ("linf", "l2", "l0")


@dataclass(frozen=True)
class Declared:
    """What is known of a registered attack, whatever its radius and options."""

    name: str
    function: Callable
    title: str
    norm: str  # in which `eps` is a radius, where the options do not say; "l0" counts changed events
    noise: bool  # whether it only draws at random
    gradients: Callable[[dict], int] | None  # of the options: gradients that a sample costs at most
    queries: Callable[[dict], int] | None  # of the options and eps: forward passes without a gradient, the last apart
    standard: Callable[[float, int, int], dict] | None  # of eps, steps and queries: the options of the tables

    @property
    def takes(self) -> dict[str, inspect.Parameter]:
        """The options that the function takes, by name."""
        parameters = inspect.signature(self.function).parameters
        return {name: parameter for name, parameter in parameters.items() if name not in CONTEXT}

    @property
    def defaults(self) -> dict:
        """The options that have a default value."""
        return {name: p.default for name, p in self.takes.items() if p.default is not inspect.Parameter.empty}

    @cached_property
    def counted(self) -> tuple[int, int]:
        """Gradients and queries of a sample on a small linear network, for an attack that does not declare them."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            images, labels = torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 2, 0])
            network = Queried(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), images, labels, None)
            try:
                self.function(network, images, labels, eps=0.1, bounds=(0.0, 1.0))
            except Exception as problem:
                raise errors.Refused(
                    f"The passes of attack {self.name!r} cannot be counted on images of 4 × 4 pixels and 3 classes "
                    f"({type(problem).__name__}: {problem}). Register it with gradients= or queries=."
                ) from problem
        gradients = round(network.backward.mean().item())
        return gradients, max(round(network.forward.mean().item()) - gradients, 0)


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
    """Decorator: make a function (network, images, labels, *, eps, bounds, ...) known as the attack `name`.

    It returns images of the same shape within `eps` and `bounds`.  If it takes `seed`, `index` or `batch_size`, it gets
    them (see `core`).  `title` is its name for readers, `norm` the norm of `eps`; `noise` says that it only draws at
    random.  `gradients` and `queries` give its cost from its options; where neither is given, its passes are counted on
    a small network.  `standard` gives the options for a number of steps and queries; without it an option of that name
    gets the number.  Refuses a name that another function has.
    """
    errors.one_of("norm", norm, NORMS)

    def remember(function: Callable) -> Callable:
        errors.registered_once("attack", name, getattr(ATTACKS.get(name), "function", None), function)
        ATTACKS[name] = Declared(name, function, title or name, norm, noise, gradients, queries, standard)
        words.learn({"attacks": {name: title or name}})
        return function

    return remember


@dataclass(frozen=True)
class Attack:
    """One attack with all that decides its result: a registered name, the radius, its options, its backward rule.

    `rule` names a rule of `rules.RULES` and its widths, {"name": "sigmoid", "slope": 4.0}, by which the attack
    differentiates spikes; empty for the rule that the network has.
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
        if self.norm == "l0":
            whole(self.eps)
        if self.rule:
            errors.takes("A backward rule", rules.build, self.rule)
            rules.build(**self.rule)

    @property
    def declared(self) -> Declared:
        return ATTACKS[self.name]

    @property
    def norm(self) -> str:
        """In which `eps` is a radius: "linf", "l2", or "l0", where it counts changed events."""
        return self.options.get("norm", self.declared.norm)

    @property
    def labels(self) -> dict:
        """What a record's row says of it (see `labels.ATTACK`), the radius left out."""
        shown = {name: self.options[name] for name in TITLED if name in self.options}
        shown |= {
            name: self.options[name] for name in UNUSUAL if self.options.get(name, UNUSUAL[name]) != UNUSUAL[name]
        }
        rule = {"rule" if name == "name" else name: value for name, value in self.rule.items()}
        return {"attack": self.name} | shown | rule

    @property
    def title(self) -> str:
        """For tables and figures: "PGD-20", "APGD-DLR-20", "Square-200", "PGD-10 sigmoid 4", "uniform noise"."""
        return words.attack(self.labels)

    @property
    def gradients(self) -> int:
        """How many gradients a sample costs at most."""
        declared = self.declared
        if declared.gradients or declared.queries or declared.noise:
            return declared.gradients(declared.defaults | self.options) if declared.gradients else 0
        return declared.counted[0]

    @property
    def queries(self) -> int:
        """How many forward passes without a gradient a sample costs at most, the last one apart."""
        declared = self.declared
        if declared.gradients or declared.queries or declared.noise:
            options = declared.defaults | self.options | {"eps": self.eps}
            return declared.queries(options) if declared.queries else 0
        return declared.counted[1]

    def ruled(self, network: Callable) -> AbstractContextManager:
        """Inside the block `network` differentiates its spikes by the attack's rule; refuses one that has none."""
        if not self.rule:
            return nullcontext()
        if not hasattr(network, "backward_rule"):
            raise errors.Refused(
                f"{self.title} brings a backward rule; a network of your own needs `backward_rule` to take it."
            )
        return network.backward_rule(**self.rule)

    def bind(self, **context) -> Callable:
        """The attack as a function of (network, images, labels, bounds); it gets the parts of `context` that it takes.

        `context` is seed, index and batch_size.
        """
        function = self.declared.function
        takes = inspect.signature(function).parameters
        options = self.options | {name: value for name, value in context.items() if name in takes}

        def attacked(network: Callable, images: Tensor, labels: Tensor, *, bounds: tuple[float, float]) -> Tensor:
            with self.ruled(network):
                return function(network, images, labels, eps=self.eps, bounds=bounds, **options)

        return attacked


def standard(name: str, eps: float, *, steps: int = 20, queries: int = 200, rule: dict | None = None) -> Attack:
    """The attack with the options of this companion's tables.

    PGD: α = 2.5·ε/steps, random start, a sample counts as broken at its first misclassified iterate.
    RFGSM: α = ε/2, one step.  MIM: α = ε/steps.  APGD and SA-PGD set their own.  Black box: `queries` forward passes.
    `rule` is that of `Attack`.
    """
    errors.one_of("attack", name, ATTACKS)
    errors.number("eps", eps, at_least=0)
    errors.count("steps", steps)
    errors.count("queries", queries)
    declared = ATTACKS[name]
    if declared.standard:
        options = declared.standard(eps, steps, queries)
    else:
        options = {n: value for n, value in (("steps", steps), ("queries", queries)) if n in declared.takes}
    return Attack(name, eps, options, rule or {})
