"""The samples that a network still classifies correctly under an attack, and the cost.  Nothing is stored."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from paperlib import errors
from paperlib.attacks.attack import Attack
from paperlib.attacks.core import Queried, refuse_unusable
from paperlib.attacks.ensembles import AnyAttack
from paperlib.data import sets
from paperlib.data.sets import Split
from paperlib.theory import gradients
from paperlib.theory.gradients import device_of, in_batches

BATCH = 100  # images in a call of the network, at most
CHUNK = 1000  # samples that are attacked together and yielded as one outcome


class Outcome(NamedTuple):
    """The result of an attack on some samples; each field is (n,)."""

    rows: Tensor  # int64: the places of the samples in the split
    flags: Tensor  # bool: still classified correctly
    forward: Tensor  # forward passes of the attack, plus the last one, which gave the flag
    backward: Tensor  # backward passes of the attack
    vanished: Tensor  # gradients that were exactly 0
    strayed: Tensor  # bool: the attack left its ball or the data's bounds


@dataclass(frozen=True)
class Judged:
    """One network under one attack, over all N samples."""

    attack: AnyAttack
    flags: np.ndarray  # (N,) bool: still classified correctly
    passes: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (N,) forward and backward passes of the network
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
    """Whether each sample is classified correctly under `attack`, or on clean images if it is None; (N,) bool, CPU.

    Samples that are misclassified on clean images count as broken and are not attacked.  `correct` holds the flags on
    clean images; without it they are computed.  A `stochastic` network is judged by its draw under attack alone.  See
    `attacked` for `source`, `seed` and `batch_size`, and for what is refused.
    """
    errors.refuse_while_planning("evaluates")
    if correct is None:
        x, y = _prepared(network, samples)
        with chance(seed):
            correct = _right(in_batches(network, x, batch_size), y).cpu()
    if attack is None:
        return correct
    result = judged(network, samples, attack, correct, source=source, seed=seed, batch_size=batch_size)
    return torch.from_numpy(result.flags)


def judged(network: nn.Module, samples: Split, attack: Attack, correct: Tensor, **options) -> Judged:
    """The network under one attack; `correct` are the flags on clean images, (N,) bool.

    `options` are those of `attacked`, which says what is refused.
    """
    stochastic, n = getattr(network, "stochastic", False), len(samples)
    wanted = standing(stochastic, correct)
    survived = wanted.clone()
    forward, backward, vanished, strayed = (torch.zeros(n) for _ in range(4))
    for outcome in attacked(network, samples, attack, wanted, **options):
        rows = outcome.rows
        survived[rows] &= outcome.flags
        forward[rows], backward[rows] = outcome.forward, outcome.backward
        vanished[rows], strayed[rows] = outcome.vanished, outcome.strayed.float()
    share = (vanished.sum() / backward.sum().clamp_min(1)).item()
    return Judged(attack, survived.numpy(), (forward + backward).numpy(), share, int(strayed.sum()), stochastic)


def standing(stochastic: bool, correct):
    """The samples that an attack has to break, (N,) bool: those of `correct` (N,), or all if the network is stochastic.

    A stochastic network may classify a sample correctly at its next draw.
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
    """Yield the outcomes of `attack` on the samples `wanted`, (N,) bool, in parts.

    The examples are made on the network `source` if it is given, else on `network`, and judged by `network`.  Both
    receive at most `batch_size` images in a call (see `gradients.in_batches`), in eval mode and on the device of
    `network`.  The noise of an attack is drawn for each sample, so a flag depends on its sample alone.

    If a network is `coupled`, a flag also depends on the batch.  Then a batch is always the same: `batch_size`
    neighbours in `samples`, all of which are attacked if one is wanted.  Draws inside a network are seeded with `seed`
    and the place of the batch's first sample.

    Refuses images outside the samples' bounds, labels outside 0..K-1, logits that are NaN, and to run while a notebook
    is planned.
    """
    errors.refuse_while_planning("attacks")
    x, y = _prepared(network, samples)
    maker = network if source is None else source.to(x.device).eval()
    with attack.ruled(maker):
        together = getattr(maker, "coupled", False) or getattr(network, "coupled", False)
    everyone = torch.arange(len(samples))
    if together:
        parts = [rows for rows in everyone.split(batch_size) if wanted[rows].any()]
    else:
        parts = everyone[wanted].split(CHUNK)
    for rows in filter(len, parts):
        perturb = attack.bind(seed=seed, index=samples.index[rows])
        images, labels = x[rows.to(x.device)], y[rows.to(x.device)]
        queried = Queried(maker, images, labels, batch_size)
        with chance(seed + int(rows[0])):
            perturbed = perturb(queried, images, labels, bounds=samples.bounds).detach()
            right = _right(in_batches(network, perturbed, None if together else batch_size), labels)
        strayed = _strayed(perturbed, images, attack, samples.bounds)
        yield Outcome(rows, right.cpu(), queried.forward + 1, queried.backward, queried.vanished, strayed.cpu())


def _prepared(network: nn.Module, samples: Split) -> tuple[Tensor, Tensor]:
    """The checked images and labels on the network's device; puts the network in eval mode."""
    network.eval()
    x, y, device = samples.pixels(), samples.labels, device_of(network)
    sets.check(x, y, bounds=samples.bounds, num_classes=samples.num_classes)
    return x.to(device), y.to(device)


def _right(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether each sample is classified correctly, (B,) bool; refuses logits (B, K) that are NaN, as no class is."""
    refuse_unusable(logits, labels)
    return logits.argmax(1) == labels


def _strayed(perturbed: Tensor, images: Tensor, attack: Attack, bounds: tuple[float, float]) -> Tensor:
    """Whether each of `perturbed` (n, ...) is outside its ball, rounding aside, or outside `bounds`; (n,) bool."""
    delta = (perturbed - images).flatten(1)
    outside = (perturbed < bounds[0]) | (perturbed > bounds[1])
    if attack.norm == "l0":
        outside |= (perturbed - images).abs() > 1 + 1e-5  # a cell changes by one event at most
        size = gradients.l0(delta, 0)
    elif attack.norm == "moves":
        outside |= ((perturbed - images).sum(1).abs() > 1e-5)[:, None]  # a pixel and polarity keeps its events
        size = delta.abs().sum(1) / 2
    else:
        size = gradients.l2(delta) if attack.norm == "l2" else delta.abs().amax(1)
    return (size > attack.eps * (1 + 1e-5) + 1e-6) | outside.flatten(1).any(1) | perturbed.isnan().flatten(1).any(1)


@contextmanager
def chance(seed: int) -> Iterator[None]:
    """A context in which torch's CPU generator is seeded with `seed`; afterwards it has its former state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
