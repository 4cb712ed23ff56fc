"""Attacks made of others: one transferred from another network, and several one after another."""

from collections.abc import Sequence
from dataclasses import dataclass

from paperlib import errors
from paperlib.attacks.attack import Attack
from paperlib.store.experiment import Experiment


@dataclass(frozen=True)
class Transfer:
    """`attack` made on another network, that of the experiment `source`: what who cannot look inside may do."""

    attack: Attack
    source: Experiment

    @property
    def eps(self) -> float:
        return self.attack.eps

    @property
    def title(self) -> str:
        """For tables and figures: "PGD-20 made on at, conv-8-16"."""
        return f"{self.attack.title} made on {self.source.defense}, {self.source.network}"

    @property
    def norm(self) -> str:
        return self.attack.norm

    @property
    def gradients(self) -> int:
        return self.attack.gradients

    @property
    def queries(self) -> int:
        return self.attack.queries


@dataclass(frozen=True)
class Ensemble:
    """Attacks of one radius, one after another, each on what those before it left: the worst case of them all."""

    title: str
    members: Sequence[Attack | Transfer]

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
    def gradients(self) -> int:
        return sum(member.gradients for member in self.members)

    @property
    def queries(self) -> int:
        return sum(member.queries for member in self.members)

AnyAttack = Attack | Transfer | Ensemble | None  # None: clean images


def members(attack: AnyAttack) -> Sequence[Attack | Transfer]:
    """What an evaluation runs, in order; nothing on clean images."""
    if attack is None:
        return []
    return attack.members if isinstance(attack, Ensemble) else [attack]
