"""The cost of a training step, counted and timed; the cost of whole trainings beside their accuracy under attack."""

import gc
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from paperlib.store.experiment import Experiment, Imported
from paperlib.training import defenses
from paperlib.training.defenses import Batch
from paperlib.training.loop import Step, passes

UNIT = "vanilla"  # the training with whose step the others are compared
PASSES = ["forward passes", "backward passes"]

# ---- counting ----------------------------------------------------------------------------------------------------


class Counted(NamedTuple):
    """What a step did, the same on any machine."""

    multiply_adds: int  # of convolutions and matrix products
    kept: int  # bytes that graphs held for the way back when they held most, each storage once, weights left out


class _Arithmetic(TorchDispatchMode):
    """Adds up what is computed inside the block, wherever it comes from.

    `FlopCounterMode` follows modules as well, and fails where a leaf that wants a gradient goes into one.
    """

    multiply_adds = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            operations = flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=result)
            self.multiply_adds += operations // 2
        return result


class _Saved:
    """A tensor as a graph holds it; what a weak reference to it tells is when the graph lets go."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor


class _Memory:
    """What graphs hold at a time, and held at most."""

    def __init__(self, apart: Iterable[Tensor]):
        self.apart = {tensor.untyped_storage().data_ptr() for tensor in apart}
        self.holders: dict[int, int] = {}
        self.now = self.most = 0

    def keep(self, tensor: Tensor) -> _Saved:
        storage, saved = tensor.untyped_storage(), _Saved(tensor)
        place, size = storage.data_ptr(), storage.nbytes()
        if place not in self.apart:
            self.holders[place] = self.holders.get(place, 0) + 1
            self.now += size * (self.holders[place] == 1)
            self.most = max(self.most, self.now)
            weakref.finalize(saved, self._let_go, place, size)
        return saved

    def _let_go(self, place: int, size: int) -> None:
        self.holders[place] -= 1
        if not self.holders[place]:
            del self.holders[place]  # another storage may come to lie there
            self.now -= size


@contextmanager
def _uncollected() -> Iterator[None]:
    """Graphs that lie in cycles are let go when the collector comes by, which is not the same from run to run."""
    on = gc.isenabled()
    try:
        gc.disable()
        yield
    finally:
        (gc.enable if on else gc.disable)()


def counted(
    loss: Callable[[], Tensor], weights: Sequence[Tensor], after: Callable[[], object] | None = None
) -> Counted:
    """What `loss`, its gradient by `weights` and then `after` take; of `after` the multiply-adds alone."""
    memory = _Memory(weights)
    with _uncollected(), _Arithmetic() as arithmetic:
        with torch.autograd.graph.saved_tensors_hooks(memory.keep, lambda saved: saved.tensor):
            torch.autograd.grad(loss(), weights, allow_unused=True)
        if after is not None:
            after()
    return Counted(arithmetic.multiply_adds, memory.most)


# ---- a training step ---------------------------------------------------------------------------------------------


class _Timed:
    """The step of one training, as `loop.epochs` takes it, on a fresh network and the same images every time."""

    def __init__(self, experiment: Experiment, size: int, device: str):
        data, schedule = experiment.load_data(), experiment.schedule
        errors.count("batch", size, at_least=2)  # BatchNorm has no variance of one sample
        images = data.train.take(size)
        x, y = images.pixels().to(device), images.labels.to(device)
        self.batch = Batch(x, y, images.index, data.bounds, seed=experiment.seed)
        defense = defenses.build(experiment.defense, experiment.options)
        self.step = Step(experiment.build().to(device).train(), defense, schedule)
        self.steps = len(data.train) // size  # an epoch of such batches
        self.device = device

    def exact(self) -> dict[str, int]:
        """The counts of a step by name."""
        step = self.step
        counts = counted(
            lambda: step.loss(self.batch), step.parameters, lambda: defenses.after_step(step.defense, step.network)
        )
        numbers = {"multiply-adds": counts.multiply_adds, "bytes kept": counts.kept}
        return dict(zip(PASSES, passes(step.defense), strict=True)) | numbers

    def seconds(self) -> float:
        self._wait()
        started = time.perf_counter()
        self.step.move(self.step.loss(self.batch))
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.device != "cpu":
            getattr(torch, self.device).synchronize()


def step_rows(trainings: Sequence[Experiment], *, batch: int, repeats: int, device: str = "auto") -> list[dict]:
    """The cost of a step and of an epoch of each training, and of a step relative to vanilla's, which must be there.

    Forward and backward passes are those of `loop.passes`; multiply-adds of convolutions and matrix products, and
    bytes kept for the backward pass, are counted on one batch of `batch` training images.  Seconds are the median of
    `repeats` steps, optimiser included, with the fastest and the slowest in place of an interval; the trainings take
    turns, so that a slow moment of the machine meets them all, and a ratio is of one turn.  The first turn warms up.
    """
    errors.count("repeats", repeats)
    names = [e.defense for e in trainings]
    errors.one_of("training among those to hold against each other", UNIT, names)
    device = checkpoints.resolve(device)
    with evaluation.chance(0):  # for input spikes, rows and other draws
        steps = [_Timed(e, batch, device) for e in trainings]
        exact = [step.exact() for step in steps]
        turns = np.array([[step.seconds() for step in steps] for _ in range(repeats + 1)])[1:]
    unit, rows = names.index(UNIT), []
    for e, step, numbers, seconds in zip(trainings, steps, exact, turns.T, strict=True):
        costs = []  # (quantity, what, interval)
        for what, number in numbers.items():
            costs.append(("cost of a step", what, certain(number, batch)))
            if what != "bytes kept":  # memory is the same in every step
                costs.append(("cost of an epoch", what, certain(number * step.steps, batch)))
        costs.append(("cost of a step", "seconds", _between(seconds)))
        costs.append(("cost of an epoch", "seconds", _between(seconds * step.steps)))
        for what, parts in (("passes", PASSES), ("multiply-adds", ["multiply-adds"]), ("bytes kept", ["bytes kept"])):
            mine, least = (sum(counts[part] for part in parts) for counts in (numbers, exact[unit]))
            costs.append(("relative cost", what, certain(mine / least, batch)))
        costs.append(("relative cost", "seconds", _between(seconds / turns[:, unit])))
        for quantity, what, interval in costs:
            timed = {records.TIMED: True} if what == "seconds" else {}
            rows.append(row(interval, [e], quantity=quantity, what=what, **e.labels, **timed))
    return rows


def _between(seconds: np.ndarray) -> statistics.Interval:
    ends = float(np.median(seconds)), float(seconds.min()), float(seconds.max())
    return statistics.Interval(*ends, len(seconds), "median of steps in turn, from the fastest to the slowest", "steps")


# ---- budgets -----------------------------------------------------------------------------------------------------


def budget_rows(budgets: Mapping[str, Sequence[Evaluation]], subject: str = "sr") -> list[dict]:
    """Accuracies under each budget, a list of evaluations by name; `subject` minus every other one; the cost of each.

    Rows carry the name as their label `budget`.  One network may stand in two lists, so that only the list can tell.
    """
    rows = []
    for name, judged in budgets.items():
        others = dict.fromkeys(e.experiment.defense for e in judged if e.experiment.defense != subject)
        added = mean_rows(judged) + accuracy_rows(judged) + spent_rows(e.experiment for e in judged)
        added += [entry for other in others for entry in difference_rows(judged, subject, other)]
        rows += [entry | {"budget": name} for entry in added]
    return rows


def spent_rows(networks: Iterable[Experiment | Imported]) -> list[dict]:
    """Two rows a training: its epochs, and the forward and backward passes that an image of them has cost in all.

    Of imported networks neither is known.
    """
    rows = []
    ours = {e.key: e for e in networks if isinstance(e, Experiment)}
    for labels, group in by_labels(ours.values(), lambda e: e.labels | {"epochs": e.schedule.epochs}):
        epochs = labels.pop("epochs")
        each = sum(passes(defenses.build(group[0].defense, group[0].options)))
        for quantity, value in (("epochs", epochs), ("passes per image", epochs * each)):
            rows.append(row(certain(value, len(group)), group, quantity=quantity, **labels))
    return rows
