"""The paper's neuron over the whole time axis: leaky integration, a spike at the threshold, hard reset to 0.

    m[t] = τ·v[t-1] + I[t]      s[t] = 1(m[t] ≥ θ)      v[t] = (1 - s[t])·m[t]      (section 2 of the paper notes)

The fast path is one autograd function for all steps, together with the BatchNorm before the neuron and the average pool
behind it.  Of all this it keeps the convolution's output alone and computes currents and membranes again in backward.
It is written twice with the same bits: in C for the training rule on a CPU (`kernel`), in torch for all the rest.
The reference path steps `snntorch.Leaky`; it is slower, and it can be differentiated twice.
"""

import math
from typing import NamedTuple

import snntorch as snn
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from paperlib import errors, kernel, rules
from paperlib.rules import Rate, Rule

FIRES = {">=": torch.ge, ">": torch.gt}


class LIF(nn.Module):
    """A layer of neurons: currents (T, B, ...) → spikes of the same shape, every membrane 0 at the start.

    `fire_at` is ">=" as in the paper's code or ">" as in snnTorch.  The reset's own gradient flows unless
    `detach_reset`.  No state outlives a call.
    """

    def __init__(
        self,
        rule: Rule | Rate,
        *,
        tau: float = 1.0,
        threshold: float = 1.0,
        fire_at: str = ">=",
        detach_reset: bool = False,
    ):
        super().__init__()
        errors.one_of("fire_at", fire_at, FIRES)
        errors.unit("tau", tau)
        errors.number("threshold", threshold, above=0)
        self.rule, self.tau, self.threshold = rule, float(tau), float(threshold)
        self.fire_at, self.detach_reset = fire_at, detach_reset
        self.reference = False  # whether to step `snntorch.Leaky`

    @classmethod
    def from_leaky(cls, leaky: snn.Leaky) -> "LIF":
        """The same neuron as `leaky`: it must reset to zero, hold one beta and one threshold, and spike plainly."""
        has = {
            "reset_mechanism": leaky._reset_mechanism,
            "betas": leaky.beta.numel(),
            "thresholds": leaky.threshold.numel(),
            "graded_spikes_factor": float(leaky.graded_spikes_factor),
            "inhibition": bool(leaky.inhibition),
            "state_quant": bool(leaky.state_quant),
        }
        takes = dict(zip(has, ("zero", 1, 1, 1.0, False, False), strict=True))
        if has != takes:
            wrong = ", ".join(f"{name} = {value!r}" for name, value in has.items() if value != takes[name])
            raise errors.Refused(f"This Leaky has {wrong}. Only a plain one can be taken over: {takes}.")
        at_threshold = bool(leaky.spike_grad(torch.zeros(1)) > 0)
        return cls(
            rules.from_surrogate(leaky.spike_grad),
            tau=leaky.beta.item(),
            threshold=leaky.threshold.item(),
            fire_at=">=" if at_threshold else ">",
            detach_reset=leaky.reset_delay,  # snnTorch's delayed reset gives the same spikes and no gradient
        )

    def to_leaky(self) -> snn.Leaky:
        """An `snntorch.Leaky` that, stepped with explicit `mem`, gives the same spikes and gradients.

        Refuses the rate rule, which couples all steps.
        """
        if isinstance(self.rule, Rate):
            raise errors.Refused("The rate rule needs all time steps at once; a stepped Leaky cannot carry it.")
        return snn.Leaky(
            beta=torch.tensor(self.tau, dtype=torch.float64),  # exact in either precision
            threshold=torch.tensor(self.threshold, dtype=torch.float64),
            spike_grad=lambda u: _Spike.apply(u, FIRES[self.fire_at], self.rule),
            reset_mechanism="zero",
            reset_delay=self.detach_reset,
        )

    def forward(self, current: Tensor) -> Tensor:
        """Currents (T, B, ...) → spikes (T, B, ...) in {0, 1}."""
        return self._step(current) if self.reference else _Spikes.apply(current, self._cell(len(current), current))

    def _cell(self, steps: int, x: Tensor) -> "_Cell":
        """The constants of one call on `x`; `fires` is the least membrane that spikes, as its precision has it."""
        fires = torch.tensor(self.threshold, dtype=_real(x))
        if self.fire_at == ">":
            fires = torch.nextafter(fires, torch.full_like(fires, torch.inf))
        return _Cell(steps, self.tau, self.threshold, fires.item(), self.rule, self.detach_reset)

    def _step(self, current: Tensor) -> Tensor:
        leaky = self.to_leaky().to(current.device)
        snn.SpikingNeuron.instances.remove(leaky)  # snnTorch's own list would keep it, and this graph, for ever
        steps = current.to(_real(current)).unbind(0)
        membrane, spikes = torch.zeros_like(steps[0]), []
        for step in steps:
            spike, membrane = leaky(step, membrane)
            spikes.append(spike)
        return torch.stack(spikes).to(current.dtype)

    def extra_repr(self) -> str:
        return f"{self.rule.name}, tau={self.tau}, threshold={self.threshold}, fire_at={self.fire_at!r}"


