"""Experiments: keys that stay, what a network is built of, and what cannot be trained."""

import hashlib
import json
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch

from paperlib import attacks
from paperlib.errors import Refused
from paperlib.store import experiment
from paperlib.store.evaluations import Evaluation
from paperlib.store.experiment import Experiment, Imported
from paperlib.training import defenses
from paperlib.training.loop import Schedule

FIXED = Experiment(
    data={"name": "mnist5k", "train": 500},
    network="conv-2-4",
    T=4,
    tau=1.0,
    rule="triangle",
    precision="float32",
    defense="at+sr",
    options={"eps": 0.1, "alpha": 0.125, "steps": 1, "lam": 0.001},
    schedule=Schedule(epochs=2, batch_size=10, lr=0.1, momentum=0.9, weight_decay=5e-4),
    seed=0,
    recipe=1,
    arithmetic="native",
)
OTHER = {
    "data": {"name": "mnist5k", "train": 501},
    "network": "conv-2-5",
    "T": 5,
    "tau": 0.5,
    "rule": "atan",
    "precision": "bfloat16",
    "defense": "at+rs",  # another name for at+sr
    "options": {"eps": 0.1, "alpha": 0.125, "steps": 1, "lam": 0.002},
    "schedule": replace(FIXED.schedule, epochs=3),
    "seed": 1,
    "recipe": 2,
    "detach_reset": True,
    "arithmetic": "portable",
}
OTHER_SCHEDULES = {
    "epochs": 4,
    "batch_size": 20,
    "lr": 0.2,
    "momentum": 0.8,
    "weight_decay": 1e-3,
    "warm_up": 1,
    "selection": {"eps": 0.1, "steps": 3},
}
FIRST = {  # the fields that experiments had when the first networks were kept
    *("data", "network", "T", "tau", "rule", "precision", "defense", "options", "schedule", "seed", "recipe"),
    *("epochs", "batch_size", "lr", "momentum", "weight_decay"),
}
VANILLA = replace(FIXED, defense="vanilla", options={})
IMPORTED = Imported(
    sha256="ab" * 32, network="wrn16", dataset="cifar10", defense="at+sr", data={"name": "cifar10"}, recipe=1
)
OTHER_IMPORTED = {
    "sha256": "ac" * 32,
    "network": "vgg11",
    "dataset": "cifar100",
    "defense": "sr",
    "data": {"name": "cifar10", "test": 100},
    "recipe": 2,
    "arithmetic": "portable",
}


