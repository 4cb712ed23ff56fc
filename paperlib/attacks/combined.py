"""Attacks that start from the result of another attack."""

from torch import Tensor

from paperlib import errors
from paperlib.attacks.adaptive import LOSSES, ascended
from paperlib.attacks.attack import register
from paperlib.attacks.blackbox import check_square, searched
from paperlib.attacks.core import Ball, Bounds, queried
from paperlib.theory.gradients import Network


@register(
    "apgd_square",
    title="APGD-Square",
    gradients=lambda options: len(LOSSES) * options["steps"],
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
    p_init: float = 0.05,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """APGD on the cross-entropy, APGD on the DLR loss, then Square from the better of their best iterates, in l∞.

    Each part attacks the samples that survived those before it.  A run of APGD has `steps` steps.  The first two of
    Square's `queries` are the best iterates; it goes on from the one of the lower margin, with small windows, since a
    large one would undo what APGD reached.  A spiking network is piecewise constant: near these iterates the margin may
    fall where no gradient shows it.  With two classes there is no DLR loss, and that part is left out.  Arguments are
    those of `apgd` and `square`.
    """
    ball = Ball(images, eps, bounds)
    network = queried(network, images, labels, batch_size)
    errors.count("steps", steps)
    check_square(queries, p_init)
    logits = network.logits(images)
    rows = (logits.argmax(1) == labels).nonzero().squeeze(1)
    x, starts = images.clone(), []
    for loss in LOSSES if logits.shape[1] > 2 else ["ce"]:
        climbed, left = ascended(network, ball, rows, steps=steps, loss=loss, seed=seed, index=index)
        x[rows], rows = climbed[rows], left
        starts.append(climbed)
    found = searched(network, ball, rows, queries=queries, p_init=p_init, starts=starts, seed=seed, index=index)
    x[rows] = found[rows]
    return x
