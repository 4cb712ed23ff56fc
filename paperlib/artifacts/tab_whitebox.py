"""Accuracy of each training under the paper's own white-box protocol."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paperlib import labels
from paperlib.artifacts.drawing import whiskers
from paperlib.artifacts.reading import IMAGES, same_attack, select, trainings, under, where
from paperlib.artifacts.tabulating import by_attack
from paperlib.words import attack, hue, title

caption = IMAGES
table = by_attack


def headline(record: dict) -> str:
    """Accuracy under the whole protocol at the largest radius, and the most that three more backward rules take."""
    means = select(record, quantity="mean accuracy")
    eps = max(row["eps_255"] for row in under(means, labels.WORST))
    shares = [f"{title(r['training'])} {100 * r['value']:.0f} %" for r in under(means, labels.WORST, eps_255=eps)]
    losses = [by_own_rule(means, row)["value"] - row["value"] for row in under_four(means)]
    return (
        f"The whole protocol at {eps:g}/255 leaves {', '.join(shares)}; "
        f"three more backward rules take at most {100 * max(losses):.0f} points"
    )


def figure(record: dict) -> Figure:
    """A panel for each radius."""
    means = select(record, quantity="mean accuracy")
    radii = list(dict.fromkeys(row["eps_255"] for row in means if row["eps_255"]))
    size = (9, 1 + 2.5 * len(radii))
    fig, axes = plt.subplots(len(radii), 1, figsize=size, sharex=True, squeeze=False, layout="constrained")
    for ax, eps in zip(axes[:, 0], radii, strict=True):
        bars(where(means, eps_255=eps), trainings(record), ax)
        ax.set_title(f"ε = {eps:g}/255", loc="left")
    axes[0, 0].legend(ncols=4, loc="lower right", bbox_to_anchor=(1, 1), fontsize=8)
    legend = "full bars: the worst of four backward rules; pale: the network's own rule alone"
    axes[-1, 0].set_xlabel(legend, fontsize=8)
    return fig


def bars(rows: list[dict], names: list[str], ax: Axes) -> Axes:
    """Bars at one radius for each attack by four backward rules (pale: by the network's own), and the worst of all."""
    width = 0.8 / len(names)
    for i, training in enumerate(names):
        four, worst = under_four(where(rows, training=training)), under(rows, labels.WORST, training=training)
        pairs = [(by_own_rule(rows, row), row) for row in four] + [(row, row) for row in worst]
        for x, (alone, strongest) in enumerate(pairs):
            place, height = x + (i - (len(names) - 1) / 2) * width, 100 * strongest["value"]
            ax.bar(place, 100 * alone["value"], 0.92 * width, color=hue(training), alpha=0.3)
            ax.bar(place, height, 0.92 * width, color=hue(training), label=title(training) if x == 0 else None)
            ax.errorbar(place, height, 100 * whiskers([strongest]), fmt="none", ecolor=".15", elinewidth=0.8)
    ax.set_xticks(range(len(pairs)), [attack(alone).replace(" of", "\nof") for alone, _ in pairs])
    ax.set(ylabel="accuracy, %", ylim=(0, 101))
    ax.grid(axis="x", visible=False)
    return ax


def under_four(rows: list[dict]) -> list[dict]:
    """Those of `rows` that are of the worst of four backward rules."""
    return where(rows, rules=labels.FOUR)


def by_own_rule(rows: list[dict], four: dict) -> dict:
    """Of `rows` the one of the training, radius and attack of the row `four`, by the network's own rule."""
    alone = {label: value for label, value in four.items() if label != "rules"}
    (row,) = where(same_attack(rows, alone), training=four["training"])
    return row
