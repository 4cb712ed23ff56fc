"""Rows of two clean accuracies: on event frames whose counts are cut, and of networks that draw at random."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from paperlib import errors
from paperlib.attacks import evaluation
from paperlib.data.sets import Split
from paperlib.measures import statistics
from paperlib.measures.rows import by_labels, certain, over_seeds, row
from paperlib.store.experiment import Opened


def cut_rows(networks: Iterable[Opened], samples: Split) -> list[dict]:
    """One row for each training: clean accuracy on frames cut to [0, 1], as the released code cuts them (fault 5)."""
    cut = replace(samples, images=samples.images.clamp(max=1))
    flags = [(experiment, evaluation.flags(network, cut).numpy()) for experiment, network in networks]
    groups = by_labels(flags, lambda item: item[0].labels)
    return [over_seeds(group, quantity="mean accuracy, counts cut to [0, 1]", **labels) for labels, group in groups]


def redraw_rows(networks: Iterable[Opened], samples: Split, *, draws: int) -> list[dict]:
    """How each network classifies clean `samples` when its input spikes are drawn `draws` times anew, 2 at least.

    Mean and standard deviation of the accuracy over draws, and the share of images that only some draws get right.
    """
    errors.count("draws", draws, at_least=2)
    rows = []
    for experiment, network in networks:
        flags = np.stack([evaluation.flags(network, samples, seed=draw).numpy() for draw in range(draws)])  # (draws, N)
        shares = flags.mean(1)
        mean = statistics.t_interval(shares)._replace(method="Student t 95 % over draws", over="draws")
        spread = certain(shares.std(ddof=1), draws, "standard deviation over draws")
        undecided = statistics.wilson(flags.any(0) & ~flags.all(0))
        intervals = {"mean over draws": mean, "spread over draws": spread, "undecided": undecided}
        rows += [row(i, [experiment], quantity=name, **experiment.labels) for name, i in intervals.items()]
    return rows
