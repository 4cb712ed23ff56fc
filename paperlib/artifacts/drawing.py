"""What all figures share.  Each function that draws returns its `ax`; values are shares, drawn as percentages."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from paperlib import labels
from paperlib.artifacts.reading import BASELINES, known, where
from paperlib.words import hue, title

NOISE = {"uniform": "#56b4e9", "sign": "#cc79a7", labels.RANDOM_FLIPS: "#117733"}
ATTACK = "#d55e00"
GREY = ".35"
PALE = "#8c8c8c"
RIVALS = ("at-pgd", "rat", "trades", "trades+sr", "l2", "loss-l1", "exact-l1")  # grey beside the paper's four trainings
# symbols of the theorem
ADV, RAND, F_Y = r"$\rho_\mathrm{adv}$", r"$\rho_\mathrm{rand}$", "$f_y$"
NAME_HEIGHT = 0.062  # of a name beside the end of a line, as a share of the frame's height
LOG = {"xscale": "log"}  # set before anything is drawn: a single value would give limits without width


def curve(ax: Axes, x: list[float], rows: list[dict], colour: str, *, width: float) -> Axes:
    """A line against `x` with its interval as a band."""
    values = np.array([[100 * r["value"], 100 * bound(r, "low"), 100 * bound(r, "high")] for r in rows]).T
    ax.plot(x, values[0], color=colour, linewidth=width, marker="o", markersize=3)
    ax.fill_between(x, values[1], values[2], color=colour, alpha=0.18, linewidth=0)
    return ax


def floors(ax: Axes, rows: list[dict]) -> Axes:
    """A dotted line across the panel at each of `rows`, the certified accuracies of trainings at the panel's radius."""
    for row in rows:
        ax.axhline(100 * row["value"], color=hue(row["training"]), linewidth=1, linestyle=":")
    return ax


def end(rows: list[dict]) -> float:
    """The height at which a `curve` of these rows ends."""
    return 100 * rows[-1]["value"]


def shade(training: str) -> str:
    """The colour of a training in a figure of all ten: grey for a rival, because nobody tells ten colours apart."""
    return PALE if training in RIVALS else hue(training)


def name_ends(ax: Axes, ends: list[tuple[float, str, str]]) -> Axes:
    """Write names on the right of the frame, at the heights where lines end; `ends`: height, name, colour.

    The limits of `ax` must be set.  A name that would overlap another is moved, and joined to its line.
    """
    ends = sorted(ends, key=lambda end: -end[0])
    right = ax.get_xlim()[1]
    places = ax.transAxes.inverted().transform(ax.transData.transform([(right, height) for height, *_ in ends]))[:, 1]
    for place, moved, (_, name, colour) in zip(places, spread(list(places), NAME_HEIGHT), ends, strict=True):
        leader = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)}
        style = {"color": colour, "fontsize": 8, "va": "center", "annotation_clip": False}
        ax.annotate(
            name,
            (1, place),
            (1.045, moved),
            xycoords="axes fraction",
            textcoords="axes fraction",
            arrowprops=leader,
            **style,
        )
    return ax


