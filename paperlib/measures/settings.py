"""Rows of what SR gains with other time steps, another leak or reset, or ReLUs, each setting at its own λ."""

from collections.abc import Sequence

import numpy as np

from paperlib import labels, records, words
from paperlib.measures import statistics
from paperlib.measures.accuracy import apart, choice_rows, difference_rows, mean_rows
from paperlib.measures.doubts import union
from paperlib.measures.rows import by_labels
from paperlib.networks.architectures import ANN
from paperlib.store.evaluations import Evaluation
from paperlib.store.experiment import Experiment

BASELINE, TRAINING = "vanilla", "sr"


def setting_labels(experiment: Experiment) -> dict:
    """A network's setting: the labels of its neurons.  A ReLU has neither steps nor leak nor reset."""
    if experiment.network.startswith(ANN):
        return {"neuron": "ReLU"}
    reset = "detached" if experiment.detach_reset else "attached"
    return {"neuron": "LIF", "T": experiment.T, "tau": experiment.tau, "reset": reset}


def setting_rows(validation: Sequence[Evaluation], test: Sequence[Evaluation], tolerance: float) -> list[dict]:
    """All accuracies; then for each setting its λ, the gain of SR at it, and that gain minus the first setting's.

    Each λ, the label "lam", is chosen by `validation`, or the smallest where that is 0; gains are taken of `test`.
    """
    rows, first = apart(test, setting_labels, mean_rows), None
    for setting, evaluations in by_labels(test, lambda e: setting_labels(e.experiment)):
        candidates = [e for e in validation if setting_labels(e.experiment) == setting]
        choice, _ = choice_rows(candidates, tolerance, used=np.nan)
        lam = choice["value"] or min(e.labels["lam"] for e in evaluations if "lam" in e.labels)
        pair = [e for e in evaluations if e.labels.get("lam", lam) == lam]
        differences, changes = difference_rows(pair, TRAINING, BASELINE), _changes(pair)
        gains = [r | {"quantity": "gain"} for r in differences if r["quantity"] == "difference"]
        excess = _excess_rows(gains, changes, *first) if first else []
        first = first or (gains, changes)
        rows += [r | setting | {"lam": lam} for r in [choice, *gains, *excess]]
    return rows


def _changes(pair: Sequence[Evaluation]) -> dict[str, np.ndarray]:
    """For each attack, by its title, the flags with SR minus those without: (seeds, N) of -1, 0 and 1."""
    flags: dict[str, dict[str, list]] = {}  # by attack and training
    for e in sorted(pair, key=lambda e: e.experiment.seed):
        flags.setdefault(words.attack(e.labels), {}).setdefault(e.experiment.defense, []).append(e.flags)
    return {name: np.subtract(both[TRAINING], both[BASELINE], dtype=int) for name, both in flags.items()}


def _excess_rows(
    gains: list[dict], changes: dict[str, np.ndarray], first_gains: list[dict], first_changes: dict[str, np.ndarray]
) -> list[dict]:
    """Each gain minus that of the first setting, one row for each attack, paired by seed and sample."""
    rows = []
    for gain, first in zip(gains, first_gains, strict=True):
        change = changes[words.attack(gain)] - first_changes[words.attack(gain)]  # whole numbers from -2 to 2
        interval = statistics.crossed(change, within=(-2, 2))
        shared = {name: gain[name] for name in ("training", "against", *labels.ATTACK, "eps_255") if name in gain}
        both = {name: union([gain.get(name, []), first.get(name, [])]) for name in ("seeds", "experiments", "doubts")}
        rows.append(records.row(interval, quantity="gain minus the own", **both, **shared))
    return rows
