"""Experiments: everything that determines a trained network, and the key under which it is kept."""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch

from paperlib import arithmetic, errors, files, networks, paths
from paperlib.data import datasets, events
from paperlib.data.sets import ImageSet
from paperlib.networks import Network, rules
from paperlib.store import released
from paperlib.training import defenses
from paperlib.training.loop import Schedule

WEIGHTS = ("lam", "beta")  # options of a training that weigh its penalty
RECIPE = 3  # raised whenever a change of the code changes numbers; tests/test_recipe.py compares losses to notice it
LATER = {  # newer fields, which at these values are in no key, for so were all networks before
    "detach_reset": False,
    "warm_up": 0,
    "selection": {},
    "arithmetic": arithmetic.NATIVE,
}


class _Stored:
    """What all experiments have in common: data, and a key, which names them on disk and in records."""

    data: dict
    network: str
    arithmetic: str

    key = cached_property(lambda self: files.hashed(self.content))
    folder = property(lambda self: paths.CHECKPOINTS / self.key)
    is_stochastic = property(lambda self: self.network.startswith(networks.POISSON))  # draws its input's spikes
    is_of_events = property(lambda self: self.network.startswith(networks.EVENTS))  # its samples are frames of events

    @property
    def content(self) -> dict:
        """All fields, but those of `LATER` only where they have other values, so that older keys do not change."""

        def without_later(pairs: list[tuple]) -> dict:
            return {name: value for name, value in pairs if name not in LATER or value != LATER[name]}

        return asdict(self, dict_factory=without_later)

    def load_data(self) -> ImageSet:
        return datasets.load(**self.data)


@dataclass(frozen=True)
class Experiment(_Stored):
    """Everything that determines a trained network."""

    data: dict  # arguments of `datasets.load`
    network: str  # a name that `networks.build` knows
    T: int
    tau: float
    rule: str  # backward rule of the training
    precision: str  # of the convolutions, one of `networks.PRECISIONS`
    defense: str  # a name that `defenses.build` knows
    options: dict  # of the defense
    schedule: Schedule
    seed: int
    recipe: int = RECIPE
    detach_reset: bool = False
    arithmetic: str = arithmetic.PORTABLE  # of training and evaluation, one of `arithmetic.NAMES`

    def __post_init__(self):
        networks.architecture(self.network)
        errors.count("T", self.T, at_most=errors.STEPS)
        errors.unit("tau", self.tau)
        object.__setattr__(self, "tau", float(self.tau))  # 1 and 1.0 are the same experiment
        rules.build(self.rule)
        errors.one_of("precision", self.precision, networks.PRECISIONS)
        errors.one_of("arithmetic", self.arithmetic, arithmetic.NAMES)
        defenses.build(self.defense, self.options)
        errors.count("seed", self.seed, at_least=0)
        errors.one_of("detach_reset", self.detach_reset, (False, True))
        object.__setattr__(self, "detach_reset", bool(self.detach_reset))  # 1 and True as well
        networks.refuse_time(self.network, self.T, self.tau, self.detach_reset)
        refuse_misfit(self.data, self.network, self.T)

    @property
    def weight(self) -> float:
        """The weight of the training's penalty, the first of `WEIGHTS` among its options; 0 where it has none."""
        name = weight_name(self.options)
        return float(self.options[name]) if name else 0.0

    @property
    def labels(self) -> dict:
        """The labels of the training in a record's row, without the seed."""
        lam = {"lam": self.options["lam"]} if "lam" in self.options else {}
        return {"training": self.defense} | lam

    def __str__(self) -> str:
        lam = f", λ = {self.options['lam']:g}" if "lam" in self.options else ""
        return f"{self.defense}{lam}, seed {self.seed}"

    def build(self) -> Network:
        """The untrained network.  Its weights are drawn from the seed; torch's global generator is left alone."""
        data = self.load_data()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            names = "in_channels", "image_size", "num_classes", "mean", "std"
            options = {name: getattr(data, name) for name in names} | {"rule": rules.build(self.rule)}
            options |= {name: getattr(self, name) for name in ("T", "tau", "detach_reset", "precision")}
            return networks.build(self.network, **options)


@dataclass(frozen=True)
class Imported(_Stored):
    """A network that the released code has trained, from a file."""

    sha256: str  # of the file
    network: str  # "vgg11" or "wrn16"
    dataset: str  # "cifar10" or "cifar100", which decides the number of classes and the normalisation
    defense: str  # "vanilla", "sr", "at" or "at+sr", as the user says; the file holds neither it nor λ and schedule
    data: dict  # arguments of `datasets.load`, for the data on which it is evaluated
    recipe: int = RECIPE
    arithmetic: str = arithmetic.NATIVE  # of the evaluation
    seed: ClassVar[int] = 42  # the seed of the released code (section 4 of the paper notes)

    labels = property(lambda self: {"training": self.defense})  # of the training, in a record's row

    def __str__(self) -> str:
        return f"{self.defense}, imported from {self.sha256[:8]}"

    def build(self) -> Network:
        return released.empty(self.network, self.dataset)


AnyExperiment = Experiment | Imported


class Opened(NamedTuple):
    """A trained network in eval mode, with its experiment."""

    experiment: AnyExperiment
    network: Network


def weight_name(options: dict) -> str | None:
    """The option of a training that weighs its penalty, the first of `WEIGHTS` among `options`; None without one."""
    return next((name for name in WEIGHTS if name in options), None)


def refuse_misfit(data: dict, network: str, T: int) -> None:
    """Refuse a network that cannot take the data: events need an "events-" network with their T, images any other."""
    if not isinstance(data, dict) or "name" not in data:
        raise errors.Refused(f"data is {data!r}; it must be a table with the name of a data set.")
    name, of_events = data["name"], events.is_known(data["name"])
    if of_events != network.startswith(networks.EVENTS):
        held, needed = ("events", "with") if of_events else ("images", "without")
        needed = f"it needs one {needed} {networks.EVENTS} before its name"
        raise errors.Refused(f"{name} holds {held}, which the network {network} cannot take; {needed}.")
    if of_events and (frames := data.get("T")) != T:
        raise errors.Refused(f"The network's T is {T} and the data's {frames} frames a sample; they must be equal.")
