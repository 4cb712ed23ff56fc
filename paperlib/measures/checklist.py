"""Flags → the rows of the gradient-masking checklist, and its control: one network whose logits are scaled."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from paperlib import errors
from paperlib.attacks import evaluation
from paperlib.attacks.attack import Attack, standard
from paperlib.attacks.ensembles import Transfer, labels_of
from paperlib.attacks.protocols import Checklist
from paperlib.data.sets import Split
from paperlib.measures import statistics
from paperlib.measures.rows import NOTHING, by_labels, row
from paperlib.store.evaluations import Evaluation
from paperlib.store.experiment import Experiment, Opened

# Attacks that must not beat the gradient's, as the artifact's module and `Checklist` name them.
WEAKER = {"one step": "one_step", "no gradient": "square", "transfer": "transfer", "random search": "random"}


class Scaled(nn.Module):
    """`network` with its logits multiplied by `c` > 0: the same decisions, other gradients of a loss that has a scale.

    Images (B, C, H, W) → logits (B, K).  It takes no backward rule: attacks differentiate by the network's own.
    """

    def __init__(self, network: nn.Module, c: float):
        super().__init__()
        errors.number("a scale of the logits", c, above=0)
        self.network, self.c = network, c
        self.coupled, self.stochastic = (getattr(network, name, False) for name in ("coupled", "stochastic"))

    def forward(self, images: Tensor) -> Tensor:
        return self.c * self.network(images)


def checklist_rows(evaluations: Iterable[Evaluation], lists: Mapping[str, Checklist]) -> list[dict]:
    """A row a check and training, for "radius" one a pair of neighbours; `lists` maps experiment keys to checklists.

    A difference is accuracy under one attack minus accuracy under another, on the same images, with Bonett and Price's
    interval; a share has Wilson's.  The images of several networks of one training are pooled, as if all were different
    ones.  "zero gradient" is of the gradients at the images themselves, which is where the one step takes its own.
    """
    rows = []
    for labels, group in by_labels(evaluations, lambda e: {"training": e.experiment.defense}):
        judged = {(e.experiment.key, repr(e.attack)): e for e in group}
        networks = {e.experiment.key: e.experiment for e in group}
        rows += _of_training(judged, {key: lists[key] for key in networks}, list(networks.values()), labels)
    return rows


def _of_training(judged: dict, lists: dict[str, Checklist], networks: list[Experiment], labels: dict) -> list[dict]:
    first = next(iter(lists.values()))

    def under(part: str, place: int | None = None) -> list[Evaluation]:
        """Each network under that part of its own list."""
        parts = ((key, getattr(own, part)) for key, own in lists.items())
        return [judged[key, repr(attack if place is None else attack[place])] for key, attack in parts]

    def check_row(interval: statistics.Interval, check: str, attack: Attack | Transfer, **more) -> dict:
        own = {"check": check} | attack.labels | {"eps_255": round(attack.eps * 255, 6)}
        return row(interval, networks, quantity="check", **labels, **own, **more)

    gradient = under("gradient")
    rows = [
        check_row(statistics.paired_difference(_pooled(under(part)), _pooled(gradient)), check, getattr(first, part))
        for check, part in WEAKER.items()
    ]
    rows.append(check_row(statistics.wilson(_pooled(under("unbounded"))), "unbounded", first.unbounded))
    for i, (smaller, larger) in enumerate(zip(first.radii, first.radii[1:], strict=False)):
        interval = statistics.paired_difference(_pooled(under("radii", i)), _pooled(under("radii", i + 1)))
        rows.append(check_row(interval, "radius", larger, from_255=round(smaller.eps * 255, 6)))
    longer = statistics.paired_difference(_pooled(gradient), _pooled(under("longer")))
    rows += [check_row(longer, check, first.longer) for check in ("more steps", "converged")]
    return [*rows, check_row(_vanished(under("one_step")), "zero gradient", first.one_step)]


def _pooled(judged: list[Evaluation]) -> np.ndarray:
    return np.concatenate([e.flags for e in judged])


def _vanished(judged: list[Evaluation]) -> statistics.Interval:
    """Share of the attacked images whose one gradient is exactly 0."""
    attacked = [int((e.passes > 0).sum()) for e in judged]
    zeros = sum(round(e.vanished * n) for e, n in zip(judged, attacked, strict=True))
    return statistics.wilson(np.arange(sum(attacked)) < zeros) if sum(attacked) else NOTHING


def scale_control_rows(
    opened: Opened, samples: Split, scales: Sequence[float], *, eps_255: float, steps: int
) -> list[dict]:
    """One network with its logits times 1 and each of `scales`: accuracy on `samples`.

    Clean, under PGD on the cross-entropy, whose gradient depends on the scale, and under APGD on the DLR loss, which
    has none.  Then a check a scale c and attack: accuracy at c = 1 minus accuracy at c, paired.  Refuses a scale that
    is not above 0.
    """
    experiment, network = opened
    attacks: dict[str, Attack | None] = {
        "clean": None,
        "scale, CE": standard("pgd", eps_255 / 255, steps=steps),
        "scale, DLR": Attack("apgd", eps_255 / 255, {"steps": steps, "loss": "dlr"}),
    }
    batch_size = evaluation.batch_size(len(samples))
    flags = {
        (check, c): evaluation.flags(Scaled(network, c), samples, attack, batch_size=batch_size).numpy()
        for check, attack in attacks.items()
        for c in sorted({1.0, *map(float, scales)})
    }
    rows = []
    for (check, c), right in flags.items():
        attack = attacks[check]
        labels = labels_of(attack) | {"eps_255": eps_255 if attack else 0.0, "scale": c}
        labels |= {"training": experiment.defense}
        rows.append(row(statistics.wilson(right), [experiment], quantity="scaled accuracy", **labels))
        if attack and c != 1:
            difference = statistics.paired_difference(flags[check, 1.0], right)
            rows.append(row(difference, [experiment], quantity="check", check=check, **labels))
    return rows
