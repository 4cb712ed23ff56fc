"""What several tests share: one thread, a data set of 8×8 stripes, and a small network trained on it."""

import paperlib  # noqa: F401  before numpy and torch, for it settles the arithmetic

# isort: split
import copy
import errno
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from house import FOLDERS, House, sixty
from hypothesis import settings

from paperlib import networks, paths, profiles, training
from paperlib.data import sets
from paperlib.data.sets import ImageSet, Split
from paperlib.training import defenses

# A test draws the same examples in every run, so what passes once passes again.  `pytest --hypothesis-profile=search`
# draws new ones, more of them where a test does not set their number, and keeps those that fail in .hypothesis/.
settings.register_profile("fixed", derandomize=True, database=None)
settings.register_profile("search", max_examples=1000, deadline=None)
settings.load_profile("fixed")


def stripes(count: int, first: int) -> Split:
    """`count` samples of three classes: under noise, a brighter row whose height tells the class."""
    rng = np.random.RandomState(first)
    labels = np.arange(count) % 3
    pixels = rng.randint(0, 120, (count, 1, 8, 8))
    pixels[np.arange(count), 0, 1 + 2 * labels] += 60
    pixels[rng.random(pixels.shape) < 0.1] = 0  # at the lower bound, where noise is clamped
    return Split(
        torch.from_numpy(pixels.astype(np.uint8)), torch.from_numpy(labels), torch.arange(first, first + count)
    )


@pytest.fixture(scope="session")
def tiny() -> ImageSet:
    parts = {"train": stripes(100, 0), "validation": stripes(20, 100), "test": stripes(120, 120)}
    return ImageSet(
        "tiny",
        "stripes",
        **parts,
        classes=("low", "middle", "high"),
        mean=(0.25,),
        std=(0.15,),
        crops_and_flips=False,
        sha256="0" * 64,
    )


@pytest.fixture(scope="session")
def fresh(tiny):
    """A function of a seed: an untrained network for `tiny`."""

    def build(seed: int = 0) -> networks.Network:
        torch.manual_seed(seed)
        size = {"in_channels": 1, "image_size": 8, "num_classes": 3}
        return networks.build("conv-2-4", **size, T=4, mean=tiny.mean, std=tiny.std)

    return build


@pytest.fixture(scope="session")
def _trained(tiny, fresh) -> networks.Network:
    network = fresh()
    schedule = training.Schedule(epochs=12, batch_size=10, lr=0.1, momentum=0.9, weight_decay=5e-4)
    list(training.epochs(network, defenses.Vanilla(), tiny, schedule, seed=0, progress=False))
    return network.eval()


@pytest.fixture
def network(_trained) -> networks.Network:
    """Trained on `tiny` until it is mostly right, in eval mode; each test has a copy of its own."""
    return copy.deepcopy(_trained)


def scatter(norm: torch.nn.BatchNorm2d) -> None:
    """Take a BatchNorm away from where it starts, where much that is wrong would not show."""
    torch.nn.init.uniform_(norm.weight, 0.7, 1.5)
    torch.nn.init.uniform_(norm.bias, 0.1, 0.9)
    torch.nn.init.uniform_(norm.running_mean, -0.2, 0.2)
    torch.nn.init.uniform_(norm.running_var, 0.5, 2)


@pytest.fixture
def full_disk(monkeypatch):
    """A function of a file's name: a context in which no space is left for that file."""

    @contextmanager
    def full(name: str):
        def replace(source, target):
            if Path(target).name == name:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(source, target)

        real = os.replace
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            yield

    return full


@pytest.fixture
def house(tmp_path, monkeypatch):
    """Folders, notebooks and a profile of its own (see `house.House`)."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    for name in FOLDERS:
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    for folder in (paths.NOTEBOOKS, paths.PARAMS):
        folder.mkdir()
    monkeypatch.setitem(sets.SOURCES, "sixty", sixty)
    profiles.load.cache_clear()
    yield House(tmp_path)
    profiles.load.cache_clear()
