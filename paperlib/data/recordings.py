"""Recordings of event cameras: structured arrays as tonic gives them, checked, and counted in frames."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np

from paperlib import errors, files

DTYPE = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)])  # t in microseconds; p: ON
SLICES = ("time", "number")


def check(events: np.ndarray, *, sensor: tuple[int, int, int], source: str) -> None:
    """Refuse a recording that is empty or out of order, or has events outside the sensor or before time 0.

    `sensor` is (width, height, polarities).  The sentence names `source` and the first wrong event, counted from 0.
    """
    if not len(events):
        raise errors.Refused(f"{source} holds no events; a recording must have one at least.")
    columns = {name: events[name].astype(np.int64) for name in "xypt"}
    faults = [
        (name, f"it must lie from 0 to {size - 1}", (columns[name] < 0) | (columns[name] >= size))
        for name, size in zip("xyp", sensor, strict=True)
    ]
    t = columns["t"]
    faults.append(("t", "no time may be negative", t < 0))
    faults.append(("t", "it must not lie before the event ahead of it", np.diff(t, prepend=t[0]) < 0))
    for name, rule, wrong in faults:
        if wrong.any():
            number = int(wrong.argmax())
            raise errors.Refused(f"{source}: event {number} has {name} = {columns[name][number]}; {rule}.")


def frames(events: np.ndarray, *, sensor: tuple[int, int, int], T: int, by: str) -> np.ndarray:
    """Counts of events (T, polarities, H, W) in `T` frames, of the type that `packed` chooses.

    With `by` "time" each frame covers the same time, from the first event to the last; with "number" each has the same
    number of events, and the last frame those that are left over.  (tonic's own slices lose the last events.)
    """
    errors.one_of("way to slice a recording", by, SLICES)
    if by == "time":
        t = events["t"].astype(np.int64) - int(events["t"][0])
        frame = t * T // (t[-1] + 1)
    else:
        frame = np.arange(len(events)) // max(len(events) // T, 1)
    width, height, polarities = sensor
    counts = np.zeros((T, polarities, height, width), np.int32)
    np.add.at(counts, (np.minimum(frame, T - 1), events["p"].astype(np.int64), events["y"], events["x"]), 1)
    return packed(counts)


def packed(counts: np.ndarray) -> np.ndarray:
    """Counts as uint8 where all fit, else as int32.  (torch supports few operations on uint16.)"""
    return counts.astype(np.uint8 if counts.max() <= np.iinfo(np.uint8).max else np.int32)


def arrays(path: Path, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays in the file `path`, an .npz; a missing file is written first, from the arrays that `make` returns.

    A damaged file is kept as `*.damaged`, and made again.
    """
    if path.exists():
        try:
            return _read(path)
        except Exception as problem:  # on damaged bytes readers raise many types
            files.set_aside(path, f"is damaged ({type(problem).__name__})", "It is made again")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **make())
    files.write_atomically(path, buffer.getvalue())
    return _read(path)


def _read(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:  # it compares checksums only where an entry is read to its end
        entries = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}
    return {name: np.load(io.BytesIO(entry), allow_pickle=False) for name, entry in entries.items()}


def code(*modules: ModuleType) -> str:
    """A checksum of the modules' source code; as part of a file's name it keeps apart frames of older code."""
    return files.sha256(b"".join(Path(module.__file__).read_bytes() for module in modules))
