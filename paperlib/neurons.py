"""The paper's neuron over the whole time axis: leaky integration, a spike at the threshold, hard reset to 0.

    m[t] = τ·v[t-1] + I[t]      s[t] = 1(m[t] ≥ θ)      v[t] = (1 - s[t])·m[t]      (section 2 of the paper notes)

The fast path is one autograd function.  For backward it keeps the membrane potential before reset and its own spikes,
which the next layer keeps anyway.
The reference path steps `snntorch.Leaky`; it is slower, and it can be differentiated twice.
"""

import snntorch as snn
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from paperlib import errors, rules
from paperlib.rules import Rule

FIRES = {">=": torch.ge, ">": torch.gt}


class LIF(nn.Module):
    """A layer of neurons: currents (T, B, ...) → spikes of the same shape, every membrane 0 at the start.

    `fire_at` is ">=" as in the paper's code or ">" as in snnTorch.  The reset's own gradient flows unless
    `detach_reset`.  No state outlives a call.
    """

    def __init__(
        self, rule: Rule, *, tau: float = 1.0, threshold: float = 1.0, fire_at: str = ">=", detach_reset: bool = False
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
        """An `snntorch.Leaky` that, stepped with explicit `mem`, gives the same spikes and gradients."""
        return snn.Leaky(
            beta=torch.tensor(self.tau, dtype=torch.float64),  # exact in either precision
            threshold=torch.tensor(self.threshold, dtype=torch.float64),
            spike_grad=lambda u: _Spike.apply(u, FIRES[self.fire_at], self.rule),
            reset_mechanism="zero",
            reset_delay=self.detach_reset,
        )

    def forward(self, current: Tensor) -> Tensor:
        """Currents (T, B, ...) → spikes (T, B, ...) in {0, 1}."""
        if not self.reference:
            fires = FIRES[self.fire_at]
            return _FusedLIF.apply(current, self.tau, self.threshold, fires, self.rule, self.detach_reset)
        leaky = self.to_leaky().to(current.device)
        snn.SpikingNeuron.instances.remove(leaky)  # snnTorch's own list would keep it, and this graph, for ever
        membrane, spikes = torch.zeros_like(current[0]), []
        for step in current.unbind(0):
            spike, membrane = leaky(step, membrane)
            spikes.append(spike)
        return torch.stack(spikes)

    def extra_repr(self) -> str:
        return f"{self.rule.name}, tau={self.tau}, threshold={self.threshold}, fire_at={self.fire_at!r}"


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


class _FusedLIF(torch.autograd.Function):
    @staticmethod
    def forward(ctx, current: Tensor, tau: float, threshold: float, fires, rule: Rule, detach_reset: bool) -> Tensor:
        membrane, spikes = torch.empty_like(current), torch.empty_like(current)  # (T, B, ...) each
        kept = None
        for i, m, s in zip(current.unbind(0), membrane.unbind(0), spikes.unbind(0), strict=True):
            if kept is None:
                m.copy_(i)
            else:
                torch.add(kept if tau == 1 else kept.mul_(tau), i, out=m)
            fires(m, threshold, out=s)
            kept = torch.addcmul(m, m, s, value=-1)  # v = (1 - s)·m
        ctx.save_for_backward(membrane, spikes)
        ctx.constants = tau, threshold, rule, detach_reset
        return spikes

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_spikes: Tensor):
        membrane, spikes = ctx.saved_tensors
        tau, threshold, rule, detach_reset = ctx.constants
        grad_current = torch.empty_like(membrane)
        grad_kept = None
        steps = zip(*(x.unbind(0) for x in (membrane, spikes, grad_spikes, grad_current)), strict=True)
        for m, s, grad, out in reversed(list(steps)):
            slope = rule.derivative(m - threshold)  # ∂s/∂m
            if grad_kept is None:  # nothing reads the last step's v
                torch.mul(slope, grad, out=out)
            else:  # ∂v/∂m = (1 - s) - m·∂s/∂m, the second term only where the reset is attached
                if not detach_reset:
                    grad = torch.addcmul(grad, grad_kept, m, value=-1)
                torch.addcmul(torch.addcmul(grad_kept, grad_kept, s, value=-1), slope, grad, out=out)
            grad_kept = out if tau == 1 else out * tau
        return grad_current, None, None, None, None, None
