"""Attacks that start from the result of another attack."""

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
    """APGD on the cross-entropy, then Square from its best iterate on the samples that APGD did not break, in l∞.

    A spiking network is piecewise constant: near APGD's best iterate the margin may fall where no gradient shows it.
    Arguments are those of `apgd` and `square`.
    """
    network = queried(network, images, labels, batch_size)
    kwargs = {"eps": eps, "bounds": bounds, "seed": seed, "index": index}
    start = apgd(network, images, labels, steps=steps, **kwargs)
    return square(network, images, labels, queries=queries, start=start, **kwargs)
