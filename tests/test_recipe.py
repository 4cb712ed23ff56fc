"""Golden numbers behind `experiment.RECIPE`: if one moves, networks trained before are no longer what they say."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from paperlib import attacks, training
from paperlib.attacks.core import uniform_noise
from paperlib.data import sets
from paperlib.networks.network import Network
from paperlib.store.experiment import Experiment
from paperlib.training import defenses
from paperlib.training.loop import Schedule

PGD = {"eps": 0.1, "alpha": 0.125, "steps": 2}
DEFENSES = {  # training: defense, options, the mean losses of two epochs
    "vanilla": ("vanilla", {}, 2.37895255, 2.27566934),
    "SR, released": ("sr", {"lam": 0.05}, 4.91651436, 3.49355336),
    "SR, paper": ("sr", {"lam": 0.05, "preset": "paper"}, 2.50011388, 2.35301609),
    "SR, central": ("sr", {"lam": 0.05, "axes": {"direction": "central"}}, 4.97160862, 4.06517082),
    "loss l1": ("loss-l1", {"lam": 0.001}, 3.16113822, 2.52940270),
    "exact l1": ("exact-l1", {"lam": 0.5}, 3.14158190, 2.65038717),
    "exact l2": ("l2", {"lam": 5.0}, 2.78851059, 2.54545912),
    "AT": ("at", PGD, 2.57292751, 2.47781450),
    "AT of PGD": ("at-pgd", PGD, 2.57292751, 2.47781450),  # AT's, with as many steps
    "AT+SR": ("at+sr", PGD | {"lam": 0.05}, 4.30882726, 3.89860032),
    "RAT": ("rat", PGD | {"beta": 0.05}, 2.54009132, 2.41638034),
    "TRADES": ("trades", PGD, 2.42768367, 2.33756611),
    "TRADES+SR": ("trades+sr", PGD | {"lam": 0.05}, 4.95438998, 3.52500694),
}
WEIGHTS = {  # sum of magnitudes before training
    "stem.weight": 6.46890791,
    "stem.bias": 0.64578389,
    "body.1.0.weight": 37.92925766,
    "head.weight": 98.84255929,
}
ATTACKS = {  # loss at eps = 0.1 under the standard attack
    "uniform": 1.90424688,
    "sign": 1.90470903,
    "fgsm": 2.03229971,
    "rfgsm": 2.00768628,
    "pgd": 2.03645010,
}


def moved(what: str, found: float, golden: float) -> str:
    return (
        f"{what} is {found:.8f}; it was {golden:.8f}. If numbers are meant to change, raise experiment.RECIPE by one "
        "(every network is then trained again under a new key) and write the new number here; if not, this is a bug."
    )


def small(defense: str = "vanilla", options: dict | None = None) -> Experiment:
    return Experiment(
        data={"name": "mnist5k", "train": 40, "validation": 2, "test": 16},
        network="conv-4-8",
        T=4,
        tau=1.0,
        rule="triangle",
        precision="float32",
        defense=defense,
        options=options or {},
        schedule=Schedule(epochs=2, batch_size=16, lr=0.1, momentum=0.9, weight_decay=0.05),  # two steps each
        seed=1,
    )


def portable(network: Network) -> Network:
    """`network` in float64, with weights that are the same on every processor: no spike crosses its threshold there."""
    rng = np.random.RandomState(0)
    with torch.no_grad():
        for weight in network.double().parameters():
            if weight.dim() > 1:
                weight.copy_(torch.from_numpy(rng.uniform(-1, 1, weight.shape)) * math.sqrt(6 / weight[0].numel()))
    network.register_forward_pre_hook(lambda _, inputs: inputs[0].double())
    return network


def test_the_first_weights():
    network = small().build()
    for name, golden in WEIGHTS.items():
        found = network.get_parameter(name).detach().double().abs().sum().item()
        assert found == pytest.approx(golden, rel=1e-4), moved(f"The sum of |{name}| at seed 1", found, golden)


@pytest.mark.parametrize("name", DEFENSES)
def test_two_epochs_of_training(name):
    defense, options, *golden = DEFENSES[name]
    one = small(defense, options)
    network, built = portable(one.build()), defenses.build(defense, options)
    rows = training.epochs(network, built, one.load_data(), one.schedule, seed=one.seed, progress=False)
    for epoch, (row, expected) in enumerate(zip(rows, golden, strict=True), 1):
        what = f"The loss of {name} in epoch {epoch}"
        assert row["loss"] == pytest.approx(expected, rel=1e-4), moved(what, row["loss"], expected)


def test_every_defense_has_golden_losses():
    assert {defense for defense, *_ in DEFENSES.values()} == set(defenses.DEFENSES)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_loss_under_attack(name):
    data, network = small().load_data(), portable(small().build()).eval()
    perturb = attacks.standard(name, 0.1, steps=4).bind(seed=0, index=data.test.index, batch_size=16)
    pixels = data.test.pixels().double()
    labels = network(pixels).argmax(1)  # as if all were classified correctly: each is attacked until that changes
    loss = cross_entropy(network(perturb(network, pixels, labels, bounds=data.bounds)), labels).item()
    assert loss == pytest.approx(ATTACKS[name], rel=1e-4), moved(f"The loss under {name}", loss, ATTACKS[name])


def test_each_samples_noise():
    expected = [-0.396211982, 0.0249795914, 0.693146944]
    noise = uniform_noise(torch.zeros(1, 1, 1, 3), 5, torch.tensor([7])).flatten().tolist()
    assert noise == pytest.approx(expected, rel=1e-6), moved("The noise of seed 5, index 7", noise[0], expected[0])


def test_crops_and_mirror_images():
    ramp = torch.arange(1.0, 4 * 36 + 1).view(4, 1, 6, 6)
    found = sets.augment(ramp, torch.Generator().manual_seed(3)).sum((1, 2, 3)).tolist()
    expected = [306.0, 1425.0, 990.0, 2450.0]
    assert found == expected, moved("The first augmented image's sum", found[0], expected[0])
