"""Recordings: written byte by byte and read by tonic, or simulated; frames and the camera against slow versions."""

import io
import math
import os
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from paperlib import networks, paths
from paperlib.data import events, real, recordings
from paperlib.data.recordings import DTYPE
from paperlib.data.simulation import DARK, MARGIN, SACCADE, Camera, moved, path
from paperlib.errors import Refused

SENSOR = (34, 34, 2)
SAMPLES = "COMPANION_EVENT_SAMPLES"  # names the folder of a real recording, sample_nmnist.bin, which is not shipped


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path) -> Path:
    """Where tonic looks, apart from where frames are kept."""
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    monkeypatch.setenv(real.FOLDER, str(tmp_path / "mine"))
    yield tmp_path / "mine"
    events._real.cache_clear()


def some(count: int = 50, seed: int = 0, size: int = 34, last: int = 300_000) -> np.ndarray:
    rng = np.random.RandomState(seed)
    found = np.zeros(count, DTYPE)
    found["x"], found["y"] = rng.randint(0, size, (2, count))
    found["t"], found["p"] = np.sort(rng.randint(0, last, count)), rng.randint(0, 2, count)
    return found


def in_bytes(recording: np.ndarray) -> bytes:
    """As N-MNIST stores it: five bytes an event, x, y, then polarity in the first bit and 23 bits of microseconds."""
    written = io.BytesIO()
    for x, y, t, p in recording.tolist():
        written.write(bytes([x, y, (p << 7) | (t >> 16), (t >> 8) & 255, t & 255]))
    return written.getvalue()


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def n_mnist(folder: Path, each: int = 3) -> dict[str, np.ndarray]:
    """Recordings of the digits 3 and 7, `each` of them for training and one for testing."""
    found = {}
    for part, count in (("Train", each), ("Test", 1)):
        for digit in (3, 7):
            for number in range(count):
                name = f"{part}/{digit}/{number:05d}.bin"
                found[name] = some(seed=len(found), count=40 + len(found))
                write(folder / "NMNIST" / name, in_bytes(found[name]))
    return found


def slow(recording: np.ndarray, T: int, by: str, size: int = 34) -> np.ndarray:
    """The definition, event after event."""
    counts = np.zeros((T, 2, size, size), int)
    first, last = int(recording["t"][0]), int(recording["t"][-1])
    for i, (x, y, t, p) in enumerate(recording.tolist()):
        stretch = 0
        for k in range(1, T):
            begins = (t - first) >= k * (last - first + 1) / T if by == "time" else i >= k * (len(recording) // T)
            stretch = k if begins else stretch
        counts[stretch, int(p), y, x] += 1
    return counts


# ---- recordings ------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80), st.integers(1, 12), st.sampled_from(recordings.SLICES), st.integers(0, 10**6))
def test_frames_count_every_event_once_in_its_stretch(count, T, by, seed):
    recording = some(count, seed, last=seed % 1000 + 1)
    found = recordings.frames(recording, sensor=SENSOR, T=T, by=by)
    assert found.shape == (T, 2, 34, 34) and found.sum() == count
    if count >= T or by == "time":
        np.testing.assert_array_equal(found, slow(recording, T, by))
    with pytest.raises(Refused, match="no way to slice a recording 'space'"):
        recordings.frames(recording, sensor=SENSOR, T=T, by="space")


def test_where_tonic_loses_nothing_its_frames_are_the_same():
    from tonic.transforms import ToFrame

    recording = some(60)
    theirs = ToFrame(sensor_size=SENSOR, n_event_bins=6)(recording)
    np.testing.assert_array_equal(recordings.frames(recording, sensor=SENSOR, T=6, by="number"), theirs)
    assert ToFrame(sensor_size=SENSOR, n_event_bins=7)(recording).sum() == 56  # and here it loses the last four


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"x": 34}, "a.bin: event 7 has x = 34; it must lie from 0 to 33"),
        ({"y": -1}, "a.bin: event 7 has y = -1; it must lie from 0 to 33"),
        ({"t": -5}, "a.bin: event 7 has t = -5; no time may be negative"),
        ({"t": 0}, "a.bin: event 7 has t = 0; it must not lie before the event ahead of it"),
    ],
)
def test_the_first_wrong_event_is_named_with_its_place(change, told):
    recording = some()
    recording["t"] += 1
    ((name, value),) = change.items()
    recording[name][7] = value
    with pytest.raises(Refused, match=told):
        recordings.check(recording, sensor=SENSOR, source="a.bin")
    recordings.check(some(), sensor=SENSOR, source="a.bin")


