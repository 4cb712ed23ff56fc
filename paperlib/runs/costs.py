"""The missing work of a profile and the time that it takes on this machine, from single steps that are timed.

The steps run on random images of the right shape; nothing is downloaded, trained or evaluated.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from tqdm import tqdm

from paperlib.attacks.ensembles import Transfer, members
from paperlib.data import datasets, events, sets
from paperlib.networks import network as networks
from paperlib.networks import rules
from paperlib.networks.network import Network
from paperlib.profiles import Profile
from paperlib.runs.plan import Plan, Planned
from paperlib.store import checkpoints
from paperlib.store.experiment import AnyExperiment, Experiment
from paperlib.theory.gradients import in_batches, loss_gradient
from paperlib.training import defenses
from paperlib.training.defenses import Batch
from paperlib.training.loop import Step

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


def bill(plan: Plan, device: str) -> Bill:
    """Time one step of each kind that is missing from `plan`, on `device`."""
    stopwatch = _Stopwatch(plan.profile, checkpoints.resolve(device))
    to_train = [e for e in plan.networks if isinstance(e, Experiment) and not checkpoints.is_trained(e)]
    to_evaluate = [planned for planned in plan.evaluations if not planned.is_there]
    result = Bill([], [])
    with tqdm(total=len(to_train) + len(to_evaluate), desc="timing one step of each kind", leave=False) as progress:
        for experiment in to_train:
            result.trainings.append((experiment, stopwatch.training(experiment)))
            progress.update()
        for planned in to_evaluate:
            result.evaluations.append((planned, stopwatch.evaluation(planned)))
            progress.update()
    return result


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


class _Stopwatch:
    """The seconds of a profile's trainings and evaluations; equal steps are timed once."""

    def __init__(self, profile: Profile, device: str):
        self.profile, self.device = profile, device
        self.known: dict[tuple, float] = {}  # kind of step → seconds
        self.outlines: dict[str, _Outline] = {}

    def training(self, experiment: Experiment) -> float:
        """The seconds of a whole training."""
        schedule = experiment.schedule
        options = {name: value for name, value in experiment.options.items() if name != "lam"}
        kind = self._shape(experiment), experiment.defense, repr(options)
        if kind not in self.known:
            defense = defenses.build(experiment.defense, experiment.options)
            step, batch = Step(self._network(experiment).train(), defense, schedule), self._batch(experiment)
            self.known[kind] = self._seconds(lambda: step.move(step.loss(batch)))
        steps = self._outline(experiment).train // schedule.batch_size
        return self.known[kind] * schedule.batch_size / BATCH * steps * schedule.epochs

    def evaluation(self, planned: Planned) -> float:
        """The most seconds of an evaluation: as if every sample were attacked to the last step."""
        attacks = members(planned.attack)
        verdicts = max(len(attacks), 1)  # a forward pass after each attack, or the one on clean samples
        seconds = verdicts * self._forward(planned.experiment)
        for attack in attacks:
            if isinstance(attack, Transfer):
                network, rule = attack.source, attack.attack.rule
            else:
                network, rule = planned.experiment, attack.rule
            seconds += attack.queries * self._forward(network) + attack.gradients * self._gradient(network, rule)
        return planned.samples / BATCH * seconds

    def _forward(self, experiment: AnyExperiment) -> float:
        """The seconds of a forward pass of `BATCH` samples."""
        kind = "forward", self._shape(experiment)
        if kind not in self.known:
            network, batch = self._network(experiment).eval(), self._batch(experiment)
            self.known[kind] = self._seconds(lambda: in_batches(network, batch.images, None))
        return self.known[kind]

    def _gradient(self, experiment: AnyExperiment, rule: dict) -> float:
        """The seconds of a gradient of `BATCH` samples by the backward rule `rule`; {} is the network's own."""
        kind = "gradient", self._shape(experiment), rule.get("name")
        if kind not in self.known:
            network, batch = self._network(experiment).eval(), self._batch(experiment)
            with network.backward_rule(**rule) if rule else nullcontext():
                self.known[kind] = self._seconds(lambda: loss_gradient(network, batch.images, batch.labels, None))
        return self.known[kind]

    def _outline(self, experiment: AnyExperiment) -> _Outline:
        name = repr(experiment.data)
        if name not in self.outlines:
            self.outlines[name] = _Outline.of(experiment.data)
        return self.outlines[name]

    def _shape(self, experiment: AnyExperiment) -> tuple:
        """Network, T and shape of a sample, on which the time of a pass depends."""
        T = getattr(experiment, "T", self.profile.network["T"])
        return experiment.network, T, self._outline(experiment).sample

    def _network(self, experiment: AnyExperiment) -> Network:
        """A network of the same shape with random weights."""
        settings = self.profile.network
        name, T, (*_, channels, _, pixels) = self._shape(experiment)
        return networks.build(
            name,
            in_channels=channels,
            image_size=pixels,
            num_classes=self._outline(experiment).classes,
            T=T,
            tau=getattr(experiment, "tau", settings["tau"]),
            rule=rules.build(settings["rule"]),
            precision=settings["precision"],
        ).to(self.device)

    def _batch(self, experiment: AnyExperiment) -> Batch:
        """`BATCH` random samples."""
        outline = self._outline(experiment)
        samples = torch.rand(BATCH, *outline.sample, device=self.device)
        labels = torch.arange(BATCH, device=self.device) % outline.classes
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


def duration(seconds: float) -> str:
    """`seconds` in words, in at most two units: "2 h 5 min"."""
    seconds = round(seconds)
    for unit, length, smaller_unit, smaller in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= length:
            whole, rest = divmod(seconds, length)
            return f"{whole} {unit} {rest // smaller} {smaller_unit}"
    return f"{seconds} s"
