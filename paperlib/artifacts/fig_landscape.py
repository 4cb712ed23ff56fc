"""The loss around an image: along the attack's direction and a random one, and over the plane of the two."""

from operator import itemgetter

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from pandas import DataFrame

from paperlib.artifacts.drawing import bound, line, logarithmic, picture
from paperlib.artifacts.reading import Part, known, listed, one_network, percent, select, trainings, where
from paperlib.artifacts.tabulating import network, number, pivot
from paperlib.words import hue, title

STYLES = {"attack": "-", "random": "--"}  # of the directions
NAMES = {"attack": "attack's direction", "random": "random direction"}
LIKELY = np.log(2)  # the loss at which the true class has probability 1/2
NONE = "No image is classified correctly by all networks, so none has a landscape to show"  # a headline

caption = "{data}, those of {samples} test images that all networks classify correctly, {seeds}"


# ---- along the two directions ------------------------------------------------------------------------------------


def headline(record: dict) -> str:
    """Whether the attack's direction raises the median loss more than a random one, in every training."""
    losses = select(record, quantity="loss")
    reach = max(row["t_255"] for row in losses)
    ends = {(row["training"], row["direction"]): row["value"] for row in losses if row["t_255"] == reach}
    if None in ends.values():
        return NONE
    attack, random = ({name: value for (name, kind), value in ends.items() if kind == wanted} for wanted in STYLES)
    flat = [title(training) for training in attack if attack[training] <= random[training]]
    higher = "The attack's direction raises the loss more than a random one"
    scope = f"but not in {listed(flat)}" if flat else "in every training"
    return f"{higher} {scope}{one_network(losses)}"


def figure(record: dict) -> Figure:
    """A column for each training.  Above: the median loss.  Middle: single images.  Below: the share still correct."""
    names, curves = trainings(record), record["arrays"]["curves"]
    shape = {"figsize": (9.6, 7), "height_ratios": (3, 3, 2), "squeeze": False, "layout": "constrained"}
    fig, axes = plt.subplots(3, len(names), sharex=True, sharey="row", **shape)
    axes[1, 0].sharey(axes[0, 0])
    for (above, middle, below), training in zip(axes.T, names, strict=True):
        losses = select(record, quantity="loss", training=training)
        above.set_title(title(training), color=hue(training), fontweight="bold", fontsize=11)
        directions(losses, above)
        directions(select(record, quantity="still correct", training=training), below, factor=100)
        for direction, images in curves["loss"].get(training, {}).items():
            for loss in images:
                middle.plot(curves["t_255"], loss, STYLES[direction], color=hue(training), linewidth=0.8)
        for ax in (above, middle):
            ax.axhline(LIKELY, color=".4", linewidth=0.8, linestyle=":")
            logarithmic(ax)
        for ax in (above, middle, below):
            ax.axvline(0, color=".4", linewidth=0.8)
        name_directions(losses, above)
        below.set(ylim=(-3, 103), xlabel="t from the image, in 1/255")
    images = select(record, quantity="loss")[0]["n"]
    shown = max((len(losses) for pair in curves["loss"].values() for losses in pair.values()), default=0)
    texts = (f"median loss of {images} images", f"loss of {shown} images, one by one", "still correct, %")
    for ax, text in zip(axes[:, 0], texts, strict=True):
        ax.set_ylabel(text)
    for ax in axes[:2].flat:  # last, because making a shared scale logarithmic sets another formatter
        ax.yaxis.set_major_formatter("{x:g}")
    style = {"xycoords": axes[0, -1].get_yaxis_transform(), "textcoords": "offset points", "va": "center"}
    axes[0, -1].annotate("p = 1/2", (1, LIKELY), (4, 0), color=".4", fontsize=8, **style)
    return fig


def table(record: dict) -> list[DataFrame]:
    """A line for each network: loss and correctness at the image and at the largest t, roughness, zero gradients."""
    losses = select(record, quantity="loss")
    reach = max(row["t_255"] for row in losses)
    rows = [row for row in losses if row["t_255"] == 0 and row["direction"] == "attack"]  # both start at the image
    rows += sorted((row for row in record["rows"] if row.get("t_255") == reach), key=itemgetter("quantity"))
    rows += select(record, quantity="roughness") + select(record, quantity="zero gradient")

    def column(row: dict) -> str:
        place = f", t = {row['t_255']:g}/255" if "t_255" in row else ""
        direction = f", {row['direction']}" if "direction" in row and row.get("t_255") != 0 else ""
        return row["quantity"] + place + direction

    return [pivot(rows, network, column, lambda r: number(r) if r["quantity"] == "loss" else percent(r))]