# ---- N-MNIST ---------------------------------------------------------------------------------------------------------


def test_n_mnist_is_read_with_its_labels_and_its_own_test_set(folder):
    written = n_mnist(folder)
    found = events.load("nmnist", T=5)
    assert (found.title, found.T, found.image_size, found.num_classes) == ("N-MNIST", 5, 34, 10)
    assert [len(split) for split in (found.train, found.validation, found.test)] == [5, 1, 2]
    names = sorted(written, key=lambda name: (name.startswith("Test"), name))
    for split in (found.train, found.validation, found.test):
        for frames, label, index in zip(split.pixels(), split.labels, split.index, strict=True):
            name = names[index]
            assert label == int(name.split("/")[1])
            np.testing.assert_array_equal(frames, slow(written[name], 5, "time"))
    assert all(names[index].startswith("Test") for index in found.test.index)
    assert found.bounds == (0.0, max(slow(each, 5, "time").max() for each in written.values()))


def test_a_part_of_the_set_is_split(folder):
    n_mnist(folder, each=5)
    for file in (folder / "NMNIST" / "Test").rglob("*.bin"):
        file.unlink()
    found = events.load("nmnist", T=2)
    assert [len(split) for split in (found.train, found.validation, found.test)] == [7, 1, 2]


def test_time_stamps_that_overflow_go_on(folder):
    early, late = some(20, last=8000), some(20, last=8000)
    n_mnist(folder)
    write(folder / "NMNIST/Train/3/00000.bin", in_bytes(early) + bytes([0, 240, 0, 0, 0]) + in_bytes(late))
    expected = np.concatenate([early, late])
    expected["t"][20:] += 2**13
    np.testing.assert_array_equal(real.source("nmnist", 4).read(np.arange(1))[0], slow(expected, 4, "time"))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (in_bytes(some(10))[:-2], "00001.bin is truncated: 48 bytes are 9 events of 5 bytes and 3 more from byte 45"),
        (b"", "00001.bin holds no events"),
        (b"not a recording" * 10, "00001.bin: event 0 has x = 110; it must lie from 0 to 33"),
        (in_bytes(some(10)[::-1]), "00001.bin: event 1 has t = .* not lie before"),
    ],
    ids=["truncated", "empty", "foreign", "unsorted"],
)
def test_bad_files_are_named_with_the_place(folder, data, told):
    n_mnist(folder)
    write(folder / "NMNIST/Train/7/00001.bin", data)
    with pytest.raises(Refused, match=f"Train/7/{told}"):
        events.load("nmnist", T=3)


def test_recordings_are_binned_once_and_each_way_of_binning_is_kept_apart(folder, monkeypatch):
    n_mnist(folder)
    first = events.load("nmnist", T=3)
    events.load("nmnist", T=4)
    kept = paths.DATA / "events"
    named = sorted(each.name.rpartition(",")[0] for each in kept.iterdir())  # the rest is the code's hash
    assert named == [f"nmnist,T={T},by=time,size=34" for T in (3, 4)]
    events._real.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(real, "_events", lambda *_: pytest.fail("read again"))
        again = events.load("nmnist", T=3)
    assert again.sha256 == first.sha256
    events._real.cache_clear()
    monkeypatch.setattr(real, "version", lambda package: f"another {package}")
    assert events.load("nmnist", T=3).sha256 == first.sha256
    assert len(list(kept.iterdir())) == 3


@pytest.mark.parametrize("elsewhere", [False, True], ids=["replaced", "another folder"])
def test_frames_of_another_recording_are_not_taken_even_if_it_is_the_older(folder, monkeypatch, tmp_path, elsewhere):
    written = n_mnist(folder)
    events.load("nmnist", T=3)
    changed = "NMNIST/Train/3/00000.bin"
    time = (folder / changed).stat().st_mtime_ns if elsewhere else 10**18
    if elsewhere:
        folder = folder.rename(tmp_path / "theirs")
        monkeypatch.setenv(real.FOLDER, str(folder))
    recording = some(len(written["Train/3/00000.bin"]), seed=99)
    write(folder / changed, in_bytes(recording))
    os.utime(folder / changed, ns=(time, time))
    source = real.source("nmnist", 3)
    np.testing.assert_array_equal(source.read(np.arange(1))[0], slow(recording, 3, "time"))


