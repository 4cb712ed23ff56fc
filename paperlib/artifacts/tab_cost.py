"""The cost of a step of each training, and accuracy against the passes that training took."""

from collections.abc import Iterable

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from pandas import DataFrame

from paperlib import labels
from paperlib.artifacts.budgets import STRONG, equal_cost_headline, equal_cost_table, worst_cases
from paperlib.artifacts.drawing import bound, handle, name_lines, shade, whiskers
from paperlib.artifacts.reading import Line, one_network, select, trainings, where
from paperlib.artifacts.tabulating import number, pivot
from paperlib.words import title

EXACT = ("exact-l1", "l2")  # trainings by double back-propagation
KINDS = {  # each kind of cost: its marker, and the words for less of it
    "passes": ("o", "fewer passes"),
    "multiply-adds": ("s", "fewer multiply-adds"),
    "bytes kept": ("D", "less memory"),
    "seconds": ("^", "less time"),
}
# quantities of the table, with the end of their columns' names
COLUMNS = {"cost of a step": "a step", "relative cost": "relative to vanilla", "cost of an epoch": "an epoch"}
UNITS = {
    "cost of a step": {"multiply-adds": (1e6, "M"), "bytes kept": (1e6, "MB"), "seconds": (1e-3, "ms")},
    "cost of an epoch": {"multiply-adds": (1e9, "G"), "bytes kept": (1e6, "MB"), "seconds": (1, "s")},
}
caption = "{data}; seconds: median, fastest and slowest of {repeats} steps of {batch} images; " + STRONG


def headline(record: dict) -> str:
    """The time and memory of a step of SR, relative to a vanilla one."""
    kinds = ("seconds", "bytes kept")
    seconds, memory = ({row["training"]: row["value"] for row in relative(record, what)} for what in kinds)
    if "sr" not in seconds:
        return equal_cost_headline(record)
    return (
        f"A step of SR takes {seconds['sr']:.1f} times the time and {memory['sr']:.1f} times the memory of a vanilla "
        f"one{one_network(relative(record, 'seconds'))}"
    )


def figure(record: dict) -> Figure:
    """Left, each training's step relative to a vanilla one; right, the worst case at equal epochs and equal passes."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 5), width_ratios=(5, 4), layout="constrained")
    counted = {row["training"] for row in relative(record, "passes")}
    names = [name for name in trainings(record) if name in counted]
    steps(select(record, quantity="relative cost"), names, left)
    left.set_title("A step, relative to one of vanilla training", loc="left")
    worst_cases(record, right)
    right.set_title("What the passes of a whole training buy", loc="left")
    return fig


def table(record: dict) -> list[DataFrame]:
    """The cost of a step and an epoch of each training, and of a step relative to a vanilla one; then equal cost."""

    def column(row: dict) -> str:
        return f"{row['what']}, {COLUMNS[row['quantity']]}"

    def cell(row: dict) -> str:
        size, unit = UNITS.get(row["quantity"], {}).get(row["what"], (1, ""))
        ends = {end: None if row[end] is None else row[end] / size for end in ("value", "low", "high")}
        return f"{number(ends)} {unit}".strip()

    rows = [row for quantity in COLUMNS for row in select(record, quantity=quantity)]
    costs = pivot(rows, lambda row: {"training": title(row["training"])}, column, cell)
    for end in ("a step", "an epoch"):  # forward and backward passes share a column
        place = costs.columns.get_loc(f"forward passes, {end}")
        forward, backward = (costs.pop(f"{way} passes, {end}") for way in ("forward", "backward"))
        costs.insert(place, f"passes forward + backward, {end}", forward + " + " + backward)
    return [costs, *equal_cost_table(record)] if select(record, attack=labels.WORST) else [costs]


def box(record: dict) -> Iterable[Line]:
    """A line for each kind of cost: whether a step of SR takes less than one of double back-propagation."""

    def times(row: dict) -> str:
        bounds = "" if row["low"] is None else f" [{row['low']:.1f}, {row['high']:.1f}]"
        return f"{title(row['training'])} {row['value']:.1f} times{bounds}"

    for what, (_, less) in KINDS.items():
        by_name = {row["training"]: row for row in relative(record, what)}
        rivals = [by_name[name] for name in EXACT if name in by_name]
        if rivals and (sr := by_name.get("sr")):
            cheaper = all(bound(sr, "high") < bound(rival, "low") for rival in rivals)
            dearer = any(bound(sr, "low") > bound(rival, "high") for rival in rivals)
            statement = f"A step of SR takes {less} than one of double back-propagation."
            numbers = ", ".join(map(times, (sr, *rivals)))
            holds = True if cheaper else False if dearer else None
            yield Line(holds, statement, f"{numbers} a vanilla step", of_networks=False)


def relative(record: dict, what: str) -> list[dict]:
    """The costs of a step of each training, of the kind `what`, in those of a vanilla step."""
    return select(record, quantity="relative cost", what=what)


def steps(rows: list[dict], names: list[str], ax: Axes) -> Axes:
    """A line for each training of `names` with a mark for each kind of cost, from relative costs of a step."""
    ax.set_xscale("log")
    for i, (what, (mark, _)) in enumerate(KINDS.items()):
        for row in where(rows, what=what):
            height = names.index(row["training"]) + 0.18 * (i - 1.5)
            style = {"fmt": mark, "markersize": 5, "elinewidth": 1.0, "color": shade(row["training"])}
            ax.errorbar([row["value"]], [height], xerr=whiskers([row]), **style)
    name_lines(ax, [title(name) for name in names], [shade(name) for name in names])
    ax.axvline(1, color=".4", linewidth=0.8)
    ax.xaxis.set_major_locator(FixedLocator((1, 2, 3, 5, 10, 20, 30, 50, 100)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter("{x:g}")
    handles = [handle(mark, what) for what, (mark, _) in KINDS.items()]
    ax.legend(handles=handles, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.08), fontsize=8, columnspacing=0.8)
    return ax
