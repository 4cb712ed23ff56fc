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


# ---- the quotient over h -----------------------------------------------------------------------------------------


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
        least, factor = WINDOW["correlation"], WINDOW["factor"]
        unbiased = [
            h for h in dict.fromkeys(h for h, _ in self.quotient) if 1 / factor <= self.bias(h, scheme) <= factor
        ]
        return [h for h in unbiased if self.correlation(h, scheme).value >= least]


def quotients(opened: Opened, samples: Split, steps: Sequence[float], *, regime: str, precision: str) -> Quotients:
    """The finite-difference quotient of one network for each h of `steps` and each scheme, with ‖g‖₁ and the curvature.

    `regime` is one of `labels.REGIMES`; `precision`, "float32" or "float64", is that of network and images.  The
    network itself is not changed.
    """
    experiment, network = opened
    dtype = PRECISIONS[precision]
    network = _in(network, dtype)
    device = gradients.device_of(network)
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


def _in(network: Network, dtype: torch.dtype) -> Network:
    """A copy of the network in that precision; on the CPU where its device has no 64 bits."""
    device = gradients.device_of(network)
    if device.type == "mps" and dtype == torch.float64:
        device = torch.device("cpu")
    return copy.deepcopy(network).to(device, dtype)


def quotient_rows(found: Iterable[Quotients], *, used: float) -> list[dict]:
    """How the quotient follows ‖g‖₁: rows over seeds, and for each network the window of h where it is a proxy.

    Over seeds, for each training, regime, precision, scheme and h: the median error relative to ‖g‖₁.  With the true
    forward pass also the share of samples whose probability moved at all, Spearman's correlation over samples, and the
    sum of quotients over the sum of l1, which is 1 where there is no bias.  The window is that of the forward quotient;
    `used` is the h that SR trains with, which must be among the steps measured.
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
    errors = [(q.experiment, _relative_error(q, h, scheme)) for q in group]
    rows = [over_seeds(errors, geometric=True, quantity="relative error", **labels)]
    if group[0].regime != TRUE:
        return rows
    moved = [(q.experiment, q.quotient[h, scheme] != 0) for q in group]
    correlations = [(q, partial(q.correlation, h, scheme)) for q in group]
    correlations = [(q.experiment, correlation().value, correlation) for q, correlation in correlations]
    biases = [(q.experiment, q.bias(h, scheme), partial(_bias_interval, q, h, scheme)) for q in group]
    return [
        *rows,
        over_seeds(moved, quantity="probability moved", **labels),
        mean_over_seeds(correlations, within=(-1, 1), quantity="rank correlation", **labels),
        mean_over_seeds(biases, quantity="quotient over l1", **labels),
    ]


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


def _bias_interval(q: Quotients, h: float, scheme: str) -> statistics.Interval:
    return statistics.bootstrap_mean(q.quotient[h, scheme] / q.l1.mean(), seed=0)


def _relative_error(q: Quotients, h: float, scheme: str) -> np.ndarray:
    """|quotient/‖g‖₁ - 1| of the samples that have a gradient, (n,)."""
    defined = q.l1 > 0
    return np.abs(q.quotient[h, scheme][defined] / q.l1[defined] - 1)


# ---- the curvature -----------------------------------------------------------------------------------------------


def curvature_rows(found: Iterable[Quotients]) -> list[dict]:
    """The quotient's error over its predicted leading term ±(h/2)·dᵀ∇²f d, on the surrogate-smooth networks.

    For each training, precision, scheme and h, over seeds: the least-squares slope through the origin over samples,
    which is 1 where the error is that term alone.  The central quotient has no such term.
    """
    rows = []
    for common, group in by_labels((q for q in found if q.curvature is not None), lambda q: q.labels):
        for h, scheme in group[0].quotient:
            if scheme not in SIGNS:
                continue
            slopes = []
            for q in group:
                predicted, error = SIGNS[scheme] * h / 2 * q.curvature, q.quotient[h, scheme] - q.l1
                square = float(predicted @ predicted)
                slopes.append((q.experiment, float(predicted @ error) / square if square else np.nan))
            labels = common | {"h": h, "scheme": scheme}
            rows.append(_scalar_row(slopes, quantity="error over prediction", **labels))
    return rows


def curvatures(found: Iterable[Quotients], h: float) -> dict:
    """For the figure: {training: [predicted error, error of the forward quotient]} at one h, (N,) each.

    Of the first network of each training, in 64 bits.
    """
    smooth = [q for q in found if q.curvature is not None and q.precision == "float64"]
    return {
        q.experiment.defense: [
            records.array(h / 2 * q.curvature),
            records.array(q.quotient[h, "forward"] - q.l1),
        ]
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
            labels = experiment.labels | {"regime": regime}
            rows.append(row(statistics.wilson(flags), [experiment], quantity="accuracy", **labels))
    return rows


# ---- the penalty's gradient --------------------------------------------------------------------------------------


def weight_gradient_rows(networks: Iterable[Opened], samples: Split, *, h: float) -> list[dict]:
    """The gradient of the penalty by the weights: finite difference against exact double back-propagation, over seeds.

    The penalty is the mean of the quotient's magnitude |q|, or of ‖∇f_y‖₁, over `samples`, in eval mode and 64 bits.
    For each training, regime and layer (convolutions and readout, numbered from the image on): the cosine of both
    gradients, and the norm of the former over that of the latter.
    """
    values = []
    for experiment, network in networks:
        network = _in(network, torch.float64)
        device = gradients.device_of(network)
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
    """The multiply-adds and bytes kept of one gradient step with each penalty, relative to cross-entropy alone.

    Both are counted (see `cost.Counted`), so they are the same on any machine.  Double back-propagation takes the
    reference path: the fused neuron is differentiable only once.
    """
    experiment, network = opened
    device = gradients.device_of(network)
    x, y = samples.pixels().to(device), samples.labels.to(device)

    def plain() -> Tensor:
        return F.cross_entropy(network(x), y)

    def finite_difference() -> Tensor:
        logits, penalty = regularizers.sr(network, x, y, preset="paper", h=h)
        return F.cross_entropy(logits, y) + penalty

    def double_back_propagation() -> Tensor:
        with network.reference_path():
            logits, penalty = regularizers.exact_l1(network, x, y)
        return F.cross_entropy(logits, y) + penalty

    weights, rows = list(network.parameters()), []
    unit = counted(plain, weights)
    penalties = {"finite difference": finite_difference, "double back propagation": double_back_propagation}
    for penalty, loss in penalties.items():
        cost = counted(loss, weights)
        ratios = {"multiply-adds": cost.multiply_adds / unit.multiply_adds, "bytes kept": cost.kept / unit.kept}
        for quantity, ratio in ratios.items():
            labels = {"penalty": penalty, "quantity": quantity} | experiment.labels
            rows.append(row(certain(ratio, len(y)), [experiment], **labels))
    return rows


def _scalar_row(values: list[tuple[Experiment, float]], within: tuple = (-np.inf, np.inf), **labels) -> dict:
    """The mean over seeds of one number for each network, which has no interval over samples."""
    networks = [(experiment, value, partial(statistics.t_interval, [value])) for experiment, value in values]
    return mean_over_seeds(networks, within=within, **labels)
