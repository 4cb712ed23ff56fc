"""Trainings at equal epochs and at equal passes: what tab-ablation and tab-cost share."""

from pandas import DataFrame

from paperlib import labels
from paperlib.artifacts.reading import percent, points, same_attack, select, turned
from paperlib.labels import EPOCHS, PASSES
from paperlib.words import attack, title

STRONG = (  # the part of a caption that describes the worst case
    "PGD-{pgd_steps}, APGD-{long_steps}, Square-{queries} on {strong_samples} test images, networks each: {cost_seeds}"
)


def differences(record: dict, **wanted) -> list[dict]:
    """The differences of two trainings that have all of the labels `wanted`.

    Their intervals are over seeds; where the trainings have a single seed in common, over the images of that pair.
    """
    return [_with_interval(record, row) for row in select(record, quantity="difference", **wanted)]


def _with_interval(record: dict, row: dict) -> dict:
    if row["low"] is not None:
        return row
    wanted = {name: row.get(name) for name in ("training", "against", "budget")}
    pairs = same_attack(select(record, quantity="paired difference", **wanted), row)
    return pairs[0] if len(pairs) == 1 else row


def worst(record: dict, budget: str) -> list[dict]:
    """Mean accuracy of each training in the worst case, under a budget."""
    return select(record, quantity="mean accuracy", attack=labels.WORST, budget=budget)


def dearest(record: dict) -> str:
    """The budget "equal passes", or "equal epochs" where no network was trained for equal passes."""
    return PASSES if worst(record, PASSES) else EPOCHS


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
    top = max(row["value"] for row in rows)
    best = [row["training"] for row in rows if row["value"] == top]
    passes = f"about {record['provenance']['parameters']['passes']} passes an image"
    scope = f"At {passes if budget == PASSES else EPOCHS}, in the worst case at {rows[0]['eps_255']:g}/255"
    share = f"{100 * top:.0f} %"
    if len(best) == len(rows):
        return f"{scope}, all trainings keep {share}"
    if "sr" in best:
        second = max((row for row in rows if row["value"] < top), key=lambda row: row["value"])
        pairs = against_sr(record, second["training"], budget)
    else:
        pairs = [turned(row) for row in against_sr(record, best[0], budget)]
    gaps = "".join(f", {points(row)} against {title(row['against'])}" for row in pairs)
    return f"{scope}, {', '.join(map(title, best))} {'keeps' if len(best) == 1 else 'keep'} most: {share}{gaps}"


def equal_cost_table(record: dict) -> DataFrame:
    """A line for each training: under each budget its cost, its accuracy clean and in the worst case, SR minus it."""
    lines: dict[str, dict] = {}
    for budget in (EPOCHS, PASSES):
        for row in worst(record, budget):
            name = row["training"]
            line = lines.setdefault(name, {"training": title(name)})
            line[budget] = _cost_in_words(record, name, budget)
            (clean,) = select(record, quantity="mean accuracy", training=name, attack=labels.CLEAN, budget=budget)
            line |= {f"clean, {budget}": percent(clean), f"{attack(row)}, {budget}": percent(row)}
            for pair in against_sr(record, name, budget):
                line[f"SR minus it, {budget}"] = points(pair)
    return DataFrame(lines.values()).fillna("")


def _cost_in_words(record: dict, training: str, budget: str) -> str:
    epochs, passes = (cost(record, quantity, training, budget) for quantity in ("epochs", "passes per image"))
    if epochs is None:
        return "not known"
    return f"{epochs} epoch{'' if epochs == 1 else 's'}, {passes} passes an image"
