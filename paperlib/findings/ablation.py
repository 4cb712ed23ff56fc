"""What the trainings say at equal epochs and at equal cost."""

from collections.abc import Iterable

from paperlib.claims import BASELINES, WORST, clear, points, select, title
from paperlib.findings.core import Line

EPOCHS, PASSES = "equal epochs", "equal passes"  # the budgets, as records label them
ADDED = BASELINES | {"trades+sr": "trades"}  # what SR is added to


def ablation(record: dict) -> str:
    """What SR adds to each training, where it changes most under PGD."""
    told = []
    for training, against in ADDED.items():
        rows = under_pgd(differences(record, training=training, against=against, budget=None))
        if rows:
            widest = max(rows, key=lambda row: abs(row["value"]))
            change = f"{100 * widest['value']:+z.0f} points at {widest['eps_255']:g}/255"
            told.append(f"{title(training)} against {title(against)}: {change}")
            attack = widest["attack"]
    return f"What SR changes under {attack}, where most: {'; '.join(told)}"


def equal_cost(record: dict) -> str:
    """The training that is best in the worst case at equal passes, and how far it and SR are apart."""
    budget = dearest(record)
    rows = worst(record, budget)
    top = max(row["value"] for row in rows)
    best = [row["training"] for row in rows if row["value"] == top]
    spent = f"about {record['provenance']['parameters']['passes']} passes an image"
    where = f"At {spent if budget == PASSES else EPOCHS}, in the worst case at {rows[0]['eps_255']:g}/255"
    share = f"{100 * top:.0f} %"
    if len(best) == len(rows):
        return f"{where}, all trainings keep {share}"
    if "sr" in best:
        rival = max((row for row in rows if row["value"] < top), key=lambda row: row["value"])["training"]
        told = against_sr(record, rival, budget)
    else:
        rival, told = "sr", [turned(row) for row in against_sr(record, best[0], budget)]
    apart = "".join(f", {points(row)} against {title(rival)}" for row in told)
    return f"{where}, {', '.join(map(title, best))} {'keep' if best[1:] else 'keeps'} most: {share}{apart}"


def box(record: dict) -> Iterable[Line]:
    """Each comparison under PGD at equal epochs, then the worst case at equal cost."""
    pairs = dict.fromkeys((r["training"], r["against"]) for r in select(record, quantity="difference", budget=None))
    for training, against in pairs:
        rows = under_pgd(differences(record, training=training, against=against, budget=None))
        what = f"{title(training)} is more robust than {title(against)} under {rows[0]['attack']} at every radius."
        told = ", ".join(f"{points(row)} at {row['eps_255']:g}/255" for row in rows)
        yield Line(_holds(rows), what, f"{told}; over {over(rows[0])}")
    budget = dearest(record)
    rivals = [row["training"] for row in worst(record, budget) if row["training"] != "sr"]
    rows = [row for rival in rivals for row in against_sr(record, rival, budget)]
    if rows:
        least = min(rows, key=lambda row: row["value"])
        told = f"SR - {title(least['against'])}: {points(least)}, the least of {len(rows)}; over {over(least)}"
        yield Line(_holds(rows), f"At {budget} SR is more robust in the worst case than every other training.", told)


def differences(record: dict, **labels) -> list[dict]:
    """Differences that carry all of `labels`, each with the interval that there is.

    That is one over seeds; where the two trainings have a single seed in common it is one over the images of that pair.
    """
    return [_with_interval(record, row) for row in select(record, quantity="difference", **labels)]


def _with_interval(record: dict, row: dict) -> dict:
    if row["low"] is not None:
        return row
    labels = {name: row.get(name) for name in ("training", "against", "attack", "eps_255", "budget")}
    pairs = select(record, quantity="paired difference", **labels)
    return pairs[0] if len(pairs) == 1 else row


def over(row: dict) -> str:
    """What a row's interval is taken over: "5 seeds", "500 images", or nothing."""
    if row["low"] is None:
        return "nothing"
    return f"{row['n']} {'seeds' if over_seeds(row) else 'images'}"


def over_seeds(row: dict) -> bool:
    """Whether a row's interval tells of other seeds, and not of other images alone."""
    return "over seeds" in row["method"]


def under_pgd(rows: list[dict]) -> list[dict]:
    """Those of PGD."""
    return [row for row in rows if row["attack"].startswith("PGD")]


def worst(record: dict, budget: str) -> list[dict]:
    """What the strongest attack leaves of each training under a budget."""
    return select(record, quantity="mean accuracy", attack=WORST, budget=budget)


def dearest(record: dict) -> str:
    """Equal passes, or equal epochs where no network was trained for the other."""
    return PASSES if worst(record, PASSES) else EPOCHS


def against_sr(record: dict, training: str, budget: str) -> list[dict]:
    """SR minus a training in the worst case under a budget: a row, if both are there."""
    return differences(record, training="sr", against=training, attack=WORST, budget=budget)


def turned(row: dict) -> dict:
    """The difference from the other side."""
    ends = {"value": row["value"], "low": row["high"], "high": row["low"]}
    return row | {name: None if value is None else 0 - value for name, value in ends.items()}


def spent(record: dict, quantity: str, training: str, budget: str) -> int | None:
    """The epochs, or the passes per image, of a training under a budget; None where that is not known."""
    rows = select(record, quantity=quantity, training=training, budget=budget)
    return rows[0]["value"] if rows else None


def _holds(rows: list[dict]) -> bool | None:
    """All intervals above 0: it holds; one below: it does not."""
    sides = {clear(row) for row in rows}
    return False if -1 in sides else True if sides == {1} else None
