"""Network + samples + attack → which samples are still classified correctly, and what that cost.  Nothing is kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from paperlib import errors
from paperlib.attacks.attack import Attack
from paperlib.attacks.core import Queried
from paperlib.attacks.ensembles import AnyAttack
from paperlib.data import sets
from paperlib.data.sets import Split
from paperlib.theory import gradients
from paperlib.theory.gradients import device_of, in_batches

BATCH = 100  # images that a network sees at once, where there are many
FEW = 25  # and where there are few
CHUNK = 1000  # samples that are attacked together, and kept together when they are done


class Outcome(NamedTuple):
    """What became of some samples, (n,) each."""

    rows: Tensor  # which samples
    flags: Tensor  # bool: still classified correctly
    forward: Tensor  # passes that it cost, the last look included
    backward: Tensor
    vanished: Tensor  # how many of the gradients were exactly 0
    strayed: Tensor  # bool: the attack left its ball or the data's bounds


@dataclass(frozen=True)
class Judged:
    """One network under one attack, over all N samples."""

    attack: AnyAttack
    flags: np.ndarray  # (N,) bool: still classified correctly
    passes: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (N,) of the network, forward and backward
    vanished: float = 0.0  # share of the gradients that were exactly 0
    strayed: int = 0  # samples that left the attack's ball or the data's bounds
    stochastic: bool = False  # whether the network draws at random


def flags(
    network: nn.Module,
    samples: Split,
    attack: Attack | None = None,
    *,
    correct: Tensor | None = None,
    source: nn.Module | None = None,
    seed: int = 0,
    batch_size: int = BATCH,
) -> Tensor:
    """(N,) bool on the CPU: whether each sample is classified correctly, on clean images where `attack` is None.

    Samples misclassified without a perturbation are broken already and are not attacked; `correct`, the flags on clean
    images, spares computing them again.  A network that is `stochastic` is judged by the draw under attack alone.  See
    `attacked` for `source`, `seed` and `batch_size`, and for what is refused.
    """
    errors.refuse_while_planning("evaluates")
    if correct is None:
        x, y = _opened(network, samples)
        with chance(seed):
            correct = (in_batches(network, x, batch_size).argmax(1) == y).cpu()
    if attack is None:
        return correct
    survived = standing(getattr(network, "stochastic", False), correct)
    for outcome in attacked(network, samples, attack, survived, source=source, seed=seed, batch_size=batch_size):
        survived[outcome.rows] &= outcome.flags
    return survived


def batch_size(samples: int) -> int:
    """Images that a network sees at once, for so many samples: so few that the survivors still fill a batch."""
    return min(BATCH, max(FEW, samples // 4))


def standing(stochastic: bool, correct):
    """Which samples an attack has to break, (N,) bool as `correct`: the correct ones, or all of a stochastic network.

    There the next draw may classify a sample correctly that this one did not.
    """
    return correct | stochastic


def attacked(
    network: nn.Module,
    samples: Split,
    attack: Attack,
    wanted: Tensor,
    *,
    source: nn.Module | None = None,
    seed: int = 0,
    batch_size: int = BATCH,
) -> Iterator[Outcome]:
    """The outcome of `attack` on the samples `wanted`, (N,) bool; made on the network `source`, if there is one.

    The networks see exactly `batch_size` images at a time, in eval mode and on the device of `network`; noise is drawn
    per sample, so a flag depends on its sample alone.  Where a network is `coupled`, it depends on the batch, so a
    batch is always the same: `batch_size` neighbours in `samples`, all of them attacked where one is wanted.  Chance
    inside a network is drawn from `seed` and the batch's number.  Refuses images outside the samples' bounds and labels
    outside 0..K-1.
    """
    errors.refuse_while_planning("attacks")
    x, y = _opened(network, samples)
    maker = network if source is None else source.to(x.device).eval()
    with attack.ruled(maker):
        together = getattr(maker, "coupled", False) or getattr(network, "coupled", False)
    everyone = torch.arange(len(samples))
    if together:
        parts = [rows for rows in everyone.split(batch_size) if wanted[rows].any()]
    else:
        parts = everyone[wanted].split(CHUNK) if wanted.any() else []
    for rows in parts:
        perturb = attack.bind(seed=seed, index=samples.index[rows])
        images, labels = x[rows.to(x.device)], y[rows.to(x.device)]
        queried = Queried(maker, images, labels, batch_size)
        with chance(seed + int(rows[0])):
            perturbed = perturb(queried, images, labels, bounds=samples.bounds).detach()
            right = in_batches(network, perturbed, None if together else batch_size).argmax(1) == labels
        strayed = _strayed(perturbed, images, attack, samples.bounds)
        yield Outcome(rows, right.cpu(), queried.forward + 1, queried.backward, queried.vanished, strayed.cpu())


def _opened(network: nn.Module, samples: Split) -> tuple[Tensor, Tensor]:
    """Images and labels on the network's device, checked; the network is put in eval mode."""
    network.eval()
    x, y, device = samples.pixels(), samples.labels, device_of(network)
    sets.check(x, y, bounds=samples.bounds, num_classes=samples.num_classes)
    return x.to(device), y.to(device)


def _strayed(perturbed: Tensor, images: Tensor, attack: Attack, bounds: tuple[float, float]) -> Tensor:
    """Whether each of `perturbed` lies further from its image than rounding explains, or outside `bounds`, (n,)."""
    delta = (perturbed - images).flatten(1)
    outside = (perturbed < bounds[0]) | (perturbed > bounds[1])
    if attack.norm == "l0":
        outside |= (perturbed - images).abs() > 1 + 1e-5  # a cell changes by one event at most
        far = gradients.l0(delta, 0)
    else:
        far = gradients.l2(delta) if attack.norm == "l2" else delta.abs().amax(1)
    return (far > attack.eps * (1 + 1e-5) + 1e-6) | outside.flatten(1).any(1) | perturbed.isnan().flatten(1).any(1)


@contextmanager
def chance(seed: int) -> Iterator[None]:
    """Inside the block torch draws from `seed`; its own generator is untouched behind it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
