"""Tables that a reader can sort by each column (see docs/_static/sortable.js)."""

from html import escape
from typing import NamedTuple

from paperlib.artifacts.reading import percent


class Cell(NamedTuple):
    """A cell: its HTML, and the value by which its column is sorted, by default the text."""

    html: str
    value: float | str | None = None


def share(row: dict | None) -> Cell:
    """A share in percent with its interval below, and † where a sanity check speaks against it, with the reasons."""
    if row is None or row["value"] is None:
        return Cell("")
    number, bracket, interval = percent(row).removesuffix(" †").partition(" [")
    doubts = "; ".join(row.get("doubts", ()))
    mark = f' <abbr title="{escape(doubts)}">†</abbr>' if doubts else ""
    return Cell(f"{number}{mark}<small>{bracket.strip()}{interval}</small>", row["value"])


def table(caption: str, columns: list[str], lines: list[list[Cell]], sorted_by: int | None = None) -> str:
    """HTML in Markdown.  The first cell of a line is its head; `sorted_by` is the column by which the lines descend."""
    heads = "".join(
        f'<th scope="col"{sort(i == sorted_by)}><button type="button">{column}</button></th>'
        for i, column in enumerate(columns)
    )
    rows = "".join(
        "<tr>" + "".join(_cell(cell, "th" if i == 0 else "td") for i, cell in enumerate(line)) + "</tr>"
        for line in lines
    )
    return (
        f'```{{raw}} html\n<div class="scrolled" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table class="sortable"><caption><span>{escape(caption)}</span></caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>\n```"
    )


def sort(descending: bool) -> str:
    """The attribute that tells how a column is sorted before anybody sorts it."""
    return ' aria-sort="descending"' if descending else ""


def _cell(cell: Cell, tag: str) -> str:
    value = "" if cell.value is None else f' data-value="{escape(str(cell.value))}"'
    scope = ' scope="row"' if tag == "th" else ""
    return f"<{tag}{scope}{value}>{cell.html}</{tag}>"
