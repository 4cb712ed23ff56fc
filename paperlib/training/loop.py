"""The training step and the training loop: SGD under a cosine schedule, which can be resumed after every epoch.

All random draws depend on seed, epoch and step alone, so a resumed training ends with the same bytes.
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
from paperlib.data.sets import Split
from paperlib.networks.network import build
from paperlib.training import defenses
from paperlib.training.defenses import Batch, Defense

EVERY = 50  # steps between two looks at the loss on a GPU, which waits for each look
ATTACKED = "validation_accuracy_attacked"  # the entry of a history row by which an epoch is selected


@dataclass(frozen=True)
class Schedule:
    """The options of SGD and its learning rate.  (The paper's: 200 epochs of batches of 32, 0.1, 0.9, 5e-4.)"""

    epochs: int
    batch_size: int
    lr: float  # the largest learning rate
    momentum: float
    weight_decay: float  # of every parameter
    warm_up: int = 0  # epochs in which the learning rate rises to `lr` in equal steps
    selection: dict = field(default_factory=dict)  # eps and steps of PGD: the best epoch under it is kept; {}: the last

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
        """The learning rate of step `step`, which counts from 0 over all epochs; an epoch has `steps` steps."""
        rising, falling = self.warm_up * steps, (self.epochs - self.warm_up) * steps
        if step < rising:
            return self.lr * (step + 1) / rising
        return self.lr / 2 * (1 + math.cos(math.pi * (step - rising) / falling))


def _selection(*, eps: float, steps: int) -> Attack:
    """The attack on validation images by which an epoch is selected."""
    return standard("pgd", eps, steps=steps)


class Step:
    """The step of a training: `move(loss(batch))`."""

    def __init__(self, network: nn.Module, defense: Defense, schedule: Schedule):
        self.network, self.defense, self.parameters = network, defense, list(network.parameters())
        options = {"momentum": schedule.momentum, "weight_decay": schedule.weight_decay}
        self.optimiser = torch.optim.SGD(self.parameters, schedule.lr, **options)

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a batch, a scalar that can be differentiated."""
        return self.defense.loss(self.network, batch)

    def move(self, loss: Tensor) -> None:
        """Move the weights by the gradient of `loss`, then call the defense's `after_step`."""
        self.optimiser.zero_grad()
        loss.backward(inputs=self.parameters)  # and not for other leaves of the graph, such as the images in SR
        self.optimiser.step()
        defenses.after_step(self.defense, self.network)

    def set_rate(self, lr: float) -> None:
        """Set the learning rate of the following steps."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr


def epochs(
    network: nn.Module, defense, data, schedule, *, seed: int, device="cpu", state: Path | None = None, progress=True
) -> Iterator[dict]:
    """Train `network` in place; yields a history row after each epoch: epoch, loss, lr, validation_accuracy, seconds.

    On a GPU all training images lie in its memory, and a row also holds peak_mb, the largest memory used so far.
    The loss is the mean over the epoch's steps, lr the learning rate of its last step.  If there is a file `state`, the
    training resumes from it and yields the rows of earlier epochs again; it is written after every epoch.
    Where the schedule selects an epoch, a row also holds the validation accuracy under attack (`ATTACKED`) and
    best_epoch, the first best so far, whose weights the network has in the end.
    Refuses a loss that is not finite, training images that do not fill a batch, and another network's `state`; after a
    damaged `state`, which is kept as `*.damaged`, the training starts anew.
    """
    errors.refuse_while_planning("trains")
    step = Step(network.to(device), defense, schedule)
    gpu = torch.device(device).type == "cuda"
    train = data.train.to(device)
    history, best = _resume(step, state, device)
    yield from history
    steps = len(train) // schedule.batch_size
    if steps == 0:
        raise errors.Refused(f"{len(train)} training images do not fill one batch of {schedule.batch_size}.")
    with tqdm(total=schedule.epochs * steps, initial=len(history) * steps, leave=False, disable=not progress) as bar:
        for epoch in range(len(history), schedule.epochs):
            started, total = time.perf_counter(), 0.0
            bar.set_description(f"epoch {epoch + 1}/{schedule.epochs}")
            epoch_seed = seed * 1_000_003 + epoch
            draw = torch.Generator().manual_seed(epoch_seed)
            network.train()
            batches, losses = train.batches(schedule.batch_size, draw), []
            for number, (x, y, index) in zip(range(steps), batches, strict=False):  # a smaller last batch is left out
                x = data.augmented(x, draw)
                lr = schedule.rate(epoch * steps + number, steps)
                step.set_rate(lr)
                batch = Batch(x, y, index, data.bounds, seed=epoch_seed)
                with evaluation.chance(epoch_seed * 1_000_003 + number):  # input spikes, RAT's rows and other draws
                    loss = step.loss(batch)
                    losses.append(loss.detach())
                    if not gpu or len(losses) == EVERY or number == steps - 1:
                        total += _finite(losses, epoch, number, lr)
                        last = {"validation": f"{history[-1]['validation_accuracy']:.1%}"} if history else {}
                        bar.set_postfix({"loss": f"{total / (number + 1):.3f}"} | last, refresh=False)
                        losses = []
                    step.move(loss)
                bar.update()
            row = {"epoch": epoch + 1, "loss": total / steps, "lr": lr} | _validated(network, data.validation, schedule)
            if gpu:
                row["peak_mb"] = torch.cuda.max_memory_allocated(device) / 1e6
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
    """The bytes of `torch.save`, made in memory because they would hold the file's name otherwise."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _resume(step: Step, state: Path | None, device: str) -> tuple[list[dict], dict | None]:
    """Load `state`, if there is one.  Returns the rows of finished epochs, and the best with its weights or None.

    A damaged one is set aside as `*.damaged`.
    """
    if state is None or not files.exists(state):
        return [], None
    read = files.read(state)
    digest, data = read[:32], read[32:]
    try:
        if hashlib.sha256(data).digest() != digest:
            raise ValueError
        content = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
        weights, moments, history = (content[name] for name in ("network", "optimiser", "history"))
    except Exception:  # on damaged bytes torch raises many types
        files.set_aside(state, "is damaged", "This training starts anew")
        return [], None
    try:
        step.network.load_state_dict(weights)
    except RuntimeError as problem:
        reason = " ".join(str(problem).split())
        raise errors.Refused(f"{paths.shown(state)} belongs to another network: {reason}") from None
    step.optimiser.load_state_dict(moments)
    return history, content.get("best")


def _finite(losses: list[Tensor], epoch: int, step: int, lr: float) -> float:
    """The sum of the losses of some steps, the last of which is `step`; refuses one that is not finite."""
    values = torch.stack(losses).tolist()
    for number, value in enumerate(values, step + 2 - len(values)):
        if not math.isfinite(value):
            place = f"epoch {epoch + 1}, step {number}, at learning rate {lr:.4g}"
            raise errors.Refused(f"The loss became {value} in {place}. A smaller lr or lam may help.")
    return sum(values)


def _validated(network: nn.Module, validation: Split, schedule: Schedule) -> dict:
    """Accuracy on clean validation images and, if the schedule selects an epoch, under attack."""
    correct = evaluation.flags(network, validation)
    accuracies = {"validation_accuracy": correct.float().mean().item()}
    if schedule.selection:
        flags = evaluation.flags(network, validation, _selection(**schedule.selection), correct=correct)
        accuracies[ATTACKED] = flags.float().mean().item()
    return accuracies


class Passes(NamedTuple):
    """The number of passes through the network in one training step."""

    forward: int
    backward: int  # a backward pass that is differentiated again counts twice


def passes(defense: Defense) -> Passes:
    """Forward and backward passes of one training step of `defense`, counted on a small network."""
    with torch.random.fork_rng(devices=[]):
        network = build("conv-2", in_channels=1, image_size=4, num_classes=3, T=1).train()
        images, labels = torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 2, 0])
        forward, backward = [], []

        def count(module, inputs, logits):
            forward.append(1)
            if logits.requires_grad:  # in a backward pass gradients are enabled where it is differentiated again
                logits.register_hook(lambda _: backward.append(2 if torch.is_grad_enabled() else 1))

        network.register_forward_hook(count)
        defense.loss(network, Batch(images, labels, torch.arange(4), (0.0, 1.0), seed=0)).backward()
    return Passes(sum(forward), sum(backward))
