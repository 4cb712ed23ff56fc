"""Which number to quote: every accuracy of the same networks at the same radius, and the one that answers for them."""

from html import escape

from paperlib import labels, words
from paperlib.artifacts.quotes import JUDGE, VALIDATION, Reading, named, quoted, readings, sample
from paperlib.artifacts.reading import listed, percent, select, trainings
from paperlib.site.shown import Shown
from paperlib.site.sortable import Cell, share, table

OVER = {labels.SEEDS: "networks", labels.SAMPLES: "images", labels.BOTH: "networks and images"}  # of an interval


def page(one: Shown) -> str:
    """What to quote of each training of a profile, then all readings; or the sentence that says what to run."""
    head = f"## {one.short}: profile `{one.name}`"
    if JUDGE not in one.records:
        return f"{head}\n\n{one.missing or f'`{JUDGE}` has no record in this profile.'}"
    names = trainings(one.records[JUDGE])
    blocks = [head, _summary(one, names)]
    for name in names:
        found = sorted(readings(one.records, name), key=lambda reading: reading.row["value"])
        caption = f"Every accuracy of {words.title(name)}, clean and at {_radius(one)}, profile {one.name}"
        heads = ["attack", "accuracy", "images", "networks", "interval over", "artifact", "quote"]
        blocks.append(f"### {words.title(name)}, {one.short}\n\n" + table(caption, heads, _lines(one, found)))
    return "\n\n".join(blocks)


def _summary(one: Shown, names: list[str]) -> str:
    """A line for each training: its clean accuracy and its robust accuracy to quote, and the range of all readings."""
    lines = [
        "| training | clean, to quote | robust, to quote | what other attacks and samples say |",
        "|---|---|---|---|",
    ]
    for name in names:
        found = list(readings(one.records, name))
        quotes = quoted(found)
        attacked = [reading.row["value"] for reading in found if reading.row["attack"] != labels.CLEAN]
        span = f"{100 * min(attacked):.0f} to {100 * max(attacked):.0f} %, {len(attacked)} numbers"
        cells = [
            "<br>".join(f"**{percent(r.row)}** ({_beside(r)})" for r in quotes.values() if r.row["attack"] == attack)
            for attack in (labels.CLEAN, labels.WORST)
        ]
        lines.append(f"| {words.title(name)} | {cells[0]} | {cells[1]} | {span} |")
    return "\n".join(lines) + f"\n\nRobust is the worst case of all attacks at {_radius(one)}, which decides claim C3."


def _beside(reading: Reading) -> str:
    at = "" if reading.row["attack"] == labels.CLEAN else f"{words.radius(reading.row)}, "
    return at + sample(reading)


def _lines(one: Shown, found: list[Reading]) -> list[list[Cell]]:
    quotes = quoted(found)
    lines = []
    for reading in found:
        row, name = reading.row, named(reading.row)
        best = quotes.get(name)
        images = f"{reading.images} {'validation' if reading.artifact == VALIDATION else 'test'}"
        if best is reading:
            marks = {labels.WORST: "as robust accuracy", labels.CLEAN: "as clean accuracy"}
            mark = marks.get(row["attack"], "for this attack alone")
            verdict = Cell(f'<span class="chip holds"><span aria-hidden="true">✓</span> {mark}</span>', 0)
        elif reading.artifact == VALIDATION:
            verdict = Cell("no: these images chose λ", 2)
        else:
            verdict = Cell("no: fewer attacks, networks or images", 1)
        link = f'<a href="results/{one.name}/{reading.artifact}.html">{reading.artifact}</a>'
        over = OVER.get(row["over"], "")
        cells = [Cell(escape(name)), share(row), Cell(images, reading.images), Cell(str(len(row["seeds"])))]
        lines.append([*cells, Cell(over), Cell(link, reading.artifact), verdict])
    return lines


def _radius(one: Shown) -> str:
    """The radii of the worst case: "16/255, 32/255 and 48/255"."""
    rows = select(one.records[JUDGE], quantity="mean accuracy", attack=labels.WORST)
    return listed(dict.fromkeys(map(words.radius, rows)))