def hash_of(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def test_a_key_stays_what_it_was_and_hashes_the_canonical_json_of_the_first_fields():
    # checkpoints that people keep are found under it; if it changes, all of them are lost
    assert (FIXED.key, IMPORTED.key) == ("9b20d360984acc99", "d8751daf8df4c609")
    content = {name: value for name, value in asdict(FIXED).items() if name in FIRST}
    content["schedule"] = {name: value for name, value in content["schedule"].items() if name in FIRST}
    assert FIXED.content == content
    imported = {name: value for name, value in asdict(IMPORTED).items() if name != "arithmetic"}
    assert FIXED.key == hash_of(content) and IMPORTED.key == hash_of(imported)


def test_a_younger_field_is_in_the_key_only_where_it_is_not_what_was_before():
    selection = OTHER_SCHEDULES["selection"]
    schedule, content = replace(FIXED.schedule, warm_up=1, selection=selection), FIXED.content
    longer = content | {"schedule": content["schedule"] | {"warm_up": 1, "selection": selection}}
    assert replace(FIXED, detach_reset=True).key == hash_of(content | {"detach_reset": True})
    assert replace(FIXED, arithmetic="portable").key == hash_of(content | {"arithmetic": "portable"})
    assert replace(FIXED, schedule=schedule).key == hash_of(longer)
    assert replace(FIXED, schedule=schedule, detach_reset=True).key == hash_of(longer | {"detach_reset": True})
    assert replace(FIXED, schedule=replace(schedule, warm_up=0, selection={}), detach_reset=False).key == FIXED.key


def test_every_field_is_in_the_key(monkeypatch):
    monkeypatch.setitem(defenses.DEFENSES, "at+rs", defenses.DEFENSES["at+sr"])
    for kind, others in ((Experiment, OTHER), (Schedule, OTHER_SCHEDULES), (Imported, OTHER_IMPORTED)):
        assert set(others) == {field.name for field in fields(kind)}
    changed = [replace(FIXED, **{name: value}) for name, value in OTHER.items()]
    changed += [replace(FIXED, schedule=replace(FIXED.schedule, **{name: v})) for name, v in OTHER_SCHEDULES.items()]
    changed += [IMPORTED, *(replace(IMPORTED, **{name: value}) for name, value in OTHER_IMPORTED.items())]
    assert len({one.key for one in [FIXED, *changed]}) == 1 + len(changed)


def test_no_order_is_in_the_key_and_equal_values_are_one_key():
    content = {field.name: getattr(FIXED, field.name) for field in fields(Experiment)}
    backwards = Experiment(**dict(reversed(content.items())))
    options = replace(FIXED, options=dict(reversed(FIXED.options.items())))
    assert backwards.key == options.key == replace(FIXED, tau=1, detach_reset=0).key == FIXED.key
    assert replace(FIXED, detach_reset=1).key == replace(FIXED, detach_reset=True).key != FIXED.key


def test_the_recipe_is_the_codes_unless_it_is_given():
    content = {field.name: getattr(FIXED, field.name) for field in fields(Experiment) if field.name != "recipe"}
    assert Experiment(**content).recipe == Imported("", "", "", "", {}).recipe == experiment.RECIPE


def test_labels_name_the_training_and_not_the_seed():
    assert FIXED.labels == {"training": "at+sr", "lam": 0.001} and str(FIXED) == "at+sr, λ = 0.001, seed 0"
    assert VANILLA.labels == {"training": "vanilla"} and str(VANILLA) == "vanilla, seed 0"
    text = (IMPORTED.labels, IMPORTED.seed, str(IMPORTED))
    assert text == ({"training": "at+sr"}, 42, "at+sr, imported from abababab")
    attacked = Evaluation(experiment=FIXED, attack=attacks.standard("pgd", 8 / 255), flags=np.array([True]))
    assert attacked.labels == FIXED.labels | {"attack": "pgd", "steps": 20, "eps_255": 8}
    clean = Evaluation(experiment=FIXED, attack=None, flags=np.array([True]))
    assert clean.labels == FIXED.labels | {"attack": "clean", "eps_255": 0}


def test_building_draws_weights_from_the_seed_and_leaves_torchs_own_chance_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    network = VANILLA.build()
    assert torch.equal(torch.rand(3), expected)
    for seed in (0, 1):
        other = replace(VANILLA, seed=seed).build()
        assert torch.equal(network.stem.weight, other.stem.weight) == (seed == 0)
        assert torch.equal(network.head.weight, other.head.weight) == (seed == 0)


@pytest.mark.parametrize("detached", [False, True])
def test_a_network_is_built_with_what_its_experiment_says(detached):
    one = replace(VANILLA, T=3, tau=0.5, rule="atan", detach_reset=detached)
    network = one.build()
    assert [neuron.detach_reset for neuron in network.neurons()] == [detached, detached]
    assert {neuron.rule.name for neuron in network.neurons()} == {"atan"}
    assert (network.T, network.mean, network.head.out_features) == (3, (0.1307,), 10)
    assert not one.is_stochastic and replace(one, network="poisson-conv-2-4").is_stochastic


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "conv-x"}, "no network 'conv-x'. Allowed: vgg11"),
        ({"rule": "square"}, "no backward rule 'square'. Allowed: triangle"),
        ({"defense": "srs"}, "no defense 'srs'. Allowed: vanilla"),
        ({"options": {"lam": 1}}, "'vanilla' cannot take {'lam': 1}"),
        ({"precision": "float16"}, "no precision 'float16'. Allowed: float32, bfloat16"),
        ({"T": 0}, "T is 0"),
        ({"T": 4.0}, "T is 4.0; it must be a whole number"),
        ({"tau": 1.5}, "tau is 1.5"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"detach_reset": "yes"}, "There is no detach_reset 'yes'. Allowed: False, True."),
        ({"detach_reset": None}, "There is no detach_reset None."),
        ({"network": "ann-poisson-conv-2"}, "no network 'ann-poisson-conv-2'. Allowed: vgg11"),
        ({"network": "poisson-ann-conv-2"}, "no network 'poisson-ann-conv-2'. Allowed: vgg11"),
        (
            {"network": "ann-conv-2-4"},
            "^ann-conv-2-4 is given T = 4, tau = 1; without spikes it takes T = 1",
        ),
        ({"network": "ann-conv-2-4", "T": 1, "tau": 0.5}, "^ann-conv-2-4 is given T = 1, tau = 0.5; without spikes"),
        ({"network": "ann-conv-2-4", "T": 2}, "^ann-conv-2-4 is given T = 2, tau = 1; without spikes it takes"),
        (
            {"network": "ann-conv-2-4", "T": 1, "detach_reset": True},
            "T = 1, tau = 1 and a detached reset; without",
        ),
        ({"network": "events-conv-2-4"}, "mnist5k holds images, which .* cannot take; it needs one without events-"),
    ],
)
def test_an_experiment_that_cannot_be_is_refused(changes, message):
    with pytest.raises(Refused, match=message):
        replace(VANILLA, **changes)


def test_a_twin_without_spikes_has_no_neurons():
    twin = replace(VANILLA, network="ann-conv-2-4", T=1)
    assert not twin.is_stochastic and not twin.build().neurons()
