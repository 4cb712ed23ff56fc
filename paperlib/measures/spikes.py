"""Rows of what neurons do on clean, noisy and attacked samples: firing rates, moved spikes, operations and energy."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from paperlib import errors, labels, records
from paperlib.attacks.attack import Attack
from paperlib.attacks.ensembles import labels_of
from paperlib.data.sets import Split
from paperlib.measures import statistics
from paperlib.measures.rows import BATCH, NOTHING, by_labels, certain, mean_over_seeds, row
from paperlib.networks import Network
from paperlib.networks.activity import Activity, fan_out, observe
from paperlib.store.evaluations import size
from paperlib.store.experiment import AnyExperiment, Opened
from paperlib.theory.gradients import device_of, margin

INPUTS = CLEAN, NOISE, ATTACK = ("clean", "noise", "attack")
PART = 25  # samples observed at once, because the membranes of all layers and steps are in memory together
THOUSANDS = {"unit": "thousands"}


class Doing(NamedTuple):
    """What the neurons of one network of L layers did on N samples."""

    fired: np.ndarray  # (L, N): share of a layer's neurons and steps with a spike
    moved: np.ndarray  # (L, N): share of them whose spike came or went against the clean sample
    synops: np.ndarray  # (1 + L, N): accumulations behind the events of the input, and behind the spikes of each layer
    margin: np.ndarray  # (N,): z_y - max_{k≠y} z_k
    distance: np.ndarray  # (N,): sum of |δ| over the input's values


class Watched(NamedTuple):
    """One network on clean, noisy and attacked samples."""

    experiment: AnyExperiment
    attacks: dict[str, Attack | None]  # by the names of `INPUTS`
    doing: dict[str, Doing]  # likewise
    neurons: np.ndarray  # (L,): how many a layer has
    macs: int  # multiply-adds of the first layer on an image; 0 where the input is events
    values: int  # numbers in a sample

    def share(self, field: str, name: str, layer: int | None = None) -> np.ndarray:
        """`fired` or `moved` on one input in a layer, counted from 1, or in all layers together; (N,)."""
        by_layer = getattr(self.doing[name], field)
        return self.neurons @ by_layer / self.neurons.sum() if layer is None else by_layer[layer - 1]


# ---- watching ----------------------------------------------------------------------------------------------------


def watched(
    networks: Iterable[Opened], samples: Split, noise: Attack, attack: Attack, *, neurons: int
) -> tuple[list[Watched], dict[str, dict]]:
    """Each network as `watch` sees it; and by training its first network as `illustrated`, for a record's arrays."""
    found, shown = [], {}
    for opened in networks:
        found.append(watch(opened, samples, noise, attack))
        if (training := opened.experiment.defense) not in shown:
            shown[training] = illustrated(opened, samples, noise, attack, neurons=neurons)
    return found, shown


def watch(opened: Opened, samples: Split, noise: Attack, attack: Attack) -> Watched:
    """The network on clean samples, under `noise` and under `attack`, which have one radius.

    An image enters the first layer as numbers, the same at all steps: its multiply-adds are needed once.  An event of a
    recording enters as a spike does.  Refuses networks without spikes, and those that draw their input at random.
    """
    experiment, network = opened
    parts: dict[str, list[Doing]] = {name: [] for name in INPUTS}
    fans = fan_out(network, samples.take(1).pixels().to(device_of(network)))
    for x, y, index in samples.batches(PART):
        inputs = _inputs(network, x, y, index, samples, noise, attack)
        seen = {name: observe(network, perturbed) for name, perturbed in inputs.items()}
        for name, perturbed in inputs.items():
            logits, layers = seen[name]
            distance = (perturbed - inputs[CLEAN]).abs().flatten(1).sum(1)
            events = perturbed.sum(1) if network.events else torch.zeros_like(inputs[CLEAN])  # of all steps
            values = *_counted(layers, seen[CLEAN][1], events, fans), margin(logits, y.to(logits.device)), distance
            parts[name].append(Doing(*(v.cpu().double().numpy() for v in values)))
    doing = {
        name: Doing(*(np.concatenate(v, axis=-1) for v in zip(*part, strict=True))) for name, part in parts.items()
    }
    attacks = dict(zip(INPUTS, (None, noise, attack), strict=True))
    neurons = np.array([fan.numel() for fan in fans[1:]])
    return Watched(experiment, attacks, doing, neurons, 0 if network.events else int(fans[0].sum()), x[0].numel())


def _inputs(network: Network, x: Tensor, y: Tensor, index: Tensor, samples: Split, *perturb: Attack) -> dict:
    """The batch `x` (B, ...) clean, noisy and attacked, by the names of `INPUTS`."""
    if network.stochastic:
        raise errors.Refused("The network draws its input spikes at random: spikes move without any perturbation.")
    x, y = x.to(device_of(network)), y.to(device_of(network))
    bound = (attack.bind(seed=0, index=index, batch_size=BATCH) for attack in perturb)
    return dict(zip(INPUTS, (x, *(f(network, x, y, bounds=samples.bounds).detach() for f in bound)), strict=True))


