"""The ratio theorem on trained networks (C2): the statement, three regimes, the worst violations.

Regimes: *linear*, from the gradient alone; *surrogate-smooth*, each spike replaced by the integral of its surrogate;
*true forward*, the spiking network with ρ_rand by Monte Carlo and ρ_adv by attack.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from paperlib import errors, records, theory
from paperlib.data.sets import Split
from paperlib.labels import SMOOTH, TRUE
from paperlib.measures import statistics
from paperlib.measures.rows import BATCH, NOTHING, by_labels, mean_over_seeds, median, over_seeds, row
from paperlib.networks.network import Network
from paperlib.store.experiment import Experiment, Opened
from paperlib.theory import gradients
from paperlib.theory.gradients import Probabilities
from paperlib.theory.ratio import RandomVulnerability

ENTERED: dict[str, Callable] = {SMOOTH: Network.smoothed, TRUE: lambda network: nullcontext()}  # by regime
CANDIDATES, SEARCHED = 5, 10  # of the search for the worst violation: samples measured anew, radii of its curve
COPIES = 50  # of one image, seen at once, where many draws are taken of it


# ---- the statement -----------------------------------------------------------------------------------------------


def ratio_rows(experiment: Experiment, gradient: Tensor) -> list[dict]:
    """The linear ratio of the theorem and its bounds at each sample: its median, and how many lie within (C2).

    Rounding is allowed for: a bound counts as kept within one part in 10⁵.
    """
    ratio = theory.linear_ratio(gradient)
    defined = ratio.isfinite()
    ratio, support = ratio[defined], gradients.l0(gradient[defined], threshold=0.0)
    inside = (ratio >= 3 * (1 - 1e-5)) & (ratio <= 3 * support * (1 + 1e-5))
    measured = {
        "linear ratio": median(ratio),
        "upper bound": median(3.0 * support),
        "within both bounds": statistics.wilson(inside.numpy()) if len(inside) else NOTHING,
        "zero gradient": statistics.wilson((~defined).numpy()),
    }
    return [row(interval, [experiment], quantity=name, **experiment.labels) for name, interval in measured.items()]


# ---- three regimes -----------------------------------------------------------------------------------------------


class Vulnerabilities(NamedTuple):
    """Both vulnerabilities of one network at one radius, a value for each of N samples."""

    experiment: Experiment
    regime: str
    eps_255: float
    gradient: Tensor  # of this regime's f, (N, C, H, W)
    confidence: Tensor  # f_y, (N,)
    random: RandomVulnerability
    adversarial: Tensor  # (N,)

    @property
    def labels(self) -> dict:
        return self.experiment.labels | {"regime": self.regime, "eps_255": self.eps_255}

    @property
    def reached(self) -> Tensor:
        """ρ_adv, (N,): what the attack reached, or a draw that outdid it."""
        return torch.maximum(self.adversarial, self.random.largest)

    @property
    def ratio(self) -> Tensor:
        """(N,); NaN where nothing moved f_y, ∞ where the attack alone did."""
        return theory.measured_ratio(self.adversarial, self.random)

    @property
    def upper(self) -> Tensor:
        """3‖g‖₀, (N,)."""
        return 3.0 * gradients.l0(self.gradient, 0.0)

    @property
    def outcomes(self) -> dict[str, np.ndarray]:
        """Where each sample lies: (N,) flags, of which exactly one is set for a sample."""
        ratio, flat = self.ratio, gradients.l1(self.gradient) == 0
        above = ratio > self.upper
        found = {
            "no gradient": flat,
            "nothing moved": ~flat & ratio.isnan(),
            "below 3": ~flat & (ratio < 3),
            "inside": ~flat & (ratio >= 3) & ~above,
            "above 3‖g‖₀": ~flat & above & ratio.isfinite(),
            "only the attack moved": ~flat & ratio.isinf(),
        }
        return {name: flags.numpy() for name, flags in found.items()}

    @property
    def below(self) -> dict[str, np.ndarray]:
        """Of samples with a gradient and a ratio, whether it keeps to each bound: the basis of the verdict on C2."""
        ratio = self.ratio
        judged = ~ratio.isnan() & (gradients.l1(self.gradient) > 0)
        bounds = {"at most 3‖g‖₀": self.upper, "at most 3·PN": theory.linear_ratio(self.gradient)}
        return {name: (ratio <= bound)[judged].numpy() for name, bound in bounds.items()}

    @property
    def sizes(self) -> dict[str, np.ndarray]:
        """ρ_rand, ρ_adv, their ratio, and the former two over what first order predicts; finite ones alone."""
        first = theory.linear_vulnerabilities(self.gradient, self.eps_255 / 255)
        found = {
            "ρ_rand": self.random.value,
            "ρ_adv": self.reached,
            "ratio": self.ratio,
            "ρ_rand over first order": self.random.value / first[0],
            "ρ_adv over first order": self.reached / first[1],
        }
        return {name: values[values.isfinite()].numpy() for name, values in found.items()}


def vulnerabilities(
    opened: Opened,
    samples: Split,
    regime: str,
    radii_255: Sequence[float],
    *,
    draws: int,
    steps: int,
) -> list[Vulnerabilities]:
    """Both vulnerabilities of one network at each radius, in a regime of `ENTERED`; the same draws at every radius."""
    if not radii_255:
        raise errors.Refused("There is no radius to measure at; give one at least.")
    for eps_255 in radii_255:
        errors.number("eps_255", eps_255, above=0)  # measures are divided by what first order predicts
    experiment, network = opened
    with ENTERED[regime](network):
        f, device = theory.probabilities(network), gradients.device_of(network)
        return measured(f, experiment, samples, regime, radii_255, draws=draws, steps=steps, device=device)


def measured(
    f: Probabilities,
    experiment: Experiment,
    samples: Split,
    regime: str,
    radii_255: Sequence[float],
    *,
    draws: int,
    steps: int,
    device: torch.device,
) -> list[Vulnerabilities]:
    """`vulnerabilities` of any f; `experiment` and `regime` are its labels."""
    parts: dict[float, list[tuple]] = {eps: [] for eps in radii_255}
    for x, y, index in samples.batches(BATCH):
        x, y = x.to(device), y.to(device)
        gradient = theory.true_class_gradient(f, x, y)
        with torch.no_grad():
            confidence = f(x).gather(1, y[:, None]).squeeze(1)
        for eps_255 in parts:
            generator = torch.Generator(device).manual_seed(int(index[0]))
            random = theory.random_vulnerability(f, x, y, eps_255 / 255, draws, generator=generator)
            adversarial = theory.adversarial_vulnerability(f, x, y, eps_255 / 255, steps=steps)
            parts[eps_255].append((gradient, confidence, adversarial, *random))
    vulnerabilities_ = []
    for eps_255, batches in parts.items():
        columns = (torch.cat(column).cpu() for column in zip(*batches, strict=True))
        gradient, confidence, adversarial, *random = columns
        random = RandomVulnerability(*random)
        vulnerabilities_.append(Vulnerabilities(experiment, regime, eps_255, gradient, confidence, random, adversarial))
    return vulnerabilities_


def vulnerability_rows(found: Iterable[Vulnerabilities]) -> list[dict]:
    """Per training, regime and radius, over seeds: where samples lie, medians, draws that moved f_y, confidence.

    The shares on which the verdict rests stand per network as well, with Wilson's interval.
    """
    rows = []
    for labels, group in by_labels(found, lambda v: v.labels):
        for what, geometric in (("outcomes", False), ("sizes", True)):
            values = [(v.experiment, getattr(v, what)) for v in group]
            for name in values[0][1]:
                by_network = [(e, by_name[name]) for e, by_name in values]
                rows.append(over_seeds(by_network, geometric=geometric, quantity=name, **labels))
        moved = [(v.experiment, v.random.moved.numpy()) for v in group]
        rows.append(over_seeds(moved, quantity="draws that moved f_y", **labels))
        rows.append(_confidence_row(group, labels))
        for v in group:
            for name, flags in v.below.items():
                share = statistics.wilson(flags) if len(flags) else NOTHING
                rows.append(row(share, [v.experiment], quantity=name, **labels))
    return rows


def _confidence_row(group: list[Vulnerabilities], labels: dict) -> dict:
    """Spearman's correlation over samples of the ratio with f_y: are confident images those of large ratios?"""

    def correlation(v: Vulnerabilities) -> statistics.Interval:
        finite = v.ratio.isfinite()
        return statistics.rank_correlation(v.confidence[finite], v.ratio[finite]) if finite.any() else NOTHING

    values = [(v.experiment, correlation(v).value, partial(correlation, v)) for v in group]
    return mean_over_seeds(values, within=(-1, 1), quantity="ratio against confidence", **labels)


