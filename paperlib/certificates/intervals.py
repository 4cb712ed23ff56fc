"""Bounds of values that change over time, and of what the layers between neurons make of them.

A value x[1], ..., x[T] is bounded by its weighted sums over stretches of steps, Σ_{s=a+1..t} τ^(t-s) x[s] for all
0 ≤ a < t ≤ T.  Such a sum of its current is the membrane that a neuron with leak τ has at step t after a reset at step
a, so its spikes depend on these sums alone; and a linear layer maps sums of its input to the same sums of its output.
Bounds of single steps, which are the sums of one term, are looser: a spike that comes either at step 2 or at step 3
counts twice in them.

**Rounding.**  The bounds hold for the network in float32, unit roundoff u = 2⁻²⁴, and are themselves computed in
float32.  A sum of n products that is computed in any order, with or without fused operations, differs from the exact
sum by at most γ_n Σ|w||x|, γ_n = nu/(1 - nu) (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1), and
by 2⁻¹²⁶ for each product that underflows.  A layer has four such errors: that of the network, and here that of the
middle, of the radius, which is at most twice as large as Σ|w||x|, and of the ends.  So each function widens its result
by 4γ, where γ counts more roundings than there are (see `rounding`).  Where a GPU rounds factors to TF32, unit roundoff
2⁻¹¹, the error of a product is added (see `of_products`).  Convolutions by Winograd's or Fourier's method are not
covered.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

UNIT = 2.0**-24  # unit roundoff of float32
TINY = 2.0**-126  # the least normal float32

Linear = Callable[[Tensor, Tensor], Tensor]  # values (n, ...) and weights → sums of products (n, ...)


@dataclass(frozen=True)
class Time:
    """T steps with leak τ: the S sums that bound a value, in a fixed order.  The last is the plain sum of all steps."""

    T: int
    tau: float
    whole: bool = False  # whether the plain sum of all steps is all that is asked of spikes
    trains: bool = False  # whether spike trains are tried one by one: tighter bounds in more time

    @cached_property
    def stretches(self) -> list[tuple[int, int]]:
        """The pairs (a, t), for the steps a + 1 to t."""
        pairs = [(a, t) for a in range(self.T) for t in range(a + 1, self.T + 1)]
        return sorted(pairs, key=lambda stretch: stretch == (0, self.T))

    @cached_property
    def weights(self) -> Tensor:
        """The factor of each step in each sum, (S, T), float32."""
        sums = [[self.tau ** (t - s) if a < s <= t else 0.0 for s in range(1, self.T + 1)] for a, t in self.stretches]
        return torch.tensor(sums if self.tau == 1 else [*sums, [1.0] * self.T])

    @property
    def asked(self) -> Tensor:
        """The factors of the sums that are asked of spikes."""
        return self.weights[-1:] if self.whole else self.weights

    @property
    def countable(self) -> bool:
        """Whether the 2^T spike trains are few enough to be tried, and τ^T large enough for float64."""
        return self.T <= 6 and self.tau**self.T > 2.0**-20

    @cached_property
    def steps(self) -> list[int]:
        """The places of the sums of one step."""
        return [self.stretches.index((t - 1, t)) for t in range(1, self.T + 1)]

    def rounding(self, terms: int) -> float:
        """4γ_n, for n of `terms` of a sum, twice the steps of a membrane, and 16 operations around it."""
        n = terms + 2 * self.T + 16
        return 4 * n * UNIT / (1 - n * UNIT)


class Interval(NamedTuple):
    """Bounds of values, both (S, B, ...) for the sums of `Time`, or (1, B, ...) for one value at all steps."""

    low: Tensor
    high: Tensor

    @property
    def constant(self) -> bool:
        """Whether the value is the same at all steps."""
        return len(self.low) == 1

    def map(self, function: Callable[[Tensor], Tensor]) -> "Interval":
        """Both ends under a function that never falls."""
        return Interval(function(self.low), function(self.high))

    def widened(self, by: Tensor) -> "Interval":
        return Interval(self.low - by, self.high + by)


def spread(x: Interval, time: Time) -> Interval:
    """The sums of a value from its bounds at each step, (T, B, ...), or at all steps, (1, B, ...)."""
    weights = time.weights.to(x.low.device)
    weights = weights.sum(1, keepdim=True) if x.constant else weights
    largest = torch.tensordot(weights, torch.maximum(x.low.abs(), x.high.abs()), 1)
    return x.map(lambda end: torch.tensordot(weights, end, 1)).widened(time.rounding(0) * largest)


def size(x: Interval, time: Time) -> Tensor:
    """The largest sums of absolute values, of the shape of the bounds."""
    largest = torch.maximum(x.low.abs(), x.high.abs())
    if x.constant:
        return largest
    return torch.tensordot(time.weights.to(largest.device), largest[time.steps], 1)


def linear(x: Interval, time: Time, apply: Linear, weight: Tensor, bias: Tensor | None, terms: int) -> Interval:
    """The bounds behind a linear layer with `terms` products in a sum.

    The exact range of weights times intervals: the middles by the weights, the radii by their absolute values.
    """
    g = time.rounding(terms) + of_products(weight.device)
    middle, radius = (x.low + x.high) / 2, (x.high - x.low) / 2 + g * size(x, time)
    middle, radius = apply(middle, weight), apply(radius, weight.abs()) + terms * TINY
    return offset(Interval(middle - radius, middle + radius), time, bias, g)


def of_products(device: torch.device) -> float:
    """Four times the relative error of a product whose two factors are rounded to TF32; 0 where they are not."""
    rounds = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    return 4 * 2.1 * 2.0**-11 if device.type == "cuda" and rounds else 0.0


def offset(x: Interval, time: Time, bias: Tensor | None, g: float) -> Interval:
    """Bounds after a bias for each channel, (C,), is added at every step, with `g` times its size for rounding."""
    if bias is None:
        return x
    factors = x.low.new_ones(1) if x.constant else time.weights.to(x.low.device).sum(1)
    bias = factors.view(-1, *[1] * (x.low.dim() - 1)) * bias.view(-1, *[1] * (x.low.dim() - 3))
    return x.map(lambda end: end + bias).widened(g * bias.abs())


def scaled(x: Interval, factor: Tensor) -> Interval:
    """Bounds of `factor` times the value; `factor` broadcasts over (B, ...).  Rounding is not covered."""
    one, other = x.low * factor, x.high * factor
    return Interval(torch.minimum(one, other), torch.maximum(one, other))
