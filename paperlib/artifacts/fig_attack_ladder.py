"""Accuracy under ever stronger attacks: each rung is the worst case of all attacks up to it."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from paperlib import labels
from paperlib.artifacts.drawing import curve, end, gains, name_ends, shares
from paperlib.artifacts.reading import (
    BASELINES,
    IMAGES,
    differences,
    listed,
    one_network,
    points,
    same_attack,
    select,
    trainings,
    where,
    whole,
)
from paperlib.artifacts.tabulating import against, pivot, with_passes
from paperlib.words import attack, hue, title

caption = IMAGES


def headline(record: dict) -> str:
    """What SR changes on the last rung."""
    pairs = select(record, quantity="difference", attack=labels.WORST)
    rows = [row for name in BASELINES for row in where(pairs, training=name)]
    if not rows:
        return "No training with SR was compared with the same training without"
    changes = [f"{title(row['against'])} by {whole(row)}" for row in rows]
    return f"Under all attacks together SR changes the accuracy of {listed(changes)} points{one_network(rows)}"


def figure(record: dict) -> Figure:
    """Left, the worst case so far on every rung; right, what SR changes of it."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(10.4, 4.8), width_ratios=(5, 2), layout="constrained")
    means, passes = (
        [row for row in select(record, quantity=quantity) if row["attack"] != labels.CLEAN]
        for quantity in ("mean accuracy", "mean passes")
    )
    pairs = differences(record)
    groups = {name: where(means, training=name) for name in trainings(record)}
    ladder(groups, passes, left)
    rungs = next(iter(groups.values()))
    gains(right, {rung_name(rung): same_attack(pairs, rung) for rung in rungs})
    return fig


def table(record: dict) -> list[DataFrame]:
    """Accuracy on each rung with the passes that it cost, then what SR changes."""
    pairs = select(record, quantity="difference")
    return [with_passes(record), pivot(pairs, lambda row: {"": attack(row)}, against, points)]


def ladder(groups: dict[str, list[dict]], passes: list[dict], ax: Axes) -> Axes:
    """A curve for each of `groups`, training → accuracies from the weakest rung on, named with the mean `passes`."""
    ends = []
    for training, rows in groups.items():
        places = np.arange(len(rows))
        curve(ax, places, rows, hue(training), width=1.8)
        ends.append((end(rows), title(training), hue(training)))
    ax.set_xticks(places, [_tick(rung, same_attack(passes, rung)) for rung in rows], fontsize=7.5)
    shares(ax, [row for rows in groups.values() for row in rows]).set_xlim(-0.3, len(rows) - 0.9)
    ax.set_ylabel("accuracy, worst case so far, %")
    ax.set_xlabel("each rung with all before it; below its name the passes per image up to there", fontsize=8)
    return name_ends(ax, ends)


def rung_name(row: dict) -> str:
    """The name of a row's rung: what it adds to the rungs before it."""
    return "transfer: all" if row["attack"] == labels.WORST else row.get("up_to", attack(row))


def _tick(rung: dict, passes: list[dict]) -> str:
    """The name of a rung and the range of its passes over the trainings."""
    numbers = [round(row["value"]) for row in passes]
    low, high = min(numbers), max(numbers)
    name = rung_name(rung).replace(" ", "\n", 1)
    return f"{name}\n{low}" if low == high else f"{name}\n{low}-{high}"
