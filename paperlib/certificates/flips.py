"""Bounds of the first layer's current where at most k cells of a recording change, each by one event more or one fewer.

These are the perturbations of `attacks.sparse_flips`: ‖δ‖₀ ≤ k, ‖δ‖∞ ≤ 1.  The first layer is linear in the frames.  So
a sum of one current over a stretch of steps is moved furthest by the k cells of largest effect: the weight between cell
and neuron, times the factor of the cell's step in the sum, where an event can be added or removed in that direction.
For each single sum this is exact.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from paperlib.certificates.intervals import Interval, Time, of_products
from paperlib.networks.network import Network


def widened(
    clean: Interval, network: Network, frames: Tensor, budget: int, bounds: tuple[float, float], time: Time
) -> Interval:
    """The sums of the first currents, (S, B, C₁, H, W), where `budget` cells of the frames (B, T, C, H, W) may change.

    `clean` are those of the frames as they are.
    """
    stem, device = network.stem, clean.low.device
    weight = (stem.weight / torch.tensor(network.std, device=device).view(-1, 1, 1)).double().flatten(1)  # (C₁, cells)
    moved = [_moved(weight, stem, one.to(device), budget, bounds, time) for one in frames]
    down, up = (torch.stack(ends, 1).view_as(clean.low) for ends in zip(*moved, strict=True))
    g = 2 * time.rounding(stem.weight[0].numel() + 2) + of_products(device)
    rounding = g * (up + down + budget * weight.abs().max())
    return Interval(clean.low - (down + rounding).float(), clean.high + (up + rounding).float())


def _moved(
    weight: Tensor, stem: torch.nn.Conv2d, frames: Tensor, budget: int, bounds: tuple[float, float], time: Time
) -> tuple[Tensor, Tensor]:
    """How far each sum of one recording, (T, C, H, W), may fall and rise, each (S, C₁, places)."""
    geometry = dict(kernel_size=stem.kernel_size, dilation=stem.dilation, padding=stem.padding, stride=stem.stride)
    more, fewer = (
        F.unfold(feasible.double(), **geometry)[:, None]  # (T, 1, cells, places), 0 in the padding
        for feasible in (frames + 1 <= bounds[1], frames - 1 >= bounds[0])
    )
    raising, lowering = weight.clamp_min(0)[..., None], (-weight).clamp_min(0)[..., None]  # (C₁, cells, 1)
    ends = []
    for with_more, with_fewer in ((lowering, raising), (raising, lowering)):
        effects = torch.maximum(with_more * more, with_fewer * fewer)  # (T, C₁, cells, places)
        sums = []
        for factors in time.weights.to(effects):
            steps = factors.nonzero()[:, 0]
            values = (effects[steps] * factors[steps].view(-1, 1, 1, 1)).transpose(0, 1).flatten(1, 2)
            sums.append(values.topk(min(budget, values.shape[1]), dim=1).values.sum(1))
        ends.append(torch.stack(sums))
    return ends[0], ends[1]
