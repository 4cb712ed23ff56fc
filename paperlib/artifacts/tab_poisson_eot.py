"""Networks that draw their input at random, attacked with one draw, by the released loop and in expectation."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from paperlib import labels
from paperlib.artifacts.drawing import dots, shares, whiskers
from paperlib.artifacts.reading import (
    IMAGES,
    one_network,
    percent,
    points,
    same_attack,
    select,
    trainings,
    under,
    where,
    whole,
)
from paperlib.artifacts.tabulating import contrast, contrasted, network, pivot
from paperlib.words import attack, hue, title

CELLS = {"mean over draws": percent, "spread over draws": percent, "undecided": percent, "contrast": points}
HEADS = {"mean over draws": "clean, mean over draws", "spread over draws": "clean, standard deviation over draws"}
caption = IMAGES


def headline(record: dict) -> str:
    """The change from the released loop to a real expectation with the most draws, and from one draw to the loop."""
    loop, expectation = compared(select(record, quantity="mean contrast"))
    if not loop:
        return "No network with random input was measured"
    changes = [whole(max(rows, key=lambda row: abs(row["value"]))) for rows in (expectation, loop)]
    return (
        f"A real expectation changes accuracy by up to {changes[0]} points against the released loop, and that loop by "
        f"up to {changes[1]} against one draw{one_network(loop)}"
    )


def figure(record: dict) -> Figure:
    """Left, accuracy under each attack; right, the changes by more draws, network by network."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.4), width_ratios=(3, 2), layout="constrained")
    means, passes = select(record, quantity="mean accuracy"), select(record, quantity="mean passes")
    bars(means, select(record, quantity="accuracy"), trainings(record), left)
    attacks = {attack(row): same_attack(passes, row) for row in means}
    left.set_xticks(range(len(attacks)), [_tick(name, rows) for name, rows in attacks.items()], fontsize=8)
    left.set_xlabel("dots: single networks; passes: forward and backward, per image", fontsize=8)
    if attacks:
        left.legend(loc="upper right", fontsize=8, ncols=2)
    loop, expectation = compared(select(record, quantity="contrast"))
    changes({"released loop\n- one draw": loop, "expectation\n- released loop": expectation}, right)
    return fig


def table(record: dict) -> list[DataFrame]:
    """Accuracy and passes of each attack, the differences of attacks, and a line for each network."""

    def column(row: dict) -> str:
        return contrast(row) if row["quantity"] == "contrast" else HEADS.get(row["quantity"], row["quantity"])

    rows = [row for quantity in CELLS for row in select(record, quantity=quantity)]
    return [*contrasted(record), pivot(rows, network, column, lambda row: CELLS[row["quantity"]](row))]


def compared(contrasts: list[dict]) -> tuple[list[dict], list[dict]]:
    """Of `contrasts` those of the released loop with one draw and of the expectation with it, of the most draws."""
    groups = under(contrasts, labels.OWN_LOOP), where(contrasts, reference_attack=labels.OWN_LOOP)
    loop, expectation = (same_attack(rows, rows[-1]) if rows else [] for rows in groups)
    return loop, expectation


def bars(means: list[dict], single: list[dict], names: list[str], ax: Axes) -> Axes:
    """A group of bars for each attack: `means` of the trainings `names`, with a dot for each `single` network."""
    for i, training in enumerate(names):
        rows, colour, width = where(means, training=training), hue(training), 0.8 / len(names)
        places = np.arange(len(rows)) + (i - (len(names) - 1) / 2) * width
        values = [100 * row["value"] for row in rows]
        ax.bar(places, values, 0.92 * width, color=colour, alpha=0.55, label=title(training))
        ax.errorbar(places, values, 100 * whiskers(rows), fmt="none", ecolor=".15", elinewidth=0.8)
        for x, row in zip(places, rows, strict=True):
            networks = where(same_attack(single, row), training=training)
            apart = 0.12 * width * (np.arange(len(networks)) - (len(networks) - 1) / 2)
            ax.plot(x + apart, [100 * other["value"] for other in networks], ".", color=colour, markersize=5)
    shares(ax, means)
    ax.grid(axis="x", visible=False)
    return ax


def changes(groups: dict[str, list[dict]], ax: Axes) -> Axes:
    """A line for the difference of each network; `groups` maps a name to the networks of a group."""
    y, ticks = 0, []
    for rows in groups.values():
        ticks.append(y + (len(rows) - 1) / 2)
        for row in rows:
            dots(ax, [row], y, hue(row["training"]), elinewidth=1.2)
            y += 1
        y += 1
    ax.axvline(0, color=".4", linewidth=0.8)
    ax.set_yticks(ticks, list(groups), fontsize=8)
    ax.grid(axis="y", visible=False)
    ax.set(title="Change on the same images", xlabel="percentage points", ylim=(y - 1.5, -0.5))
    return ax


def _tick(name: str, passes: list[dict]) -> str:
    for word in (" EOT", " noise", " overwritten"):
        name = name.replace(word, f"\n{word.strip()}")
    mean = round(np.mean([row["value"] for row in passes]))
    return f"{name}\n{mean} {'pass' if mean == 1 else 'passes'}"
