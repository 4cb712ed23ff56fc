"""Networks, evaluations and rows made by hand, which the tests of measures share."""

import itertools
import math

import numpy as np
import torch
from scipy import stats

from paperlib import records
from paperlib.attacks.attack import standard
from paperlib.data.sets import Split
from paperlib.labels import TRUE
from paperlib.measures.ratio import Vulnerabilities
from paperlib.store.evaluations import Evaluation
from paperlib.store.experiment import Experiment, Opened
from paperlib.theory import RandomVulnerability
from paperlib.training.loop import Schedule

PGD = {"eps": 0.1, "alpha": 0.1, "steps": 1}
OPTIONS = {"sr": {"lam": 0.1}, "at": PGD, "rat": PGD, "exact-l1": {"lam": 0.1}, "l2": {"lam": 0.1}}


def experiment(training="vanilla", seed=0, **options):
    schedule, options = Schedule(1, 10, 0.1, 0.9, 0.0), OPTIONS.get(training, {}) | options
    return Experiment({"name": "tiny"}, "conv-2-4", 4, 1.0, "triangle", "float32", training, options, schedule, seed)


SEEDS = [experiment(seed=s) for s in range(3)]


def opened(network, *experiments):
    """The same network for each of `experiments`."""
    return [Opened(e, network) for e in experiments]


def flags(right, n=10):
    """`n` flags of which the first `right` are True."""
    return np.arange(n) < right


def at(name, eps_255, **options):
    return standard(name, eps_255 / 255, **options)


def evaluation(of, attack=None, right=5, n=10, **seen):
    """`of` classifies the first `right` of `n` samples correctly, or where the array `right` is True."""
    return Evaluation(attack, flags(right, n) if isinstance(right, int) else right, experiment=of, **seen)


def images(pixels, labels, first=0):
    """A split of bytes (N, ...), numbered from `first`."""
    pixels = torch.as_tensor(pixels, dtype=torch.uint8)
    return Split(pixels, torch.as_tensor(labels), torch.arange(first, first + len(pixels)))


def doubles(values):
    return torch.as_tensor(values, dtype=torch.double)


def planted(attack, noise, *, gradient=None, confidence=None, largest=0.0, of=SEEDS[0], regime=TRUE, eps_255=8.0):
    """Vulnerabilities of N samples; the gradient of each is (1, 1) unless it is given, so that 3‖g‖₀ = 6."""
    attack, noise = doubles(attack), doubles(noise)
    n = len(attack)
    gradient = torch.ones(n, 2) if gradient is None else torch.as_tensor(gradient, dtype=torch.float)
    confidence = torch.linspace(0.1, 0.9, n) if confidence is None else confidence
    random = RandomVulnerability(noise, noise / 10, torch.zeros(n) + doubles(largest), (noise > 0).double())
    return Vulnerabilities(of, regime, eps_255, gradient.view(n, 1, 1, -1), doubles(confidence), random, attack)


def softmax_gradient(network, samples):
    """f_y (N,) of `samples` and its gradient (N, ...), the softmax in 64 bits."""
    leaf = samples.pixels().requires_grad_()
    f = network(leaf).double().softmax(1)[torch.arange(len(samples)), samples.labels]
    f.sum().backward()
    return f.detach(), leaf.grad


def bounds(row):
    return row["low"], row["high"]


def anova(values, low, high):
    """Mean and 95 % ends of a crossed design by sums over single values; `values` is a list of networks' lists.

    Two samples, of `low` and of `high` throughout, are added for the ends.
    """
    mean = math.fsum(itertools.chain(*values)) / sum(map(len, values))
    table = [[*map(float, row), low, high] for row in values]
    S, n = len(table), len(table[0])
    grand = math.fsum(itertools.chain(*table)) / (S * n)
    samples = [math.fsum(row[i] for row in table) / S for i in range(n)]
    networks = [math.fsum(row) / n for row in table]
    ms_samples = S * math.fsum((m - grand) ** 2 for m in samples) / (n - 1)
    ms_networks = n * math.fsum((m - grand) ** 2 for m in networks) / (S - 1) if S > 1 else 0.0
    cells = [(table[s][i] - networks[s] - samples[i] + grand) ** 2 for s in range(S) for i in range(n)]
    ms_rest = math.fsum(cells) / ((S - 1) * (n - 1)) if S > 1 else 0.0
    total = max(ms_samples + max(ms_networks - ms_rest, 0), ms_networks)
    squares = ms_samples**2 / (n - 1)
    if S > 1:
        squares += ms_networks**2 / (S - 1) + ms_rest**2 / ((S - 1) * (n - 1))
    half = stats.t.ppf(0.975, max(total**2 / squares, S - 1)) * math.sqrt(total / (S * n))
    return mean, max(grand - half, low), min(grand + half, high)


def select(rows, **labels):
    """Those of `rows` that have all of `labels`."""
    return [r for r in rows if labels.items() <= r.items()]


def only(rows, **labels):
    (row,) = select(rows, **labels)
    return row


def built(rows, arrays=None):
    """A record of `rows`, which keeps to the schema."""
    data = {"name": "tiny", "title": "stripes", "sha256": "0"}
    told = {"profile": "smoke", "parameters": {}, "data": data, "recipe": 1, "arithmetic": "portable", "device": "cpu"}
    return records.build("thm-ratio", **told, rows=rows, arrays=arrays)
