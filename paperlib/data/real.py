"""Real event sets.  tonic reads the recordings; their frames are made once and kept.

Recordings are looked for in data/, or in the folder that the environment variable COMPANION_EVENTS names; it holds
NMNIST/, DVSGesture/ or CIFAR10DVS/ in tonic's layout, complete or in part.  Without any, tonic downloads the set.
"""

import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from paperlib import errors, files, paths
from paperlib.data import recordings
from paperlib.data.sets import Source

FOLDER = "COMPANION_EVENTS"  # the environment variable
EVENT_BYTES = 5  # of one event in a file of N-MNIST
SHIFT, ANGLE, CUT = 5, 30.0, 16  # pixels, degrees and pixels, in the recipe for CIFAR10-DVS
OWN_TEST = ({"train": True}, {"train": False})  # arguments by which tonic's class gives each part


class Kind(NamedTuple):
    """What is known of a set before it is read, and how frames are made of its recordings."""

    train: int  # recordings to train on
    classes: int
    reader: str  # tonic's class
    title: str  # for tables and figures
    by: str  # argument of `recordings.frames`
    resize: Callable[[np.ndarray], np.ndarray]  # frames (T, 2, H, W) → (T, 2, size, size)
    size: int  # pixels of a frame, on each side
    parts: tuple[dict, ...] = OWN_TEST  # one entry where the set has no test recordings of its own
    held_out: int = 5  # see `sets.Source`


