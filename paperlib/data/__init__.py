"""Data sets by name: images, and event recordings, real or simulated."""

from paperlib.data.datasets import load
from paperlib.data.sets import ImageSet, Source, Split, register
