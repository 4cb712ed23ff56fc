"""Networks that draw their input at random, attacked by one draw, by the released loop and in expectation."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paperlib.claims import select, title
from paperlib.findings.chance import compared
from paperlib.plots.core import dots, hue, trainings, whiskers


def expectations(record: dict) -> Figure:
    """Left what each attack leaves, single networks as dots; right what draws change, network by network."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.4), width_ratios=(3, 2), layout="constrained")
    names, means = trainings(record), select(record, quantity="mean accuracy")
    attacks = list(dict.fromkeys(r["attack"] for r in means))
    width = 0.8 / max(1, len(names))
    for i, training in enumerate(names):
        rows = [r for r in means if r["training"] == training]
        x, colour = np.arange(len(attacks)) + (i - (len(names) - 1) / 2) * width, hue(training)
        left.bar(x, [100 * r["value"] for r in rows], 0.92 * width, color=colour, alpha=0.55, label=title(training))
        left.errorbar(
            x, [100 * r["value"] for r in rows], 100 * whiskers(rows), fmt="none", ecolor=".15", elinewidth=0.8
        )
        for at, attack in zip(x, attacks, strict=True):
            single = select(record, quantity="accuracy", training=training, attack=attack)
            beside = at + 0.12 * width * (np.arange(len(single)) - (len(single) - 1) / 2)
            left.plot(beside, [100 * r["value"] for r in single], ".", color=colour, markersize=5)
    left.set_xticks(range(len(attacks)), [_name(record, attack) for attack in attacks], fontsize=8)
    left.set(ylabel="accuracy, %", ylim=(0, 101))
    left.set_xlabel("dots: single networks; passes: forward and backward, per image", fontsize=8)
    left.grid(axis="x", visible=False)
    if names:
        left.legend(loc="upper right", fontsize=8)
    _changes(right, record)
    return figure


def _name(record: dict, attack: str) -> str:
    passes = round(np.mean([r["value"] for r in select(record, quantity="mean passes", attack=attack)]))
    name = attack.replace(" EOT", "\nEOT").replace(" noise", "\nnoise").replace(" overwritten", "\noverwritten")
    return f"{name}\n{passes} pass{'es' * (passes != 1)}"


def _changes(panel: Axes, record: dict) -> None:
    single, y, ticks = compared(record, "contrast"), 0, []
    for rows, name in zip(single, ("overwritten loop\n- one draw", "expectation\n- overwritten loop"), strict=True):
        first = y
        for row in rows:
            dots(panel, [row], y, hue(row["training"]), elinewidth=1.2)
            y += 1
        ticks.append(((first + y - 1) / 2, name))
        y += 1
    panel.axvline(0, color=".4", linewidth=0.8)
    panel.set_yticks(*zip(*ticks, strict=True), fontsize=8)
    panel.invert_yaxis()
    panel.grid(axis="y", visible=False)
    panel.set(title="Change network by network, on the same images", xlabel="percentage points")
