"""The gradient's sparsity and magnitude against accuracy under attack, and gradients by pixel."""

import math
from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator
from pandas import DataFrame

from paperlib import labels
from paperlib.artifacts.drawing import dots, name_dots, picture, whiskers
from paperlib.artifacts.reading import (
    IMAGES,
    Line,
    Part,
    clear,
    known,
    listed,
    one_network,
    plain,
    points,
    select,
    trainings,
    under,
    where,
)
from paperlib.artifacts.tabulating import attack_at
from paperlib.words import attack, hue, radius, title

SPARSITY, MAGNITUDE = "participation number", "l1"
HELD = {SPARSITY: MAGNITUDE, MAGNITUDE: SPARSITY}  # a size → the one that partial correlations hold
SIZES = {
    SPARSITY: "participation number ‖g‖₁²/‖g‖₂², median over images",
    MAGNITUDE: "‖g‖₁, median over images",
}  # with labels of axes
MARKS = {SPARSITY: ("o", "black", "participation number"), MAGNITUDE: ("s", "#8c8c8c", "‖g‖₁")}
QUESTIONS = {  # of a correlation → its labels; "given" stands for the size that is held
    "across networks": {"across": labels.NETWORKS, "given": False},
    "within trainings": {"across": labels.WITHIN_TRAININGS, "given": False},
    "within SR, over λ": {"across": labels.WITHIN_SR, "given": False},
    "across networks,\nother size held": {"across": labels.NETWORKS, "given": True},
    "within trainings,\nother size held": {"across": labels.WITHIN_TRAININGS, "given": True},
}
EQUAL = 1.25  # magnitudes count as equal within this factor
MEDIANS = (MAGNITUDE, "l2", SPARSITY)  # quantities of which a row holds the median over images
COMPACT = {"handletextpad": 0.1, "columnspacing": 0.8}  # style of a legend
NOTHING = "No network of SR or vanilla training was measured"
COLUMNS = (*MEDIANS, "zero gradient", "accuracy")  # quantities of the table

caption = "{data}, {strong_samples} test images attacked, {seeds}, 95 % intervals, of correlations over configurations"


def correlation(record: dict, size: str, across: str, *, given: bool = False) -> dict:
    """The row of a size's rank correlation with accuracy under the strongest attack, with the other size held or not.

    Raises KeyError where it was not measured.
    """
    rows = under(select(record, quantity="rank correlation", across=across), labels.WORST)
    return {(row["sparsity"], "given" in row): row for row in rows}[size, given]


def contrast(record: dict) -> tuple[dict[str, dict], list[dict]]:
    """The intervention: ratios of two trainings' sizes, by name, and differences of accuracy, clean ones first."""
    ratios = {row["sparsity"]: row for row in select(record, quantity="matched ratio")}
    return ratios, select(record, quantity="matched difference")


def headline(record: dict) -> str:
    """The participation number's correlation with robustness across networks and within trainings."""
    rows = [correlation(record, SPARSITY, across) for across in (labels.NETWORKS, labels.WITHIN_TRAININGS)]
    across, within = ("undefined" if row["value"] is None else f"{row['value']:.2f}" for row in rows)
    return (
        f"The rank correlation of participation number and robustness is {across} across networks and {within} within "
        f"trainings{one_network(rows)}"
    )


def box(record: dict) -> Iterable[Line]:
    """A line for each question about the participation number, one for l1, one for the intervention."""
    yield _line(record, "Across networks, sparser gradients go with more robustness.", labels.NETWORKS)
    yield _line(record, "Within trainings, sparser gradients go with more robustness.", labels.WITHIN_TRAININGS)
    yield _line(record, "Within SR, over λ, sparser gradients go with more robustness.", labels.WITHIN_SR)
    yield _line(record, "At a given ‖g‖₁, sparser gradients go with more robustness.", labels.NETWORKS, given=True)
    yield _line(
        record,
        "At a given ‖g‖₁ within trainings, sparser gradients go with more robustness.",
        labels.WITHIN_TRAININGS,
        given=True,
    )
    statement = "At a given participation number, a smaller ‖g‖₁ goes with more robustness."
    yield _line(record, statement, labels.NETWORKS, given=True, size=MAGNITUDE)
    ratios, differences = contrast(record)
    for row in under(differences, labels.WORST):
        sparser = math.copysign(1, 1 - ratios[SPARSITY]["value"])  # -1 where the second training's are sparser
        holds = {1: True, -1: False, 0: None}[int(clear(row) * sparser)] if is_matched(ratios) else None
        yield Line(
            holds, "Of two trainings of equal ‖g‖₁, that with the sparser gradients is more robust.", told(record)
        )


def _line(record: dict, statement: str, across: str, *, given: bool = False, size: str = SPARSITY) -> Line:
    row = correlation(record, size, across, given=given)
    return Line({-1: True, 1: False, 0: None}[clear(row)], statement, f"{plain(row)}{_p(row)}")


def _p(row: dict) -> str:
    return f", p = {row['p']:.2g}" if row.get("p") is not None else ""


