"""Validation accuracy against the weight λ of a training's penalty."""

import math
from collections.abc import Iterable

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from paperlib import labels
from paperlib.artifacts.drawing import ATTACK, curve, end, name_dots, name_ends, shares, whiskers
from paperlib.artifacts.reading import Line, one_network, percent, same_attack, select, under, where
from paperlib.artifacts.tabulating import attack_at, pivot
from paperlib.words import attack, hue, radius, title

CHOSEN, USED = "chosen", "in use"  # how a λ can be marked

caption = "{data}, {samples} validation images, {seeds}"


def headline(record: dict) -> str:
    """The λ that validation data choose, and the one in use."""
    (chosen,), (used,) = select(record, quantity="chosen λ", of=None), select(record, quantity="used λ", of=None)
    training = title(record["provenance"]["parameters"]["training"])
    note = one_network(select(record, quantity="mean accuracy", of=None))
    if used["value"] is None:
        return f"Of the λ that were trained here, validation data choose {chosen['value']:g} for {training}{note}"
    if chosen["value"] == used["value"]:
        return f"Validation data choose λ = {chosen['value']:g} for {training}, as this companion uses{note}"
    return f"Validation data choose λ = {chosen['value']:g} for {training}, while {used['value']:g} is in use{note}"


def box(record: dict) -> Iterable[Line]:
    """Whether the λ in use is the chosen one, whether networks broke down, then the weights of other trainings."""
    (chosen,), (used,) = select(record, quantity="chosen λ", of=None), select(record, quantity="used λ", of=None)
    means = select(record, quantity="mean accuracy", of=None)
    training = title(record["provenance"]["parameters"]["training"])
    statement = f"The λ in use for {training} is the one that validation data choose."
    there, before = ([row for row in means if weight(row) == lam["value"]] for lam in (chosen, used))
    pairs = [(row, other) for row in there for other in same_attack(before, row)]
    changes = [f"{attack(row)} {100 * (row['value'] - other['value']):+z.1f} points" for row, other in pairs]
    same = None if used["value"] is None else chosen["value"] == used["value"]
    numbers = f"The λ chosen is {chosen['value']:g}"
    if same is None:
        numbers += f"; that of {training} is not known"
    elif not same:
        numbers += f", that in use {used['value']:g}"
        numbers += f"; chosen minus in use: {', '.join(changes)}" if changes else ""
    yield Line(same, statement, f"{numbers}.", of_networks=False)
    counts = broken(means, select(record, quantity="accuracy"))
    down = [f"{lam:g} ({count} of {networks})" for lam, (count, networks) in counts.items() if count]
    lost = "clean accuracy below half of the vanilla mean"
    at = f"λ = {', '.join(down)}" if down else "none"
    yield Line(not down, "No network broke down.", f"With {lost}: {at}.")
    for choice in (row for row in select(record, quantity="chosen λ") if "of" in row):
        (in_use,) = select(record, quantity="used λ", of=choice["of"])
        statement = f"The weight in use for {title(choice['of'])} is the one that validation data choose."
        agree = None if in_use["value"] is None else choice["value"] == in_use["value"]
        numbers = f"Chosen {choice['value']:g}, in use {in_use['value'] or math.nan:g}"
        yield Line(agree, statement, f"{numbers}{one_network([choice])}.")


