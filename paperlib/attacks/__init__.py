"""Attacks and random perturbations: a call each, and the same by name from parameters.

attacks.pgd(network, images, labels, eps=8 / 255, alpha=2.55 / 255, steps=10, bounds=(0, 1))
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from paperlib import errors
from paperlib.attacks.adaptive import apgd, sa_pgd
from paperlib.attacks.blackbox import random_search, square
from paperlib.attacks.gradient import fgsm, mim, pgd, rfgsm
from paperlib.attacks.noise import sign, uniform

RANDOM = {"uniform": uniform, "sign": sign}
GRADIENT = {"fgsm": fgsm, "rfgsm": rfgsm, "pgd": pgd, "mim": mim, "apgd": apgd, "sa_pgd": sa_pgd}
BLACK_BOX = {"square": square, "random_search": random_search}
ATTACKS = RANDOM | GRADIENT | BLACK_BOX
BUDGETS = ("steps", "queries", "draws")  # how an attack's options name what it may spend
GIVEN = ("network", "images", "labels", "eps", "bounds", "seed", "index", "batch_size")  # by whoever calls


@dataclass(frozen=True)
class Attack:
    """One attack with all that decides its result: a name out of `ATTACKS`, the radius, its options."""

    name: str
    eps: float
    options: dict = field(default_factory=dict)

    def __post_init__(self):
        errors.one_of("attack", self.name, ATTACKS)
        errors.number("eps", self.eps, at_least=0)
        takes = [name for name in inspect.signature(ATTACKS[self.name]).parameters if name not in GIVEN]
        for option in self.options:
            errors.one_of(f"option of {self.name}", option, takes)

    @property
    def title(self) -> str:
        """For tables and figures: "PGD-20", "FGSM", "APGD-DLR-20", "Square-200", "uniform noise"."""
        if self.name in RANDOM:
            return f"{self.name} noise"
        gradient = self.name in GRADIENT
        name = self.name.upper().replace("_", "-") if gradient else self.name.replace("_", " ").capitalize()
        loss = [self.options["loss"].upper()] if "loss" in self.options else []
        return "-".join([name, *loss, *(str(self.options[budget]) for budget in BUDGETS if budget in self.options)])

    @property
    def gradients(self) -> int:
        """How many gradients a sample costs at most."""
        return self.options.get("steps", 1) * self.options.get("restarts", 1) if self.name in GRADIENT else 0

    @property
    def queries(self) -> int:
        """How many forward passes without a gradient a sample costs at most, the last one apart."""
        return sum(self.options.get(budget, 0) for budget in ("queries", "draws"))

    def bind(self, **context) -> Callable:
        """The attack as a function of (network, images, labels, bounds), with whatever of `context` it has a use for.

        `context` is seed, index and batch_size; noise has no use for the last, FGSM none for the first two.
        """
        attack = ATTACKS[self.name]
        takes = inspect.signature(attack).parameters
        return partial(attack, eps=self.eps, **self.options, **{k: v for k, v in context.items() if k in takes})


def standard(name: str, eps: float, *, steps: int = 20, queries: int = 200) -> Attack:
    """The attack with the options of this companion's tables.

    PGD: α = 2.5·ε/steps, random start, a sample counts as broken at its first misclassified iterate.
    RFGSM: α = ε/2, one step.  MIM: α = ε/steps.  APGD and SA-PGD set their own.  Black box: `queries` forward passes.
    """
    errors.number("eps", eps, at_least=0)
    errors.count("steps", steps)
    errors.count("queries", queries)
    options = {
        "square": {"queries": queries},
        "random_search": {"draws": queries},
        "pgd": {"alpha": 2.5 * eps / steps, "steps": steps, "until_broken": True},
        "rfgsm": {"alpha": eps / 2},
        "mim": {"alpha": eps / steps, "steps": steps},
        "apgd": {"steps": steps},
        "sa_pgd": {"steps": steps},
    }
    return Attack(name, eps, options.get(name, {}))


__all__ = [
    "ATTACKS",
    "BLACK_BOX",
    "GRADIENT",
    "RANDOM",
    "Attack",
    "apgd",
    "fgsm",
    "mim",
    "pgd",
    "random_search",
    "rfgsm",
    "sa_pgd",
    "sign",
    "square",
    "standard",
    "uniform",
]
