"""The missing work of a profile and the time that it takes on this machine, from single steps that are timed.

The steps run on random images of the right shape; nothing is downloaded, trained or evaluated.  Every network is timed
in a plain step of training, a forward pass and a gradient.  What other trainings and other backward rules cost beyond
that is timed on the profile's own network alone, and is taken to be the same multiple on the others.
"""

import heapq
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from tqdm import tqdm

from paperlib.attacks.attack import Attack
from paperlib.attacks.ensembles import Transfer, members
from paperlib.data import datasets, events, sets
from paperlib.networks import network as networks
from paperlib.networks import rules
from paperlib.networks.network import Network
from paperlib.profiles import Profile
from paperlib.runs import evaluate
from paperlib.runs.plan import Plan, Planned
from paperlib.store import checkpoints
from paperlib.store.experiment import AnyExperiment, Experiment
from paperlib.theory.gradients import in_batches, loss_gradient
from paperlib.training import defenses
from paperlib.training.defenses import Batch
from paperlib.training.loop import Schedule, Step, passes

BATCH = 8  # images in a timed step; the time grows in proportion to them (benchmarks/README.md)
QUICK = 1.0  # seconds; a step that takes less is timed a second time, after this warm-up


@dataclass(frozen=True)
class Bill:
    """The missing trainings and evaluations, each with its seconds on this machine; for an evaluation at most these."""

    trainings: list[tuple[Experiment, float]]
    evaluations: list[tuple[Planned, float]]

    @property
    def seconds(self) -> float:
        """The sum of all."""
        return sum(seconds for _, seconds in (*self.trainings, *self.evaluations))

    def stages(self) -> list[list[float]]:
        """The seconds of each job of `train` and of each one of `evaluate`, which begins after the last training.

        A job is a training, or a part of an evaluation.
        """
        parts = [
            seconds * len(part) / planned.samples
            for planned, seconds in self.evaluations
            for part in evaluate.parts(planned)
        ]
        return [[seconds for _, seconds in self.trainings], parts]


def makespan(jobs: Iterable[float], workers: int) -> float:
    """The seconds that `workers` take for jobs of so many seconds: the longest waiting one goes to the first free one.

    At most 4/3 - 1/(3·workers) times the shortest possible (Graham 1969, SIAM J. Appl. Math. 17:416).
    """
    free_at = [0.0] * workers  # a heap: the first is the smallest
    for seconds in sorted(jobs, reverse=True):
        heapq.heapreplace(free_at, free_at[0] + seconds)
    return max(free_at)


def bill(plan: Plan, device: str) -> Bill:
    """Time one step of each kind that is missing from `plan`, on `device`."""
    stopwatch = _Stopwatch(plan.profile, checkpoints.resolve(device))
    to_train = [e for e in plan.networks if isinstance(e, Experiment) and not checkpoints.is_trained(e)]
    to_evaluate = [planned for planned in plan.evaluations if not planned.is_there]
    kinds = [kind for experiment in to_train for kind in stopwatch.of_training(experiment)]
    kinds += [kind for planned in to_evaluate for kind in stopwatch.of_evaluation(planned)]
    with tqdm(sorted(set(kinds), key=kinds.index), desc="steps timed", leave=False) as progress:
        for kind in progress:
            progress.set_postfix_str(str(kind))  # it is shown while the step runs
            stopwatch.time(kind)
    return Bill(
        [(experiment, stopwatch.training(experiment)) for experiment in to_train],
        [(planned, stopwatch.evaluation(planned)) for planned in to_evaluate],
    )


class _Outline(NamedTuple):
    """The properties of the data that the time of a step depends on."""

    sample: tuple[int, ...]  # the shape of one sample
    classes: int
    train: int  # training samples

    @classmethod
    def of(cls, data: dict) -> "_Outline":
        """The outline of `data`, arguments of `datasets.load`; reads them only if their outline is not known."""
        name = data["name"]
        if name in sets.OUTLINES:
            channels, pixels, classes, train = sets.OUTLINES[name]
            sample = (channels, pixels, pixels)
        elif name in events.KINDS:
            kind = events.KINDS[name]
            sample, classes, train = (data["T"], 2, kind.size, kind.size), kind.classes, kind.train
        else:
            loaded = datasets.load(**data)
            sample, classes, train = loaded.train.images.shape[1:], loaded.num_classes, len(loaded.train)
        return cls(sample, classes, min(train, data.get("train") or train))


