"""Recordings simulated from images, the way N-MNIST was made: a camera looks at a still picture and moves.

Its sight travels along the three sides of a triangle, a saccade each, and ends where it began (Orchard et al.,
Frontiers in Neuroscience 2015).  A pixel emits an ON or OFF event whenever the logarithm of its intensity has risen or
fallen by a threshold since its last one; between `POINTS` of the path that logarithm is taken for linear in time.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from paperlib import errors
from paperlib.data.recordings import DTYPE

CORNERS = np.array([[0.0, 0.0], [7.0, 3.5], [0.0, 7.0]])  # how far down and right the picture lies, in pixels
MARGIN = 6  # pixels that the sensor has more than the picture, as 34 are to 28 in N-MNIST
SACCADE = 100_000  # microseconds that one side takes
POINTS = 20  # of a side at which the intensity is looked at
DARK = 0.1  # intensity of black, whose logarithm would be infinite; white has 1 + DARK
AT_ONCE = 100  # pictures that are simulated together


@dataclass(frozen=True)
class Camera:
    """What decides when a pixel emits an event; times in microseconds."""

    threshold: float = 0.6  # change of log intensity: about as many events as recordings of N-MNIST have
    refractory: int = 2_000  # after an event a pixel is silent for so long; what it would have said is lost
    jitter: float = 500.0  # standard deviation of each timestamp
    noise: float = 1.0  # events a pixel and second that nothing in the picture explains
    seed: int = 0

    def __post_init__(self):
        errors.number("threshold", self.threshold, above=0)
        errors.count("refractory", self.refractory, at_least=0)
        errors.number("jitter", self.jitter, at_least=0)
        errors.number("noise", self.noise, at_least=0)
        errors.count("seed", self.seed, at_least=0)

    def record(self, pictures: np.ndarray, index: np.ndarray) -> Iterator[np.ndarray]:
        """One recording of each of `pictures`, (N, H, W) in [0, 1]: a structured array of `recordings.DTYPE`.

        In order of time, on a sensor `MARGIN` pixels wider and higher.  Jitter and noise are drawn from `seed` and the
        sample's number `index`, (N,), alone.
        """
        for start in range(0, len(pictures), AT_ONCE):
            seen = self._seen(pictures[start : start + AT_ONCE])
            for number, events in zip(index[start : start + AT_ONCE], seen, strict=True):
                yield self._disturbed(events, np.random.default_rng((self.seed, int(number))), pictures.shape[1:])

    def _seen(self, pictures: np.ndarray) -> list[np.ndarray]:
        """What an undisturbed sensor says of each picture, in order of time."""
        times, places = path()
        start = before = np.log(moved(pictures, *places[0]) + DARK)  # (N, H', W')
        risen = np.zeros(start.shape, int)  # thresholds by which each pixel's last event lies above its start
        last = np.full(before.shape, -np.inf)  # and when that was
        found = [(np.zeros(0, int),) * 5]  # a blank picture says nothing
        for (t0, t1), place in zip(zip(times[:-1], times[1:], strict=True), places[1:], strict=True):
            now = np.log(moved(pictures, *place) + DARK)
            crossed = np.trunc((now - start) / self.threshold - risen).astype(int)  # thresholds, signed
            for k in range(1, 1 + np.abs(crossed).max(initial=0)):
                n, y, x = np.nonzero(np.abs(crossed) >= k)
                sign = np.sign(crossed[n, y, x])
                level = start[n, y, x] + (risen[n, y, x] + sign * k) * self.threshold
                share = (level - before[n, y, x]) / (now - before)[n, y, x]  # of the way from one point to the next
                t = t0 + share.clip(0, 1) * (t1 - t0)
                heard = t - last[n, y, x] >= self.refractory
                n, y, x, t, sign = (each[heard] for each in (n, y, x, t, sign))
                last[n, y, x] = t
                found.append((n, x, y, t, sign > 0))
            risen += crossed
            before = now
        return _parted([np.concatenate(each) for each in zip(*found, strict=True)], len(pictures))

    def _disturbed(self, events: np.ndarray, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """`events` with jitter in their times and with noise among them, within the recording's length."""
        height, width = (side + MARGIN for side in shape)
        length = len(CORNERS) * SACCADE
        t = events["t"] + np.rint(self.jitter * rng.standard_normal(len(events))).astype(np.int64)
        stray = np.zeros(rng.poisson(self.noise * height * width * length / 1e6), DTYPE)
        stray["x"], stray["y"] = rng.integers(width, size=len(stray)), rng.integers(height, size=len(stray))
        stray["t"], stray["p"] = rng.integers(length, size=len(stray)), rng.integers(2, size=len(stray))
        events = np.concatenate([events, stray])
        events["t"][: len(t)] = t.clip(0, length - 1)
        return events[np.argsort(events["t"], kind="stable")]


def path() -> tuple[np.ndarray, np.ndarray]:
    """Times in microseconds (P,), and where the picture lies then, in pixels down and right, (P, 2)."""
    sides = [np.linspace(a, b, POINTS, endpoint=False) for a, b in zip(CORNERS, np.roll(CORNERS, -1, 0), strict=True)]
    places = np.concatenate([*sides, CORNERS[:1]])
    return np.linspace(0, len(CORNERS) * SACCADE, len(places)), places


def moved(pictures: np.ndarray, down: float, right: float) -> np.ndarray:
    """`pictures` (N, H, W) on the black sensor (N, H + MARGIN, W + MARGIN), moved so far; between pixels bilinear.

    What lies beyond the sensor's edge is lost, as the triangle is a pixel wider than the margin.
    """
    for axis, far in ((1, down), (2, right)):
        whole, rest = divmod(far, 1)
        room = [(0, 0)] * 3
        room[axis] = (int(whole), MARGIN + 1 - int(whole))
        near = np.pad(pictures, room)
        length = pictures.shape[axis] + MARGIN
        pictures = ((1 - rest) * near + rest * np.roll(near, 1, axis)).take(range(length), axis)
    return pictures


def _parted(columns: list[np.ndarray], pictures: int) -> list[np.ndarray]:
    """Columns picture, x, y, t, p of all events → a recording a picture, each in order of time."""
    n, x, y, t, p = columns
    order = np.lexsort((t, n))
    events = np.zeros(len(n), DTYPE)
    for name, column in zip(DTYPE.names, (x, y, np.rint(t), p), strict=True):
        events[name] = column[order]
    return np.split(events, np.searchsorted(n[order], range(1, pictures)))
