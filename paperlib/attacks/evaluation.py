"""Network + samples + attack → what it leaves of each sample, and what that cost.  Pure; nothing is kept here."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from paperlib.attacks.attack import Attack
from paperlib.attacks.core import Asked
from paperlib.data import sets
from paperlib.data.sets import Split
from paperlib.theory import gradients
from paperlib.theory.gradients import in_batches

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


def flags(
    network: nn.Module,
    samples: Split,
    attack: Attack | None = None,
    *,
    correct: Tensor | None = None,
    source: nn.Module | None = None,
    **how,
) -> Tensor:
    """(N,) bool on the CPU: whether each sample is classified correctly, on clean images where `attack` is None.

    Samples misclassified without a perturbation are broken already and are not attacked; `correct`, the flags on clean
    images, spares finding them again.  A network that is `stochastic` is judged by the draw under attack alone.  See
    `attacked` for `source` and `how`, and for what is refused.
    """
    if correct is None:
        correct = _clean(network, samples, **how)
    if attack is None:
        return correct
    survived = standing(getattr(network, "stochastic", False), correct)
    for found in attacked(network, samples, attack, survived, source=source, **how):
        survived[found.rows] &= found.flags
    return survived


def batch_size(samples: int) -> int:
    """Images that a network sees at once, for so many samples: so few that what survives still fills a batch."""
    return min(BATCH, max(FEW, samples // 4))


def standing(stochastic: bool, correct):
    """Which samples an attack has to break, (N,) bool as `correct`: those, or all where the next draw is another."""
    return correct | stochastic


def _clean(
    network: nn.Module,
    samples: Split,
    *,
    bounds: tuple[float, float],
    num_classes: int,
    seed: int = 0,
    batch_size: int = BATCH,
    device: str = "cpu",
) -> Tensor:
    x, y = _opened(network, samples, bounds, num_classes, device)
    with chance(seed):
        return (in_batches(network, x, batch_size).argmax(1) == y).cpu()


def attacked(
    network: nn.Module,
    samples: Split,
    attack: Attack,
    wanted: Tensor,
    *,
    source: nn.Module | None = None,
    bounds: tuple[float, float],
    num_classes: int,
    seed: int = 0,
    batch_size: int = BATCH,
    device: str = "cpu",
) -> Iterator[Outcome]:
    """What `attack` leaves of the samples `wanted`, (N,) bool; made on the network `source`, if there is one.

    The networks see exactly `batch_size` images at a time, in eval mode, and noise is drawn per sample, so a flag
    depends on its sample alone.  Where a network is `coupled`, it depends on the batch, so a batch is always the same:
    `batch_size` neighbours in `samples`, all of them attacked where one is wanted.  Chance inside a network is drawn
    from `seed` and the batch's number.  Refuses images outside `bounds` and labels outside 0..K-1.
    """
    x, y = _opened(network, samples, bounds, num_classes, device)
    maker = network if source is None else source.to(device).eval()
    with attack.ruled(maker):
        together = getattr(maker, "coupled", False) or getattr(network, "coupled", False)
    everyone = torch.arange(len(samples))
    if together:
        parts = [rows for rows in everyone.split(batch_size) if wanted[rows].any()]
    else:
        parts = everyone[wanted].split(CHUNK) if wanted.any() else []
    for rows in parts:
        perturb = attack.bind(seed=seed, index=samples.index[rows])
        images_, labels = x[rows.to(device)], y[rows.to(device)]
        asked = Asked(maker, images_, labels, batch_size)
        with chance(seed + int(rows[0])):
            found = perturb(asked, images_, labels, bounds=bounds).detach()
            right = in_batches(network, found, None if together else batch_size).argmax(1) == labels
        strayed = _strayed(found, images_, attack, bounds)
        yield Outcome(rows, right.cpu(), asked.forward + 1, asked.backward, asked.vanished, strayed.cpu())


def _opened(network: nn.Module, samples: Split, bounds, num_classes: int, device: str) -> tuple[Tensor, Tensor]:
    network.eval()
    x, y = samples.pixels(), samples.labels
    sets.check(x, y, bounds=bounds, num_classes=num_classes)
    return x.to(device), y.to(device)


def _strayed(found: Tensor, images: Tensor, attack: Attack, bounds: tuple[float, float]) -> Tensor:
    """Whether each of `found` lies further from its image than rounding explains, or outside `bounds`, (n,) bool."""
    delta = (found - images).flatten(1)
    outside = (found < bounds[0]) | (found > bounds[1])
    if attack.norm == "l0":
        outside |= (found - images).abs() > 1 + 1e-5  # a cell changes by one event at most
        far = gradients.l0(delta, 0)
    else:
        far = gradients.l2(delta) if attack.norm == "l2" else delta.abs().amax(1)
    return (far > attack.eps * (1 + 1e-5) + 1e-6) | outside.flatten(1).any(1) | found.isnan().flatten(1).any(1)


@contextmanager
def chance(seed: int) -> Iterator[None]:
    """Inside the block torch draws from `seed`; behind it, as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
