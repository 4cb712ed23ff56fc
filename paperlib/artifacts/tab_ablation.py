"""Ten trainings under PGD at equal epochs, and in the worst case at equal cost."""

from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from paperlib import labels
from paperlib.artifacts import budgets, reading
from paperlib.artifacts.drawing import GREY, capped, dots, handle, name_lines
from paperlib.artifacts.tabulating import against, attack_at, pivot
from paperlib.words import attack, hue, radius, title

ADDED = reading.BASELINES | {"trades+sr": "trades"}  # training with SR → the same training without
MARKS = "osD^vP"  # of radii, the smallest first
caption = "{data}, {samples} test images, {seeds}, of rivals {rival_seeds}"


def headline(record: dict) -> str:
    """What SR changes in each training that it is added to, at the radius of PGD where it changes most."""
    pairs = reading.under(budgets.differences(record, budget=None), "pgd")
    groups = [reading.where(pairs, training=training, against=other) for training, other in ADDED.items()]
    widest = [max(rows, key=lambda row: abs(row["value"])) for rows in groups if rows]
    changes = [
        f"{title(row['training'])} against {title(row['against'])}: {reading.whole(row)} points at {radius(row)}"
        for row in widest
    ]
    return f"What SR changes under {attack(widest[-1])}, where most: {'; '.join(changes)}"


def figure(record: dict) -> Figure:
    """Left, each training clean and under PGD at each radius; right, what SR adds, and SR against its rivals."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(10.4, 6.4), width_ratios=(5, 4), layout="constrained")
    means = reading.select(record, quantity="mean accuracy", budget=None)
    pairs = budgets.differences(record, budget=None)
    radii = sorted({row["eps_255"] for row in reading.under(means, "pgd")})
    groups = {title(name): reading.where(means, training=name) for name in reading.trainings(record)}
    by_radius(groups, radii, left)
    left.set(xlabel="accuracy, %; whiskers with caps: one network, over its images; without: over seeds")
    left.set_xlim(-2, 102)
    left.set_title(f"Clean, and under {attack(reading.under(means, 'pgd')[0])}", loc="left")
    handles = [handle("o", "clean", hollow=True)]
    handles += [handle(MARKS[i % len(MARKS)], f"{eps:g}/255") for i, eps in enumerate(radii)]
    left.legend(handles=handles, ncols=len(handles), loc="upper center", bbox_to_anchor=(0.5, -0.09), fontsize=8)

    added = [row for row in pairs if ADDED.get(row["training"]) == row["against"]]
    rivals = [row for row in pairs if row not in added]
    groups = {}
    for row in added + rivals:
        groups.setdefault(f"{title(row['training'])}\n- {title(row['against'])}", []).append(row)
    by_radius(groups, radii, right)
    if added and rivals:
        right.axhline(len({row["training"] for row in added}) - 0.5, color=".4", linewidth=0.8)
    right.axvline(0, color=".4", linewidth=0.8)
    right.set_xlabel("percentage points, paired; whiskers likewise")
    right.set_title("What SR adds, and SR against its rivals", loc="left")
    return fig


def table(record: dict) -> list[DataFrame]:
    """Means and differences clean and under PGD, then both under noise and FGSM."""
    means = reading.select(record, quantity="mean accuracy", budget=None)
    pairs = budgets.differences(record, budget=None)

    def head(row: dict) -> dict:
        name = {"difference": against(row)} if "against" in row else {"training": title(row["training"])}
        return name | {"interval over": over(row)}

    return [
        pivot([row for row in rows if (row["attack"] in (labels.CLEAN, "pgd")) == is_strong], head, attack_at, cell)
        for is_strong in (True, False)
        for rows, cell in ((means, reading.percent), (pairs, reading.points))
    ]


def box(record: dict) -> Iterable[reading.Line]:
    """A line for each comparison under PGD at equal epochs, then one for the worst case at equal cost."""
    differences = budgets.differences(record, budget=None)
    for training, other in dict.fromkeys((row["training"], row["against"]) for row in differences):
        rows = reading.under(differences, "pgd", training=training, against=other)
        statement = f"{title(training)} is more robust than {title(other)} under {attack(rows[0])} at every radius."
        numbers = ", ".join(f"{reading.points(row)} at {radius(row)}" for row in rows)
        yield reading.Line(reading.all_above(rows), statement, f"{numbers}; over {over(rows[0])}")
    budget = budgets.dearest(record)
    rivals = [row["training"] for row in budgets.worst(record, budget) if row["training"] != "sr"]
    rows = [row for rival in rivals for row in budgets.against_sr(record, rival, budget)]
    if rows:
        least = min(rows, key=lambda row: row["value"])
        statement = f"At {budget} SR is more robust in the worst case than every other training."
        numbers = f"SR - {title(least['against'])}: {reading.points(least)}, the least of {len(rows)}"
        yield reading.Line(reading.all_above(rows), statement, f"{numbers}; over {over(least)}")


def over(row: dict) -> str:
    """What a row's interval is taken over: "5 seeds", "500 images", or "nothing"."""
    if row["low"] is None:
        return "nothing"
    return f"{row['n']} {'seeds' if row['over'] == labels.SEEDS else 'images'}"


