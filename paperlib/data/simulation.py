"""Recordings simulated from images as N-MNIST was made (Orchard et al., Frontiers in Neuroscience 2015).

A camera moves along the sides of a triangle, one saccade each.  A pixel emits an ON or OFF event whenever the logarithm
of its intensity, taken as linear between two points of the path, has risen or fallen by a threshold.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from paperlib import errors
from paperlib.data.recordings import DTYPE

CORNERS = np.array([[0.0, 0.0], [7.0, 3.5], [0.0, 7.0]])  # of the triangle: pixels down and right
MARGIN = 6  # the sensor has so many pixels more on each axis than the picture (N-MNIST: 34 for 28)
SACCADE = 100_000  # microseconds for one side of the triangle
POINTS = 20  # points of a side at which the intensity is computed
DARK = 0.1  # intensity of black, so that its logarithm is finite; white has 1 + DARK
AT_ONCE = 100  # pictures that are simulated together


@dataclass(frozen=True)
class Camera:
    """The properties of the simulated sensor; times are in microseconds."""

    threshold: float = 0.6  # change of log intensity; at 0.6 there are about as many events as in N-MNIST
    refractory: int = 2_000  # after an event a pixel loses all events for so long
    jitter: float = 500.0  # standard deviation of each time stamp
    noise: float = 1.0  # random events a pixel and second
    seed: int = 0  # of jitter and noise

    def __post_init__(self):
        errors.number("threshold", self.threshold, above=0)
        errors.count("refractory", self.refractory, at_least=0)
        errors.number("jitter", self.jitter, at_least=0)
        errors.number("noise", self.noise, at_least=0)
        errors.count("seed", self.seed, at_least=0)

    def record(self, pictures: np.ndarray, index: np.ndarray) -> Iterator[np.ndarray]:
        """A recording of each of `pictures`, (N, H, W) in [0, 1]: events of `DTYPE` in order of time.

        The sensor is `MARGIN` pixels wider and higher than the picture.  Jitter and noise depend on `seed` and the
        sample's number in `index`, (N,), alone.
        """
        for start in range(0, len(pictures), AT_ONCE):
            exact = self._exact(pictures[start : start + AT_ONCE])
            for number, events in zip(index[start : start + AT_ONCE], exact, strict=True):
                yield self._disturbed(events, np.random.default_rng((self.seed, int(number))), pictures.shape[1:])

    def _exact(self, pictures: np.ndarray) -> list[np.ndarray]:
        """The recording of each picture without jitter and noise, in order of time."""
        times, places = path()
        start = before = np.log(moved(pictures, *places[0]) + DARK)  # (N, H', W')
        level = np.zeros(start.shape, int)  # of each pixel's last event, in thresholds above `start`
        last = np.full(before.shape, -np.inf)  # time of that event
        events = [(np.zeros(0, int),) * 5]  # a blank picture has no events
        for (t0, t1), place in zip(zip(times[:-1], times[1:], strict=True), places[1:], strict=True):
            now = np.log(moved(pictures, *place) + DARK)
            crossed = np.trunc((now - start) / self.threshold - level).astype(int)  # thresholds, with their sign
            for k in range(1, 1 + np.abs(crossed).max(initial=0)):
                n, y, x = np.nonzero(np.abs(crossed) >= k)
                sign = np.sign(crossed[n, y, x])
                height = start[n, y, x] + (level[n, y, x] + sign * k) * self.threshold
                share = (height - before[n, y, x]) / (now - before)[n, y, x]  # of the way from one point to the next
                t = t0 + share.clip(0, 1) * (t1 - t0)
                emitted = t - last[n, y, x] >= self.refractory
                n, y, x, t, sign = (column[emitted] for column in (n, y, x, t, sign))
                last[n, y, x] = t
                events.append((n, x, y, t, sign > 0))
            level += crossed
            before = now
        n, x, y, t, p = (np.concatenate(column) for column in zip(*events, strict=True))
        order, recorded = np.lexsort((t, n)), np.zeros(len(n), DTYPE)
        for name, column in zip(DTYPE.names, (x, y, np.rint(t), p), strict=True):
            recorded[name] = column[order]
        return np.split(recorded, np.searchsorted(n[order], range(1, len(pictures))))

    def _disturbed(self, events: np.ndarray, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """`events` with jitter in their times and noise added; all times stay within the recording's length."""
        height, width = (side + MARGIN for side in shape)
        length = len(CORNERS) * SACCADE
        t = events["t"] + np.rint(self.jitter * rng.standard_normal(len(events))).astype(np.int64)
        noise = np.zeros(rng.poisson(self.noise * height * width * length / 1e6), DTYPE)
        noise["x"], noise["y"] = rng.integers(width, size=len(noise)), rng.integers(height, size=len(noise))
        noise["t"], noise["p"] = rng.integers(length, size=len(noise)), rng.integers(2, size=len(noise))
        events = np.concatenate([events, noise])
        events["t"][: len(t)] = t.clip(0, length - 1)
        return events[np.argsort(events["t"], kind="stable")]


def path() -> tuple[np.ndarray, np.ndarray]:
    """Times in microseconds, (P,), and the picture's place at these times, in pixels down and right, (P, 2)."""
    sides = [np.linspace(a, b, POINTS, endpoint=False) for a, b in zip(CORNERS, np.roll(CORNERS, -1, 0), strict=True)]
    places = np.concatenate([*sides, CORNERS[:1]])
    return np.linspace(0, len(CORNERS) * SACCADE, len(places)), places


def moved(pictures: np.ndarray, down: float, right: float) -> np.ndarray:
    """`pictures` (N, H, W), moved by so many pixels, on a black sensor: (N, H + MARGIN, W + MARGIN).

    Fractions of a pixel are interpolated bilinearly.  Pixels beyond the sensor's edge are lost.
    """
    for axis, shift in ((1, down), (2, right)):
        whole, rest = divmod(shift, 1)
        padding = [(0, 0)] * 3
        padding[axis] = (int(whole), MARGIN + 1 - int(whole))
        padded, length = np.pad(pictures, padding), pictures.shape[axis] + MARGIN
        pictures = ((1 - rest) * padded + rest * np.roll(padded, 1, axis)).take(range(length), axis)
    return pictures
