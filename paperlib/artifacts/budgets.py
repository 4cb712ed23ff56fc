"""Trainings at equal epochs and at equal passes: what tab-ablation and tab-cost share."""

from matplotlib.axes import Axes
from pandas import DataFrame

from paperlib import labels
from paperlib.artifacts.drawing import GREY, bound, capped, dots, handle, name_lines, shade
from paperlib.artifacts.reading import (
    differences,
    listed,
    one_network,
    percent,
    points,
    select,
    trainings,
    turned,
    where,
    whole,
)
from paperlib.words import attack, title

STRONG = (  # the part of a caption that describes the worst case
    "PGD-{pgd_steps}, APGD-{long_steps}, Square-{queries} on {strong_samples} test images, {networks}"
)


def worst(record: dict, budget: str) -> list[dict]:
    """Mean accuracy of each training in the worst case, under a budget."""
    return select(record, quantity="mean accuracy", attack=labels.WORST, budget=budget)


def dearest(record: dict) -> str:
    """The budget "equal passes", or "equal epochs" where no network was trained for equal passes."""
    return labels.PASSES if worst(record, labels.PASSES) else labels.EPOCHS


def against_sr(record: dict, training: str, budget: str) -> list[dict]:
    """SR minus a training in the worst case, under a budget: one row, or none where either was not measured."""
    return differences(record, training="sr", against=training, attack=labels.WORST, budget=budget)


def cost(record: dict, quantity: str, training: str, budget: str) -> int | None:
    """The epochs, or the passes per image, of a training under a budget; None where that is not known."""
    rows = select(record, quantity=quantity, training=training, budget=budget)
    return rows[0]["value"] if rows else None


def equal_cost_headline(record: dict) -> str:
    """The best training in the worst case at equal passes and its difference to SR, or SR's to the second."""
    budget = dearest(record)
    rows = worst(record, budget)
    note = one_network(rows)
    top = max(row["value"] for row in rows)
    best = [row["training"] for row in rows if row["value"] == top]
    if len(best) == len(rows):
        return f"At {budget} all trainings keep {100 * top:.0f} % in the worst case{note}"
    if "sr" in best:
        second = max((row for row in rows if row["value"] < top), key=lambda row: row["value"])
        pairs = against_sr(record, second["training"], budget)
    else:
        pairs = [turned(row) for row in against_sr(record, best[0], budget)]
    gaps = "".join(f", {whole(row)} points against {title(row['against'])}" for row in pairs)
    names = listed(map(title, best))
    return f"At {budget} {names} {'keeps' if len(best) == 1 else 'keep'} most in the worst case{gaps}{note}"


def worst_cases(record: dict, ax: Axes) -> Axes:
    """A line for each training: its worst case at equal epochs (hollow) and at equal passes (full), and its passes."""
    names, both = trainings(record), (labels.EPOCHS, labels.PASSES)
    rows = [row for budget in both for row in worst(record, budget)]
    for y, name in enumerate(names):
        own, colour = where(rows, training=name), shade(name)
        heights = [y + (0.14 if row["budget"] == labels.PASSES else -0.14) for row in own]
        ax.plot([100 * row["value"] for row in own], heights, color=colour, linewidth=3, alpha=0.35)
        for row, height in zip(own, heights, strict=True):
            face = colour if row["budget"] == labels.PASSES else "white"
            dots(ax, [row], [height], colour, markerfacecolor=face, **capped(row))
        passes = [cost(record, "passes per image", name, budget) for budget in both]
        text = " → ".join(f"{number:g}" for number in passes if number is not None)
        ax.text(1.02, y, text, transform=ax.get_yaxis_transform(), fontsize=8, va="center")
    name_lines(ax, [title(name) for name in names], [shade(name) for name in names])
    ax.text(1.02, -0.75, "passes an image", transform=ax.get_yaxis_transform(), fontsize=8, color=GREY)
    top = 100 * max(bound(row, "high") for row in rows)
    ax.set(xlabel=f"accuracy in the worst case at {rows[0]['eps_255']:g}/255, %", xlim=(0, min(101, 1.05 * top + 1)))
    handles = [handle("o", labels.EPOCHS, hollow=True), handle("o", labels.PASSES)]
    shown = handles if worst(record, labels.PASSES) else handles[:1]
    ax.legend(handles=shown, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.1), fontsize=8)
    return ax


def equal_cost_table(record: dict) -> list[DataFrame]:
    """A line for each training: under each budget its cost, its accuracy clean and in the worst case, SR minus it."""
    lines: dict[str, dict] = {}
    for budget in (labels.EPOCHS, labels.PASSES):
        for row in worst(record, budget):
            name = row["training"]
            line = lines.setdefault(name, {"training": title(name)})
            epochs, passes = (cost(record, quantity, name, budget) for quantity in ("epochs", "passes per image"))
            price = f"{epochs} epoch{'' if epochs == 1 else 's'}, {passes} passes an image"
            (clean,) = select(record, quantity="mean accuracy", training=name, attack=labels.CLEAN, budget=budget)
            line |= {budget: "not known" if epochs is None else price}
            line |= {f"clean, {budget}": percent(clean), f"{attack(row)}, {budget}": percent(row)}
            for pair in against_sr(record, name, budget):
                line[f"SR minus it, {budget}"] = points(pair)
    return [DataFrame(lines.values()).fillna("")]