def is_matched(ratios: dict[str, dict]) -> bool:
    """Whether the l1 norms of the intervention's two trainings are equal but for the factor `EQUAL`, on test images."""
    return 1 / EQUAL <= ratios[MAGNITUDE]["value"] <= EQUAL


def told(record: dict) -> str:
    """The intervention in a sentence; empty where no two trainings were matched."""
    ratios, differences = contrast(record)
    text = ""
    for row in under(differences, labels.WORST):
        text = (
            f"{_pair(row)}: ‖g‖₁ {plain(ratios[MAGNITUDE])} times, participation number {plain(ratios[SPARSITY])} "
            f"times, accuracy under {attack(row)} {points(row)}"
        )
        text += "" if is_matched(ratios) else "; the magnitudes are not equal"
    return text


def _pair(row: dict) -> str:
    return f"{title(row['training'])} (λ = {row['lam']:g}) against {title(row['against'])} (λ = {row['against_lam']:g})"


# ---- the evidence ------------------------------------------------------------------------------------------------


def figure(record: dict) -> Figure:
    """Robustness against sparsity and magnitude, the correlations with their intervals, and the intervention."""
    fig, axes = plt.subplots(2, 2, figsize=(10.4, 7.4), height_ratios=(5, 4), layout="constrained")
    (*scatters, forest, pair) = axes.flat
    robust = under(select(record, quantity="accuracy"), labels.WORST)
    for ax, (size, label) in zip(scatters, SIZES.items(), strict=True):
        row = correlation(record, size, labels.NETWORKS)
        scatter(select(record, quantity=size), robust, row["experiments"], ax)
        ax.set(xlabel=label)
        ax.set_title("large: mean of a training at one λ; hollow: in no correlation", fontsize=8)
    scatters[1].sharey(scatters[0])
    scatters[0].set_ylabel(f"accuracy under {attack(row)} at {radius(row)}, %")
    names = trainings(record)
    keys = [Line2D([], [], marker="o", color=hue(n), linestyle="", markersize=5, label=title(n)) for n in names]
    scatters[1].legend(handles=keys, loc="upper left", bbox_to_anchor=(1, 1), fontsize=8, **COMPACT)
    forest_panel(record, forest)
    matched_panel(record, pair)
    return fig


def scatter(sizes: list[dict], robust: list[dict], counted: list[str], ax: Axes) -> Axes:
    """Small dots are networks, large ones means of a configuration; a line joins the configurations of SR by λ.

    `sizes` are rows of one quantity, `robust` are accuracies; networks not in `counted` (keys) are hollow.
    """
    accuracy = {row["experiments"][0]: 100 * row["value"] for row in robust}
    configurations: dict[tuple, list[dict]] = {}
    for row in known(sizes):
        configurations.setdefault((row["training"], row.get("lam", math.inf)), []).append(row)
    path = []
    for (training, lam), rows in sorted(configurations.items(), key=lambda item: item[0][1]):
        x, y = [row["value"] for row in rows], [accuracy[row["experiments"][0]] for row in rows]
        colour = hue(training)
        inside = colour if rows[0]["experiments"][0] in counted else "white"
        style = {"color": colour, "linestyle": "", "markerfacecolor": inside}
        ax.plot(x, y, "o", markersize=3, alpha=0.5, **style)
        centre = float(np.exp(np.mean(np.log(x)))) if min(x) > 0 else float(np.mean(x)), float(np.mean(y))
        ax.plot(*centre, "o", markersize=8, **style)
        if training == "sr":
            path.append((*centre, lam))
    if len(path) > 1:
        ax.plot([x for x, *_ in path], [y for _, y, _ in path], color=hue("sr"), linewidth=1, alpha=0.7, zorder=1)
    if any(row["value"] for row in sizes):
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_locator(NullLocator())
    if len(path) > 1:
        ends = [path[0], path[-1]]
        name_dots(ax, [(x, y) for x, y, _ in ends], [f"λ = {lam:g}" for *_, lam in ends], [hue("sr")] * 2)
    return ax


def forest_panel(record: dict, ax: Axes) -> Axes:
    """The correlations of both sizes with robustness, a line for each question, with their intervals."""
    for i, (size, (mark, colour, label)) in enumerate(MARKS.items()):
        rows = [correlation(record, size, q["across"], given=q["given"]) for q in QUESTIONS.values()]
        there = [(y + 0.22 * (i - 0.5), row) for y, row in enumerate(rows) if row["value"] is not None]
        ax.errorbar(
            [row["value"] for _, row in there],
            [y for y, _ in there],
            xerr=whiskers([row for _, row in there]),
            fmt=mark,
            color=colour,
            markersize=5,
            label=label,
        )
    ax.axvline(0, color=".4", linewidth=0.8)
    ax.set_yticks(range(len(QUESTIONS)), QUESTIONS, fontsize=8)
    ax.set(xlim=(-1.03, 1.03), ylim=(len(QUESTIONS) - 0.5, -0.5), xlabel="rank correlation with robustness")
    ax.set_title("left of 0: the sparser (smaller) gradient, the more robust", fontsize=8)
    ax.grid(axis="y", visible=False)
    ax.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2), **COMPACT)
    return ax


