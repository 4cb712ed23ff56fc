"""The one training step and the one training loop: SGD under a cosine schedule, resumable at every epoch.

All chance is drawn from (seed, epoch), so a state file needs weights, momentum and the epoch's number only.  A resumed
training ends with the same bytes as an uninterrupted one.
"""

import copy
import hashlib
import io
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from paperlib import errors, files, paths
from paperlib.attacks import evaluation
from paperlib.attacks.attack import Attack, standard
from paperlib.data.sets import ImageSet, Split
from paperlib.networks.network import build
from paperlib.training import defenses
from paperlib.training.defenses import Batch, Defense

ATTACKED = "validation_accuracy_attacked"  # the entry of a history row that selects an epoch


@dataclass(frozen=True)
class Schedule:
    """How long and how fast; the paper's own: 200 epochs, batch 32, lr 0.1, momentum 0.9, weight decay 5e-4."""

    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    warm_up: int = 0  # epochs in which the learning rate climbs to `lr` in equal steps
    selection: dict = field(default_factory=dict)  # eps and steps of a PGD: the epoch that is kept is the best under it

    def __post_init__(self):
        errors.count("epochs", self.epochs)
        errors.count("batch_size", self.batch_size, at_least=2)  # BatchNorm has no variance of one sample
        errors.number("lr", self.lr, above=0)
        errors.number("momentum", self.momentum, at_least=0)
        errors.number("weight_decay", self.weight_decay, at_least=0)
        errors.count("warm_up", self.warm_up, at_least=0)
        if self.warm_up >= self.epochs:
            raise errors.Refused(f"warm_up is {self.warm_up}; it must be less than epochs = {self.epochs}.")
        if self.selection != {}:
            errors.takes("The selection of an epoch", _selection, self.selection)
            _selection(**self.selection)

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0 over all epochs of `steps` each: warm-up, then half a cosine."""
        rising, falling = self.warm_up * steps, (self.epochs - self.warm_up) * steps
        if step < rising:
            return self.lr * (step + 1) / rising
        return self.lr / 2 * (1 + math.cos(math.pi * (step - rising) / falling))


def _selection(*, eps: float, steps: int) -> Attack:
    """The attack on validation images that chooses an epoch."""
    return standard("pgd", eps, steps=steps)


class Step:
    """One step of training: the loss of a batch, its gradient, the optimiser, what the defense does afterwards."""

    def __init__(self, network: nn.Module, defense: Defense, schedule: Schedule):
        self.network, self.defense, self.parameters = network, defense, list(network.parameters())
        self.optimiser = torch.optim.SGD(
            self.parameters, lr=schedule.lr, momentum=schedule.momentum, weight_decay=schedule.weight_decay
        )

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a batch, a scalar with its graph."""
        return self.defense.loss(self.network, batch)

    def move(self, loss: Tensor) -> None:
        """Follow the gradient of `loss` by the weights."""
        self.optimiser.zero_grad()
        loss.backward(inputs=self.parameters)  # of other leaves, such as SR's images, no gradient is wanted
        self.optimiser.step()
        defenses.after_step(self.defense, self.network)

    def set_rate(self, lr: float) -> None:
        """The learning rate of the next steps."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr


def epochs(
    network: nn.Module,
    defense: Defense,
    data: ImageSet,
    schedule: Schedule,
    *,
    seed: int,
    device: str = "cpu",
    state: Path | None = None,
    progress: bool = True,
) -> Iterator[dict]:
    """Train `network` in place; yields one history row an epoch: loss, validation accuracy, learning rate, seconds.

    With `state`, a file, every finished epoch is kept there, and an interrupted training goes on from it and ends with
    the same weights as an uninterrupted one.  Rows of epochs trained earlier are yielded again.  The loss is the mean
    over the epoch's steps; weight decay covers every parameter.  Where the schedule selects an epoch, rows hold the
    validation accuracy under attack and the best epoch so far, of two equal ones the earlier; its weights are the
    network's when the iteration has ended.  Test images are never seen.
    Raises `Refused` when the loss is not finite, naming epoch, step and learning rate.
    """
    errors.refuse_while_planning("trains")
    step = Step(network.to(device), defense, schedule)
    history, best = _resume(network, step.optimiser, state, device)
    yield from history
    steps = len(data.train) // schedule.batch_size
    if steps == 0:
        raise errors.Refused(f"{len(data.train)} training images do not fill one batch of {schedule.batch_size}.")
    bar = tqdm(total=schedule.epochs * steps, initial=len(history) * steps, leave=False, disable=not progress)
    with bar:
        for epoch in range(len(history), schedule.epochs):
            started, total = time.perf_counter(), 0.0
            bar.set_description(f"epoch {epoch + 1}/{schedule.epochs}")
            epoch_seed = seed * 1_000_003 + epoch
            draw = torch.Generator().manual_seed(epoch_seed)
            network.train()
            batches = data.train.batches(schedule.batch_size, draw)
            for number, (x, y, index) in zip(range(steps), batches, strict=False):  # the last batch may be short
                x = data.augmented(x, draw)
                lr = schedule.rate(epoch * steps + number, steps)
                step.set_rate(lr)
                batch = Batch(x.to(device), y.to(device), index, data.bounds, seed=epoch_seed)
                with evaluation.chance(epoch_seed * 1_000_003 + number):  # for input spikes, rows and other draws
                    loss = step.loss(batch)
                    total += _finite(loss, epoch, number, lr)
                    step.move(loss)
                last = {"validation": f"{history[-1]['validation_accuracy']:.1%}"} if history else {}
                bar.set_postfix({"loss": f"{total / (number + 1):.3f}"} | last, refresh=False)
                bar.update()
            row = {"epoch": epoch + 1, "loss": total / steps, "lr": lr} | _validated(network, data.validation, schedule)
            if schedule.selection:
                if best is None or row[ATTACKED] > history[best["epoch"] - 1][ATTACKED]:
                    best = {"epoch": epoch + 1, "network": copy.deepcopy(network.state_dict())}
                row["best_epoch"] = best["epoch"]
            history.append(row | {"seconds": time.perf_counter() - started})
            if state is not None:
                content = {"network": network.state_dict(), "optimiser": step.optimiser.state_dict()}
                packed = to_bytes(content | {"history": history} | ({"best": best} if best else {}))
                files.write_atomically(state, hashlib.sha256(packed).digest() + packed)
            yield history[-1]
    if best:
        network.load_state_dict(best["network"])


def to_bytes(content: object) -> bytes:
    """`torch.save` into memory: saving to a path would write the file's name into the bytes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _resume(
    network: nn.Module, optimiser: torch.optim.Optimizer, state: Path | None, device: str
) -> tuple[list[dict], dict | None]:
    """The rows of finished epochs, and the best epoch with its weights where the schedule selects one."""
    if state is None or not state.exists():
        return [], None
    content = state.read_bytes()
    digest, data = content[:32], content[32:]
    if hashlib.sha256(data).digest() != digest:
        raise errors.Refused(f"{paths.shown(state)} is damaged. Delete it; this training then starts anew.")
    content = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    try:
        network.load_state_dict(content["network"])
    except RuntimeError as problem:
        reason = " ".join(str(problem).split())
        raise errors.Refused(f"{paths.shown(state)} belongs to another network: {reason}") from None
    optimiser.load_state_dict(content["optimiser"])
    return content["history"], content.get("best")


