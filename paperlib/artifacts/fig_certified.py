"""Certified accuracy against ε, from below, and accuracy under attack, from above."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from pandas import DataFrame

from paperlib.artifacts.drawing import GREY, LOG, curve, gains
from paperlib.artifacts.reading import (
    IMAGES,
    Line,
    known,
    listed,
    one_network,
    percent,
    points,
    select,
    trainings,
    where,
)
from paperlib.artifacts.tabulating import against, attack_at, pivot, training
from paperlib.words import hue, radius, size, title

caption = IMAGES


def headline(record: dict) -> str:
    """The largest change by SR of what can be certified, for each pair of trainings."""
    rows = known(select(record, quantity="certified difference"))
    if not rows:
        return "No training with SR was compared with the same training without"
    by_training = [where(rows, training=name) for name in dict.fromkeys(row["training"] for row in rows)]
    largest = [max(pairs, key=lambda row: abs(row["value"])) for pairs in by_training]
    changes = [f"{100 * r['value']:+z.0f} points on {title(r['against'])}" for r in largest]
    return f"At the radius of its largest effect SR changes certified accuracy by {listed(changes)}{one_network(rows)}"


def figure(record: dict) -> Figure:
    """A panel for each training, then what SR changes of certified accuracy."""
    names, pairs = trainings(record), select(record, quantity="certified difference")
    widths = [2.4] * len(names) + [3]
    fig, axes = plt.subplots(1, len(widths), figsize=(sum(widths), 4.2), width_ratios=widths, layout="constrained")
    means = select(record, quantity="mean accuracy")
    for ax, name in zip(axes, names, strict=False):
        band(where(select(record, quantity="mean certified accuracy"), training=name), where(means, training=name), ax)
        ax.set_title(title(name), color=hue(name))
        if ax is not axes[0]:
            ax.set_yticklabels([])
    axes[0].set_ylabel("accuracy, %")
    below, above = Line2D([], [], color=GREY), Line2D([], [], color=GREY, linestyle="--")
    key = {"certified": below, "under attack": above, "undecided": Patch(color=GREY, alpha=0.15)}
    axes[0].legend(key.values(), key, fontsize=7.5, loc="lower left")
    gains(axes[-1], {radius(r): [p for p in pairs if size(p) == size(r)] for r in pairs})
    axes[-1].set_title("What SR changes of\ncertified accuracy, points", fontsize=10)
    return fig


def band(certified: list[dict], accuracies: list[dict], ax: Axes) -> Axes:
    """Certified accuracy, the least of `accuracies` at each radius, which are under attacks, and what lies between."""
    places = [_place(row) for row in certified]
    least = [min(100 * r["value"] for r in accuracies if size(r) == size(row)) for row in certified]
    colour = hue(certified[0]["training"])
    ax.set(**LOG)
    curve(ax, places, certified, colour, width=1.8)
    ax.plot(places, least, color=colour, linestyle="--", linewidth=1.2)
    ax.fill_between(places, [100 * r["value"] for r in certified], least, color=GREY, alpha=0.15, linewidth=0)
    ax.set_xticks(places, [f"{place:g}" for place in places])
    ax.minorticks_off()
    ax.set(xlabel="ε, in 1/255", ylim=(0, 101))
    return ax


def table(record: dict) -> list[DataFrame]:
    """A line for each radius: what is certified, accuracy under attack, what SR changes of the first."""
    tables = (
        ("mean certified accuracy", lambda r: {"certified": radius(r)}, training, percent),
        ("mean accuracy", lambda r: {"": attack_at(r)}, training, percent),
        ("certified difference", lambda r: {"certified": radius(r)}, against, points),
    )
    return [pivot(select(record, quantity=name), *how) for name, *how in tables]


def box(record: dict) -> list[Line]:
    """Whether every certified image withstood every attack within its radius."""
    rows = select(record, quantity="certified images broken")
    certified, broken = sum(row["n"] for row in rows), sum(row["value"] for row in rows)
    return [
        Line(
            broken == 0 if certified else None,
            "No attack breaks a certified image.",
            f"Of {certified:,} certified images and radii {broken:,.0f} were broken by an attack that is on disk.",
        )
    ]


def _place(row: dict) -> float:
    (eps,) = size(row).values()
    return eps
