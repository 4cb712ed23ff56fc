"""The simulated camera against a pixel-by-pixel version, edges worked out by hand, and what holds of any picture."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from paperlib.data import recordings
from paperlib.data.simulation import DARK, MARGIN, SACCADE, Camera, moved, path
from paperlib.errors import Refused

PLAIN = {"refractory": 0, "jitter": 0.0, "noise": 0.0}  # a sensor without faults
SIZE = 12  # of the pictures here, in pixels


def recorded(pictures, **options) -> list[np.ndarray]:
    pictures = np.asarray(pictures, np.float32)
    return list(Camera(**PLAIN | options).record(pictures, np.arange(len(pictures))))


def square(brightness: float = 1.0) -> np.ndarray:
    """A bright square on black, (SIZE, SIZE)."""
    picture = np.zeros((SIZE, SIZE), np.float32)
    picture[4:8, 4:8] = brightness
    return picture


def net(events: np.ndarray) -> np.ndarray:
    """ON minus OFF of each pixel, (H, W)."""
    found = np.zeros((SIZE + MARGIN, SIZE + MARGIN), int)
    np.add.at(found, (events["y"], events["x"]), np.where(events["p"], 1, -1))
    return found


def slow(picture: np.ndarray, threshold: float, refractory: int) -> list[tuple]:
    """The definition, one pixel after another: (t, x, y, p)."""
    times, places = path()
    level = [np.log(moved(picture[None].astype(np.float32), *place)[0] + DARK) for place in places]
    found = []
    for y in range(SIZE + MARGIN):
        for x in range(SIZE + MARGIN):
            start, risen, last = level[0][y, x], 0, -math.inf
            for i in range(1, len(times)):
                a, b = level[i - 1][y, x], level[i][y, x]
                while abs((b - start) / threshold - risen) >= 1:
                    risen += 1 if b > a else -1
                    share = (start + risen * threshold - a) / (b - a)
                    t = times[i - 1] + min(max(share, 0), 1) * (times[i] - times[i - 1])
                    if t - last >= refractory:
                        last = t
                        found.append((round(t), x, y, b > a))
    return sorted(found)


@pytest.mark.parametrize(("threshold", "refractory"), [(0.6, 0), (0.25, 0), (0.25, 9_000)])
def test_every_event_is_the_one_of_the_definition_pixel_by_pixel(threshold, refractory):
    picture = np.random.RandomState(0).rand(SIZE, SIZE).astype(np.float32)
    (events,) = recorded([picture], threshold=threshold, refractory=refractory)
    mine = sorted(zip(*(events[name].tolist() for name in ("t", "x", "y", "p")), strict=True))
    theirs = slow(picture, threshold, refractory)
    assert len(mine) == len(theirs) > 300
    for one, other in zip(mine, theirs, strict=True):
        assert one[1:] == other[1:] and abs(one[0] - other[0]) <= 1  # times are rounded to microseconds


def test_a_bright_edge_that_arrives_is_on_and_one_that_leaves_is_off():
    (events,) = recorded([square()])
    early = events[events["t"] < SACCADE // 4]  # the picture has moved less than two pixels, mostly down
    inside = early[(early["x"] >= 5) & (early["x"] < 8)]  # columns that stay covered
    on, off = inside[inside["p"]], inside[~inside["p"]]
    assert set(on["y"]) == {8, 9} and set(off["y"]) == {4, 5}  # below the square it grows bright, at its top dark


def test_the_number_of_events_of_one_edge_is_its_contrast_over_the_threshold():
    (events,) = recorded([square()], threshold=0.5)
    rise = math.floor((math.log(1 + DARK) - math.log(DARK)) / 0.5)  # thresholds from black to white
    pixel = events[(events["x"] == 6) & (events["y"] == 9) & (events["t"] < SACCADE // 2)]
    assert len(pixel) == rise and pixel["p"].all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 1.0), st.floats(0.15, 1.0))
def test_the_path_returns_so_gains_and_losses_of_each_pixel_cancel(seed, threshold, share):
    picture = np.random.RandomState(seed).rand(SIZE, SIZE) * share
    (events,) = recorded([picture], threshold=threshold)
    assert np.abs(net(events)).max() <= 1  # what is left is less than a threshold
    recordings.check(events, sensor=(SIZE + MARGIN, SIZE + MARGIN, 2), source="simulated")


def test_the_mean_path_is_a_triangle_that_returns_to_its_start():
    times, places = path()
    assert (places[0] == places[-1]).all() and (times[0], times[-1]) == (0, 3 * SACCADE)
    assert (np.diff(times) > 0).all()
    corners = places[[0, 20, 40]]
    assert corners.tolist() == [[0, 0], [7, 3.5], [0, 7]]
    np.testing.assert_allclose(np.diff(places[20:41], axis=0).std(0), 0, atol=1e-12)  # each side at one speed


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_more_contrast_gives_more_events(seed):
    picture = np.random.RandomState(seed).rand(SIZE, SIZE)
    counts = [len(events) for events in recorded([picture * share for share in (0.05, 0.2, 1.0)])]
    assert counts[0] < counts[1] < counts[2]


def test_a_blank_picture_says_nothing_and_noise_says_what_its_rate_says():
    blank = np.zeros((30, SIZE, SIZE))
    assert all(len(events) == 0 for events in recorded(blank))
    pixels, seconds, rate = (SIZE + MARGIN) ** 2, 3 * SACCADE / 1e6, 20.0
    noisy = np.concatenate(recorded(blank, noise=rate))
    expected = 30 * pixels * seconds * rate
    assert abs(len(noisy) - expected) < 4 * math.sqrt(expected)  # Poisson
    assert abs(noisy["p"].mean() - 0.5) < 0.02
    assert noisy["x"].max() == noisy["y"].max() == SIZE + MARGIN - 1 and noisy["x"].min() == 0


def test_a_pixel_is_silent_after_an_event_for_its_refractory_time():
    picture = np.random.RandomState(1).rand(SIZE, SIZE)
    (free,), (silent,) = (recorded([picture], threshold=0.1, refractory=r) for r in (0, 5_000))
    assert len(silent) < len(free)

    def shortest(events):
        order = np.lexsort((events["t"], events["x"], events["y"]))
        t, x, y = (events[name][order] for name in ("t", "x", "y"))
        return np.diff(t)[(np.diff(x) == 0) & (np.diff(y) == 0)].min()

    assert shortest(silent) >= 5_000 - 1 > shortest(free)


def test_jitter_moves_times_by_its_standard_deviation_and_keeps_them_in_order():
    pictures, shifts = np.random.RandomState(2).rand(40, SIZE, SIZE), []
    how = {"threshold": 1.2}  # so high that many pixels say each of ON and OFF once, and the two can be paired
    for still, moving in zip(recorded(pictures, **how), recorded(pictures, jitter=300.0, **how), strict=True):
        assert (np.diff(moving["t"]) >= 0).all() and moving["t"].min() >= 0
        assert len(still) == len(moving) and (net(still) == net(moving)).all()
        once = []
        for events in (still, moving):
            keys, where, count = np.unique(events[["x", "y", "p"]], return_index=True, return_counts=True)
            once.append(dict(zip(keys[count == 1].tolist(), events["t"][where[count == 1]], strict=True)))
        shifts += [once[1][key] - once[0][key] for key in once[0]]
    assert len(shifts) > 500 and abs(np.mean(shifts)) < 50 and 270 < np.std(shifts) < 330


def test_a_recording_depends_on_its_picture_and_number_alone():
    pictures = np.random.RandomState(3).rand(150, SIZE, SIZE)  # more than are simulated together
    numbers = np.arange(150) + 7
    camera = Camera()
    together = list(camera.record(pictures, numbers))
    for place in (0, 99, 100, 149):
        (alone,) = camera.record(pictures[place : place + 1], numbers[place : place + 1])
        assert (alone == together[place]).all()
    (other,) = camera.record(pictures[:1], np.array([8]))
    assert len(other) != len(together[0]) or (other != together[0]).any()
    (reseeded,) = Camera(seed=1).record(pictures[:1], numbers[:1])
    assert len(reseeded) != len(together[0]) or (reseeded != together[0]).any()


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, 3), (0.5, 0), (1.25, 3.75), (7, 3.5)])
def test_a_moved_picture_is_scipys_bilinear_shift(down, right):
    pictures = np.zeros((2, SIZE, SIZE))
    pictures[:, 1:-2, 1:-2] = np.random.RandomState(4).rand(2, SIZE - 3, SIZE - 3)  # black at its edge, as digits are
    placed = np.pad(pictures, ((0, 0), (0, MARGIN), (0, MARGIN)))
    expected = ndimage.shift(placed, (0, down, right), order=1, mode="grid-constant")
    np.testing.assert_allclose(moved(pictures, down, right), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"threshold": 0}, "threshold is 0; it must be a finite number above 0"),
        ({"refractory": -1}, "refractory is -1; it must be a whole number of at least 0"),
        ({"jitter": math.nan}, "jitter is nan; it must be a finite number"),
        ({"noise": -0.5}, "noise is -0.5; it must be a finite number of at least 0"),
    ],
)
def test_a_camera_that_cannot_be_is_refused(option, told):
    with pytest.raises(Refused, match=told):
        Camera(**option)
