"""Attacks that go on where another one ended."""

from torch import Tensor

from paperlib.attacks.adaptive import apgd
from paperlib.attacks.attack import register
from paperlib.attacks.blackbox import square
from paperlib.attacks.core import Bounds, queried
from paperlib.theory.gradients import Network


@register(
    "apgd_square",
    title="APGD-Square",
    gradients=lambda options: options["steps"],
    queries=lambda options: options["queries"],
)
def apgd_square(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    bounds: Bounds,
    steps: int = 100,
    queries: int = 5000,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """APGD on the cross-entropy, and where that fails Square from its best iterate, in l∞.

    A spiking network is piecewise constant: near where gradients lead there are steps down that no gradient shows.
    Arguments are those of `apgd` and `square`.
    """
    network = queried(network, images, labels, batch_size)
    how = {"eps": eps, "bounds": bounds, "seed": seed, "index": index}
    climbed = apgd(network, images, labels, steps=steps, **how)
    return square(network, images, labels, queries=queries, start=climbed, **how)
