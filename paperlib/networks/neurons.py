"""The paper's neuron over the whole time axis: leaky integration, a spike at the threshold, hard reset to 0.

    m[t] = τ·v[t-1] + I[t]      s[t] = 1(m[t] ≥ θ)      v[t] = (1 - s[t])·m[t]      (section 2 of the paper notes)

A neuron has three paths.  The fast path is one autograd function for all steps (`fused`), together with the BatchNorm
before the neuron and the average pool behind it.  The reference path steps `snntorch.Leaky`; it is slower, and it can
be differentiated twice.  The smooth path is another function, s[t] = S(m[t] - θ), where S is the integral of the
backward rule; its exact gradient has the form of the surrogate gradient.
"""

from functools import cache

import snntorch as snn
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperlib import errors
from paperlib.networks import fused, rules
from paperlib.networks.rules import Rate, Rule, Whole

FIRES = {">=": torch.ge, ">": torch.gt}
PATHS = ("fast", "reference", "smooth")


class LIF(nn.Module):
    """A layer of neurons: currents (T, B, ...) → spikes of the same shape.  Each call starts with membranes of 0.

    `tau` is τ, in [0, 1]; `threshold` is θ, above 0.  `fire_at` is ">=" as in the paper's code or ">" as in snnTorch.
    With `detach_reset` no gradient flows through the reset.  `path` is one of `PATHS`.
    """

    def __init__(
        self,
        rule: Rule | Rate | Whole,
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
        self.path = "fast"

    @classmethod
    def from_leaky(cls, leaky: snn.Leaky) -> "LIF":
        """The same neuron as `leaky`.

        Refuses a `leaky` that does not reset to zero, has several betas or thresholds, or has graded spikes, inhibition
        or state quantisation.
        """
        values = {
            "reset_mechanism": leaky._reset_mechanism,
            "betas": leaky.beta.numel(),
            "thresholds": leaky.threshold.numel(),
            "graded_spikes_factor": float(leaky.graded_spikes_factor),
            "inhibition": bool(leaky.inhibition),
            "state_quant": bool(leaky.state_quant),
        }
        required = dict(zip(values, ("zero", 1, 1, 1.0, False, False), strict=True))
        if values != required:
            wrong = ", ".join(f"{name} = {value!r}" for name, value in values.items() if value != required[name])
            raise errors.Refused(f"This Leaky has {wrong}; a LIF needs a plain one: {required}.")
        fires_at_threshold = bool(leaky.spike_grad(torch.zeros(1)) > 0)
        return cls(
            rules.from_surrogate(leaky.spike_grad),
            tau=leaky.beta.item(),
            threshold=leaky.threshold.item(),
            fire_at=">=" if fires_at_threshold else ">",
            detach_reset=leaky.reset_delay,  # snnTorch's delayed reset gives the same spikes and passes no gradient
        )

    def to_leaky(self) -> snn.Leaky:
        """An `snntorch.Leaky` that gives the same spikes and gradients when it is stepped with explicit `mem`.

        Refuses the rate rule, ASSG and PDSG, which need all steps at once.
        """
        if not isinstance(self.rule, Rule):
            name = self.rule.name
            raise errors.Refused(f"The {name} rule needs all time steps at once; a stepped Leaky cannot have it.")
        return snn.Leaky(
            beta=torch.tensor(self.tau, dtype=torch.float64),  # exact in either precision
            threshold=torch.tensor(self.threshold, dtype=torch.float64),
            spike_grad=lambda u: _Spike.apply(u, FIRES[self.fire_at], self.rule),
            reset_mechanism="zero",
            reset_delay=self.detach_reset,
        )

    def forward(self, current: Tensor) -> Tensor:
        """Currents (T, B, ...) → spikes (T, B, ...), which are 0 or 1; on the smooth path they are in [0, 1].

        The reference path refuses rules that need all steps at once, the smooth path rules without an integral.
        """
        errors.one_of("path of a neuron", self.path, PATHS)
        if self.path == "fast":
            return fused.Spikes.apply(current, self.cell(len(current), current))
        return self._stepped(current) if self.path == "reference" else self._smooth(current)

    def cell(self, steps: int, x: Tensor) -> fused.Cell:
        """The constants of one call on `x` with `steps` steps."""
        fires = _fires(self.threshold, self.fire_at, fused.real(x))
        return fused.Cell(steps, self.tau, self.threshold, fires, self.rule, self.detach_reset)

    def _stepped(self, current: Tensor) -> Tensor:
        leaky = self.to_leaky().to(current.device)
        snn.SpikingNeuron.instances.remove(leaky)  # a global list of snnTorch, which would never free it nor the graph
        steps = current.to(fused.real(current)).unbind(0)
        membrane, spikes = torch.zeros_like(steps[0]), []
        for step in steps:
            spike, membrane = leaky(step, membrane)
            spikes.append(spike)
        return torch.stack(spikes).to(current.dtype)

    def _smooth(self, current: Tensor) -> Tensor:
        if not isinstance(self.rule, Rule) or self.rule.integral is None:
            raise errors.Refused(f"The rule {self.rule.name} has no integral from 0 to 1; it has no smooth spike.")
        v, spikes = None, []
        for i in current.to(fused.real(current)).unbind(0):
            membrane = i if v is None else torch.add(i, v, alpha=self.tau)
            spike = self.rule.integral(membrane - self.threshold)
            reset = spike.detach() if self.detach_reset else spike
            v = torch.addcmul(membrane, reset, membrane, value=-1)  # (1 - s)·m
            spikes.append(spike)
        return torch.stack(spikes).to(current.dtype)

    def extra_repr(self) -> str:
        return f"{self.rule.name}, tau={self.tau}, threshold={self.threshold}, fire_at={self.fire_at!r}"


@cache
def _fires(threshold: float, fire_at: str, dtype: torch.dtype) -> float:
    """The smallest membrane of type `dtype` that spikes."""
    fires = torch.tensor(threshold, dtype=dtype)
    return (fires if fire_at == ">=" else torch.nextafter(fires, torch.full_like(fires, torch.inf))).item()


class NormedLIF(nn.BatchNorm2d):
    """BatchNorm over all steps, the neuron, and with `pool` a 2×2 average pool, in one pass over memory.

    (T, B, C, H, W) → spikes (T, B, C, H, W), or with `pool` their means (T, B, C, H//2, W//2), where T is `steps`.  An
    input of one step, (1, B, C, H, W), stands for `steps` equal ones; the statistics of the batch are those of all
    steps.  Parameters and buffers are those of BatchNorm.  Refuses another number of steps, a map too small for the
    pool, and in training mode fewer than two values per channel.
    """

    def __init__(self, channels: int, neuron: LIF, *, steps: int, pool: bool = False):
        super().__init__(channels)
        self.neuron, self.steps, self.pool = neuron, steps, pool

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean, var = fused.statistics(x.detach()) if self.neuron.path == "fast" else _Statistics.apply(x)
            if self.track_running_stats:
                self._update_statistics(mean.detach(), var.detach(), x)
        if self.neuron.path == "fast":
            norm = self.weight, self.bias, mean, var, self.eps, self.training
            return fused.NormedSpikes.apply(x, *norm, self.neuron.cell(self.steps, x), self.pool)
        scale, shift = fused.affine(self.weight, self.bias, mean, (var + self.eps).rsqrt(), fused.real(x))
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

    def _update_statistics(self, mean: Tensor, var: Tensor, x: Tensor) -> None:
        """Update the running statistics; the variance is made unbiased by N/(N - 1), N values over all steps."""
        count = self.steps * x[0, :, 0].numel()
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(var * (count / (count - 1)), self.momentum)
        self.num_batches_tracked.add_(1)


class _Spike(torch.autograd.Function):
    """A comparison whose backward pass is a differentiable formula, so that it can be differentiated twice."""

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
    """Mean and variance of each channel, the same bits as on the fast path; differentiable any number of times."""

    @staticmethod
    def forward(ctx, x: Tensor):
        mean, var = fused.statistics(x)
        ctx.save_for_backward(x, mean)
        return mean, var

    @staticmethod
    def backward(ctx, grad_mean: Tensor, grad_var: Tensor):
        x, mean = ctx.saved_tensors
        count = x[:, :, 0].numel()
        return (grad_mean.view(-1, 1, 1) + 2 * grad_var.view(-1, 1, 1) * (x - mean.view(-1, 1, 1))) / count