def matched_panel(record: dict, ax: Axes) -> Axes:
    """The difference of accuracy between the two trainings of equal magnitude, under each attack."""
    ratios, differences = contrast(record)
    for y, row in enumerate(differences):
        dots(ax, [row], [y], "black")
    ax.axvline(0, color=".4", linewidth=0.8)
    names = ["clean" if row["attack"] == labels.CLEAN else attack(row) for row in differences]
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set(ylim=(max(len(names), 1) - 0.5, -0.5), xlabel="difference of accuracy, percentage points")
    ax.grid(axis="y", visible=False)
    text = "no two trainings of equal magnitude"
    if differences:
        times = {size: f"{ratios[size]['value']:.2f} times" for size in (MAGNITUDE, SPARSITY)}
        text = f"{_pair(differences[0])}:\n‖g‖₁ {times[MAGNITUDE]}, participation number {times[SPARSITY]}"
    ax.set_title(text, fontsize=8)
    return ax


def table(record: dict) -> list[DataFrame]:
    """A line for each training and λ with means over its networks; then the correlations under every attack."""
    lines: dict[str, dict[str, list[dict]]] = {}
    for row in (row for row in record["rows"] if row["quantity"] in COLUMNS):
        name = title(row["training"]) + (f", λ = {row['lam']:g}" if "lam" in row else "")
        column = attack_at(row) if row["quantity"] == "accuracy" else row["quantity"]
        column = f"median {column}" if column in MEDIANS else column
        lines.setdefault(name, {}).setdefault(column, []).append(row)
    means = DataFrame(
        {"training": name, "networks": len(next(iter(columns.values())))}
        | {column: _cell(rows) for column, rows in columns.items()}
        for name, columns in lines.items()
    )
    correlations: dict[tuple, dict] = {}
    for row in select(record, quantity="rank correlation"):
        head = {"size": row["sparsity"], "held": row.get("given", ""), "across": row["across"], "networks": row["n"]}
        correlations.setdefault(tuple(head.values()), head)[attack_at(row)] = plain(row) + _p(row)
    return [means, DataFrame(correlations.values())]


def _cell(rows: list[dict]) -> str:
    return f"{mean(rows):.3g}" if rows[0]["quantity"] in MEDIANS else f"{100 * mean(rows):.1f} %"


def mean(rows: list[dict]) -> float:
    """The mean of the known values of `rows`; NaN where there are none."""
    values = [row["value"] for row in known(rows)]
    return math.fsum(values) / len(values) if values else math.nan


# ---- the pictures ------------------------------------------------------------------------------------------------


def maps_headline(record: dict) -> str:
    """The typical participation number of SR and of vanilla training."""
    numbers = {}
    for training in ("sr", "vanilla"):
        if rows := select(record, quantity=SPARSITY, training=training):
            rows = known(where(rows, lam=rows[0].get("lam")))  # the λ that stands first is the profile's
            numbers[training] = f"{mean(rows):.0f}" if rows else "undefined"
    texts = [f"{number} in {title(training)} networks" for training, number in numbers.items()]
    note = one_network(select(record, quantity=SPARSITY, training="sr")) if texts else ""
    return f"The median participation number of gradients is {listed(texts)}{note}" if texts else NOTHING


def maps(record: dict) -> Figure:
    """∇f by pixel for each training."""
    images = np.array(record["arrays"]["images"])  # (N, C, H, W)
    by_training = record["arrays"]["maps"]
    rows, columns = max(len(images), 1), 1 + len(by_training)
    fig = plt.figure(figsize=(1.5 * columns + 0.6, 1.6 * rows + 1), layout="constrained")
    above = fig.subfigures()
    grid = above.subplots(rows, columns, squeeze=False)
    for ax, image in zip(grid[:, 0], images, strict=False):
        picture(ax, image)
    grid[0, 0].set_title("image", fontsize=8)
    for column, (training, gradients) in zip(grid.T[1:], by_training.items(), strict=True):
        column[0].set_title(title(training), color=hue(training), fontsize=8, fontweight="bold")
        for ax, gradient in zip(column, np.array(gradients), strict=False):
            pixels = gradient.sum(0)  # (C, H, W) → (H, W)
            limit = np.abs(pixels).max() or 1  # a scale of its own, since l1 differs by orders of magnitude
            ax.imshow(pixels, cmap="RdBu_r", vmin=-limit, vmax=limit)
            l1, l2 = np.abs(gradient).sum(), np.sqrt((gradient**2).sum())
            number = f"{(l1 / l2) ** 2:.0f}" if l2 else "undefined"
            ax.set_xlabel(f"l1 {l1:.2g}, l2 {l2:.1g}\nPN {number}", fontsize=7)
    for ax in grid.flat:
        ax.set(xticks=[], yticks=[])
        sns.despine(ax=ax, left=True, bottom=True)
    note = "∇f by pixel, each on its own scale; red: brighter makes the true class likelier.  PN: participation number"
    above.supxlabel(note, fontsize=7)
    return fig


PARTS = {"maps": Part(maps_headline, IMAGES, maps)}
