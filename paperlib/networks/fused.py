"""The neuron over the whole time axis as one autograd function, with the BatchNorm before it and the pool behind it.

The function saves only the output of the convolution; backward computes currents and membranes again.  There are three
implementations: C on a CPU (`kernel`), Triton on a GPU (`neuron_triton`), whose backward passes know only triangle
rules, and torch for everything else.  Those on a CPU give the same bits.
"""

import math
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from paperlib.networks import kernel
from paperlib.networks.rules import Rate, Rule, Whole


class Cell(NamedTuple):
    """The constants of one call.  `fires` is the smallest membrane that spikes, in the precision of the call."""

    steps: int
    tau: float
    threshold: float
    fires: float
    rule: Rule | Rate | Whole
    detach_reset: bool

    @property
    def half_width(self) -> float | None:
        """γ of a triangle rule, the only rule that is written in C and Triton; None for any other rule."""
        return self.rule.half_width if isinstance(self.rule, Rule) else None


class Norm(NamedTuple):
    """BatchNorm as x·scale + shift; each (C,), in the precision of membranes.  `inverse` is 1/√(variance + ε).

    With `batch` mean and variance are those of x itself, and the gradient of x goes through them as well.
    """

    scale: Tensor
    shift: Tensor
    mean: Tensor
    inverse: Tensor
    batch: bool


class Spikes(torch.autograd.Function):
    """The neuron alone, on currents (T, B, ...)."""

    @staticmethod
    def forward(ctx, current: Tensor, cell: Cell) -> Tensor:
        ctx.save_for_backward(current)
        ctx.cell = cell
        flat = _flat(current)
        return _spikes(flat, _identity(flat), cell, pool=False).view(current.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        (current,) = ctx.saved_tensors
        flat = _flat(current)
        return _gradients(flat, _identity(flat), _flat(grad), ctx.cell, False, False)[0].view(current.shape), None


class NormedSpikes(torch.autograd.Function):
    """BatchNorm, neuron and pool on (T or 1, B, C, H, W); in memory channels are last, as in the convolutions."""

    @staticmethod
    def forward(ctx, x, weight, bias, mean, var, eps: float, batch_statistics: bool, cell: Cell, pool: bool) -> Tensor:
        inverse = (var + eps).rsqrt()
        scale, shift = affine(weight, bias, mean, inverse, real(x))
        norm = Norm(scale, shift, mean.to(scale.dtype), inverse.to(scale.dtype), batch_statistics)
        ctx.save_for_backward(x, *norm[:-1])
        ctx.constants = weight.dtype, batch_statistics, cell, pool
        return _channels_first(_spikes(_channels_last(x), norm, cell, pool))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, *norm = ctx.saved_tensors
        dtype, batch_statistics, cell, pool = ctx.constants
        affine_wanted = any(ctx.needs_input_grad[1:3])
        if x.numel():
            norm = Norm(*norm, batch_statistics)
            if grad.stride(0) == 0:
                grad = grad[:1]  # as behind a sum over time
            grads = _gradients(_channels_last(x), norm, _channels_last(grad), cell, pool, affine_wanted)
        else:  # no mean of no values
            grads = _channels_last(torch.zeros_like(x)), *(torch.zeros_like(values) for values in norm[:2])
        grad_x, grad_weight, grad_bias = grads
        if affine_wanted:
            grad_weight, grad_bias = grad_weight.to(dtype), grad_bias.to(dtype)
        return _channels_first(grad_x), grad_weight, grad_bias, *[None] * 6


def _flat(x: Tensor) -> Tensor:
    """(T, B, ...) as a map of one cell with N channels, (T, B, 1, 1, N)."""
    return x.reshape(*x.shape[:2], 1, 1, math.prod(x.shape[2:])).contiguous()


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 1, 3, 4, 2).contiguous()


def _channels_first(x: Tensor) -> Tensor:
    return x.permute(0, 1, 4, 2, 3)


def real(x: Tensor) -> torch.dtype:
    """The precision of membranes: at least 32 bits."""
    return torch.promote_types(x.dtype, torch.float32)


def _identity(x: Tensor) -> Norm:
    ones = torch.ones(x.shape[-1], dtype=real(x), device=x.device)
    zeros = torch.zeros_like(ones)
    return Norm(ones, zeros, zeros, ones, batch=False)


