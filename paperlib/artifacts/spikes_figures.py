"""The figures of spikes on clean, noisy and attacked samples.

`record["arrays"]["shown"]` maps trainings to what `measures.spikes.illustrated` returns of one network.
"""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from paperlib import labels
from paperlib.artifacts.drawing import ATTACK, GREY, NOISE, bound, name_lines, whiskers
from paperlib.artifacts.events import nothing
from paperlib.artifacts.reading import known, select, trainings, where
from paperlib.artifacts.spikes import layers, names, one
from paperlib.words import hue, title

COLOURS = {"clean": ".25", "noise": NOISE["sign"], "attack": ATTACK}  # by the role of an input
WRONG = "#b00000"  # a class that is not the true one
GAP = 1.8  # between the blocks of a raster, in steps
MARKERS = "osD^vP*X"  # of layers
Picture = Callable[[Axes, np.ndarray], Axes]  # draws an input


# ---- rasters -----------------------------------------------------------------------------------------------------


def rasters(record: dict, picture: Picture) -> Figure:
    """A column for each training: three inputs, the spikes of some neurons on each, and how many move on average."""
    if not trainings(record):
        return nothing()
    shown, titles = record["arrays"]["shown"], names(record)
    numbers = [layer["layer"] for layer in next(iter(shown.values()))["layers"]]
    heights = (0.95, *[2.4] * len(numbers), 1.4)
    fig = plt.figure(figsize=(11.4, 1.5 + sum(heights)), layout="constrained")
    part = fig.subfigures()  # with the legend, above the caption of the figure
    axes = part.subplots(len(heights), len(shown), height_ratios=heights, squeeze=False)
    moved = [100 * bound(row, "high") for row in known(select(record, quantity="spikes moved")) if "layer" in row]
    for (above, *blocks, below), (training, network) in zip(axes.T, shown.items(), strict=True):
        above.set_title(title(training), color=hue(training), fontweight="bold", fontsize=11)
        pictures(network, picture, titles, above)
        for ax, layer in zip(blocks, network["layers"], strict=True):
            raster(layer, ax)
        blocks[-1].set_xlabel("time step", fontsize=7, labelpad=1)
        moved_panel(record, training, below)
        below.set_ylim(0, 1.08 * max(moved, default=0) or 1)
    for ax, layer in zip(axes[1:-1, 0], numbers, strict=True):
        ax.set_ylabel(f"neurons of layer {layer}")
    axes[-1, 0].set_ylabel("spikes moved,\n% of neurons × steps")
    for ax in axes[-1, 1:]:
        ax.set_yticklabels([])
    fig.get_layout_engine().set(w_pad=0.13)
    part.legend(handles=_dots(titles), loc="outside lower center", ncols=5, fontsize=8, handletextpad=0.1)
    return fig


def pictures(network: dict, picture: Picture, titles: dict[str, str], ax: Axes) -> Axes:
    """The three inputs, each above its block of the rasters below, with the class that the network gives it.

    Cells of a recording in which events have come or gone are dots.
    """
    ax.axis("off")
    steps = len(network["layers"][0]["membranes"]["clean"])
    width = 3 * steps + 2 * GAP
    for i, (role, pixels) in enumerate(network["pictures"].items()):
        part = ax.inset_axes([i * (steps + GAP) / width, 0, steps / width, 1])
        picture(part, np.array(pixels))
        row, column = np.array(network["changed"][role], dtype=int).reshape(-1, 2).T
        part.plot(column, row, ".", color=COLOURS[role], markersize=3, markeredgewidth=0)
        part.set_title(titles[role], fontsize=7.5, color=COLOURS[role], pad=3)
        wrong = network["classes"][role] != network["label"]
        style = {"color": WRONG, "fontweight": "bold"} if wrong else {"color": GREY}
        part.set_xlabel(f"seen as {network['classes'][role]}", fontsize=7.5, labelpad=2, **style)
    return ax


