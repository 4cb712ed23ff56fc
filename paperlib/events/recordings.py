"""Recordings of event cameras: structured arrays as tonic has them, checked, and summed up into frames."""

import numpy as np

from paperlib import errors

DTYPE = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)])  # t in microseconds
SLICES = ("time", "number")


def check(events: np.ndarray, *, sensor: tuple[int, int, int], source: str) -> None:
    """Refuse a recording without events, with one outside `sensor` (width, height, polarities), or not in order of time.

    The sentence names `source` and the first event that is wrong, counted from 0.
    """
    if not len(events):
        raise errors.Refused(f"{source} holds no events.")
    for name, size in zip(("x", "y", "p"), sensor, strict=True):
        values = events[name].astype(np.int64)
        _refuse_first(
            (values < 0) | (values >= size), source, lambda i, v=values, n=name, s=size: f"{n} = {v[i]}; it must lie from 0 to {s - 1}"
        )
    t = events["t"].astype(np.int64)
    _refuse_first(t < 0, source, lambda i: f"t = {t[i]}; no time may be negative")
    back = np.concatenate([[False], np.diff(t) < 0])
    _refuse_first(back, source, lambda i: f"t = {t[i]} after {t[i - 1]}; events must be in order of time")


def frames(events: np.ndarray, *, sensor: tuple[int, int, int], T: int, by: str) -> np.ndarray:
    """Counts of events (T, polarities, H, W) in `T` stretches of equal time or of equal number ("time", "number").

    Time runs from the first event to the last; of numbers the last stretch has what is left over.  Every event counts
    once: tonic's own slicing drops the last ones.
    """
    errors.one_of("way to slice a recording", by, SLICES)
    if by == "time":
        t = events["t"].astype(np.int64) - int(events["t"][0])
        stretch = t * T // (t[-1] + 1)
    else:
        stretch = np.arange(len(events)) // max(len(events) // T, 1)
    width, height, polarities = sensor
    counts = np.zeros((T, polarities, height, width), np.int32)
    where = np.minimum(stretch, T - 1), events["p"].astype(np.int64), events["y"], events["x"]
    np.add.at(counts, where, 1)
    return counts


def _refuse_first(wrong: np.ndarray, source: str, told) -> None:
    if wrong.any():
        place = int(wrong.argmax())
        raise errors.Refused(f"{source}: event {place} has {told(place)}.")
