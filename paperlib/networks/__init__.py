"""Spiking networks and their twins without spikes: built by name, with backward rules that can be exchanged."""

from paperlib.networks.architectures import (
    ANN,
    EVENTS,
    POISSON,
    VGG11,
    WRN16,
    TimeFolded,
    WideBlock,
    architecture,
    refuse_time,
)
from paperlib.networks.network import PRECISIONS, Network, build
