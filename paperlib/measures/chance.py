"""Networks that draw their input at random: how much of a number is chance."""

from collections.abc import Iterable

import numpy as np

from paperlib import errors, evaluation, experiments, statistics
from paperlib.experiments import Experiment
from paperlib.measures.core import row


def redraw_rows(of: Iterable[Experiment], *, samples: int, draws: int, device: str = "auto") -> list[dict]:
    """How each network classifies the first `samples` clean test images when its spikes are drawn `draws` times anew.

    Three rows a network: the mean accuracy over draws, its standard deviation over draws, and the share of images that
    some draws classify correctly and others do not.  The first draw is that of `evaluations.evaluated`.  Refuses fewer
    than 2 draws.
    """
    errors.count("draws", draws, at_least=2)
    rows, device = [], experiments.resolve(device)
    for experiment in of:
        network, data = experiments.trained(experiment, device=device), experiment.load_data()
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
