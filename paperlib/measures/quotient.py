"""The finite-difference proposition: the quotient, its error, and the penalty's gradient by either way."""

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
WINDOW = {"correlation": 0.8, "factor": 2.0}  # a proxy: correlated with ‖g‖₁ at least so, and its mean within so much


# ---- the quotient over h -----------------------------------------------------------------------------------------


class Quotients(NamedTuple):
    """The finite-difference quotients of one network at N samples, in one regime and precision."""

    experiment: Experiment
    regime: str
    precision: str
    l1: np.ndarray  # ‖g‖₁ of this regime's f, (N,)
    quotient: dict[tuple[float, str], np.ndarray]  # by h and scheme, (N,)
    curvature: np.ndarray | None  # dᵀ∇²f_y d, (N,); of a piecewise constant forward pass there is none

    @property
    def labels(self) -> dict:
        return self.experiment.labels | {"regime": self.regime, "precision": self.precision}

    def correlation(self, h: float, scheme: str) -> statistics.Interval:
        return statistics.rank_correlation(self.quotient[h, scheme], self.l1)

    def bias(self, h: float, scheme: str) -> float:
        """Mean quotient over mean ‖g‖₁; NaN where every gradient vanishes."""
        return float(self.quotient[h, scheme].mean() / self.l1.mean()) if self.l1.any() else np.nan

    def window(self, scheme: str) -> list[float]:
        """The h at which the quotient is a proxy of ‖g‖₁, by `WINDOW`."""
        steps = dict.fromkeys(h for h, _ in self.quotient)
        factor = WINDOW["factor"]
        good = [h for h in steps if 1 / factor <= self.bias(h, scheme) <= factor]
        return [h for h in good if self.correlation(h, scheme).value >= WINDOW["correlation"]]


def quotients(opened: Opened, samples: Split, steps: Sequence[float], *, regime: str, precision: str) -> Quotients:
    """The finite-difference quotient of one network for each h of `steps` and each scheme, beside ‖g‖₁.

    `regime` is one of `labels.REGIMES`; `precision`, "float32" or "float64", that of network and images.
    """
    experiment, network = opened
    dtype = PRECISIONS[precision]
    network = _in(network, dtype)
    device = gradients.device_of(network)
    f, parts = (lambda images: network(images).softmax(1)), []  # rounded as it is in training
    with ENTERED[regime](network):
        for x, y, _ in samples.batches(BATCH):
            x, y = x.to(device, dtype), y.to(device)
            gradient = theory.true_class_gradient(f, x, y)
            columns = {"l1": gradients.l1(gradient)} | theory.finite_differences(f, x, y, steps, gradient.sign())
            columns |= {} if regime == TRUE else {"curvature": theory.curvature(f, x, y)}
            parts.append({name: values.cpu().double() for name, values in columns.items()})
    values = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
    l1, curvature = values.pop("l1"), values.pop("curvature", None)
    return Quotients(experiment, regime, precision, l1, values, curvature)


def _in(network: Network, dtype: torch.dtype) -> Network:
    """A copy of the network in that precision; on the CPU where its device lacks 64 bits."""
    lacks = gradients.device_of(network).type == "mps" and dtype == torch.float64
    return copy.deepcopy(network).to("cpu" if lacks else gradients.device_of(network), dtype)


def quotient_rows(found: Iterable[Quotients], *, used: float) -> list[dict]:
    """Per training, regime, precision, scheme and h, over seeds, how the quotient follows ‖g‖₁; per network the window.

    The median error relative to ‖g‖₁; with the true forward pass Spearman's correlation over samples, the ratio of sums
    (quotient over l1; 1 is unbiased) and the share of samples whose probability moved at all, too.  The window is that
    of the forward quotient, and `used` is the h that SR trains with, which must be among the steps measured.
    """
    rows = []
    for labels, group in by_labels(found, lambda q: q.labels):
        for h, scheme in group[0].quotient:
            rows += _followed(group, h, scheme, labels | {"h": h, "scheme": scheme})
        for q in group if group[0].regime == TRUE else []:
            window = q.window("forward")
            method = f"correlation of {WINDOW['correlation']:g} or more, mean within a factor of {WINDOW['factor']:g}"
            for name, end in (("window from", min), ("window to", max)):
                interval = certain(end(window, default=np.nan), len(q.l1), method)
                rows.append(row(interval, [q.experiment], quantity=name, **q.labels))
            at_used = q.correlation(used, "forward")
            rows.append(row(at_used, [q.experiment], quantity="correlation at SR's h", **q.labels))
    return rows


