"""Event sets, with the interface of image sets: a sample is T frames of event counts, (T, 2, H, W), OFF before ON.

Counts are never scaled: ε and the h of SR are in counts, and gradients are taken with respect to the frames.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from paperlib import errors, files, paths
from paperlib.data import images, real, recordings, sets, simulation
from paperlib.data.real import KINDS
from paperlib.data.sets import PARTS, ImageSet, Split
from paperlib.data.simulation import Camera

SACCADES = "saccades:"  # before the name of an image set


@dataclass(frozen=True, eq=False)
class EventSet(ImageSet):
    """A set whose samples are frames (T, 2, H, W) of counts; its `bounds` are in counts too."""

    vary: Callable[[Tensor, torch.Generator], Tensor] | None = None  # the recipe's augmentation

    T = property(lambda self: self.train.images.shape[1])

    def augmented(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return self.vary(images, generator) if self.vary else images


def is_known(name: object) -> bool:
    """Whether `name` is that of an event set."""
    return isinstance(name, str) and (name.startswith(SACCADES) or name in KINDS)


def load(
    name: str, *, T: int, train: int | None = None, validation: int | None = None, test: int | None = None, **camera
) -> EventSet:
    """The event set `name`, with T frames a recording: saccades:NAME of an image set, nmnist, dvs-gesture, cifar10-dvs.

    Caps, sharing and refusals are those of `images.load`.  `camera` are fields of `simulation.Camera`, which only
    simulated recordings take.  Frames are made once and kept under data/events/.
    """
    errors.count("T", T)
    if not is_known(name):
        errors.one_of("event set", name, [f"{SACCADES}NAME", *KINDS])
    caps = train, validation, test
    sets.refuse_caps(name, *caps)
    if name in KINDS:
        if camera:
            raise errors.Refused(f"{name} was recorded by a real camera; it takes no {', '.join(camera)}.")
        return _real(name, T, caps)
    base = images.load(name.removeprefix(SACCADES), **dict(zip(PARTS, caps, strict=True)))
    errors.takes("The camera", Camera, camera)
    return _simulated(name, base, Camera(**camera), T)


def shown(data: dict, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """The first test sample of `load(**data)`, for a figure: a picture (H, W) in [0, 1] and frames (frames, 2, H, W).

    The picture is the image that was recorded; for a real recording it shows where its events are.
    """
    one = dict.fromkeys(PARTS, 1)
    counts = load(**data | {"T": frames} | one).test.images[0].numpy()
    if data["name"] in KINDS:
        return counts.sum((0, 1)) / counts.sum((0, 1)).max(), counts
    base = images.load(data["name"].removeprefix(SACCADES), **one)
    return base.test.pixels()[0].mean(0).numpy(), counts


@lru_cache(maxsize=4)
def _real(name: str, T: int, caps: tuple[int | None, ...]) -> EventSet:
    source = real.source(name, T)
    splits, sha256 = sets.read(name, source, caps, one=1)
    return _set(name, source.title, splits, source.classes, sha256, real.VARIED.get(name))


@lru_cache(maxsize=4)
def _simulated(name: str, base: ImageSet, camera: Camera, T: int) -> EventSet:
    """Recordings of every image of `base`."""
    code = recordings.code(simulation, recordings)
    key = files.hashed({"T": T, "images": base.sha256, "camera": repr(camera), "code": code})
    path = paths.DATA / "events" / f"{'-'.join(re.findall('[0-9A-Za-z]+', name))},T={T},{key}.npz"
    with files.locked(path.with_suffix(".lease")):  # two processes may load the set at once
        recorded = recordings.arrays(path, lambda: _recorded(base, camera, T))
    splits, digest = {}, hashlib.sha256()
    for part, frames in recorded.items():
        split: Split = getattr(base, part)
        splits[part] = Split(torch.from_numpy(frames), split.labels, split.index, one=1)
        digest.update(frames)
        digest.update(split.labels.numpy())
    return _set(name, f"{base.title} by saccades", splits, base.classes, digest.hexdigest())


def _recorded(base: ImageSet, camera: Camera, T: int) -> dict[str, np.ndarray]:
    """Frames (N, T, 2, H, W) of each part of `base`."""
    parts = {}
    for part in PARTS:
        split: Split = getattr(base, part)
        pictures = split.pixels().mean(1).numpy()  # the camera sees the brightness of colours
        height, width = (side + simulation.MARGIN for side in pictures.shape[1:])
        sensor, frames = (width, height, 2), []
        for number, events in zip(split.index.tolist(), camera.record(pictures, split.index.numpy()), strict=True):
            recordings.check(events, sensor=sensor, source=f"The recording of image {number} of {base.name}")
            frames.append(recordings.frames(events, sensor=sensor, T=T, by="time"))
        parts[part] = np.stack(frames)
    return parts


def _set(name: str, title: str, splits: dict[str, Split], classes: tuple[str, ...], sha256: str, vary=None) -> EventSet:
    bounds = 0.0, max(float(split.images.max()) for split in splits.values())
    constants = {"mean": (0.0, 0.0), "std": (1.0, 1.0), "crops_and_flips": False}  # they leave counts as they are
    return EventSet(name, title, **splits, **constants, classes=classes, sha256=sha256, bounds=bounds, vary=vary)
