"""An attack against random noise of one or more times its size: what the artifacts on images and on events share."""

from matplotlib.axes import Axes

from paperlib import labels
from paperlib.artifacts.drawing import ATTACK, NOISE, curve, end, name_ends
from paperlib.artifacts.reading import NOISE_FACTOR, same_attack, under, where
from paperlib.words import attack, size

UNMEASURED = "No noise of four times the attack's size was measured"
LAWS = {"uniform": "Uniform noise", "sign": "Random signs", labels.RANDOM_FLIPS: "Random flips"}  # titles of panels
SIGNS = {"eps_255": "ε", "eps_counts": "ε", "flips": "k"}  # of a radius, by its label
WIDTHS = {1: 0.9, 2: 1.6, 4: 2.6}  # of lines, by how many times larger than the attack the noise is


def noise_row(means: list[dict], gap: dict) -> dict:
    """Of the mean accuracies of one training the one under the noise of a gap."""
    ((unit, radius),) = size(gap).items()
    (row,) = under(means, gap["noise"], **{unit: round(radius * gap["factor"], 6)})
    return row


def widest(means: list[dict], gaps: list[dict]) -> tuple[dict, float] | None:
    """The row of the attack and the accuracy under noise four times larger, where the two differ most; None: no such.

    `means` and `gaps` are of one training, the gaps of one law.
    """
    gap = max(where(gaps, factor=NOISE_FACTOR), key=lambda row: row["value"], default=None)
    if gap is None:
        return None
    (attacked,) = same_attack(means, gap)
    return attacked, attacked["value"] + gap["value"]


def noise_panel(means: list[dict], gaps: list[dict], ax: Axes) -> Axes:
    """The accuracy under an attack against its radius, and a line for each multiple of it at which noise was drawn.

    The limits of the y-axis must be set.  `means` are the mean accuracies of one training, `gaps` the mean gaps between
    its attack and noise of one law.
    """
    (unit,), ends, colour = size(gaps[0]), [], NOISE[gaps[0]["noise"]]
    for factor in dict.fromkeys(gap["factor"] for gap in gaps):
        same_factor = where(gaps, factor=factor)
        rows = [noise_row(means, gap) for gap in same_factor]
        curve(ax, [gap[unit] for gap in same_factor], rows, colour, width=WIDTHS.get(factor, 1.2))
        ends.append((end(rows), f"noise, {factor if factor > 1 else ''}{SIGNS[unit]}", colour))
    attacked = [row for row in means if labels.attack(row) == labels.attack(gaps[0])]
    radii = [row[unit] for row in attacked]
    curve(ax, radii, attacked, ATTACK, width=1.8)
    ends.append((end(attacked), f"{attack(attacked[0])}, {SIGNS[unit]}", ATTACK))
    ax.set_xlim(0, 1.02 * radii[-1])
    return name_ends(ax, ends)


def clean_line(clean: dict, ax: Axes, *, named: bool) -> Axes:
    """A dotted line at the accuracy without a perturbation; with `named`, the word "clean" above it."""
    ax.axhline(100 * clean["value"], color=".6", linestyle=":", linewidth=1)
    if named:
        ax.annotate("clean", (0, 100 * clean["value"]), (3, 2), textcoords="offset points", color=".4", fontsize=8)
    return ax
