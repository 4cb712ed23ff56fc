"""The figures of thm-ratio: a function of a record lays out a figure, a function of data draws one panel."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paperlib.artifacts.drawing import ATTACK, LOG, by_training, line, logarithmic, picture, whiskers
from paperlib.artifacts.reading import known, select, trainings, where
from paperlib.labels import REGIMES, TRUE
from paperlib.words import COLOUR, attack, hue, radius, title

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
ACROSS = {"samples": "#0072b2", "networks": COLOUR}  # what a correlation is taken across
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
        ax.set(ylim=(len(cases) - 0.5, -0.5), xlabel="ρ_adv/ρ_rand")
    axes[0].set_title("f linear: gradient, law of the noise")
    axes[1].set_title("f logistic")
    axes[1].axvline(3, color=ATTACK, linewidth=1, linestyle="--")
    names = {"measured": "measured", "first order": "first order", "bounds 3 and 3‖g‖₀": "3‖g‖₀"}
    marks = {name: MARKS[quantity] for name, quantity in names.items()}
    handles = [Line2D([], [], marker=m, color=colour, linestyle="", label=name) for name, (m, colour) in marks.items()]
    axes[0].legend(handles=handles, loc="lower left", fontsize=8)
    return figure


# ---- regimes -----------------------------------------------------------------------------------------------------


def regimes(record: dict) -> Figure:
    """Above: the ratio against ε, median and quartiles over images.  Below: the shares of images by outcome."""
    figure, axes = plt.subplots(2, 2, figsize=(9.6, 6), height_ratios=(3, 2.3), layout="constrained")
    names, radii = trainings(record), _radii(record)
    for above, below, regime in zip(*axes, REGIMES, strict=True):
        above.set_xscale("log")
        for training in names:
            low, median, high = np.array(record["arrays"]["quartiles"][regime][training], dtype=float).T
            above.plot(radii, median, "o-", color=hue(training), markersize=3)
            above.fill_between(radii, low, high, color=hue(training), alpha=0.15, linewidth=0)
            if linear := _values(select(record, quantity="linear ratio", training=training)):
                above.axhline(np.mean(linear), color=hue(training), linewidth=0.8, linestyle=":")
        for height, text in ((3, "3"), (3 * record["arrays"]["pixels"], "3·pixels")):
            above.axhline(height, color=ATTACK, linewidth=1, linestyle="--")
            above.text(radii[0], height * 1.1, text, color=ATTACK, fontsize=8)
        logarithmic(above).set(title=regime, xlabel=RADIUS)
        outcomes(select(record, regime=regime), names, below)
    axes[0, 0].sharey(axes[0, 1])
    axes[0, 0].set_ylabel("ρ_adv/ρ_rand\n(dotted: the linear ratio)")
    axes[1, 0].set_ylabel("share of images")
    handles = [Line2D([], [], color=hue(name), marker="o", markersize=3, label=title(name)) for name in names]
    handles.append(Line2D([], [], linestyle="", label=" "))
    handles += [plt.Rectangle((0, 0), 1, 1, facecolor=colour, label=name) for name, colour in OUTCOMES.items()]
    figure.legend(handles=handles, fontsize=8, loc="outside right center")
    return figure


def outcomes(rows: list[dict], names: list[str], ax: Axes) -> Axes:
    """A bar for each radius and each training of `names`: the shares of images by outcome (see `OUTCOMES`)."""
    radii = list(dict.fromkeys(row["eps_255"] for row in rows if row["quantity"] in OUTCOMES))
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
        for training in trainings(record):
            for quantity, style, label in (("ρ_adv", "-", title(training)), ("ρ_rand", "--", None)):
                rows = select(record, quantity=quantity, regime=regime, training=training)
                line(ax, "eps_255", _positive(rows), hue(training), label, linestyle=style)
        logarithmic(ax).set(title=regime, xlabel=RADIUS, ylim=(1e-14, 3))
    axes[0].set_ylabel("median squared change of f_y")
    axes[0].legend(fontsize=8, title="solid: ρ_adv, dashed: ρ_rand", title_fontsize=8)
    return figure


def first_order(record: dict) -> Figure:
    """Where first order ends, and why: roughness at small radii, saturation at large ones."""
    figure, axes = plt.subplots(1, 4, figsize=(12, 3.6), layout="constrained")
    names = trainings(record)
    plt.setp(axes[:3], **LOG)
    for ax, symbol in zip(axes, ("ρ_rand", "ρ_adv"), strict=False):
        for training in names:
            for regime, style in zip(REGIMES, (":", "-"), strict=True):
                rows = select(record, quantity=f"{symbol} over first order", regime=regime, training=training)
                line(ax, "eps_255", _positive(rows), hue(training), linestyle=style)
        ax.axhline(1, color=".4", linewidth=0.8)
        logarithmic(ax).set(title=f"{symbol}, measured/first order", xlabel=RADIUS, ylim=(0.2, 2e3))
    by_training(axes[2], "eps_255", select(record, quantity="draws that moved f_y", regime=TRUE), names)
    axes[2].set(ylim=(0, 1.03), xlabel=RADIUS, title="draws that move f_y (spiking)")
    axes[2].legend(fontsize=8, loc="lower right", title="solid: spiking\ndotted: smooth", title_fontsize=8)
    images = record["arrays"]["saturation"]  # training → log-odds and the ratio over its bound, or None
    for training in names:
        if training in images and any(images[training]["excess"]):
            margin, excess = (np.array(images[training][name], dtype=float) for name in ("margin", "excess"))
            axes[3].plot(margin, excess, ".", color=hue(training), markersize=4, alpha=0.6)
    axes[3].axhline(1, color=ATTACK, linestyle="--", linewidth=1)
    logarithmic(axes[3]).set_xlabel("log-odds of the true class")
    axes[3].set_title(f"ratio/3‖g‖₀ at {_radii(record)[-1]:g}/255")
    return figure


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
    """Rank correlations of each size and sparsity with the ratio and with survival, over samples and networks."""
    rows = select(record, quantity="rank correlation")
    names = list(dict.fromkeys(row["sparsity"] for row in rows))
    panels: dict[str, list[dict]] = {}
    for row in rows:
        panels.setdefault(target(row), []).append(row)
    shape = {"figsize": (2 + 1.7 * len(panels), 4), "squeeze": False}
    figure, axes = plt.subplots(1, len(panels), sharey=True, layout="constrained", **shape)
    for ax, (name, correlated) in zip(axes[0], panels.items(), strict=True):
        ax.axvline(0, color=".4", linewidth=0.8)
        for shift, (across, colour) in zip((-0.15, 0.15), ACROSS.items(), strict=True):
            shown = known(where(correlated, across=across))
            y, style = [names.index(row["sparsity"]) + shift for row in shown], {"markersize": 4, "elinewidth": 1.2}
            ax.errorbar(_values(shown), y, xerr=whiskers(shown), fmt="o", color=colour, **style)
        ax.set(title=name, xlim=(-1.05, 1.05), xticks=(-1, 0, 1))
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].invert_yaxis()
    handles = [Line2D([], [], marker="o", color=c, linestyle="", label=f"over {name}") for name, c in ACROSS.items()]
    figure.legend(handles=handles, loc="outside right upper", fontsize=8)
    return figure


def scale(record: dict) -> Figure:
    """Sizes, ratio and sparsities against the factor c of the logits, which changes no decision."""
    figure, (sizes, rest) = plt.subplots(1, 2, figsize=(9.6, 3.9), layout="constrained", subplot_kw=LOG)
    rows = select(record, quantity="scaled")
    logarithmic(scaled(_positive(rows), MOVING, sizes)).legend(fontsize=7.5, loc="lower left")
    sizes.set(ylim=(1e-40, 1e30), ylabel="median, relative to c = 1", title="Sizes, vulnerabilities and their ratio")
    scaled(rows, STEADY, rest)
    rest.legend(fontsize=7.5, loc="upper left")
    rest.set(ylim=(-0.05, 1.9), title="Sparsities, decisions, vanished gradients")
    return figure


def scaled(rows: list[dict], colours: dict[str, str], ax: Axes) -> Axes:
    """A line for each `what` of `colours` against the factor c; all but `SHARES` are relative to the value at c = 1."""
    for name, colour in colours.items():
        shown = known(where(rows, what=name))
        unit = 1 if name in SHARES else next((row["value"] for row in where(shown, scale=1)), None)
        points = [(row["scale"], row["value"] / unit) for row in shown if unit]  # without a unit, an empty line
        ax.plot([x for x, _ in points], [y for _, y in points], "o-", color=colour, markersize=3, label=name)
    ax.set_xlabel("c, the factor of the logits")
    return ax


def _radii(record: dict) -> list[float]:
    return list(dict.fromkeys(row["eps_255"] for row in select(record, quantity="ρ_adv")))


def _positive(rows: list[dict]) -> list[dict]:
    return [row for row in rows if row["value"]]  # a logarithmic scale has no 0


def _values(rows: list[dict]) -> list[float]:
    return [row["value"] for row in known(rows)]
