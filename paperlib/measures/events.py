"""What only event frames can be asked."""

from collections.abc import Iterable
from dataclasses import replace

from paperlib import evaluation, experiments
from paperlib.experiments import Experiment
from paperlib.images import Split
from paperlib.measures.core import by_labels, over_seeds


def cut_rows(networks: Iterable[Experiment], samples: int, device: str) -> list[dict]:
    """One row a training: accuracy on test frames whose counts are cut to [0, 1], and no attack at all.

    So the released code cuts them before it attacks (section 5 of the paper notes, fault 5).
    """
    found = []
    for e in networks:
        data = e.load_data()
        test = data.test.take(samples)
        cut: Split = replace(test, images=test.images.clamp(max=1))
        network = experiments.trained(e, device=device, progress=False)
        how = {"bounds": data.bounds, "num_classes": data.num_classes, "device": experiments.resolve(device)}
        found.append((e, evaluation.flags(network, cut, **how).numpy()))
    groups = by_labels(found, lambda one: one[0].labels)
    return [over_seeds(group, quantity="mean accuracy, counts cut to [0, 1]", **labels) for labels, group in groups]
