"""The figures of prop-finite-difference: functions of a record lay out figures, functions of data draw panels."""

from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paperlib.artifacts.drawing import ATTACK, LOG, bound, by_training, line, logarithmic, whiskers
from paperlib.artifacts.reading import known, select, trainings, where
from paperlib.labels import REGIMES, SMOOTH, TRUE
from paperlib.words import hue, title

COLOURS = {"forward": "#0072b2", "backward": "#cc79a7", "central": "#009e73"}  # of schemes
PROXY = {"color": "#009e73", "alpha": 0.08, "linewidth": 0}  # style of the band where the quotient is a proxy
AT_USED = {"color": ".5", "linestyle": ":", "linewidth": 1}  # style of the line at SR's h
QUICK, EXACT = "finite difference", "double back propagation"  # the two ways to the penalty's gradient
MOVED = 1e-3  # from this h on the mean quotient is drawn
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
        (high,), (used,) = (select(record, quantity=name, **network) for name in ("window to", "correlation at SR's h"))
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
    limits = (-0.5, 1.03), (0, 3), (0, 1.03)
    for ax, (quantity, name), ylim in zip(axes, titles.items(), limits, strict=True):
        rows = select(record, quantity=quantity, regime=TRUE, precision="float32", scheme="forward")
        if quantity == "quotient over l1":  # below, most images do not move and the mean hangs on the few that do
            rows = [row for row in rows if row["h"] >= MOVED]
            ax.set_xlim(MOVED / 1.5, None)
        by_training(ax, "h", rows, trainings(record))
        ax.axvline(used, **AT_USED)
        ax.set(xlabel=f"h (dotted: SR's, {used:g})", title=name, ylim=ylim)
    correlated, factor = (record["arrays"]["window"][name] for name in ("correlation", "factor"))
    axes[0].axhspan(correlated, 1, **PROXY)
    axes[1].axhspan(1 / factor, factor, **PROXY)
    axes[1].axhline(1, color=".6", linewidth=0.8)
    axes[2].legend(fontsize=8, loc="lower right")
    return figure


def window(record: dict) -> Figure:
    """A bar for each network from the lowest h to the highest where the quotient is a proxy; right: r at SR's h."""
    networks, used = windows(record), record["arrays"]["used_h"]
    size = 7.2, 0.9 + 0.27 * len(networks)
    figure, ax = plt.subplots(figsize=size, layout="constrained", subplot_kw=_steps(record))
    beside = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": 8}
    for y, (training, _, low, high, correlation) in enumerate(networks):
        if low is not None:
            ax.plot([low, high], [y, y], color=hue(training), linewidth=6, alpha=0.6)
            ax.plot([low, high], [y, y], "o", color=hue(training), markersize=6)
        ax.text(1.02, y, "undefined" if correlation is None else f"{correlation:.2f}", **beside)
    ax.axvline(used, color=".3", linestyle=":", linewidth=1.2)
    ax.text(1.02, -0.9, "r at SR's h", **beside)
    ax.set_yticks(range(len(networks)), [f"{title(w.training)}, seed {w.seed}" for w in networks])
    lows = [w.low for w in networks if w.low is not None]
    ax.set(xlabel="h (dotted: SR's)", ylim=(len(networks) - 0.5, -0.7), xlim=(min([*lows, used]) / 5, None))
    return figure