def _followed(group: list[Quotients], h: float, scheme: str, labels: dict) -> list[dict]:
    errors = [(q.experiment, _relative_error(q, h, scheme)) for q in group]
    rows = [over_seeds(errors, geometric=True, quantity="relative error", **labels)]
    if group[0].regime != TRUE:
        return rows
    moved = [(q.experiment, q.quotient[h, scheme] != 0) for q in group]
    own = [partial(q.correlation, h, scheme) for q in group]
    correlation = [(q.experiment, interval().value, interval) for q, interval in zip(group, own, strict=True)]
    bias = [(q.experiment, q.bias(h, scheme), partial(_bias_interval, q, h, scheme)) for q in group]
    return [
        *rows,
        over_seeds(moved, quantity="probability moved", **labels),
        mean_over_seeds(correlation, within=(-1, 1), quantity="rank correlation", **labels),
        mean_over_seeds(bias, quantity="quotient over l1", **labels),
    ]


def _bias_interval(q: Quotients, h: float, scheme: str) -> statistics.Interval:
    return statistics.bootstrap_mean(q.quotient[h, scheme] / q.l1.mean(), seed=0)


def _relative_error(q: Quotients, h: float, scheme: str) -> np.ndarray:
    there = q.l1 > 0
    return np.abs(q.quotient[h, scheme][there] / q.l1[there] - 1)


# ---- the curvature -----------------------------------------------------------------------------------------------


def curvature_rows(found: Iterable[Quotients]) -> list[dict]:
    """The quotient's error over its predicted leading term ±(h/2)·dᵀ∇²f d, on the surrogate-smooth networks.

    The least-squares slope through the origin over samples: 1 where the term is all there is.
    """
    rows = []
    for own, group in by_labels((q for q in found if q.curvature is not None), lambda q: q.labels):
        for h, scheme in group[0].quotient:
            sign = {"forward": 1, "backward": -1}.get(scheme)
            if sign is None:  # the central quotient has no such term
                continue
            slopes = []
            for q in group:
                predicted, error = sign * h / 2 * q.curvature, q.quotient[h, scheme] - q.l1
                square = float(predicted @ predicted)
                slopes.append((q.experiment, float(predicted @ error) / square if square else np.nan))
            labels = own | {"h": h, "scheme": scheme}
            rows.append(_scalar_row(slopes, quantity="error over prediction", **labels))
    return rows


def curvatures(found: Iterable[Quotients], h: float) -> dict:
    """For the figure: {training: [predicted, measured error of the forward quotient], a number a sample} at one h.

    For the first network of each training, in 64 bits.
    """
    smooth = [q for q in found if q.curvature is not None and q.precision == "float64"]
    return {
        q.experiment.labels["training"]: [
            records.array(h / 2 * q.curvature),
            records.array(q.quotient[h, "forward"] - q.l1),
        ]
        for q in reversed(smooth)
    }


def smooth_accuracy_rows(networks: Iterable[Opened], samples: Split) -> list[dict]:
    """Accuracy of the spiking and of the surrogate-smooth network, per network: the latter is another function."""
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
    """The penalty's gradient by the weights, finite difference against exact double back-propagation, over seeds.

    The penalty is the mean of |q|, or of ‖∇f_y‖₁, over `samples`, in eval mode and 64 bits.  Per regime and layer
    (convolutions and readout, from the image on): their cosine, and the norm of the former over that of the latter.
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
                    values.append((labels, (experiment, value)))
    bounds = {"cosine": (-1, 1), "norm ratio": (0, np.inf)}
    return [
        _scalar_row([entry for _, entry in group], within=bounds[labels["quantity"]], **labels)
        for labels, group in by_labels(values, lambda one: one[0])
    ]


def cost_rows(opened: Opened, samples: Split, *, h: float) -> list[dict]:
    """The cost of one gradient step of each penalty, relative to cross-entropy alone: arithmetic and memory.

    Multiply-adds of the convolutions and matrix products, and the most bytes kept at a time for a backward pass, both
    counted, so that they are the same on any machine.  Double back-propagation steps the neuron: the fused one is
    differentiable once.
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
    least = counted(plain, weights)
    for step in (finite_difference, double_back_propagation):
        for quantity, used, unit in zip(("multiply-adds", "bytes kept"), counted(step, weights), least, strict=True):
            interval = certain(used / unit, len(y))
            labels = {"penalty": step.__name__.replace("_", " "), "quantity": quantity} | experiment.labels
            rows.append(row(interval, [experiment], **labels))
    return rows


def _scalar_row(values: list[tuple[Experiment, float]], within: tuple = (-np.inf, np.inf), **labels) -> dict:
    networks = [(experiment, value, partial(statistics.t_interval, [value])) for experiment, value in values]
    return mean_over_seeds(networks, within=within, **labels)