def figure(record: dict) -> Figure:
    """Validation accuracy, clean and attacked: left against λ, right against each other; two λ are marked."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(10.4, 4.2), width_ratios=(5, 4), layout="constrained")
    left.set_title("Accuracy against λ")
    right.set_title("Robust against clean accuracy; numbers are λ")
    (chosen,), (used,) = select(record, quantity="chosen λ", of=None), select(record, quantity="used λ", of=None)
    marks = {used["value"]: USED, chosen["value"]: CHOSEN}  # where they agree, "chosen"
    training = record["provenance"]["parameters"]["training"]
    means, networks = select(record, quantity="mean accuracy", of=None), select(record, quantity="accuracy")
    curves = by_weight(means)
    sweep_panel(curves, networks, marks, training, left)
    down = [lam for lam, (count, _) in broken(means, networks).items() if count]
    trade_off_panel(curves[0], curves[-1], down, marks, training, right)
    return fig


def table(record: dict) -> list[DataFrame]:
    """A line for each λ: mean accuracy, clean and attacked; then so for the weights of the other trainings."""
    means = select(record, quantity="mean accuracy")
    own, others = where(means, of=None), [row for row in means if "of" in row]
    tables = [pivot(own, lambda r: {"λ": f"{weight(r):g}" if weight(r) else "0 (vanilla)"}, attack_at, percent)]
    if others:
        tables.append(pivot(others, lambda r: {"training": title(r["of"]), "weight": _weight(r)}, attack_at, percent))
    return tables


def _weight(row: dict) -> str:
    return f"{row['weight']:g}" if row["weight"] else f"0 ({title(row['training'])})"


def weight(row: dict) -> float:
    """The λ of a row, 0 of vanilla training."""
    return row.get("lam", 0.0)


def by_weight(rows: list[dict]) -> list[list[dict]]:
    """The rows of each attack, the smallest λ first."""
    groups: dict[tuple, list[dict]] = {}
    for row in sorted(rows, key=weight):
        groups.setdefault(tuple(labels.attack(row).items()), []).append(row)
    return list(groups.values())


def broken(means: list[dict], networks: list[dict]) -> dict[float, tuple[int, int]]:
    """For each λ how many `networks` broke down, with clean accuracy below half of the vanilla mean, and their count.

    `means` are mean accuracies, `networks` the accuracies of single networks.
    """
    level = next((row["value"] / 2 for row in under(means, labels.CLEAN) if not weight(row)), 0.0)
    counts: dict[float, tuple[int, int]] = {}
    for row in under(networks, labels.CLEAN):
        count, total = counts.get(weight(row), (0, 0))
        counts[weight(row)] = count + (row["value"] < level), total + 1
    return counts


def sweep_panel(
    curves: list[list[dict]], networks: list[dict], marks: dict[float, str], training: str, ax: Axes
) -> Axes:
    """Accuracy against the λ of `training`: a line for each of `curves` (see `by_weight`), a dot for each network.

    `curves` holds mean accuracies, `networks` those of single networks; `marks` maps a λ to its mark.
    """
    shares(ax, networks + [row for rows in curves for row in rows])
    places, ends = {weight(row): i for i, row in enumerate(curves[0])}, []  # equal steps: a logarithmic axis has no 0
    for rows in curves:
        clean = rows[0]["attack"] == labels.CLEAN
        colour = "#4d4d4d" if clean else ATTACK
        curve(ax, [places[weight(row)] for row in rows], rows, colour, width=1.8)
        ends.append((end(rows), attack(rows[0]), colour))
        for row in same_attack(networks, rows[0]):
            ax.plot(places[weight(row)], 100 * row["value"], ".", color=colour, markersize=4, alpha=0.6)
    for lam, mark in marks.items():
        if lam in places:
            ax.axvline(places[lam], color=hue(training), linestyle="--" if mark == CHOSEN else ":", linewidth=1)
            ax.text(places[lam], 2, f" {mark}", color=hue(training), fontsize=8)
    ax.set_xticks(range(len(places)), [f"{lam:g}" if lam else "0\n(vanilla)" for lam in places])
    ax.set(xlabel=f"λ of {title(training)}", ylabel="validation accuracy, %")
    ax.set_xlim(-0.3, len(places) - 0.8)
    return name_ends(ax, ends)


def trade_off_panel(
    clean: list[dict], attacked: list[dict], down: list[float], marks: dict[float, str], training: str, ax: Axes
) -> Axes:
    """A dot for each λ of `training`: its clean accuracy and its accuracy under attack, joined in the order of λ.

    `clean` and `attacked` hold a row for each λ, the smallest first; `marks` maps a λ to its mark.  The λ of `down`,
    where networks broke down, are in the title alone: their dots would leave no room for the others.
    """
    pairs = [(c, a) for c, a in zip(clean, attacked, strict=True) if weight(c) not in down]
    dots = [(100 * c["value"], 100 * a["value"]) for c, a in pairs]
    names, colours = [f"{weight(c):g}" for c, _ in pairs], [hue(c["training"]) for c, _ in pairs]
    ax.plot(*zip(*dots, strict=True), color=hue(training), linewidth=1, alpha=0.6, zorder=1)
    for (c, a), (x, y), colour in zip(pairs, dots, colours, strict=True):
        reach = {"xerr": 100 * whiskers([c]), "yerr": 100 * whiskers([a])}
        ax.errorbar([x], [y], **reach, fmt="none", ecolor=colour, elinewidth=0.7, alpha=0.35, zorder=1)
        ax.plot(x, y, "o", color=colour, markersize=5)
        if mark := marks.get(weight(c)):
            style = {"markersize": 12, "markerfacecolor": "none", "markeredgewidth": 1.4, "color": colour}
            ax.plot(x, y, "o" if mark == CHOSEN else "s", label=mark, **style)
    ax.set(xlim=_around([x for x, _ in dots]), ylim=_around([y for _, y in dots]))
    name_dots(ax, dots, names, colours)
    values = {weight(c): (100 * c["value"], 100 * a["value"]) for c, a in zip(clean, attacked, strict=True)}
    if hidden := [f"{lam:g} ({x:.0f} %, {y:.0f} %)" for lam, (x, y) in values.items() if lam in down]:
        ax.set_title(f"not shown, networks broke down: λ = {', '.join(hidden)}", fontsize=8, color=".35")
    ax.set(xlabel="clean, %", ylabel=f"under {attack(attacked[0])} at {radius(attacked[0])}, %")
    if ax.get_legend_handles_labels()[1]:
        ax.legend(loc="best", fontsize=8)
    return ax


def _around(values: list[float]) -> tuple[float, float]:
    """Limits of an axis with room around dots; whiskers may reach beyond."""
    low, high = min(values), max(values)
    room = max(0.25 * (high - low), 1)
    return low - room, high + room
