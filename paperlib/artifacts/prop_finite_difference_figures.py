"""The figures of prop-finite-difference: the quotient against h, its error, the gradient of the penalty.

A function of a record lays out a figure; a function of data draws one panel.
"""

from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paperlib.artifacts.drawing import ATTACK, LOG, by_training, line, logarithmic, whiskers
from paperlib.artifacts.reading import known, select, trainings, where
from paperlib.labels import REGIMES, SMOOTH, TRUE
from paperlib.words import hue, title

COLOURS = {"forward": "#0072b2", "backward": "#cc79a7", "central": "#009e73"}  # of schemes
PROXY = {"color": "#009e73", "alpha": 0.08, "linewidth": 0}  # style of the band where the quotient is a proxy
QUICK, EXACT = "finite difference", "double back propagation"  # the two ways to the penalty's gradient
LAYERS = 8  # up to so many layers are named one by one


class Window(NamedTuple):
    """The range of h at which the quotient is a proxy in one network, None where it is at none."""

    training: str
    seed: int
    low: float | None
    high: float | None
    correlation: float | None  # with ‖g‖₁, at SR's h


def windows(record: dict) -> list[Window]:
    """The window of each network in 32 bits."""
    networks = []
    for row in select(record, quantity="window from", precision="float32"):
        network = {"training": row["training"], "seeds": row["seeds"], "precision": "float32"}
        (high,) = select(record, quantity="window to", **network)
        (used,) = select(record, quantity="correlation at SR's h", **network)
        networks.append(Window(row["training"], row["seeds"][0], row["value"], high["value"], used["value"]))
    return networks


def followed(record: dict) -> Figure:
    """How the forward quotient of the spiking network follows ‖g‖₁ of its surrogate gradient."""
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.6), layout="constrained", subplot_kw=_steps(record))
    titles = {
        "rank correlation": "rank correlation with ‖g‖₁",
        "quotient over l1": "mean quotient over mean ‖g‖₁",
        "probability moved": "share of images that moved",
    }
    used = record["arrays"]["used_h"]
    for ax, (quantity, name) in zip(axes, titles.items(), strict=True):
        rows = select(record, quantity=quantity, regime=TRUE, precision="float32", scheme="forward")
        by_training(ax, "h", rows, trainings(record))
        ax.axvline(used, color=".5", linestyle=":", linewidth=1)
        ax.set(xlabel=f"h (dotted: SR's, {used:g})", title=name)
    correlated, factor = (record["arrays"]["window"][name] for name in ("correlation", "factor"))
    axes[0].axhspan(correlated, 1, **PROXY)
    axes[0].set_ylim(-0.5, 1.03)
    axes[1].axhspan(1 / factor, factor, **PROXY)
    axes[1].axhline(1, color=".6", linewidth=0.8)
    axes[1].set_ylim(-1, 4)
    axes[2].set_ylim(0, 1.03)
    axes[0].legend(fontsize=8, loc="lower right")
    return figure


def window(record: dict) -> Figure:
    """The h at which the quotient is a proxy, a line for each network."""
    networks = windows(record)
    size = 7.2, 0.9 + 0.27 * len(networks)
    figure, ax = plt.subplots(figsize=size, layout="constrained", subplot_kw=_steps(record))
    spans(networks, record["arrays"]["used_h"], ax)
    return figure


def spans(networks: list[Window], used: float, ax: Axes) -> Axes:
    """A bar for each network from the lowest h to the highest, and on the right its correlation at SR's h, `used`."""
    beside = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": 8}
    for y, (training, _, low, high, correlation) in enumerate(networks):
        if low is not None:
            ax.plot([low, high], [y, y], color=hue(training), linewidth=6, alpha=0.6)
            ax.plot([low, high], [y, y], "|", color=hue(training), markersize=10)
        ax.text(1.02, y, "undefined" if correlation is None else f"{correlation:.2f}", **beside)
    ax.axvline(used, color=".3", linestyle=":", linewidth=1.2)
    ax.text(1.02, -1, "r at SR's h", **beside)
    ax.set_yticks(range(len(networks)), [f"{title(w.training)}, seed {w.seed}" for w in networks])
    ax.set(xlabel="h (dotted: SR's)", ylim=(len(networks) - 0.5, -0.7))
    return ax


def schemes(record: dict) -> Figure:
    """The error of the three schemes against h, of the smooth and the spiking network, in two precisions."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained", subplot_kw=_steps(record))
    training = trainings(record)[0]
    for ax, regime in zip(axes, REGIMES, strict=True):
        errors(select(record, quantity="relative error", regime=regime, training=training), ax)
        ax.axvline(record["arrays"]["used_h"], color=".5", linestyle=":", linewidth=1)
        ax.set(title=f"{title(training)}, {regime}", xlabel="h")
    axes[0].set_ylabel("median of |quotient/‖g‖₁ - 1|")
    axes[0].legend(fontsize=8, title="solid: 64 bits, dotted: 32 bits", title_fontsize=8)
    return figure


def errors(rows: list[dict], ax: Axes) -> Axes:
    """The error of one training against h, a line for each scheme and precision."""
    for scheme, colour in COLOURS.items():
        for precision, style, label in (("float64", "-", scheme), ("float32", ":", None)):
            shown = [row for row in where(rows, scheme=scheme, precision=precision) if row["value"]]
            line(ax, "h", shown, colour, label, linestyle=style)
    return logarithmic(ax)


def curvature(record: dict) -> Figure:
    """The error of the smooth networks' quotient against its predicted leading term."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    left.set(**_steps(record))
    names, used = trainings(record), record["arrays"]["used_h"]
    over_prediction(select(record, quantity="error over prediction", precision="float64"), names, left)
    left.axvline(used, color=".5", linestyle=":", linewidth=1)
    left.legend(fontsize=8, loc="lower left")
    images = record["arrays"]["curvature"]
    predictions({name: images[name] for name in names if name in images}, right)
    right.set_title(f"at h = {used:g}, first seed, an image a dot")
    return figure