def _counted(
    layers: list[Activity], clean: list[Activity], events: Tensor, fans: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """`fired`, `moved` and `synops` of a batch; `events` (B, C, H, W) are those of the input."""
    fired = [_share(layer.spikes) for layer in layers]
    moved = [_share(layer.spikes != other.spikes) for layer, other in zip(layers, clean, strict=True)]
    counts = [events, *(layer.spikes.sum(0) for layer in layers)]
    synops = [(c.cpu().double() * fan).flatten(1).sum(1) for c, fan in zip(counts, fans, strict=True)]
    return torch.stack(fired), torch.stack(moved), torch.stack(synops)


def _share(flags: Tensor) -> Tensor:
    """The mean over steps and neurons of (T, B, ...), (B,)."""
    return flags.cpu().double().flatten(2).mean((0, 2))  # not every device has 64 bits


# ---- rows --------------------------------------------------------------------------------------------------------


def spiking_rows(
    found: Sequence[Watched], pairs: Sequence[tuple[str, str]], *, mac_pj: float, ac_pj: float
) -> list[dict]:
    """Means over the networks of each training, the attack over the noise, and one of each of `pairs` over the other.

    Rows of one layer have the label `layer`, counted from 1; those of all layers have none.  Firing rates and moved
    spikes are shares of all neurons and steps.  `mac_pj` and `ac_pj` are the energies of a multiply-add and of an
    accumulation in pJ; the estimate holds nothing else.
    """
    joules = partial(_energy, mac_pj=mac_pj, ac_pj=ac_pj)
    rows = []
    for told, group in by_labels(found, lambda w: w.experiment.labels):
        for name in INPUTS:
            rows += _mean_rows(group, name, joules, told)
        rows += _over_noise(group, told)
    for pair in pairs:
        rows += _relative(found, pair, joules)
    return rows


def _energy(w: Watched, name: str, *, mac_pj: float, ac_pj: float) -> dict[tuple[str, int], np.ndarray]:
    """The estimate of each sample in nJ, (N,), by what takes it and by the layer whose spikes are behind it, or 0."""
    events, *behind = ac_pj * w.doing[name].synops / 1000
    image = np.full(len(events), mac_pj * w.macs / 1000)
    parts = {("multiply-adds on the image", 0): image} if w.macs else {("events of the input", 0): events}
    return parts | {("spikes of layer", layer): nj for layer, nj in enumerate(behind, 1)}


def _mean_rows(group: list[Watched], name: str, joules: Callable, told: dict) -> list[dict]:
    """The rows of one training on one input."""
    first, attack = group[0], group[0].attacks[name]
    told = told | labels_of(attack) | (size(first.experiment, attack) if attack else {})
    layers = range(1, len(first.neurons) + 1)

    def mean(quantity: str, value: Callable[[Watched], np.ndarray], low=0.0, high=np.inf, **more) -> dict:
        networks = [(w.experiment, float(value(w).mean()), partial(_over_samples, value(w))) for w in group]
        return mean_over_seeds(networks, within=(low, high), quantity=quantity, **told, **more)

    rows = [
        mean("still correct", lambda w: (w.doing[name].margin > 0).astype(float), 0, 1),
        mean("margin", lambda w: w.doing[name].margin, -np.inf),
    ]
    for quantity, field in {"firing rate": "fired", "spikes moved": "moved"}.items():
        if attack or field == "fired":
            rows.append(mean(quantity, lambda w, f=field: w.share(f, name), 0, 1))
            rows += [mean(quantity, lambda w, f=field, i=i: w.share(f, name, i), 0, 1, layer=i) for i in layers]
    if attack:
        counted = attack.norm == "l0"  # events; else pixels change
        unit, scale = ("events", 1) if counted else ("1/255 a pixel", 255 / first.values)
        rows.append(mean("perturbation", lambda w: scale * w.doing[name].distance, unit=unit))
    if first.macs:
        rows.append(
            row(
                certain(first.macs / 1000, len(group)),
                [w.experiment for w in group],
                quantity="MACs",
                **told,
                **THOUSANDS,
            )
        )
    rows.append(mean("SynOps", lambda w: w.doing[name].synops.sum(0) / 1000, **THOUSANDS))
    rows.append(mean("energy", lambda w: sum(joules(w, name).values()), unit="nJ"))
    for part in joules(first, name):
        what, layer = part
        more = {"part": what} | ({"layer": layer} if layer else {})
        rows.append(mean("energy of a part", lambda w, p=part: joules(w, name)[p], unit="nJ", **more))
    return rows


def _over_samples(values: np.ndarray) -> statistics.Interval:
    return statistics.bootstrap_mean(values, seed=0)


def _over_noise(group: list[Watched], told: dict) -> list[dict]:
    """How many times as many spikes the attack moves as the noise does: in all layers, and in each."""
    first = group[0]
    told = told | labels_of(first.attacks[ATTACK]) | size(first.experiment, first.attacks[ATTACK])
    told |= {labels.REFERENCE + name: value for name, value in labels_of(first.attacks[NOISE]).items()}
    rows = []
    for layer in (None, *range(1, len(first.neurons) + 1)):
        ratios = [(w.experiment, *(w.share("moved", name, layer).mean() for name in (ATTACK, NOISE))) for w in group]
        more = {"layer": layer} if layer else {}
        rows.append(_ratio_row(ratios, quantity="moved by the attack over the noise", **told, **more))
    return rows


def _relative(found: Sequence[Watched], pair: tuple[str, str], joules: Callable) -> list[dict]:
    """Firing rate and energy of one training over those of another on clean samples; none without both."""
    these, those = ({w.experiment.seed: w for w in found if w.experiment.defense == training} for training in pair)
    told = dict(zip(("training", "against"), pair, strict=True))
    quantities = {
        "relative firing rate": lambda w: w.share("fired", CLEAN).mean(),
        "relative energy": lambda w: sum(joules(w, CLEAN).values()).mean(),
    }
    rows = []
    for quantity, value in quantities.items():
        ratios = [(w.experiment, value(w), value(those[seed])) for seed, w in these.items() if seed in those]
        if ratios:
            rows.append(_ratio_row(ratios, quantity=quantity, **told))
    return rows


def _ratio_row(ratios: list[tuple[AnyExperiment, float, float]], **told) -> dict:
    """The geometric mean of above / below over networks; those with nothing below are left out."""
    networks = [(e, float(above / below)) for e, above, below in ratios if below]
    if not networks:
        return row(NOTHING._replace(method="nothing to divide by"), [e for e, *_ in ratios], **told)
    measured = [(e, ratio, partial(statistics.t_interval, [ratio])) for e, ratio in networks]
    return mean_over_seeds(measured, geometric=True, **told)


# ---- one sample --------------------------------------------------------------------------------------------------


def illustrated(opened: Opened, samples: Split, noise: Attack, attack: Attack, *, neurons: int) -> dict:
    """One network on the first of `samples`, clean, noisy and attacked, for a record's arrays.

    By input: "pictures", images (C, H, W) or the first frames (2, H, W) of recordings; "changed", the cells (row,
    column) of a recording in which an event has come or gone at any step; "classes".  The true class "label" and the
    "threshold".  For the first, the middle and the last of the "layers": its number "layer", how many "neurons" it has
    and how many are "active", which spike on one of the inputs; by input the "trains" of `neurons` of these, (n, T),
    and the "membranes" of one, (T,).

    The neurons with trains lie evenly among the active ones in the order of channel, row and column; they are sorted by
    their spikes on the clean sample.  The neuron with membranes spikes on the clean sample, if any does, and the attack
    changes its spikes in most steps; of several it is the one whose membrane the attack moves least.
    """
    errors.count("neurons", neurons)
    network = opened.network
    ((x, y, index),) = samples.take(1).batches(1)
    inputs = _inputs(network, x, y, index, samples, noise, attack)
    seen = {name: observe(network, perturbed) for name, perturbed in inputs.items()}
    count = len(seen[CLEAN][1])
    return {
        "label": int(y),
        "classes": {name: int(logits.argmax()) for name, (logits, _) in seen.items()},
        "pictures": {name: records.array((v[:, 0] if network.events else v)[0].cpu()) for name, v in inputs.items()},
        "changed": {name: _changed_cells(v, inputs[CLEAN]) if network.events else [] for name, v in inputs.items()},
        "threshold": network.neurons()[0].threshold,
        "layers": [
            {"layer": i + 1} | _layer({name: layers[i] for name, (_, layers) in seen.items()}, neurons)
            for i in sorted({0, count // 2, count - 1})
        ],
    }


def _changed_cells(frames: Tensor, clean: Tensor) -> list[list[int]]:
    """The cells (row, column) in which two recordings (1, T, 2, H, W) differ."""
    return (frames != clean)[0].any(0).any(0).nonzero().tolist()


def _layer(seen: dict[str, Activity], neurons: int) -> dict:
    """The entry of one layer in `illustrated`."""
    spikes = {name: layer.spikes.flatten(1).cpu().numpy().astype(int) for name, layer in seen.items()}  # (T, N)
    membranes = {name: layer.membranes.flatten(1).cpu().numpy() for name, layer in seen.items()}
    active = np.flatnonzero(sum(spikes.values()).any(0))
    places = np.linspace(0, len(active) - 1, min(neurons, len(active))).round().astype(int)
    trained = sorted(active[places], key=lambda n: (*-spikes[CLEAN][:, n], n))
    changed = (spikes[ATTACK] != spikes[CLEAN]).sum(0)
    shift = np.abs(membranes[ATTACK] - membranes[CLEAN]).sum(0)
    one = np.lexsort((-shift, changed, spikes[CLEAN].any(0)))[-1]
    return {
        "neurons": spikes[CLEAN].shape[1],
        "active": len(active),
        "trains": {name: s[:, np.array(trained, dtype=int)].T.tolist() for name, s in spikes.items()},
        "membranes": {name: records.array(m[:, one]) for name, m in membranes.items()},
    }