class Touching:
    """Whoever unpickles it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("damage", ["cut off", "one bit", "nothing left", "a pickle"])
def test_kept_frames_that_are_damaged_are_set_aside_and_made_again(tmp_path, capsys, damage):
    kept, made = tmp_path / "kept.npz", {"frames": np.arange(60).reshape(3, 20)}
    recordings.arrays(kept, lambda: made)
    good = kept.read_bytes()
    pickled = io.BytesIO()
    np.savez(pickled, frames=np.array([Touching(tmp_path / "executed")], dtype=object))
    damaged = {"cut off": good[:100], "one bit": good[:100] + bytes([good[100] ^ 4]) + good[101:], "nothing left": b""}
    kept.write_bytes(damaged.get(damage, pickled.getvalue()))
    bad = kept.read_bytes()
    np.testing.assert_array_equal(recordings.arrays(kept, lambda: made)["frames"], made["frames"])
    assert kept.read_bytes() == good and (tmp_path / "kept.npz.damaged").read_bytes() == bad
    assert "kept.npz is damaged (" in capsys.readouterr().err and not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("name", "file", "told"),
    [
        ("nmnist", "NMNIST/Train/notes/1.bin", "NMNIST holds .* no label for .*'s'"),
        ("dvs-gesture", "DVSGesture/ibmGestureTrain/user01_led/clap.npy", "DVSGesture holds .* no label for .*'clap'"),
        ("dvs-gesture", "DVSGesture/ibmGestureTrain/user01_led/11.npy", "11.npy has the label 11; .* from 0 to 10"),
        ("cifar10-dvs", "CIFAR10DVS/lorry/1.aedat4", "CIFAR10DVS holds .* no label for .*'lorry'"),
    ],
)
def test_files_that_do_not_belong_there_are_refused(folder, name, file, told):
    write(folder / file, b"anything")
    with pytest.raises(Refused, match=told):
        events.load(name, T=3)


def test_two_readers_at_once_leave_whole_frames(folder):
    n_mnist(folder, each=20)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: real.source("nmnist", 3).read(np.arange(40)), range(4)))
    assert all(np.array_equal(one, found[0]) for one in found)
    assert not list((paths.DATA / "events").rglob("*.tmp"))


def test_what_is_not_there_and_cannot_be_downloaded_is_said(monkeypatch):
    from tonic import datasets

    monkeypatch.setattr(datasets.NMNIST, "download", lambda self: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(Refused, match="NMNIST holds no recordings and they could not be downloaded .*COMPANION_EVENTS"):
        events.load("nmnist", T=3)


def test_a_real_recording_of_n_mnist_goes_through_reader_binning_and_network(folder):
    samples = os.environ.get(SAMPLES)
    if not samples:
        pytest.skip(f"no real recording: {SAMPLES} names no folder with sample_nmnist.bin")
    data = (Path(samples) / "sample_nmnist.bin").read_bytes()
    for number in range(10):
        write(folder / f"NMNIST/Train/0/{number:05d}.bin", data)
    found = events.load("nmnist", T=6)
    assert len(data) % real.EVENT_BYTES == 0
    counts = found.test.pixels()
    assert (counts.flatten(1).sum(1) == len(data) / real.EVENT_BYTES).all() and (counts > 0).any(1).any()
    network = networks.build("events-conv-4-8", in_channels=2, image_size=34, num_classes=10, T=6).eval()
    assert network(counts).shape == (2, 10) and network(counts).isfinite().all()


# ---- DVS128 Gesture and CIFAR10-DVS ----------------------------------------------------------------------------------


def gestures(folder: Path, users: int = 1, **how: int) -> dict[str, np.ndarray]:
    """Recordings of gestures 0 and 4, by so many users for training and one for testing."""
    written = {}
    training = [("ibmGestureTrain", f"user{user:02d}_fluorescent") for user in range(1, users + 1)]
    for part, user in (*training, ("ibmGestureTest", "user24_led")):
        for label in (0, 4):
            name = f"{part}/{user}/{label}.npy"
            written[name] = recording = some(seed=len(written), last=900, **how)
            table = np.stack([recording[column].astype(np.int64) for column in ("x", "y", "p", "t")], 1)
            (folder / "DVSGesture" / part / user).mkdir(parents=True, exist_ok=True)
            np.save(folder / "DVSGesture" / name, table)
    return written


def test_counts_above_255_stay_whole(folder):
    gestures(folder, users=5, count=3000, size=4)  # 3000 events of 2 polarities in one cell of 3 frames
    found = events.load("dvs-gesture", T=3)
    cells = found.test.pixels()[:, :, :, 0, 0]
    assert (cells.sum((1, 2)) == 3000).all() and found.test.pixels().sum() == 6000
    assert 400 < cells.min() <= cells.max() <= found.bounds[1]
    assert found.test.images.clamp(max=1).max() == 1  # as measures.cut_rows cuts them


def test_gestures_are_summed_over_four_by_four_pixels(folder):
    written = gestures(folder, count=60, size=128)
    source = real.source("dvs-gesture", 3)
    assert (source.title, source.tested, source.labels.tolist()) == ("DVS128 Gesture", 2, [0, 4, 0, 4])
    for frames, recording in zip(source.read(np.arange(4)), written.values(), strict=True):
        whole = slow(recording, 3, "time", size=128)  # times are in milliseconds there: the stretches are the same
        expected = np.zeros((3, 2, 32, 32), int)
        for (t, c, y, x), count in np.ndenumerate(whole):
            expected[t, c, y // 4, x // 4] += count
        assert frames.sum() == 60 and np.abs(frames.astype(int) - expected).sum() <= 4  # rounding of a stretch's end


@pytest.fixture
def airplanes(folder, monkeypatch) -> dict[str, np.ndarray]:
    """CIFAR10-DVS in tonic's layout; what its reader of aedat4 files, an optional package, would give."""
    written = {}
    for name in ("airplane", "truck"):
        for number in range(10):
            path = write(folder / f"CIFAR10DVS/{name}/cifar10_{name}_{number}.aedat4", b"aedat")
            written[str(path)] = some(203, seed=len(written), size=128)

    class Decoder:
        def __init__(self, path):
            self.path = path

        def id_to_stream(self):
            return {0: {"type": "events"}}

        def __iter__(self):
            own = written[str(self.path)]
            packet = np.zeros(len(own), [("t", np.uint64), ("x", np.uint16), ("y", np.uint16), ("on", bool)])
            for theirs, mine in (("t", "t"), ("x", "x"), ("y", "y"), ("on", "p")):
                packet[theirs] = own[mine]
            yield {"stream_id": 0, "events": packet}

    monkeypatch.setitem(sys.modules, "aedat", types.SimpleNamespace(Decoder=Decoder))
    return written


