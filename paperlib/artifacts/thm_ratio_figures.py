"""The figures of thm-ratio: exact cases, regimes, first order, the worst image, sparsity, scale of the logits.

A function of a record lays out a figure; a function of data draws one panel.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paperlib import words
from paperlib.artifacts.drawing import ATTACK, LOG, by_training, line, logarithmic, picture, whiskers
from paperlib.artifacts.reading import known, select, trainings, where
from paperlib.labels import REGIMES, TRUE
from paperlib.words import hue, title

RADIUS = "ε, in 1/255"  # of the axis below a panel
OUTCOMES = {  # outcomes of an image, from the bottom of a bar to its top, with colours
    "no gradient": "#8c8c8c",
    "nothing moved": "#d9d9d9",
    "below 3": "#882255",
    "inside": "#9ecae1",
    "above 3‖g‖₀": ATTACK,
    "only the attack moved": "#f5b78a",
}
MARKS = {"measured": ("o", "#0072b2"), "closed form": ("|", ".2"), "first order": ("|", ".2"), "3‖g‖₀": (">", ATTACK)}
ACROSS = {"samples": "#0072b2", "networks": words.COLOUR}  # what a correlation is taken across
SHARES = ("same decisions", "no gradient in 32 bits")  # of images; the other numbers of scaled logits are medians
MOVING = {"l1": "#0072b2", "l2": "#56b4e9", "ρ_rand": "#cc79a7", "ρ_adv": ATTACK, "ratio": "#000000"}
STEADY = {
    "participation number": "#0072b2",
    "participation number, two classes": "#56b4e9",
    "Hoyer": "#009e73",
    "Gini": "#e69f00",
    "same decisions": ".2",
    "no gradient in 32 bits": ATTACK,
}


def target(row: dict) -> str:
    """The title of the number that a sparsity is correlated with: "ratio at 2.55/255", "PGD-20 at 32/255"."""
    name = words.attack(row) if row["target"] == "survival" else row["target"]
    return f"{name} at {words.radius(row)}"


# ---- exact cases -------------------------------------------------------------------------------------------------


def exact(record: dict) -> Figure:
    """Monte Carlo against the closed form; for logistic functions against first order and the upper bound."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), width_ratios=(3, 2), layout="constrained", subplot_kw=LOG)
    for ax, f in zip(axes, ("linear", "logistic"), strict=True):
        cases(select(record, f=f), ax)
    axes[0].set_title("f linear: gradient, law of the noise")
    axes[1].set_title("f logistic")
    axes[1].axvline(3, color=ATTACK, linewidth=1, linestyle="--")
    marks = {"measured": "measured", "first order": "first order", "bounds 3 and 3‖g‖₀": "3‖g‖₀"}
    handles = []
    for name, quantity in marks.items():
        mark, colour = MARKS[quantity]
        handles.append(Line2D([], [], marker=mark, color=colour, linestyle="", label=name))
    axes[0].legend(handles=handles, loc="lower left", fontsize=8)
    return figure


def cases(rows: list[dict], ax: Axes) -> Axes:
    """A line for each case and law of the noise: a mark for each row, by its quantity (see `MARKS`)."""
    lines: dict[tuple, list[dict]] = {}
    for row in rows:
        lines.setdefault((row["case"], row.get("eps"), row["law"]), []).append(row)
    for y, marked in enumerate(lines.values()):
        for row in marked:
            mark, colour = MARKS[row["quantity"]]
            size = 14 if mark == "|" else 5
            style = {"fmt": mark, "color": colour, "markersize": size, "elinewidth": 1.6}
            ax.errorbar(row["value"], y, xerr=whiskers([row]), **style)
    names = [f"{case}, {law}" if eps is None else f"{case}\nε = {eps:.2g}" for case, eps, law in lines]
    ax.set_yticks(range(len(lines)), names)
    ax.set(ylim=(len(lines) - 0.5, -0.5), xlabel="ρ_adv/ρ_rand")
    return ax


# ---- regimes -----------------------------------------------------------------------------------------------------