class _Shape(NamedTuple):
    """Properties of a network that decide how long a pass takes."""

    network: str
    T: int
    sample: tuple[int, ...]  # the shape of one sample
    classes: int


class _Kind(NamedTuple):
    """A step that is timed once."""

    step: str  # "training", "forward" or "gradient"
    shape: _Shape
    variant: tuple = ()  # of training or of backward rule; that of a plain step is empty

    def __str__(self) -> str:
        return f"{self.step} {self.shape.network}, T = {self.shape.T}"


class _Stopwatch:
    """The seconds of a profile's trainings and evaluations, from steps that `time` has timed."""

    def __init__(self, profile: Profile, device: str):
        self.profile, self.device = profile, device
        self.known: dict[_Kind, float] = {}
        self.rules: dict[tuple, dict] = {(): {}}  # variant → backward rule; {} is the network's own
        self.trainings: dict[tuple, tuple[str, dict, Schedule]] = {}  # variant → defense, options, schedule
        self.variants: dict[str, tuple] = {}  # of trainings whose passes are counted already
        self.outlines: dict[str, _Outline] = {}
        self.built: tuple[_Shape, Network] | None = None  # the last network
        vanilla = profile.experiments("vanilla", options={}, seeds=[0])[0]
        self.trainings[()] = "vanilla", {}, vanilla.schedule
        self.own = self._shape(vanilla)  # on which variants are timed

    def of_training(self, experiment: Experiment) -> list[_Kind]:
        """The kinds of steps from which the time of a training follows."""
        return self._needed("training", self._shape(experiment), self._variant(experiment))

    def of_evaluation(self, planned: Planned) -> list[_Kind]:
        """The kinds of steps from which the time of an evaluation follows."""
        kinds = [_Kind("forward", self._shape(planned.experiment))]
        for attack, network in self._attacks(planned):
            kinds += [_Kind("forward", self._shape(network))] if attack.queries else []
            if attack.gradients:
                kinds += self._needed("gradient", self._shape(network), self._rule(attack.rule))
        return kinds

    def _needed(self, step: str, shape: _Shape, variant: tuple) -> list[_Kind]:
        plain, own = _Kind(step, shape), _Kind(step, self.own)
        return [plain, own, _Kind(step, self.own, variant)] if variant else [plain]

    def training(self, experiment: Experiment) -> float:
        """The seconds of a whole training."""
        schedule = experiment.schedule
        steps = self._outline(experiment.data).train // schedule.batch_size
        step = self._seconds_of("training", self._shape(experiment), self._variant(experiment))
        return step * schedule.batch_size / BATCH * steps * schedule.epochs

    def evaluation(self, planned: Planned) -> float:
        """The most seconds of an evaluation: as if every sample were attacked to the last step."""
        pairs = self._attacks(planned)
        verdicts = max(len(pairs), 1)  # a forward pass after each attack, or the one on clean samples
        seconds = verdicts * self.known[_Kind("forward", self._shape(planned.experiment))]
        for attack, network in pairs:
            shape = self._shape(network)
            if attack.queries:
                seconds += attack.queries * self.known[_Kind("forward", shape)]
            if attack.gradients:
                seconds += attack.gradients * self._seconds_of("gradient", shape, self._rule(attack.rule))
        return planned.samples / BATCH * seconds

    def _seconds_of(self, step: str, shape: _Shape, variant: tuple) -> float:
        """The seconds of a step: those of a plain one, times what the variant costs on the profile's own network."""
        plain = self.known[_Kind(step, shape)]
        if not variant:
            return plain
        return plain * self.known[_Kind(step, self.own, variant)] / self.known[_Kind(step, self.own)]

    def time(self, kind: _Kind) -> None:
        """Time one step of a kind."""
        network, batch = self._network(kind.shape), self._batch(kind.shape)
        if kind.step == "training":
            defense, options, schedule = self.trainings[kind.variant]
            step = Step(network.train(), defenses.build(defense, options), schedule)
            self.known[kind] = self._seconds(lambda: step.move(step.loss(batch)))
        elif kind.step == "forward":
            network.eval()
            self.known[kind] = self._seconds(lambda: in_batches(network, batch.images, None))
        else:
            network.eval()
            rule = self.rules[kind.variant]
            with network.backward_rule(**rule) if rule else nullcontext():
                self.known[kind] = self._seconds(lambda: loss_gradient(network, batch.images, batch.labels, None))

    def _variant(self, experiment: Experiment) -> tuple:
        """The variant of a training: its passes, and whether it moves weights after a step; () if it is plain."""
        name = f"{experiment.defense} {experiment.options}"
        if name not in self.variants:
            defense = defenses.build(experiment.defense, experiment.options)
            variant = (*passes(defense), hasattr(defense, "after_step"))
            self.variants[name] = () if variant == (1, 1, False) else variant
            self.trainings.setdefault(
                self.variants[name], (experiment.defense, experiment.options, experiment.schedule)
            )
        return self.variants[name]

    def _rule(self, rule: dict) -> tuple:
        """The variant of a gradient: the name of its backward rule, whose widths cost the same; () for the own rule."""
        variant = (rule["name"],) if rule else ()
        self.rules.setdefault(variant, rule)
        return variant

    def _attacks(self, planned: Planned) -> list[tuple[Attack, AnyExperiment]]:
        """Each attack of an evaluation with the network that it goes through."""
        return [
            (attack.attack, attack.source) if isinstance(attack, Transfer) else (attack, planned.experiment)
            for attack in members(planned.attack)
        ]

    def _outline(self, data: dict) -> _Outline:
        name = repr(data)
        if name not in self.outlines:
            self.outlines[name] = _Outline.of(data)
        return self.outlines[name]

    def _shape(self, experiment: AnyExperiment) -> _Shape:
        settings, outline = self.profile.network, self._outline(experiment.data)
        T = getattr(experiment, "T", settings["T"])
        return _Shape(experiment.network, T, tuple(outline.sample), outline.classes)

    def _network(self, shape: _Shape) -> Network:
        """A network of that shape with random weights; the last one again where it has the shape."""
        if self.built is None or self.built[0] != shape:
            settings, (*_, channels, _, pixels) = self.profile.network, shape.sample
            network = networks.build(
                shape.network,
                in_channels=channels,
                image_size=pixels,
                num_classes=shape.classes,
                T=shape.T,
                tau=1.0,  # a leak costs no time
                rule=rules.build(settings["rule"]),
                precision=settings["precision"],
            )
            self.built = shape, network.to(self.device)
        return self.built[1]

    def _batch(self, shape: _Shape) -> Batch:
        """`BATCH` random samples."""
        samples = torch.rand(BATCH, *shape.sample, device=self.device)
        labels = torch.arange(BATCH, device=self.device) % shape.classes
        return Batch(samples, labels, torch.arange(BATCH), (0.0, 1.0), seed=0)

    def _seconds(self, step: Callable[[], object]) -> float:
        """The seconds that `step` takes; if it is quick, the second time."""
        for _ in range(2):
            started = time.perf_counter()
            step()
            if self.device == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - started
            if seconds > QUICK:
                break
        return seconds