def test_cifar10_dvs_is_sliced_by_number_and_resized_to_48_pixels(airplanes):
    found = events.load("cifar10-dvs", T=10)
    assert found.train.images.shape == (16, 10, 2, 48, 48) and found.train.images.dtype == torch.float32
    assert [len(split) for split in (found.train, found.validation, found.test)] == [16, 2, 2]
    recording, label = list(airplanes.values())[int(found.test.index[0])], int(found.test.labels[0])
    assert label == (0 if int(found.test.index[0]) < 10 else 9)
    whole = slow(recording, 10, "number", size=128)
    place = [(i + 0.5) * 128 / 48 - 0.5 for i in range(48)]  # where each new pixel's middle lies among the old ones
    expected = np.zeros((10, 2, 48, 48))
    for i, y in enumerate(place):
        for j, x in enumerate(place):
            y0, x0 = int(y), int(x)
            b, a = y - y0, x - x0
            corners = whole[:, :, y0 : y0 + 2, x0 : x0 + 2]
            expected[:, :, i, j] = np.einsum("tcyx,y,x->tc", corners, [1 - b, b], [1 - a, a])
    np.testing.assert_allclose(found.test.pixels()[0], expected, atol=1e-5)
    assert found.bounds[1] == max(float(s.images.max()) for s in (found.train, found.validation, found.test))
    assert found.vary is real.augment


