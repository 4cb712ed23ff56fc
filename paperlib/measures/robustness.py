"""The robustness of any network: accuracy under a list of attacks, the worst case, and reasons to doubt the numbers."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from paperlib import errors
from paperlib.attacks import evaluation, protocols
from paperlib.attacks.core import shown
from paperlib.certificates import certify
from paperlib.data import sets
from paperlib.measures import statistics
from paperlib.measures.doubts import CONTRADICTED, doubts
from paperlib.theory.gradients import device_of

PATIENCE = 60.0  # seconds that certificates may take


@dataclass(frozen=True)
class Robustness:
    """The result of `judge`; it is printed as a table."""

    clean: float  # share of the images that are classified correctly without a perturbation, in [0, 1]
    worst_case: float  # share of the images that are classified correctly without and under every attack
    eps: float  # radius of the attacks in l∞, in the units of the images
    n: int  # images
    rows: list[dict]  # "clean", each attack, "worst of all"; keys: attack, accuracy, low, high, passes, doubts
    certified: statistics.Interval | None  # share of the images that no attack within eps can break, by proof
    proof: str  # what there is to say of the proof, or why there is none

    @property
    def table(self) -> pd.DataFrame:
        """One line for each of `rows`, in percent; a † marks numbers that should be doubted."""
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
        """The reasons to doubt a number, each with a remedy; mostly none."""
        return [f"† {row['attack']}: {reason}." for row in self.rows for reason in row["doubts"]]

    @property
    def floor(self) -> str:
        """The certified share in a sentence, the floor below the worst case, or why it is not available."""
        if self.certified is None:
            return f"Certified: not available. {self.proof}"
        value, low, high = (100 * end for end in self.certified[:3])
        return f"Certified, whatever the attack: {value:.1f} % [{low:.1f}, {high:.1f}]{self.proof}."

    def __str__(self) -> str:
        table = self.table.to_string(index=False)
        return "\n".join([f"{self.n} images, eps = {self.eps:.4g}", table, self.floor, *self.doubts])

    def _repr_markdown_(self) -> str:
        """The same for Jupyter."""
        table = self.table.to_markdown(index=False, disable_numparse=True)  # digits as they are
        return "\n\n".join([f"{self.n} images, ε = {self.eps:.4g}", table, self.floor, *self.doubts])


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

    `network` is in eval mode and maps images (B, ...) of 32 bits within `bounds` to logits (B, K).  `images` are
    (N, ...), `labels` (N,), and `eps` is in the units of the images.  `num_classes` is K, by default that of the
    logits.  `budget` is "quick", "standard" or "full"; `protocols.of_budget` lists the attacks of each.

    Each attack is made on every image that is classified correctly without one.  The worst case counts the images that
    are classified correctly under all attacks.  Intervals are Wilson's, 95 %, over images; they say nothing about other
    trainings of the same network.  Passes are forward and backward, on average over all images.

    Below the attacks stands what is certified, for networks that have certificates (see `certificates.certify`), within
    at most a minute.

    A network that draws at random should say so by an attribute `stochastic`; then each attack is made on all images.
    One with a context manager `backward_rule` is attacked by other backward rules as well (see `networks.Network`).

    Refuses a network that is no module, is in training mode or does not return logits, images outside `bounds`, labels
    that do not fit, an unknown budget, and a radius that is not above 0.
    """
    errors.number("eps", eps, above=0)
    errors.one_of("budget", budget, protocols.BUDGETS)
    samples = _samples(network, images, labels, bounds, num_classes)
    has_rules = hasattr(network, "backward_rule")
    attacks = protocols.of_budget(budget, eps, num_classes=samples.num_classes, has_rules=has_rules)
    correct = evaluation.flags(network, samples)
    clean = evaluation.Judged(None, correct.numpy(), np.ones(len(samples)))
    results = [clean, *(evaluation.judged(network, samples, attack, correct) for attack in attacks)]
    survived = np.logical_and.reduce([result.flags for result in results])
    worst = evaluation.Judged(None, survived, sum(result.passes for result in results))
    titles, rows = ["clean", *(attack.title for attack in attacks), "worst of all"], []
    for title, result, why in zip(titles, [*results, worst], [*doubts(results), []], strict=True):
        share = statistics.wilson(result.flags)
        accuracy = {"accuracy": share.value, "low": share.low, "high": share.high}
        rows.append({"attack": title} | accuracy | {"passes": float(np.mean(result.passes)), "doubts": why})
    proved = _proved(network, samples, eps, survived)
    return Robustness(rows[0]["accuracy"], rows[-1]["accuracy"], eps, len(samples), rows, *proved)


def _proved(
    network: nn.Module, samples: sets.Split, eps: float, survived: np.ndarray
) -> tuple[statistics.Interval | None, str]:
    """The certified share with remarks, or why there is no certificate.  `survived` are the flags of all attacks."""
    try:
        found = certify(network, samples.pixels(), samples.labels, eps=eps, bounds=samples.bounds, seconds=PATIENCE)
    except errors.Refused as why:
        return None, str(why)
    flags, untried = found.certified.numpy(), int((~found.tried).sum())
    remarks = [f"; {untried} images were not tried in time"] if untried else []
    remarks += [f" †; {CONTRADICTED}"] if (flags & ~survived).any() else []
    return statistics.wilson(flags), "".join(remarks)


def _samples(
    network: nn.Module, images: Tensor, labels: Tensor, bounds: tuple[float, float], num_classes: int | None
) -> sets.Split:
    """Images and labels as a split on the CPU, with bounds and number of classes; refuses what `judge` refuses."""
    if not isinstance(network, nn.Module):
        raise errors.Refused(f"network is {shown(network)}; it must be a torch.nn.Module.")
    if network.training:
        raise errors.Refused("The network is in training mode; put it in eval mode first: network.eval().")
    if not isinstance(images, Tensor) or not images.is_floating_point() or images.dim() < 2 or not len(images):
        raise errors.Refused(f"images is {shown(images)}; it must be a tensor of floating-point images (N, ...).")
    if not isinstance(labels, Tensor) or labels.shape != (len(images),) or labels.is_floating_point():
        raise errors.Refused(f"labels is {shown(labels)}; it must be a tensor of {len(images)} whole numbers.")
    if not bounds[0] < bounds[1]:
        raise errors.Refused(f"bounds is {bounds}; the lower one must lie below the upper one.")
    images, labels = images.detach().float().cpu(), labels.long().cpu()
    sets.check(images, labels[:0], bounds=bounds, num_classes=None)
    few = images[:8].to(device_of(network))
    with torch.no_grad(), evaluation.chance(0):  # the generator of the user stays as it is
        logits = network(few)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(few) or logits.shape[1] < 2:
        raise errors.Refused(
            f"The network returned {shown(logits)} for {len(few)} images; it must return logits, a tensor "
            f"({len(few)}, K) with K classes."
        )
    classes = logits.shape[1]
    if num_classes not in (None, classes):
        raise errors.Refused(f"num_classes is {num_classes}; the network has logits of {classes} classes.")
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise errors.Refused(f"A label is {outside[0].item()}; the network's {classes} logits fit 0 to {classes - 1}.")
    return sets.Split(images, labels, torch.arange(len(labels)), one=1, bounds=bounds, num_classes=classes)
