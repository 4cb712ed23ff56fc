"""Rows of the finite-difference proposition: the quotient, its error, and the gradient of the penalty made from it."""

import copy
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperlib import records, theory
from paperlib.data.sets import Split
from paperlib.labels import TRUE
from paperlib.measures import statistics
from paperlib.measures.cost import counted
from paperlib.measures.ratio import ENTERED
from paperlib.measures.rows import BATCH, by_labels, certain, mean_over_seeds, over_seeds, row
from paperlib.networks.network import Network
from paperlib.store.experiment import Experiment, Opened
from paperlib.theory import gradients
from paperlib.training import regularizers

PRECISIONS = {"float32": torch.float32, "float64": torch.float64}
SIGNS = {"forward": 1, "backward": -1}  # of the leading term of the error
WINDOW = {"correlation": 0.8, "factor": 2.0}  # of a proxy of ‖g‖₁: least correlation, and greatest factor of the means


class Quotients(NamedTuple):
    """The finite-difference quotients of one network at N samples, in one regime and precision."""

    experiment: Experiment
    regime: str
    precision: str
    l1: np.ndarray  # ‖g‖₁ of this regime's f, (N,)
    quotient: dict[tuple[float, str], np.ndarray]  # by h and scheme, (N,)
    curvature: np.ndarray | None  # dᵀ∇²f_y d, (N,); None of the true forward pass, which is piecewise constant

    @property
    def labels(self) -> dict:
        return self.experiment.labels | {"regime": self.regime, "precision": self.precision}

    def correlation(self, h: float, scheme: str) -> statistics.Interval:
        """Spearman's, of the quotient with ‖g‖₁."""
        return statistics.rank_correlation(self.quotient[h, scheme], self.l1)

    def bias(self, h: float, scheme: str) -> float:
        """Mean quotient over mean ‖g‖₁; NaN where every gradient vanishes."""
        return float(self.quotient[h, scheme].mean() / self.l1.mean()) if self.l1.any() else np.nan

    def window(self, scheme: str) -> list[float]:
        """The h at which the quotient is a proxy of ‖g‖₁, by `WINDOW`."""
        factor, steps = WINDOW["factor"], dict.fromkeys(h for h, _ in self.quotient)
        unbiased = [h for h in steps if 1 / factor <= self.bias(h, scheme) <= factor]
        return [h for h in unbiased if self.correlation(h, scheme).value >= WINDOW["correlation"]]


def quotients(opened: Opened, samples: Split, steps: Sequence[float], *, regime: str, precision: str) -> Quotients:
    """The quotients for each h of `steps` and each scheme, of a copy of the network in a regime and a precision."""
    experiment, dtype = opened.experiment, PRECISIONS[precision]
    network, device = _in(opened.network, dtype)
    f, parts = (lambda images: network(images).softmax(1)), []  # in the precision of the network, as in training
    with ENTERED[regime](network):
        for x, y, _ in samples.batches(BATCH):
            x, y = x.to(device, dtype), y.to(device)
            gradient = theory.true_class_gradient(f, x, y)
            columns = {"l1": gradients.l1(gradient)} | theory.finite_differences(f, x, y, steps, gradient.sign())
            if regime != TRUE:
                columns["curvature"] = theory.curvature(f, x, y)
            parts.append({name: values.cpu().double() for name, values in columns.items()})
    values = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
    l1, curvature = values.pop("l1"), values.pop("curvature", None)
    return Quotients(experiment, regime, precision, l1, values, curvature)


def _in(network: Network, dtype: torch.dtype) -> tuple[Network, torch.device]:
    """A copy of the network in that precision, and its device: the CPU where the network's has no 64 bits."""
    device = gradients.device_of(network)
    if device.type == "mps" and dtype == torch.float64:
        device = torch.device("cpu")
    return copy.deepcopy(network).to(device, dtype), device


