"""Attacks and random perturbations: a call each, and the same by name from parameters.

attacks.pgd(network, images, labels, eps=8 / 255, alpha=2.55 / 255, steps=10, bounds=(0, 1))
"""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from torch import Tensor

from paperlib import errors
from paperlib.attacks.adaptive import apgd, sa_pgd
from paperlib.attacks.blackbox import random_search, square
from paperlib.attacks.combined import apgd_square
from paperlib.attacks.flips import random_flips, sparse_flips, whole
from paperlib.attacks.gradient import fgsm, mim, overwritten_eot, pgd, rfgsm
from paperlib.attacks.noise import sign, uniform
from paperlib.networks import rules

RANDOM = {"uniform": uniform, "sign": sign}
GRADIENT = {
    "fgsm": fgsm,
    "rfgsm": rfgsm,
    "pgd": pgd,
    "mim": mim,
    "apgd": apgd,
    "sa_pgd": sa_pgd,
    "apgd_square": apgd_square,
    "overwritten_eot": overwritten_eot,
}
BLACK_BOX = {"square": square, "random_search": random_search}
FLIPS = {"random_flips": random_flips, "sparse_flips": sparse_flips}  # of whole events, in l0
ATTACKS = RANDOM | GRADIENT | BLACK_BOX | FLIPS
TITLES = {  # where not the name itself
    "overwritten_eot": "PGD",
    "random_search": "Random search",
    "square": "Square",
    "sparse_flips": "sparse flips",
    "random_flips": "random flips",
}
GIVEN = ("network", "images", "labels", "eps", "bounds", "seed", "index", "batch_size")  # by whoever calls
GIVEN += ("ascend", "start")  # and what no parameter file can say


@dataclass(frozen=True)
class Attack:
    """One attack with all that decides its result: a name out of `ATTACKS`, the radius, its options, its backward rule.

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
        if self.name in FLIPS:
            whole(self.eps)
        takes = [name for name in inspect.signature(ATTACKS[self.name]).parameters if name not in GIVEN]
        for option in self.options:
            errors.one_of(f"option of {self.name}", option, takes)
        if self.rule:
            errors.takes("A backward rule", rules.build, self.rule)
            rules.build(**self.rule)

    @property
    def norm(self) -> str:
        """In which `eps` is a radius: "linf", "l2", or "l0", where it counts changed events."""
        return "l0" if self.name in FLIPS else self.options.get("norm", "linf")

    @property
    def title(self) -> str:
        """For tables and figures: "PGD-20", "APGD-DLR-20", "Square-200", "PGD-10 sigmoid 4", "uniform noise"."""
        if self.name in RANDOM:
            return f"{self.name} noise"
        of = self.options
        loss = [of["loss"].upper()] if "loss" in of else []
        budget = [str(of[name]) for name in ("steps", "queries") if name in of]
        budget += [str(of["draws"])] if self.name == "random_search" else []
        words = ["-".join([TITLES.get(self.name, self.name.upper().replace("_", "-")), *loss, *budget])]
        words += [f"×{of['restarts']}"] if of.get("restarts", 1) > 1 else []
        words += [f"EOT {of['eot']}"] if of.get("eot", 1) > 1 else []
        words += [f"EOT {of['draws']} overwritten"] if self.name == "overwritten_eot" else []
        words += ["in l2"] if of.get("norm") == "l2" else []
        words += [f"{width:g}" if isinstance(width, float) else str(width) for width in self.rule.values()]
        return " ".join(words)

    @property
    def gradients(self) -> int:
        """How many gradients a sample costs at most."""
        if self.name not in (*GRADIENT, "sparse_flips"):
            return 0
        draws = self.options.get("draws", self.options.get("eot", 1))
        return self.options.get("steps", 1) * self.options.get("restarts", 1) * draws

    @property
    def queries(self) -> int:
        """How many forward passes without a gradient a sample costs at most, the last one apart."""
        if self.name == "sparse_flips":  # after the last step, and to take changes back
            return 1 + int(self.eps).bit_length()
        draws = self.options.get("draws", 0) if self.name == "random_search" else 0
        return self.options.get("queries", 0) + draws

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
        """The attack as a function of (network, images, labels, bounds), with whatever of `context` it has a use for.

        `context` is seed, index and batch_size; noise has no use for the last, FGSM none for the first two.
        """
        attack = ATTACKS[self.name]
        takes = inspect.signature(attack).parameters
        options = self.options | {name: value for name, value in context.items() if name in takes}

        def attacked(network: Callable, images: Tensor, labels: Tensor, *, bounds: tuple[float, float]) -> Tensor:
            with self.ruled(network):
                return attack(network, images, labels, eps=self.eps, bounds=bounds, **options)

        return attacked


def standard(name: str, eps: float, *, steps: int = 20, queries: int = 200, rule: dict | None = None) -> Attack:
    """The attack with the options of this companion's tables.

    PGD: α = 2.5·ε/steps, random start, a sample counts as broken at its first misclassified iterate.
    RFGSM: α = ε/2, one step.  MIM: α = ε/steps.  APGD and SA-PGD set their own.  Black box: `queries` forward passes.
    `rule` is that of `Attack`.
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
        "apgd_square": {"steps": steps, "queries": queries},
        "sparse_flips": {"steps": steps},
        "overwritten_eot": {"alpha": 2.5 * eps / steps, "steps": steps, "draws": 10},
    }
    return Attack(name, eps, options.get(name, {}), rule or {})


__all__ = [
    "ATTACKS",
    "BLACK_BOX",
    "FLIPS",
    "GRADIENT",
    "RANDOM",
    "Attack",
    "apgd",
    "apgd_square",
    "fgsm",
    "mim",
    "overwritten_eot",
    "pgd",
    "random_flips",
    "random_search",
    "rfgsm",
    "sa_pgd",
    "sign",
    "sparse_flips",
    "square",
    "standard",
    "uniform",
]