def _finite(loss: Tensor, epoch: int, step: int, lr: float) -> float:
    value = loss.item()
    if not math.isfinite(value):
        raise errors.Refused(
            f"The loss became {value} in epoch {epoch + 1}, step {step + 1}, at learning rate {lr:.4g}. "
            "A smaller lr or lam may help."
        )
    return value


def _validated(network: nn.Module, validation: Split, schedule: Schedule) -> dict:
    """Accuracy on validation images, clean and, where the schedule selects by it, under attack."""
    correct = evaluation.flags(network, validation)
    accuracies = {"validation_accuracy": correct.float().mean().item()}
    if schedule.selection:
        flags = evaluation.flags(network, validation, _selection(**schedule.selection), correct=correct)
        accuracies[ATTACKED] = flags.float().mean().item()
    return accuracies


class Passes(NamedTuple):
    """How often a step of training goes through the network."""

    forward: int
    backward: int  # one that can be differentiated again counts twice: the way back leads through it as well


def passes(defense: Defense) -> Passes:
    """Forward and backward passes of one training step, counted on a network of two neurons a pixel."""
    with torch.random.fork_rng(devices=[]):
        network = build("conv-2", in_channels=1, image_size=4, num_classes=3, T=1).train()
        images, labels = torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 2, 0])
        forward, backward = [], []

        def watch(module, inputs, logits):
            forward.append(logits)
            if logits.requires_grad:
                logits.register_hook(lambda _: backward.append(1 + torch.is_grad_enabled()))

        network.register_forward_hook(watch)
        defense.loss(network, Batch(images, labels, torch.arange(4), (0.0, 1.0), seed=0)).backward()
    return Passes(len(forward), sum(backward))