class NormedLIF(nn.BatchNorm2d):
    """BatchNorm over all steps, the neuron, and with `pool` a 2×2 average pool, in one pass over memory.

    (T, B, C, H, W) → spikes (T, B, C, H, W), or (T, B, C, H//2, W//2) of their means.  An input of one step stands for
    `steps` equal ones: statistics of the batch are those of all of them.  The parameters are BatchNorm's own.
    """

    def __init__(self, channels: int, neuron: LIF, *, steps: int, pool: bool = False):
        super().__init__(channels)
        self.neuron, self.steps, self.pool = neuron, steps, pool

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        if self.neuron.reference:
            mean, var = _Statistics.apply(x) if self.training else (self.running_mean, self.running_var)
        elif self.training:
            mean, var = _statistics(x.detach())
        else:
            mean, var = self.running_mean, self.running_var
        if self.training:
            self._remember(mean.detach(), var.detach(), x)
        if not self.neuron.reference:
            cell = self.neuron._cell(self.steps, x)
            return _NormedSpikes.apply(x, self.weight, self.bias, mean, var, self.eps, self.training, cell, self.pool)
        scale, shift = _affine(self.weight, self.bias, mean, var, self.eps, _real(x))
        current = x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
        spikes = self.neuron(current.expand(self.steps, *x.shape[1:])).to(x.dtype)
        return F.avg_pool2d(spikes.flatten(0, 1), 2).unflatten(0, spikes.shape[:2]) if self.pool else spikes

    def _check(self, x: Tensor) -> None:
        steps, samples, _, height, width = x.shape
        if steps not in (1, self.steps):
            raise errors.Refused(f"The input has {steps} steps; it must have 1 or {self.steps}.")
        if self.pool and min(height, width) < 2:
            raise errors.Refused(f"A map of {height}×{width} cells is too small for a 2×2 pool.")
        if self.training and self.steps * samples * height * width < 2:
            raise errors.Refused("BatchNorm in training mode needs at least two values per channel.")

    def _remember(self, mean: Tensor, var: Tensor, x: Tensor) -> None:
        """Move the running statistics; a sample's variance counts N/(N - 1), N over all steps."""
        count = self.steps * x[0, :, 0].numel()
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(var * (count / (count - 1)), self.momentum)
        self.num_batches_tracked.add_(1)


class _Cell(NamedTuple):
    steps: int
    tau: float
    threshold: float
    fires: float
    rule: Rule | Rate
    detach_reset: bool


class _Spike(torch.autograd.Function):
    """One comparison; its backward is a differentiable formula, so it can be differentiated again."""

    @staticmethod
    def forward(ctx, u: Tensor, fires, rule: Rule) -> Tensor:
        ctx.save_for_backward(u)
        ctx.rule = rule
        return fires(u, 0).to(u.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (u,) = ctx.saved_tensors
        return grad * ctx.rule.derivative(u), None, None


class _Statistics(torch.autograd.Function):
    """Mean and variance of each channel, as the fast path has them, differentiable as often as one likes."""

    @staticmethod
    def forward(ctx, x: Tensor):
        mean, var = _statistics(x)
        ctx.save_for_backward(x, mean)
        return mean, var

    @staticmethod
    def backward(ctx, grad_mean: Tensor, grad_var: Tensor):
        x, mean = ctx.saved_tensors
        count = x[:, :, 0].numel()
        return (grad_mean.view(-1, 1, 1) + 2 * grad_var.view(-1, 1, 1) * (x - mean.view(-1, 1, 1))) / count


class _Spikes(torch.autograd.Function):
    """The neuron alone, on currents of any shape."""

    @staticmethod
    def forward(ctx, current: Tensor, cell: _Cell) -> Tensor:
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


class _NormedSpikes(torch.autograd.Function):
    """BatchNorm, neuron and pool; channels lie last in memory, as the convolutions like them."""

    @staticmethod
    def forward(ctx, x, weight, bias, mean, var, eps: float, batch_statistics: bool, cell: _Cell, pool: bool) -> Tensor:
        scale, shift = _affine(weight, bias, mean, var, eps, _real(x))
        ctx.save_for_backward(x, weight, mean, var, scale, shift)
        ctx.constants = eps, batch_statistics, cell, pool
        return _channels_first(_spikes(_channels_last(x), scale, shift, cell, pool))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight, mean, var, scale, shift = ctx.saved_tensors
        if not x.numel():  # torch's own backward would divide by zero
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
    """(T, B, ...) as one cell of many channels a sample, (T, B, 1, 1, N)."""
    return x.reshape(*x.shape[:2], 1, 1, math.prod(x.shape[2:])).contiguous()


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 1, 3, 4, 2).contiguous()