def schemes(record: dict) -> Figure:
    """The error of the three schemes against h, of the smooth and the spiking network, in two precisions."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", subplot_kw=_steps(record))
    training = trainings(record)[0]
    for ax, regime in zip(axes, REGIMES, strict=True):
        rows = select(record, quantity="relative error", regime=regime, training=training)
        rows = [row for row in rows if row["value"]]  # a logarithmic scale has no 0
        for scheme, colour in COLOURS.items():
            line(ax, "h", where(rows, scheme=scheme, precision="float64"), colour, scheme)
            line(ax, "h", where(rows, scheme=scheme, precision="float32"), colour, linestyle=":")
        logarithmic(ax).set(title=f"{title(training)}, {regime}", xlabel="h")
        ax.axvline(record["arrays"]["used_h"], **AT_USED)
    axes[0].set_ylabel("median of |quotient/‖g‖₁ - 1|")
    axes[0].legend(fontsize=8, title="solid: 64 bits, dotted: 32 bits", title_fontsize=8, loc="lower right")
    return figure


def curvature(record: dict) -> Figure:
    """The error of the smooth networks' quotient against its predicted leading term."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    left.set(**_steps(record))
    names, used = trainings(record), record["arrays"]["used_h"]
    rows = select(record, quantity="error over prediction", precision="float64")
    for training in names:
        for scheme, style, label in (("forward", "-", title(training)), ("backward", "--", None)):
            line(left, "h", where(rows, training=training, scheme=scheme), hue(training), label, linestyle=style)
    left.axhline(1, color=".4", linewidth=0.8)
    left.axvline(used, **AT_USED)
    left.set(title="error over ±(h/2)·dᵀ∇²f d (solid: forward, dashed: backward)", ylim=(0, 1.5), xlabel="h")
    left.legend(fontsize=8, loc="lower left")
    images = record["arrays"]["curvature"]  # training → predictions, errors
    for training in names:
        if training in images:
            right.plot(*images[training], ".", color=hue(training), markersize=5, alpha=0.6)
    values = [value for pair in images.values() for numbers in pair for value in numbers] or [0]
    ends = [min(values), max(values)]
    right.plot(ends, ends, color=".5", linewidth=0.8)
    right.set(xlabel="predicted: (h/2)·dᵀ∇²f d", ylabel="quotient - ‖g‖₁")
    right.set_title(f"at h = {used:g}, first seed, an image a dot")
    return figure


def weights(record: dict) -> Figure:
    """The penalty's gradient by the two ways: direction, norm, cost."""
    figure, axes = plt.subplots(1, 3, figsize=(11.4, 3.8), width_ratios=(3, 3, 2.2), layout="constrained")
    names = trainings(record)
    for ax, quantity in zip(axes, ("cosine", "norm ratio"), strict=False):
        by_layer(select(record, quantity=quantity), names, ax)
    cosines = known(select(record, quantity="cosine"))
    lowest = min((bound(row, "low") for row in cosines), default=0)
    axes[0].set(ylim=(max(-1.05, min(0, lowest) - 0.05), 1.05), title="cosine: finite difference and exact")
    highest = max((row["value"] for row in known(select(record, quantity="norm ratio"))), default=1)
    axes[1].set(ylim=(0, 1.4 * max(highest, 1)), title="norm: finite difference over exact")
    handles = [Line2D([], [], marker="o", color=hue(name), linestyle="", label=title(name)) for name in names]
    handles += [Line2D([], [], marker="o", color=".3", markerfacecolor="white", linestyle="", label="smooth")]
    handles += [Line2D([], [], marker="D", color=".3", linestyle="", label="spiking")]
    figure.legend(handles=handles, loc="outside right center", fontsize=8)
    ways = {QUICK: ("#56b4e9", QUICK), EXACT: (ATTACK, "double\nback propagation")}  # with colours and names
    costs = [row for row in record["rows"] if "penalty" in row]
    for y, row in enumerate(costs):
        axes[2].barh(y, row["value"], color=ways[row["penalty"]][0])
        axes[2].text(row["value"], y, f" {row['value']:.1f}", va="center", fontsize=8)
    axes[2].set_yticks(range(len(costs)), [f"{row['quantity']},\n{ways[row['penalty']][1]}" for row in costs])
    most = max((row["value"] for row in costs), default=1)
    axes[2].set(title="cost, cross-entropy alone = 1", xlim=(0, 1.2 * most))
    axes[2].invert_yaxis()
    axes[2].grid(axis="y", visible=False)
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


def _steps(record: dict) -> dict:
    """Properties of axes with h from left to right."""
    steps = [row["h"] for row in record["rows"] if "h" in row]
    return LOG | {"xlim": (min(steps) / 2, max(steps) * 2)}