def quotient_rows(found: Iterable[Quotients], *, used: float) -> list[dict]:
    """How the quotient follows ‖g‖₁: rows over seeds, and for each network the window of h where it is a proxy.

    Over seeds at each h: the median error relative to ‖g‖₁.  With the true forward pass also the share of samples whose
    probability moved at all, Spearman's correlation over samples, and the sum of quotients over the sum of l1.  The
    window is of the forward quotient; `used`, the h that SR trains with, must be among the steps measured.
    """
    rows = []
    for labels, group in by_labels(found, lambda q: q.labels):
        for h, scheme in group[0].quotient:
            rows += _step_rows(group, h, scheme, labels | {"h": h, "scheme": scheme})
        if group[0].regime == TRUE:
            rows += [entry for q in group for entry in _window_rows(q, used)]
    return rows


def _step_rows(group: list[Quotients], h: float, scheme: str, labels: dict) -> list[dict]:
    """The rows over seeds at one h and scheme."""
    defined = [(q, q.l1 > 0) for q in group]  # samples that have a gradient
    errors = [(q.experiment, np.abs(q.quotient[h, scheme][some] / q.l1[some] - 1)) for q, some in defined]
    rows = [over_seeds(errors, geometric=True, quantity="relative error", **labels)]
    if group[0].regime == TRUE:
        moved = [(q.experiment, q.quotient[h, scheme] != 0) for q in group]
        rows.append(over_seeds(moved, quantity="probability moved", **labels))
        found = [(q.experiment, partial(q.correlation, h, scheme)) for q in group]
        values = [(experiment, correlation().value, correlation) for experiment, correlation in found]
        rows.append(mean_over_seeds(values, within=(-1, 1), quantity="rank correlation", **labels))
        relative = [(q, q.quotient[h, scheme] / (q.l1.mean() or np.nan)) for q in group]
        biases = [(q.experiment, q.bias(h, scheme), partial(statistics.bootstrap_mean, x, seed=0)) for q, x in relative]
        rows.append(mean_over_seeds(biases, quantity="quotient over l1", **labels))
    return rows


def _window_rows(q: Quotients, used: float) -> list[dict]:
    """The ends of one network's window, and the correlation at the h `used`."""
    window, n = q.window("forward"), len(q.l1)
    method = f"correlation of {WINDOW['correlation']:g} or more, mean within a factor of {WINDOW['factor']:g}"
    intervals = {
        "window from": certain(min(window, default=np.nan), n, method),
        "window to": certain(max(window, default=np.nan), n, method),
        "correlation at SR's h": q.correlation(used, "forward"),
    }
    return [row(interval, [q.experiment], quantity=name, **q.labels) for name, interval in intervals.items()]


def curvature_rows(found: Iterable[Quotients]) -> list[dict]:
    """Slope over samples of the quotient's error over its leading term ±(h/2)·dᵀ∇²f d, smooth networks, over seeds."""
    rows = []
    for common, group in by_labels((q for q in found if q.curvature is not None), lambda q: q.labels):
        for h, scheme in (place for place in group[0].quotient if place[1] in SIGNS):
            slopes = []
            for q in group:
                predicted, error = SIGNS[scheme] * h / 2 * q.curvature, q.quotient[h, scheme] - q.l1
                square = float(predicted @ predicted)
                slopes.append((q.experiment, float(predicted @ error) / square if square else np.nan))
            rows.append(_scalar_row(slopes, quantity="error over prediction", **common, h=h, scheme=scheme))
    return rows


def curvatures(found: Iterable[Quotients], h: float) -> dict:
    """For the figure, in 64 bits: {training: [predicted error, error of the forward quotient]} of first networks."""
    smooth = [q for q in found if q.curvature is not None and q.precision == "float64"]
    return {
        q.experiment.defense: [records.array(h / 2 * q.curvature), records.array(q.quotient[h, "forward"] - q.l1)]
        for q in reversed(smooth)
    }


