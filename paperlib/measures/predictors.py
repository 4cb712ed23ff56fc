"""Rows of the input gradient's size and sparsity, and of what these predict of robustness (claim C5)."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from paperlib import errors, theory
from paperlib.attacks.ensembles import labels_of
from paperlib.data.sets import Split
from paperlib.labels import ACROSS, WITHIN_SR, WITHIN_TRAININGS
from paperlib.measures import statistics
from paperlib.measures.accuracy import doubted, mean_difference_row, share
from paperlib.measures.ratio import TRUE, Vulnerabilities, measured
from paperlib.measures.rows import BATCH, NOTHING, by_labels, median, over_seeds, row
from paperlib.networks import Network
from paperlib.store.evaluations import Evaluation
from paperlib.store.experiment import Experiment, Opened
from paperlib.theory import gradients
from paperlib.training import regularizers

# by their names in records: gradients (B, ...) → (B,), NaN where undefined
SPARSITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "l1": gradients.l1,
    "l2": gradients.l2,
    "participation number": gradients.participation_number,
}


def probability_gradients(network: Network, samples: Split) -> Tensor:
    """∇ₓ f_y of a trained network at `samples`, by its own backward rule, (N, C, H, W) on the CPU."""
    f, device = theory.probabilities(network), gradients.device_of(network)
    batches = samples.batches(BATCH)
    return torch.cat([theory.true_class_gradient(f, x.to(device), y.to(device)).cpu() for x, y, _ in batches])


def sparsity_rows(experiment: Experiment, gradient: Tensor) -> list[dict]:
    """Medians of l1, l2 and participation number of `gradient` = ∇ₓ f_y, (N, ...), and the share where it is 0."""
    rows = []
    for name, measure in SPARSITIES.items():
        values = measure(gradient)
        rows.append(row(median(values[values.isfinite()]), [experiment], quantity=name, **experiment.labels))
    zero = statistics.wilson((gradients.l1(gradient) == 0).numpy())
    return [*rows, row(zero, [experiment], quantity="zero gradient", **experiment.labels)]


def correlation_rows(sparsity: list[dict], evaluations: Iterable[Evaluation]) -> list[dict]:
    """Spearman's r over networks of each sparsity, by `sparsity_rows`, and the accuracy under each attack (C5).

    The label "across" says of which networks: all, those of each training among themselves, or those of SR alone, which
    differ by λ and seed.  With the label "given", l1 or the participation number, that size is held: a partial
    correlation.  Networks that differ by their seed alone are one configuration, and intervals are over configurations.
    """
    sizes = {(r["quantity"], r["experiments"][0]): r["value"] for r in sparsity if r["value"] is not None}
    rows = []
    for attack, group in by_labels(evaluations, lambda e: labels_of(e.attack) | e.size):
        for across in ACROSS:
            chosen = [e for e in group if across != WITHIN_SR or e.experiment.defense == "sr"]
            for names in (*((name,) for name in SPARSITIES), *itertools.permutations(("participation number", "l1"))):
                known = [e for e in chosen if all((name, e.experiment.key) in sizes for name in names)]
                columns = [[sizes[name, e.experiment.key] for e in known] for name in names]
                own = {"sparsity": names[0], "across": across} | ({"given": names[1]} if names[1:] else {})
                interval = _over_configurations(known, *columns, within=across == WITHIN_TRAININGS)
                rows.append(row(interval, [e.experiment for e in known], quantity="rank correlation", **own, **attack))
    return rows


def _over_configurations(
    networks: list[Evaluation], sizes: list[float], given: list[float] | None = None, *, within: bool
) -> statistics.Interval:
    """The correlation of `sizes` with the accuracies of `networks`, `given` other sizes, `within` trainings or not."""
    if not networks:
        return NOTHING._replace(method="no network of this kind with gradients")
    configurations = [repr(e.experiment.labels) for e in networks]
    trainings = [e.experiment.defense for e in networks] if within else None
    accuracies = [share(e) for e in networks]
    interval = statistics.clustered_rank_correlation(sizes, accuracies, configurations, groups=trainings, given=given)
    return interval._replace(method=interval.method.replace("clusters", "configurations"), over="configurations")


def matched_rows(
    gradient: Mapping[str, Tensor],
    sparsity: list[dict],
    evaluations: Sequence[Evaluation],
    trainings: Sequence[str],
) -> list[dict]:
    """Two trainings at weights of about equal ‖g‖₁: ratios of their sizes and differences of their accuracies (C5).

    `gradient` maps the keys of the networks to choose from to ∇ₓ f_y, (N, ...), on images that decide nothing else.  Of
    the weights of the two `trainings` those are taken at which the medians of l1, as geometric means over the seeds
    that both have, are nearest.  "matched ratio" is a size of the first training, by `sparsity_rows`, over that of the
    second, and "matched difference" is the accuracy of the first less that of the second, paired by seed and sample.
    There are no rows without trainings, nor where no two weights have a seed and gradients in common.

    Refuses a number of trainings other than two and none.
    """
    if not trainings:
        return []
    if len(trainings) != 2:
        raise errors.Refused(f"matched names {', '.join(trainings)}; it must name two trainings, or none.")
    networks = {e.experiment.key: e.experiment for e in evaluations if e.experiment.key in gradient}
    pairs = _matched(gradient, networks.values(), *trainings)
    if not pairs:
        return []
    both = [e for pair in pairs for e in pair]
    sizes = {(r["quantity"], r["experiments"][0]): r["value"] for r in sparsity}
    (a, b), *_ = pairs
    names = a.labels | {"against": b.defense, "against_lam": b.options["lam"]}
    rows = []
    for name in SPARSITIES:
        ratios = statistics.geometric_interval([sizes[name, a.key] / sizes[name, b.key] for a, b in pairs])
        rows.append(row(ratios, both, quantity="matched ratio", sparsity=name, **names))
    for attack, group in by_labels(doubted(evaluations), lambda d: labels_of(d.evaluation.attack) | d.evaluation.size):
        own = {d.experiment.key: d for d in group}
        attacked = [(own[a.key], own[b.key]) for a, b in pairs]
        rows.append(mean_difference_row(attacked, quantity="matched difference", **names, **attack))
    return rows


def _matched(
    gradient: Mapping[str, Tensor], networks: Iterable[Experiment], first: str, second: str
) -> list[tuple[Experiment, Experiment]]:
    """A network of each of two trainings for every seed, at the weights of the nearest l1; none where l1 vanishes."""
    weights = {first: [], second: []}  # for each weight the networks by seed
    for labels, group in by_labels(networks, lambda e: e.labels):
        if labels["training"] in weights:
            weights[labels["training"]].append({e.seed: e for e in group})
    nearest, matched = np.inf, []
    for a, b in itertools.product(weights[first], weights[second]):
        pairs = [(a[seed], b[seed]) for seed in a if seed in b]
        medians = np.array([[float(gradients.l1(gradient[e.key]).median()) for e in pair] for pair in pairs])
        if not medians.size or not medians.all():
            continue
        distance = abs(np.diff(np.log(medians)).mean())
        if distance < nearest:
            nearest, matched = distance, pairs
    return matched


def sparsities(thresholds: Sequence[float]) -> dict[str, Callable[[Tensor], Tensor]]:
    """The sizes and sparsities of a gradient by name, (B, ...) → (B,); l0 has its threshold in its name."""
    scale_free = {"Hoyer": gradients.hoyer, "Gini": gradients.gini}
    return SPARSITIES | scale_free | {f"l0 above {t:g}": lambda g, t=t: gradients.l0(g, t).to(g) for t in thresholds}


def predictor_rows(
    gradient: dict[str, Tensor],
    measured_ratios: Iterable[Vulnerabilities],
    attacked: Sequence[Evaluation],
    thresholds: Sequence[float],
) -> list[dict]:
    """Each sparsity for each training, over seeds, and its correlation with the measured ratio and with survival.

    `gradient` maps experiment keys to ∇ₓ f_y, (N, ...); survival is under the attacks of `attacked`.  Spearman's
    correlations are of two kinds: "across" samples of a network, their mean over networks; and "across" networks, of
    medians and accuracies.  An infinite ratio ranks above all others; samples without either number are left out.
    """
    targets: list[tuple[dict, Experiment, np.ndarray]] = []  # labels, network, and what to predict of each sample
    for v in measured_ratios:
        if v.regime == TRUE:
            ratio = v.ratio.numpy()
            finite = np.where(np.isinf(ratio), np.finfo(ratio.dtype).max / 2, ratio)  # half: a median averages two
            targets.append(({"target": "ratio", "eps_255": v.eps_255}, v.experiment, finite))
    for e in attacked:
        targets.append(({"target": "survival"} | e.attack.labels | e.size, e.experiment, e.flags.astype(float)))
    rows, networks = [], list({e.experiment.key: e.experiment for e in attacked}.values())
    for name, measure in sparsities(thresholds).items():
        sizes = {e.key: measure(gradient[e.key]).numpy() for e in networks}
        for labels, group in by_labels(networks, lambda e: e.labels):
            known = [(e, sizes[e.key][np.isfinite(sizes[e.key])]) for e in group]
            rows.append(over_seeds(known, quantity="sparsity", sparsity=name, **labels))
        for labels, group in by_labels(targets, lambda item: item[0]):
            known = [(e, values, sizes[e.key][: len(values)]) for _, e, values in group]  # of the first samples
            rows += _correlation_rows(known, sparsity=name, **labels)
    return rows


def _correlation_rows(targets: list[tuple[Experiment, np.ndarray, np.ndarray]], **labels) -> list[dict]:
    """Two rows: the correlation over samples, and that over networks; `targets` are (network, values, sparsities)."""
    within, medians = [], []  # a correlation for each network; a pair of medians for each
    for _, values, sizes in targets:
        known = np.isfinite(sizes) & ~np.isnan(values)
        x, y = sizes[known], values[known]
        if len(x):
            within.append(statistics.rank_correlation(x, y).value)
            middle = np.mean if set(y) <= {0.0, 1.0} else np.median  # the mean of flags is the accuracy
            medians.append((np.median(x), middle(y)))
    within = [r for r in within if np.isfinite(r)]
    mean = statistics.t_interval(within) if within else NOTHING
    low, high = np.clip([mean.low, mean.high], -1, 1)
    method = mean.method.replace("seeds", "networks")
    mean = mean._replace(low=float(low), high=float(high), method=method, over="networks")
    return [
        row(interval, [e for e, *_ in targets], quantity="rank correlation", across=across, **labels)
        for across, interval in (("samples", mean), ("networks", _rank_correlation(medians)))
    ]


def _rank_correlation(pairs: list[tuple[float, float]]) -> statistics.Interval:
    return statistics.rank_correlation(*zip(*pairs, strict=True)) if pairs else NOTHING


def scale_rows(
    opened: Opened,
    samples: Split,
    scales: Sequence[float],
    *,
    eps_255: float,
    draws: int,
    steps: int,
    thresholds: Sequence[float],
) -> list[dict]:
    """Medians of gradients and vulnerabilities of one network with its logits multiplied by 1 and by each of `scales`.

    The measures are of 1 - f_y, which has the same vulnerabilities, as f_y itself rounds to 1.  "participation number,
    two classes" is that of σ(c·(z_y - z_j)), j the rival class.  "no gradient in 32 bits" is the share where that of
    f_y is 0.  Refuses a scale that is not above 0.
    """
    for c in scales:
        errors.number("a scale of the logits", c, above=0)
    (experiment, network), rows = opened, []
    device = gradients.device_of(network)
    x, y = samples.pixels().to(device), samples.labels.to(device)
    with torch.no_grad():
        logits = network(x)
    rival = regularizers.runner_up(logits, y)
    for c in sorted({1.0, *scales}):

        def scaled(images: Tensor, c: float = c) -> Tensor:
            return c * network(images)

        def true_class(images: Tensor) -> Tensor:
            return gradients.picked(scaled(images).softmax(1), y)

        def two_classes(images: Tensor) -> Tensor:
            z = scaled(images)
            margin = gradients.picked(z, y) - gradients.picked(z, rival)
            return -margin.sign() * torch.sigmoid(-margin.abs())  # σ(margin) but for a constant; never rounded to 1

        def complements(images: Tensor) -> Tensor:
            p = gradients.probabilities(scaled)(images)
            return p @ (1 - torch.eye(p.shape[1]).to(p))  # 1 - f_k as a sum, which does not round to 0

        (v,) = measured(complements, experiment, samples, TRUE, [eps_255], draws=draws, steps=steps, device=device)
        pair, in_32_bits = (gradients.input_gradient(value, x).cpu() for value in (two_classes, true_class))
        with torch.no_grad():
            same = (scaled(x).argmax(1) == logits.argmax(1)).cpu()
        values = {name: measure(v.gradient) for name, measure in sparsities(thresholds).items()}
        values["participation number, two classes"] = gradients.participation_number(pair)
        values |= {name: torch.from_numpy(v.sizes[name]) for name in ("ρ_rand", "ρ_adv", "ratio")}
        intervals = {name: median(sizes[sizes.isfinite()]) for name, sizes in values.items()}
        shares = {"no gradient in 32 bits": gradients.l1(in_32_bits) == 0, "same decisions": same}
        intervals |= {name: statistics.wilson(flags.numpy()) for name, flags in shares.items()}
        for name, interval in intervals.items():
            labels = {"quantity": "scaled", "what": name, "scale": c, "eps_255": eps_255, **experiment.labels}
            rows.append(row(interval, [experiment], **labels))
    return rows
