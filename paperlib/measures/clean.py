"""Clean accuracies of two kinds: of event frames whose counts are cut, and of networks that draw at random."""

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
    """One row a training: accuracy on frames whose counts are cut to [0, 1], without any attack.

    So the released code cuts them before it attacks (section 5 of the paper notes, fault 5).
    """
    cut = replace(samples, images=samples.images.clamp(max=1))
    flags = [(experiment, evaluation.flags(network, cut).numpy()) for experiment, network in networks]
    groups = by_labels(flags, lambda one: one[0].labels)
    return [over_seeds(group, quantity="mean accuracy, counts cut to [0, 1]", **labels) for labels, group in groups]


def redraw_rows(networks: Iterable[Opened], samples: Split, *, draws: int) -> list[dict]:
    """How each network classifies clean `samples` when its spikes are drawn `draws` times anew.

    Three rows a network: the mean accuracy over draws, its standard deviation over draws, and the share of images that
    some draws classify correctly and others do not.  The first draw is that of `evaluations.evaluated`.  Refuses fewer
    than 2 draws.
    """
    errors.count("draws", draws, at_least=2)
    rows = []
    for experiment, network in networks:
        right = np.stack([evaluation.flags(network, samples, seed=draw).numpy() for draw in range(draws)])
        shares = right.mean(1)
        mean = statistics.t_interval(shares)._replace(method="Student t 95 % over draws", over="draws")
        spread = certain(shares.std(ddof=1), draws, "standard deviation over draws")
        for quantity, interval in (
            ("mean over draws", mean),
            ("spread over draws", spread),
            ("undecided", statistics.wilson(right.any(0) & ~right.all(0))),
        ):
            rows.append(row(interval, [experiment], quantity=quantity, **experiment.labels))
    return rows
