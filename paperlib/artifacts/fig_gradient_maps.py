"""Gradients by pixel, and their sizes against accuracy under attack."""

import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from pandas import DataFrame

from paperlib.artifacts.drawing import picture
from paperlib.artifacts.reading import IMAGES, known, select, trainings, where
from paperlib.artifacts.tabulating import attack_at
from paperlib.words import attack, hue, radius, title

SIZES = {"participation number": "median participation number", "l1": "median ‖g‖₁"}  # with labels of axes
COLUMNS = ("l1", "l2", "participation number", "zero gradient", "accuracy")  # quantities of the table

caption = IMAGES


def headline(record: dict) -> str:
    """The typical participation number of each training."""
    numbers = []
    for training in record["arrays"]["maps"]:
        rows = select(record, quantity="participation number", training=training)
        rows = known(where(rows, lam=rows[0].get("lam")))  # the λ that stands first is the profile's
        values = sorted(row["value"] for row in rows)
        median = f"{values[len(values) // 2]:.0f}" if values else "undefined"
        numbers.append(f"{title(training)} {median}")
    return f"Equal pixels that would share the gradient alike (participation number): {', '.join(numbers)}"


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
            ax.set_xlabel(f"l1 {l1:.2g}, l2 {l2:.1g}\nPN {number}", fontsize=6)  # PN: participation number
    for ax in grid.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    left.supxlabel("∇f by pixel, each on its own scale; red: brighter makes the true class likelier", fontsize=7)
    scatters = right.subplots(2, 1, sharey=True)
    robust = select(record, quantity="accuracy")
    for ax, (size, label) in zip(scatters, SIZES.items(), strict=True):
        (correlation,) = select(record, quantity="rank correlation", sparsity=size)
        size_panel(select(record, quantity=size), robust, trainings(record), correlation["value"], ax)
        ax.set_xlabel(label)
    scatters[0].set_ylabel(f"accuracy under {attack(correlation)}\nat {radius(correlation)}, %", y=0)
    return fig


def table(record: dict) -> list[DataFrame]:
    """A line for each training and λ: the mean over its networks of each size and of accuracy under attack."""
    lines: dict[str, dict[str, list[dict]]] = {}
    for row in (row for row in record["rows"] if row["quantity"] in COLUMNS):
        name = title(row["training"]) + (f", λ = {row['lam']:g}" if "lam" in row else "")
        column = attack_at(row) if row["quantity"] == "accuracy" else row["quantity"]
        lines.setdefault(name, {}).setdefault(column, []).append(row)
    return [
        DataFrame(
            {"training": name, "networks": len(next(iter(columns.values())))}
            | {column: _mean(rows) for column, rows in columns.items()}
            for name, columns in lines.items()
        )
    ]


def _mean(rows: list[dict]) -> str:
    values = [row["value"] for row in known(rows)]
    mean = math.fsum(values) / len(values) if values else math.nan
    return f"{100 * mean:.1f} %" if rows[0]["quantity"] in ("zero gradient", "accuracy") else f"{mean:.3g}"


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
    ax.set_title(f"rank correlation {text}", fontsize=8, loc="right")
    if any(row["value"] for row in sizes):
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_locator(NullLocator())
    return ax