def quantiles(found: Iterable[Vulnerabilities]) -> dict:
    """For the figure: {regime: {training: quartiles of all finite ratios, three numbers a radius}}."""
    pooled: dict[str, dict[str, dict[float, list[Tensor]]]] = {}
    for v in found:
        by_radius = pooled.setdefault(v.regime, {}).setdefault(v.experiment.labels["training"], {})
        by_radius.setdefault(v.eps_255, []).append(v.ratio[v.ratio.isfinite()])
    return {
        regime: {
            training: [_quartiles(torch.cat(parts)) for parts in radii.values()] for training, radii in own.items()
        }
        for regime, own in pooled.items()
    }


def _quartiles(values: Tensor) -> list[float]:
    return records.array(np.quantile(values.numpy(), [0.25, 0.5, 0.75])) if len(values) else [np.nan] * 3


def saturation(found: Iterable[Vulnerabilities]) -> dict:
    """For the figure: {training: log-odds of the true class and ratio over 3‖g‖₀ of each sample}.

    With the true forward pass, at the largest radius, for the first network of each training.
    """
    found = [v for v in found if v.regime == TRUE]
    largest = max(v.eps_255 for v in found)
    first = {v.experiment.labels["training"]: v for v in reversed(found) if v.eps_255 == largest}
    return {
        training: {"margin": records.array(v.confidence.logit()), "excess": records.array(v.ratio / v.upper)}
        for training, v in first.items()
    }


