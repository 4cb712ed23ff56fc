"""Spikes of the trainings on clean, noisy and attacked recordings of events."""

from functools import partial

import numpy as np
from matplotlib.axes import Axes

from paperlib.artifacts import spikes, spikes_figures
from paperlib.artifacts.reading import Part
from paperlib.artifacts.tab_events import coloured

ONE = "{data}, the first test recording, one network of each training"
ENERGY = "{data}, {samples} test recordings, {seeds}, {ac_pj:g} pJ an accumulation"


def picture(ax: Axes, counts: np.ndarray) -> Axes:
    """The events (2, H, W) of one step, in the colours of their polarities."""
    ax.imshow(coloured(counts))
    ax.set(xticks=[], yticks=[])
    return ax


headline, table, box = spikes.headline, spikes.table, spikes.box
caption = f"Above: {ONE}. Below: means of {{samples}} test recordings, {{seeds}}"
figure = partial(spikes_figures.rasters, picture=picture)
PARTS = {
    "membranes": Part(spikes.membranes_headline, ONE, spikes_figures.membranes),
    "rates": Part(spikes.rates_headline, ENERGY, spikes_figures.rates, spikes.rates_table),
}