def shared(bills: Iterable[Bill], workers: int) -> str:
    """A sentence: what `workers` like the one that was timed take for all `bills`, and what no number of them can beat.

    The notebooks' own work, which they do on what is trained and evaluated, is not in it.
    """
    stages = [sum(stage, []) for stage in zip(*(bill.stages() for bill in bills), strict=True)]
    training, evaluation = (makespan(stage, workers) for stage in stages)
    longest, part = (max(stage, default=0.0) for stage in stages)
    whole = training + evaluation
    idle = 1 - sum(map(sum, stages)) / (workers * whole)
    return (
        f"On {workers:,} workers like this one {duration(whole)}, {idle:.0%} of it idle: trainings "
        f"{duration(training)}, then evaluations {duration(evaluation)} at most. The longest training takes "
        f"{duration(longest)} and the longest part of an evaluation {duration(part)}, so no number of workers ends "
        f"before {duration(longest + part)}."
    )


def duration(seconds: float) -> str:
    """`seconds` in words, in at most two units: "2 h 5 min"."""
    seconds = round(seconds)
    for unit, length, smaller_unit, smaller in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= length:
            whole, rest = divmod(seconds, length)
            return f"{whole} {unit} {rest // smaller} {smaller_unit}"
    return f"{seconds} s"
