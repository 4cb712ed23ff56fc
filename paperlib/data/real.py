"""Real event sets, read by tonic from a folder of the user's or from its own download, and binned once.

    data/events/nmnist,T=10,by=time,size=34,HASH/Train/3/00012,HASH.npz        the frames of one recording

The folder is data/, or what the environment variable COMPANION_EVENTS names; it holds NMNIST/, DVSGesture/ or
CIFAR10DVS/ as tonic lays them out, whole or in part.  tonic checks the archives that it downloads; of other files the
checksum of the frames is all there is.
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

FOLDER = "COMPANION_EVENTS"
EVENT_BYTES = 5  # of N-MNIST
SHIFT, ANGLE, CUT = 5, 30.0, 16  # pixels, degrees and pixels of the recipe for CIFAR10-DVS
OWN_TEST = ({"train": True}, {"train": False})  # how tonic is asked for each part


class Kind(NamedTuple):
    """What one set is, known before anything is read, and what becomes of its recordings."""

    train: int  # recordings to train on
    classes: int
    reader: str  # tonic's class
    title: str
    by: str  # how `recordings.frames` slices them
    resize: Callable[[np.ndarray], np.ndarray]
    size: int  # pixels of a frame
    parts: tuple[dict, ...] = OWN_TEST
    held_out: int = 5  # where there is no test set: see `images.Source`


def summed(frames: np.ndarray) -> np.ndarray:
    """(T, 2, H, W) → (T, 2, H/4, W/4): counts of 4×4 pixels together, whole as before."""
    t, c, h, w = frames.shape
    return frames.reshape(t, c, h // 4, 4, w // 4, 4).sum((3, 5))


def interpolated(frames: np.ndarray) -> np.ndarray:
    """(T, 2, H, W) → (T, 2, 48, 48) float32: bilinear and without smoothing, so counts become fractional.

    The released code's way (section 5 of the paper notes).
    """
    small = F.interpolate(torch.from_numpy(frames).float(), (48, 48), mode="bilinear", antialias=False)
    return small.numpy()


KINDS = {
    "nmnist": Kind(55_000, 10, "NMNIST", "N-MNIST", "time", lambda frames: frames, 34),
    "dvs-gesture": Kind(970, 11, "DVSGesture", "DVS128 Gesture", "time", summed, 32),
    "cifar10-dvs": Kind(8_100, 10, "CIFAR10DVS", "CIFAR10-DVS", "number", interpolated, 48, parts=({},), held_out=10),
}


def source(name: str, T: int) -> Source:
    """The set `name` in T frames a recording.

    Raises `Refused` where it is not there and cannot be downloaded, or holds what tonic finds no label for, and when
    read for recordings that are damaged, empty, out of order, or have events outside the sensor, with the file and the
    place.
    """
    kind = KINDS[name]
    folder = Path(os.environ.get(FOLDER, paths.DATA)).expanduser()
    parts = [_found(kind, folder, how) for how in kind.parts]
    if not any(map(len, parts)):
        parts = [_downloaded(kind, folder, how) for how in kind.parts]
    parts = [part for part in parts if len(part)]
    found = []  # (part, row of it), each part in the order of its paths, which no file system changes
    for part in parts:
        found += [(part, row) for row in sorted(range(len(part)), key=lambda row, part=part: part.data[row])]
    classes = tuple(map(str, parts[0].classes))
    for part, row in found:
        if not 0 <= part.targets[row] < len(classes):
            raise errors.Refused(
                f"{paths.shown(Path(part.data[row]))} has the label {part.targets[row]}; "
                f"those of {kind.title} go from 0 to {len(classes) - 1}."
            )
    code = files.hashed([recordings.code(sys.modules[__name__], recordings), version("tonic")])[:8]
    cache = paths.DATA / "events" / f"{name},T={T},by={kind.by},size={kind.size},{code}"

    def read(rows: np.ndarray) -> np.ndarray:
        bar = tqdm(rows.tolist(), desc=f"reading {kind.title}", leave=False)
        stack = np.stack([_frames(kind, *found[row], T, cache) for row in bar])
        return recordings.packed(stack) if np.issubdtype(stack.dtype, np.integer) else stack

    return Source(
        kind.title,
        classes,
        np.array([part.targets[row] for part, row in found], np.int64),
        tested=len(parts[1]) if len(parts) > 1 else 0,
        read=read,
        held_out=kind.held_out,
    )


def augment(frames: Tensor, generator: torch.Generator) -> Tensor:
    """The recipe's augmentation of CIFAR10-DVS (section 5 of the paper notes): (B, T, C, H, W) → the same shape.

    A mirror image with probability 1/2, then one of three, each as likely: a circular shift by -5..5 pixels on either
    axis, a turn by up to 30° that leaves zeros, or a square of 16×16 set to 0.  All frames of a sample alike.
    """
    from torchvision.transforms.functional import rotate  # two seconds that all other data do without

    side = frames.shape[-1]

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    varied = []
    for x in frames:
        x = x.flip(-1) if draw(0, 1) else x
        way = draw(0, 2)
        if way == 0:
            x = x.roll((draw(-SHIFT, SHIFT), draw(-SHIFT, SHIFT)), (-2, -1))
        elif way == 1:
            x = rotate(x, ANGLE * (2 * torch.rand((), generator=generator).item() - 1))
        else:
            top, left = draw(0, side - CUT), draw(0, side - CUT)
            x = x.clone()
            x[..., top : top + CUT, left : left + CUT] = 0
        varied.append(x)
    return torch.stack(varied)


VARIED = {"cifar10-dvs": augment}


def _found(kind: Kind, folder: Path, how: dict):
    """A part of the set as tonic's class lists it, which takes what is there for the whole set."""
    base = _of_tonic(kind)
    try:
        return type(base.__name__, (base,), {"_check_exists": lambda self: True})(str(folder), **how)
    except (ValueError, KeyError) as problem:  # tonic reads labels from names
        raise errors.Refused(
            f"{paths.shown(folder / kind.reader)} holds a folder or file that tonic's {kind.reader} finds no label for "
            f"({problem}); only {kind.title} may lie there."
        ) from problem


