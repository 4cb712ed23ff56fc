"""The missing work of a profile and the time it takes on this machine, from single steps that are timed now.

Nothing is downloaded, trained or evaluated: the steps run on random images of the right shape.
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
from paperlib.runs import plan
from paperlib.runs.plan import Planned
from paperlib.store import checkpoints
from paperlib.store.experiment import Experiment, Imported
from paperlib.theory.gradients import in_batches, loss_gradient
from paperlib.training import defenses
from paperlib.training.defenses import Batch
from paperlib.training.loop import Step

BATCH = 8  # images in a timed step; time grows in proportion (benchmarks/README.md)
QUICK = 1.0  # seconds; a step that takes less is timed a second time, warm


@dataclass(frozen=True)
class Bill:
    """The missing trainings and evaluations, each with its seconds on this machine; evaluations bounded from above."""

    trainings: list[tuple[Experiment, float]]
    evaluations: list[tuple[Planned, float]]

    @property
    def seconds(self) -> float:
        return sum(seconds for _, seconds in (*self.trainings, *self.evaluations))


def bill(profile: Profile, device: str) -> Bill:
    """Time one step of each kind that is missing, on `device`."""
    stopwatch = _Stopwatch(profile, checkpoints.resolve(device))
    missing = [e for e in plan.experiments(profile) if not checkpoints.is_trained(e)]
    to_train = [e for e in missing if isinstance(e, Experiment)]
    to_attack = [one for one in plan.planned(profile) if not one.is_there]
    progress = tqdm(total=len(to_train) + len(to_attack), desc="timing one step of each kind", leave=False)
    result = Bill([], [])
    with progress:
        for e in to_train:
            result.trainings.append((e, stopwatch.training(e)))
            progress.update()
        for one in to_attack:
            result.evaluations.append((one, stopwatch.evaluation(one)))
            progress.update()
    return result


class _Outline(NamedTuple):
    """The properties of the data that a step's time depends on."""

    sample: tuple[int, ...]  # shape of one
    classes: int
    train: int  # samples

    @classmethod
    def of(cls, data: dict) -> "_Outline":
        name = data["name"]
        if name in sets.OUTLINES:
            channels, pixels, classes, train = sets.OUTLINES[name]
            sample = (channels, pixels, pixels)
        elif name in events.KINDS:
            kind = events.KINDS[name]
            sample, classes, train = (data["T"], 2, kind.size, kind.size), kind.classes, kind.train
        else:
            there = datasets.load(**data)
            sample, classes, train = there.train.images.shape[1:], there.num_classes, len(there.train)
        return cls(sample, classes, min(train, data.get("train") or train))


class _Stopwatch:
    """Seconds of a profile's parts; equal steps are timed once."""

    def __init__(self, profile: Profile, device: str):
        self.profile, self.device, self.known = profile, device, {}
        self.outlines: dict[str, _Outline] = {}

    def training(self, e: Experiment) -> float:
        options = {name: value for name, value in e.options.items() if name != "lam"}
        kind = self._shape(e), e.defense, repr(options)
        if kind not in self.known:
            step = Step(self._network(e).train(), defenses.build(e.defense, e.options), e.schedule)
            batch = self._batch(e)
            self.known[kind] = self._seconds(lambda: step.move(step.loss(batch)))
        steps = self._outline(e).train // e.schedule.batch_size
        return self.known[kind] * e.schedule.batch_size / BATCH * steps * e.schedule.epochs

    def evaluation(self, one: Planned) -> float:
        looks = [self._forward(one.experiment)]  # seconds
        for member in members(one.attack):
            transferred = isinstance(member, Transfer)
            maker = member.source if transferred else one.experiment
            rule = (member.attack if transferred else member).rule
            looks.append(member.queries * self._forward(maker) + member.gradients * self._gradient(maker, rule))
        verdicts = max(len(looks) - 2, 0) * looks[0]  # a look after each attack but the first, which is counted
        return one.samples / BATCH * (sum(looks) + verdicts)

    def _forward(self, e: Experiment | Imported) -> float:
        kind = "forward", self._shape(e)
        if kind not in self.known:
            network, batch = self._network(e).eval(), self._batch(e)
            self.known[kind] = self._seconds(lambda: in_batches(network, batch.images, None))
        return self.known[kind]

    def _gradient(self, e: Experiment | Imported, rule: dict) -> float:
        kind = "gradient", self._shape(e), rule.get("name")
        if kind not in self.known:
            network, batch = self._network(e).eval(), self._batch(e)
            with network.backward_rule(**rule) if rule else nullcontext():
                self.known[kind] = self._seconds(lambda: loss_gradient(network, batch.images, batch.labels, None))
        return self.known[kind]

    def _outline(self, e: Experiment | Imported) -> _Outline:
        name = repr(e.data)
        if name not in self.outlines:
            self.outlines[name] = _Outline.of(e.data)
        return self.outlines[name]

    def _shape(self, e: Experiment | Imported) -> tuple:
        """Network, steps and sample shape, on which a pass's time depends."""
        return e.network, getattr(e, "T", self.profile.network["T"]), self._outline(e).sample

    def _network(self, e: Experiment | Imported) -> Network:
        own, (name, T, sample) = self.profile.network, self._shape(e)
        *_, channels, _, pixels = sample
        return networks.build(
            name,
            in_channels=channels,
            image_size=pixels,
            num_classes=self._outline(e).classes,
            T=T,
            tau=getattr(e, "tau", own["tau"]),
            rule=rules.build(own["rule"]),
            precision=own["precision"],
        ).to(self.device)

    def _batch(self, e: Experiment | Imported) -> Batch:
        outline = self._outline(e)
        samples = torch.rand(BATCH, *outline.sample, device=self.device)
        labels = torch.arange(BATCH, device=self.device) % outline.classes
        return Batch(samples, labels, torch.arange(BATCH), (0.0, 1.0), seed=0)

    def _seconds(self, step: Callable[[], object]) -> float:
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
    """In words, to two units at most."""
    seconds = round(seconds)
    for unit, length, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= length:
            whole, rest = divmod(seconds, length)
            return f"{whole} {unit} {rest // part} {smaller}"
    return f"{seconds} s"
