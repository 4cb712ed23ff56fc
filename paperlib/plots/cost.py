"""What a step costs, and what accuracy the passes buy."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from paperlib.claims import title
from paperlib.findings.ablation import EPOCHS, PASSES, spent, worst
from paperlib.findings.cost import relative
from paperlib.plots.ablation import handle, named
from paperlib.plots.core import bound, hue, trainings

MARKS = {"passes": "o", "multiply-adds": "s", "bytes kept": "D", "seconds": "^"}
TICKS = (1, 2, 3, 5, 10, 20, 30, 50, 100)


def cost(record: dict) -> Figure:
    """Each training's step relative to a vanilla one; and the worst case against all passes that an image has cost."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5.4), width_ratios=(4, 5), layout="constrained")
    names = [name for name in trainings(record) if any(r["training"] == name for r in relative(record, "passes"))]
    left.set_xscale("log")
    for i, (what, mark) in enumerate(MARKS.items()):
        for row in relative(record, what):
            height = names.index(row["training"]) + 0.18 * (i - 1.5)
            reach = [[row["value"] - bound(row, "low")], [bound(row, "high") - row["value"]]]
            style = {"fmt": mark, "markersize": 5, "elinewidth": 1.0, "color": hue(row["training"])}
            left.errorbar([row["value"]], [height], xerr=np.maximum(reach, 0), **style)
    named(left, [title(name) for name in names], [hue(name) for name in names])
    left.axvline(1, color=".4", linewidth=0.8)
    left.xaxis.set_major_locator(FixedLocator(TICKS))
    left.xaxis.set_minor_locator(NullLocator())
    left.xaxis.set_major_formatter("{x:g}")
    left.set_title("A step, relative to one of vanilla training", loc="left")
    handles = [handle(mark, what) for what, mark in MARKS.items()]
    left.legend(
        handles=handles, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.08), fontsize=8, columnspacing=0.8
    )
    _bought(right, record)
    return figure


def _bought(panel: Axes, record: dict) -> None:
    """A training's dots at equal epochs (hollow) and equal passes (full), joined, and named beside the panel."""
    dots = []
    for training in trainings(record):
        for budget in (EPOCHS, PASSES):
            passes = spent(record, "passes per image", training, budget)
            dots += [(training, passes, row) for row in worst(record, budget) if row["training"] == training and passes]
    furthest = max((passes for _, passes, _ in dots), default=1)
    places = _beside([(row["budget"], passes) for _, passes, row in dots], furthest / 150)
    ends = {}
    for (training, _, row), x in zip(dots, places, strict=True):
        colour, value = hue(training), 100 * row["value"]
        if training in ends:
            panel.plot([ends[training][0], x], [ends[training][1], value], color=colour, linewidth=0.8)
        panel.plot([x, x], [100 * bound(row, "low"), 100 * bound(row, "high")], color=colour, linewidth=0.6, alpha=0.6)
        face = "white" if row["budget"] == EPOCHS else colour
        panel.plot([x], [value], "o", color=colour, markersize=5, markerfacecolor=face, zorder=3)
        ends[training] = x, value
    top = min(100, 110 * max((bound(row, "high") for _, _, row in dots), default=1))
    _name(panel, ends, 1.12 * furthest, least=0.055 * top)
    radius = f"{worst(record, EPOCHS)[0]['eps_255']:g}/255"
    panel.set(
        xlabel="forward and backward passes per training image, equal ones side by side",
        ylabel=f"accuracy in the worst case at {radius}, %",
    )
    panel.set(xlim=(0, 1.06 * furthest), ylim=(-0.03 * top, 1.03 * top))
    panel.set_title("What passes buy", loc="left")
    handles = [handle("o", EPOCHS, open_=True), handle("o", PASSES)]
    panel.legend(handles=handles, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.1), fontsize=8)


def _name(panel: Axes, ends: dict[str, tuple[float, float]], x: float, least: float) -> None:
    """Each training's name at `x`, from the top down and `least` apart, with a line to its last dot."""
    order = sorted(ends, key=lambda training: -ends[training][1])
    for training, height in zip(order, _apart([ends[training][1] for training in order], least), strict=True):
        leader = {"arrowstyle": "-", "color": hue(training), "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3, "alpha": 0.6}
        where = {"xytext": (x, height), "annotation_clip": False, "arrowprops": leader}
        panel.annotate(title(training), ends[training], color=hue(training), fontsize=8, va="center", **where)


def _beside(places: list[tuple], step: float) -> list[float]:
    """Where to draw what stands at (kind, x): equal ones side by side, `step` apart."""
    found = []
    for i, (kind, x) in enumerate(places):
        before, all_ = places[:i].count((kind, x)), places.count((kind, x))
        found.append(x + step * (before - (all_ - 1) / 2))
    return found


def _apart(heights: list[float], least: float) -> list[float]:
    """Falling heights moved until they lie `least` apart: down first, and up again where that led below 0."""
    found = []
    for height in heights:
        found.append(min(height, found[-1] - least) if found else height)
    for i in reversed(range(len(found))):
        found[i] = max(found[i], found[i + 1] + least if i + 1 < len(found) else 0.0)
    return found
