"""The one training loop: SGD under a cosine schedule, resumable at every epoch to the same bytes.

All chance is drawn from (seed, epoch), so a state file needs weights, momentum and the epoch's number only.
"""

import hashlib
import io
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from paperlib import errors, evaluation, images, paths, records
from paperlib.defenses import Batch, Defense
from paperlib.images import ImageSet


@dataclass(frozen=True)
class Schedule:
    """How long and how fast; the paper's own: 200 epochs, batch 32, lr 0.1, momentum 0.9, weight decay 5e-4."""

    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float

    def __post_init__(self):
        errors.count("epochs", self.epochs)
        errors.count("batch_size", self.batch_size, at_least=2)  # BatchNorm has no variance of one sample
        errors.number("lr", self.lr, above=0)
        errors.number("momentum", self.momentum, at_least=0)
        errors.number("weight_decay", self.weight_decay, at_least=0)


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
    """Train `network` in place; yields one history row an epoch: loss, validation accuracy, seconds.

    With `state`, a file, every finished epoch is kept there, and an interrupted training goes on from it and ends with
    the same weights as an uninterrupted one.  Rows of epochs trained earlier are yielded again.  The loss is the mean
    over the epoch's steps; weight decay covers every parameter; the learning rate follows half a cosine over all steps.
    Raises `Refused` when the loss is not finite, naming epoch, step and learning rate.
    """
    network.to(device)
    parameters = list(network.parameters())
    optimiser = torch.optim.SGD(
        parameters, lr=schedule.lr, momentum=schedule.momentum, weight_decay=schedule.weight_decay
    )
    history = _resume(network, optimiser, state, device)
    yield from history
    steps = len(data.train) // schedule.batch_size
    if steps == 0:
        raise errors.Refused(f"{len(data.train)} training images do not fill one batch of {schedule.batch_size}.")
    for epoch in range(len(history), schedule.epochs):
        started, total = time.perf_counter(), 0.0
        epoch_seed = seed * 1_000_003 + epoch
        draw = torch.Generator().manual_seed(epoch_seed)
        batches = tqdm(
            data.train.batches(schedule.batch_size, draw),
            f"epoch {epoch + 1}/{schedule.epochs}",
            total=steps,
            leave=False,
            disable=not progress,
        )
        network.train()
        for step, (x, y, index) in enumerate(batches):
            if step == steps:
                break
            if data.crops_and_flips:
                x = images.augment(x, draw)
            lr = schedule.lr / 2 * (1 + math.cos(math.pi * (epoch * steps + step) / (schedule.epochs * steps)))
            for group in optimiser.param_groups:
                group["lr"] = lr
            batch = Batch(x.to(device), y.to(device), index, data.bounds, seed=epoch_seed)
            with evaluation.chance(epoch_seed * 1_000_003 + step):  # for networks that draw their input's spikes
                loss = defense.loss(network, batch)
            total += _finite(loss, epoch, step, lr)
            optimiser.zero_grad()
            loss.backward(inputs=parameters)  # of a loss's other leaves, such as SR's images, no gradient is wanted
            optimiser.step()
            batches.set_postfix(loss=f"{total / (step + 1):.3f}", refresh=False)
        history.append(
            {
                "epoch": epoch + 1,
                "loss": total / steps,
                "validation_accuracy": _accuracy(network, data, device),
                "seconds": time.perf_counter() - started,
            }
        )
        if state is not None:
            content = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "history": history}
            packed = to_bytes(content)
            records.write_atomically(state, hashlib.sha256(packed).digest() + packed)
        yield history[-1]


def to_bytes(content: object) -> bytes:
    """`torch.save` into memory: saving to a path would write the file's name into the bytes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _resume(network: nn.Module, optimiser: torch.optim.Optimizer, state: Path | None, device: str) -> list[dict]:
    if state is None or not state.exists():
        return []
    kept = state.read_bytes()
    digest, data = kept[:32], kept[32:]
    if hashlib.sha256(data).digest() != digest:
        raise errors.Refused(f"{paths.shown(state)} is damaged. Delete it; this training then starts anew.")
    content = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    try:
        network.load_state_dict(content["network"])
    except RuntimeError as problem:
        told = " ".join(str(problem).split())
        raise errors.Refused(f"{paths.shown(state)} belongs to another network: {told}") from None
    optimiser.load_state_dict(content["optimiser"])
    return content["history"]


def _finite(loss: Tensor, epoch: int, step: int, lr: float) -> float:
    value = loss.item()
    if not math.isfinite(value):
        raise errors.Refused(
            f"The loss became {value} in epoch {epoch + 1}, step {step + 1}, at learning rate {lr:.4g}. "
            "A smaller lr or lam may help."
        )
    return value


def _accuracy(network: nn.Module, data: ImageSet, device: str) -> float:
    correct = evaluation.flags(
        network, data.validation, None, bounds=data.bounds, num_classes=data.num_classes, device=device
    )
    return correct.float().mean().item()
