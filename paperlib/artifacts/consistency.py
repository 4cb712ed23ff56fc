"""Whether the records of a profile agree with one another: the worst case is the lowest, one quantity has one value.

Records on validation images are left out; those on test images all take the first images of the same slice.
"""

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from paperlib import labels, words
from paperlib.artifacts.quotes import VALIDATION, named
from paperlib.artifacts.reading import known, listed, percent, select

ACCURACIES = ("accuracy", "mean accuracy")  # of one network, and of all networks of a training
ROUNDING = 1e-12


class Place(NamedTuple):
    """A row and the artifact whose record has it."""

    artifact: str
    row: dict

    def __str__(self) -> str:
        training, seeds = words.title(self.row["training"]), sorted(set(self.row["seeds"]))
        networks = f"seed{'s' * (len(seeds) > 1)} {listed(map(str, seeds))}"
        return f"`{self.artifact}` {percent(self.row)} ({training}, {named(self.row)}, {networks}, n = {self.row['n']})"


Pair = tuple[Place, Place]


def below_worst(records: Mapping[str, dict]) -> list[Pair]:
    """Each worst case that another number of the same networks undercuts beyond chance, with the lowest such number.

    Both are accuracies of the same experiments.  The other attack has the same radius or a smaller one, in the same
    norm, and its interval ends below the worst case's: an attack that the worst case lacks has broken more.
    """
    groups: dict[tuple, list[Place]] = {}
    for place in _accuracies(records):
        if place.row["low"] is not None and place.row["attack"] != labels.CLEAN:
            (unit,) = words.size(place.row)
            groups.setdefault((*sorted(place.row["experiments"]), unit, place.row.get("norm")), []).append(place)
    pairs: dict[str, Pair] = {}  # by their text, for the mean over one network repeats that network's own accuracy
    for (*_, unit, _), places in groups.items():
        for worst in (place for place in places if place.row["attack"] == labels.WORST):
            lower = [
                place for place in places if place.row[unit] <= worst.row[unit] and place.row["high"] < worst.row["low"]
            ]
            if lower:
                pairs.setdefault(str(worst), (worst, min(lower, key=lambda place: place.row["value"])))
    return list(pairs.values())


def two_values(records: Mapping[str, dict]) -> list[Pair]:
    """Accuracies of the same networks under the same attack, of as many images by one method, that differ."""
    first: dict[str, Place] = {}
    pairs: dict[str, Pair] = {}
    for place in _accuracies(records):
        row = place.row
        if row["over"] in (labels.SAMPLES, labels.BOTH):  # elsewhere n may be a number of networks
            key = [labels.attack(row), words.size(row), sorted(row["experiments"]), row["n"], row["method"]]
            one = first.setdefault(json.dumps(key, sort_keys=True), place)
            if abs(one.row["value"] - row["value"]) > ROUNDING:
                pairs.setdefault(f"{one} {place}", (one, place))
    return list(pairs.values())


def disagreements(records: Mapping[str, dict]) -> list[str]:
    """A sentence for each disagreement; empty where all records agree."""
    lines = [
        f"These disagree: {lower} lies below the worst case of {worst}, which therefore is not the worst."
        for worst, lower in below_worst(records)
    ]
    return lines + [f"These disagree: {one} and {other} are the same quantity." for one, other in two_values(records)]


def rows_in_doubt(records: Mapping[str, dict]) -> list[dict]:
    """Every row that takes part in a disagreement."""
    return [place.row for pair in below_worst(records) + two_values(records) for place in pair]


def _accuracies(records: Mapping[str, dict]) -> Iterator[Place]:
    """Every accuracy of known networks under a named attack on test images."""
    for artifact, record in records.items():
        if artifact != VALIDATION:
            for quantity in ACCURACIES:
                for row in known(select(record, quantity=quantity, split=None)):
                    if "attack" in row and row["experiments"] and words.size(row):
                        yield Place(artifact, row)
