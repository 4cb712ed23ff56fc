"""Attacks from outside the network, on substitutes or by queries, beside the white box."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paperlib import labels
from paperlib.artifacts.drawing import GREY, dots, handle
from paperlib.artifacts.reading import IMAGES, listed, one_network, same_attack, select, trainings, under
from paperlib.artifacts.tabulating import by_attack
from paperlib.words import attack, hue, title

caption = IMAGES
table = by_attack


def headline(record: dict) -> str:
    """The trainings where a black-box attack leaves less than the white box."""
    names, less = trainings(record), []
    for name in names:
        rows = select(record, quantity="mean accuracy", training=name)
        if min(row["value"] for row in outside(rows)) < white_box(rows)["value"]:
            less.append(title(name))
    which = "every training" if len(less) == len(names) > 1 else listed(less) if less else "no training"
    attacked = attack(white_box(select(record, quantity="mean accuracy", training=names[0])))
    note = one_network(select(record, quantity="mean accuracy"))
    return f"A black-box attack breaks more than white-box {attacked} against {which}{note}"


def figure(record: dict) -> Figure:
    """A panel for each training: its accuracy under each black-box attack, beside the white box."""
    names = trainings(record)
    shared = {"sharex": True, "sharey": True, "squeeze": False}
    fig, axes = plt.subplots(1, len(names), figsize=(11.6, 4), layout="constrained", **shared)
    for ax, name in zip(axes[0], names, strict=True):
        panel(select(record, quantity="mean accuracy", training=name), ax)
        ax.set_title(title(name), color=hue(name), fontweight="bold")
        ax.set_xlabel("accuracy, %")
    handles = [
        handle("o", "substitute's own rule", hollow=True),
        handle("o", "worst of four rules"),
        Line2D([], [], color=GREY, linewidth=1, label="white box"),
        Line2D([], [], color=".6", linestyle=":", linewidth=1, label="clean"),
    ]
    fig.legend(handles=handles, fontsize=8, loc="outside right center")
    return fig


def panel(rows: list[dict], ax: Axes) -> Axes:
    """A line for each attack, from mean accuracies of one training: first the white box, then the black-box attacks."""
    (clean,), white = under(rows, labels.CLEAN), white_box(rows)
    colour = hue(white["training"])
    lines = [white] + [row for row in outside(rows) if row.get("rules") != labels.FOUR]
    ax.axvline(100 * clean["value"], color=".6", linestyle=":", linewidth=1)
    ax.axvline(100 * white["value"], color=colour, linewidth=1, alpha=0.5)
    for y, row in enumerate(lines):
        if four := same_attack(rows, row | {"rules": labels.FOUR}):  # full; that of the substitute's own rule is hollow
            dots(ax, [row], y - 0.14, colour, elinewidth=1, markerfacecolor="white")
            dots(ax, four, y + 0.14, colour, elinewidth=1)
        else:
            dots(ax, [row], y, colour, elinewidth=1)
    names = [f"white box:\n{attack(white)}"] + [_name(row) for row in lines[1:]]
    ax.set_yticks(range(len(lines)), names, fontsize=8)
    ax.set(xlim=(0, 102), ylim=(len(lines) - 0.5, -0.5))
    return ax


def white_box(rows: list[dict]) -> dict:
    """Of the mean accuracies of one training, the one under PGD on the network itself."""
    (white,) = under(rows, "pgd", made_on=None)
    return white


def outside(rows: list[dict]) -> list[dict]:
    """Those of `rows` under black-box attacks: made on a substitute, or by queries."""
    return [row for row in rows if "made_on" in row or "queries" in row]


def _name(row: dict) -> str:
    made_on = "made_on" in row
    return f"made on {title(row['made_on'])},\n{row['made_on_network']}" if made_on else attack(row)
