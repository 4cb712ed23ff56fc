"""Rows of the ratio theorem on trained networks (claim C2): the statement, vulnerabilities, the worst violations.

The ratio is ρ_adv/ρ_rand of f_y, the probability of the true class: from the gradient alone (*linear*), or by attack
and Monte Carlo, with each spike smoothed by its surrogate (*surrogate-smooth*) or as it is (*true forward*).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from paperlib import errors, records, theory
from paperlib.certificates import still_radius
from paperlib.data.sets import Split
from paperlib.labels import KEPT, SMOOTH, TRUE
from paperlib.measures import statistics
from paperlib.measures.rows import BATCH, NOTHING, by_labels, mean_over_seeds, median, over_seeds, row
from paperlib.networks.network import Network
from paperlib.store.experiment import Experiment, Opened
from paperlib.theory import gradients

ENTERED: dict[str, Callable] = {SMOOTH: Network.smoothed, TRUE: lambda network: nullcontext()}  # contexts by regime
CANDIDATES, SEARCHED = 5, 10  # of the search for the worst violation: samples measured anew, radii of its curve
COPIES = 50  # of one image in a batch, where many draws are taken of it


def ratio_rows(experiment: Experiment, gradient: Tensor) -> list[dict]:
    """The linear ratio of `gradient` = ∇ₓ f_y, (N, ...), its upper bound (medians), the share within both bounds."""
    ratio = theory.linear_ratio(gradient)
    defined = ratio.isfinite()
    ratio, support = ratio[defined], gradients.l0(gradient[defined], threshold=0.0)
    inside = (ratio >= 3 * (1 - 1e-5)) & (ratio <= 3 * support * (1 + 1e-5))  # but for rounding
    measured = {
        "linear ratio": median(ratio),
        "upper bound": median(3.0 * support),
        "within both bounds": statistics.wilson(inside.numpy()) if len(inside) else NOTHING,
        "zero gradient": statistics.wilson((~defined).numpy()),
    }
    return [row(interval, [experiment], quantity=name, **experiment.labels) for name, interval in measured.items()]


class Vulnerabilities(NamedTuple):
    """Both vulnerabilities of one network at N samples, in one regime and at one radius."""

    experiment: Experiment
    regime: str
    eps_255: float
    gradient: Tensor  # of this regime's f, (N, C, H, W)
    confidence: Tensor  # f_y, (N,)
    random: theory.RandomVulnerability
    adversarial: Tensor  # (N,)
    still: Tensor | None = None  # (N,) bool: no first spike changes within the radius, so nothing can change f_y

    @property
    def labels(self) -> dict:
        return self.experiment.labels | {"regime": self.regime, "eps_255": self.eps_255}

    @property
    def reached(self) -> Tensor:
        """ρ_adv, (N,): the largest change that the attack or a draw reached."""
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
        """Where each sample's ratio lies: (N,) flags by outcome, of which exactly one is set for each sample."""
        ratio, above, flat = self.ratio, self.ratio > self.upper, gradients.l1(self.gradient) == 0
        still = torch.zeros_like(flat) if self.still is None else self.still & ~flat
        left = ~flat & ~still
        outcomes = {
            "no gradient": flat,
            "nothing can change": still,
            "undetermined": left & ~ratio.isfinite(),  # neither attack nor draws, or too few draws, moved f_y
            "below 3": left & (ratio < 3),
            "inside": left & (ratio >= 3) & ~above,
            "above 3‖g‖₀": left & above & ratio.isfinite(),
        }
        return {name: flags.numpy() for name, flags in outcomes.items()}

    @property
    def below(self) -> dict[str, np.ndarray]:
        """Whether the ratio keeps to each bound, for samples with a gradient and a finite ratio: the verdict on C2.

        Where the attack alone moved f_y, more draws would have moved it, too, and the ratio is not determined.
        """
        ratio = self.ratio
        determined = ratio.isfinite() & (gradients.l1(self.gradient) > 0)
        bounds = {"at most 3‖g‖₀": self.upper, "at most 3·PN": theory.linear_ratio(self.gradient)}
        return {name: (ratio <= bound)[determined].numpy() for name, bound in bounds.items()}

    @property
    def sizes(self) -> dict[str, np.ndarray]:
        """ρ_rand, ρ_adv, their ratio, and both over their first-order predictions; only the finite values."""
        random, adversarial = theory.linear_vulnerabilities(self.gradient, self.eps_255 / 255)
        sizes = {
            "ρ_rand": self.random.value,
            "ρ_adv": self.reached,
            "ratio": self.ratio,
            "ρ_rand over first order": self.random.value / random,
            "ρ_adv over first order": self.reached / adversarial,
        }
        return {name: values[values.isfinite()].numpy() for name, values in sizes.items()}

    def against_confidence(self) -> statistics.Interval:
        """Spearman's correlation of the ratio with f_y over samples: do confident images have large ratios?"""
        finite = self.ratio.isfinite()
        return statistics.rank_correlation(self.confidence[finite], self.ratio[finite]) if finite.any() else NOTHING