def raster(layer: dict, ax: Axes) -> Axes:
    """A row for each of some neurons of a layer, a block of steps for each input, a dot for each spike.

    Spikes that are not in the clean block have the colour of their input; those that are only there are hollow.
    """
    steps = len(layer["membranes"]["clean"])
    trains = {role: np.array(spikes, dtype=bool).reshape(-1, steps) for role, spikes in layer["trains"].items()}
    clean, places = trains["clean"], []
    for i, (role, spikes) in enumerate(trains.items()):
        left, colour = i * (steps + GAP), COLOURS[role]
        places += [left + t for t in range(steps)]
        ax.axvspan(left - 0.6, left + steps - 0.4, color=".965", zorder=0)
        kinds = {"same": spikes & clean, "new": spikes & ~clean, "gone": clean & ~spikes}
        for kind, (face, edge) in _faces(colour).items():
            row, step = np.nonzero(kinds[kind])
            ax.plot(left + step, row, "o", color=face, markeredgecolor=edge, markersize=2.8, markeredgewidth=0.7)
    ax.set(xlim=(-0.6, places[-1] + 0.6), ylim=(len(clean) - 0.2, -0.8), yticks=[])
    ax.set_xticks(places, [*range(1, steps + 1)] * len(trains), fontsize=6)
    ax.set_title(f"{len(clean)} of the {layer['active']:,} that spike", fontsize=7, color=GREY, pad=2)
    ax.tick_params(length=0, pad=1)
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return ax


def _faces(colour: str) -> dict[str, tuple[str, str]]:
    """By kind of a dot in a raster its face and its edge, in the block of an input of that colour."""
    return {"same": (COLOURS["clean"],) * 2, "new": (colour, colour), "gone": ("white", colour)}


def _dots(titles: dict[str, str]) -> list[Line2D]:
    """The legend of the rasters."""
    entries = [("spike as on the clean input", _faces("")["same"])]
    for role in ("noise", "attack"):
        faces = _faces(COLOURS[role])
        entries += [(f"new under {titles[role]}", faces["new"]), ("gone", faces["gone"])]
    style = {"linestyle": "", "marker": "o", "markersize": 5}
    return [Line2D([], [], color=face, markeredgecolor=edge, label=text, **style) for text, (face, edge) in entries]


def moved_panel(record: dict, training: str, ax: Axes) -> Axes:
    """The share of neurons and steps whose spike moves, in each layer: noise beside attack, with intervals."""
    numbers = layers(record)
    for role, shift in (("noise", -0.12), ("attack", 0.12)):
        rows = known(one(record, "spikes moved", training, role, layer) for layer in numbers)
        heights, style = [100 * row["value"] for row in rows], {"markersize": 5, "elinewidth": 1.4}
        places = [row["layer"] + shift for row in rows]
        ax.errorbar(places, heights, yerr=100 * whiskers(rows), fmt="o", color=COLOURS[role], **style)
    ax.set_xticks(numbers, [f"layer {layer}" for layer in numbers])
    ax.set_xlim(numbers[0] - 0.5, numbers[-1] + 0.5)
    ax.grid(axis="x", visible=False)
    return ax


# ---- membranes ---------------------------------------------------------------------------------------------------


def membranes(record: dict) -> Figure:
    """A column for each training, a row for each layer: the membrane of one neuron on the three inputs."""
    if not trainings(record):
        return nothing()
    shown = record["arrays"]["shown"]
    numbers = [layer["layer"] for layer in next(iter(shown.values()))["layers"]]
    fig = plt.figure(figsize=(11, 1.6 + 2.3 * len(numbers)), layout="constrained")
    part = fig.subfigures()
    axes = part.subplots(len(numbers), len(shown), sharex=True, sharey="row", squeeze=False)
    for column, (training, network) in zip(axes.T, shown.items(), strict=True):
        column[0].set_title(title(training), color=hue(training), fontweight="bold", fontsize=11)
        for ax, layer in zip(column, network["layers"], strict=True):
            membrane(layer, network["threshold"], ax)
        column[-1].set_xlabel("time step")
    for ax, layer in zip(axes[:, 0], numbers, strict=True):
        ax.set_ylabel(f"membrane, layer {layer}")
    handles = [Line2D([], [], label=name, **_style(role)) for role, name in names(record).items()]
    style = {"color": GREY, "linestyle": "", "marker": "o", "markersize": 6}
    handles.append(Line2D([], [], label="a spike; the membrane returns to 0", **style))
    handles.append(Line2D([], [], color=GREY, linestyle=":", label="threshold"))
    part.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8)
    return fig


