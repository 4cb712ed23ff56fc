"""Attacks that use logits only: the Square attack and, as its lower bound, a search among random perturbations.

`network` is any callable from images (B, C, H, W) in `bounds` to logits (B, K), and only its forward pass is used;
`labels` is (B,); `eps` is in the images' units.  Both return images of the same shape within `eps` of the originals and
within `bounds`.  `batch_size` is the number of images in a call of the network (see `gradients.in_batches`).  `seed`
and `index` determine each sample's draws (see `core.uniform_noise`), so its result does not depend on the other
samples.  Arguments that cannot be used are refused (`errors.Refused`).
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from paperlib import errors
from paperlib.attacks.attack import register
from paperlib.attacks.core import Ball, Bounds, Queried, another, queried, shown, sign_noise, uniform_noise
from paperlib.theory.gradients import Network, margin

LAWS = {"uniform": uniform_noise, "sign": sign_noise}
REDRAWS = 10  # of a window that changes nothing: all idle once in 2,000 queries where each is with probability 1/2
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries: when Square halves its share p


@register("square", title="Square", queries=lambda options: options["queries"])
def square(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    bounds: Bounds,
    queries: int = 5000,
    p_init: float = 0.8,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Random search that sets square windows to corners of the l∞ ball (Andriushchenko et al., arXiv 1912.00049).

    The first query is vertical stripes: ±ε for each column and channel.  Every further query sets a random window of
    the best image so far to ±ε for each channel, and is kept if the margin falls.  The window covers a share `p_init`
    of the image at first and shrinks as `window_side` says.  A window that changes nothing is drawn again, at most
    `REDRAWS` times; after that the query is spent on it.

    A sample stops at its first misclassified query.  A sample whose image is misclassified is returned unchanged; the
    forward pass that finds this out is not among the `queries`.  In event frames (B, T, C, H, W) each channel of each
    frame is a channel.
    """
    ball = Ball(images, eps, bounds)
    network = queried(network, images, labels, batch_size)
    check_square(queries, p_init)
    rows = network.correct(images).nonzero().squeeze(1)
    return searched(network, ball, rows, queries=queries, p_init=p_init, seed=seed, index=index)


def check_square(queries: int, p_init: float) -> None:
    """Refuses options that Square cannot use."""
    errors.count("queries", queries)
    errors.number("p_init", p_init, above=0)
    errors.unit("p_init", p_init)


def searched(
    network: Queried,
    ball: Ball,
    rows: Tensor,
    *,
    queries: int,
    p_init: float,
    starts: Sequence[Tensor] = (),
    seed: int = 0,
    index: Tensor | None = None,
) -> Tensor:
    """The results of `square` on the samples `rows` (n,), (B, ...); other samples are unchanged.

    The first queries are `starts`, images (B, ...) within the ball, in place of the stripes; the search goes on from
    the one of the lowest margin.  Other arguments are those of `square`.
    """
    images, eps = ball.images, ball.eps
    if images.dim() < 3:
        raise errors.Refused(f"images is {shown(images)}; windows need images of a height and a width, (B, ..., H, W).")
    *channels, height, width = images.shape[1:]
    streams = [np.random.default_rng((seed, i)) for i in _numbers(images, index).tolist()]  # one a sample

    def windowed(x: Tensor, rows: Tensor, side: int) -> Tensor:
        """`x` (n, ...) with a random window at a corner of the ball."""
        drawn = _uniform([streams[row] for row in rows.tolist()], 2 + math.prod(channels))
        window = _windows(drawn[:, :2], side, height, width).view(-1, *[1] * len(channels), height, width).to(x.device)
        signs = _signs(drawn[:, 2:]).view(-1, *channels, 1, 1).to(images)
        return ball.project(torch.where(window, images[rows] + eps * signs, x), rows)

    def propose(query: int, x: Tensor, rows: Tensor) -> Tensor:
        if query < len(starts):
            return starts[query][rows]
        if query == 0:
            drawn = _uniform([streams[row] for row in rows.tolist()], *channels, 1, width)
            return ball.project(images[rows] + eps * _signs(drawn).to(images), rows)
        side = window_side(query, queries, p_init, height, width)
        proposal = windowed(x, rows, side)
        for _ in range(REDRAWS):
            idle = (proposal == x).flatten(1).all(1).nonzero().squeeze(1)
            if not len(idle):
                break
            proposal[idle] = windowed(x[idle], rows[idle], side)
        return proposal

    return _search(network, ball, propose, queries, rows)


