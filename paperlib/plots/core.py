"""What all figures share: colours, curves with their intervals, names at their ends."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from paperlib.claims import BASELINES, RANDOM_FLIPS, title

COLOURS = {"vanilla": "#4d4d4d", "sr": "#0072b2", "at": "#e69f00", "at+sr": "#009e73"}
COLOURS |= {"rat": "#999933", "trades": "#882255", "trades+sr": "#44aa99"}  # the rivals
COLOURS |= {"l2": "#aa4499", "loss-l1": "#88ccee", "exact-l1": "#332288"}
OTHER = "#661100"  # of any other training
NOISE = {"uniform": "#56b4e9", "sign": "#cc79a7", RANDOM_FLIPS: "#117733"}
ATTACK = "#d55e00"
LOG = {"xscale": "log"}  # of radii and steps, before anything is drawn: a single one would give limits without width


def curve(panel: Axes, x: list[float], rows: list[dict], colour: str, *, width: float) -> float:
    """A line of percentages with its interval as a band; returns the height at which it ends."""
    values = np.array([[100 * r["value"], 100 * bound(r, "low"), 100 * bound(r, "high")] for r in rows]).T
    panel.plot(x, values[0], color=colour, linewidth=width, marker="o", markersize=3)
    panel.fill_between(x, values[1], values[2], color=colour, alpha=0.18, linewidth=0)
    return values[0, -1]


def name_ends(panel: Axes, x: float, ends: list[tuple[float, str, str]], apart: float = 4.5) -> None:
    """Write (height, name, colour) beside the lines' ends at `x`, from the top down, moved apart where too close."""
    below = np.inf
    for height, name, colour in sorted(ends, reverse=True):
        below = min(height, below - apart * (1 + name.count("\n")))
        where = {"textcoords": "offset points", "va": "center", "color": colour, "fontsize": 8}
        panel.annotate(name, (x, below), (4, 0), **where)


def name_dots(panel: Axes, dots: list[tuple[float, float]], names: list[str], colours: list[str]) -> None:
    """Write each name beside its dot, where it meets fewest other dots and names; the panel's limits must stand."""
    panel.figure.draw_without_rendering()  # so that the layout gives the panel its size
    at = panel.transData.transform(dots) * 72 / panel.figure.dpi  # in points
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
        panel.annotate(name, dot, middle, textcoords="offset points", **style)


def logarithmic(panel: Axes) -> None:
    """A logarithmic scale of values, if there is anything above 0 to show."""
    if np.isfinite(panel.dataLim.minpos[1]):
        panel.set_yscale("log")


def hue(training: str) -> str:
    """A training's colour, the same in every figure."""
    return COLOURS.get(training, OTHER)


def trainings(record: dict) -> list[str]:
    """The trainings in `record`: the paper's in their order, then any others."""
    found = dict.fromkeys(row["training"] for row in record["rows"] if "training" in row)
    return sorted(found, key=lambda t: list(COLOURS).index(t) if t in COLOURS else len(COLOURS))


def bound(row: dict, end: str) -> float:
    """The bound, or the value itself where one seed has no interval."""
    return row["value"] if row[end] is None else row[end]


def whiskers(rows: list[dict]) -> np.ndarray:
    """How far each row's interval reaches below and above its value, (2, n)."""
    ends = [[r["value"] - bound(r, "low"), bound(r, "high") - r["value"]] for r in rows]
    return np.maximum(ends, 0).reshape(-1, 2).T


def dots(panel: Axes, rows: list[dict], y: float | list[float], colour: str, **style) -> None:
    """Percentages from left to right, their intervals as whiskers, at the heights `y`."""
    values, reach = [100 * r["value"] for r in rows], 100 * whiskers(rows)
    style = {"fmt": "o", "markersize": 5, "elinewidth": 1.4} | style
    panel.errorbar(values, y, xerr=reach, color=colour, **style)


def gains(panel: Axes, lines: dict[str, list[dict]], *, below: float) -> None:
    """What SR adds to each training: a line for each of `lines`, its name and the differences that stand on it.

    The legend lies so far `below` the panel, in its heights.
    """
    for i, (training, against) in enumerate(BASELINES.items()):
        own = [(y, r) for y, rows in enumerate(lines.values()) for r in rows if r["training"] == training]
        if own:
            at = [y + 0.13 * (2 * i - 1) for y, _ in own]
            label = f"{title(training)} - {title(against)}"
            dots(panel, [r for _, r in own], at, hue(training), markersize=4, label=label)
    panel.axvline(0, color=".4", linewidth=0.8)
    panel.set_yticks(range(len(lines)), list(lines), fontsize=7)
    panel.set(title="What SR changes, percentage points", ylim=(len(lines) - 0.5, -0.5))
    if panel.get_legend_handles_labels()[0]:
        panel.legend(loc="upper center", bbox_to_anchor=(0.4, -below), fontsize=8, ncols=2)


def line(
    panel: Axes, x: str, rows: list[dict], colour: str, label: str | None = None, *, factor: float = 1, **style
) -> None:
    """`factor` times the values against the rows' label `x`, their interval as a band; rows without are left out."""
    known = [r for r in rows if r["value"] is not None]
    at, style = [r[x] for r in known], {"marker": "o", "markersize": 3} | style
    panel.plot(at, [factor * r["value"] for r in known], color=colour, label=label, **style)
    low, high = ([factor * bound(r, end) for r in known] for end in ("low", "high"))
    panel.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
