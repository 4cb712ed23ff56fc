"""What all figures share: colours, curves with their intervals, names at their ends.

Each function that draws takes rows and an `ax`, and returns the `ax`.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from paperlib import labels
from paperlib.artifacts.reading import BASELINES
from paperlib.words import attack, hue, title

NOISE = {"uniform": "#56b4e9", "sign": "#cc79a7", labels.RANDOM_FLIPS: "#117733"}
ATTACK = "#d55e00"
LOG = {"xscale": "log"}  # of radii and steps, before anything is drawn: a single one would give limits without width


def curve(ax: Axes, x: list[float], rows: list[dict], colour: str, *, width: float) -> Axes:
    """A line of percentages with its interval as a band."""
    values = np.array([[100 * r["value"], 100 * bound(r, "low"), 100 * bound(r, "high")] for r in rows]).T
    ax.plot(x, values[0], color=colour, linewidth=width, marker="o", markersize=3)
    ax.fill_between(x, values[1], values[2], color=colour, alpha=0.18, linewidth=0)
    return ax


def end(rows: list[dict]) -> float:
    """The height at which a `curve` of these rows ends."""
    return 100 * rows[-1]["value"]


def name_ends(ax: Axes, x: float, ends: list[tuple[float, str, str]], apart: float = 4.5) -> Axes:
    """Write (height, name, colour) beside the lines' ends at `x`, from the top down, moved apart where too close."""
    below = np.inf
    for height, name, colour in sorted(ends, reverse=True):
        below = min(height, below - apart * (1 + name.count("\n")))
        where = {"textcoords": "offset points", "va": "center", "color": colour, "fontsize": 8}
        ax.annotate(name, (x, below), (4, 0), **where)
    return ax


def name_dots(ax: Axes, dots: list[tuple[float, float]], names: list[str], colours: list[str]) -> Axes:
    """Write each name beside its dot, where it meets fewest other dots and names; the limits of `ax` must be set."""
    ax.figure.draw_without_rendering()  # so that the layout gives the axes its size
    at = ax.transData.transform(dots) * 72 / ax.figure.dpi  # in points
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in at]
    halo = [withStroke(linewidth=2, foreground="white")]
    for dot, (x, y), name, colour in zip(dots, at, names, colours, strict=True):
        width, height, tries = 5 * len(name), 9, []
        for dx, dy in ((1, 1), (-1, 1), (1, -1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1)):
            left, low = x + 5 * dx + width * (dx - 1) / 2, y + 5 * dy + height * (dy - 1) / 2
            box = left, low, left + width, low + height
            met = sum(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken)
            tries.append((met, len(tries), box))
        _, _, box = min(tries)
        taken.append(box)
        middle = (box[0] + box[2]) / 2 - x, (box[1] + box[3]) / 2 - y
        style = {"color": colour, "fontsize": 8, "ha": "center", "va": "center", "path_effects": halo}
        ax.annotate(name, dot, middle, textcoords="offset points", **style)
    return ax


def logarithmic(ax: Axes) -> Axes:
    """A logarithmic scale of values, if there is anything above 0 to show."""
    if np.isfinite(ax.dataLim.minpos[1]):
        ax.set_yscale("log")
    return ax


def bound(row: dict, end: str) -> float:
    """The bound, or the value itself where one seed has no interval."""
    return row["value"] if row[end] is None else row[end]


def whiskers(rows: list[dict]) -> np.ndarray:
    """How far each row's interval reaches below and above its value, (2, n)."""
    ends = [[r["value"] - bound(r, "low"), bound(r, "high") - r["value"]] for r in rows]
    return np.maximum(ends, 0).reshape(-1, 2).T


def dots(ax: Axes, rows: list[dict], y: float | list[float], colour: str, **style) -> Axes:
    """Percentages from left to right, their intervals as whiskers, at the heights `y`."""
    values, reach = [100 * r["value"] for r in rows], 100 * whiskers(rows)
    style = {"fmt": "o", "markersize": 5, "elinewidth": 1.4} | style
    ax.errorbar(values, y, xerr=reach, color=colour, **style)
    return ax


