"""Data sets as networks, attacks and records see them: splits of samples, and what is known of a whole set.

Event sets (`events`) stand behind the same interface: their samples are frames of counts, (T, 2, H, W).
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from paperlib import errors
from paperlib.errors import Refused

MARGIN = 4  # pixels of padding around a random crop, as in the paper's recipe


@dataclass(frozen=True, eq=False)
class Split:
    """Part of an image set, in a seeded, stratified order: any first n hold the classes in their proportions."""

    images: Tensor  # (N, C, H, W) uint8; of events (N, T, 2, H, W)
    labels: Tensor  # (N,) int64
    index: Tensor  # (N,) int64: each sample's number inside its source (train first, then test), whatever the caps
    one: int = 255  # what is stored for a value of 1
    bounds: tuple[float, float] = (0.0, 1.0)  # of a value, for attacks
    num_classes: int | None = None  # None: not known

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """The images of `rows`, (B,) int64 or a slice, as (B, ...) float32 in the data's bounds."""
        return self.images[rows].float() / self.one

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Pixels (B, C, H, W), labels (B,), index (B,) in the split's order, or in one drawn from `generator`.

        B is `size`; the last batch has what is left.
        """
        n = len(self)
        for rows in (torch.arange(n) if generator is None else torch.randperm(n, generator=generator)).split(size):
            yield self.pixels(rows), self.labels[rows], self.index[rows]

    def take(self, n: int) -> "Split":
        """The first `n` samples; refused when there are fewer."""
        _within("take", n, len(self))
        return replace(self, images=self.images[:n], labels=self.labels[:n], index=self.index[:n])


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A data set with everything that networks, attacks and records need to know of it."""

    name: str  # as it was asked for: "mnist5k", "folder:data/cifar10-jpeg"
    title: str  # for tables and figures
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]  # per channel, for the network's normalisation
    std: tuple[float, ...]
    crops_and_flips: bool  # whether the recipe's augmentation suits these images (digits and clothes: no)
    sha256: str  # over the bytes of images and labels of train, validation and test, in order
    bounds: tuple[float, float] = (0.0, 1.0)  # of a pixel, for attacks

    def __post_init__(self):
        for part in ("train", "validation", "test"):  # bounds and classes travel with the samples
            known = {"bounds": self.bounds, "num_classes": len(self.classes)}
            object.__setattr__(self, part, replace(getattr(self, part), **known))

    in_channels = property(lambda self: self.train.images.shape[-3])
    image_size = property(lambda self: self.train.images.shape[-1])  # pixels; images are square
    num_classes = property(lambda self: len(self.classes))

    def augmented(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """A training batch (B, ...) as the recipe varies it."""
        return augment(images, generator) if self.crops_and_flips else images


@dataclass(frozen=True)
class Source:
    """What is known before an image is read, so that a capped folder decodes only the files it needs."""

    title: str
    classes: tuple[str, ...]
    labels: np.ndarray  # (N,) int64, its own test set last
    tested: int  # size of its own test set, 0 if it has none
    read: Callable[[np.ndarray], np.ndarray]  # rows (n,) → (n, C, H, W) uint8
    known: tuple[tuple[float, ...], tuple[float, ...]] | None = None  # mean and std; None: computed from train
    crops_and_flips: bool = False
    held_out: int = 5  # without a test set of its own one sample in so many is for testing


class Outline(NamedTuple):
    """What the time of a training depends on, for a set that must be downloaded before it can be read."""

    channels: int
    pixels: int
    classes: int
    train: int  # samples


SOURCES: dict[str, Callable[[], Source]] = {}  # by the name of the set
OUTLINES: dict[str, Outline] = {}


def register(name: str, *, outline: Outline | None = None):
    """Decorator: make a function without arguments, which returns a `Source`, known as the image set `name`.

    Refuses a name that another function has.
    """

    def remember(function: Callable[[], Source]) -> Callable[[], Source]:
        errors.registered_once("image set", name, SOURCES.get(name), function)
        SOURCES[name] = function
        if outline:
            OUTLINES[name] = outline
        return function

    return remember


def read(
    name: str, source: Source, caps: Sequence[int | None], *, one: int = Split.one
) -> tuple[dict[str, Split], str]:
    """Train, validation and test of a source, each up to its cap, and the SHA-256 over all of it.

    `one` is what the source gives for a value of 1.  Refuses caps above what is there.
    """
    parts = _divide(source)
    for (part, rows), cap in zip(parts.items(), caps, strict=True):
        _within(f"{name}, {part}", len(rows) if cap is None else cap, len(rows))
        parts[part] = rows[:cap]
    values = torch.from_numpy(np.ascontiguousarray(source.read(np.concatenate([*parts.values()]))))
    split, digest = {}, hashlib.sha256()
    for (part, rows), own in zip(parts.items(), values.split([*map(len, parts.values())]), strict=True):
        split[part] = Split(own, torch.from_numpy(source.labels[rows]), torch.from_numpy(rows), one)
        digest.update(own.numpy())
        digest.update(source.labels[rows])
    return split, digest.hexdigest()


def _divide(source: Source) -> dict[str, np.ndarray]:
    """The row numbers of each part, in stratified order."""
    own = len(source.labels) - source.tested
    order, test = _spread(source.labels[:own]), own + _spread(source.labels[own:])
    if not source.tested:
        test, order = np.split(order, [own // source.held_out])
    validation, train = np.split(order, [min(max(1, own // 10), 5000)])
    return {"train": train, "validation": validation, "test": test}


def _spread(labels: np.ndarray) -> np.ndarray:
    """A seeded order of the rows of `labels` (N,) in which every stretch holds the classes in their proportions."""
    shuffled = np.random.RandomState(0).permutation(len(labels))  # numpy's frozen stream: the same in every version
    place = np.empty(len(labels))
    for label in np.unique(labels):
        own = np.flatnonzero(labels[shuffled] == label)
        place[own] = (np.arange(len(own)) + 0.5) / len(own)  # evenly over (0, 1)
    return shuffled[np.argsort(place, kind="stable")]


def check(images: Tensor, labels: Tensor, *, bounds: tuple[float, float], num_classes: int | None) -> None:
    """Refuse images (B, ...) with a value outside `bounds` or NaN, and labels (B,) outside 0..`num_classes` - 1."""
    _inside("pixel", images, bounds)
    _inside("label", labels, (0, np.inf if num_classes is None else num_classes - 1))


def _inside(what: str, values: Tensor, bounds: tuple[float, float]) -> None:
    low, high = bounds
    bad = values[~((values >= low) & (values <= high))]  # so written, NaN is bad too
    if len(bad):
        raise Refused(f"A {what} is {bad[0].item()}; every {what} must lie from {low} to {high}.")


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """A random crop after padding by 4 zeros (black), then a mirror image with probability 1/2, per sample.

    As torchvision's RandomCrop(padding=4) and RandomHorizontalFlip do before normalisation.  `images`: (B, C, H, W) in
    [0, 1].  Returns the same shape; the draws come from `generator`, whose device may differ from the images'.
    """
    b, c, h, w = images.shape
    device = generator.device
    down, right = torch.randint(2 * MARGIN + 1, (2, b, 1), generator=generator, device=device)  # (B, 1) each
    flip = torch.rand(b, 1, generator=generator, device=device) < 0.5
    row, column = torch.arange(h, device=device), torch.arange(w, device=device)
    row, column = down + row, right + torch.where(flip, column.flip(0), column)  # (B, H), (B, W) in the padded image
    sample, channel = torch.arange(b)[:, None, None, None], torch.arange(c)[:, None, None]
    padded = torch.nn.functional.pad(images, [MARGIN] * 4)
    return padded[tuple(i.to(images.device) for i in (sample, channel, row[:, None, :, None], column[:, None, None]))]


def _within(what: str, asked: int, there: int) -> None:
    if not (type(asked) is int and 1 <= asked <= there):
        raise Refused(f"{what}: {asked!r} samples were asked for; there can be 1 to {there}.")
