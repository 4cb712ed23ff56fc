"""The loss around an image: along the attack's direction and a random one, and over the plane of both."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from paperlib.claims import select, title
from paperlib.plots.core import bound, hue, line, logarithmic, trainings

STYLES = {"attack": "-", "random": "--"}
NAMES = {"attack": "attack's direction", "random": "random direction"}
LIKELY = np.log(2)  # the loss at which the true class has probability 1/2


def lines(record: dict) -> Figure:
    """A column for each training.  Above: the median loss.  Middle: single images.  Below: the share still correct."""
    names, single = trainings(record), record["arrays"]["curves"]
    figure, panels = plt.subplots(
        3, len(names), figsize=(9.6, 7), height_ratios=(3, 3, 2), sharex=True, sharey="row", layout="constrained"
    )
    panels = panels.reshape(3, -1)
    panels[1, 0].sharey(panels[0, 0])
    for (medians, images, shares), training in zip(panels.T, names, strict=True):
        medians.set_title(title(training), color=hue(training), fontweight="bold", fontsize=11)
        for direction, style in STYLES.items():
            own = {"training": training, "direction": direction}
            drawn = {"marker": "", "linestyle": style, "linewidth": 1.8}
            line(medians, "t_255", select(record, quantity="loss", **own), hue(training), **drawn)
            line(shares, "t_255", select(record, quantity="still correct", **own), hue(training), factor=100, **drawn)
            for loss in single["loss"].get(training, {}).get(direction, []):
                images.plot(single["t_255"], loss, style, color=hue(training), linewidth=0.8)
        for panel in (medians, images):
            panel.axhline(LIKELY, color=".4", linewidth=0.8, linestyle=":")
            logarithmic(panel)
        for panel in (medians, images, shares):
            panel.axvline(0, color=".4", linewidth=0.8)
        _name(medians, [select(record, quantity="loss", training=training, direction=d)[0] for d in STYLES])
        shares.set(ylim=(-3, 103), xlabel="t from the image, in 1/255")
    n = select(record, quantity="loss")[0]["n"]
    shown = max((len(losses) for own in single["loss"].values() for losses in own.values()), default=0)
    told = (f"median loss of {n} images", f"loss of {shown} images, one by one", "still correct, %")
    for panel, text in zip(panels[:, 0], told, strict=True):
        panel.set_ylabel(text)
    for panel in panels[:2].flat:  # after all of the shared scale is logarithmic, which sets a formatter of its own
        panel.yaxis.set_major_formatter("{x:g}")
    where = {"xycoords": panels[0, -1].get_yaxis_transform(), "textcoords": "offset points", "va": "center"}
    panels[0, -1].annotate("p = 1/2", (1, LIKELY), (4, 0), color=".4", fontsize=8, **where)
    return figure


def _name(panel: Axes, first: list[dict]) -> None:
    """Write which median is which at their left ends, above and below their intervals: there they lie apart."""
    known = sorted((r for r in first if r["value"] is not None), key=lambda r: r["value"])
    for row, end, shift in zip(known, ("low", "high"), (-4, 4), strict=False):
        where = {"textcoords": "offset points", "va": "top" if shift < 0 else "bottom", "fontsize": 7.5}
        place = (row["t_255"], bound(row, end))
        panel.annotate(NAMES[row["direction"]], place, (0, shift), color=hue(row["training"]), **where)
    panel.margins(y=0.12)  # room for the lower name


def plane(record: dict) -> Figure:
    """One image's loss: a column for each length along the attack's direction, a row for each along a random one."""
    shown = record["arrays"]["plane"]
    names, t = list(shown["loss"]), np.array(shown["t_255"])
    wide = [1] * max(1, len(names))
    figure, panels = plt.subplots(1, 1 + len(wide), figsize=(9.6, 3.3), width_ratios=(0.6, *wide), layout="constrained")
    for panel in panels:
        panel.grid(visible=False)
    if not names:
        panels[1].text(0.5, 0.5, "no image is classified\ncorrectly by all", transform=panels[1].transAxes, ha="center")
        return figure
    panels[0].imshow(np.array(shown["image"]).transpose(1, 2, 0).squeeze(), cmap="gray_r", vmin=0, vmax=1)
    panels[0].set(xticks=[], yticks=[], title="the image (+)")
    everything = np.array([*shown["loss"].values()])
    lowest = everything[everything > 0].min(initial=1)
    norm = LogNorm(lowest, max(everything.max(), 2 * lowest))
    outline = [withStroke(linewidth=3, foreground="black")]
    for panel, training in zip(panels[1:], names, strict=True):
        loss, right = np.array(shown["loss"][training]), np.array(shown["right"][training])
        mesh = panel.pcolormesh(t, t, np.maximum(loss, lowest), norm=norm, cmap="magma", rasterized=True)
        if right.any() and not right.all():
            panel.contour(t, t, right, [0.5], colors="white", linewidths=1.4).set_path_effects(outline)
        panel.plot(0, 0, "+", color="white", markersize=8)
        panel.set_title(title(training), color=hue(training), fontweight="bold", fontsize=11)
        panel.set(aspect="equal", xlabel="attack's direction,\nin 1/255", xlim=(t[0], t[-1]), ylim=(t[0], t[-1]))
        if panel is not panels[1]:
            panel.set_yticklabels([])
    panels[1].set_ylabel("random direction, in 1/255")
    bar = figure.colorbar(mesh, ax=panels[1:], label="loss", fraction=0.05, pad=0.01, format="{x:g}")
    bar.ax.minorticks_off()
    return figure
