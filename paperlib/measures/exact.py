"""Rows of the ratio theorem on functions that can be worked out by hand: by Monte Carlo and in closed form."""

import torch
from scipy import stats
from torch import Tensor

from paperlib import theory
from paperlib.measures import statistics
from paperlib.measures.ratio import many_draws, ratio_interval
from paperlib.measures.rows import certain, row
from paperlib.theory.gradients import Probabilities


def exact_rows(*, draws: int) -> list[dict]:
    """The ratio of functions that can be worked out by hand, by Monte Carlo and in closed form.

    Linear functions of 64 pixels under three laws of noise, whose intervals hold together with 95 % (Bonferroni), and
    logistic functions of 200 pixels that break either bound of the theorem.
    """
    generator = torch.Generator().manual_seed(0)
    m, rows = 64, []
    gaussian = torch.randn(m, generator=generator)
    linear = {"one coordinate": torch.eye(m)[0], "equal magnitudes": torch.ones(m), "Gaussian": gaussian}
    z = float(stats.norm.ppf(1 - (1 - statistics.LEVEL) / 2 / (len(linear) * len(theory.LAWS))))
    for case, g in linear.items():
        f, x, g = _linear(g), torch.zeros(1, m, dtype=torch.double), g.double()
        for law in theory.LAWS:
            ratio = _measured(f, x, 0.1, draws=draws, law=law, generator=generator, z=z)
            closed = theory.linear_ratio(g[None], law).item()
            for quantity, interval in (("measured", ratio), ("closed form", certain(closed, 1, "exact"))):
                rows.append(row(interval, [], quantity=quantity, f="linear", case=case, law=law))
    weights = torch.zeros(200).index_copy_(0, torch.arange(53), 6 * torch.randn(53, generator=generator))
    flat = torch.full((200,), 0.3)
    logistic = ("steep at 1/2", weights, 0.0, 0.1), ("saturated", flat, 4.0, 8 / 255), ("saturated", flat, 4.0, 0.1)
    for case, w, margin, eps in logistic:
        f, x = _logistic(w, margin), torch.zeros(1, 200, dtype=torch.double)
        g = theory.true_class_gradient(f, x, torch.tensor([0]))
        ratio = _measured(f, x, eps, draws=draws, law="uniform", generator=generator, z=statistics.Z)
        first_order, bound = theory.linear_ratio(g).item(), 3.0 * theory.l0(g, 0.0).item()
        known = {"first order": certain(first_order, 1, "exact"), "3‖g‖₀": certain(bound, 1, "exact")}
        for quantity, interval in {"measured": ratio, **known}.items():
            rows.append(row(interval, [], quantity=quantity, f="logistic", case=case, eps=eps, law="uniform"))
    return rows


def _linear(g: Tensor) -> Probabilities:
    """f(x) = g·x."""
    return lambda x: (x @ g.to(x))[:, None]


def _logistic(w: Tensor, margin: float) -> Probabilities:
    """f(x) = σ(w·x + margin)."""
    return lambda x: torch.sigmoid(x @ w.to(x) + margin)[:, None]


def _measured(f: Probabilities, x: Tensor, eps: float, *, z: float, **drawing) -> statistics.Interval:
    """The ratio at one sample; the largest change of these functions lies at a corner, which takes no steps to find."""
    y = torch.tensor([0])
    adversarial = theory.adversarial_vulnerability(f, x, y, eps, steps=0)
    return ratio_interval(adversarial, many_draws(f, x, y, eps, **drawing), z)
