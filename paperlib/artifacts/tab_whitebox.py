"""Accuracy of each training under the paper's own white-box protocol."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paperlib import labels
from paperlib.artifacts.drawing import bound, whiskers
from paperlib.artifacts.reading import IMAGES, listed, one_network, same_attack, select, trainings, under, where
from paperlib.artifacts.tabulating import by_attack
from paperlib.words import attack, hue, title

caption = IMAGES
table = by_attack


def headline(record: dict) -> str:
    """The accuracy of SR and of vanilla training under the whole protocol at the largest radius."""
    rows = under(select(record, quantity="mean accuracy"), labels.PROTOCOL)
    rows = [row for name in ("sr", "vanilla") for row in where(rows, training=name)]
    if not rows:
        return "No network of SR or vanilla training was attacked"
    eps = max(row["eps_255"] for row in rows)
    shares = [f"{title(row['training'])} {100 * row['value']:.0f} %" for row in where(rows, eps_255=eps)]
    return f"The paper's whole white-box protocol leaves {listed(shares)}{one_network(rows)}"


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
        four, worst = under_four(where(rows, training=training)), under(rows, labels.PROTOCOL, training=training)
        pairs = [(by_own_rule(rows, row), row) for row in four] + [(row, row) for row in worst]
        for x, (alone, strongest) in enumerate(pairs):
            place, height = x + (i - (len(names) - 1) / 2) * width, 100 * strongest["value"]
            ax.bar(place, 100 * alone["value"], 0.92 * width, color=hue(training), alpha=0.3)
            ax.bar(place, height, 0.92 * width, color=hue(training), label=title(training) if x == 0 else None)
            ax.errorbar(place, height, 100 * whiskers([strongest]), fmt="none", ecolor=".15", elinewidth=0.8)
    ax.set_xticks(range(len(pairs)), [attack(alone).replace(" of", "\nof") for alone, _ in pairs])
    ax.set(ylabel="accuracy, %", ylim=(0, min(101, 105 * max(bound(row, "high") for row in rows) + 2)))
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