@register(
    "random_search",
    title="Random search",
    noise=True,
    queries=lambda options: options["draws"],
    standard=lambda eps, steps, queries: {"draws": queries},
)
def random_search(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    bounds: Bounds,
    draws: int = 1000,
    law: str = "uniform",
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Up to `draws` independent perturbations ε·U[-1, 1] (`law` "uniform") or ±ε ("sign"): what chance alone finds.

    A sample stops at its first misclassified draw; the result of a sample that survives all is its draw of the lowest
    margin.  The first draw is that of `noise.uniform` or `noise.sign` with the same seed, so this attack breaks every
    sample that they break.
    """
    ball = Ball(images, eps, bounds)
    errors.count("draws", draws)
    errors.one_of("law", law, LAWS)
    numbers = _numbers(images, index)

    def propose(draw: int, x: Tensor, rows: Tensor) -> Tensor:
        return ball.project(images[rows] + eps * LAWS[law](images[rows], another(seed, draw), numbers[rows]), rows)

    everyone = torch.arange(len(images), device=images.device)
    return _search(queried(network, images, labels, batch_size), ball, propose, draws, everyone)


def window_side(query: int, queries: int, p_init: float, height: int, width: int) -> int:
    """The side, in pixels, of the Square attack's window at `query`, a number from 1 to `queries` - 1; 0 is the start.

    It is the whole number nearest to √(p·H·W), at least 1 and at most the shorter side of the image.  p starts at
    `p_init` and is halved after each of `HALVINGS`, rescaled from 10,000 to `queries`.  So the first window covers the
    share `p_init` however few the queries are.
    """
    halved = sum(10_000 * (query - 1) >= mark * queries for mark in HALVINGS)
    side = round(math.sqrt(p_init / 2**halved * height * width))
    return min(max(side, 1), height, width)


def _search(
    network: Queried,
    ball: Ball,
    propose: Callable[[int, Tensor, Tensor], Tensor],
    tries: int,
    rows: Tensor,
) -> Tensor:
    """The best of up to `tries` proposals for each of the samples `rows`; a sample stops once it is misclassified.

    `propose(k, x, rows)` maps `x`, the best images so far of `rows`, to new ones within the ball.  The first
    proposal is kept whatever its margin, a later one if the margin falls or the sample breaks.
    Returns all images, (B, ...); those of samples not in `rows` are unchanged.
    """
    x = ball.images.clone()
    lowest = x.new_full((len(x),), math.inf)
    for k in range(tries):
        if not len(rows):
            break
        proposal = propose(k, x[rows], rows)
        logits, labels = network.logits(proposal, rows), network.labels[rows]
        margins, broken = margin(logits, labels).to(x), logits.argmax(1) != labels
        better = (margins < lowest[rows]) | broken  # a tie of two logits may change the argmax but not the margin
        x[rows[better]], lowest[rows[better]] = proposal[better], margins[better]
        rows = rows[~broken]
    return x


def _numbers(images: Tensor, index: Tensor | None) -> Tensor:
    """Each sample's number, (B,), on the device of `images`: `index`, by default the place in the batch."""
    return torch.arange(len(images), device=images.device) if index is None else index.to(images.device)


def _uniform(streams: list[np.random.Generator], *shape: int) -> np.ndarray:
    """The next draws from U[0, 1) of every stream, (n, *shape)."""
    return np.stack([stream.random(shape) for stream in streams])


def _signs(drawn: np.ndarray) -> Tensor:
    """-1 or 1 for each of `drawn`, which are below 1/2 or not."""
    return torch.from_numpy(np.where(drawn < 0.5, -1.0, 1.0))


def _windows(drawn: np.ndarray, side: int, height: int, width: int) -> Tensor:
    """For each of `drawn` (n, 2), in [0, 1), the square within the image that it selects: (n, H, W) bool."""
    top, left = np.split(drawn, 2, axis=1)
    rows, columns = (_spans(start, side, length) for start, length in ((top, height), (left, width)))
    return torch.from_numpy(rows[:, :, None] & columns[:, None, :])


def _spans(start: np.ndarray, side: int, length: int) -> np.ndarray:
    """`side` neighbours among `length` places, (n, length) bool; `start` (n, 1) in [0, 1) selects the first."""
    offset = np.arange(length) - np.floor(start * (length - side + 1))
    return (offset >= 0) & (offset < side)