def _channels_first(x: Tensor) -> Tensor:
    return x.permute(0, 1, 4, 2, 3)


def _real(x: Tensor) -> torch.dtype:
    """The precision that membranes have: 32 bits at least."""
    return torch.promote_types(x.dtype, torch.float32)


def _identity(x: Tensor) -> tuple[Tensor, Tensor]:
    ones = torch.ones(x.shape[-1], dtype=_real(x), device=x.device)
    return ones, torch.zeros_like(ones)


def _affine(weight, bias, mean, var, eps: float, real: torch.dtype) -> tuple[Tensor, Tensor]:
    """BatchNorm as x·scale + shift, both (C,) of type `real`."""
    scale = weight * (var + eps).rsqrt()
    return scale.to(real), (bias - mean * scale).to(real)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel of (T, B, C, H, W)."""
    x = x.flatten(0, 1)
    if x.device.type == "cpu":  # many times as fast as var_mean
        unused = x.new_zeros(2, x.shape[1], dtype=_real(x))  # running statistics, whose precision the result takes
        return torch.ops.aten.batch_norm_update_stats(x, unused[0], unused[1], 0.0)
    var, mean = torch.var_mean(x.to(_real(x)), (0, 2, 3), correction=0)
    return mean, var


# The two implementations; x is (T or 1, B, H, W, C) and contiguous, scale and shift are (C,) -----------------------


def _spikes(x: Tensor, scale: Tensor, shift: Tensor, cell: _Cell, pool: bool) -> Tensor:
    """Spikes (T, B, H, W, C), or with `pool` their means over 2×2 cells."""
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


def _grad_current(x: Tensor, scale: Tensor, shift: Tensor, grad: Tensor, cell: _Cell, pool: bool) -> Tensor:
    """The gradient of the current, of the shape of x, from `grad`, that of the (pooled) spikes."""
    if _compiled(x) and getattr(cell.rule, "half_width", None):
        grad_current = torch.zeros_like(x) if pool and x.shape[2] % 2 else torch.empty_like(x)  # a dropped row
        kernel.run("backward", _layer(x, cell, pool), x, scale, shift, grad, grad_current)
        return grad_current
    grad = grad.to(scale.dtype)
    if pool:
        spread = (grad / 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
        grad = F.pad(spread, (0, 0, 0, x.shape[3] % 2, 0, x.shape[2] % 2))
    if isinstance(cell.rule, Rate):
        current = x * scale + shift
        steps = grad * cell.rule.slope(current.mean(0), cell.tau)
    else:
        steps = _through_time(_membranes(x, scale, shift, cell), grad, cell)
    if len(x) != cell.steps:  # one current stood for all steps
        steps = sum(reversed(steps.unbind(0)))[None]
    return steps.to(x.dtype)


def _membranes(x: Tensor, scale: Tensor, shift: Tensor, cell: _Cell) -> Tensor:
    """m[t] for all t, (T, B, H, W, C)."""
    current = (x * scale + shift).expand(cell.steps, *x.shape[1:])
    membranes, kept = torch.empty_like(current, memory_format=torch.contiguous_format), None
    for i, m in zip(current.unbind(0), membranes.unbind(0), strict=True):
        if kept is None:
            m.copy_(i)
        else:
            torch.add(kept.mul_(cell.tau), i, out=m)
        kept = m * (m < cell.fires)
    return membranes


def _through_time(membranes: Tensor, grad: Tensor, cell: _Cell) -> Tensor:
    """Back-propagation through time: the gradient of each step's current, (T, B, H, W, C)."""
    result, grad_kept = torch.empty_like(membranes), None
    for m, g, out in reversed(list(zip(membranes.unbind(0), grad.unbind(0), result.unbind(0), strict=True))):
        slope = cell.rule.derivative(m - cell.threshold)  # ∂s/∂m
        if grad_kept is None:  # nothing reads the last step's v
            torch.mul(slope, g, out=out)
        else:  # ∂v/∂m = (1 - s) - m·∂s/∂m, the second term only where the reset is attached
            if not cell.detach_reset:
                g = g - grad_kept * m  # not addcmul, which may round once where C rounds twice
            torch.add(grad_kept.mul_(m < cell.fires), slope * g, out=out)
        grad_kept = out * cell.tau
    return result


def _compiled(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in kernel.NUMBERS and kernel.library(x.dtype) is not None


def _layer(x: Tensor, cell: _Cell, pool: bool) -> kernel.Layer:
    steps, samples, height, width, channels = x.shape
    gamma = getattr(cell.rule, "half_width", None) or 0.0
    constant = steps != cell.steps
    return kernel.Layer(
        cell.steps, samples, height, width, channels, constant, 1 + pool, cell.detach_reset,
        cell.tau, cell.threshold, cell.fires, gamma,
    )  # fmt: skip