def over_prediction(rows: list[dict], names: list[str], ax: Axes) -> Axes:
    """The error over its predicted leading term against h: solid of the forward scheme, dashed of the backward one."""
    for training in names:
        for scheme, style, label in (("forward", "-", title(training)), ("backward", "--", None)):
            line(ax, "h", where(rows, training=training, scheme=scheme), hue(training), label, linestyle=style)
    ax.axhline(1, color=".4", linewidth=0.8)
    ax.set(title="error over ±(h/2)·dᵀ∇²f d (solid: forward, dashed: backward)", ylim=(0, 1.5), xlabel="h")
    return ax


def predictions(images: dict[str, tuple[list[float], list[float]]], ax: Axes) -> Axes:
    """The error against its predicted leading term, a dot for each image.

    `images` maps a training to predictions and errors.
    """
    for training, (predicted, error) in images.items():
        ax.plot(predicted, error, ".", color=hue(training), markersize=5, alpha=0.6)
    values = [value for pair in images.values() for numbers in pair for value in numbers] or [0]
    ends = [min(values), max(values)]
    ax.plot(ends, ends, color=".5", linewidth=0.8)
    ax.set(xlabel="predicted: (h/2)·dᵀ∇²f d", ylabel="quotient - ‖g‖₁")
    return ax


def weights(record: dict) -> Figure:
    """The penalty's gradient by the two ways: direction, norm, cost."""
    figure, axes = plt.subplots(1, 3, figsize=(10.4, 3.8), width_ratios=(3, 3, 2.2), layout="constrained")
    names = trainings(record)
    for ax, quantity in zip(axes, ("cosine", "norm ratio"), strict=False):
        by_layer(select(record, quantity=quantity), names, ax)
    axes[0].set(ylim=(-1.05, 1.05), title="cosine: finite difference and exact")
    axes[1].set(ylim=(0, None), title="norm: finite difference over exact")
    handles = [Line2D([], [], marker="o", color=hue(name), linestyle="", label=title(name)) for name in names]
    handles += [Line2D([], [], marker="o", color=".3", markerfacecolor="white", linestyle="", label="smooth")]
    handles += [Line2D([], [], marker="D", color=".3", linestyle="", label="spiking")]
    axes[0].legend(handles=handles, loc="lower left", ncols=2, fontsize=8)
    costs([row for row in record["rows"] if "penalty" in row], axes[2])
    return figure


def by_layer(rows: list[dict], names: list[str], ax: Axes) -> Axes:
    """A marker for each layer, training of `names` and regime: hollow for smooth networks, full for spiking ones."""
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    for i, training in enumerate(names):
        for regime, mark, fill in ((SMOOTH, "o", "white"), (TRUE, "D", hue(training))):
            shown = known(where(rows, training=training, regime=regime))
            x = [layers.index(row["layer"]) + (i - (len(names) - 1) / 2) * 0.17 for row in shown]
            style = {"color": hue(training), "markerfacecolor": fill, "markersize": 5, "elinewidth": 0.9}
            ax.errorbar(x, [row["value"] for row in shown], yerr=whiskers(shown), fmt=mark, **style)
    ax.axhline(1, color=".5", linewidth=0.8)
    last = max(layers, default=1)
    few = len(layers) <= LAYERS
    ax.set_xticks(range(len(layers)), [f"layer {n}" if n < last else "readout" for n in layers] if few else layers)
    ax.grid(axis="x", visible=False)
    return ax


def costs(rows: list[dict], ax: Axes) -> Axes:
    """A bar for each kind of cost and way to the penalty's gradient, in costs of a step without a penalty."""
    colours = {QUICK: "#56b4e9", EXACT: ATTACK}
    names = {QUICK: "finite difference", EXACT: "double\nback propagation"}
    for y, row in enumerate(rows):
        ax.barh(y, row["value"], color=colours[row["penalty"]])
        ax.text(row["value"], y, f" {row['value']:.1f}", va="center", fontsize=8)
    ax.set_yticks(range(len(rows)), [f"{row['quantity']},\n{names[row['penalty']]}" for row in rows])
    ax.set(title="cost, cross-entropy alone = 1", xlim=(0, 1.2 * max((row["value"] for row in rows), default=1)))
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    return ax


def _steps(record: dict) -> dict:
    """Properties of axes with h from left to right."""
    steps = [row["h"] for row in record["rows"] if "h" in row]
    return LOG | {"xlim": (min(steps) / 2, max(steps) * 2)}