def membrane(layer: dict, threshold: float, ax: Axes) -> Axes:
    """One neuron on each input: a line up to m[t] at step t, and from there down to 0 after a spike, a dot."""
    ax.axhline(threshold, color=GREY, linewidth=1.0, linestyle=":")
    for role, values in layer["membranes"].items():
        path, spikes = [(0, 0.0)], []
        for t, m in enumerate(values, 1):
            path.append((t, m))
            if m >= threshold:
                spikes.append((t, m))
                path.append((t, 0.0))
        style = _style(role)
        ax.plot(*np.array(path).T, **style)
        ax.plot(*np.array(spikes).reshape(-1, 2).T, "o", markersize=3.5 + style["linewidth"], **style)
    ax.set_xticks(range(len(values) + 1))
    return ax


def _style(role: str) -> dict:
    """The style of an input's membrane: the later it is drawn, the thinner, so that equal lines all show."""
    width, alpha = {"clean": (4.5, 0.4), "noise": (2.6, 1), "attack": (1.3, 1)}[role]
    return {"color": COLOURS[role], "linewidth": width, "alpha": alpha}


# ---- rates and energy --------------------------------------------------------------------------------------------


def rates(record: dict) -> Figure:
    """The firing rate of each layer, and the energy estimate by its parts."""
    order = trainings(record)
    if not order:
        return nothing()
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 1.7 + 0.7 * len(order)), layout="constrained")
    rate_panel(record, order, left)
    energy_panel(record, order, right)
    return fig


def rate_panel(record: dict, order: list[str], ax: Axes) -> Axes:
    """A line for each of the trainings `order`, on it a marker for each layer: the firing rate on clean samples."""
    numbers = layers(record)
    marks = {layer: MARKERS[i % len(MARKERS)] for i, layer in enumerate(numbers)}
    for y, training in enumerate(order):
        for i, (layer, mark) in enumerate(marks.items()):
            row, style = one(record, "firing rate", training, "clean", layer), {"markersize": 5, "elinewidth": 1.4}
            height = y + 0.5 * ((i + 0.5) / len(numbers) - 0.5)
            value, spread = 100 * row["value"], 100 * whiskers([row])
            ax.errorbar(value, height, xerr=spread, fmt=mark, color=hue(training), **style)
    name_lines(ax, [title(name) for name in order], [hue(name) for name in order])
    ax.set(title="Firing rate on clean inputs", xlabel="neurons × steps with a spike, %")
    ax.set_xlim(left=0)
    style = {"color": GREY, "linestyle": "", "markersize": 5}
    handles = [Line2D([], [], marker=mark, label=f"layer {layer}", **style) for layer, mark in marks.items()]
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=min(5, len(handles)), fontsize=8)
    return ax


def energy_panel(record: dict, order: list[str], ax: Axes) -> Axes:
    """A bar for each of the trainings `order`: the estimate of a clean input by its parts; a dot for each input."""
    spent = select(record, quantity="energy of a part", attack=labels.CLEAN)
    parts = [(row["part"], row.get("layer")) for row in where(spent, training=order[0])]
    shades = [str(shade) for shade in np.linspace(0.5, 0.85, len(parts))]
    for y, training in enumerate(order):
        left = 0.0
        for (part, layer), shade in zip(parts, shades, strict=True):
            (row,) = where(spent, training=training, part=part, layer=layer)
            ax.barh(y - 0.12, row["value"], 0.36, left, color=shade)
            left += row["value"]
        for role, place in (("clean", y - 0.12), ("noise", y + 0.16), ("attack", y + 0.3)):
            total, style = one(record, "energy", training, role), {"markersize": 4, "elinewidth": 1.2}
            ax.errorbar(total["value"], place, xerr=whiskers([total]), fmt="o", color=COLOURS[role], **style)
    name_lines(ax, [title(name) for name in order], [hue(name) for name in order])
    ax.set(title="Energy estimate", xlabel="nJ an input")
    ax.set_xlim(left=0)
    texts = [part if layer is None else f"{part} {layer}" for part, layer in parts]
    handles = [Patch(color=shade, label=text) for text, shade in zip(texts, shades, strict=True)]
    dot = {"marker": "o", "markersize": 4, "linewidth": 1.2}
    handles += [Line2D([], [], color=COLOURS[role], label=name, **dot) for role, name in names(record).items()]
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.45, -0.2), ncols=3, fontsize=8)
    return ax
