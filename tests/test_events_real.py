"""Recordings written byte by byte, read by tonic; frames against a slow binning; what is damaged is named."""

import io
import os
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlib import paths
from paperlib.data import events, real, recordings
from paperlib.data.recordings import DTYPE
from paperlib.errors import Refused

SENSOR = (34, 34, 2)
SAMPLES = (
    "COMPANION_EVENT_SAMPLES"  # the folder of a real recording, sample_nmnist.bin, which is not part of this project
)


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path) -> Path:
    """Where tonic looks, apart from where frames are kept."""
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    monkeypatch.setenv(real.FOLDER, str(tmp_path / "mine"))
    yield tmp_path / "mine"
    events._load.cache_clear()


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
    for name, value in change.items():
        recording[name][7] = value
    with pytest.raises(Refused, match=told):
        recordings.check(recording, sensor=SENSOR, source="a.bin")


def test_an_empty_recording_is_refused_and_a_good_one_is_not():
    with pytest.raises(Refused, match="a.bin holds no events"):
        recordings.check(some(0), sensor=SENSOR, source="a.bin")
    recordings.check(some(), sensor=SENSOR, source="a.bin")
    with pytest.raises(Refused, match="no way to slice a recording 'space'"):
        recordings.frames(some(), sensor=SENSOR, T=3, by="space")


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
    found = events.load("nmnist", T=4)
    (at,) = (found.train.index == 0).nonzero()[0].tolist() if (found.train.index == 0).any() else (None,)
    frames = found.train.pixels()[at] if at is not None else found.validation.pixels()[0]
    np.testing.assert_array_equal(frames, slow(expected, 4, "time"))


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
    events._load.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(real, "_events", lambda *_: pytest.fail("read again"))
        again = events.load("nmnist", T=3)
    assert again.sha256 == first.sha256
    events._load.cache_clear()
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


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:100], lambda b: b[:100] + bytes([b[100] ^ 4]) + b[101:], lambda b: b""],
    ids=["cut off", "one bit", "nothing left"],
)
def test_kept_frames_that_are_damaged_are_named(folder, damage):
    n_mnist(folder)
    events.load("nmnist", T=3)
    kept = next((paths.DATA / "events").rglob("*.npz"))
    kept.write_bytes(damage(kept.read_bytes()))
    events._load.cache_clear()
    with pytest.raises(Refused, match=f"{kept.name} is damaged .*delete it"):
        events.load("nmnist", T=3)


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
    from paperlib import networks

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
    generator = torch.Generator().manual_seed(0)
    one = torch.rand(2, 48, 48) + 1  # nowhere 0
    frames = one.expand(300, 3, 2, 48, 48)
    varied = real.augment(frames, generator)
    assert varied.shape == frames.shape and torch.equal(frames[0, 0], one)
    assert (varied == varied[:, :1]).all()  # the frames were equal and have stayed so
    seen = {"shift": 0, "turn": 0, "cut": 0}
    mirrored = 0
    for x in varied[:, 0]:
        zeros = (x == 0).all(0)
        for flipped in (False, True):
            start = one.flip(-1) if flipped else one
            if not zeros.any():
                shifts = [s for s in range(-5, 6)]
                hit = any(torch.equal(start.roll((a, b), (-2, -1)), x) for a in shifts for b in shifts)
                seen["shift"] += hit
                mirrored += hit and flipped
            elif zeros.sum() == 256 and torch.equal(torch.where(zeros, 0, start), x):
                rows, columns = zeros.any(1).nonzero(), zeros.any(0).nonzero()
                assert len(rows) == len(columns) == 16 and rows.max() - rows.min() == 15
                seen["cut"] += 1
                mirrored += flipped
        seen["turn"] += bool(zeros.any() and zeros.sum() != 256)
    assert sum(seen.values()) in (299, 300) and all(70 < count < 130 for count in seen.values())
    assert 70 < mirrored < 130  # half of the 200 of which it can be told
    again = real.augment(frames[:5], torch.Generator().manual_seed(0))
    assert torch.equal(again, varied[:5])