def by_radius(groups: dict[str, list[dict]], radii: list[float], ax: Axes) -> Axes:
    """A line for each of `groups`, name → rows of one training: a hollow dot for clean, a mark for each of `radii`."""
    for y, rows in enumerate(groups.values()):
        colour = hue(rows[0]["training"])
        marked = [(row, "o", "white") for row in reading.under(rows, labels.CLEAN)]
        marked += [(row, MARKS[radii.index(row["eps_255"]) % len(MARKS)], colour) for row in reading.under(rows, "pgd")]
        heights = y + np.linspace(-0.27, 0.27, len(marked)) if len(marked) > 1 else [y]
        ax.plot([100 * row["value"] for row, *_ in marked], heights, color=colour, linewidth=0.7, alpha=0.5)
        for (row, mark, face), height in zip(marked, heights, strict=True):
            dots(ax, [row], [height], colour, fmt=mark, markersize=4.5, markerfacecolor=face, **capped(row))
    return name_lines(ax, list(groups), [hue(rows[0]["training"]) for rows in groups.values()])


# ---- equal cost --------------------------------------------------------------------------------------------------


def _equal_cost(record: dict) -> Figure:
    """Left, the worst case of each training under both budgets; right, its difference to SR at equal passes."""
    names, rows = reading.trainings(record), budgets.worst(record, labels.EPOCHS) + budgets.worst(record, labels.PASSES)
    columns, width = (2, 10.4) if budgets.worst(record, labels.PASSES) else (1, 6.4)
    fig, axes = plt.subplots(1, columns, figsize=(width, 5.4), sharey=True, squeeze=False, layout="constrained")
    both = labels.EPOCHS, labels.PASSES
    passes = {name: [budgets.cost(record, "passes per image", name, budget) for budget in both] for name in names}
    worst_cases(rows, passes, axes[0, 0])
    axes[0, 0].set_xlabel(f"accuracy in the worst case at {rows[0]['eps_255']:g}/255, %")
    if columns == 2:
        pairs = [reading.turned(row) for name in names for row in budgets.against_sr(record, name, labels.PASSES)]
        differences_to_sr(pairs, names, axes[0, 1])
    return fig


def worst_cases(rows: list[dict], passes: dict[str, list[float | None]], ax: Axes) -> Axes:
    """A line for each training: its accuracy at equal epochs (hollow) and at equal passes (full), and its `passes`."""
    both = any(row["budget"] == labels.PASSES for row in rows)
    for y, (training, numbers) in enumerate(passes.items()):
        colour = hue(training)
        for row in reading.where(rows, training=training):
            face, shift = (colour, 0.14) if row["budget"] == labels.PASSES else ("white", -0.14)
            dots(ax, [row], [y + shift if both else y], colour, markerfacecolor=face, **capped(row))
        text = " → ".join(f"{number:g}" for number in numbers if number is not None)
        ax.text(1.02, y, text, transform=ax.get_yaxis_transform(), fontsize=7, va="center")
    name_lines(ax, [title(name) for name in passes], [hue(name) for name in passes])
    ax.text(1.02, -0.75, "passes an image", transform=ax.get_yaxis_transform(), fontsize=7, color=GREY)
    ax.set_xlim(-2, 102)
    handles = [handle("o", labels.EPOCHS, hollow=True)] + ([handle("o", labels.PASSES)] if both else [])
    ax.legend(handles=handles, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.1), fontsize=8)
    return ax


def differences_to_sr(rows: list[dict], names: list[str], ax: Axes) -> Axes:
    """Differences of trainings to SR, each at the place of its training in `names`."""
    for row in rows:
        dots(ax, [row], [names.index(row["training"])], hue(row["training"]), **capped(row))
    ax.axvline(0, color=hue("sr"), linewidth=0.8)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("training - SR at equal passes, percentage points")
    return ax


PARTS = {
    "equal-cost": reading.Part(
        budgets.equal_cost_headline, "{data}, " + budgets.STRONG, _equal_cost, budgets.equal_cost_table
    )
}
