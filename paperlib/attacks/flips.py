"""Attacks on recordings of events: whole events are added or removed within a budget, by gradient or at random.

`network` is any callable from frames (B, T, C, H, W) of counts in `bounds` to logits (B, K); `labels` is (B,).  A cell
is one element of a sample's frames.  `eps` is the budget, a whole number k: at most k cells change, each by one event
more or one fewer.  So ‖δ‖₀ = ‖δ‖₁ ≤ k and ‖δ‖∞ ≤ 1, and whole counts stay whole.  `batch_size`, `seed` and `index` are
those of the other attacks (see `gradients.in_batches`, `core.uniform_noise`).  Arguments that cannot be used are
refused (`errors.Refused`).
"""

import numpy as np
import torch
from torch import Tensor

from paperlib import errors
from paperlib.attacks.attack import register
from paperlib.attacks.core import Bounds, Queried, per_sample, queried, shares, whole
from paperlib.theory.gradients import Network, margin


@register(
    "sparse_flips",
    title="sparse flips",
    norm="l0",
    gradients=lambda options: options["steps"],
    queries=lambda options: 1 + int(options["eps"]).bit_length(),  # after the last step, and for changes undone
)
def sparse_flips(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    bounds: Bounds,
    steps: int = 10,
    batch_size: int | None = None,
) -> Tensor:
    """Change the cells that raise the loss most, a part of the budget at each of `steps`; then undo needless changes.

    The idea of SDA (section 6 of the paper notes).  The gain of a cell is the growth of max_{k≠y} z_k - z_y, to first
    order, by the better feasible change of that cell.  A sample stops at its first misclassified iterate.  Then the
    changes of least gain are undone, half of the remaining ones at a time, as long as the sample stays misclassified.
    A sample costs at most `steps` gradients and about 1 + log₂ k forward passes.
    """
    network, budget = queried(network, images, labels, batch_size), whole(eps)
    errors.count("steps", steps)
    x, gains = images.clone(), torch.zeros_like(images)  # gains of the changed cells, 0 elsewhere
    rows, broken = torch.arange(len(x), device=x.device), []  # samples that are still correct, and the others
    for share in filter(None, shares(budget, steps)):
        logits, gradient = network.gradient(x[rows], rows, loss=lambda logits, y: -margin(logits, y))
        correct = logits.argmax(1) == labels[rows]
        broken.append(rows[~correct])
        rows, gradient = rows[correct], gradient[correct]
        if not len(rows):
            break
        _flip(x, gains, rows, gradient, share, bounds)
    if len(rows):
        broken.append(rows[~network.correct(x[rows], rows)])
    return _undo_needless(network, images, x, gains, torch.cat(broken))


@register("random_flips", title="random flips", norm="l0", noise=True)
def random_flips(
    network, images: Tensor, labels: Tensor, *, eps: float, bounds: Bounds, seed: int = 0, index: Tensor | None = None
) -> Tensor:
    """k random changes, each feasible change equally likely, at most one in a cell: a lower bound for `sparse_flips`.

    Most cells of a recording are empty; there an event can only be added.
    """
    budget, index = whole(eps), range(len(images)) if index is None else index.tolist()
    x = images.clone()
    for frames, number in zip(x, index, strict=True):
        more, fewer = (change.flatten() for change in _feasible(frames, bounds))
        rng = np.random.default_rng((seed, number))
        changes = torch.from_numpy(rng.permutation(2 * len(more))).to(x.device)  # i: cell i gains, n + i: it loses
        changes = changes[torch.cat([more, fewer])[changes]][: 2 * budget]  # each cell occurs at most twice
        cells, sign = changes % len(more), torch.where(changes < len(more), 1.0, -1.0).to(x)
        first = _first_of_each(cells)[:budget]
        frames.view(-1)[cells[first]] += sign[first]
    return x


def _feasible(x: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """The cells where one event more stays within `bounds`, and those where one fewer does; bool, shape of `x`."""
    return x + 1 <= bounds[1], x - 1 >= bounds[0]


def _flip(x: Tensor, gains: Tensor, rows: Tensor, gradient: Tensor, count: int, bounds: Bounds) -> None:
    """Change the `count` cells of largest gain in each of the samples `rows`, or as many as gain; record their gains.

    Changes `x` and `gains` in place.
    """
    more, fewer = _feasible(x[rows], bounds)
    feasible = torch.where(gradient > 0, more, fewer) & (gains[rows] == 0)  # no cell twice
    gain = torch.where(feasible, gradient.abs(), 0).flatten(1)
    best = gain.topk(min(count, gain.shape[1]))
    chosen = torch.zeros_like(gain).scatter(1, best.indices, best.values).view_as(gradient)
    x[rows] += torch.where(chosen > 0, gradient.sign(), 0)
    gains[rows] += chosen


def _undo_needless(network: Queried, images: Tensor, x: Tensor, gains: Tensor, rows: Tensor) -> Tensor:
    """`x` without the changes, least gains first, that the misclassified samples `rows` do not need to stay so."""
    portion = (gains[rows] > 0).flatten(1).sum(1) // 2  # changes of each sample to undo next, (n,)
    while len(rows) and portion.any():
        order = torch.where(gains[rows] > 0, gains[rows], torch.inf).flatten(1).argsort(1)
        rank = torch.empty_like(order).scatter(1, order, torch.arange(order.shape[1]).expand_as(order).to(order))
        undone = (rank < portion[:, None]).view_as(x[rows])
        trial = torch.where(undone, images[rows], x[rows])
        accepted = per_sample(~network.correct(trial, rows), trial)
        x[rows] = torch.where(accepted, trial, x[rows])
        gains[rows] = torch.where(accepted & undone, 0, gains[rows])
        portion = portion // 2
    return x


def _first_of_each(cells: Tensor) -> Tensor:
    """The places in `cells` (n,) at which a cell occurs for the first time, in ascending order."""
    _, first = np.unique(cells.cpu().numpy(), return_index=True)
    return torch.from_numpy(np.sort(first)).to(cells.device)
