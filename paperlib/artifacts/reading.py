"""Records → rows and phrases: what the modules of all artifacts share."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from matplotlib.figure import Figure
from pandas import DataFrame

from paperlib import labels, words

NOISE_FACTOR = 4  # C1 is judged with noise that is so many times larger than the attack
BASELINES = {"sr": "vanilla", "at+sr": "at"}  # training with SR → the same training without
IMAGES = "{data}, {samples} test images, {seeds}"  # a caption
STUDY = "{data}, {epochs} epochs, {samples} test images ({samples} validation images chose λ), {seeds}"  # a caption


class Part(NamedTuple):
    """One figure of an artifact, its texts and its tables."""

    headline: Callable[[dict], str]  # record → the finding in a sentence, the figure's title
    caption: str  # data, sample sizes and seeds: a template for `captioned`
    figure: Callable[[dict], Figure]
    table: Callable[[dict], list[DataFrame]] = lambda record: []


class Line(NamedTuple):
    """One line of the box at the end of a notebook: a statement, whether it holds (None: undecided), the numbers."""

    holds: bool | None
    statement: str
    numbers: str
    of_networks: bool = True  # False: mathematics, a cost or a setting, on which another training has no influence


# ---- rows --------------------------------------------------------------------------------------------------------


def select(record: dict, **wanted) -> list[dict]:
    """The rows of a record that have all of the labels `wanted`; a label that is None must be absent."""
    return where(record["rows"], **wanted)


def where(rows: Iterable[dict], **wanted) -> list[dict]:
    """Those of `rows` that have all of the labels `wanted`; a label that is None must be absent."""
    return [row for row in rows if all(row.get(label) == value for label, value in wanted.items())]


def under(rows: Iterable[dict], attack: str, **wanted) -> list[dict]:
    """Those of `rows` whose attack has that name, and that have all of the labels `wanted`."""
    return where(rows, attack=attack, **wanted)


def known(rows: Iterable[dict]) -> list[dict]:
    """Those of `rows` that have a value."""
    return [row for row in rows if row["value"] is not None]


def same_attack(rows: Iterable[dict], row: dict) -> list[dict]:
    """Those of `rows` with the same attack as `row` at the same radius."""
    wanted = labels.attack(row), words.size(row)
    return [other for other in rows if (labels.attack(other), words.size(other)) == wanted]


def turned(row: dict) -> dict:
    """The same difference with the opposite sign: the second training minus the first."""
    ends = {"value": row["value"], "low": row["high"], "high": row["low"]}
    ends = {name: None if value is None else 0 - value for name, value in ends.items()}
    return row | ends | {"training": row["against"], "against": row["training"]}


def differences(record: dict, **wanted) -> list[dict]:
    """The differences with the labels `wanted`, over networks and samples, or samples alone of one pair of networks."""
    return select(record, quantity="difference", **wanted)


def clear(row: dict) -> int:
    """The side of 0 on which the whole interval lies, 1 or -1; 0 where it holds 0 or decides nothing."""
    if of_one_network(row):
        return 0  # an interval over the images of one network says nothing of another training
    if row["low"] is None or row["low"] == row["high"] or row["low"] <= 0 <= row["high"]:
        return 0  # in an interval without width the seeds agree by chance: the mean is not known exactly
    return 1 if row["low"] > 0 else -1


def of_one_network(row: dict) -> bool:
    """Whether a row rests on one network of each training: its interval is over samples, or it has one seed."""
    return row["over"] == labels.SAMPLES or len(set(row["seeds"])) < 2


def all_above(rows: Iterable[dict]) -> bool | None:
    """True where every interval lies above 0, False where one lies below 0, else None (undecided)."""
    sides = {clear(row) for row in rows}
    return False if -1 in sides else True if sides == {1} else None


def trainings(record: dict) -> list[str]:
    """The trainings in a record's rows, in the order of its words, those without words last."""
    order = list(record["words"]["trainings"])
    there = dict.fromkeys(row["training"] for row in record["rows"] if "training" in row)
    return sorted(there, key=lambda name: order.index(name) if name in order else len(order))


# ---- phrases -----------------------------------------------------------------------------------------------------


def captioned(record: dict, template: str) -> str:
    """A caption: `template` filled from the record, then the level of the intervals and the profile.

    The template may name the record's parameters, `data` (its title), `seeds` ("3 seeds"), `networks` ("one network per
    training") and `over_seeds`, which stands for the intervals of numbers that have one over seeds or none.
    """
    provenance = record["provenance"]
    values = provenance["parameters"] | {"data": provenance["data"]["title"]}
    seeds = len({seed for row in record["rows"] for seed in row["seeds"]})
    if isinstance(values.get("seeds"), int):
        seeds = min(seeds, values["seeds"])  # a profile may have fewer seeds than the notebook asks for
    values["seeds"] = counted(seeds, "seed")
    values["networks"] = f"{counted(values.get('cost_seeds', seeds), 'network')} per training"
    values["over_seeds"] = "no intervals, which need more than one network" if seeds == 1 else "95 % intervals"
    text = template.format(**values)
    intervals = "" if "intervals" in text else ", 95 % intervals"
    return f"{text}{intervals}, profile {provenance['profile']}"


def scope(row: dict) -> str:
    """What a row's interval is taken over: "3 networks and 200 images", "200 images of one network", or "nothing"."""
    if row["low"] is None:
        return "nothing"
    networks, images = counted(len(set(row["seeds"])), "network"), counted(row["n"], "image")
    if row["over"] == labels.BOTH:
        return f"{networks} and {images}"
    return f"{images} of one network" if row["over"] == labels.SAMPLES else networks


def counted(number: int, noun: str) -> str:
    """A count with its noun: "1 seed", "3 seeds"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def one_network(rows: Iterable[dict]) -> str:
    """The end of a title that rests on `rows`: it says where no training has more than one network; else empty."""
    rows, seeds = list(rows), {}
    for row in rows:
        seeds.setdefault(row.get("training"), set()).update(row["seeds"])
    if any(len(own) > 1 for own in seeds.values()):
        return ""
    return " (one network)" if len({key for row in rows for key in row["experiments"]}) == 1 else " (one network each)"


def listed(words: Iterable[str]) -> str:
    """Words as an English list: "a, b and c"."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def percent(row: dict) -> str:
    """A share with its interval, "47.1 % [44.0, 50.2]", and † where a sanity check speaks against it."""
    return "undefined" if row["value"] is None else f"{100 * row['value']:.1f} %" + _bounds(row) + _doubted(row)


def points(row: dict) -> str:
    """A difference of shares with its interval, signed: "+1.2 points [-5.0, +7.4]", and † as above."""
    if row["value"] is None:
        return "undefined"
    return f"{100 * row['value']:+z.1f} points" + _bounds(row, "+z") + _doubted(row)  # z: 0 has no minus


def plain(row: dict) -> str:
    """A number with its interval, two digits after the point: "-0.80 [-0.95, -0.40]"."""
    bounds = "" if row["low"] is None else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return "undefined" if row["value"] is None else f"{row['value']:.2f}{bounds}"


def whole(row: dict) -> str:
    """A difference of shares in whole percentage points, signed, without its interval: "+12"."""
    return f"{100 * row['value']:+z.0f}"


def _doubted(row: dict) -> str:
    return " †" if row.get("doubts") else ""


def _bounds(row: dict, sign: str = "") -> str:
    return "" if row["low"] is None else f" [{100 * row['low']:{sign}.1f}, {100 * row['high']:{sign}.1f}]"