def gains(ax: Axes, lines: dict[str, list[dict]], *, below: float) -> Axes:
    """What SR adds to each training: a line for each of `lines`, its name and the differences that stand on it.

    The legend lies so far `below` the axes, in its heights.
    """
    for i, (training, against) in enumerate(BASELINES.items()):
        own = [(y, r) for y, rows in enumerate(lines.values()) for r in rows if r["training"] == training]
        if own:
            at = [y + 0.13 * (2 * i - 1) for y, _ in own]
            label = f"{title(training)} - {title(against)}"
            dots(ax, [r for _, r in own], at, hue(training), markersize=4, label=label)
    ax.axvline(0, color=".4", linewidth=0.8)
    ax.set_yticks(range(len(lines)), list(lines), fontsize=7)
    ax.set(title="What SR changes, percentage points", ylim=(len(lines) - 0.5, -0.5))
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="upper center", bbox_to_anchor=(0.4, -below), fontsize=8, ncols=2)
    return ax


def line(
    ax: Axes, x: str, rows: list[dict], colour: str, label: str | None = None, *, factor: float = 1, **style
) -> Axes:
    """`factor` times the values against the rows' label `x`, their interval as a band; rows without are left out."""
    known = [r for r in rows if r["value"] is not None]
    at, style = [r[x] for r in known], {"marker": "o", "markersize": 3} | style
    ax.plot(at, [factor * r["value"] for r in known], color=colour, label=label, **style)
    low, high = ([factor * bound(r, end) for r in known] for end in ("low", "high"))
    ax.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
    return ax


LAWS = {"uniform": "Uniform noise", "sign": "Random signs", labels.RANDOM_FLIPS: "Random flips"}  # titles of panels
SIGNS = {"eps_255": "ε", "eps_counts": "ε", "flips": "k"}  # of a radius
WIDTHS = {1: 0.9, 2: 1.6, 4: 2.6}  # of the lines of noise so many times larger than the attack


def against_noise(ax: Axes, attacked: list[dict], noise: dict[int, list[tuple[float, dict]]], unit: str) -> Axes:
    """An attack's accuracy against its radius in `unit`, and one line for each multiple of it at which noise was drawn.

    `attacked` are the attack's rows, the smallest radius first; `noise` maps a multiple to pairs of the attack's radius
    and the row of the noise that is so many times larger.
    """
    ends = []
    for k, pairs in noise.items():
        rows = [row for _, row in pairs]
        colour = NOISE[rows[0]["attack"]]
        curve(ax, [radius for radius, _ in pairs], rows, colour, width=WIDTHS.get(k, 1.2))
        ends.append((end(rows), f"noise, {k if k > 1 else ''}{SIGNS[unit]}", colour))
    curve(ax, [row[unit] for row in attacked], attacked, ATTACK, width=1.8)
    ends.append((end(attacked), f"{attack(attacked[0])}, {SIGNS[unit]}", ATTACK))
    name_ends(ax, attacked[-1][unit], ends)
    ax.set_xlim(0, 1.22 * attacked[-1][unit])
    return ax


def clean_line(ax: Axes, clean: dict, *, named: bool) -> Axes:
    """A dotted line at the accuracy without a perturbation, and maybe "clean" above it."""
    ax.axhline(100 * clean["value"], color=".6", linestyle=":", linewidth=1)
    if named:
        ax.text(ax.get_xlim()[1] / 150, 100 * clean["value"] + 1, "clean", color=".4", fontsize=8)
    return ax


# ---- a line a training, named in its colour ---------------------------------------------------------------------

GREY = ".35"


def capped(row: dict) -> dict:
    """The style of a row's whiskers: those that tell of images alone have caps."""
    over_seeds = row["over"] == labels.SEEDS or row["low"] is None
    return {"elinewidth": 1.0, "capsize": 0 if over_seeds else 2.5}


def name_lines(ax: Axes, names: list[str], colours: list[str]) -> Axes:
    """The lines from the top down, each named in its colour."""
    ax.set_yticks(range(len(names)), names)
    for label, colour in zip(ax.get_yticklabels(), colours, strict=True):
        label.set(color=colour, fontweight="bold")
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    return ax


def handle(mark: str, name: str, *, hollow: bool = False) -> Line2D:
    """A legend's entry for a marker."""
    face = "white" if hollow else GREY
    return Line2D([], [], color=GREY, marker=mark, linestyle="", markersize=5, markerfacecolor=face, label=name)
