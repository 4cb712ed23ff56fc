"""Attacks that go on where another one ended."""

from torch import Tensor

from paperlib.attacks.adaptive import apgd
from paperlib.attacks.blackbox import square
from paperlib.attacks.core import Bounds, asked
from paperlib.theory.gradients import Network


def apgd_square(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int,
    queries: int,
    bounds: Bounds,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """APGD on the cross-entropy, and where that fails Square from its best iterate, in l∞.

    A spiking network is piecewise constant: near where gradients lead there are steps down that no gradient shows.
    Arguments are those of `apgd` and `square`.
    """
    network = asked(network, images, labels, batch_size)
    how = {"eps": eps, "bounds": bounds, "seed": seed, "index": index}
    climbed = apgd(network, images, labels, steps=steps, **how)
    return square(network, images, labels, queries=queries, start=climbed, **how)
