"""Rows of the gradient-masking checklist, and of its control: one network whose logits are scaled."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from paperlib import errors
from paperlib.attacks import evaluation
from paperlib.attacks.attack import Attack, standard
from paperlib.attacks.ensembles import Ensemble, Transfer, labels_of
from paperlib.attacks.protocols import Checklist
from paperlib.data.sets import Split
from paperlib.measures import statistics
from paperlib.measures.rows import NOTHING, by_labels, row
from paperlib.store.evaluations import Evaluation
from paperlib.store.experiment import Opened

# Attacks that must not break more than PGD does: names of the checks → fields of `Checklist`.
WEAKER = {"one step": "one_step", "no gradient": "square", "transfer": "transfer", "random search": "random"}
# Attacks of which none may break more than the strongest one does.
NOT_STRONGER = ("gradient", "longer", *WEAKER.values())


class Scaled(nn.Module):
    """`network` with its logits (B, K) times `c`, above 0: the same decisions, but other gradients of most losses."""

    def __init__(self, network: nn.Module, c: float):
        super().__init__()
        errors.number("a scale of the logits", c, above=0)
        self.network, self.c = network, c  # attacks differentiate by the network's own backward rule
        self.coupled, self.stochastic = (getattr(network, name, False) for name in ("coupled", "stochastic"))

    def forward(self, images: Tensor) -> Tensor:
        return self.c * self.network(images)


def checklist_rows(evaluations: Iterable[Evaluation], lists: Mapping[str, Checklist]) -> list[dict]:
    """One row for each training and check; for "radius" one for each two neighbouring radii, for "strongest" one for
    each attack that is compared with the strongest one.

    `lists` maps experiment keys to checklists.  A difference is accuracy under one attack minus accuracy under another.
    The images of all networks of a training are pooled.  "zero gradient" is of the gradients at the images themselves.
    """
    groups = by_labels(evaluations, lambda e: {"training": e.experiment.defense})
    return [entry for labels, group in groups for entry in _training_rows(group, lists, labels)]


def _training_rows(evaluations: list[Evaluation], lists: Mapping[str, Checklist], labels: dict) -> list[dict]:
    """The rows of one training, whose networks were each attacked by its own one of `lists`."""
    networks = {e.experiment.key: e.experiment for e in evaluations}
    by_attack = {(e.experiment.key, repr(e.attack)): e for e in evaluations}
    attacks = {key: _by_role(lists[key]) for key in networks}
    first, *_ = attacks.values()  # the others differ by the source of transferred examples alone
    by_role = {role: [by_attack[key, repr(roles[role])] for key, roles in attacks.items()] for role in first}
    flags = {role: np.concatenate([e.flags for e in group]) for role, group in by_role.items()}

    def check_row(check: str, role: str | float, interval: statistics.Interval, **more) -> dict:
        attack_labels = {"check": check} | first[role].labels | {"eps_255": round(first[role].eps * 255, 6)}
        return row(interval, networks.values(), quantity="check", **labels, **attack_labels, **more)

    def difference(role: str | float, reference: str | float) -> statistics.Interval:
        return statistics.paired_difference(flags[role], flags[reference])

    rows = [check_row(check, role, difference(role, "gradient")) for check, role in WEAKER.items()]
    rows += [check_row("strongest", role, difference(role, "strongest")) for role in NOT_STRONGER]
    rows.append(check_row("unbounded", "unbounded", statistics.wilson(flags["unbounded"])))
    for smaller, larger in itertools.pairwise(role for role in first if isinstance(role, float)):
        rows.append(check_row("radius", larger, difference(smaller, larger), from_255=smaller))
    rows += [check_row(check, "longer", difference("gradient", "longer")) for check in ("more steps", "converged")]
    attacked = [int((e.passes > 0).sum()) for e in by_role["one_step"]]  # each of these images has one gradient
    zeros = sum(round(e.vanished * n) for e, n in zip(by_role["one_step"], attacked, strict=True))
    vanished = statistics.wilson(np.arange(sum(attacked)) < zeros) if sum(attacked) else NOTHING
    return [*rows, check_row("zero gradient", "one_step", vanished)]


def _by_role(checklist: Checklist) -> dict[str | float, Attack | Transfer | Ensemble]:
    """The attacks of a checklist: by the name of their field, and PGD at several radii by the radius in 1/255."""
    roles = checklist._asdict()
    radii = roles.pop("radii")
    return roles | {round(attack.eps * 255, 6): attack for attack in radii}


def scale_control_rows(
    opened: Opened, samples: Split, scales: Sequence[float], *, eps_255: float, steps: int
) -> list[dict]:
    """The accuracy of one network on `samples` with its logits times 1 and times each of `scales`.

    A row "scaled accuracy" for each scale and attack: clean; PGD on the cross-entropy, whose gradient depends on the
    scale; and APGD on the DLR loss, whose gradient does not.  Beside it a row "check" for each attack and scale c other
    than 1: accuracy at c = 1 minus accuracy at c, paired.  Refuses a scale that is not above 0.
    """
    experiment, network = opened
    attacks: dict[str, Attack | None] = {  # by the name of their check
        "clean": None,
        "scale, CE": standard("pgd", eps_255 / 255, steps=steps),
        "scale, DLR": Attack("apgd", eps_255 / 255, {"steps": steps, "loss": "dlr"}),
    }
    scales, rows = sorted({1.0, *map(float, scales)}), []
    for check, attack in attacks.items():
        radius = eps_255 if attack else 0.0
        flags = {c: evaluation.flags(Scaled(network, c), samples, attack).numpy() for c in scales}
        for c, survived in flags.items():
            labels = labels_of(attack) | {"eps_255": radius, "scale": c, "training": experiment.defense}
            rows.append(row(statistics.wilson(survived), [experiment], quantity="scaled accuracy", **labels))
            if attack and c != 1:
                difference = statistics.paired_difference(flags[1.0], survived)
                rows.append(row(difference, [experiment], quantity="check", check=check, **labels))
    return rows
