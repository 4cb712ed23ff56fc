"""Ten trainings under PGD at equal epochs, and under the strongest attack at equal cost."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paperlib.claims import select, title
from paperlib.findings.ablation import (
    ADDED,
    EPOCHS,
    PASSES,
    against_sr,
    differences,
    over_seeds,
    spent,
    turned,
    under_pgd,
    worst,
)
from paperlib.plots.core import dots, hue, trainings

MARKS = "osD^vP"  # of radii, the smallest first
GREY = ".35"


def ablation(record: dict) -> Figure:
    """A line a training, clean and under PGD at each radius; then what SR adds, and SR against its rivals."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.4, 6.4), width_ratios=(5, 4), layout="constrained")
    means, names = select(record, quantity="mean accuracy", budget=None), trainings(record)
    radii = sorted({row["eps_255"] for row in under_pgd(means)})
    for y, training in enumerate(names):
        _line(left, [row for row in means if row["training"] == training], y, radii, hue(training))
    named(left, [title(name) for name in names], [hue(name) for name in names])
    attack = under_pgd(means)[0]["attack"]
    left.set(xlabel="accuracy, %; whiskers with caps: one network, over its images; without: over seeds")
    left.set_xlim(-2, 102)
    left.set_title(f"Clean, and under {attack}", loc="left")
    handles = [handle("o", "clean", open_=True)]
    handles += [handle(MARKS[i % len(MARKS)], f"{eps:g}/255") for i, eps in enumerate(radii)]
    left.legend(handles=handles, ncols=len(handles), loc="upper center", bbox_to_anchor=(0.5, -0.09), fontsize=8)

    rows = differences(record, budget=None)
    pairs = sorted(
        dict.fromkeys((r["training"], r["against"]) for r in rows), key=lambda pair: pair not in ADDED.items()
    )
    for y, pair in enumerate(pairs):
        own = [row for row in rows if (row["training"], row["against"]) == pair]
        _line(right, own, y, radii, hue(pair[0]))
    added = sum(pair in ADDED.items() for pair in pairs)
    if 0 < added < len(pairs):
        right.axhline(added - 0.5, color=".4", linewidth=0.8)
    right.axvline(0, color=".4", linewidth=0.8)
    named(right, [f"{title(one)}\n- {title(other)}" for one, other in pairs], [hue(one) for one, _ in pairs])
    right.set_xlabel("percentage points, paired; whiskers likewise")
    right.set_title("What SR adds, and SR against its rivals", loc="left")
    return figure


def equal_cost(record: dict) -> Figure:
    """Worst case of each training at equal epochs (hollow) and at equal passes (full); and the latter against SR."""
    rows = {budget: {r["training"]: r for r in worst(record, budget)} for budget in (EPOCHS, PASSES)}
    wide = bool(rows[PASSES])
    figure, panels = plt.subplots(
        1, 1 + wide, figsize=(10.4 if wide else 6.4, 5.4), sharey=True, squeeze=False, layout="constrained"
    )
    left, names = panels[0, 0], trainings(record)
    for y, training in enumerate(names):
        for budget, shift, face in ((EPOCHS, -0.14, "white"), (PASSES, 0.14, hue(training))):
            if training in rows[budget]:
                row = rows[budget][training]
                dots(left, [row], [y + shift * wide], hue(training), markerfacecolor=face, **capped(row))
        left.text(1.02, y, _passes(record, training), transform=left.get_yaxis_transform(), fontsize=7, va="center")
    named(left, [title(name) for name in names], [hue(name) for name in names])
    left.text(1.02, -0.75, "passes an image", transform=left.get_yaxis_transform(), fontsize=7, color=GREY)
    radius = next(iter(rows[EPOCHS].values()))["eps_255"]
    left.set(xlabel=f"accuracy in the worst case at {radius:g}/255, %", xlim=(-2, 102))
    handles = [handle("o", EPOCHS, open_=True), *([handle("o", PASSES)] if wide else [])]
    left.legend(handles=handles, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.1), fontsize=8)
    if wide:
        right = panels[0, 1]
        for y, training in enumerate(names):
            for row in map(turned, against_sr(record, training, PASSES)):
                dots(right, [row], [y], hue(training), **capped(row))
        right.axvline(0, color=hue("sr"), linewidth=0.8)
        right.grid(axis="y", visible=False)
        right.set_xlabel("training - SR at equal passes, percentage points")
    return figure


def _line(panel: Axes, rows: list[dict], y: float, radii: list[float], colour: str) -> None:
    """Clean and each radius of PGD at the height `y`, one a little below the other so that whiskers keep apart."""
    kinds = [(row, "o", "white") for row in rows if row["attack"] == "clean"]
    kinds += [(row, MARKS[radii.index(row["eps_255"]) % len(MARKS)], colour) for row in under_pgd(rows)]
    heights = y + np.linspace(-0.27, 0.27, len(kinds)) if len(kinds) > 1 else [y]
    panel.plot([100 * row["value"] for row, *_ in kinds], heights, color=colour, linewidth=0.7, alpha=0.5)
    for (row, mark, face), height in zip(kinds, heights, strict=True):
        dots(panel, [row], [height], colour, fmt=mark, markersize=4.5, markerfacecolor=face, **capped(row))


def capped(row: dict) -> dict:
    """Whiskers that tell of images alone have caps."""
    return {"elinewidth": 1.0, "capsize": 0 if over_seeds(row) or row["low"] is None else 2.5}


def named(panel: Axes, names: list[str], colours: list[str]) -> None:
    """The lines from the top down, each named in its colour."""
    panel.set_yticks(range(len(names)), names)
    for label, colour in zip(panel.get_yticklabels(), colours, strict=True):
        label.set(color=colour, fontweight="bold")
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.grid(axis="y", visible=False)


def _passes(record: dict, training: str) -> str:
    """ "10 → 24", those at equal epochs and at equal passes."""
    known = [spent(record, "passes per image", training, budget) for budget in (EPOCHS, PASSES)]
    return " → ".join(f"{passes:g}" for passes in known if passes is not None)


def handle(mark: str, name: str, *, open_: bool = False) -> Line2D:
    """A legend's entry for a marker, hollow where it is `open_`."""
    face = "white" if open_ else GREY
    return Line2D([], [], color=GREY, marker=mark, linestyle="", markersize=5, markerfacecolor=face, label=name)
