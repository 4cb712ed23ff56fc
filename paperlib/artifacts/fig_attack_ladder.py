"""Accuracy under ever stronger attacks, up to the worst case that decides, and against the queries of its last part."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from paperlib import labels, words
from paperlib.artifacts.drawing import curve, end, floors, gains, name_ends, shares
from paperlib.artifacts.reading import (
    BASELINES,
    Line,
    differences,
    listed,
    one_network,
    points,
    same_attack,
    select,
    trainings,
    under,
    where,
    whole,
)
from paperlib.artifacts.tabulating import against, attack_at, pivot, with_passes
from paperlib.words import attack, hue, title

PLATEAU = 0.01  # share of the images that the last half of the queries may break
caption = "{data}, {samples} test images, {strong_samples} of them under APGD and Square, {seeds}"


def headline(record: dict) -> str:
    """What SR changes on the last rung."""
    pairs = under(on_ladder(record, "difference"), labels.WORST)
    rows = [row for name in BASELINES for row in where(pairs, training=name)]
    if not rows:
        return "No training with SR was compared with the same training without"
    changes = [f"{title(row['against'])} by {whole(row)}" for row in rows]
    return f"Under the strongest attack SR changes the accuracy of {listed(changes)} points{one_network(rows)}"


def figure(record: dict) -> Figure:
    """Left, all rungs and the certified floors; middle, the last rung against its queries; right, what SR changes."""
    widths = {"width_ratios": (5, 3, 2.2), "layout": "constrained"}
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.8), **widths)
    means, passes = (on_ladder(record, quantity) for quantity in ("mean accuracy", "mean passes"))
    groups = {name: where(means, training=name) for name in trainings(record)}
    ladder(groups, passes, left)
    floors(left, select(record, quantity="mean certified accuracy", **words.size(means[-1])))
    against_queries(record, middle).set_ylim(left.get_ylim())
    rungs = next(iter(groups.values()))
    pairs = differences(record)
    lines = {rung_name(rung): same_attack(pairs, rung) for rung in rungs}
    gains(right, lines | {f"{rung_name(row)},\n{words.radius(row)}": same_attack(pairs, row) for row in beyond(pairs)})
    return fig


def table(record: dict) -> list[DataFrame]:
    """Accuracy under each attack with the passes that it cost, then what SR changes."""
    pairs = select(record, quantity="difference")
    return [with_passes(record, attack_at), pivot(pairs, lambda row: {"": attack_at(row)}, against, points)]


def box(record: dict) -> Iterator[Line]:
    """How much the last half of Square's queries still breaks."""
    curves, lost = select(record, quantity="accuracy after queries"), last_half(record)
    if lost:
        holds = None if one_network(curves) else max(lost.values()) <= PLATEAU + 1e-9
        statement = (
            f"The last half of Square's {curves[-1]['spent']} queries breaks at most {100 * PLATEAU:g} % of images."
        )
        yield Line(holds, statement, f"{', '.join(f'{title(name)} {100 * x:.1f} %' for name, x in lost.items())}.")


def on_ladder(record: dict, quantity: str) -> list[dict]:
    """The rows of a quantity that belong to a rung: attacked, at the radius at which the ladder was climbed."""
    rows = select(record, quantity=quantity)
    sizes = [words.size(row) for row in under(rows, labels.SO_FAR)]
    return [row for row in rows if row["attack"] != labels.CLEAN and words.size(row) in sizes]


def beyond(pairs: list[dict]) -> list[dict]:
    """Of differences, those of one training in the worst case at other radii than the ladder's."""
    sizes = [words.size(row) for row in under(pairs, labels.SO_FAR)]
    others = [row for row in under(pairs, labels.WORST) if words.size(row) not in sizes]
    return where(others, training=others[0]["training"]) if others else []


def last_half(record: dict) -> dict[str, float]:
    """Training → the share of the images that the last half of Square's queries broke."""
    curves = select(record, quantity="accuracy after queries")
    lost = {}
    for name in dict.fromkeys(row["training"] for row in curves):
        *_, last = own = where(curves, training=name)
        (half,) = where(own, spent=min((row["spent"] for row in own), key=lambda n: abs(2 * n - last["spent"])))
        lost[name] = half["value"] - last["value"]
    return lost


def ladder(groups: dict[str, list[dict]], passes: list[dict], ax: Axes) -> Axes:
    """A curve for each of `groups`, training → accuracies from the weakest rung on, named with the mean `passes`."""
    ends = []
    for training, rows in groups.items():
        places = np.arange(len(rows))
        curve(ax, places, rows, hue(training), width=1.8)
        ends.append((end(rows), title(training), hue(training)))
    ax.set_xticks(places, [_tick(rung, same_attack(passes, rung)) for rung in rows], fontsize=7.5)
    shares(ax, [row for rows in groups.values() for row in rows]).set_xlim(-0.3, len(rows) - 0.9)
    ax.set_xlabel(
        "APGD and Square with what comes before them; below a name its passes per image; dotted: certified", fontsize=8
    )
    return name_ends(ax, ends)


def against_queries(record: dict, ax: Axes) -> Axes:
    """Accuracy against Square's queries, a line for each training, named with what the last half of them broke."""
    lost, ends = last_half(record), []
    for name, share in lost.items():
        rows = select(record, quantity="accuracy after queries", training=name)
        ax.plot([row["spent"] for row in rows], [100 * row["value"] for row in rows], color=hue(name), linewidth=1.8)
        ends.append((end(rows), f"{100 * share:.1f}", hue(name)))
    shares(ax, select(record, quantity="accuracy after queries"))
    ax.set(title="The last rung, query by query", xlabel="queries of Square, from where APGD ended")
    ax.set_xlim(0, max((row["spent"] for row in select(record, quantity="accuracy after queries")), default=1))
    name_ends(ax, ends)
    ax.text(1.045, 1.02, "last half\nbroke, %", transform=ax.transAxes, fontsize=8, color=".4")
    return ax


def rung_name(row: dict) -> str:
    """The name of a row's rung."""
    return "Square" if row["attack"] == labels.WORST else row.get("up_to", attack(row))


def _tick(rung: dict, passes: list[dict]) -> str:
    """The name of a rung and the range of its passes over the trainings."""
    numbers = [round(row["value"]) for row in passes]
    low, high = min(numbers), max(numbers)
    name = rung_name(rung).replace(" ", "\n", 1)
    return f"{name}\n{low}" if low == high else f"{name}\n{low}-{high}"
