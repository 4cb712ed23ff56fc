"""Event sets behind the interface of image sets: a sample is T frames of event counts, (T, 2, H, W), OFF before ON.

"saccades:mnist5k" records any image set by a simulated camera and needs no download; N-MNIST, DVS128 Gesture and
CIFAR10-DVS come through tonic.  Counts are never scaled: bounds are from 0 to the largest count of any cell, ε and SR's
h are in counts, and the gradient is taken in the frames.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from paperlib import errors, files, paths
from paperlib.data import images, real, recordings, sets, simulation
from paperlib.data.real import KINDS
from paperlib.data.sets import ImageSet, Split

SACCADES = "saccades:"  # before an image set's name
PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class EventSet(ImageSet):
    """An image set whose samples are frames (T, 2, H, W) of counts, in which `bounds` are."""

    vary: Callable[[Tensor, torch.Generator], Tensor] | None = None  # the recipe's augmentation

    T = property(lambda self: self.train.images.shape[1])

    def augmented(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return self.vary(images, generator) if self.vary else images


def is_known(name: object) -> bool:
    """Whether `load` has an event set of that name."""
    return isinstance(name, str) and (name.startswith(SACCADES) or name in KINDS)


def load(
    name: str,
    *,
    T: int,
    train: int | None = None,
    validation: int | None = None,
    test: int | None = None,
    **camera: float,
) -> EventSet:
    """The event set `name` in T frames a recording: saccades:NAME of an image set, nmnist, dvs-gesture or cifar10-dvs.

    Caps are those of `images.load`.  `camera` are fields of `simulation.Camera`, for simulated recordings alone.
    Frames are binned once and kept under data/events/.  The result is shared between calls and read-only.  Raises
    `Refused` for unknown names, missing or damaged files, and caps above what is there.
    """
    errors.count("T", T)
    if not is_known(name):
        errors.one_of("event set", name, [f"{SACCADES}NAME", *KINDS])
    return _load(name, T, (train, validation, test), tuple(sorted(camera.items())))


def shown(data: dict, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """The first test sample of the set that `load(**data)` gives: picture (H, W) and so many frames, (frames, 2, H, W).

    The picture is what was recorded, in [0, 1]; of a real recording it is where its events lie.
    """
    one = dict.fromkeys(PARTS, 1)
    counts = load(**data | {"T": frames} | one).test.images[0].numpy()
    if not data["name"].startswith(SACCADES):
        return counts.sum((0, 1)) / counts.sum((0, 1)).max(), counts
    base = images.load(data["name"].removeprefix(SACCADES), **one)
    return base.test.pixels()[0].mean(0).numpy(), counts


@lru_cache(maxsize=4)
def _load(name: str, T: int, caps: tuple, camera: tuple) -> EventSet:
    if name.startswith(SACCADES):
        return _simulated(name, T, caps, dict(camera))
    if camera:
        raise errors.Refused(f"{name} was recorded by a real camera; it takes no {', '.join(dict(camera))}.")
    found = real.source(name, T)
    splits, sha256 = sets.read(name, found, caps, one=1)
    return _set(name, found.title, splits, found.classes, sha256, real.VARIED.get(name))


def _simulated(name: str, T: int, caps: tuple, camera: dict) -> EventSet:
    base = images.load(name.removeprefix(SACCADES), **dict(zip(PARTS, caps, strict=True)))
    errors.takes("The camera", simulation.Camera, camera)
    look = simulation.Camera(**camera)
    code = recordings.code(simulation, recordings)
    what = files.hashed({"T": T, "images": base.sha256, "camera": repr(look), "code": code})
    path = paths.DATA / "events" / f"{'-'.join(re.findall('[0-9A-Za-z]+', name))},T={T},{what}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # two processes may ask at once
        recorded = recordings.arrays(path, lambda: _recorded(base, look, T))
    splits, digest = {}, hashlib.sha256()
    for part, frames in recorded.items():
        own: Split = getattr(base, part)
        splits[part] = Split(torch.from_numpy(frames), own.labels, own.index, one=1)
        digest.update(frames)
        digest.update(own.labels.numpy())
    return _set(name, f"{base.title} by saccades", splits, base.classes, digest.hexdigest())


def _recorded(base: ImageSet, look: simulation.Camera, T: int) -> dict[str, np.ndarray]:
    """Frames (N, T, 2, H, W) of each part of `base`."""
    found = {}
    for part in PARTS:
        split: Split = getattr(base, part)
        pictures = split.pixels().mean(1).numpy()  # colour is seen as its brightness
        sensor = (*(side + simulation.MARGIN for side in pictures.shape[:0:-1]), 2)
        frames = []
        for number, recorded in zip(split.index.tolist(), look.record(pictures, split.index.numpy()), strict=True):
            recordings.check(recorded, sensor=sensor, source=f"The recording of image {number} of {base.name}")
            frames.append(recordings.frames(recorded, sensor=sensor, T=T, by="time"))
        found[part] = np.stack(frames)
    return found


def _set(name: str, title: str, splits: dict[str, Split], classes: tuple[str, ...], sha256: str, vary=None) -> EventSet:
    """Counts are taken as they are: neither shifted nor scaled."""
    most = max(float(split.images.max()) for split in splits.values())
    nothing = {"mean": (0.0, 0.0), "std": (1.0, 1.0), "crops_and_flips": False}
    return EventSet(name, title, **splits, **nothing, classes=classes, sha256=sha256, bounds=(0.0, most), vary=vary)