def spread(heights: list[float], least: float) -> list[float]:
    """Falling heights in [0, 1] moved as little as possible until they are at least `least` apart."""
    groups: list[list[float]] = []  # of neighbours that touch: heights as if all of a group stood where its first does
    for i, height in enumerate(heights):
        groups.append([height + i * least])
        while len(groups) > 1 and sum(groups[-2]) / len(groups[-2]) < sum(groups[-1]) / len(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    moved = [sum(group) / len(group) for group in groups for _ in group]
    moved = [height - i * least for i, height in enumerate(moved)]
    for i in reversed(range(len(moved))):  # none below the frame, then none above it
        moved[i] = max(moved[i], moved[i + 1] + least if i + 1 < len(moved) else 0.0)
    for i, height in enumerate(moved):
        moved[i] = min(height, moved[i - 1] - least if i else 1.0)
    return moved


def shares(ax: Axes, rows: list[dict]) -> Axes:
    """A y-axis of accuracies in percent that ends a little above the highest interval of `rows`."""
    top = max((100 * bound(row, "high") for row in known(rows)), default=100)
    ax.set(ylabel="accuracy, %", ylim=(0, min(101, 1.08 * top + 2)))
    return ax


def name_dots(ax: Axes, dots: list[tuple[float, float]], names: list[str], colours: list[str]) -> Axes:
    """Write each name beside its dot, where it overlaps fewest dots and names; the limits of `ax` must be set."""
    ax.figure.draw_without_rendering()  # the layout gives the axes their size
    places = ax.transData.transform(dots) * 72 / ax.figure.dpi  # in points
    boxes = [(x - 4, y - 4, x + 4, y + 4) for x, y in places]  # (left, bottom, right, top) of dots and written names
    halo = [withStroke(linewidth=2, foreground="white")]
    for dot, (x, y), name, colour in zip(dots, places, names, colours, strict=True):
        width, height, candidates = 5 * len(name), 9, []
        for dx, dy in ((1, 1), (-1, 1), (1, -1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1)):
            left, low = x + 5 * dx + width * (dx - 1) / 2, y + 5 * dy + height * (dy - 1) / 2
            box = left, low, left + width, low + height
            overlaps = sum(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in boxes)
            candidates.append((overlaps, len(candidates), box))
        _, _, box = min(candidates)
        boxes.append(box)
        middle = (box[0] + box[2]) / 2 - x, (box[1] + box[3]) / 2 - y
        style = {"color": colour, "fontsize": 8, "ha": "center", "va": "center", "path_effects": halo}
        ax.annotate(name, dot, middle, textcoords="offset points", **style)
    return ax


def logarithmic(ax: Axes) -> Axes:
    """A logarithmic scale of values, if any value is above 0."""
    if np.isfinite(ax.dataLim.minpos[1]):
        ax.set_yscale("log")
    return ax


def bound(row: dict, end: str) -> float:
    """The bound "low" or "high" of a row's interval; the value where there is no interval."""
    return row["value"] if row[end] is None else row[end]


def whiskers(rows: list[dict]) -> np.ndarray:
    """The distances from each row's value down to its interval's lower bound and up to the upper one, (2, n)."""
    ends = [[r["value"] - bound(r, "low"), bound(r, "high") - r["value"]] for r in rows]
    return np.maximum(ends, 0).reshape(-1, 2).T


def dots(ax: Axes, rows: list[dict], y: float | list[float], colour: str, **style) -> Axes:
    """A dot for each row, its value on the x-axis, at the heights `y`; intervals are whiskers."""
    style = {"fmt": "o", "markersize": 5, "elinewidth": 1.4} | style
    ax.errorbar([100 * r["value"] for r in rows], y, xerr=100 * whiskers(rows), color=colour, **style)
    return ax


def gains(ax: Axes, lines: dict[str, list[dict]]) -> Axes:
    """A line of dots for each of `lines`, name → differences of trainings."""
    for i, (training, against) in enumerate(BASELINES.items()):
        pairs = [(y, row) for y, rows in enumerate(lines.values()) for row in where(rows, training=training)]
        if pairs:
            heights = [y + 0.13 * (2 * i - 1) for y, _ in pairs]
            label = f"{title(training)} - {title(against)}"
            dots(ax, [row for _, row in pairs], heights, hue(training), markersize=4, label=label)
    ax.axvline(0, color=".4", linewidth=0.8)
    ax.set_yticks(range(len(lines)), list(lines), fontsize=8)
    ax.set(title="What SR changes, points", ylim=(len(lines) - 0.5, -0.5))
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), fontsize=8, ncols=2, columnspacing=1)
    return ax


def line(ax: Axes, x: str, rows: list[dict], colour: str, label: str = "", *, factor: float = 1, **style) -> Axes:
    """`factor` times the known values, not as percentages, against the rows' label `x`, the interval as a band."""
    rows = known(rows)
    places, style = [r[x] for r in rows], {"marker": "o", "markersize": 3} | style
    ax.plot(places, [factor * r["value"] for r in rows], color=colour, label=label, **style)
    low, high = ([factor * bound(r, end) for r in rows] for end in ("low", "high"))
    ax.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
    return ax


def by_training(ax: Axes, x: str, rows: list[dict], names: list[str]) -> Axes:
    """A `line` against the label `x` for each of the trainings `names`, in its colour."""
    for name in names:
        line(ax, x, where(rows, training=name), hue(name), title(name))
    return ax


def picture(ax: Axes, image: np.ndarray) -> Axes:
    """An image (C, H, W) with pixels in [0, 1]; one channel is drawn in grey."""
    ax.imshow(image.transpose(1, 2, 0).squeeze(), cmap="gray_r", vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
    return ax


def capped(row: dict) -> dict:
    """The style of a row's whiskers: those of an interval over the samples of one network have caps."""
    has_caps = row["low"] is not None and row["over"] == labels.SAMPLES
    return {"elinewidth": 1.0, "capsize": 2.5 if has_caps else 0}


def name_lines(ax: Axes, names: list[str], colours: list[str]) -> Axes:
    """Name the lines of a panel, from the top down, each in its colour."""
    ax.set_yticks(range(len(names)), names)
    for label, colour in zip(ax.get_yticklabels(), colours, strict=True):
        label.set(color=colour, fontweight="bold")
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    return ax


def handle(mark: str, name: str, *, hollow: bool = False) -> Line2D:
    """A legend's entry for a marker."""
    style = {"markersize": 5, "markerfacecolor": "white" if hollow else GREY}
    return Line2D([], [], color=GREY, marker=mark, linestyle="", label=name, **style)
