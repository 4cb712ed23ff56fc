"""Recordings of event cameras: structured arrays as tonic has them, checked, and summed up into frames."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np

from paperlib import errors, files, paths

DTYPE = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)])  # t in microseconds
SLICES = ("time", "number")


def check(events: np.ndarray, *, sensor: tuple[int, int, int], source: str) -> None:
    """Refuse a recording that is empty, out of order, before time 0, or outside `sensor` (width, height, polarities).

    The sentence names `source` and the first event that is wrong, counted from 0.
    """
    if not len(events):
        raise errors.Refused(f"{source} holds no events; a recording must have one at least.")
    column = {name: events[name].astype(np.int64) for name in ("x", "y", "p", "t")}
    wrong = {
        (name, f"it must lie from 0 to {size - 1}"): (column[name] < 0) | (column[name] >= size)
        for name, size in zip(("x", "y", "p"), sensor, strict=True)
    }
    wrong["t", "no time may be negative"] = column["t"] < 0
    wrong["t", "it must not lie before the event ahead of it"] = np.diff(column["t"], prepend=column["t"][0]) < 0
    for (name, allowed), where in wrong.items():
        if where.any():
            place = int(where.argmax())
            raise errors.Refused(f"{source}: event {place} has {name} = {column[name][place]}; {allowed}.")


def frames(events: np.ndarray, *, sensor: tuple[int, int, int], T: int, by: str) -> np.ndarray:
    """Counts of events (T, polarities, H, W) in `T` stretches of equal time or of equal number ("time", "number").

    Time runs from the first event to the last; of numbers the last stretch has what is left over.  Every event counts
    once, while tonic's slices leave the last ones out.  Of the type that `packed` chooses.
    """
    errors.one_of("way to slice a recording", by, SLICES)
    if by == "time":
        t = events["t"].astype(np.int64) - int(events["t"][0])
        stretch = t * T // (t[-1] + 1)
    else:
        stretch = np.arange(len(events)) // max(len(events) // T, 1)
    width, height, polarities = sensor
    counts = np.zeros((T, polarities, height, width), np.int32)
    np.add.at(counts, (np.minimum(stretch, T - 1), events["p"].astype(np.int64), events["y"], events["x"]), 1)
    return packed(counts)


def packed(counts: np.ndarray) -> np.ndarray:
    """Whole numbers of at least 0 as uint8 where that holds them, else as int32: torch hardly computes in uint16."""
    return counts.astype(np.uint8 if counts.max() <= np.iinfo(np.uint8).max else np.int32)


def arrays(path: Path, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays in `path`, an .npz; what `make` gives is put there where it is missing.

    Refuses a damaged file by its name.  An array is read whole, or its checksum would not be compared.
    """
    if not path.exists():
        packed = io.BytesIO()
        np.savez_compressed(packed, **make())
        files.write_atomically(path, packed.getvalue())
    try:
        with zipfile.ZipFile(path) as archive:
            whole = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}
        return {name: np.load(io.BytesIO(array), allow_pickle=False) for name, array in whole.items()}
    except Exception as problem:  # readers raise anything on damaged bytes
        raise errors.Refused(
            f"{paths.shown(path)} is damaged ({type(problem).__name__}); delete it, and it is made again."
        ) from None


def code(*modules: ModuleType) -> str:
    """Names the modules' own lines, so that frames of older ones are not taken for theirs."""
    return files.sha256(b"".join(Path(module.__file__).read_bytes() for module in modules))
