"""Rows → data frames → Markdown: what the tables of all artifacts share."""

from collections.abc import Callable

import pandas as pd

from paperlib import labels
from paperlib.artifacts.reading import percent, points, same_attack, select, where
from paperlib.words import attack, radius, title

Words = Callable[[dict], str]  # a row → the name of its column, or the text of its cell


def markdown(record: dict, tables: list[pd.DataFrame]) -> str:
    """Tables of a record as Markdown, then the reasons to doubt the numbers marked †, each once, with its remedy."""
    blocks = [table.to_markdown(index=False) for table in tables]
    if any("†" in block for block in blocks):
        doubts = dict.fromkeys(why for row in record["rows"] for why in row.get("doubts", ()))
        blocks.append(f"† Unreliable: {'; '.join(doubts)}.")
    return "\n\n".join(blocks)


def pivot(rows: list[dict], head: Callable[[dict], dict], column: Words, cell: Words) -> pd.DataFrame:
    """A line for each distinct `head` (columns → first cells); each row fills one more `cell`, in its `column`."""
    lines: dict[tuple, dict] = {}
    for row in rows:
        first = head(row)
        lines.setdefault(tuple(first.values()), first)[column(row)] = cell(row)
    return pd.DataFrame(lines.values())


def network(row: dict) -> dict:
    """The head of a line for one network."""
    return {"training": title(row["training"]), "seed": row["seeds"][0]}


def training(row: dict) -> str:
    """The column of a training."""
    return title(row["training"])


def quantity(row: dict) -> str:
    """The column of a quantity."""
    return row["quantity"]


def attack_at(row: dict) -> str:
    """The column of an attack: "clean", or its title and radius."""
    return "clean" if row["attack"] == labels.CLEAN else f"{attack(row)}, {radius(row)}"


def against(row: dict) -> str:
    """The column of a difference between two trainings."""
    return f"{title(row['training'])} - {title(row['against'])}"


def contrast(row: dict) -> str:
    """The name of a difference between two attacks."""
    return f"{attack(row)} - {attack(row, labels.REFERENCE)}"


def number(row: dict) -> str:
    """A number that is no share with its interval, three digits each."""
    if row["value"] is None:
        return "undefined"
    bounds = "" if row["low"] is None else f" [{row['low']:.3g}, {row['high']:.3g}]"
    return f"{row['value']:.3g}{bounds}"


def by_attack(record: dict) -> list[pd.DataFrame]:
    """Two tables with a line for each attack: the mean accuracy of each training, and what SR changes."""
    kinds = (("mean accuracy", training, percent), ("difference", against, points))
    return [
        pivot(select(record, quantity=kind), lambda row: {"": attack_at(row)}, column, cell)
        for kind, column, cell in kinds
    ]


def with_passes(record: dict, head: Words = attack) -> pd.DataFrame:
    """A line for each attack, named by `head`: each training's mean accuracy and the passes that the attack cost."""
    passes = select(record, quantity="mean passes")

    def cell(row: dict) -> str:
        (cost,) = where(same_attack(passes, row), training=row["training"], lam=row.get("lam"))
        count = f"{cost['value']:.0f}"
        return f"{percent(row)}, {count} {'pass' if count == '1' else 'passes'}"

    return pivot(select(record, quantity="mean accuracy"), lambda r: {"": head(r)}, training, cell)


def contrasted(record: dict) -> list[pd.DataFrame]:
    """`with_passes`, then a table with a line for each comparison of two attacks."""
    contrasts = select(record, quantity="mean contrast")
    return [with_passes(record), pivot(contrasts, lambda r: {"": contrast(r)}, training, points)]
