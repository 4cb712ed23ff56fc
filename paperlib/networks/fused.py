"""The neuron over the whole time axis as one autograd function, with the BatchNorm before it and the pool behind it.

The function saves only the output of the convolution; backward computes currents and membranes again.  There are two
implementations with bit-identical results: C on a CPU (`kernel`), whose backward pass knows only triangle rules, and
torch for everything else.
"""

import math
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
        """γ of a triangle rule, the only rule that is written in C; None for any other rule."""
        return self.rule.half_width if isinstance(self.rule, Rule) else None


class Spikes(torch.autograd.Function):
    """The neuron alone, on currents (T, B, ...)."""

    @staticmethod
    def forward(ctx, current: Tensor, cell: Cell) -> Tensor:
        ctx.save_for_backward(current)
        ctx.cell = cell
        flat = _flat(current)
        return _spikes(flat, *_identity(flat), cell, pool=False).view(current.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        (current,) = ctx.saved_tensors
        flat = _flat(current)
        return _grad_current(flat, *_identity(flat), _flat(grad), ctx.cell, pool=False).view(current.shape), None


class NormedSpikes(torch.autograd.Function):
    """BatchNorm, neuron and pool on (T or 1, B, C, H, W); in memory channels are last, as in the convolutions."""

    @staticmethod
    def forward(ctx, x, weight, bias, mean, var, eps: float, batch_statistics: bool, cell: Cell, pool: bool) -> Tensor:
        scale, shift = affine(weight, bias, mean, var, eps, real(x))
        ctx.save_for_backward(x, weight, mean, var, scale, shift)
        ctx.constants = eps, batch_statistics, cell, pool
        return _channels_first(_spikes(_channels_last(x), scale, shift, cell, pool))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight, mean, var, scale, shift = ctx.saved_tensors
        if not x.numel():  # torch's backward pass would divide by zero
            return torch.zeros_like(x), torch.zeros_like(weight), torch.zeros_like(weight), *[None] * 6
        eps, batch_statistics, cell, pool = ctx.constants
        grad = _grad_current(_channels_last(x), scale, shift, _channels_last(grad), cell, pool)
        grad_x, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            _channels_first(grad).flatten(0, 1),
            x.flatten(0, 1),
            weight,
            mean,
            var,
            mean,
            (var + eps).rsqrt(),
            batch_statistics,
            eps,
            [True, True, True],
        )
        return grad_x.view(x.shape), grad_weight, grad_bias, None, None, None, None, None, None


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


def _identity(x: Tensor) -> tuple[Tensor, Tensor]:
    ones = torch.ones(x.shape[-1], dtype=real(x), device=x.device)
    return ones, torch.zeros_like(ones)


def affine(weight, bias, mean, var, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """BatchNorm as x·scale + shift: scale and shift, both (C,) of type `dtype`."""
    scale = weight * (var + eps).rsqrt()
    return scale.to(dtype), (bias - mean * scale).to(dtype)


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel of (T, B, C, H, W)."""
    x = x.flatten(0, 1)
    if x.device.type == "cpu":  # many times as fast as var_mean
        running = x.new_zeros(2, x.shape[1], dtype=real(x))  # unused; the result takes its precision
        return torch.ops.aten.batch_norm_update_stats(x, running[0], running[1], 0.0)
    var, mean = torch.var_mean(x.to(real(x)), (0, 2, 3), correction=0)
    return mean, var


# The two implementations.  x is (T or 1, B, H, W, C) and contiguous; scale and shift are (C,). ----------------------


def _spikes(x: Tensor, scale: Tensor, shift: Tensor, cell: Cell, pool: bool) -> Tensor:
    """Spikes (T, B, H, W, C), or with `pool` their means over 2×2 cells, (T, B, H//2, W//2, C)."""
    if _compiled(x):
        _, samples, height, width, channels = x.shape
        size = (height // 2, width // 2) if pool else (height, width)
        spikes = x.new_empty(cell.steps, samples, *size, channels)
        kernel.run("forward", _layer(x, cell, pool), x, scale, shift, spikes)
        return spikes
    spikes = (_membranes(x, scale, shift, cell) >= cell.fires).to(x.dtype)
    if not pool:
        return spikes
    pooled = F.avg_pool2d(_channels_first(spikes).flatten(0, 1), 2)
    return _channels_last(pooled.unflatten(0, spikes.shape[:2]))


def _grad_current(x: Tensor, scale: Tensor, shift: Tensor, grad: Tensor, cell: Cell, pool: bool) -> Tensor:
    """The gradient of the current, of the shape of x, from `grad`, the gradient of the (pooled) spikes."""
    if _compiled(x) and cell.half_width:
        row_is_dropped = pool and x.shape[2] % 2  # by the pool; C does not write its gradient
        grad_current = torch.zeros_like(x) if row_is_dropped else torch.empty_like(x)
        kernel.run("backward", _layer(x, cell, pool), x, scale, shift, grad, grad_current)
        return grad_current
    grad = grad.to(scale.dtype)
    if pool:
        spread = (grad / 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
        grad = F.pad(spread, (0, 0, 0, x.shape[3] % 2, 0, x.shape[2] % 2))
    if isinstance(cell.rule, Rate):
        current = x * scale + shift
        grad_current = grad * cell.rule.slope(current.mean(0), cell.tau)
    else:
        grad_current = _through_time(_membranes(x, scale, shift, cell), grad, cell)
    if len(x) != cell.steps:  # one current was used at all steps; the sum runs backwards, as in C
        grad_current = sum(reversed(grad_current.unbind(0)))[None]
    return grad_current.to(x.dtype)


def _membranes(x: Tensor, scale: Tensor, shift: Tensor, cell: Cell) -> Tensor:
    """m[t] for all t, (T, B, H, W, C)."""
    current = (x * scale + shift).expand(cell.steps, *x.shape[1:])
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


def _layer(x: Tensor, cell: Cell, pool: bool) -> kernel.Layer:
    steps, samples, height, width, channels = x.shape
    constant = steps != cell.steps  # one current for all steps
    return kernel.Layer(
        cell.steps, samples, height, width, channels, constant, 2 if pool else 1, cell.detach_reset,
        cell.tau, cell.threshold, cell.fires, cell.half_width or 0.0,
    )  # fmt: skip