def _downloaded(kind: Kind, folder: Path, how: dict):
    try:
        return _of_tonic(kind)(str(folder), **how)
    except Exception as problem:  # whatever stands between here and the server
        raise errors.Refused(
            f"{paths.shown(folder / kind.reader)} holds no recordings and they could not be downloaded "
            f"({type(problem).__name__}): unpack {kind.title} there, name its folder by {FOLDER}, or choose "
            "saccades:mnist5k, which needs no network."
        ) from problem


def _of_tonic(kind: Kind) -> type:
    from tonic import datasets  # a fifth of a second likewise

    return getattr(datasets, kind.reader)


def _frames(kind: Kind, part, row: int, T: int, cache: Path) -> np.ndarray:
    """The frames of one recording, kept under its own name with a hash of the file's place, size and time.

    tonic's own cache names files by their place in the set and would take half a file for a whole one.
    """
    file = Path(part.data[row])
    state = file.stat()
    place = files.hashed([str(file.resolve()), state.st_size, state.st_mtime_ns])[:8]
    path = cache / file.relative_to(part.location_on_system).with_name(f"{file.stem},{place}.npz")

    def make() -> dict[str, np.ndarray]:
        events = _events(part, row, file)
        recordings.check(events, sensor=part.sensor_size, source=paths.shown(file))
        return {"frames": kind.resize(recordings.frames(events, sensor=part.sensor_size, T=T, by=kind.by))}

    return recordings.arrays(path, make)["frames"]


def _events(part, row: int, file: Path) -> np.ndarray:
    if file.suffix == ".bin" and (size := file.stat().st_size) % EVENT_BYTES:
        whole = size // EVENT_BYTES
        raise errors.Refused(
            f"{paths.shown(file)} is truncated: {size} bytes are {whole} events of {EVENT_BYTES} bytes and "
            f"{size - EVENT_BYTES * whole} more from byte {EVENT_BYTES * whole} on."
        )
    try:
        return part[row][0]
    except ModuleNotFoundError as missing:
        raise errors.Refused(
            f"{paths.shown(file)} needs the package {missing.name} to be read: pip install {missing.name}"
        ) from None
    except Exception as problem:  # readers raise anything on damaged bytes
        raise errors.Refused(f"{paths.shown(file)} is damaged or foreign ({type(problem).__name__}).") from problem
