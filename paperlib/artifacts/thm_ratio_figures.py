"""The figures of thm-ratio: a function of a record lays out a figure, a function of data draws one panel."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paperlib.artifacts.drawing import ADV, ATTACK, F_Y, LOG, RAND, line, logarithmic, picture, whiskers
from paperlib.artifacts.reading import known, select, trainings, where
from paperlib.labels import REGIMES, TRUE
from paperlib.words import COLOUR, attack, hue, radius, title

BESIDE = {"fontsize": 8, "loc": "outside right center"}  # style of a legend
RADIUS = "ε, in 1/255"  # of the axis below a panel
RATIO = f"{ADV}/{RAND}"
OUTCOMES = {  # from the bottom of a bar to its top: what became of an image → its colour and the record's quantities
    "no ratio (nothing can change)": ("#bdbdbd", ("no gradient", "nothing can change")),
    "undetermined (too few draws)": ("#e5e5e5", ("undetermined",)),
    "below 3": ("#882255", ("below 3",)),
    "within both bounds": ("#9ecae1", ("inside",)),
    "above 3‖g‖₀": (ATTACK, ("above 3‖g‖₀",)),
}
MARKS = {"measured": ("o", "#0072b2"), "closed form": ("|", ".2"), "first order": ("|", ".2"), "3‖g‖₀": (">", ATTACK)}
ACROSS = {"samples": "#0072b2", "networks": COLOUR}  # what a correlation is taken across
SHARES = ("same decisions", "no gradient in 32 bits")  # of images; the other numbers of scaled logits are medians
MOVING = {"l1": "#0072b2", "ρ_rand": "#cc79a7", "ρ_adv": ATTACK, "ratio": "#000000"}
STEADY = {"participation number": "#0072b2", "Gini": "#e69f00", "same decisions": "#333333"}
NAMES = {"l1": "‖g‖₁", "ρ_rand": RAND, "ρ_adv": ADV, "ratio": RATIO}  # of quantities, where not the quantity
FARTHEST = 1e6  # times the value at c = 1: what lies further off is drawn at the edge of the panel


def target(row: dict) -> str:
    """The title of the number that a sparsity is correlated with: "ratio at 2.55/255", "PGD-20 at 32/255"."""
    return f"{attack(row) if row['target'] == 'survival' else row['target']} at {radius(row)}"


# ---- exact cases -------------------------------------------------------------------------------------------------


def exact(record: dict) -> Figure:
    """Monte Carlo against the closed form; for logistic functions against first order and the upper bound."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), width_ratios=(3, 2), layout="constrained", subplot_kw=LOG)
    for ax, f in zip(axes, ("linear", "logistic"), strict=True):
        cases: dict[tuple, list[dict]] = {}
        for row in select(record, f=f):
            cases.setdefault((row["case"], row.get("eps"), row["law"]), []).append(row)
        for y, rows in enumerate(cases.values()):
            for row in rows:
                mark, colour = MARKS[row["quantity"]]
                style = {"fmt": mark, "color": colour, "markersize": 14 if mark == "|" else 5, "elinewidth": 1.6}
                ax.errorbar(row["value"], y, xerr=whiskers([row]), **style)
        names = [f"{case}, {law}" if eps is None else f"{case}\nε = {eps:.2g}" for case, eps, law in cases]
        ax.set_yticks(range(len(cases)), names)
        ax.set(ylim=(len(cases) - 0.5, -0.5), xlabel=RATIO)
    axes[0].set_title("f linear: gradient, law of the noise")
    axes[1].set_title("f logistic")
    axes[1].axvline(3, color=ATTACK, linewidth=1, linestyle="--")
    names = {"measured": "measured", "first order": "first order", "bounds 3 and 3‖g‖₀": "3‖g‖₀"}
    marks = {name: MARKS[quantity] for name, quantity in names.items()}
    handles = [Line2D([], [], marker=m, color=colour, linestyle="", label=name) for name, (m, colour) in marks.items()]
    axes[1].legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.3, -0.16), ncols=3, fontsize=8, columnspacing=1
    )
    return figure


