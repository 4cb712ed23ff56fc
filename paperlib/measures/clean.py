"""Networks that draw their input at random: how much of a number is chance."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from paperlib import errors
from paperlib.attacks import evaluation
from paperlib.data.sets import Split
from paperlib.measures import statistics
from paperlib.measures.rows import by_labels, over_seeds, row
from paperlib.store import checkpoints
from paperlib.store.experiment import Experiment


def redraw_rows(of: Iterable[Experiment], *, samples: int, draws: int, device: str = "auto") -> list[dict]:
    """How each network classifies the first `samples` clean test images when its spikes are drawn `draws` times anew.

    Three rows a network: the mean accuracy over draws, its standard deviation over draws, and the share of images that
    some draws classify correctly and others do not.  The first draw is that of `evaluations.evaluated`.  Refuses fewer
    than 2 draws.
    """
    errors.count("draws", draws, at_least=2)
    rows, device = [], checkpoints.resolve(device)
    for experiment in of:
        network, data = checkpoints.trained(experiment, device=device), experiment.load_data()
        how = {"bounds": data.bounds, "num_classes": data.num_classes, "device": device}
        images = data.test.take(samples)
        right = np.stack([evaluation.flags(network, images, seed=draw, **how).numpy() for draw in range(draws)])
        shares = right.mean(1)
        mean = statistics.t_interval(shares)
        spread = statistics.Interval(shares.std(ddof=1), np.nan, np.nan, draws, "standard deviation over draws")
        for quantity, interval in (
            ("mean over draws", mean._replace(method="Student t 95 % over draws")),
            ("spread over draws", spread),
            ("undecided", statistics.wilson(right.any(0) & ~right.all(0))),
        ):
            rows.append(row(interval, [experiment], quantity=quantity, **experiment.labels))
    return rows


def cut_rows(networks: Iterable[Experiment], samples: int, device: str) -> list[dict]:
    """One row a training: accuracy on test frames whose counts are cut to [0, 1], and no attack at all.

    So the released code cuts them before it attacks (section 5 of the paper notes, fault 5).
    """
    found = []
    for e in networks:
        data = e.load_data()
        test = data.test.take(samples)
        cut: Split = replace(test, images=test.images.clamp(max=1))
        network = checkpoints.trained(e, device=device, progress=False)
        how = {"bounds": data.bounds, "num_classes": data.num_classes, "device": checkpoints.resolve(device)}
        found.append((e, evaluation.flags(network, cut, **how).numpy()))
    groups = by_labels(found, lambda one: one[0].labels)
    return [over_seeds(group, quantity="mean accuracy, counts cut to [0, 1]", **labels) for labels, group in groups]
