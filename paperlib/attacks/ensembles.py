"""Attacks made of other attacks: a transfer from another network, the beginning of a run, and an ensemble."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from paperlib import errors, labels, words
from paperlib.attacks.attack import Attack


class Source(Protocol):
    """The network on which transferred examples are made; an experiment is one."""

    defense: str
    network: str
    key: str


@dataclass(frozen=True)
class Transfer:
    """A black-box transfer attack: `attack` is made on another network, that of the experiment `source`."""

    attack: Attack
    source: Source

    @property
    def eps(self) -> float:
        return self.attack.eps

    @property
    def norm(self) -> str:
        return self.attack.norm

    @property
    def labels(self) -> dict:
        """The labels of a record's row that name the attack (see `labels.ATTACK`)."""
        return self.attack.labels | {"made_on": self.source.defense, "made_on_network": self.source.network}

    @property
    def title(self) -> str:
        """The name in tables and figures: "PGD-20 made on at, conv-8-16"."""
        return words.attack(self.labels)

    @property
    def gradients(self) -> int:
        return self.attack.gradients

    @property
    def queries(self) -> int:
        return self.attack.queries


@dataclass(frozen=True)
class Beginning(Attack):
    """A gradient attack that is the beginning of a longer run, off which its result can be read.

    It is a `pgd` with a length of step of its own that stops `until_broken`; the run has `run_to` steps, two more at
    least.  An image that the beginning breaks is misclassified at its start or after one of its steps.
    """

    run_to: int = 0

    @property
    def whole(self) -> Attack:
        """The longer run."""
        return Attack(self.name, self.eps, self.options | {"steps": self.run_to}, self.rule)


@dataclass(frozen=True)
class Ensemble:
    """The worst case of several attacks of one radius and norm.

    They run one after another, each on the samples that survived those before it.
    """

    name: str  # the label `attack` of its rows
    members: Sequence[Attack | Transfer]
    more: dict = field(default_factory=dict)  # further labels, from `labels.ATTACK`

    def __post_init__(self):
        if len({member.eps for member in self.members}) != 1:
            radii = ", ".join(f"{member.eps:g}" for member in self.members) or "none"
            raise errors.Refused(f"The ensemble {self.title!r} has members of eps {radii}; they must share one.")
        if len({member.norm for member in self.members}) != 1:
            norms = ", ".join(member.norm for member in self.members)
            raise errors.Refused(f"The ensemble {self.title!r} has members in {norms}; they must share one norm.")

    @property
    def eps(self) -> float:
        return self.members[0].eps

    @property
    def norm(self) -> str:
        return self.members[0].norm

    @property
    def labels(self) -> dict:
        """The labels of a record's row that name the attack (see `labels.ATTACK`)."""
        return {"attack": self.name} | self.more

    @property
    def title(self) -> str:
        """The name in tables and figures: "worst of all", "PGD-20, four rules"."""
        return words.attack(self.labels)

    @property
    def gradients(self) -> int:
        return sum(member.gradients for member in self.members)

    @property
    def queries(self) -> int:
        return sum(member.queries for member in self.members)


AnyAttack = Attack | Transfer | Ensemble | None  # None: clean images


def members(attack: AnyAttack) -> Sequence[Attack | Transfer]:
    """The single attacks that an evaluation runs, in order; none for clean images."""
    if attack is None:
        return []
    return attack.members if isinstance(attack, Ensemble) else [attack]


def labels_of(attack: AnyAttack) -> dict:
    """The labels of an attack; {"attack": "clean"} for clean images."""
    return {"attack": labels.CLEAN} if attack is None else attack.labels
