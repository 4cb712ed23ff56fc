"""Trainings at equal epochs and at equal passes: what tab-ablation and tab-cost share."""

from pandas import DataFrame

from paperlib import labels
from paperlib.artifacts.reading import percent, points, same_attack, select, turned
from paperlib.words import attack, title

STRONG = (  # the part of a caption that describes the worst case
    "PGD-{pgd_steps}, APGD-{long_steps}, Square-{queries} on {strong_samples} test images, networks each: {cost_seeds}"
)


def differences(record: dict, **wanted) -> list[dict]:
    """The differences with the labels `wanted`, over seeds, or over the images of the only pair of networks."""

    def with_interval(row: dict) -> dict:
        names = {name: row.get(name) for name in ("training", "against", "budget")}
        pairs = same_attack(select(record, quantity="paired difference", **names), row)
        return pairs[0] if row["low"] is None and len(pairs) == 1 else row

    return list(map(with_interval, select(record, quantity="difference", **wanted)))


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
    top = max(row["value"] for row in rows)
    best, share = [row["training"] for row in rows if row["value"] == top], f"{100 * top:.0f} %"
    passes = f"about {record['provenance']['parameters']['passes']} passes an image"
    price = passes if budget == labels.PASSES else labels.EPOCHS
    scope = f"At {price}, in the worst case at {rows[0]['eps_255']:g}/255"
    if len(best) == len(rows):
        return f"{scope}, all trainings keep {share}"
    if "sr" in best:
        second = max((row for row in rows if row["value"] < top), key=lambda row: row["value"])
        pairs = against_sr(record, second["training"], budget)
    else:
        pairs = [turned(row) for row in against_sr(record, best[0], budget)]
    gaps = "".join(f", {points(row)} against {title(row['against'])}" for row in pairs)
    return f"{scope}, {', '.join(map(title, best))} {'keeps' if len(best) == 1 else 'keep'} most: {share}{gaps}"


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
