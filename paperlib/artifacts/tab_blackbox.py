"""Attacks from outside the network, on substitutes or by queries, beside the white box."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paperlib import labels
from paperlib.artifacts.drawing import dots
from paperlib.artifacts.reading import IMAGES, same_attack, select, trainings, under
from paperlib.artifacts.tabulating import by_attack
from paperlib.words import attack, hue, title

caption = IMAGES
table = by_attack


def headline(record: dict) -> str:
    """The accuracy of each training under its strongest black-box attack, beside that of the white box."""
    texts = []
    for name in trainings(record):
        rows = select(record, quantity="mean accuracy", training=name)
        strongest, white = min(row["value"] for row in outside(rows)), white_box(rows)["value"]
        texts.append(f"{title(name)} {100 * strongest:.0f} % (white box {100 * white:.0f} %)")
    return f"What the strongest black-box attack leaves: {', '.join(texts)}"


def figure(record: dict) -> Figure:
    """A panel for each training: its accuracy under each black-box attack, beside the white box."""
    names = trainings(record)
    shared = {"sharex": True, "sharey": True, "squeeze": False}
    fig, axes = plt.subplots(1, len(names), figsize=(10, 4.2), layout="constrained", **shared)
    for ax, name in zip(axes[0], names, strict=True):
        panel(select(record, quantity="mean accuracy", training=name), ax)
        ax.set_title(title(name), color=hue(name), fontweight="bold")
    (clean,) = select(record, quantity="mean accuracy", training=names[0], attack=labels.CLEAN)
    axes[0, 0].text(100 * clean["value"], -0.55, "clean", fontsize=7, color=".4", ha="center")
    axes[0, -1].set_xlabel("accuracy, %")
    axes[0, 0].set_xlabel("made on a substitute: open, by its own rule;\nfull, the worst of four rules", fontsize=8)
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
    ax.set_yticks(range(len(lines)), names, fontsize=7)
    ax.set(xlim=(0, 102), ylim=(len(lines) - 0.5, -0.8))
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
