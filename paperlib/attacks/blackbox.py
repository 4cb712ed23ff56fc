"""Attacks that see logits alone: the Square attack, and a search among random perturbations as the floor below it.

`network` is any callable from images (B, C, H, W) in `bounds` to logits (B, K), and is only ever called forward;
`labels` is (B,); `eps` is in the images' units.  Both return images of the same shape within `eps` of the originals and
within `bounds`.  `batch_size` fixes how many images the network sees at once (see `core.in_batches`); `seed` and
`index` name each sample's randomness (see `core.uniform_noise`), so that a sample's result is its own in any company.
Arguments that cannot be used are refused (`errors.Refused`).
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from paperlib import errors
from paperlib.attacks.attack import register
from paperlib.attacks.core import Ball, Bounds, Queried, another, queried, sign_noise, uniform_noise
from paperlib.theory.gradients import Network, margin

LAWS = {"uniform": uniform_noise, "sign": sign_noise}
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 windows: the Square attack's schedule


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
    start: Tensor | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Random search among squares of the ball's corners, in l∞ (Andriushchenko et al., arXiv 1912.00049).

    A sample starts at vertical stripes, each ±ε per column and channel, or where `start` (B, C, H, W) has it.  Every
    further query sets a random window to ±ε per channel and keeps it where the margin falls; the window shrinks as
    `window_side` says, from a share `p_init` of the image.  A sample stops at its first misclassified query.  One that
    is misclassified from the start comes back unchanged; that look at the clean image is not among the `queries`.  Of
    event frames (B, T, C, H, W) each channel of each frame counts as one.
    """
    ball = Ball(images, eps, bounds)
    network = queried(network, images, labels, batch_size)
    errors.count("queries", queries)
    errors.number("p_init", p_init, above=0)
    errors.unit("p_init", p_init)
    *channels, height, width = images.shape[1:]
    streams = [np.random.default_rng((seed, i)) for i in _numbers(images, index).tolist()]

    def propose(query: int, x: Tensor, rows: Tensor) -> Tensor:
        chosen = [streams[row] for row in rows.tolist()]
        if query == 0 and start is not None:
            return start[rows]
        if query == 0:
            return images[rows] + eps * _signs(chosen, *channels, 1, width).to(images)
        side = window_side(query, queries, p_init, height, width)
        window = _windows(chosen, side, height, width).view(-1, *[1] * len(channels), height, width).to(x.device)
        return torch.where(window, images[rows] + eps * _signs(chosen, *channels, 1, 1).to(images), x)

    rows = network.correct(images).nonzero().squeeze(1)
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
    """Up to `draws` independent perturbations ε·U[-1, 1] ("uniform") or ±ε ("sign"): what chance alone finds.

    A sample stops at its first misclassified draw; one that survives all returns its draw of the lowest margin.  The
    first draw is that of `noise.uniform` or `noise.sign` of the same seed: whatever they break, this breaks too.
    """
    ball = Ball(images, eps, bounds)
    errors.count("draws", draws)
    errors.one_of("law", law, LAWS)
    numbers = _numbers(images, index)

    def propose(draw: int, x: Tensor, rows: Tensor) -> Tensor:
        return images[rows] + eps * LAWS[law](images[rows], another(seed, draw), numbers[rows])

    everyone = torch.arange(len(images), device=images.device)
    return _search(queried(network, images, labels, batch_size), ball, propose, draws, everyone)


def window_side(query: int, queries: int, p_init: float, height: int, width: int) -> int:
    """Side in pixels of the Square attack's window at `query`, from 1 (0 are the stripes) to `queries` - 1.

    The whole number nearest to √(p·H·W), at least 1 and at most the image's shorter side.  p is `p_init`, halved each
    time that another of `HALVINGS`, rescaled from 10,000 to `queries`, lies behind: so the first window always covers
    `p_init`, however few the queries, and the large ones are never skipped.
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
    """Improve the samples `rows` by up to `tries` proposals each; one that is misclassified leaves at once.

    `propose(k, x, rows)` maps the best images so far, those of `rows`, to new ones, before projection onto the ball.
    The first proposal is taken whatever its margin, a later one where the margin falls or the sample breaks.
    """
    x = ball.images.clone()
    lowest = x.new_full((len(x),), math.inf)
    for k in range(tries):
        if not len(rows):
            break
        proposal = ball.project(propose(k, x[rows], rows), rows)
        logits, labels = network.logits(proposal, rows), network.labels[rows]
        lead, broken = margin(logits, labels).to(x), logits.argmax(1) != labels
        better = (lead < lowest[rows]) | broken  # at a tie of two logits the argmax may move and the margin not
        x[rows[better]], lowest[rows[better]] = proposal[better], lead[better]
        rows = rows[~broken]
    return x


def _numbers(images: Tensor, index: Tensor | None) -> Tensor:
    """Each sample's number (B,), beside the images: `index`, by default the place in the batch."""
    return torch.arange(len(images), device=images.device) if index is None else index.to(images.device)


def _uniform(streams: list[np.random.Generator], *shape: int) -> np.ndarray:
    """The next U[0, 1) of every stream, (n, *shape)."""
    return np.stack([stream.random(shape) for stream in streams])


def _signs(streams: list[np.random.Generator], *shape: int) -> Tensor:
    """-1 or 1 with equal chance, the next of every stream, (n, *shape)."""
    return torch.from_numpy(np.where(_uniform(streams, *shape) < 0.5, -1.0, 1.0))


def _windows(streams: list[np.random.Generator], side: int, height: int, width: int) -> Tensor:
    """A square at random, anywhere within the image: (n, H, W) bool, True inside."""
    top, left = np.split(_uniform(streams, 2), 2, axis=1)
    rows, columns = (_spans(start, side, length) for start, length in ((top, height), (left, width)))
    return torch.from_numpy(rows[:, :, None] & columns[:, None, :])


def _spans(start: np.ndarray, side: int, length: int) -> np.ndarray:
    """`side` neighbours among `length`, (n, length) bool; `start` (n, 1) in [0, 1) spreads evenly over all places."""
    offset = np.arange(length) - np.floor(start * (length - side + 1))
    return (offset >= 0) & (offset < side)