def vulnerabilities(
    opened: Opened, samples: Split, regime: str, radii_255: Sequence[float], *, draws: int, steps: int
) -> list[Vulnerabilities]:
    """Both vulnerabilities of one network at each radius, in a regime of `ENTERED`; the same draws at every radius.

    `draws` are of the noise, `steps` of the attack.  Refuses no radius, one of 0 or less, and fewer than 2 draws.
    """
    if not radii_255:
        raise errors.Refused("There is no radius to measure at; give one at least.")
    for eps_255 in radii_255:
        errors.number("eps_255", eps_255, above=0)  # measures are divided by what first order predicts
    experiment, network = opened
    with ENTERED[regime](network):
        f, device = theory.probabilities(network), gradients.device_of(network)
        found = measured(f, experiment, samples, regime, radii_255, draws=draws, steps=steps, device=device)
    if regime != TRUE:
        return found
    radius = 255 * still_radius(network, samples.pixels())
    return [v._replace(still=v.eps_255 < radius) for v in found]


def measured(
    f: gradients.Probabilities,
    experiment: Experiment,
    samples: Split,
    regime: str,
    radii_255: Sequence[float],
    *,
    draws: int,
    steps: int,
    device: torch.device,
) -> list[Vulnerabilities]:
    """`vulnerabilities` of any f on `device`; `experiment` and `regime` are its labels."""
    parts: dict[float, list[tuple]] = {eps: [] for eps in radii_255}  # for each batch the columns of Vulnerabilities
    for x, y, index in samples.batches(BATCH):
        x, y = x.to(device), y.to(device)
        gradient = theory.true_class_gradient(f, x, y)
        with torch.no_grad():
            confidence = gradients.true_class(f, x, y)
        for eps_255 in parts:
            generator = torch.Generator(device).manual_seed(int(index[0]))
            random = theory.random_vulnerability(f, x, y, eps_255 / 255, draws, generator=generator)
            adversarial = theory.adversarial_vulnerability(f, x, y, eps_255 / 255, steps=steps)
            parts[eps_255].append((gradient, confidence, adversarial, *random))
    by_radius = []
    for eps_255, batches in parts.items():
        gradient, confidence, adversarial, *random = (torch.cat(column).cpu() for column in zip(*batches, strict=True))
        random = theory.RandomVulnerability(*random)
        by_radius.append(Vulnerabilities(experiment, regime, eps_255, gradient, confidence, random, adversarial))
    return by_radius


def vulnerability_rows(found: Iterable[Vulnerabilities]) -> list[dict]:
    """For each training, regime and radius, over seeds: where ratios lie, and how many keep to each bound (C2)."""
    rows = []
    for labels, group in by_labels(found, lambda v: v.labels):
        for name in group[0].outcomes:
            rows.append(over_seeds([(v.experiment, v.outcomes[name]) for v in group], quantity=name, **labels))
        for name in group[0].sizes:
            sizes = [(v.experiment, v.sizes[name]) for v in group]
            rows.append(over_seeds(sizes, geometric=True, quantity=name, **labels))
        moved = [(v.experiment, v.random.moved.numpy()) for v in group]
        rows.append(over_seeds(moved, quantity="draws that moved f_y", **labels))
        correlations = [(v.experiment, v.against_confidence().value, v.against_confidence) for v in group]
        rows.append(mean_over_seeds(correlations, within=(-1, 1), quantity="ratio against confidence", **labels))
        for name in group[0].below:
            kept = [(v.experiment, v.below[name]) for v in group]
            rows.append(over_seeds(kept, mark=KEPT, quantity=name, **labels))
    return rows


def quantiles(found: Iterable[Vulnerabilities]) -> dict:
    """For the figure: {regime: {training: quartiles of the finite ratios of all networks, three numbers a radius}}."""
    drawn: dict[str, dict[str, list]] = {}
    places = by_labels(found, lambda v: {"regime": v.regime, "training": v.experiment.defense, "eps_255": v.eps_255})
    for place, group in places:
        ratios = np.concatenate([v.sizes["ratio"] for v in group])
        quartiles = np.quantile(ratios, [0.25, 0.5, 0.75]) if len(ratios) else np.full(3, np.nan)
        drawn.setdefault(place["regime"], {}).setdefault(place["training"], []).append(records.array(quartiles))
    return drawn


def saturation(found: Iterable[Vulnerabilities]) -> dict:
    """For the figure: {training: log-odds and excess of its first network, (N,)}, true forward, largest radius."""
    found = [v for v in found if v.regime == TRUE]
    largest = max(v.eps_255 for v in found)
    first = {v.experiment.defense: v for v in reversed(found) if v.eps_255 == largest}
    return {
        training: {"margin": records.array(v.confidence.logit()), "excess": records.array(v.ratio / v.upper)}
        for training, v in first.items()
    }


