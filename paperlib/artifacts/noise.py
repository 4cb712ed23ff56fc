"""An attack against random noise of one or more times its size: what the artifacts on both kinds of data share."""

from matplotlib.axes import Axes

from paperlib import labels
from paperlib.artifacts.drawing import against_noise
from paperlib.artifacts.reading import NOISE_FACTOR, same_attack, under
from paperlib.words import size

UNMEASURED = "No noise of four times the attack's size was measured"


def noise_row(means: list[dict], gap: dict) -> dict:
    """Of the mean accuracies of one training the one under the noise of a gap."""
    ((unit, radius),) = size(gap).items()
    (row,) = under(means, gap["noise"], **{unit: round(radius * gap["factor"], 6)})
    return row


def widest(means: list[dict], gaps: list[dict]) -> tuple[dict, float] | None:
    """The row of the attack and the accuracy under noise four times larger, where the two differ most.

    `means` and `gaps` are of one training, the gaps of one law.  None where no such noise was measured.
    """
    gaps = [gap for gap in gaps if gap["factor"] == NOISE_FACTOR]
    if not gaps:
        return None
    gap = max(gaps, key=lambda row: row["value"])
    (attacked,) = same_attack(means, gap)
    return attacked, attacked["value"] + gap["value"]


def noise_panel(means: list[dict], gaps: list[dict], ax: Axes) -> Axes:
    """The accuracy under an attack against its radius, and a line for each multiple of it at which noise was drawn.

    `means` are the mean accuracies of one training, `gaps` the mean gaps between its attack and noise of one law.
    """
    (unit,) = size(gaps[0])
    attacked = [row for row in means if labels.attack(row) == labels.attack(gaps[0])]
    noise: dict[int, list[tuple[float, dict]]] = {}
    for gap in gaps:
        noise.setdefault(gap["factor"], []).append((gap[unit], noise_row(means, gap)))
    return against_noise(ax, attacked, noise, unit)
