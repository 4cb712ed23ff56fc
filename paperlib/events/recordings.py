"""Recordings of event cameras: structured arrays as tonic has them, checked, and summed up into frames."""

import numpy as np

from paperlib import errors

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
