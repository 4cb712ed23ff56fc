"""Records → rows and phrases: what the modules of all artifacts share when they put a record into words."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from matplotlib.figure import Figure
from pandas import DataFrame

from paperlib import labels, words

NOISE_FACTOR = 4  # C1 is judged with noise this many times larger than the attack
BASELINES = {"sr": "vanilla", "at+sr": "at"}  # what SR is added to


class Part(NamedTuple):
    """One figure of an artifact with what is said of it; the tables below it, if there are any."""

    headline: Callable[[dict], str]  # record → the finding, which is the figure's title
    caption: Callable[[dict], str]  # record → data, sample sizes, seeds
    figure: Callable[[dict], Figure]
    table: Callable[[dict], list[DataFrame]] = lambda record: []


class Line(NamedTuple):
    """One line of the box that ends a notebook: whether a statement holds (None: undecided), and the numbers."""

    holds: bool | None
    statement: str
    numbers: str


def select(record: dict, **wanted) -> list[dict]:
    """The rows that carry all of the labels `wanted`; a label that is None must be absent."""
    return [row for row in record["rows"] if all(row.get(key) == value for key, value in wanted.items())]


def under(rows: Iterable[dict], attack: str, **wanted) -> list[dict]:
    """Those of `rows` whose attack has that name, and that carry all of the labels `wanted`."""
    wanted = {"attack": attack} | wanted
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def same_attack(rows: Iterable[dict], row: dict) -> list[dict]:
    """Those of `rows` that are of the same attack as `row`, at the same radius."""
    wanted = labels.attack(row), words.size(row)
    return [other for other in rows if (labels.attack(other), words.size(other)) == wanted]


def captioned(record: dict, template: str = "{data}, {samples} test images, {seeds}") -> str:
    """A caption: `template` filled from the record, then what the intervals are and the profile.

    The template may name the record's parameters, `data`, and `seeds`, "3 seeds".
    """
    provenance = record["provenance"]
    seeds = len({seed for row in record["rows"] for seed in row["seeds"]})
    values = {"seeds": seeds} | provenance["parameters"] | {"data": provenance["data"]["title"]}
    seeds = min(seeds, values["seeds"]) if isinstance(values["seeds"], int) else seeds  # a profile may have fewer
    values["seeds"] = f"{seeds} seed{'s' * (seeds != 1)}"
    return f"{template.format(**values)}, 95 % intervals, profile {provenance['profile']}"


def percent(row: dict) -> str:
    """A share with its interval: "47.1 % [44.0, 50.2]"; † where a sanity check speaks against it."""
    return "undefined" if row["value"] is None else f"{100 * row['value']:.1f} %" + _bounds(row) + _doubted(row)


def points(row: dict) -> str:
    """A difference of shares in percentage points, signed, with its interval."""
    if row["value"] is None:
        return "undefined"
    return f"{100 * row['value']:+z.1f} points" + _bounds(row, "+z") + _doubted(row)  # z: no minus before nothing


def plain(row: dict) -> str:
    """A number with its interval, two digits after the point."""
    bounds = "" if row["low"] is None else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return "undefined" if row["value"] is None else f"{row['value']:.2f}{bounds}"


def whole(row: dict) -> str:
    """A difference of shares in whole percentage points, signed, without its interval."""
    return f"{100 * row['value']:+z.0f}"


def _doubted(row: dict) -> str:
    return " †" if row.get("doubts") else ""


def _bounds(row: dict, sign: str = "") -> str:
    return "" if row["low"] is None else f" [{100 * row['low']:{sign}.1f}, {100 * row['high']:{sign}.1f}]"


def clear(row: dict) -> int:
    """On which side of 0 the whole interval lies, 1 or -1; 0 where it holds 0 or tells nothing."""
    if row["low"] is None or row["low"] == row["high"] or row["low"] <= 0 <= row["high"]:
        return 0  # an interval without width says that seeds happen to agree, not that the mean is known
    return 1 if row["low"] > 0 else -1


def all_above(rows: Iterable[dict]) -> bool | None:
    """True where every interval lies above 0, False where one lies below, else None: undecided."""
    sides = {clear(row) for row in rows}
    return False if -1 in sides else True if sides == {1} else None


def trainings(record: dict) -> list[str]:
    """The trainings in a record, in reading order."""
    return words.in_order(list(dict.fromkeys(row["training"] for row in record["rows"] if "training" in row)))