def pictures(worst: Iterable[dict], samples: Split) -> dict:
    """For the figure: {bound: the image in the rows of `worst_rows`, (C, H, W)}."""
    return {r["bound"]: records.array(samples.pixels(slice(r["image"], r["image"] + 1))[0]) for r in worst}


# ---- the worst violations ----------------------------------------------------------------------------------------


def worst_rows(
    found: Iterable[Vulnerabilities], networks: Mapping[str, Network], samples: Split, *, draws: int, steps: int
) -> list[dict]:
    """The sample that breaks each bound most in the true regime, searched over networks, samples and radii.

    `networks` maps experiment keys to the networks that `found` is of.  The `CANDIDATES` that break a bound most are
    measured anew, with fresh draws and a longer attack, since the largest of many estimates is too large; the worst of
    these on a grid of `SEARCHED` radii.  Values are the ratio over the upper bound 3‖g‖₀, and over the lower bound 3.
    """
    rows, device = [], gradients.device_of(next(iter(networks.values())))
    generator = torch.Generator(device).manual_seed(1)
    found = [v for v in found if v.regime == TRUE]
    lowest, highest = min(v.eps_255 for v in found), max(v.eps_255 for v in found)
    grid = list(dict.fromkeys(records.array(np.geomspace(lowest, highest, SEARCHED), digits=3)))

    def measure(place: int, image: int, bound: str, eps_255: float) -> statistics.Interval:
        x, y = samples.pixels(slice(image, image + 1)).to(device), samples.labels[image : image + 1].to(device)
        f = theory.probabilities(networks[found[place].experiment.key])
        limit = found[place].upper[image].item() if bound == "upper" else 3
        adversarial = theory.adversarial_vulnerability(f, x, y, eps_255 / 255, steps=steps)
        random = many_draws(f, x, y, eps_255 / 255, draws=draws, law="uniform", generator=generator)
        return ratio_interval(adversarial, random, statistics.Z, over=limit)

    for bound, sign in (("upper", 1), ("lower", -1)):
        broken = []  # (by how much, which network and radius, which sample)
        for place, v in enumerate(found):
            excess = v.ratio / v.upper if bound == "upper" else 3 / v.ratio
            excess = torch.where(excess.isfinite() & (v.upper > 0), excess, -torch.inf)
            most = excess.topk(min(CANDIDATES, len(excess)))
            broken += [(e, place, i) for e, i in zip(*(t.tolist() for t in most), strict=True) if e > -np.inf]
        again = [  # the same, measured anew
            (sign * measure(place, image, bound, found[place].eps_255).value, place, image)
            for _, place, image in sorted(broken, reverse=True)[:CANDIDATES]
        ]
        again = [one for one in again if np.isfinite(one[0])]
        if not again:
            continue
        _, place, image = max(again, key=lambda one: one[0])
        worst = found[place]
        for eps_255 in grid:
            labels = worst.experiment.labels | {"bound": bound, "image": image, "eps_255": eps_255}
            labels |= {"log_odds": round(worst.confidence[image].logit().item(), 2), "quantity": "ratio over bound"}
            rows.append(row(measure(place, image, bound, eps_255), [worst.experiment], **labels))
    return rows


def many_draws(
    f: Probabilities, x: Tensor, y: Tensor, eps: float, *, draws: int, law: str, generator: torch.Generator
) -> RandomVulnerability:
    """`random_vulnerability` of one sample from many draws, `COPIES` at a time."""
    copies = x.expand(COPIES, *x.shape[1:]), y.expand(COPIES)
    rounds = theory.random_vulnerability(f, *copies, eps, max(2, draws // COPIES), law, generator)
    error = rounds.value.std() / COPIES**0.5
    whole = rounds.value.mean(), error, rounds.largest.amax(), rounds.moved.mean()
    return RandomVulnerability(*(value[None] for value in whole))


def ratio_interval(
    adversarial: Tensor, random: RandomVulnerability, z: float, *, over: float = 1
) -> statistics.Interval:
    """One sample's ratio `over` a bound; the interval is that of ρ_rand alone, ρ_adv being what the attack reached."""
    reached, mean, error = (t.item() for t in (torch.maximum(adversarial, random.largest), random.value, random.error))
    low, value, high = (
        reached / part / over if part > 0 else np.nan for part in (mean + z * error, mean, mean - z * error)
    )
    return statistics.Interval(
        value, low if np.isfinite(high) else np.nan, high, COPIES, "Monte Carlo, normal 95 %", "draws"
    )