def regimes(record: dict) -> Figure:
    """Above: the ratio against ε, median and quartiles over images.  Below: the shares of images by outcome."""
    figure, axes = plt.subplots(2, 2, figsize=(9.6, 6), height_ratios=(3, 2.3), layout="constrained")
    names, radii = trainings(record), _radii(record)
    linear = {name: _values(select(record, quantity="linear ratio", training=name)) for name in names}
    for above, below, regime in zip(*axes, REGIMES, strict=True):
        above.set_xscale("log")
        quartiles = {name: record["arrays"]["quartiles"][regime][name] for name in names}
        ratios(radii, quartiles, linear, record["arrays"]["pixels"], above)
        above.set_title(regime)
        outcomes(select(record, regime=regime), names, below)
    axes[0, 0].sharey(axes[0, 1])
    axes[0, 0].set_ylabel("ρ_adv/ρ_rand\n(dotted: the linear ratio)")
    axes[1, 0].set_ylabel("share of images")
    handles = [Line2D([], [], color=hue(name), marker="o", markersize=3, label=title(name)) for name in names]
    handles += [Line2D([], [], linestyle="", label=" ")]
    handles += [plt.Rectangle((0, 0), 1, 1, facecolor=colour, label=name) for name, colour in OUTCOMES.items()]
    figure.legend(handles=handles, fontsize=8, loc="outside right center")
    return figure


def ratios(
    radii: list[float], quartiles: dict[str, list], linear: dict[str, list[float]], pixels: int, ax: Axes
) -> Axes:
    """Each training's ratio against the radius, with the bounds 3 and 3·`pixels`.

    `quartiles` maps a training to three numbers for each radius; the mean of its `linear` ratios is a dotted line.
    """
    for training, values in quartiles.items():
        low, median, high = np.array(values, dtype=float).T
        ax.plot(radii, median, "o-", color=hue(training), markersize=3, label=title(training))
        ax.fill_between(radii, low, high, color=hue(training), alpha=0.15, linewidth=0)
        if linear[training]:
            ax.axhline(np.mean(linear[training]), color=hue(training), linewidth=0.8, linestyle=":")
    for height, text in ((3, "3"), (3 * pixels, "3·pixels")):
        ax.axhline(height, color=ATTACK, linewidth=1, linestyle="--")
        ax.text(radii[0], height * 1.1, text, color=ATTACK, fontsize=8)
    ax.set_xlabel(RADIUS)
    return logarithmic(ax)


def outcomes(rows: list[dict], names: list[str], ax: Axes) -> Axes:
    """A bar for each radius and each training of `names`: the shares of images by outcome (see `OUTCOMES`)."""
    rows = [row for row in rows if row["quantity"] in OUTCOMES]
    radii = list(dict.fromkeys(row["eps_255"] for row in rows))
    width = 0.86 / len(names)
    for i, training in enumerate(names):
        x, bottom = np.arange(len(radii)) + (i - (len(names) - 1) / 2) * width, np.zeros(len(radii))
        for name, colour in OUTCOMES.items():
            heights = [row["value"] or 0 for row in where(rows, quantity=name, training=training)]
            ax.bar(x, heights, width * 0.9, bottom, color=colour, linewidth=0)
            bottom = bottom + heights
        for place in x:
            ax.plot([place - width * 0.45, place + width * 0.45], [-0.03] * 2, color=hue(training), linewidth=3)
    ax.set_xticks(range(len(radii)), [f"{eps:.2g}" for eps in radii])
    ax.set(ylim=(-0.05, 1), xlabel=RADIUS)
    ax.grid(visible=False)
    return ax


# ---- vulnerabilities and first order -----------------------------------------------------------------------------