def summed(frames: np.ndarray) -> np.ndarray:
    """(T, 2, H, W) → (T, 2, H/4, W/4): the sum of each 4×4 pixels, so counts stay whole."""
    t, c, h, w = frames.shape
    return frames.reshape(t, c, h // 4, 4, w // 4, 4).sum((3, 5))


def interpolated(frames: np.ndarray) -> np.ndarray:
    """(T, 2, H, W) → (T, 2, 48, 48) float32: bilinear, without antialiasing, so counts become fractions.

    The released code does the same (section 5 of the paper notes).
    """
    return F.interpolate(torch.from_numpy(frames).float(), (48, 48), mode="bilinear", antialias=False).numpy()


KINDS = {
    "nmnist": Kind(55_000, 10, "NMNIST", "N-MNIST", "time", lambda frames: frames, 34),
    "dvs-gesture": Kind(970, 11, "DVSGesture", "DVS128 Gesture", "time", summed, 32),
    "cifar10-dvs": Kind(8_100, 10, "CIFAR10DVS", "CIFAR10-DVS", "number", interpolated, 48, parts=({},), held_out=10),
}


def source(name: str, T: int) -> Source:
    """The set `name`, one of `KINDS`, with T frames a recording.

    Refuses a set that is missing and cannot be downloaded, and files to which tonic gives no label.  Reading the source
    refuses recordings that are damaged, empty or out of order, and events outside the sensor, by file and place.
    """
    kind = KINDS[name]
    folder = errors.home(FOLDER, os.environ.get(FOLDER, str(paths.DATA)))
    parts = [_on_disk(kind, folder, options) for options in kind.parts]
    if not any(map(len, parts)):
        parts = [_downloaded(kind, folder, options) for options in kind.parts]
    parts = [part for part in parts if len(part)]
    # (part, row of the part), sorted by path, because file systems list files in different orders
    recorded = [(part, row) for part in parts for _, row in sorted(zip(part.data, range(len(part)), strict=True))]
    classes = tuple(map(str, parts[0].classes))
    for part, row in recorded:
        if not 0 <= part.targets[row] < len(classes):
            allowed = f"those of {kind.title} go from 0 to {len(classes) - 1}"
            raise errors.Refused(f"{paths.shown(Path(part.data[row]))} has the label {part.targets[row]}; {allowed}.")
    code = files.hashed([recordings.code(sys.modules[__name__], recordings), version("tonic")])[:8]
    cache = paths.DATA / "events" / f"{name},T={T},by={kind.by},size={kind.size},{code}"

    def read(rows: np.ndarray) -> np.ndarray:
        bar = tqdm(rows.tolist(), desc=f"reading {kind.title}", leave=False)
        stack = np.stack([_frames(kind, *recorded[row], T, cache) for row in bar])
        return recordings.packed(stack) if np.issubdtype(stack.dtype, np.integer) else stack

    labels = np.array([part.targets[row] for part, row in recorded], np.int64)
    return Source(kind.title, classes, labels, sum(map(len, parts[1:])), read, held_out=kind.held_out)


def augment(frames: Tensor, generator: torch.Generator) -> Tensor:
    """The recipe's augmentation of CIFAR10-DVS (section 5 of the paper notes): (B, T, C, H, W) → the same shape.

    All frames of a sample are mirrored with probability 1/2.  Then, with equal probability, they are shifted circularly
    along each axis, or rotated with zeros at the corners, or lose the events in a square.
    """
    from torchvision.transforms.functional import rotate  # a slow import, which no other set needs

    side = frames.shape[-1]

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    varied = []
    for x in frames:
        x = x.flip(-1) if draw(0, 1) else x
        change = draw(0, 2)
        if change == 0:
            x = x.roll((draw(-SHIFT, SHIFT), draw(-SHIFT, SHIFT)), (-2, -1))
        elif change == 1:
            x = rotate(x, ANGLE * (2 * torch.rand((), generator=generator).item() - 1))
        else:
            top, left = draw(0, side - CUT), draw(0, side - CUT)
            x = x.clone()
            x[..., top : top + CUT, left : left + CUT] = 0
        varied.append(x)
    return torch.stack(varied)


VARIED = {"cifar10-dvs": augment}  # the augmentation of a set, by its name


def _on_disk(kind: Kind, folder: Path, options: dict):
    """A part of the set as tonic's class lists it, without its check that all recordings are there."""
    base = _reader(kind)
    try:
        return type(base.__name__, (base,), {"_check_exists": lambda self: True})(str(folder), **options)
    except (ValueError, KeyError) as problem:  # tonic reads labels from names
        foreign = f"a folder or file that tonic's {kind.reader} finds no label for ({problem})"
        place = paths.shown(folder / kind.reader)
        raise errors.Refused(f"{place} holds {foreign}; only {kind.title} may lie there.") from problem


def _downloaded(kind: Kind, folder: Path, options: dict):
    try:
        return _reader(kind)(str(folder), **options)
    except Exception as problem:  # the failures of a network have no common type
        raise errors.Refused(
            f"{paths.shown(folder / kind.reader)} holds no recordings and they could not be downloaded "
            f"({type(problem).__name__}): unpack {kind.title} there, name its folder by {FOLDER}, or choose "
            "saccades:mnist5k, which needs no network."
        ) from problem


def _reader(kind: Kind) -> type:
    from tonic import datasets  # a slow import too

    return getattr(datasets, kind.reader)


def _frames(kind: Kind, part, row: int, T: int, cache: Path) -> np.ndarray:
    """The frames of one recording, kept under its name with a hash of its path, size and time of change."""
    file = Path(part.data[row])
    status = file.stat()
    key = files.hashed([str(file.resolve()), status.st_size, status.st_mtime_ns])[:8]
    path = cache / file.relative_to(part.location_on_system).with_name(f"{file.stem},{key}.npz")

    def make() -> dict[str, np.ndarray]:
        events = _events(part, row, file)
        recordings.check(events, sensor=part.sensor_size, source=paths.shown(file))
        return {"frames": kind.resize(recordings.frames(events, sensor=part.sensor_size, T=T, by=kind.by))}

    return recordings.arrays(path, make)["frames"]


def _events(part, row: int, file: Path) -> np.ndarray:
    """The events of one recording, as tonic reads them."""
    size = file.stat().st_size
    if file.suffix == ".bin" and (rest := size % EVENT_BYTES):
        held = f"{size} bytes are {size // EVENT_BYTES} events of {EVENT_BYTES} bytes and {rest} more"
        raise errors.Refused(f"{paths.shown(file)} is truncated: {held} from byte {size - rest} on.")
    try:
        return part[row][0]
    except ModuleNotFoundError as missing:
        needed = f"the package {missing.name} to be read: pip install {missing.name}"
        raise errors.Refused(f"{paths.shown(file)} needs {needed}") from None
    except Exception as problem:  # on damaged bytes readers raise many types
        raise errors.Refused(f"{paths.shown(file)} is damaged or foreign ({type(problem).__name__}).") from problem
