"""Event data: a recording that moves, noise against attacks, and four trainings under both kinds of attack."""

import io

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from paperlib.claims import RANDOM_FLIPS, WORST, select, title
from paperlib.plots.accuracy import LAWS, name_clean, noise_panel
from paperlib.plots.core import curve, gains, hue, name_ends, trainings, whiskers

ZOOM, GAP = 7, 2  # screen pixels of a sensor's, and sensor pixels between picture and recording
OFF, ON = (0, 90, 181), (220, 50, 32)  # blue and red that colour-blind readers tell apart
PAPER = 240  # the grey of a sensor that says nothing
UNITS = {"eps_counts": "ε in counts", "flips": "changed events, k"}  # of a radius


def animation(picture: np.ndarray, frames: np.ndarray, milliseconds: int = 100) -> bytes:
    """An animated PNG: `picture` (H, W) in [0, 1] beside each of `frames` (N, 2, H', W'), counts of OFF and ON events.

    Each frame is shown for so long; a colour is full where a cell has two events or more.  What cannot animate a PNG
    shows the first frame, while a GIF would be left out by some pages that render notebooks.
    """
    height, width = frames.shape[2:]
    still = np.full((height, width), 255, np.uint8)
    top, left = (height - picture.shape[0]) // 2, (width - picture.shape[1]) // 2
    still[top : top + picture.shape[0], left : left + picture.shape[1]] = np.rint(255 * picture)
    between = np.full((height, GAP, 3), 255, np.uint8)
    shown = [np.hstack([np.repeat(still[:, :, None], 3, 2), between, _coloured(each)]) for each in frames]
    large = [Image.fromarray(each.repeat(ZOOM, 0).repeat(ZOOM, 1)) for each in shown]
    film = io.BytesIO()
    large[0].save(film, "png", save_all=True, append_images=large[1:], duration=milliseconds, loop=0)
    return film.getvalue()


def _coloured(counts: np.ndarray) -> np.ndarray:
    """One frame (2, H, W) as colours (H, W, 3) on pale grey; where both polarities have events they mix."""
    share = np.minimum(counts / 2, 1)[..., None]
    missing = sum(amount * (PAPER - np.array(colour)) for amount, colour in zip(share, (OFF, ON), strict=True))
    return np.clip(PAPER - missing, 0, 255).astype(np.uint8)


def random(record: dict) -> Figure:
    """A row a training: both laws of noise against PGD in counts, random flips against chosen ones."""
    names = trainings(record)
    if not names:
        return _nothing()
    shape = {"figsize": (11, 0.8 + 3.2 * len(names)), "sharey": True, "squeeze": False, "layout": "constrained"}
    figure, panels = plt.subplots(len(names), len(LAWS), **shape)
    for row, training in zip(panels, names, strict=True):
        for panel, law in zip(row, LAWS, strict=True):
            unit = "flips" if law == RANDOM_FLIPS else "eps_counts"
            noise_panel(panel, record, law, unit, training=training)
            room = 1.22 * panel.get_xlim()[1]  # a narrow panel needs more of it for names
            panel.set(xlabel=f"{UNITS[unit]}, of the attack", ylim=(0, 101), xlim=(0, room))
            panel.set_title(LAWS[law] if training == names[0] else "")
        row[0].set_ylabel(f"{title(training)}\naccuracy, %", color=hue(training))
        name_clean(row[0], record, training=training)
    return figure


def trained(record: dict) -> Figure:
    """What the attacks in counts and in whole events leave of each training, and what SR changes in the worst case."""
    names = trainings(record)
    if not names:
        return _nothing()
    figure, panels = plt.subplots(1, 3, figsize=(11.5, 4.2), width_ratios=(4, 4, 3), layout="constrained")
    for panel, unit in zip(panels, UNITS, strict=False):
        _falling(panel, record, names, unit)
    panels[0].set_ylabel("accuracy, %")
    rows = select(record, quantity="difference")
    worst = [r for r in rows if r["attack"] == WORST]
    lines = {
        "clean": [r for r in rows if r["attack"] == "clean"],
        "worst case,\nin counts": [r for r in worst if "eps_counts" in r],
        "worst case,\nwhole events": [r for r in worst if "flips" in r],
    }
    gains(panels[2], lines, below=0.15)
    return figure


def _falling(panel: Axes, record: dict, names: list[str], unit: str) -> None:
    """A full line a training under the attack, a dashed one under noise of the same size, a cross in the worst case."""
    attack, noise = {"eps_counts": ("PGD", "uniform"), "flips": ("sparse", "random")}[unit]
    ends, last = [], 0.0
    for training in names:
        rows = [r for r in select(record, quantity="mean accuracy", training=training) if unit in r]
        attacked, random_ = ([r for r in rows if r["attack"].startswith(name)] for name in (attack, noise))
        colour, (clean,) = hue(training), select(record, quantity="mean accuracy", training=training, attack="clean")
        last = attacked[-1][unit]
        end = curve(panel, [r[unit] for r in attacked], attacked, colour, width=1.8)
        ends.append((end, title(training), colour))
        values = [100 * r["value"] for r in (clean, *random_)]
        panel.plot([0, *(r[unit] for r in random_)], values, "--", color=colour, linewidth=0.9, alpha=0.8)
        for r in rows:
            if r["attack"] == WORST:
                reach = 100 * whiskers([r])
                panel.errorbar(r[unit], 100 * r["value"], yerr=reach, fmt="X", color=colour, markersize=7, elinewidth=1)
    name_ends(panel, last, ends)
    words = {"eps_counts": "Every count within ε", "flips": "Whole events added and removed"}
    panel.set(title=words[unit], xlabel=UNITS[unit], ylim=(0, 101), xlim=(-0.02 * last, 1.22 * last))
    style = {"color": ".4", "linewidth": 1}
    lines = [panel.plot([], [], label=label, **style | how)[0] for label, how in (
        (f"{attack if unit == 'eps_counts' else 'chosen by gradient'}", {}),
        (f"{noise} noise" if unit == "eps_counts" else "at random", {"linestyle": "--"}),
        ("worst of all, fewer recordings", {"marker": "X", "linestyle": ""}),
    )]  # fmt: skip
    panel.legend(handles=lines, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3)


def _nothing() -> Figure:
    """For a profile that asks for no training on event data."""
    figure, panel = plt.subplots(figsize=(9, 1.2), layout="constrained")
    panel.axis("off")
    return figure