def smooth_accuracy_rows(networks: Iterable[Opened], samples: Split) -> list[dict]:
    """For each network its accuracy in either regime: with each spike smoothed it is another function."""
    rows = []
    for experiment, network in networks:
        device = gradients.device_of(network)
        for regime, entered in ENTERED.items():
            with entered(network):
                logits = gradients.in_batches(network, samples.pixels().to(device), BATCH)
            flags = (logits.argmax(1).cpu() == samples.labels).numpy()
            share = statistics.wilson(flags)
            rows.append(row(share, [experiment], quantity="accuracy", **experiment.labels, regime=regime))
    return rows


def weight_gradient_rows(networks: Iterable[Opened], samples: Split, *, h: float) -> list[dict]:
    """The gradient of the penalty by the weights: finite difference against exact double back-propagation, over seeds.

    For each regime and layer, numbered from the image on: cosine and ratio of norms, in eval mode and 64 bits.
    """
    values = []
    for experiment, network in networks:
        network, device = _in(network, torch.float64)
        x, y = samples.pixels().to(device, torch.float64), samples.labels.to(device)
        weights = [m.weight for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        for regime, entered in ENTERED.items():
            with entered(network):
                _, penalty = regularizers.sr(network, x, y, preset="paper", h=h)
                estimated = torch.autograd.grad(penalty, weights)
            with network.reference_path() if regime == TRUE else entered(network):
                _, penalty = regularizers.exact_l1(network, x, y)
                exact = torch.autograd.grad(penalty, weights)
            for layer, (a, b) in enumerate(zip(estimated, exact, strict=True), 1):
                cosine = torch.cosine_similarity(a.flatten(), b.flatten(), dim=0, eps=0).item()
                size = (a.norm() / b.norm()).item() if b.any() else np.nan
                for quantity, value in (("cosine", cosine), ("norm ratio", size)):
                    labels = experiment.labels | {"regime": regime, "layer": layer, "h": h, "quantity": quantity}
                    values.append((labels, (experiment, value)))  # a number for each network
    bounds = {"cosine": (-1, 1), "norm ratio": (0, np.inf)}
    return [
        _scalar_row([entry for _, entry in group], within=bounds[labels["quantity"]], **labels)
        for labels, group in by_labels(values, lambda item: item[0])
    ]


def cost_rows(opened: Opened, samples: Split, *, h: float) -> list[dict]:
    """Multiply-adds and bytes kept (see `Counted`) of a gradient step with each penalty, over cross-entropy alone."""
    experiment, network = opened
    device = gradients.device_of(network)
    x, y = samples.pixels().to(device), samples.labels.to(device)
    weights, rows = list(network.parameters()), []

    def loss(logits: Tensor, penalty: Tensor | float = 0.0) -> Tensor:
        return F.cross_entropy(logits, y) + penalty

    unit = counted(lambda: loss(network(x)), weights)
    costs = {"finite difference": counted(lambda: loss(*regularizers.sr(network, x, y, preset="paper", h=h)), weights)}
    with network.reference_path():  # the fused neuron is differentiable only once
        costs["double back propagation"] = counted(lambda: loss(*regularizers.exact_l1(network, x, y)), weights)
    for penalty, cost in costs.items():
        ratios = {"multiply-adds": cost.multiply_adds / unit.multiply_adds, "bytes kept": cost.kept / unit.kept}
        for quantity, ratio in ratios.items():
            interval = certain(ratio, len(y))
            rows.append(row(interval, [experiment], penalty=penalty, quantity=quantity, **experiment.labels))
    return rows


def _scalar_row(values: list[tuple[Experiment, float]], within: tuple = (-np.inf, np.inf), **labels) -> dict:
    """The mean over seeds of one number for each network, which has no interval over samples."""
    networks = [(experiment, value, partial(statistics.t_interval, [value])) for experiment, value in values]
    return mean_over_seeds(networks, within=within, **labels)