def pictures(worst: Iterable[dict], samples: Split) -> dict:
    """For the figure: {bound: the image that the rows of `worst_rows` name, (C, H, W)}."""
    return {r["bound"]: records.array(samples.pixels(slice(r["image"], r["image"] + 1))[0]) for r in worst}


def worst_rows(
    found: Iterable[Vulnerabilities], networks: Mapping[str, Network], samples: Split, *, draws: int, steps: int
) -> list[dict]:
    """The sample that breaks each bound most in the true regime, searched over networks, samples and radii.

    `networks` maps experiment keys to the networks that `found` is of.  The `CANDIDATES` that break a bound most are
    measured anew, since the largest of many estimates is too large.  The worst of them has a row for each of `SEARCHED`
    radii: the ratio over the upper bound 3‖g‖₀, or over the lower bound 3; there is none where no ratio is finite.
    """
    rows, device = [], gradients.device_of(next(iter(networks.values())))
    generator = torch.Generator(device).manual_seed(1)
    found = [v for v in found if v.regime == TRUE]
    lowest, highest = min(v.eps_255 for v in found), max(v.eps_255 for v in found)
    grid = list(dict.fromkeys(records.array(np.geomspace(lowest, highest, SEARCHED), digits=3)))

    def measure(v: Vulnerabilities, image: int, bound: str, eps_255: float) -> statistics.Interval:
        """The ratio at one sample over its bound."""
        x, y = samples.pixels(slice(image, image + 1)).to(device), samples.labels[image : image + 1].to(device)
        f = theory.probabilities(networks[v.experiment.key])
        limit = v.upper[image].item() if bound == "upper" else 3
        adversarial = theory.adversarial_vulnerability(f, x, y, eps_255 / 255, steps=steps)
        random = many_draws(f, x, y, eps_255 / 255, draws=draws, law="uniform", generator=generator)
        return ratio_interval(adversarial, random, statistics.Z, over=limit)

    for bound, farthest in (("upper", max), ("lower", min)):
        again = [(measure(v, image, bound, v.eps_255).value, v, image) for v, image in _candidates(found, bound)]
        again = [candidate for candidate in again if np.isfinite(candidate[0])]
        if not again:
            continue
        _, worst, image = farthest(again, key=lambda candidate: candidate[0])
        for eps_255 in grid:
            labels = worst.experiment.labels | {"bound": bound, "image": image, "eps_255": eps_255}
            labels |= {"log_odds": round(worst.confidence[image].logit().item(), 2), "quantity": "ratio over bound"}
            rows.append(row(measure(worst, image, bound, eps_255), [worst.experiment], **labels))
    return rows


def _candidates(found: list[Vulnerabilities], bound: str) -> list[tuple[Vulnerabilities, int]]:
    """Those of `found`, and samples, at which the estimates break a bound most, the worst first."""
    candidates = []  # (ratio over the upper bound, or lower bound over ratio; place; sample)
    for place, v in enumerate(found):
        excess = v.ratio / v.upper if bound == "upper" else 3 / v.ratio
        excess = torch.where(excess.isfinite() & (v.upper > 0), excess, -torch.inf)
        largest = excess.topk(min(CANDIDATES, len(excess)))
        pairs = zip(largest.values.tolist(), largest.indices.tolist(), strict=True)
        candidates += [(value, place, image) for value, image in pairs if value > -np.inf]
    return [(found[place], image) for _, place, image in sorted(candidates, reverse=True)[:CANDIDATES]]


def many_draws(
    f: gradients.Probabilities, x: Tensor, y: Tensor, eps: float, *, draws: int, law: str, generator: torch.Generator
) -> theory.RandomVulnerability:
    """`random_vulnerability` of one sample (1, ...) from about `draws` draws, `COPIES` at a time; fields are (1,)."""
    copies = x.expand(COPIES, *x.shape[1:]), y.expand(COPIES)
    estimates = theory.random_vulnerability(f, *copies, eps, max(2, draws // COPIES), law, generator)
    values = estimates.value
    pooled = values.mean(), values.std() / COPIES**0.5, estimates.largest.amax(), estimates.moved.mean()
    return theory.RandomVulnerability(*(value[None] for value in pooled))


def ratio_interval(
    adversarial: Tensor, random: theory.RandomVulnerability, z: float, *, over: float = 1
) -> statistics.Interval:
    """The ratio at one sample over `over`, with ρ_rand ± `z` standard errors; no upper end where ρ_rand may be 0."""
    reached, mean, error = (t.item() for t in (torch.maximum(adversarial, random.largest), random.value, random.error))
    ends = mean + z * error, mean, mean - z * error
    low, value, high = (reached / part / over if part > 0 else np.nan for part in ends)
    low = low if np.isfinite(high) else np.nan
    return statistics.Interval(value, low, high, COPIES, "Monte Carlo, normal 95 %", "draws")