# ---- regimes -----------------------------------------------------------------------------------------------------


def regimes(record: dict) -> Figure:
    """The ratio against ε, median and quartiles over images."""
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 4), sharey=True, layout="constrained", subplot_kw=LOG)
    names, radii = trainings(record), _radii(record)
    for ax, regime in zip(axes, REGIMES, strict=True):
        for training in names:
            low, median, high = np.array(record["arrays"]["quartiles"][regime][training], dtype=float).T
            ax.plot(radii, median, "o-", color=hue(training), markersize=3)
            ax.fill_between(radii, low, high, color=hue(training), alpha=0.15, linewidth=0)
        for height in (3, 3 * record["arrays"]["pixels"]):
            ax.axhline(height, color=ATTACK, linewidth=1, linestyle="--")
        logarithmic(ax).set(title=regime, xlabel=RADIUS)
    for height, text in ((3, "lower bound 3"), (3 * record["arrays"]["pixels"], "3 × pixels, the largest upper bound")):
        note = {
            "xycoords": axes[0].get_yaxis_transform(),
            "textcoords": "offset points",
            "color": ATTACK,
            "fontsize": 8,
        }
        axes[0].annotate(text, (0.02, height), (0, 3), **note)
    axes[0].set_ylabel(f"{RATIO}, median and quartiles")
    handles = [Line2D([], [], color=hue(name), marker="o", markersize=3, label=title(name)) for name in names]
    figure.legend(handles=handles, fontsize=8, loc="outside right center")
    return figure


def outcomes(record: dict) -> Figure:
    """The shares of images by outcome with the true forward pass: a panel for each training, a bar for each radius."""
    names, rows = trainings(record), select(record, regime=TRUE)
    names = [name for name in names if where(rows, training=name, quantity="inside")]
    shape = {"figsize": (9.6, 3.2), "sharey": True, "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(1, len(names), **shape)
    for ax, name in zip(axes[0], names, strict=True):
        stacked(where(rows, training=name), ax)
        ax.set_title(title(name), color=hue(name), fontweight="bold", fontsize=11)
    axes[0, 0].set_ylabel("images, %")
    handles = [plt.Rectangle((0, 0), 1, 1, facecolor=colour, label=name) for name, (colour, _) in OUTCOMES.items()]
    figure.legend(handles=handles[::-1], fontsize=8, loc="outside right center")
    return figure


def stacked(rows: list[dict], ax: Axes) -> Axes:
    """A bar for each radius: the shares of one training's images by outcome (see `OUTCOMES`)."""
    radii = list(dict.fromkeys(row["eps_255"] for row in where(rows, quantity="inside")))
    bottom = np.zeros(len(radii))
    for colour, quantities in OUTCOMES.values():
        shares = [[100 * (row["value"] or 0) for row in where(rows, quantity=quantity)] for quantity in quantities]
        heights = np.sum(shares, axis=0)
        ax.bar(range(len(radii)), heights, 0.85, bottom, color=colour, linewidth=0)
        bottom = bottom + heights
    ax.set_xticks(range(len(radii)), [f"{eps:.2g}" for eps in radii], rotation=45)
    ax.set(ylim=(0, 100), xlabel=RADIUS)
    ax.grid(visible=False)
    return ax


# ---- vulnerabilities and first order -----------------------------------------------------------------------------


def vulnerabilities(record: dict) -> Figure:
    """ρ_adv and ρ_rand themselves, since their ratio does not show whether both have shrunk."""
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 4), sharey=True, layout="constrained", subplot_kw=LOG)
    for ax, regime in zip(axes, REGIMES, strict=True):
        for training in trainings(record):
            for quantity, style in (("ρ_adv", "-"), ("ρ_rand", "--")):
                rows = select(record, quantity=quantity, regime=regime, training=training)
                line(ax, "eps_255", _positive(rows), hue(training), linestyle=style)
        logarithmic(ax).set(title=regime, xlabel=RADIUS)
    values = _values(_positive(select(record, quantity="ρ_adv") + select(record, quantity="ρ_rand")))
    if values:
        axes[0].set_ylim(min(values) / 10, 3 * max(values))
    axes[0].set_ylabel(f"median squared change of {F_Y}")
    figure.legend(handles=_key(record, {f"{ADV}, attack": "-", f"{RAND}, noise": "--"}), **BESIDE)
    return figure


