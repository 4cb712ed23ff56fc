"""Rows of the cost of a training step, counted and timed, and of whole trainings beside their accuracy under attack."""

import gc
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from paperlib import errors, records
from paperlib.attacks import evaluation
from paperlib.measures import statistics
from paperlib.measures.accuracy import accuracy_rows, difference_rows, mean_rows
from paperlib.measures.rows import by_labels, certain, row
from paperlib.store import checkpoints
from paperlib.store.evaluations import Evaluation
from paperlib.store.experiment import AnyExperiment, Experiment
from paperlib.training import defenses, loop

UNIT = "vanilla"  # costs of a step are relative to that of this training
PASSES = ["forward passes", "backward passes"]


class Counted(NamedTuple):
    """What a step took, the same on any machine."""

    multiply_adds: int  # of convolutions and matrix products
    kept: int  # most bytes that graphs held at a time for the backward pass; a storage counts once, weights do not


class _Arithmetic(TorchDispatchMode):
    """Adds up multiply-adds.  torch's `FlopCounterMode` fails where a leaf that needs a gradient enters a module."""

    multiply_adds = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func.overloadpacket):
            self.multiply_adds += count(*args, **(kwargs or {}), out_val=result) // 2
        return result


class _Saved:
    """A tensor as a graph keeps it.  The object dies when the graph lets go, which a finalizer notices."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor


class _Memory:
    """The bytes that graphs hold now, and the most that they held at a time; those of `weights` are left out."""

    def __init__(self, weights: Iterable[Tensor]):
        self.weights = {weight.untyped_storage().data_ptr() for weight in weights}
        self.holders: Counter[int] = Counter()  # how many saved tensors lie in the storage at an address
        self.now = self.most = 0

    def keep(self, tensor: Tensor) -> _Saved:
        """Count a tensor that a graph saves, until the graph lets go of it."""
        storage, saved = tensor.untyped_storage(), _Saved(tensor)
        address, size = storage.data_ptr(), storage.nbytes()
        if address not in self.weights:
            if not self.holders[address]:
                self.now += size
                self.most = max(self.most, self.now)
            self.holders[address] += 1
            weakref.finalize(saved, self._release, address, size)
        return saved

    def _release(self, address: int, size: int) -> None:
        self.holders[address] -= 1
        if not self.holders[address]:  # another storage may come to lie there
            self.now -= size


def counted(loss: Callable[[], Tensor], weights: Sequence[Tensor], after: Callable = lambda: None) -> Counted:
    """What `loss` and its gradient by `weights` take, and then the multiply-adds, but not the memory, of `after`."""
    memory, was_enabled = _Memory(weights), gc.isenabled()
    gc.disable()  # it frees graphs with cycles at moments that vary between runs
    try:
        with _Arithmetic() as arithmetic:
            with torch.autograd.graph.saved_tensors_hooks(memory.keep, lambda saved: saved.tensor):
                torch.autograd.grad(loss(), weights, allow_unused=True)
            after()
    finally:
        if was_enabled:
            gc.enable()
    return Counted(arithmetic.multiply_adds, memory.most)


class _Timed:
    """The step of one training from a fresh network, on the same batch of `size` images every time."""

    def __init__(self, experiment: Experiment, size: int, device: str):
        data = experiment.load_data()
        errors.count("batch", size, at_least=2)  # BatchNorm has no variance of one sample
        images = data.train.take(size)
        x, y = images.pixels().to(device), images.labels.to(device)
        self.batch = defenses.Batch(x, y, images.index, data.bounds, seed=experiment.seed)
        defense = defenses.build(experiment.defense, experiment.options)
        self.step = loop.Step(experiment.build().to(device).train(), defense, experiment.schedule)
        self.steps = len(data.train) // size  # of an epoch
        self.wait = getattr(torch, device).synchronize

    def counts(self) -> dict[str, int]:
        """The passes, multiply-adds and bytes of a step by name."""
        step = self.step
        loss, after = partial(step.loss, self.batch), partial(defenses.after_step, step.defense, step.network)
        taken = counted(loss, step.parameters, after)
        names = [*PASSES, "multiply-adds", "bytes kept"]
        return dict(zip(names, [*loop.passes(step.defense), *taken], strict=True))

    def seconds(self) -> float:
        """The time of a whole step, which moves the network."""
        self.wait()
        started = time.perf_counter()
        self.step.move(self.step.loss(self.batch))
        self.wait()
        return time.perf_counter() - started


def step_rows(trainings: Sequence[Experiment], *, batch: int, repeats: int, device: str = "auto") -> list[dict]:
    """The cost of a step and of an epoch of each training, and of a step relative to vanilla's.

    Passes are those of `loop.passes`; multiply-adds and bytes are counted (see `Counted`) on `batch` training images.
    Seconds are the median of `repeats` steps, from the fastest to the slowest.  The trainings take turns, of which the
    first warms up, so that a slow moment affects all, and a ratio is of one turn.  Refuses trainings without vanilla.
    """
    errors.count("repeats", repeats)
    names = [e.defense for e in trainings]
    errors.one_of("training among those to hold against each other", UNIT, names)
    device = checkpoints.resolve(device)
    with evaluation.chance(0):  # for input spikes, rows and other draws
        steps = [_Timed(e, batch, device) for e in trainings]
        counts = [step.counts() for step in steps]
        turns = np.array([[step.seconds() for step in steps] for _ in range(repeats + 1)])[1:]
    unit, rows = names.index(UNIT), []
    for e, step, numbers, seconds in zip(trainings, steps, counts, turns.T, strict=True):
        costs = []  # (quantity, what, interval)
        for what, number in numbers.items():
            costs.append(("cost of a step", what, certain(number, batch)))
            if what != "bytes kept":  # memory is the same in every step
                costs.append(("cost of an epoch", what, certain(number * step.steps, batch)))
        costs.append(("cost of a step", "seconds", _median(seconds)))
        costs.append(("cost of an epoch", "seconds", _median(seconds * step.steps)))
        for what, parts in (("passes", PASSES), ("multiply-adds", ["multiply-adds"]), ("bytes kept", ["bytes kept"])):
            ratio = sum(numbers[part] for part in parts) / sum(counts[unit][part] for part in parts)
            costs.append(("relative cost", what, certain(ratio, batch)))
        costs.append(("relative cost", "seconds", _median(seconds / turns[:, unit])))
        for quantity, what, interval in costs:
            timed = {records.TIMED: True} if what == "seconds" else {}
            rows.append(row(interval, [e], quantity=quantity, what=what, **e.labels, **timed))
    return rows


def _median(seconds: np.ndarray) -> statistics.Interval:
    numbers = float(np.median(seconds)), float(seconds.min()), float(seconds.max())
    method = "median of steps in turn, from the fastest to the slowest"
    return statistics.Interval(*numbers, len(seconds), method, "steps")


def budget_rows(budgets: Mapping[str, Sequence[Evaluation]], subject: str = "sr") -> list[dict]:
    """For each of `budgets`, the label "budget": accuracies, `subject` minus every other training, and the costs."""
    rows = []
    for name, evaluations in budgets.items():
        others = dict.fromkeys(e.experiment.defense for e in evaluations if e.experiment.defense != subject)
        added = mean_rows(evaluations) + accuracy_rows(evaluations) + spent_rows(e.experiment for e in evaluations)
        added += [entry for other in others for entry in difference_rows(evaluations, subject, other)]
        rows += [entry | {"budget": name} for entry in added]
    return rows


def spent_rows(networks: Iterable[AnyExperiment]) -> list[dict]:
    """Two rows for each training: its epochs, and the forward and backward passes that an image has cost in all."""
    rows = []
    ours = {e.key: e for e in networks if isinstance(e, Experiment)}  # neither number is known of imported ones
    for labels, group in by_labels(ours.values(), lambda e: e.labels | {"epochs": e.schedule.epochs}):
        epochs = labels.pop("epochs")
        each = sum(loop.passes(defenses.build(group[0].defense, group[0].options)))
        for quantity, value in (("epochs", epochs), ("passes per image", epochs * each)):
            rows.append(row(certain(value, len(group)), group, quantity=quantity, **labels))
    return rows
