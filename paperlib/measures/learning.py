"""Rows of learning curves: accuracy on validation images after each epoch of a training."""

from collections.abc import Iterable
from functools import partial

from paperlib.measures.rows import by_labels, certain, mean_over_seeds
from paperlib.store import checkpoints
from paperlib.store.experiment import AnyExperiment, Experiment


def rows(experiments: Iterable[AnyExperiment]) -> list[dict]:
    """One row for each training and epoch: the mean over its networks, with Student's t interval where it has several.

    The networks must be trained.  Imported ones, and one whose history is not kept, have no curve.
    """
    found = []
    for common, networks in by_labels(experiments, lambda e: e.labels):
        curves = [(e, checkpoints.history(e)) for e in networks if isinstance(e, Experiment)]
        curves = [(e, curve) for e, curve in curves if curve]
        for epoch in range(min((len(curve) for _, curve in curves), default=0)):
            values = [(e, curve[epoch]["validation_accuracy"]) for e, curve in curves]
            measured = [(e, value, partial(certain, value, 1)) for e, value in values]
            labels = {"quantity": "validation accuracy", "epoch": epoch + 1} | common
            found.append(mean_over_seeds(measured, within=(0, 1), **labels))
    return found
