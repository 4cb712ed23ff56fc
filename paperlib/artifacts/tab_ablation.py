"""Eleven trainings under PGD at equal epochs, in the worst case at equal cost, and epoch by epoch."""

from collections.abc import Iterable

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from paperlib import labels
from paperlib.artifacts import budgets, reading
from paperlib.artifacts.drawing import (
    RIVALS,
    capped,
    curve,
    dots,
    end,
    handle,
    name_ends,
    name_lines,
    shade,
    shares,
)
from paperlib.artifacts.tabulating import against, attack_at, pivot
from paperlib.words import attack, radius, title

caption = (
    "{data}, {samples} test images, {seeds} ({rival_seeds} for rivals), 95 % intervals over seeds and images (with "
    "caps: over the images of one network)"
)


def headline(record: dict) -> str:
    """How far SR lies above or below vanilla training and AT, under PGD at the radius that is shown."""
    pairs = reading.under(reading.differences(record, budget=None), "pgd", eps_255=radius_shown(record))
    rows = [row for other in ("vanilla", "at") for row in reading.where(pairs, training="sr", against=other)]
    if not rows:
        return "SR was not compared with vanilla training or AT"
    sides = [f"{reading.whole(row).lstrip('+-')} points {_side(row)} {title(row['against'])}" for row in rows]
    return f"Under {attack(rows[0])} SR lies {reading.listed(sides)}{reading.one_network(rows)}"


def _side(row: dict) -> str:
    return "below" if row["value"] < 0 else "above"


def radius_shown(record: dict) -> float:
    """Of the radii of PGD the one in the figure: the nearest to that of the worst case."""
    radii = {row["eps_255"] for row in reading.under(reading.select(record, quantity="mean accuracy"), "pgd")}
    wanted = record["provenance"]["parameters"]["strong_eps_255"]
    return min(sorted(radii), key=lambda eps: abs(eps - wanted))