def directions(rows: list[dict], ax: Axes, *, factor: float = 1) -> Axes:
    """`factor` times one quantity of one training against t: a line for each direction, with its interval."""
    for direction, linestyle in STYLES.items():
        shown, style = where(rows, direction=direction), {"marker": "", "linestyle": linestyle, "linewidth": 1.8}
        line(ax, "t_255", shown, hue(rows[0]["training"]), factor=factor, **style)
    return ax


def name_directions(rows: list[dict], ax: Axes) -> Axes:
    """Name the lines at their left ends, where they lie apart: one below its interval, one above."""
    ends = sorted(known(where(rows, direction=name)[0] for name in STYLES), key=itemgetter("value"))
    for row, end, shift in zip(ends, ("low", "high"), (-4, 4), strict=False):
        style = {"textcoords": "offset points", "va": "top" if shift < 0 else "bottom", "fontsize": 7.5}
        place = (row["t_255"], bound(row, end))
        ax.annotate(NAMES[row["direction"]], place, (0, shift), color=hue(row["training"]), **style)
    ax.margins(y=0.12)  # room for the lower name
    return ax


# ---- over the plane ----------------------------------------------------------------------------------------------


def plane_headline(record: dict) -> str:
    """The trainings whose decision about one image either direction changes."""
    plane = record["arrays"]["plane"]
    if not plane["right"]:
        return NONE
    t = plane["t_255"]
    middle, attack, random = len(t) // 2, [], []
    for training, right in plane["right"].items():
        if any(place > 0 and not correct for place, correct in zip(t, right[middle], strict=True)):
            attack.append(title(training))
        if not all(line[middle] for line in right):
            random.append(title(training))
    along, across = (listed(names) if names else "no training" for names in (attack, random))
    return (
        f"One image, one network each: the attack's direction changes the decision in {along}, a random one in {across}"
    )


def plane_figure(record: dict) -> Figure:
    """An image, and for each training its loss over the plane of the two directions."""
    plane = record["arrays"]["plane"]
    names, t = list(plane["loss"]), np.array(plane["t_255"])
    widths = (0.6, *[1] * max(1, len(names)))
    fig, (left, *maps) = plt.subplots(1, len(widths), figsize=(9.6, 3.3), width_ratios=widths, layout="constrained")
    for ax in (left, *maps):
        ax.grid(visible=False)
    if not names:
        maps[0].text(0.5, 0.5, "no image is classified\ncorrectly by all", transform=maps[0].transAxes, ha="center")
        return fig
    picture(left, np.array(plane["image"])).set_title("the image (+)")
    losses = np.array([*plane["loss"].values()])
    lowest = losses[losses > 0].min(initial=1)
    norm = LogNorm(lowest, max(losses.max(), 2 * lowest))
    for ax, training, loss in zip(maps, names, losses, strict=True):
        ax.pcolormesh(t, t, np.maximum(loss, lowest), norm=norm, cmap="magma", rasterized=True)
        right = np.array(plane["right"][training])
        if right.any() and not right.all():  # a line around the region where the decision is right
            outline = [withStroke(linewidth=3, foreground="black")]
            ax.contour(t, t, right, [0.5], colors="white", linewidths=1.4).set_path_effects(outline)
        ax.plot(0, 0, "+", color="white", markersize=8)
        ax.set(aspect="equal", xlabel="attack's direction,\nin 1/255", xlim=(t[0], t[-1]), ylim=(t[0], t[-1]))
        ax.set_title(title(training), color=hue(training), fontweight="bold", fontsize=11)
    for ax in maps[1:]:
        ax.set_yticklabels([])
    maps[0].set_ylabel("random direction, in 1/255")
    bar = fig.colorbar(maps[-1].collections[0], ax=maps, label="loss", fraction=0.05, pad=0.01, format="{x:g}")
    bar.ax.minorticks_off()
    return fig


PLANE = "{data}, the first test image that all networks classify correctly, {seeds}"  # a caption
PARTS = {"plane": Part(plane_headline, PLANE, plane_figure)}
