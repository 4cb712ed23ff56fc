"""Attacks and random perturbations: a call each, and the same by name from parameters.

attacks.pgd(network, images, labels, eps=8 / 255, alpha=2.55 / 255, steps=10, bounds=(0, 1))
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from paperlib import errors
from paperlib.attacks.gradient import fgsm, pgd, rfgsm
from paperlib.attacks.noise import sign, uniform

RANDOM = {"uniform": uniform, "sign": sign}
GRADIENT = {"fgsm": fgsm, "rfgsm": rfgsm, "pgd": pgd}
ATTACKS = RANDOM | GRADIENT
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
        """For tables and figures: "PGD-20", "FGSM", "uniform noise"."""
        if self.name in RANDOM:
            return f"{self.name} noise"
        return self.name.upper() + (f"-{self.options['steps']}" if "steps" in self.options else "")

    @property
    def gradients(self) -> int:
        """How many gradients a sample costs at most."""
        return 0 if self.name in RANDOM else self.options.get("steps", 1)

    def bind(self, **context) -> Callable:
        """The attack as a function of (network, images, labels, bounds), with whatever of `context` it has a use for.

        `context` is seed, index and batch_size; noise has no use for the last, FGSM none for the first two.
        """
        attack = ATTACKS[self.name]
        takes = inspect.signature(attack).parameters
        return partial(attack, eps=self.eps, **self.options, **{k: v for k, v in context.items() if k in takes})


def standard(name: str, eps: float, *, steps: int = 20) -> Attack:
    """The attack with the options of this companion's tables.

    PGD: α = 2.5·ε/steps, random start, a sample counts as broken at its first misclassified iterate.
    RFGSM: α = ε/2, one step.
    """
    errors.number("eps", eps, at_least=0)
    errors.count("steps", steps)
    options = {
        "pgd": {"alpha": 2.5 * eps / steps, "steps": steps, "until_broken": True},
        "rfgsm": {"alpha": eps / 2},
    }
    return Attack(name, eps, options.get(name, {}))


__all__ = ["ATTACKS", "GRADIENT", "RANDOM", "Attack", "fgsm", "pgd", "rfgsm", "sign", "standard", "uniform"]