def vulnerabilities(record: dict) -> Figure:
    """ρ_adv and ρ_rand themselves, since their ratio does not show whether both have shrunk."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained", subplot_kw=LOG)
    for ax, regime in zip(axes, REGIMES, strict=True):
        changes(select(record, regime=regime), trainings(record), ax)
        ax.set(title=regime, ylim=(1e-14, 3))
        logarithmic(ax)
    axes[0].set_ylabel("median squared change of f_y")
    axes[0].legend(fontsize=8, title="solid: ρ_adv, dashed: ρ_rand", title_fontsize=8)
    return figure


def changes(rows: list[dict], names: list[str], ax: Axes) -> Axes:
    """ρ_adv (solid) and ρ_rand (dashed) of each training of `names` against the radius."""
    for training in names:
        for quantity, style, label in (("ρ_adv", "-", title(training)), ("ρ_rand", "--", None)):
            positive = [row for row in where(rows, quantity=quantity, training=training) if row["value"]]
            line(ax, "eps_255", positive, hue(training), label, linestyle=style)  # a logarithmic scale has no 0
    ax.set_xlabel(RADIUS)
    return ax


def first_order(record: dict) -> Figure:
    """Where first order ends, and why: roughness at small radii, saturation at large ones."""
    figure, axes = plt.subplots(1, 4, figsize=(12, 3.6), layout="constrained")
    names = trainings(record)
    for ax, symbol in zip(axes, ("ρ_rand", "ρ_adv"), strict=False):
        ax.set(**LOG)
        over_first_order(select(record, quantity=f"{symbol} over first order"), names, ax)
        ax.set_title(f"{symbol}, measured/first order")
    axes[2].set(**LOG)
    by_training(axes[2], "eps_255", select(record, quantity="draws that moved f_y", regime=TRUE), names)
    axes[2].set(ylim=(0, 1.03), xlabel=RADIUS)
    axes[2].legend(fontsize=8, loc="lower right", title="solid: spiking\ndotted: smooth", title_fontsize=8)
    axes[2].set_title("draws that move f_y (spiking)")
    images = record["arrays"]["saturation"]
    saturation({name: images[name] for name in names if name in images}, axes[3])
    axes[3].set_title(f"ratio/3‖g‖₀ at {_radii(record)[-1]:g}/255")
    return figure


def over_first_order(rows: list[dict], names: list[str], ax: Axes) -> Axes:
    """A vulnerability over its first order against the radius: dotted of smooth networks, solid of spiking ones."""
    for training in names:
        for regime, style in zip(REGIMES, (":", "-"), strict=True):
            positive = [row for row in where(rows, regime=regime, training=training) if row["value"]]
            line(ax, "eps_255", positive, hue(training), linestyle=style)
    ax.axhline(1, color=".4", linewidth=0.8)
    ax.set_xlabel(RADIUS)
    logarithmic(ax)
    ax.set_ylim(0.2, 2e3)
    return ax


def saturation(images: dict[str, dict], ax: Axes) -> Axes:
    """The ratio over its upper bound against the log-odds of the true class, a dot for each image.

    `images` maps a training to lists: "margin", the log-odds, and "excess", the ratio over the bound or None.
    """
    for training, values in images.items():
        if any(values["excess"]):
            margin, excess = (np.array(values[name], dtype=float) for name in ("margin", "excess"))
            ax.plot(margin, excess, ".", color=hue(training), markersize=4, alpha=0.6)
    ax.axhline(1, color=ATTACK, linestyle="--", linewidth=1)
    ax.set_xlabel("log-odds of the true class")
    return logarithmic(ax)


# ---- the worst image ---------------------------------------------------------------------------------------------


def worst(record: dict) -> Figure:
    """The image that breaks each bound most, beside the ratio over that bound against ε."""
    figure, axes = plt.subplots(1, 4, figsize=(9.6, 3.4), width_ratios=(1, 3, 1, 3), layout="constrained")
    for left, ax, (bound, name) in zip(axes[::2], axes[1::2], (("upper", "3‖g‖₀"), ("lower", "3")), strict=True):
        ax.set_xscale("log")
        rows = [r for r in select(record, quantity="ratio over bound", bound=bound) if r["value"]]
        over_bound(rows, ax)
        ax.set_ylabel(f"ratio over the {bound} bound {name}")
        if not rows:
            left.axis("off")
            continue
        picture(left, np.array(record["arrays"]["worst"][bound]))
        left.set_title(f"{title(rows[0]['training'])}, seed {rows[0]['seeds'][0]}")
        left.set_xlabel(f"log-odds of the\ntrue class {rows[0]['log_odds']:.1f}", fontsize=8)
    return figure


def over_bound(rows: list[dict], ax: Axes) -> Axes:
    """The ratio of one image over a bound against the radius, or a note that none is defined."""
    ax.axhline(1, color=ATTACK, linestyle="--", linewidth=1)
    ax.set_xlabel(RADIUS)
    if not rows:
        ax.text(0.5, 0.5, "no ratio is defined", transform=ax.transAxes, ha="center")
        return ax
    line(ax, "eps_255", rows, hue(rows[0]["training"]))
    return logarithmic(ax)


# ---- sparsity and scale ------------------------------------------------------------------------------------------


def sparsity(record: dict) -> Figure:
    """Rank correlations of each size and sparsity with the ratio and with survival, over samples and networks."""
    rows = select(record, quantity="rank correlation")
    names = list(dict.fromkeys(row["sparsity"] for row in rows))
    panels: dict[str, list[dict]] = {}
    for row in rows:
        panels.setdefault(target(row), []).append(row)
    size = 2 + 1.7 * len(panels), 4
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for ax, (name, correlated) in zip(axes[0], panels.items(), strict=True):
        correlations(correlated, names, ax)
        ax.set_title(name)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].invert_yaxis()
    handles = [Line2D([], [], marker="o", color=c, linestyle="", label=f"over {name}") for name, c in ACROSS.items()]
    figure.legend(handles=handles, loc="outside right upper", fontsize=8)
    return figure


def correlations(rows: list[dict], names: list[str], ax: Axes) -> Axes:
    """A line for each of the sparsities `names`, with correlations across samples and across networks."""
    ax.axvline(0, color=".4", linewidth=0.8)
    for shift, (across, colour) in zip((-0.15, 0.15), ACROSS.items(), strict=True):
        shown = known(where(rows, across=across))
        y = [names.index(row["sparsity"]) + shift for row in shown]
        style = {"fmt": "o", "color": colour, "markersize": 4, "elinewidth": 1.2}
        ax.errorbar(_values(shown), y, xerr=whiskers(shown), **style)
    ax.set(xlim=(-1.05, 1.05), xticks=(-1, 0, 1))
    return ax


def scale(record: dict) -> Figure:
    """Sizes, ratio and sparsities against the factor c of the logits, which changes no decision."""
    figure, (sizes, rest) = plt.subplots(1, 2, figsize=(9.6, 3.9), layout="constrained", subplot_kw=LOG)
    rows = select(record, quantity="scaled")
    scaled([row for row in rows if row["value"]], MOVING, sizes)  # a logarithmic scale has no 0
    sizes.legend(fontsize=7.5, loc="lower left")
    sizes.set(ylim=(1e-40, 1e30), ylabel="median, relative to c = 1", title="Sizes, vulnerabilities and their ratio")
    logarithmic(sizes)
    scaled(rows, STEADY, rest)
    rest.legend(fontsize=7.5, loc="upper left")
    rest.set(ylim=(-0.05, 1.9), title="Sparsities, decisions, vanished gradients")
    return figure


def scaled(rows: list[dict], colours: dict[str, str], ax: Axes) -> Axes:
    """A line for each of `colours`, which map the rows' label `what` to a colour, against the factor of the logits.

    Medians are relative to those at factor 1, `SHARES` are drawn as they are.
    """
    for name, colour in colours.items():
        shown = known(where(rows, what=name))
        unit = 1 if name in SHARES else next((row["value"] for row in where(shown, scale=1)), None)
        if not unit:
            shown = []  # nothing to be relative to
        x, y = [row["scale"] for row in shown], [row["value"] / unit for row in shown]
        ax.plot(x, y, "o-", color=colour, markersize=3, label=name)
    ax.set_xlabel("c, the factor of the logits")
    return ax


def _radii(record: dict) -> list[float]:
    return list(dict.fromkeys(row["eps_255"] for row in select(record, quantity="ρ_adv")))


def _values(rows: list[dict]) -> list[float]:
    return [row["value"] for row in known(rows)]
