"""The robustness of any network: accuracy under a list of attacks, the worst case, and reasons to doubt the numbers."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from paperlib import errors
from paperlib.attacks import evaluation, protocols
from paperlib.attacks.attack import Attack
from paperlib.attacks.evaluation import Judged
from paperlib.data import sets
from paperlib.data.sets import Split
from paperlib.measures import statistics
from paperlib.measures.doubts import doubts
from paperlib.theory.gradients import device_of

FEW = 8  # images on which a network's output is checked


@dataclass(frozen=True)
class Robustness:
    """What `judge` found; printed as a table."""

    clean: float  # share of images classified correctly without a perturbation, in [0, 1]
    worst_case: float  # and the share that no attack broke
    eps: float
    n: int  # images
    rows: list[dict]  # clean, each attack, worst case: attack, accuracy, low, high, passes, doubts

    @property
    def table(self) -> pd.DataFrame:
        """A line for each of `rows`, in percent."""
        return pd.DataFrame(
            {
                "attack": row["attack"],
                "accuracy, %": f"{100 * row['accuracy']:.1f}" + (" †" if row["doubts"] else ""),
                "95 % interval": f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]",
                "passes per image": f"{row['passes']:.0f}",
            }
            for row in self.rows
        )

    @property
    def doubts(self) -> list[str]:
        """The reasons to doubt a number, each with a remedy."""
        return [f"† {row['attack']}: {why}." for row in self.rows for why in row["doubts"]]

    def __str__(self) -> str:
        return "\n".join([f"{self.n} images, eps = {self.eps:.4g}", self.table.to_string(index=False), *self.doubts])

    def _repr_markdown_(self) -> str:
        lines = [f"{self.n} images, ε = {self.eps:.4g}", self.table.to_markdown(index=False), *self.doubts]
        return "\n\n".join(lines)


def judge(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    bounds: tuple[float, float],
    num_classes: int | None = None,
    budget: str = "standard",
) -> Robustness:
    """The robustness of a classifier, spiking or not, to perturbations within `eps` in l∞.

    `network` is in eval mode and maps images (B, ...) within `bounds` to logits (B, K); `images` are (N, ...), `labels`
    (N,), `eps` is in the images' units.  `num_classes` is K, by default that of the logits.  `budget` is "quick",
    "standard" or "full": see `protocols.of_budget`.  Each attack is made on every image that is classified correctly;
    the worst case counts the images that all attacks leave.  Intervals are Wilson's, 95 %, over images: of other
    trainings of the same network they tell nothing.

    Refuses a network in training mode or without logits (B, K), images outside `bounds`, labels that do not fit, and
    an unknown budget.
    """
    errors.number("eps", eps, above=0)
    errors.one_of("budget", budget, protocols.BUDGETS)
    samples, classes = _checked(network, images, labels, bounds, num_classes)
    attacks = protocols.of_budget(budget, eps, num_classes=classes, has_rules=hasattr(network, "backward_rule"))
    correct = evaluation.flags(network, samples)
    judged = [Judged(None, correct.numpy(), np.ones(len(samples)))]
    judged += [_under(network, samples, attack, correct) for attack in attacks]
    survived = np.logical_and.reduce([one.flags for one in judged])
    rows = [_row("clean" if one.attack is None else one.attack.title, one, why) for one, why in
            zip(judged, doubts(judged), strict=True)]  # fmt: skip
    passes = sum(one.passes for one in judged)
    rows.append(_row("worst of all", Judged(None, survived, passes), []))
    return Robustness(rows[0]["accuracy"], rows[-1]["accuracy"], eps, len(samples), rows)


def _under(network: nn.Module, samples: Split, attack: Attack, correct: Tensor) -> Judged:
    """One attack on every sample that is classified correctly."""
    stochastic = getattr(network, "stochastic", False)
    flags, n = evaluation.standing(stochastic, correct).clone(), len(samples)
    forward, backward, vanished, strayed = (torch.zeros(n) for _ in range(4))
    size = evaluation.batch_size(n)
    for outcome in evaluation.attacked(network, samples, attack, flags.clone(), batch_size=size):
        rows = outcome.rows
        flags[rows] &= outcome.flags
        forward[rows], backward[rows] = outcome.forward, outcome.backward
        vanished[rows], strayed[rows] = outcome.vanished, outcome.strayed.float()
    share = (vanished.sum() / backward.sum().clamp_min(1)).item()
    passes = (forward + backward).numpy()
    return Judged(attack, flags.numpy(), passes, share, int(strayed.sum()), stochastic)


def _row(title: str, judged: Judged, reasons: list[str]) -> dict:
    share = statistics.wilson(judged.flags)
    passes = float(np.mean(judged.passes))
    return {"attack": title, "accuracy": share.value, "low": share.low, "high": share.high} | {
        "passes": passes,
        "doubts": reasons,
    }


def _checked(
    network: nn.Module, images: Tensor, labels: Tensor, bounds: tuple[float, float], num_classes: int | None
) -> tuple[Split, int]:
    """The samples as a split, and the number of classes; refuses what `judge` does."""
    if getattr(network, "training", False):
        raise errors.Refused("The network is in training mode; put it in eval mode first: network.eval().")
    if not isinstance(images, Tensor) or not images.is_floating_point() or images.dim() < 2 or not len(images):
        raise errors.Refused(f"images is {_shown(images)}; it must be a tensor of floating-point images (N, ...).")
    if not isinstance(labels, Tensor) or labels.shape != (len(images),) or labels.is_floating_point():
        raise errors.Refused(f"labels is {_shown(labels)}; it must be a tensor of {len(images)} whole numbers.")
    if not bounds[0] < bounds[1]:
        raise errors.Refused(f"bounds is {bounds}; the lower one must lie below the upper one.")
    sets.check(images, torch.zeros(0), bounds=bounds, num_classes=None)
    few = images[:FEW].to(device_of(network))
    with torch.no_grad():
        logits = network(few)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(few) or logits.shape[1] < 2:
        raise errors.Refused(
            f"The network returned {_shown(logits)} for {len(few)} images; it must return logits, a tensor "
            f"({len(few)}, K) with K classes."
        )
    classes = logits.shape[1]
    if num_classes not in (None, classes):
        raise errors.Refused(f"num_classes is {num_classes}; the network has logits of {classes} classes.")
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise errors.Refused(f"A label is {outside[0].item()}; the network's {classes} logits fit 0 to {classes - 1}.")
    labels = labels.long().cpu()
    images = images.detach().float().cpu()
    return Split(images, labels, torch.arange(len(labels)), one=1, bounds=bounds, num_classes=classes), classes


def _shown(value: object) -> str:
    """A value as an error names it: the shape of a tensor, or the type."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype}"
    return f"a {type(value).__name__}"
