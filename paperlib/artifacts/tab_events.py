"""Trainings on event data under attacks in counts and in whole events; and an animation of a recording."""

import io
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame
from PIL import Image

from paperlib import labels
from paperlib.artifacts.drawing import curve, end, gains, name_ends, shares, whiskers
from paperlib.artifacts.events import NOTHING, UNITS, nothing
from paperlib.artifacts.reading import (
    differences,
    known,
    listed,
    one_network,
    percent,
    select,
    trainings,
    under,
    where,
    whole,
)
from paperlib.artifacts.tabulating import by_attack, pivot, training
from paperlib.words import hue, title

ZOOM, GAP = 7, 2  # screen pixels per sensor pixel, sensor pixels between picture and recording
OFF, ON = (0, 90, 181), (220, 50, 32)  # a blue and a red that colour-blind readers can tell apart
PAPER = 240  # the grey of a cell without events

caption = "{data}, {samples} test recordings, {strong_samples} in the worst case of all attacks (✖), {seeds}"


class Threat(NamedTuple):
    """An attack and the noise beside it in a panel, by their labels, and the panel's title."""

    attack: str
    noise: str
    title: str
    lines: str  # what solid and dashed lines are


THREATS = {  # by the label of the radius
    "eps_counts": Threat("pgd", "uniform", "Every count within ε", "solid: PGD; dashed: uniform noise"),
    "flips": Threat(
        "sparse_flips", labels.RANDOM_FLIPS, "Whole events", "solid: chosen by gradient; dashed: at random"
    ),
    "moves": Threat(
        "retiming", "random_retiming", "Events moved in time", "solid: chosen by gradient; dashed: at random"
    ),
}


def headline(record: dict) -> str:
    """What SR adds to vanilla training in the worst case of either kind of attack."""
    rows = select(record, quantity="difference", attack=labels.WORST, training="sr", against="vanilla")
    kinds = {"eps_counts": "against attacks on counts", "flips": "on whole events"}
    gained = [f"{whole(row)} points {kind}" for unit, kind in kinds.items() for row in known(rows) if unit in row]
    if not gained:
        return NOTHING
    return f"On event data SR gains {listed(gained)} in the worst case{one_network(rows)}"


def figure(record: dict) -> Figure:
    """Accuracy under the attacks in counts, in whole events and in time, and what SR changes in the worst case."""
    names = trainings(record)
    if not names:
        return nothing()
    rows = select(record, quantity="mean accuracy")
    units = [unit for unit in THREATS if any(unit in row for row in rows)]
    widths = [4] * len(units) + [3]
    fig, axes = plt.subplots(1, len(widths), figsize=(sum(widths), 4.2), width_ratios=widths, layout="constrained")
    for ax, unit in zip(axes, units, strict=False):
        threat_panel(rows, names, unit, ax)
        if ax is not axes[0]:
            ax.set_ylabel("")
    worst = differences(record, attack=labels.WORST)
    lines = {
        "clean": differences(record, attack=labels.CLEAN),
        "worst case,\nin counts": [row for row in worst if "eps_counts" in row],
        "worst case,\nwhole events": [row for row in worst if "flips" in row],
        "worst case,\nin time": [row for row in worst if "moves" in row],
    }
    gains(axes[-1], lines)
    return fig


def table(record: dict) -> list[DataFrame]:
    """Accuracy under each attack, what SR changes, and clean accuracy with counts cut to [0, 1]."""
    cut = "mean accuracy, counts cut to [0, 1]"
    rows = select(record, quantity="mean accuracy", attack=labels.CLEAN) + select(record, quantity=cut)

    def head(row: dict) -> dict:
        return {"": "counts cut to [0, 1]" if row["quantity"] == cut else "counts as they are"}

    return [*by_attack(record), pivot(rows, head, training, percent)]


def threat_panel(rows: list[dict], names: list[str], unit: str, ax: Axes) -> Axes:
    """Mean accuracies with a radius in `unit`: solid under attack, dashed under noise, crosses in the worst case."""
    threat, ends = THREATS[unit], []
    for name in names:
        colour = hue(name)
        (clean,) = under(rows, labels.CLEAN, training=name)
        shown = [row for row in where(rows, training=name) if unit in row]
        attacked, noise = under(shown, threat.attack), under(shown, threat.noise)
        curve(ax, [row[unit] for row in attacked], attacked, colour, width=1.8)
        ends.append((end(attacked), title(name), colour))
        values = [100 * row["value"] for row in (clean, *noise)]
        ax.plot([0, *(row[unit] for row in noise)], values, "--", color=colour, linewidth=0.9, alpha=0.8)
        for row in under(shown, labels.WORST):
            style = {"yerr": 100 * whiskers([row]), "markersize": 7, "elinewidth": 1}
            ax.errorbar(row[unit], 100 * row["value"], fmt="X", color=colour, **style)
    last = attacked[-1][unit]
    shares(ax, rows).set(
        title=threat.title, xlabel=f"{UNITS[unit]}\n{threat.lines}; ✖: worst of all", xlim=(-0.02 * last, 1.02 * last)
    )
    return name_ends(ax, ends)


def animation(picture: np.ndarray, frames: np.ndarray, milliseconds: int = 100) -> bytes:
    """An animated PNG (some pages that render notebooks leave out a GIF) of a recording beside a still picture.

    `picture` is (H, W) in [0, 1]; `frames` (N, 2, H', W') are counts of OFF and ON events; two or more in a cell give
    the full colour.
    """
    height, width = frames.shape[2:]
    still = np.full((height, width), 255, np.uint8)
    top, left = (height - picture.shape[0]) // 2, (width - picture.shape[1]) // 2
    still[top : top + picture.shape[0], left : left + picture.shape[1]] = np.rint(255 * picture)
    between = np.full((height, GAP, 3), 255, np.uint8)
    pictures = [np.hstack([np.repeat(still[:, :, None], 3, 2), between, coloured(frame)]) for frame in frames]
    large = [Image.fromarray(pixels.repeat(ZOOM, 0).repeat(ZOOM, 1)) for pixels in pictures]
    file = io.BytesIO()
    large[0].save(file, "png", save_all=True, append_images=large[1:], duration=milliseconds, loop=0)
    return file.getvalue()


def coloured(counts: np.ndarray) -> np.ndarray:
    """One frame (2, H, W) as colours (H, W, 3) on pale grey; the colours of the two polarities mix."""
    share = np.minimum(counts / 2, 1)[..., None]
    missing = sum(amount * (PAPER - np.array(colour)) for amount, colour in zip(share, (OFF, ON), strict=True))
    return np.clip(PAPER - missing, 0, 255).astype(np.uint8)