def first_order(record: dict) -> Figure:
    """Where first order ends, and why: roughness at small radii, saturation at large ones."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    names = trainings(record)
    plt.setp(axes[:2], **LOG)
    for ax, quantity, name in zip(axes, ("ρ_rand", "ρ_adv"), (RAND, ADV), strict=False):
        values = []
        for training in names:
            for regime, style in zip(REGIMES, (":", "-"), strict=True):
                rows = select(record, quantity=f"{quantity} over first order", regime=regime, training=training)
                line(ax, "eps_255", _positive(rows), hue(training), linestyle=style)
                values += _values(_positive(rows))
        ax.axhline(1, color=".4", linewidth=0.8)
        logarithmic(ax).set(title=f"{name}, measured over first order", xlabel=RADIUS)
        if values:
            ax.set_ylim(min(0.5, min(values) / 2), 3 * max(values))
    images = record["arrays"]["saturation"]  # training → log-odds and the ratio over its bound, or None
    for training in names:
        if training in images and any(images[training]["excess"]):
            margin, excess = (np.array(images[training][name], dtype=float) for name in ("margin", "excess"))
            axes[2].plot(margin, excess, ".", color=hue(training), markersize=4, alpha=0.6)
    axes[2].axhline(1, color=ATTACK, linestyle="--", linewidth=1)
    logarithmic(axes[2]).set_xlabel("log-odds of the true class, an image a dot")
    axes[2].set_title(f"{RATIO} over 3‖g‖₀ at {_radii(record)[-1]:g}/255")
    figure.legend(handles=_key(record, {"spiking": "-", "smooth": ":"}), **BESIDE)
    return figure


def _key(record: dict, styles: dict[str, str]) -> list[Line2D]:
    """Entries of a legend: the colour of each training, then the style of each name."""
    colours = [
        Line2D([], [], color=hue(name), marker="o", markersize=3, label=title(name)) for name in trainings(record)
    ]
    return colours + [Line2D([], [], color=".3", linestyle=style, label=name) for name, style in styles.items()]


# ---- the worst image ---------------------------------------------------------------------------------------------


def worst(record: dict) -> Figure:
    """The image that breaks each bound most, beside the ratio over that bound against ε."""
    figure, axes = plt.subplots(1, 4, figsize=(9.6, 3.4), width_ratios=(1, 3, 1, 3), layout="constrained")
    for left, ax, (bound, name) in zip(axes[::2], axes[1::2], (("upper", "3‖g‖₀"), ("lower", "3")), strict=True):
        ax.set(xscale="log", xlabel=RADIUS, ylabel=f"ratio over the {bound} bound {name}")
        ax.axhline(1, color=ATTACK, linestyle="--", linewidth=1)
        rows = _positive(select(record, quantity="ratio over bound", bound=bound))
        if not rows:
            ax.text(0.5, 0.5, "no ratio is defined", transform=ax.transAxes, ha="center")
            left.axis("off")
            continue
        logarithmic(line(ax, "eps_255", rows, hue(rows[0]["training"])))
        picture(left, np.array(record["arrays"]["worst"][bound]))
        left.set_title(f"{title(rows[0]['training'])}, seed {rows[0]['seeds'][0]}")
        left.set_xlabel(f"log-odds of the\ntrue class {rows[0]['log_odds']:.1f}", fontsize=8)
    return figure


# ---- sparsity and scale ------------------------------------------------------------------------------------------


def sparsity(record: dict) -> Figure:
    """Rank correlations of sizes and sparsities with the ratio at the middle radius and with surviving the attack."""
    rows = select(record, quantity="rank correlation")
    radii = list(dict.fromkeys(row["eps_255"] for row in rows if row["target"] != "survival"))
    names = list(dict.fromkeys(row["sparsity"] for row in rows))
    panels: dict[str, list[dict]] = {}
    for row in rows:
        if row["target"] == "survival" or row["eps_255"] == radii[len(radii) // 2]:
            panels.setdefault(target(row), []).append(row)
    shape = {"figsize": (9.6, 3.8), "squeeze": False}
    figure, axes = plt.subplots(1, len(panels), sharey=True, layout="constrained", **shape)
    for ax, (name, correlated) in zip(axes[0], panels.items(), strict=True):
        ax.axvline(0, color=".4", linewidth=0.8)
        for shift, (across, colour) in zip((-0.15, 0.15), ACROSS.items(), strict=True):
            shown = known(where(correlated, across=across))
            y, style = [names.index(row["sparsity"]) + shift for row in shown], {"markersize": 4, "elinewidth": 1.2}
            ax.errorbar(_values(shown), y, xerr=whiskers(shown), fmt="o", color=colour, **style)
        ax.set(title=f"with {name}", xlim=(-1.05, 1.05), xticks=(-1, -0.5, 0, 0.5, 1), xlabel="rank correlation")
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].invert_yaxis()
    keys = zip(("over images", "over networks"), ACROSS.values(), strict=True)
    handles = [Line2D([], [], marker="o", color=colour, linestyle="", label=name) for name, colour in keys]
    figure.legend(handles=handles, **BESIDE)
    return figure


def scale(record: dict) -> Figure:
    """Sizes, ratio and sparsities against the factor c of the logits, which changes no decision."""
    figure, (sizes, rest) = plt.subplots(1, 2, figsize=(9.6, 3.9), layout="constrained", subplot_kw=LOG)
    rows = select(record, quantity="scaled")
    logarithmic(scaled(_positive(rows), MOVING, sizes))
    sizes.set(ylim=(0.3 / FARTHEST, 3 * FARTHEST), ylabel="median, relative to c = 1", title="These move")
    scaled(rows, STEADY, rest)
    rest.set(ylim=(0, 1.3), ylabel="median, relative to c = 1; share of images", title="These hardly move")
    for ax, place in ((sizes, "lower left"), (rest, "lower left")):
        ax.legend(fontsize=8, loc=place)
        ax.set_xlabel("c, the factor of the logits")
    sizes.set_xlabel("c, the factor of the logits; triangles: beyond the axis")
    return figure


def scaled(rows: list[dict], colours: dict[str, str], ax: Axes) -> Axes:
    """A line for each `what` of `colours` against the factor c; all but `SHARES` are relative to the value at c = 1.

    What lies more than `FARTHEST` times above or below that value is a triangle at the edge.
    """
    for name, colour in colours.items():
        shown = known(where(rows, what=name))
        unit = 1 if name in SHARES else next((row["value"] for row in where(shown, scale=1)), None)
        points = [(row["scale"], row["value"] / unit) for row in shown if unit]  # without a unit, an empty line
        heights = [min(max(y, 1 / FARTHEST), FARTHEST) if y > 0 else y for _, y in points]
        ax.plot([x for x, _ in points], heights, "-", color=colour, label=NAMES.get(name, name))
        for (x, y), height in zip(points, heights, strict=True):
            ax.plot(x, height, "o" if y == height else "^" if y > height else "v", color=colour, markersize=4)
    return ax


def _radii(record: dict) -> list[float]:
    return list(dict.fromkeys(row["eps_255"] for row in select(record, quantity="ρ_adv")))


def _positive(rows: list[dict]) -> list[dict]:
    return [row for row in rows if row["value"]]  # a logarithmic scale has no 0


def _values(rows: list[dict]) -> list[float]:
    return [row["value"] for row in known(rows)]