def test_a_missing_reader_is_named_with_what_installs_it(airplanes, monkeypatch):
    monkeypatch.setitem(sys.modules, "aedat", None)
    with pytest.raises(Refused, match="aedat4 needs the package aedat to be read: pip install aedat"):
        events.load("cifar10-dvs", T=10)


def test_the_augmentation_is_a_mirror_and_one_of_three_alike_in_all_frames():
    one = torch.rand(2, 48, 48) + 1  # nowhere 0
    frames = one.expand(300, 3, 2, 48, 48)
    varied = real.augment(frames, torch.Generator().manual_seed(0))
    assert varied.shape == frames.shape and torch.equal(frames[0, 0], one)
    assert (varied == varied[:, :1]).all()  # the frames were equal and have stayed so
    seen, mirrored = {"shift": 0, "turn": 0, "cut": 0}, 0
    for x in varied[:, 0]:
        zeros = (x == 0).all(0)
        seen["turn"] += bool(zeros.any() and zeros.sum() != 256)
        for flipped in (False, True):
            start = one.flip(-1) if flipped else one
            if not zeros.any():
                first = (x[0] == start[0, 0, 0]).nonzero()[0]  # where the picture's first pixel has gone
                down, right = ((first + 24) % 48 - 24).tolist()
                hit = abs(down) <= 5 and abs(right) <= 5 and torch.equal(start.roll((down, right), (-2, -1)), x)
                seen["shift"] += hit
                mirrored += hit and flipped
            elif zeros.sum() == 256 and torch.equal(torch.where(zeros, 0, start), x):
                rows, columns = zeros.any(1).nonzero(), zeros.any(0).nonzero()
                assert len(rows) == len(columns) == 16 and rows.max() - rows.min() == 15
                seen["cut"] += 1
                mirrored += flipped
    assert sum(seen.values()) in (299, 300) and all(70 < count < 130 for count in seen.values())
    assert 70 < mirrored < 130  # half of the 200 of which it can be told
    again = real.augment(frames[:5], torch.Generator().manual_seed(0))
    assert torch.equal(again, varied[:5])


# ---- the simulated camera --------------------------------------------------------------------------------------------

PLAIN = {"refractory": 0, "jitter": 0.0, "noise": 0.0}  # a sensor without faults
SIZE = 12  # of the pictures that the camera sees, in pixels


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


def slow_camera(picture: np.ndarray, threshold: float, refractory: int) -> list[tuple]:
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
    theirs = slow_camera(picture, threshold, refractory)
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
    assert 0 < len(recorded([square(0.2)], threshold=0.5)[0]) < len(events)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 1.0), st.floats(0.15, 1.0))
@example(0, 1.0, 0.15625)  # no pixel's logarithm rises by a threshold: a recording without events
def test_the_path_returns_so_gains_and_losses_of_each_pixel_cancel(seed, threshold, share):
    picture = np.random.RandomState(seed).rand(SIZE, SIZE) * share
    (events,) = recorded([picture], threshold=threshold)
    first, *others = (np.log(moved(picture[None], *place) + DARK) for place in path()[1])
    assert (len(events) > 0) == any(np.abs(level - first).max() >= threshold for level in others)
    assert np.abs(net(events)).max() <= 1  # what is left is less than a threshold
    if len(events):  # `recordings.check` refuses an empty one
        recordings.check(events, sensor=(SIZE + MARGIN, SIZE + MARGIN, 2), source="simulated")


def test_the_mean_path_is_a_triangle_that_returns_to_its_start():
    times, places = path()
    assert (places[0] == places[-1]).all() and (times[0], times[-1]) == (0, 3 * SACCADE)
    assert (np.diff(times) > 0).all()
    corners = places[[0, 20, 40]]
    assert corners.tolist() == [[0, 0], [7, 3.5], [0, 7]]
    np.testing.assert_allclose(np.diff(places[20:41], axis=0).std(0), 0, atol=1e-12)  # each side at one speed


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
        for one in (still, moving):
            keys, where, count = np.unique(one[["x", "y", "p"]], return_index=True, return_counts=True)
            once.append(dict(zip(keys[count == 1].tolist(), one["t"][where[count == 1]], strict=True)))
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
