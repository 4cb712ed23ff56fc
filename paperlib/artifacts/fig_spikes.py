"""Spikes of the trainings on clean, noisy and attacked images."""

from functools import partial

from paperlib.artifacts import spikes, spikes_figures
from paperlib.artifacts.drawing import picture
from paperlib.artifacts.reading import IMAGES, Part

ONE = "{data}, the first test image, one network of each training"
ENERGY = IMAGES + ", {mac_pj:g} pJ a multiply-add and {ac_pj:g} pJ an accumulation"

headline, table, box = spikes.headline, spikes.table, spikes.box
caption = f"Above: {ONE}. Below: means of {{samples}} test images, {{seeds}}"
figure = partial(spikes_figures.rasters, picture=picture)
PARTS = {
    "membranes": Part(spikes.membranes_headline, ONE, spikes_figures.membranes),
    "rates": Part(spikes.rates_headline, ENERGY, spikes_figures.rates, spikes.rates_table),
}