def affine(weight, bias, mean, inverse, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """BatchNorm as x·scale + shift: scale and shift, both (C,) of type `dtype`."""
    scale = weight * inverse
    return scale.to(dtype), (bias - mean * scale).to(dtype)


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel of (T, B, C, H, W), in the precision of membranes."""
    dtype, count = real(x), x[:, :, 0].numel()
    if gpu := _on_gpu(x):
        return gpu.statistics(_channels_last(x))
    if x.device.type != "cpu":
        return torch.var_mean(x.to(dtype), (0, 1, 3, 4), correction=0)[::-1]
    first = x[0, 0, :, 0, 0].to(dtype).contiguous()  # subtracted, so that no digits are lost where the mean is large
    if _compiled(x):
        x, mean, var = _channels_last(x), torch.empty_like(first), torch.empty_like(first)
        steps, samples, height, width, channels = x.shape
        layer = kernel.Layer(steps, samples, height, width, channels, pool=1)
        kernel.run("statistics", layer, _pointers(Norm(first, first, first, first, False)), x, mean, var)
        return mean, var
    centred = (x.to(dtype) - first[:, None, None]).flatten(0, 1)
    sums = (sum(part.unbind(2)).double().cumsum(2)[..., -1].cumsum(0)[-1] for part in (centred, centred * centred))
    off, square = (part / count for part in sums)
    return (first + off).to(dtype), (square - off * off).clamp_min(0).to(dtype)


# The implementations.  x is (T or 1, B, H, W, C) and contiguous. --------------------------------------------------


def _spikes(x: Tensor, norm: Norm, cell: Cell, pool: bool) -> Tensor:
    """Spikes (T, B, H, W, C), or with `pool` their means over 2×2 cells, (T, B, H//2, W//2, C)."""
    if gpu := _on_gpu(x, cell):
        return gpu.spikes(x, norm, cell, pool)
    if _compiled(x):
        _, samples, height, width, channels = x.shape
        size = (height // 2, width // 2) if pool else (height, width)
        spikes = x.new_empty(cell.steps, samples, *size, channels)
        kernel.run("forward", _layer(x, cell, pool), _pointers(norm), x, spikes)
        return spikes
    spikes = (_membranes(x, norm, cell) >= cell.fires).to(x.dtype)
    if not pool:
        return spikes
    pooled = F.avg_pool2d(_channels_first(spikes).flatten(0, 1), 2)
    return _channels_last(pooled.unflatten(0, spikes.shape[:2]))


def _gradients(
    x: Tensor, norm: Norm, grad: Tensor, cell: Cell, pool: bool, affine_wanted: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The gradients of x and of BatchNorm's weight and bias from `grad`, the gradient of the (pooled) spikes.

    `grad` has one step where it is the same at all steps.  The gradients of weight and bias, (C,), are None where they
    are neither wanted nor needed for that of x.
    """
    summed = affine_wanted or norm.batch
    if cell.half_width and (gpu := _on_gpu(x, cell)):
        return gpu.gradients(x, norm, grad, cell, pool, summed)
    if _compiled(x) and cell.half_width:
        row_is_dropped = pool and x.shape[2] % 2  # by the pool; its neurons have no gradient, and C skips them
        grad_x = torch.zeros_like(x) if row_is_dropped else torch.empty_like(x)
        grads = (torch.empty_like(norm.scale), torch.empty_like(norm.scale)) if summed else (None, None)
        layer = _layer(x, cell, pool, even=len(grad) != cell.steps)
        kernel.run("backward", layer, _pointers(norm), x, grad, grad_x, *grads)
        return grad_x, *grads
    through_steps = _grad_current(x, norm, grad, cell, pool)
    centred = x - norm.mean
    total = sum(reversed(through_steps.unbind(0)))  # over time, backwards as in C
    if len(x) != cell.steps:  # one current was used at all steps
        through_steps = total[None]
    grad_x = (through_steps * norm.scale).to(x.dtype)
    if not summed:
        return grad_x, None, None
    level, tilt = _sum(total, pool), _sum(sum(reversed((through_steps * centred).unbind(0))), pool)
    inverse, count = norm.inverse.to(tilt.dtype), x[..., 0].numel()
    grads = [(tilt * inverse).to(norm.scale.dtype), level.to(norm.scale.dtype)]
    if norm.batch:  # mean and variance depend on every x
        level, tilt = level / count, tilt * inverse * inverse / count
        level, tilt = ((norm.scale.to(part.dtype) * part).to(norm.scale.dtype) for part in (level, tilt))
        grad_x = (grad_x - (level + tilt * centred)).to(x.dtype)
    return grad_x, *grads


def _sum(values: Tensor, pool: bool) -> Tensor:
    """The sum of (B, H, W, C) for each channel; on a CPU in the order of C: over each row of the output, then all."""
    if values.device.type != "cpu":
        return values.sum((0, 1, 2))
    pair = 2 if pool else 1
    rows = values.shape[1] // pair
    each = values[:, : rows * pair].double().reshape(len(values) * rows, -1, values.shape[-1])
    return each.cumsum(1)[:, -1].cumsum(0)[-1]  # torch's own sums have an order of their own


def _grad_current(x: Tensor, norm: Norm, grad: Tensor, cell: Cell, pool: bool) -> Tensor:
    """The gradient of the current of each step, (T, B, H, W, C), in the precision of membranes."""
    grad = grad.to(norm.scale.dtype).expand(cell.steps, *grad.shape[1:])
    if pool:
        spread = (grad / 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
        grad = F.pad(spread, (0, 0, 0, x.shape[3] % 2, 0, x.shape[2] % 2))
    if isinstance(cell.rule, Rate):
        current = x * norm.scale + norm.shift
        return grad * cell.rule.slope(current.mean(0), cell.tau)
    return _through_time(_membranes(x, norm, cell), grad, cell)


def _membranes(x: Tensor, norm: Norm, cell: Cell) -> Tensor:
    """m[t] for all t, (T, B, H, W, C)."""
    current = (x * norm.scale + norm.shift).expand(cell.steps, *x.shape[1:])
    membranes = torch.empty_like(current, memory_format=torch.contiguous_format)
    v = None  # the membrane after the reset
    for i, m in zip(current.unbind(0), membranes.unbind(0), strict=True):
        if v is None:
            m.copy_(i)
        else:
            torch.add(v.mul_(cell.tau), i, out=m)
        v = m * (m < cell.fires)
    return membranes


def _through_time(membranes: Tensor, grad: Tensor, cell: Cell) -> Tensor:
    """Back-propagation through time: the gradient of each step's current, (T, B, H, W, C)."""
    result, grad_v = torch.empty_like(membranes), None
    slopes = cell.rule.slopes(membranes - cell.threshold) if isinstance(cell.rule, Whole) else None
    for t in reversed(range(cell.steps)):
        m, g, out = membranes[t], grad[t], result[t]
        slope = cell.rule.derivative(m - cell.threshold) if slopes is None else slopes[t]  # ∂s/∂m
        if grad_v is None:  # nothing depends on v of the last step
            torch.mul(slope, g, out=out)
        else:  # ∂v/∂m = (1 - s) - m·∂s/∂m; a detached reset has no second term
            if not cell.detach_reset:
                g = g - grad_v * m  # not addcmul: it may round once where C rounds twice
            torch.add(grad_v.mul_(m < cell.fires), slope * g, out=out)
        grad_v = out * cell.tau  # of the step before
    return result


def _compiled(x: Tensor) -> bool:
    """Whether the C implementation takes x."""
    return x.device.type == "cpu" and x.dtype in kernel.NUMBERS and kernel.library(x.dtype) is not None


def _on_gpu(x: Tensor, cell: Cell | None = None) -> ModuleType | None:
    """The Triton implementation where it takes x, else None."""
    gpu = _triton() if x.device.type == "cuda" else None
    taken = gpu and x.dtype in gpu.NUMBERS and (cell is None or cell.steps <= gpu.MOST_STEPS)
    return gpu if taken else None


@cache
def _triton() -> ModuleType | None:
    return import_module("paperlib.networks.neuron_triton") if find_spec("triton") else None


def _layer(x: Tensor, cell: Cell, pool: bool, even: bool = False) -> kernel.Layer:
    steps, samples, height, width, channels = x.shape
    constant = steps != cell.steps  # one current for all steps; `even` says the same of the gradient of the spikes
    return kernel.Layer(
        cell.steps, samples, height, width, channels, constant, even, 2 if pool else 1, cell.detach_reset,
        cell.tau, cell.threshold, cell.fires, cell.half_width or 0.0,
    )  # fmt: skip


def _pointers(norm: Norm) -> kernel.Norm:
    return kernel.Norm(*(values.data_ptr() for values in norm[:-1]), norm.batch)
