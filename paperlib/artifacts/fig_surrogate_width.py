"""Accuracy against the width of the attacker's backward rule."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from paperlib import labels
from paperlib.artifacts.drawing import LOG, bound
from paperlib.artifacts.reading import IMAGES, one_network, select, trainings, under, where
from paperlib.artifacts.tabulating import contrasted
from paperlib.words import hue, title

MARKERS = {"triangle": "^", "rectangle": "s", "exponential": "o"}
NAMES = {"straight-through": "straight", "assg": "ASSG", "pdsg": "PDSG"}  # of rules on the x-axis, where not the label
caption = IMAGES
table = contrasted


def headline(record: dict) -> str:
    """The most that another backward rule takes beyond the network's own."""
    contrasts = [row for row in select(record, quantity="mean contrast") if "rule" in row]
    strongest = min(contrasts, key=lambda row: row["value"])
    note, taken = one_network(contrasts), f"{-100 * strongest['value']:.0f}"
    if taken.lstrip("-") == "0" or strongest["value"] > 0:
        return f"No other backward rule takes more accuracy than the network's own{note}"
    return f"Other backward rules take at most {taken} points more accuracy than the network's own{note}"


def figure(record: dict) -> Figure:
    """A panel for each training."""
    means, names = select(record, quantity="mean accuracy"), trainings(record)
    options = {"sharey": True, "squeeze": False, "subplot_kw": LOG, "layout": "constrained"}
    fig, axes = plt.subplots(1, len(names), figsize=(12, 4), **options)
    for ax, training in zip(axes[0], names, strict=True):
        rules(where(means, training=training), ax)
        ax.set_title(title(training), color=hue(training), fontweight="bold", fontsize=11)
    values = [100 * row["value"] for row in means]
    room = max(0.05 * (max(values) - min(values)), 2)
    axes[0, 0].set(ylabel="accuracy, %", ylim=(max(-1, min(values) - room), min(101, max(values) + room)))
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return fig


def own_rule(rows: list[dict]) -> list[dict]:
    """Those of `rows` under PGD by the network's own rule, the fewest steps first."""
    return sorted(under(rows, "pgd", rule=None, rules=None), key=lambda row: row["steps"])


def with_width(rows: list[dict]) -> list[dict]:
    """Those of `rows` whose rule has a width."""
    return [row for row in rows if "gamma" in row]


def rules(rows: list[dict], ax: Axes) -> Axes:
    """One training's mean accuracies under PGD by each rule, with horizontal lines for the own rule and for all."""
    colour = hue(rows[0]["training"])
    reference, longer = own_rule(rows)  # the one of more steps is at the cost of all rules together
    (together,) = under(rows, "pgd", rules=labels.WIDTHS)
    ax.axhspan(100 * bound(reference, "low"), 100 * bound(reference, "high"), color=colour, alpha=0.1, linewidth=0)
    ax.axhline(100 * reference["value"], color=colour, linewidth=1, label="own rule,\nwith its interval")
    ax.axhline(
        100 * together["value"],
        color="black",
        linewidth=1.2,
        linestyle="--",
        label="all rules together,\nimage by image",
    )
    ax.axhline(
        100 * longer["value"], color="black", linewidth=1.2, linestyle=":", label="own rule with\nas many passes"
    )
    swept = with_width(rows)
    curves(swept, ax)
    without = [row for row in rows if "rule" in row and "gamma" not in row]
    return beside(without, sorted({row["gamma"] for row in swept}), ax)


def curves(rows: list[dict], ax: Axes) -> Axes:
    """A curve against the width for each family of rules."""
    style = {"color": hue(rows[0]["training"]), "markersize": 5, "linewidth": 1.4}
    for family, marker in MARKERS.items():
        line = sorted(where(rows, rule=family), key=lambda row: row["gamma"])
        fill = {} if family == "triangle" else {"markerfacecolor": "white"}  # the family of the networks' own rule
        gammas, values = [row["gamma"] for row in line], [100 * row["value"] for row in line]
        ax.plot(gammas, values, marker=marker, label=family, **style, **fill)
    return ax


def beside(rows: list[dict], gammas: list[float], ax: Axes) -> Axes:
    """A dot for each rule without a width, on the right of the widths `gammas`; all are named on the x-axis."""
    places = [1.9 ** (i + 1) * gammas[-1] for i in range(len(rows))]
    for x, row in zip(places, rows, strict=True):
        ax.plot(x, 100 * row["value"], "D", color=hue(row["training"]), markersize=4)
    ax.axvline(1.4 * gammas[-1], color=".6", linewidth=0.8)
    names = [NAMES.get(row["rule"], row["rule"]) for row in rows]
    ax.set_xticks([*gammas, *places], [*(f"{gamma:g}" for gamma in gammas), *names], rotation=90, fontsize=8)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlim(0.7 * gammas[0], 1.4 * max(places, default=gammas[-1]))
    ax.set_xlabel("width γ of the rule | rules without a width", fontsize=8)
    return ax
