"""Attacks on recordings: whole events added or removed under a budget, chosen by gradient or at random.

`network` is any callable from frames (B, T, C, H, W) of counts in `bounds` to logits (B, K); `labels` is (B,).  `eps`
is the budget, a whole number k: at most k cells change, each by one event more or one fewer, so ‖δ‖₀ = ‖δ‖₁ ≤ k and
‖δ‖∞ ≤ 1, and counts that are whole stay whole.  `batch_size`, `seed` and `index` are those of the other attacks (see
`core.in_batches`, `core.uniform_noise`).  Arguments that cannot be used are refused (`errors.Refused`).
"""

import numpy as np
import torch
from torch import Tensor

from paperlib import errors
from paperlib.attacks.attack import register
from paperlib.attacks.core import Bounds, Queried, per_sample, queried, whole
from paperlib.theory.gradients import Network, margin


@register(
    "sparse_flips",
    title="sparse flips",
    norm="l0",
    gradients=lambda options: options["steps"],
    queries=lambda options: 1 + int(options["eps"]).bit_length(),  # after the last step, and to take changes back
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
    """Change the events that the gradient says gain most, `steps` times a part of the budget; take back what is idle.

    The idea of SDA (section 6 of the paper notes).  The gain of a cell is what the loss max_{k≠y} z_k - z_y grows, to
    first order, by the better of the changes that are feasible there.  A sample leaves at its first misclassified
    iterate; then the changes of least gain are taken back, half of what is left at a time, wherever it stays
    misclassified.  It costs a sample `steps` gradients at most, and 1 + log₂ k looks forward.
    """
    network, budget = queried(network, images, labels, batch_size), whole(eps)
    errors.count("steps", steps)
    x, gains = images.clone(), torch.zeros_like(images)  # of the cells that were changed, what each promised
    rows, broken = torch.arange(len(x), device=x.device), []  # samples still correct, and the others
    for more in filter(None, _shares(budget, steps)):
        logits, gradient = network.gradient(x[rows], rows, loss=lambda logits, y: -margin(logits, y))
        correct = logits.argmax(1) == labels[rows]
        broken.append(rows[~correct])
        rows, gradient = rows[correct], gradient[correct]
        if not len(rows):
            break
        _flip(x, gains, rows, gradient, more, bounds)
    if len(rows):
        broken.append(rows[~network.correct(x[rows], rows)])
    return _without_idle(network, images, x, gains, torch.cat(broken))


@register("random_flips", title="random flips", norm="l0", noise=True)
def random_flips(
    network, images: Tensor, labels: Tensor, *, eps: float, bounds: Bounds, seed: int = 0, index: Tensor | None = None
) -> Tensor:
    """k changes at random, each feasible one equally likely, none twice in a cell: the floor below `sparse_flips`.

    In a recording most cells are empty, and there an event can only be added.
    """
    budget, index = whole(eps), range(len(images)) if index is None else index.tolist()
    x = images.clone()
    for frames, number in zip(x, index, strict=True):
        more, fewer = (change.flatten() for change in _feasible(frames, bounds))
        rng = np.random.default_rng((seed, number))
        changes = torch.from_numpy(rng.permutation(2 * len(more))).to(x.device)  # of a cell first one more, then fewer
        changes = changes[torch.cat([more, fewer])[changes]][: 2 * budget]  # a cell is met twice at most
        cells, sign = changes % len(more), torch.where(changes < len(more), 1.0, -1.0).to(x)
        first = _first_of_each(cells)[:budget]
        frames.view(-1)[cells[first]] += sign[first]
    return x


def _shares(budget: int, steps: int) -> list[int]:
    """The budget in `steps` parts, as equal as whole numbers can be."""
    return [budget * step // steps - budget * (step - 1) // steps for step in range(1, steps + 1)]


def _feasible(x: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """Where one event more, and where one fewer, stays within `bounds`."""
    return x + 1 <= bounds[1], x - 1 >= bounds[0]


def _flip(x: Tensor, gains: Tensor, rows: Tensor, gradient: Tensor, many: int, bounds: Bounds) -> None:
    """Change in place the `many` best cells of each of `rows`, fewer where fewer gain; remember their gains."""
    more, fewer = _feasible(x[rows], bounds)
    feasible = torch.where(gradient > 0, more, fewer) & (gains[rows] == 0)  # no cell twice
    gain = torch.where(feasible, gradient.abs(), 0).flatten(1)
    best = gain.topk(min(many, gain.shape[1]))
    chosen = torch.zeros_like(gain).scatter(1, best.indices, best.values).view_as(gradient)
    x[rows] += torch.where(chosen > 0, gradient.sign(), 0)
    gains[rows] += chosen


def _without_idle(network: Queried, images: Tensor, x: Tensor, gains: Tensor, rows: Tensor) -> Tensor:
    """`x` with changes taken back, the least gains first, where the samples `rows` stay misclassified."""
    left = (gains[rows] > 0).flatten(1).sum(1)
    portion = left // 2
    while len(rows) and portion.any():
        order = torch.where(gains[rows] > 0, gains[rows], torch.inf).flatten(1).argsort(1)
        rank = torch.empty_like(order).scatter(1, order, torch.arange(order.shape[1]).expand_as(order).to(order))
        idle = (rank < portion[:, None]).view_as(x[rows])
        tried = torch.where(idle, images[rows], x[rows])
        kept = ~network.correct(tried, rows)
        keep = per_sample(kept, tried)
        x[rows] = torch.where(keep, tried, x[rows])
        gains[rows] = torch.where(keep & idle, 0, gains[rows])
        portion = portion // 2
    return x


def _first_of_each(cells: Tensor) -> Tensor:
    """Places at which a cell is met for the first time, in order."""
    _, first = np.unique(cells.cpu().numpy(), return_index=True)
    return torch.from_numpy(np.sort(first)).to(cells.device)