def figure(record: dict) -> Figure:
    """Left, each training clean and under PGD at one radius; right, what SR adds, and SR against its rivals."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(10.4, 4.8), width_ratios=(5, 4), layout="constrained")
    eps = radius_shown(record)

    def shown(rows: list[dict]) -> list[dict]:
        return reading.under(rows, labels.CLEAN) + reading.under(rows, "pgd", eps_255=eps)

    means = shown(reading.select(record, quantity="mean accuracy", budget=None))
    pairs = shown(reading.differences(record, budget=None))
    groups = {title(name): reading.where(means, training=name) for name in reading.trainings(record)}
    clean_and_attacked(groups, left)
    left.set(xlabel="accuracy, %", xlim=(0, 101))
    attacked = f"under {attack(reading.under(means, 'pgd')[0])} at {eps:g}/255"
    handles = [handle("o", "clean", hollow=True), handle("o", attacked)]
    left.legend(handles=handles, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.11), fontsize=8)

    groups = {}
    for row in sorted(pairs, key=lambda row: RIVALS.count(row["against"])):  # the paper's four trainings first
        groups.setdefault(f"{title(row['training'])} - {title(row['against'])}", []).append(row)
    clean_and_attacked(groups, right)
    right.axvline(0, color=".4", linewidth=0.8)
    right.set(xlabel="difference, percentage points")
    return fig


def table(record: dict) -> list[DataFrame]:
    """Means and differences clean and under PGD, then both under noise and FGSM."""
    means = reading.select(record, quantity="mean accuracy", budget=None)
    pairs = reading.differences(record, budget=None)

    def head(row: dict) -> dict:
        name = {"difference": against(row)} if "against" in row else {"training": title(row["training"])}
        return name | {"interval over": reading.scope(row)}

    return [
        pivot([row for row in rows if (row["attack"] in (labels.CLEAN, "pgd")) == is_strong], head, attack_at, cell)
        for is_strong in (True, False)
        for rows, cell in ((means, reading.percent), (pairs, reading.points))
    ]


def box(record: dict) -> Iterable[reading.Line]:
    """A line for each comparison under PGD at equal epochs, then one for the worst case at equal cost."""
    differences = reading.differences(record, budget=None)
    for training, other in dict.fromkeys((row["training"], row["against"]) for row in differences):
        rows = reading.under(differences, "pgd", training=training, against=other)
        statement = f"{title(training)} is more robust than {title(other)} under {attack(rows[0])} at every radius."
        numbers = ", ".join(f"{reading.points(row)} at {radius(row)}" for row in rows)
        yield reading.Line(reading.all_above(rows), statement, f"{numbers}; over {reading.scope(rows[0])}")
    budget = budgets.dearest(record)
    rivals = [row["training"] for row in budgets.worst(record, budget) if row["training"] != "sr"]
    rows = [row for rival in rivals for row in budgets.against_sr(record, rival, budget)]
    if rows:
        least = min(rows, key=lambda row: row["value"])
        statement = f"At {budget} SR is more robust in the worst case than every other training."
        numbers = f"SR - {title(least['against'])}: {reading.points(least)}, the least of {len(rows)}"
        yield reading.Line(reading.all_above(rows), statement, f"{numbers}; over {reading.scope(least)}")


def clean_and_attacked(groups: dict[str, list[dict]], ax: Axes) -> Axes:
    """A line for each of `groups`, name → the rows clean (hollow) and under attack (full) of a training or a pair."""
    colours = [
        shade(rows[0].get("against") if rows[0].get("against") in RIVALS else rows[0]["training"])
        for rows in groups.values()
    ]
    for y, (rows, colour) in enumerate(zip(groups.values(), colours, strict=True)):
        ax.plot([100 * row["value"] for row in rows], [y] * len(rows), color=colour, linewidth=3, alpha=0.35)
        for row in rows:
            face = "white" if row["attack"] == labels.CLEAN else colour
            dots(ax, [row], [y], colour, markerfacecolor=face, **capped(row))
    return name_lines(ax, list(groups), colours)


# ---- equal cost --------------------------------------------------------------------------------------------------


def _equal_cost(record: dict) -> Figure:
    """Left, the worst case of each training under both budgets; right, its difference to SR at equal passes."""
    names = reading.trainings(record)
    columns, width = (2, 10.4) if budgets.worst(record, labels.PASSES) else (1, 6.4)
    fig, axes = plt.subplots(1, columns, figsize=(width, 4.8), sharey=True, squeeze=False, layout="constrained")
    budgets.worst_cases(record, axes[0, 0])
    if columns == 2:
        pairs = [reading.turned(row) for name in names for row in budgets.against_sr(record, name, labels.PASSES)]
        differences_to_sr(pairs, names, axes[0, 1])
    return fig


def differences_to_sr(rows: list[dict], names: list[str], ax: Axes) -> Axes:
    """Differences of trainings to SR, each at the place of its training in `names`."""
    for row in rows:
        dots(ax, [row], [names.index(row["training"])], shade(row["training"]), **capped(row))
    ax.axvline(0, color=shade("sr"), linewidth=0.8)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("minus SR at equal passes, percentage points")
    return ax


# ---- learning curves ---------------------------------------------------------------------------------------------


def _learning_headline(record: dict) -> str:
    """What the last epoch adds to the accuracy on validation images, from the least to the most gaining training."""
    gains = [own[-1]["value"] - own[-2]["value"] for own in _curves(record).values() if len(own) > 1]
    if not gains:
        return "No training has two epochs"
    ends = [f"{100 * gain:+z.1f}" for gain in (min(gains), max(gains))]
    return f"The last epoch changes validation accuracy by {ends[0]} to {ends[1]} points, depending on the training"


def _learning(record: dict) -> Figure:
    """A curve of each training, the rivals' in grey and without a name."""
    fig, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    ends, curves = [], _curves(record)
    for name in sorted(curves, key=RIVALS.__contains__, reverse=True):  # the paper's four trainings above
        rows = curves[name]
        curve(ax, [row["epoch"] for row in rows], rows, shade(name), width=1 if name in RIVALS else 1.8)
        if name not in RIVALS:
            ends.append((end(rows), title(name), shade(name)))
    shares(ax, [row for rows in curves.values() for row in rows])
    epochs = sorted({row["epoch"] for rows in curves.values() for row in rows})
    ax.set(xlabel="epoch (grey: rivals)", ylabel="accuracy on validation images, %", xticks=epochs)
    ax.set_xlim(0.8, epochs[-1] + 0.2 if epochs else 1.2)
    return name_ends(ax, ends).figure


def _learning_table(record: dict) -> list[DataFrame]:
    """A line for each training, a column for each epoch."""
    rows = [row for own in _curves(record).values() for row in own]
    return [
        pivot(
            rows, lambda row: {"training": title(row["training"])}, lambda row: f"epoch {row['epoch']}", reading.percent
        )
    ]


def _curves(record: dict) -> dict[str, list[dict]]:
    """The rows of each training by epoch."""
    rows = reading.select(record, quantity="validation accuracy")
    names = [name for name in reading.trainings(record) if reading.where(rows, training=name)]
    return {name: sorted(reading.where(rows, training=name), key=lambda row: row["epoch"]) for name in names}


PARTS = {
    "equal-cost": reading.Part(
        budgets.equal_cost_headline, "{data}, " + budgets.STRONG, _equal_cost, budgets.equal_cost_table
    ),
    "learning": reading.Part(
        _learning_headline, "{data}, validation images, {seeds} ({rival_seeds} for rivals)", _learning, _learning_table
    ),
}
