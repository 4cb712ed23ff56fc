"""Records → figures.  One colour per training through the whole work; the title states the finding.

`draw(record)` is the whole door, `draw(record, part)` where an artifact has several figures: the notebooks show what it
returns and `make` writes the same figures to files.
"""

import io
import textwrap
from collections.abc import Callable
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

from paperlib import files
from paperlib.findings import caption, headline, key
from paperlib.plots import (
    ablation,
    accuracy,
    chance,
    checklist,
    cost,
    evaluation,
    events,
    gradients,
    landscape,
    quotient,
    ratio,
    settings,
    variants,
    width,
)
from paperlib.plots.core import COLOURS
from paperlib.plots.events import animation

STYLE = {"font.size": 9, "axes.titlesize": 9, "legend.frameon": False, "figure.dpi": 110}
DPI = 160  # of the files


def draw(record: dict, part: str = "") -> Figure:
    """The artifact's figure, titled with its finding, captioned with data, n, seeds and interval."""
    with sns.axes_style("whitegrid", {"grid.color": ".9"}), matplotlib.rc_context(STYLE):
        figure = DRAWINGS[key(record["artifact"], part)](record)
        told = headline(record, part).replace(" %", "\u00a0%").replace(" - ", "\u00a0-\u00a0")  # not to be parted
        figure.suptitle(
            "\n".join(textwrap.wrap(told, int(9.6 * figure.get_figwidth()))),
            fontsize=11,
            fontweight="bold",
            x=0.02,
            ha="left",
        )
        figure.supxlabel(caption(record, part), fontsize=8, color=".35", x=0.02, ha="left")
    plt.close(figure)  # a notebook shows what a cell returns; an open figure would be shown twice
    return figure


def save(record: dict, path: Path, part: str = "") -> None:
    """Write the artifact's figure as PNG, without a date or a version, so that equal records give equal bytes."""
    picture = io.BytesIO()
    draw(record, part).savefig(picture, format="png", dpi=DPI, metadata={"Software": None})
    files.write_atomically(path, picture.getvalue())


DRAWINGS: dict[str, Callable[[dict], Figure]] = {
    "fig-random-vs-adversarial": accuracy.random,
    "tab-ablation": ablation.ablation,
    "tab-ablation/equal-cost": ablation.equal_cost,
    "tab-cost": cost.cost,
    "fig-attack-ladder": evaluation.ladder,
    "tab-masking-checklist": checklist.checks,
    "tab-whitebox": evaluation.whitebox,
    "tab-blackbox": evaluation.blackbox,
    "fig-surrogate-width": width.widths,
    "tab-poisson-eot": chance.expectations,
    "fig-gradient-maps": gradients.maps,
    "fig-lambda": accuracy.lambdas,
    "fig-sr-variants": variants.variants,
    "fig-timesteps-and-leak": settings.settings,
    "thm-ratio": ratio.regimes,
    "thm-ratio/exact": ratio.exact,
    "thm-ratio/vulnerabilities": ratio.vulnerabilities,
    "thm-ratio/first-order": ratio.first_order,
    "thm-ratio/worst": ratio.worst,
    "thm-ratio/sparsity": ratio.sparsity,
    "thm-ratio/scale": ratio.scale,
    "prop-finite-difference": quotient.followed,
    "prop-finite-difference/window": quotient.window,
    "prop-finite-difference/schemes": quotient.schemes,
    "prop-finite-difference/curvature": quotient.curvature,
    "prop-finite-difference/weights": quotient.weights,
    "fig-landscape": landscape.lines,
    "fig-landscape/plane": landscape.plane,
    "tab-events": events.trained,
    "fig-random-vs-adversarial-events": events.random,
}

__all__ = ["COLOURS", "DPI", "DRAWINGS", "STYLE", "animation", "draw", "matplotlib", "plt", "save"]
