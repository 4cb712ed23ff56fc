"""Gradients by pixel, and their sizes against accuracy under attack."""

import math

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator
from pandas import DataFrame

from paperlib.artifacts.drawing import picture
from paperlib.artifacts.reading import IMAGES, known, listed, one_network, select, trainings, where
from paperlib.artifacts.tabulating import attack_at
from paperlib.words import attack, hue, radius, title

SIZES = {
    "participation number": "participation number ‖g‖₁²/‖g‖₂²,\nmedian over images",
    "l1": "‖g‖₁, median over images",
}  # with labels of axes
MEDIANS = ("l1", "l2", "participation number")  # quantities of which a row holds the median over images
COMPACT = {"handletextpad": 0.1, "columnspacing": 0.8}  # style of a legend
NOTHING = "No network of SR or vanilla training was measured"
COLUMNS = (*MEDIANS, "zero gradient", "accuracy")  # quantities of the table

caption = IMAGES + ", sizes: medians over images"


def headline(record: dict) -> str:
    """The typical participation number of SR and of vanilla training."""
    numbers = {}
    for training in ("sr", "vanilla"):
        if rows := select(record, quantity="participation number", training=training):
            rows = known(where(rows, lam=rows[0].get("lam")))  # the λ that stands first is the profile's
            numbers[training] = f"{mean(rows):.0f}" if rows else "undefined"
    texts = [f"{number} in {title(training)} networks" for training, number in numbers.items()]
    note = one_network(select(record, quantity="participation number", training="sr")) if texts else ""
    return f"The median participation number of gradients is {listed(texts)}{note}" if texts else NOTHING


def figure(record: dict) -> Figure:
    """∇f by pixel for each training, and the gradient's sizes against accuracy under attack."""
    images = np.array(record["arrays"]["images"])  # (N, C, H, W)
    maps = record["arrays"]["maps"]
    fig = plt.figure(figsize=(9.6, 6.4), layout="constrained")
    left, right = fig.subfigures(1, 2, width_ratios=(3, 2.1))
    grid = left.subplots(len(images), 1 + len(maps), squeeze=False)
    for ax, image in zip(grid[:, 0], images, strict=True):
        picture(ax, image)
    grid[0, 0].set_title("image", fontsize=8)
    for column, (training, gradients) in zip(grid.T[1:], maps.items(), strict=True):
        column[0].set_title(title(training), color=hue(training), fontsize=8, fontweight="bold")
        for ax, gradient in zip(column, np.array(gradients), strict=True):
            pixels = gradient.sum(0)  # (C, H, W) → (H, W)
            limit = np.abs(pixels).max() or 1  # a scale of its own, since l1 differs by orders of magnitude
            ax.imshow(pixels, cmap="RdBu_r", vmin=-limit, vmax=limit)
            l1, l2 = np.abs(gradient).sum(), np.sqrt((gradient**2).sum())
            number = f"{(l1 / l2) ** 2:.0f}" if l2 else "undefined"
            ax.set_xlabel(f"l1 {l1:.2g}, l2 {l2:.1g}\nPN {number}", fontsize=7)
    for ax in grid.flat:
        ax.set(xticks=[], yticks=[])
        sns.despine(ax=ax, left=True, bottom=True)
    left.supxlabel(
        "∇f by pixel, each on its own scale; red: brighter makes the true class likelier.  PN: participation number",
        fontsize=7,
    )
    scatters = right.subplots(2, 1, sharey=True)
    names = trainings(record)
    keys = [
        Line2D([], [], marker="o", color=hue(name), linestyle="", markersize=4, label=title(name)) for name in names
    ]
    scatters[0].legend(handles=keys, loc="lower center", bbox_to_anchor=(0.5, 1.1), ncols=4, fontsize=8, **COMPACT)
    robust = select(record, quantity="accuracy")
    for ax, (size, label) in zip(scatters, SIZES.items(), strict=True):
        (correlation,) = select(record, quantity="rank correlation", sparsity=size)
        size_panel(select(record, quantity=size), robust, names, correlation["value"], ax)
        ax.set_xlabel(label)
    scatters[0].set_ylabel(f"accuracy under {attack(correlation)}\nat {radius(correlation)}, %", y=0)
    return fig


def table(record: dict) -> list[DataFrame]:
    """A line for each training and λ: the mean over its networks of each median size and of accuracy under attack."""
    lines: dict[str, dict[str, list[dict]]] = {}
    for row in (row for row in record["rows"] if row["quantity"] in COLUMNS):
        name = title(row["training"]) + (f", λ = {row['lam']:g}" if "lam" in row else "")
        column = attack_at(row) if row["quantity"] == "accuracy" else row["quantity"]
        column = f"median {column}" if column in MEDIANS else column
        lines.setdefault(name, {}).setdefault(column, []).append(row)
    return [
        DataFrame(
            {"training": name, "networks": len(next(iter(columns.values())))}
            | {column: _cell(rows) for column, rows in columns.items()}
            for name, columns in lines.items()
        )
    ]


def mean(rows: list[dict]) -> float:
    """The mean of the known values of `rows`; NaN where there are none."""
    values = [row["value"] for row in known(rows)]
    return math.fsum(values) / len(values) if values else math.nan


def _cell(rows: list[dict]) -> str:
    return f"{mean(rows):.3g}" if rows[0]["quantity"] in MEDIANS else f"{100 * mean(rows):.1f} %"


def size_panel(sizes: list[dict], robust: list[dict], names: list[str], correlation: float | None, ax: Axes) -> Axes:
    """A dot for each network of the trainings `names`: the size of its gradient and its accuracy under attack.

    `sizes` are rows of one quantity, `robust` are accuracies; the title gives the `correlation` of the two.
    """
    accuracy = {row["experiments"][0]: 100 * row["value"] for row in robust}
    for training in names:
        rows = known(where(sizes, training=training))
        heights = [accuracy[row["experiments"][0]] for row in rows]
        ax.plot([row["value"] for row in rows], heights, "o", color=hue(training), markersize=4, alpha=0.8)
    text = "undefined" if correlation is None else f"{correlation:.2f}"
    ax.set_title(f"a dot a network, rank correlation {text}", fontsize=8, loc="left")
    if any(row["value"] for row in sizes):
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_locator(NullLocator())
    return ax
