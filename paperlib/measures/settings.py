"""What SR gains with other time steps, another leak or reset, or ReLUs: each setting at a λ of its own."""

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
    """What a row says of a network's neurons; a ReLU has neither steps nor leak nor reset."""
    if experiment.network.startswith(ANN):
        return {"neuron": "ReLU"}
    reset = "detached" if experiment.detach_reset else "attached"
    return {"neuron": "LIF", "T": experiment.T, "tau": experiment.tau, "reset": reset}


def setting_rows(validation: Sequence[Evaluation], test: Sequence[Evaluation], tolerance: float) -> list[dict]:
    """All accuracies; then of each setting its λ, the gain of SR at it, and that gain minus the first setting's.

    `validation` holds clean images and one attack of vanilla and SR networks, by which `chosen` takes each setting's λ;
    `test` judges them.  The rows' `lam` is that of the SR networks: the chosen one or, where validation data choose
    λ = 0, the smallest there is, so that SR's effect is shown all the same.
    """
    rows, first = apart(test, setting_labels, mean_rows), None
    for setting, judged in by_labels(test, lambda e: setting_labels(e.experiment)):
        here = [e for e in validation if setting_labels(e.experiment) == setting]
        choice, _ = choice_rows(here, tolerance, used=np.nan)
        lam = choice["value"] or min(e.labels["lam"] for e in judged if "lam" in e.labels)
        pair = [e for e in judged if e.labels.get("lam", lam) == lam]
        gains, changes = _gains(pair), _changes(pair)
        added = [choice, *gains]
        if first is None:
            first = gains, changes
        else:
            added += _against(gains, changes, *first)
        rows += [r | setting | {"lam": lam} for r in added]
    return rows


def _gains(pair: Sequence[Evaluation]) -> list[dict]:
    """SR minus vanilla, a row an attack: over seeds, or over the images of a single one."""
    quantity = "difference" if len({e.experiment.seed for e in pair}) > 1 else "paired difference"
    rows = difference_rows(pair, TRAINING, BASELINE)
    return [r | {"quantity": "gain"} for r in rows if r["quantity"] == quantity]


def _changes(pair: Sequence[Evaluation]) -> dict[str, np.ndarray]:
    """Title of an attack → each image's flag with SR minus that without, (seeds, N) of -1, 0 and 1."""
    flags: dict[str, dict[str, list]] = {}
    for e in sorted(pair, key=lambda e: e.experiment.seed):
        flags.setdefault(words.attack(e.labels), {}).setdefault(e.experiment.defense, []).append(e.flags)
    return {name: np.subtract(both[TRAINING], both[BASELINE], dtype=int) for name, both in flags.items()}


def _against(gains: list[dict], changes: dict, own_gains: list[dict], own_changes: dict) -> list[dict]:
    """Each gain minus the own setting's, a row an attack: paired by seed, or of a single seed image by image.

    There an image's difference of changes is a whole number from -2 to 2, and its mean has the bootstrap's interval.
    """
    rows = []
    for gain, own in zip(gains, own_gains, strict=True):
        there, here = changes[words.attack(gain)], own_changes[words.attack(gain)]
        if len(there) > 1:
            interval = statistics.paired_t(there.mean(1), here.mean(1))
        else:
            interval = statistics.bootstrap_mean(there[0] - here[0], seed=0)
            interval = interval._replace(method=f"{interval.method} of the images' differences of differences")
        names = ("training", "against", *labels.ATTACK, "eps_255")
        shared = {name: gain[name] for name in names if name in gain}
        both = {name: union([gain.get(name, []), own.get(name, [])]) for name in ("seeds", "experiments", "doubts")}
        rows.append(records.row(interval, quantity="gain minus the own", **both, **shared))
    return rows
