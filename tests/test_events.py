"""Event sets with the interface of image sets; networks, SR, trainings and measures on frames of counts."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from paperlib import attacks, networks, paths, training
from paperlib.artifacts import tab_events
from paperlib.attacks import evaluation
from paperlib.data import datasets, events, images, recordings
from paperlib.data.simulation import MARGIN, Camera
from paperlib.errors import Refused
from paperlib.measures import clean
from paperlib.store import experiment
from paperlib.store.experiment import Experiment, Opened
from paperlib.training import defenses, regularizers
from paperlib.training.defenses import Batch

DIGITS = {"name": "saccades:mnist5k", "T": 4, "train": 60, "validation": 20, "test": 30}


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> events.EventSet:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "DATA", tmp_path_factory.mktemp("data"))
        yield events.load(**DIGITS)


@pytest.fixture
def folder(monkeypatch, tmp_path) -> Path:
    """An empty folder for frames, none of which are in memory either."""
    monkeypatch.setattr(paths, "DATA", tmp_path)
    events._simulated.cache_clear()
    return tmp_path / "events"


@pytest.fixture
def base() -> images.ImageSet:
    """What `digits` records."""
    return images.load("mnist5k", train=60, validation=20, test=30)


def network(T: int = 4, name: str = "events-conv-4-8", seed: int = 0) -> networks.Network:
    torch.manual_seed(seed)
    return networks.build(name, in_channels=2, image_size=34, num_classes=10, T=T).eval()


# ---- sets ------------------------------------------------------------------------------------------------------------


def test_frames_hold_every_event_of_the_recording_and_nothing_else(digits, base):
    pictures = base.test.pixels()[:, 0].numpy()
    for frames, recorded in zip(digits.test.pixels(), Camera().record(pictures, base.test.index.numpy()), strict=True):
        slow = np.zeros((4, 2, 34, 34), int)
        first, last = recorded["t"][0], recorded["t"][-1]
        stretch = (last - first) / 4
        for x, y, t, p in recorded.tolist():
            slow[min(int((t - first) // stretch), 3), int(p), y, x] += 1
        assert frames.sum() == len(recorded)
        moved = (frames.numpy() != slow).sum()  # whole microseconds may round an event into the next stretch
        assert moved <= 8


def test_an_event_set_is_its_image_set_with_a_time_axis(digits, base):
    assert isinstance(datasets.load(**DIGITS), events.EventSet) and not isinstance(base, events.EventSet)
    assert digits.test.images.shape == (30, 4, 2, 28 + MARGIN, 28 + MARGIN)
    assert (digits.T, digits.in_channels, digits.image_size, digits.num_classes) == (4, 2, 34, 10)
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(digits, part).labels, getattr(base, part).labels)
        assert torch.equal(getattr(digits, part).index, getattr(base, part).index)
    assert digits.title == "MNIST-5k by saccades" and digits.name == "saccades:mnist5k"


def test_counts_are_whole_never_scaled_and_bounded_by_the_largest(digits):
    counts = digits.train.pixels()
    assert counts.dtype == torch.float32 and torch.equal(counts, counts.round())
    most = max(float(split.pixels().max()) for split in (digits.train, digits.validation, digits.test))
    assert digits.bounds == (0.0, most) and most > 1
    x, y, index = next(digits.test.batches(5))
    assert torch.equal(x, digits.test.pixels(slice(0, 5))) and len(y) == len(index) == 5
    assert torch.equal(digits.test.take(3).pixels(), x[:3])


def test_a_smaller_cap_takes_a_subset(digits):
    few = events.load(**DIGITS | {"test": 10, "train": 20})
    assert torch.equal(few.test.pixels(), digits.test.pixels()[:10])
    assert torch.equal(few.train.pixels(), digits.train.pixels()[:20])


def test_frames_are_made_once_kept_by_every_parameter_and_made_again_where_they_are_damaged(folder, monkeypatch):
    data = DIGITS | {"train": 10, "validation": 4, "test": 5}
    first = events.load(**data)
    assert events.load(**data) is first
    (kept,) = folder.glob("*.npz")
    events._simulated.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(Camera, "record", lambda *_: pytest.fail("recorded again"))
        again = events.load(**data)
    assert again is not first
    assert again.sha256 == first.sha256 and torch.equal(again.train.images, first.train.images)
    for other in ({"T": 5}, {"threshold": 0.5}, {"noise": 0.0}, {"seed": 1}, {"test": 4}):
        assert events.load(**data | other).sha256 != first.sha256
    assert len(list(folder.glob("*.npz"))) == 6
    kept.write_bytes(kept.read_bytes()[:1000])
    events._simulated.cache_clear()
    assert events.load(**data).sha256 == first.sha256 and kept.with_name(f"{kept.name}.damaged").exists()


def test_what_is_shown_is_the_first_test_sample_in_finer_frames(digits, base):
    picture, frames = events.shown(DIGITS, frames=12)
    np.testing.assert_array_equal(picture, base.test.pixels()[0, 0].numpy())
    assert frames.shape == (12, 2, 34, 34) and frames.sum() == digits.test.images[0].sum().item()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"name": "nmnist2", "T": 4}, "There is no image set 'nmnist2'"),
        ({"name": "saccades:mnist6k", "T": 4}, "There is no image set 'mnist6k'"),
        ({"name": "saccades:mnist5k", "T": 0}, "T is 0; it must be a whole number of at least 1"),
        ({"name": "saccades:mnist5k", "T": 4, "blur": 1}, "The camera cannot take {'blur': 1}"),
        ({"name": "nmnist", "T": 4, "noise": 1}, "nmnist was recorded by a real camera; it takes no noise"),
        ({"name": "saccades:mnist5k", "T": 4, "test": 2000}, "test: 2000 samples were asked for"),
    ],
)
def test_what_no_set_can_be_is_refused(arguments, told):
    with pytest.raises(Refused, match=told):
        datasets.load(**arguments)
    with pytest.raises(Refused, match="no event set 'mnist5k'. Allowed: saccades:NAME, .*cifar10-dvs"):
        events.load("mnist5k", T=3)


@pytest.mark.parametrize(
    ("name", "needs", "optional"),
    [
        ("mnist5k", {"name"}, set()),
        ("folder:mine", {"name"}, set()),
        ("nmnist", {"name", "T"}, set()),
        ("saccades:mnist5k", {"name", "T"}, {"threshold", "refractory", "jitter", "noise", "seed"}),
    ],
)
def test_the_arguments_of_a_set_are_known_without_it(name, needs, optional):
    assert datasets.arguments(name) == (needs, {"train", "validation", "test"} | optional)
    datasets.refuse_unknown(name)


@pytest.mark.parametrize(
    ("data", "name", "T", "told"),
    [
        (DIGITS, "conv-4", 4, "holds events, which the network conv-4 cannot take; it needs one with events-"),
        ({"name": "mnist5k"}, "events-conv-4", 4, "holds images, which .* cannot take; it needs one without events-"),
        (DIGITS, "events-conv-4", 5, "T is 5 and the data's 4 frames a sample; they must be equal"),
    ],
)
def test_networks_that_do_not_fit_the_data_are_refused(data, name, T, told):
    with pytest.raises(Refused, match=told):
        experiment.refuse_misfit(data, name, T)


# ---- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_equal_frames_are_the_direct_encoding_of_one_image(training):
    of_events, direct = network(), network(name="conv-4-8")
    for one in (of_events, direct):
        one.train(training)
    image = torch.rand(6, 2, 34, 34)
    frames = image[:, None].expand(6, 4, 2, 34, 34)
    torch.testing.assert_close(of_events(frames), direct(image), rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(of_events.buffers(), direct.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


def test_time_enters_the_order_of_frames_matters_and_each_has_its_own_gradient(digits):
    x = digits.test.pixels(slice(0, 10)).requires_grad_()
    net = network()
    assert not torch.allclose(net(x), net(x.flip(1)))
    (gradient,) = torch.autograd.grad(net(x)[:, 0].sum(), x)
    assert all((gradient[:, a] != gradient[:, b]).any() for a in range(4) for b in range(a))


def test_the_fast_path_on_frames_is_the_reference_path(digits):
    net, x = network(), digits.test.pixels(slice(0, 8))
    torch.nn.init.uniform_(net.body[0].weight, 0.7, 1.5)
    with net.reference_path():
        expected = net(x)
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)


def test_vgg11_for_48_pixels_has_512_by_36_inputs_to_its_first_linear_layer():
    with torch.device("meta"):
        net = networks.build("events-vgg11", in_channels=2, image_size=48, num_classes=10, T=10)
    linear = [module for module in net.modules() if isinstance(module, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(512 * 36, 4096), (4096, 4096), (4096, 10)]
    assert net.stem.in_channels == 2


@pytest.mark.parametrize(
    ("shape", "told"),
    [((3, 5, 2, 34, 34), r"given \(3, 5, 2, 34, 34\); it takes \(B, 4, C, H, W\): 4 frames"),
     ((3, 2, 34, 34), r"given \(3, 2, 34, 34\); it takes \(B, 4, C, H, W\)")],
)  # fmt: skip
def test_a_network_of_events_refuses_other_shapes(shape, told):
    with pytest.raises(Refused, match=told):
        network()(torch.zeros(shape))


def test_a_network_of_images_refuses_frames():
    with pytest.raises(Refused, match=r"it takes \(B, C, H, W\)"):
        network(name="conv-4-8")(torch.zeros(2, 4, 2, 34, 34))


# ---- SR and trainings ------------------------------------------------------------------------------------------------


def test_sr_takes_its_gradient_in_every_cell_of_every_frame_and_h_in_counts(digits):
    net, h = network().double(), 0.05
    x, y = digits.test.pixels(slice(0, 6)).double(), digits.test.labels[:6]
    _, penalty = regularizers.sr(net, x, y, preset="released", h=h)

    leaf, total = x.clone().requires_grad_(), 0.0
    z = net(leaf)
    others = z.detach().scatter(1, y[:, None], -torch.inf).argmax(1)
    p = torch.sigmoid(z[range(6), y] - z[range(6), others])
    (gradient,) = torch.autograd.grad(p.sum(), leaf)
    assert gradient.shape == (6, 4, 2, 34, 34)
    probe = x + h * gradient.sign()  # h of an event more or less in each cell: fractions, and below 0 in empty cells
    assert probe.min() == -h
    z2 = net(probe)
    for b in range(6):
        q = torch.sigmoid(z2[b, y[b]] - z2[b, others[b]]) - p[b]
        total += (q.item() / h) ** 2 / 6
    assert penalty.item() == pytest.approx(total)


def test_adversarial_training_perturbs_counts_within_the_datas_own_bounds(digits, monkeypatch):
    seen = []
    net = network().train()
    monkeypatch.setattr(net, "forward", lambda x, forward=net.forward: seen.append(x.detach()) or forward(x))
    x, y, index = next(digits.train.batches(20))
    at = defenses.build("at", {"eps": 0.5, "alpha": 0.5, "steps": 2})
    at.loss(net, Batch(x, y, index, digits.bounds, seed=0))
    adversarial = seen[-1]
    assert adversarial.min() == 0 and (adversarial - x).abs().max() == pytest.approx(0.5)
    assert 1.5 <= adversarial.max() <= digits.bounds[1]  # counts of 1 and more are not cut


@pytest.mark.parametrize("defense", ["vanilla", "sr", "at", "at+sr"])
def test_every_training_runs_on_frames_under_the_sets_own_augmentation(digits, defense):
    seen = []

    def vary(frames, generator):
        seen.append((frames.shape, torch.rand(1, generator=generator).item()))
        return frames

    attack = {"eps": 0.1, "alpha": 0.1, "steps": 1} if "at" in defense.split("+") else {}
    options = attack | ({"lam": 0.01} if "sr" in defense else {})
    net, schedule = network(), training.Schedule(2, 20, 0.1, 0.9, 5e-4)
    before, data = net.head.weight.detach().clone(), replace(digits, vary=vary)
    rows = list(training.epochs(net, defenses.build(defense, options), data, schedule, seed=0, progress=False))
    assert all(np.isfinite(row["loss"]) for row in rows) and not torch.equal(before, net.head.weight)
    assert [shape for shape, _ in seen] == [(20, 4, 2, 34, 34)] * 6
    assert len({draw for _, draw in seen}) == 6


def test_accuracy_at_no_radius_is_clean_accuracy_exactly(digits):
    net = network()
    clean_flags = evaluation.flags(net, digits.test, batch_size=10)
    for name in ("pgd", "fgsm", "uniform", "sparse_flips", "random_flips"):
        flags = evaluation.flags(net, digits.test, attacks.standard(name, 0), batch_size=10)
        assert torch.equal(flags, clean_flags)


# ---- what notebooks show and measure ---------------------------------------------------------------------------------


def test_the_animation_shows_picture_and_events_frame_by_frame():
    frames = np.zeros((3, 2, 10, 10), np.uint8)
    frames[0, 1, 2, 3] = 2  # ON
    frames[1, 0, 4, 5] = 2  # OFF
    film = Image.open(io.BytesIO(tab_events.animation(np.eye(8), frames)))
    assert film.n_frames == 3
    zoom = film.width // (10 + 2 + 10)
    assert film.size == (22 * zoom, 10 * zoom)

    def colour(frame: int, x: int, y: int) -> tuple[int, ...]:
        film.seek(frame)
        return film.convert("RGB").getpixel((int((x + 0.5) * zoom), int((y + 0.5) * zoom)))

    assert colour(0, 1, 1) == (255, 255, 255) and colour(0, 2, 1) == (0, 0, 0)  # the picture, in the sensor's middle
    red, blue, nothing = colour(0, 12 + 3, 2), colour(1, 12 + 5, 4), colour(2, 12 + 3, 2)
    assert red[0] > 2 * red[2] and blue[2] > 2 * blue[0] and len(set(nothing)) == 1
    assert colour(1, 12 + 3, 2) == colour(0, 12 + 5, 4) == nothing


def test_accuracy_on_cut_counts_is_that_of_counts_of_0_and_1(digits):
    how = {"data": DIGITS, "network": "events-conv-4", "T": 4, "tau": 1.0, "rule": "triangle", "precision": "float32"}
    schedule = training.Schedule(10, 20, 0.1, 0.9, 0.0)  # until the counts matter to the networks
    opened, cut, whole = [], [], []
    for seed in (0, 1):
        one = Experiment(**how, defense="vanilla", options={}, schedule=schedule, seed=seed)
        net = one.build()
        list(training.epochs(net, defenses.Vanilla(), digits, schedule, seed=seed, progress=False))
        opened.append(Opened(one, net.eval()))
        for x, shares in ((digits.test.pixels().clamp(0, 1), cut), (digits.test.pixels(), whole)):
            shares.append((net(x).argmax(1) == digits.test.labels).double().mean().item())
    (row,) = clean.cut_rows(opened, digits.test)
    assert row["value"] == pytest.approx(np.mean(cut)) != np.mean(whole)
    assert (row["quantity"], row["training"]) == ("mean accuracy, counts cut to [0, 1]", "vanilla")


def test_the_recordings_of_a_blank_picture_are_refused_by_name(folder, monkeypatch):
    monkeypatch.setattr(Camera, "record", lambda *_: iter([np.zeros(0, recordings.DTYPE)] * 200))
    with pytest.raises(Refused, match="mnist5k.*no events"):
        events.load(**DIGITS)
