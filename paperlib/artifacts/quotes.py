"""Which number to quote for a training: of every accuracy of the same networks, the one that answers for them."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from paperlib import labels, words
from paperlib.artifacts.reading import counted, known, percent, select, trainings, under, where

JUDGE = "fig-attack-ladder"  # the artifact whose worst case decides C3
VALIDATION = "fig-lambda"  # the artifact that sees validation images alone
CERTIFICATES = "fig-certified"  # the artifact with accuracy that no attack can lower
PGD = "PGD-20"  # the one weaker attack that is quoted, because other papers quote such
RULE = (
    "Quote the worst case as robust accuracy, with its radius, and beside it the certified accuracy, the floor that no "
    "attack can undercut. Quote an accuracy under one attack alone only with the attack's name. Networks of another "
    "weight or schedule are other networks, and not in this table."
)


class Reading(NamedTuple):
    """An accuracy of a training's networks: the row of a record, its artifact, and its number of images."""

    row: dict
    artifact: str
    images: int

    @property
    def size(self) -> tuple[int, int]:
        """Networks, then images: of two readings of one attack the larger is the better known."""
        return len(self.row["seeds"]), self.images


def readings(records: Mapping[str, dict], training: str) -> Iterator[Reading]:
    """Every accuracy, clean or at a radius of `JUDGE`'s worst case, of networks that `JUDGE` attacks, in any artifact.

    Networks of the same training with another weight or schedule are others, and left out.
    """
    judged = select(records[JUDGE], quantity="mean accuracy", training=training)
    networks, radii = set(judged[0]["experiments"]), [words.size(row) for row in under(judged, labels.WORST)]
    for artifact, record in records.items():
        for row in known(select(record, quantity="mean accuracy", training=training, split=None)):
            there = row["attack"] == labels.CLEAN or words.size(row) in radii
            if there and set(row["experiments"]) <= networks:
                yield Reading(row, artifact, images(record, row))


def quoted(found: list[Reading]) -> dict[str, Reading]:
    """`named` → the reading to quote: `JUDGE`'s for the worst case, for any other that of most networks and images.

    Validation images chose the weight of SR, so what they say is never quoted.
    """
    best: dict[str, Reading] = {}
    for reading in found:
        name, worst = named(reading.row), reading.row["attack"] == labels.WORST
        if reading.artifact == VALIDATION or (worst and reading.artifact != JUDGE):
            continue
        if name not in best or reading.size > best[name].size:
            best[name] = reading
    return best


def named(row: dict) -> str:
    """The title of a row's attack with its radius: "clean", "worst of all, 32/255"."""
    title = words.attack(row)
    return title if row["attack"] == labels.CLEAN else f"{title}, {words.radius(row)}"


def images(record: dict, row: dict) -> int:
    """The images behind a mean over networks: those of each network's own accuracy under the same attack."""
    if row["over"] == "samples":
        return row["n"]
    own = {name: row.get(name) for name in ("training", "budget")} | labels.attack(row) | words.size(row)
    return min((each["n"] for each in where(select(record, quantity="accuracy"), **own)), default=row["n"])


def table(records: Mapping[str, dict], doubted: list[dict]) -> str:
    """Markdown: for each training clean accuracy, PGD-20, the worst case and what is certified, then the rule.

    `doubted` are rows that another record disagrees with; they are marked ‡.
    """
    if JUDGE not in records or not under(records[JUDGE]["rows"], labels.WORST, quantity="mean accuracy"):
        return f"`{JUDGE}`, whose worst case is the number to quote, has no record in this profile."
    lines = ["| training | number | accuracy | images | networks | record |", "|---|---|---|---|---|---|"]
    for training in trainings(records[JUDGE]):
        best = quoted(list(readings(records, training)))
        for name, reading in sorted(best.items(), key=lambda item: _place(item[1].row)):
            attack, mark = reading.row["attack"], " ‡" if reading.row in doubted else ""
            if attack in (labels.CLEAN, labels.WORST) or words.attack(reading.row) == PGD:
                strong = "**" * (attack == labels.WORST)
                text = f"{strong}{percent(reading.row)}{mark}{strong}"
                cells = (words.title(training), name, text, reading.images, len(reading.row["seeds"]), reading.artifact)
                lines.append(_line(*cells))
        for row in _certified(records, training):
            cells = (words.title(training), f"certified, {words.radius(row)}", percent(row))
            lines.append(_line(*cells, row["n"], len(row["seeds"]), CERTIFICATES))
    note = "\n\n‡ Another record disagrees; see the next section." if "‡" in "".join(lines) else ""
    return "\n".join(lines) + f"\n\n{RULE}{note}"


def _place(row: dict) -> tuple:
    """The order of a training's lines: clean, then the weaker attack, then the worst case, each by radius."""
    kind = {labels.CLEAN: 0, labels.WORST: 2}.get(row["attack"], 1)
    return kind, *words.size(row).values()


def _certified(records: Mapping[str, dict], training: str) -> list[dict]:
    """The certified accuracies of a training, one for each radius: that of most networks."""
    rows = records.get(CERTIFICATES, {"rows": []})["rows"]
    best: dict[str, dict] = {}
    for row in known(where(rows, training=training)):
        if "certified" in row["quantity"] and words.size(row):
            kept = best.setdefault(words.radius(row), row)
            if len(row["seeds"]) > len(kept["seeds"]):
                best[words.radius(row)] = row
    return list(best.values())


def _line(training: str, name: str, text: str, samples: int, networks: int, artifact: str) -> str:
    return f"| {training} | {name} | {text} | {samples} | {networks} | `{artifact}` |"


def sample(reading: Reading) -> str:
    """What a reading rests on: "100 images, 5 networks, `fig-attack-ladder`"."""
    return f"{reading.images} images, {counted(len(reading.row['seeds']), 'network')}, `{reading.artifact}`"
