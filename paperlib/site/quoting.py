"""Which number to quote: every accuracy of the same networks at the same radius, and the one that answers for them."""

from collections.abc import Iterator
from html import escape
from typing import NamedTuple

from paperlib import labels, words
from paperlib.artifacts.reading import percent, select, trainings, under, where
from paperlib.site.shown import Shown
from paperlib.site.sortable import Cell, share, table

JUDGE = "fig-attack-ladder"  # the artifact whose worst case decides C3
OVER = {labels.SEEDS: "networks", labels.SAMPLES: "images", labels.BOTH: "networks and images"}  # of an interval
VALIDATION = "fig-lambda"  # the artifact that sees validation images alone


class Reading(NamedTuple):
    """An accuracy of a training's networks: the row of a record, its artifact, and its number of images."""

    row: dict
    artifact: str
    images: int

    @property
    def size(self) -> tuple[int, int]:
        """Networks, then images: of two readings of one attack the larger is the better known."""
        return len(self.row["seeds"]), self.images


def page(one: Shown) -> str:
    """What to quote of each training of a profile, then all readings; or the sentence that says what to run."""
    head = f"## {one.short}: profile `{one.name}`"
    if JUDGE not in one.records:
        return f"{head}\n\n{one.missing or f'`{JUDGE}` has no record in this profile.'}"
    names = trainings(one.records[JUDGE])
    blocks = [head, _summary(one, names)]
    for name in names:
        found = sorted(readings(one, name), key=lambda reading: reading.row["value"])
        caption = f"Every accuracy of {words.title(name)}, clean and at {_radius(one)}, profile {one.name}"
        heads = ["attack", "accuracy", "images", "networks", "interval over", "artifact", "quote"]
        blocks.append(f"### {words.title(name)}, {one.short}\n\n" + table(caption, heads, _lines(one, found)))
    return "\n\n".join(blocks)


def readings(one: Shown, training: str) -> Iterator[Reading]:
    """Every accuracy, clean or at the radius of `JUDGE`, of networks that `JUDGE` attacks, in any artifact.

    Networks of the same training with another weight or schedule are others, and left out.
    """
    judged = select(one.records[JUDGE], quantity="mean accuracy", training=training)
    networks, size = set(judged[0]["experiments"]), words.size(under(judged, labels.WORST)[0])
    for artifact, record in one.records.items():
        for row in select(record, quantity="mean accuracy", training=training):
            there = row["attack"] == labels.CLEAN or words.size(row) == size
            if there and row["value"] is not None and set(row["experiments"]) <= networks:
                yield Reading(row, artifact, _images(record, row))


def quoted(found: list[Reading]) -> dict[str, Reading]:
    """Attack → the reading to quote: `JUDGE`'s for the worst case, for any other that of most networks and images.

    Validation images chose the weight of SR, so what they say is never quoted.
    """
    best: dict[str, Reading] = {}
    for reading in found:
        name = words.attack(reading.row)
        if reading.artifact == VALIDATION or (name == _worst() and reading.artifact != JUDGE):
            continue
        if name not in best or reading.size > best[name].size:
            best[name] = reading
    return best


def _worst() -> str:
    return words.attack({"attack": labels.WORST})


def _summary(one: Shown, names: list[str]) -> str:
    """A line for each training: its clean accuracy and its robust accuracy to quote, and the range of all readings."""
    lines = [
        "| training | clean, to quote | robust, to quote | what other attacks and samples say |",
        "|---|---|---|---|",
    ]
    for name in names:
        found = list(readings(one, name))
        quotes = quoted(found)
        attacked = [reading.row["value"] for reading in found if reading.row["attack"] != labels.CLEAN]
        span = f"{100 * min(attacked):.0f} to {100 * max(attacked):.0f} %, {len(attacked)} numbers"
        cells = [f"**{percent(quotes[key].row)}** ({_sample(quotes[key])})" for key in (_clean(), _worst())]
        lines.append(f"| {words.title(name)} | {cells[0]} | {cells[1]} | {span} |")
    return "\n".join(lines) + f"\n\nRobust is the worst case of all attacks at {_radius(one)}, which decides claim C3."


def _lines(one: Shown, found: list[Reading]) -> list[list[Cell]]:
    quotes = quoted(found)
    lines = []
    for reading in found:
        row, name = reading.row, words.attack(reading.row)
        best = quotes.get(name)
        images = f"{reading.images} {'validation' if reading.artifact == VALIDATION else 'test'}"
        if best is reading:
            mark = {_worst(): "as robust accuracy", _clean(): "as clean accuracy"}.get(name, "for this attack alone")
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


def _images(record: dict, row: dict) -> int:
    """The images behind a mean over networks: those of each network's own accuracy under the same attack."""
    if row["over"] != labels.SEEDS:
        return row["n"]
    own = {name: row.get(name) for name in ("training", "budget")} | labels.attack(row) | words.size(row)
    return min(each["n"] for each in where(select(record, quantity="accuracy"), **own))


def _sample(reading: Reading) -> str:
    networks = len(reading.row["seeds"])
    return f"{reading.images} images, {networks} network{'s' * (networks > 1)}, `{reading.artifact}`"


def _radius(one: Shown) -> str:
    return words.radius(select(one.records[JUDGE], quantity="mean accuracy", attack=labels.WORST)[0])


def _clean() -> str:
    return words.attack({"attack": labels.CLEAN})
