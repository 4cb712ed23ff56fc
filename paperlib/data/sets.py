"""Data sets: splits of samples, whole sets, and the registry by which a set is known under a name."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from paperlib import errors
from paperlib.errors import Refused

PARTS = ("train", "validation", "test")
MARGIN = 4  # pixels of padding on each side before a random crop, as in the paper's recipe


@dataclass(frozen=True, eq=False)
class Split:
    """Part of a data set.  Its order is seeded and stratified: the first n samples hold the classes in proportion."""

    images: Tensor  # (N, C, H, W) uint8; for events (N, T, 2, H, W)
    labels: Tensor  # (N,) int64
    index: Tensor  # (N,) int64: each sample's number in its source (train first, then test); caps do not change it
    one: int = 255  # the stored number that stands for a value of 1
    bounds: tuple[float, float] = (0.0, 1.0)  # smallest and largest value, for attacks
    num_classes: int | None = None  # None: not known

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """The images of `rows`, (B,) int64 or a slice, as (B, ...) float32 within `bounds`."""
        return self.images[rows].float() / self.one

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Pixels (size, C, H, W), labels, index in the split's order, or in one drawn from `generator`."""
        n = len(self)
        order = torch.arange(n) if generator is None else torch.randperm(n, generator=generator)
        for rows in order.split(size):
            yield self.pixels(rows), self.labels[rows], self.index[rows]

    def to(self, device: str | torch.device) -> "Split":
        """This split with its images and labels on a device; the index stays where it is."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def take(self, n: int) -> "Split":
        """The first `n` samples; refused where there are fewer."""
        _refuse_count("take", n, len(self))
        return replace(self, images=self.images[:n], labels=self.labels[:n], index=self.index[:n])


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A data set with all that networks, attacks and records need to know of it."""

    name: str  # the one that was given to `load`: "mnist5k", "folder:data/cifar10-jpeg"
    title: str  # for tables and figures
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]  # per channel, for the network's normalisation
    std: tuple[float, ...]
    crops_and_flips: bool  # whether the recipe's augmentation suits these images (not digits and clothes)
    sha256: str  # over the bytes of images and labels of train, validation and test, in this order
    bounds: tuple[float, float] = (0.0, 1.0)  # smallest and largest value of a pixel, for attacks

    def __post_init__(self):
        for part in PARTS:  # so a split can be attacked without its set
            split = replace(getattr(self, part), bounds=self.bounds, num_classes=len(self.classes))
            object.__setattr__(self, part, split)

    in_channels = property(lambda self: self.train.images.shape[-3])
    image_size = property(lambda self: self.train.images.shape[-1])  # pixels; images are square
    num_classes = property(lambda self: len(self.classes))

    def augmented(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """A training batch (B, ...) under the recipe's augmentation, if the set has one."""
        return augment(images, generator) if self.crops_and_flips else images


@dataclass(frozen=True)
class Source:
    """A set of which no image has been read yet, so that a capped folder decodes only the files it needs."""

    title: str  # for tables and figures
    classes: tuple[str, ...]
    labels: np.ndarray  # (N,) int64; those of its own test set come last
    tested: int  # size of its own test set, 0 if it has none
    read: Callable[[np.ndarray], np.ndarray]  # rows (n,) → images (n, C, H, W) uint8
    known: tuple[tuple[float, ...], tuple[float, ...]] | None = None  # mean and std per channel; None: taken from train
    crops_and_flips: bool = False  # see `ImageSet`
    held_out: int = 5  # where it has no test set of its own, one sample in `held_out` is for testing


class Outline(NamedTuple):
    """The properties that decide how long a training takes, for a set that must be downloaded before it can be read."""

    channels: int
    pixels: int  # on each side
    classes: int
    train: int  # samples


SOURCES: dict[str, Callable[[], Source]] = {}  # by the name of the set
OUTLINES: dict[str, Outline] = {}  # by the name of the set


def register(name: str, *, outline: Outline | None = None):
    """Decorator of a function without arguments that returns a `Source`: `datasets.load` then knows it as `name`."""

    def remember(function: Callable[[], Source]) -> Callable[[], Source]:
        errors.registered_once("image set", name, SOURCES.get(name), function)
        SOURCES[name] = function
        if outline:
            OUTLINES[name] = outline
        return function

    return remember


def read(name: str, source: Source, caps: tuple, *, one: int = Split.one) -> tuple[dict[str, Split], str]:
    """Train, validation and test of a source, each up to its cap, and the SHA-256 over them.  `one`: see `Split`."""
    parts = _divide(source)
    for (part, rows), cap in zip(parts.items(), caps, strict=True):
        _refuse_count(f"{name}, {part}", len(rows) if cap is None else cap, len(rows))
        parts[part] = rows[:cap]
    values = torch.from_numpy(np.ascontiguousarray(source.read(np.concatenate([*parts.values()]))))
    splits, digest = {}, hashlib.sha256()
    for (part, rows), images in zip(parts.items(), values.split([*map(len, parts.values())]), strict=True):
        labels = source.labels[rows]
        splits[part] = Split(images, torch.from_numpy(labels), torch.from_numpy(rows), one)
        digest.update(images.numpy())
        digest.update(labels)
    return splits, digest.hexdigest()


def refuse_caps(name: str, *caps: object) -> None:
    """Refuse caps of train, validation and test that are no counts; None stands for no cap."""
    for part, cap in zip(PARTS, caps, strict=True):
        if cap is not None and (type(cap) is not int or cap < 1):
            raise Refused(f"{name}, {part}: {cap!r} samples were asked for; there can be a whole number from 1 on.")


def _divide(source: Source) -> dict[str, np.ndarray]:
    """The row numbers of each part, in stratified order."""
    count = len(source.labels) - source.tested  # samples outside the source's own test set, which come first
    order, test = _spread(source.labels[:count]), count + _spread(source.labels[count:])
    if not source.tested:
        test, order = np.split(order, [count // source.held_out])
    validation, train = np.split(order, [min(max(1, count // 10), 5000)])
    return {"train": train, "validation": validation, "test": test}


def _spread(labels: np.ndarray) -> np.ndarray:
    """A seeded order of the rows of `labels` (N,) in which every stretch holds the classes in their proportions."""
    shuffled = np.random.RandomState(0).permutation(len(labels))  # its stream is the same in every version of numpy
    places = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels[shuffled] == label)
        places[members] = (np.arange(len(members)) + 0.5) / len(members)  # evenly over (0, 1)
    return shuffled[np.argsort(places, kind="stable")]


def check(images: Tensor, labels: Tensor, *, bounds: tuple[float, float], num_classes: int | None) -> None:
    """Refuse images (B, ...) with a value outside `bounds` or NaN, and labels (B,) outside 0..`num_classes` - 1."""
    last = np.inf if num_classes is None else num_classes - 1
    for what, values, low, high in (("pixel", images, *bounds), ("label", labels, 0, last)):
        bad = values[~((values >= low) & (values <= high))]  # every comparison with NaN is false, so NaN is bad too
        if len(bad):
            raise Refused(f"A {what} is {bad[0].item()}; every {what} must lie from {low} to {high}.")


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Torchvision's RandomCrop(padding=MARGIN), then RandomHorizontalFlip, of images (B, C, H, W) in [0, 1].

    `generator` may be on another device than the images.
    """
    b, c, h, w = images.shape
    device = generator.device
    down, right = torch.randint(2 * MARGIN + 1, (2, b, 1), generator=generator, device=device)  # (B, 1) each
    flips = torch.rand(b, 1, generator=generator, device=device) < 0.5
    rows, columns = down + torch.arange(h, device=device), torch.arange(w, device=device)  # (B, H), in the padded image
    columns = right + torch.where(flips, columns.flip(0), columns)  # (B, W)
    samples, channels = torch.arange(b)[:, None, None, None], torch.arange(c)[:, None, None]
    padded = torch.nn.functional.pad(images, [MARGIN] * 4)
    index = (samples, channels, rows[:, None, :, None], columns[:, None, None])
    return padded[tuple(part.to(images.device) for part in index)]


def _refuse_count(what: str, count: int, available: int) -> None:
    if not (type(count) is int and 1 <= count <= available):
        raise Refused(f"{what}: {count!r} samples were asked for; there can be 1 to {available}.")
