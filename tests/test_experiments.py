"""Experiments and their store: keys that stay, networks trained once, flags computed once, and nothing damaged used."""







import errno
import hashlib
import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from test_released import theirs

from paperlib import attacks, networks, paths, training
from paperlib.attacks import evaluation
from paperlib.data import images
from paperlib.errors import Refused
from paperlib.store import checkpoints, evaluations, experiment, released
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
KEPT = [".lock", "checkpoint.json", "history.jsonl", "weights.pt"]
PGD = attacks.standard("pgd", 0.1, steps=3)
BOUNDS = {"bounds": (0.0, 1.0), "num_classes": 3}


@pytest.fixture(scope="session")
def drawings(tmp_path_factory):
    """A folder of 3 classes of 20 images, 8×8: a bright row whose height tells the class."""
    root, rng = tmp_path_factory.mktemp("drawings"), np.random.RandomState(0)
    for label, name in enumerate(("high", "low", "middle")):
        (root / name).mkdir()
        for i in range(20):
            pixels = rng.randint(0, 120, (8, 8))
            pixels[1 + 2 * label] += 60
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i:02}.png")
    return root


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty folder for checkpoints."""
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path / "checkpoints")
    images._load.cache_clear()
    return tmp_path / "checkpoints"


@pytest.fixture
def experiment(store, drawings):
    return replace(FIXED, data={"name": f"folder:{drawings}"}, defense="vanilla", options={})


def trained(experiment):
    return checkpoints.trained(experiment, device="cpu", progress=False)


def evaluated(wanted, given=(None, PGD), **options):
    options = {"samples": 12, "device": "cpu", "progress": False} | options
    return evaluations.evaluated(wanted, given, **options)


@pytest.fixture
def trainings(monkeypatch):
    """One entry for each call of the training loop."""
    calls, real = [], training.epochs

    def epochs(*args, **options):
        calls.append(options["seed"])
        return real(*args, **options)

    monkeypatch.setattr(training, "epochs", epochs)
    return calls


@pytest.fixture
def passes(monkeypatch):
    """One entry for each forward pass of any network."""
    calls, real = [], networks.Network.forward
    monkeypatch.setattr(networks.Network, "forward", lambda self, x: calls.append(len(x)) or real(self, x))
    return calls


def weights(network):
    return torch.cat([value.flatten().double() for value in network.state_dict().values()])


def same(a, b):
    return torch.equal(weights(a), weights(b))


def leftovers(folder):
    return [file.name for file in folder.rglob("*") if file.name.endswith(".tmp")]


# Keys --------------------------------------------------------------------------------------------------------------


def test_a_key_stays_what_it_was():
    # checkpoints that people keep are found under it; if it changes, all of them are lost
    assert FIXED.key == "9b20d360984acc99"


def hash_of(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def test_a_key_hashes_the_canonical_json_of_the_first_fields():
    content = {name: value for name, value in asdict(FIXED).items() if name in FIRST}
    content["schedule"] = {name: value for name, value in content["schedule"].items() if name in FIRST}
    assert FIXED.key == hash_of(content)
    assert FIXED.content == content


def test_a_younger_field_is_in_the_key_where_it_is_not_what_was_before():
    selection = OTHER_SCHEDULES["selection"]
    schedule = replace(FIXED.schedule, warm_up=1, selection=selection)
    content = FIXED.content
    assert replace(FIXED, detach_reset=True).key == hash_of(content | {"detach_reset": True})
    longer = content | {"schedule": content["schedule"] | {"warm_up": 1, "selection": selection}}
    assert replace(FIXED, schedule=schedule).key == hash_of(longer)
    assert replace(FIXED, schedule=schedule, detach_reset=True).key == hash_of(longer | {"detach_reset": True})


def test_a_younger_field_that_says_what_was_before_changes_no_key():
    schedule = replace(FIXED.schedule, warm_up=0, selection={})
    assert replace(FIXED, schedule=schedule, detach_reset=False).key == FIXED.key
    assert replace(FIXED, detach_reset=0).key == FIXED.key
    assert replace(FIXED, detach_reset=1).key == replace(FIXED, detach_reset=True).key != FIXED.key


def test_every_field_is_in_the_key(monkeypatch):
    monkeypatch.setitem(defenses.DEFENSES, "at+rs", defenses.DEFENSES["at+sr"])
    assert set(OTHER) == {field.name for field in fields(Experiment)}
    assert set(OTHER_SCHEDULES) == {field.name for field in fields(Schedule)}
    schedules = [replace(FIXED.schedule, **{name: value}) for name, value in OTHER_SCHEDULES.items()]
    changed = [replace(FIXED, **{name: value}) for name, value in OTHER.items()]
    changed += [replace(FIXED, schedule=schedule) for schedule in schedules]
    assert len({experiment.key for experiment in [FIXED, *changed]}) == 1 + len(changed)


def test_no_order_is_in_the_key():
    content = {field.name: getattr(FIXED, field.name) for field in fields(Experiment)}
    backwards = Experiment(**dict(reversed(content.items())))
    options = replace(FIXED, options=dict(reversed(FIXED.options.items())))
    assert backwards.key == options.key == replace(FIXED).key == FIXED.key


def test_the_recipe_is_the_codes_unless_it_is_given():
    content = {field.name: getattr(FIXED, field.name) for field in fields(Experiment) if field.name != "recipe"}
    assert Experiment(**content).recipe == experiment.RECIPE


def test_labels_name_the_training_and_not_the_seed():
    assert FIXED.labels == {"training": "at+sr", "lam": 0.001}
    assert replace(FIXED, defense="vanilla", options={}).labels == {"training": "vanilla"}
    attacked = Evaluation(FIXED, attacks.standard("pgd", 8 / 255), np.array([True]))
    assert attacked.labels == FIXED.labels | {"attack": "PGD-20", "eps_255": 8}
    assert Evaluation(FIXED, None, np.array([True])).labels == FIXED.labels | {"attack": "clean", "eps_255": 0}


# Training once -----------------------------------------------------------------------------------------------------


def test_a_network_is_trained_once_and_then_loaded(experiment, trainings, capsys):
    assert not checkpoints.is_trained(experiment)
    first = trained(experiment)
    assert checkpoints.is_trained(experiment)
    assert "vanilla, seed 0: epoch 2/2, loss" in capsys.readouterr().err
    again = trained(experiment)
    assert len(trainings) == 1
    assert same(first, again)
    assert not same(first, experiment.build())
    assert not again.training
    assert sorted(f.name for f in experiment.folder.iterdir()) == KEPT


def test_a_checkpoint_says_what_it_is(experiment):
    trained(experiment)
    content = json.loads((experiment.folder / "checkpoint.json").read_text())
    assert (
        Experiment(**content["experiment"] | {"schedule": Schedule(**content["experiment"]["schedule"])}) == experiment
    )
    digest = hashlib.sha256((experiment.folder / "weights.pt").read_bytes()).hexdigest()
    assert content["weights_sha256"] == digest
    assert content["data_sha256"] == experiment.load_data().sha256
    assert content.keys() == {"experiment", "weights_sha256", "data_sha256"}


def history(experiment):
    """The rows of history.jsonl, one a line."""
    text = (experiment.folder / "history.jsonl").read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_a_history_has_a_line_an_epoch(experiment):
    network = trained(experiment)
    rows = history(experiment)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert all(row.keys() == {"epoch", "loss", "lr", "validation_accuracy", "seconds"} for row in rows)
    correct = evaluation.flags(network, experiment.load_data().validation, **BOUNDS)
    assert rows[1]["validation_accuracy"] == pytest.approx(correct.float().mean().item())


def test_a_history_tells_which_epoch_was_selected_and_the_network_is_that_one(experiment, monkeypatch):
    last = trained(experiment)
    accuracies, validated = iter([0.5, 0.4]), training._validated
    monkeypatch.setattr(
        training, "_validated", lambda *given: validated(*given) | {training.ATTACKED: next(accuracies)}
    )
    selecting = replace(experiment, schedule=replace(experiment.schedule, selection=OTHER_SCHEDULES["selection"]))
    first = trained(selecting)
    assert [(row["best_epoch"], row[training.ATTACKED]) for row in history(selecting)] == [(1, 0.5), (1, 0.4)]
    assert [row["loss"] for row in history(selecting)] == [row["loss"] for row in history(experiment)]
    assert not same(first, last)
    correct = evaluation.flags(first, selecting.load_data().validation, **BOUNDS)
    assert history(selecting)[0]["validation_accuracy"] == pytest.approx(correct.float().mean().item())


def test_an_epochs_line_stands_above_the_progress_bar(experiment, capsys):
    checkpoints.trained(experiment, device="cpu", progress=True)
    said = capsys.readouterr().err
    assert "epoch 1/2:" in said and "/8 [" in said  # the bar, of two epochs of four steps
    lines = [part[: part.index(", loss ")] for part in said.split("\r") if "vanilla, seed 0: epoch " in part]
    assert lines == ["vanilla, seed 0: epoch 1/2", "vanilla, seed 0: epoch 2/2"]


def test_the_same_experiment_gives_the_same_bytes(experiment, monkeypatch, store):
    trained(experiment)
    first = (experiment.folder / "weights.pt").read_bytes()
    monkeypatch.setattr(paths, "CHECKPOINTS", store / "elsewhere")
    torch.manual_seed(99)
    trained(experiment)
    assert (experiment.folder / "weights.pt").read_bytes() == first


def test_building_leaves_torchs_own_chance_alone(experiment):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    network = experiment.build()
    assert torch.equal(torch.rand(3), expected)
    assert same(network, experiment.build())
    assert not same(network, replace(experiment, seed=1).build())


def test_an_interrupted_training_goes_on_where_it_was(experiment, monkeypatch, store):
    trained(experiment)
    whole = (experiment.folder / "weights.pt").read_bytes()
    rows = [row | {"seconds": 0} for row in history(experiment)]
    monkeypatch.setattr(paths, "CHECKPOINTS", store / "second")
    with monkeypatch.context() as patch:
        patch.setattr(defenses, "build", lambda *_: SimpleNamespace(loss=interrupted_at(5)))
        with pytest.raises(KeyboardInterrupt):
            trained(experiment)
    assert (experiment.folder / "state.pt").exists()
    assert [row | {"seconds": 0} for row in history(experiment)] == rows[:1]
    assert not checkpoints.is_trained(experiment)
    trained(experiment)
    assert (experiment.folder / "weights.pt").read_bytes() == whole
    assert not (experiment.folder / "state.pt").exists()
    assert [row | {"seconds": 0} for row in history(experiment)] == rows


def interrupted_at(last):
    """The vanilla loss, `last` times (42 training images in batches of 10 are 4 steps an epoch)."""
    steps = iter(range(last))

    def loss(network, batch):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return torch.nn.functional.cross_entropy(network(batch.images), batch.labels)

    return loss


@pytest.mark.parametrize("file", ["state.pt", "history.jsonl", "weights.pt", "checkpoint.json"])
def test_a_full_disk_leaves_nothing_half_written(experiment, full_disk, monkeypatch, store, file):
    trained(experiment)
    expected = (experiment.folder / "weights.pt").read_bytes()
    monkeypatch.setattr(paths, "CHECKPOINTS", store / "full")
    with full_disk(file), pytest.raises(Refused, match=f"Could not write .*{file}: no space left .* free .* kB"):
        trained(experiment)
    assert not checkpoints.is_trained(experiment)
    assert not (experiment.folder / file).exists()
    assert not leftovers(store)
    trained(experiment)
    assert (experiment.folder / "weights.pt").read_bytes() == expected


# What is refused, and what is set aside ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[:-1], lambda data: data[:99] + b"?" + data[100:]]
)
def test_damaged_weights_are_named_set_aside_and_trained_again(experiment, trainings, capsys, damage):
    first = trained(experiment)
    file = experiment.folder / "weights.pt"
    good = file.read_bytes()
    bad = damage(good)
    file.write_bytes(bad)
    capsys.readouterr()
    assert same(trained(experiment), first)
    said = capsys.readouterr().err
    assert f"{experiment.folder}: weights do not match their checksum" in said
    assert "kept as weights.pt.damaged" in said
    assert file.read_bytes() == good
    assert file.with_name("weights.pt.damaged").read_bytes() == bad
    assert len(trainings) == 2
    trained(experiment)
    assert len(trainings) == 2


def test_missing_weights_are_trained_again(experiment, trainings):
    first = trained(experiment)
    (experiment.folder / "weights.pt").unlink()
    assert same(trained(experiment), first)
    assert len(trainings) == 2


def test_a_damaged_description_does_not_stop_anybody(experiment):
    first = trained(experiment)
    file = experiment.folder / "checkpoint.json"
    file.write_bytes(file.read_bytes()[:100])
    assert same(trained(experiment), first)


def test_a_checkpoint_of_another_experiment_is_refused(experiment):
    other = replace(experiment, seed=1)
    trained(other)
    shutil.copytree(other.folder, experiment.folder)
    with pytest.raises(Refused, match=f"{experiment.key} holds a checkpoint of another experiment: .*'seed': 1"):
        trained(experiment)


def put_weights(experiment, state):
    """Weights with a checksum that is right."""
    data = training.to_bytes(state)
    (experiment.folder / "weights.pt").write_bytes(data)
    file = experiment.folder / "checkpoint.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"weights_sha256": hashlib.sha256(data).hexdigest()}))


def test_weights_of_another_network_are_refused(experiment):
    trained(experiment)
    put_weights(experiment, replace(experiment, network="conv-3-4").build().state_dict())
    with pytest.raises(Refused, match=f"{experiment.key} holds weights of another network than conv-2-4"):
        trained(experiment)


def test_changed_data_are_refused(experiment, drawings, tmp_path):
    moved = replace(experiment, data={"name": f"folder:{tmp_path / 'mine'}"})
    shutil.copytree(drawings, tmp_path / "mine")
    trained(moved)
    Image.new("L", (8, 8)).save(tmp_path / "mine" / "low" / "07.png")
    images._load.cache_clear()
    with pytest.raises(Refused, match="trained on other bytes of folder:.*mine than are there now"):
        trained(moved)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("network", "conv-x", "no network 'conv-x'. Allowed: vgg11"),
        ("rule", "square", "no backward rule 'square'. Allowed: triangle"),
        ("defense", "srs", "no defense 'srs'. Allowed: vanilla"),
        ("options", {"lam": 1}, "'vanilla' cannot take {'lam': 1}"),
        ("precision", "float16", "no precision 'float16'. Allowed: float32, bfloat16"),
        ("T", 0, "T is 0"),
        ("T", 4.0, "T is 4.0; it must be a whole number"),
        ("tau", 1.5, "tau is 1.5"),
        ("seed", -1, "seed is -1"),
        ("seed", 0.5, "seed is 0.5"),
        ("detach_reset", "yes", "There is no detach_reset 'yes'. Allowed: False, True."),
        ("detach_reset", None, "There is no detach_reset None."),
        ("network", "ann-conv-2-4", "ann-conv-2-4 is given T = 4, tau = 1; without spikes it takes T = 1 and tau = 1"),
        ("network", "ann-poisson-conv-2", "no network 'ann-poisson-conv-2'. Allowed: vgg11"),
        ("network", "poisson-ann-conv-2", "no network 'poisson-ann-conv-2'. Allowed: vgg11"),
    ],
)
def test_an_experiment_that_cannot_be_is_refused(experiment, field, value, message):
    with pytest.raises(Refused, match=message):
        replace(experiment, **{field: value})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tau": 0.5}, "T = 1, tau = 0.5;"),
        ({"T": 2}, "T = 2, tau = 1;"),
        ({"detach_reset": True}, "T = 1, tau = 1 and a detached reset;"),
    ],
)
def test_a_twin_without_spikes_knows_no_time(experiment, changes, told):
    twin = replace(experiment, network="ann-conv-2-4", T=1)
    assert not twin.is_stochastic and not twin.build().neurons()
    with pytest.raises(Refused, match=f"^ann-conv-2-4 is given {told} without spikes it takes T = 1 and tau = 1.$"):
        replace(twin, **changes)


@pytest.mark.parametrize("detached", [False, True])
def test_an_experiment_builds_neurons_whose_reset_is_what_it_says(experiment, detached):
    network = replace(experiment, detach_reset=detached).build()
    assert [neuron.detach_reset for neuron in network.neurons()] == [detached, detached]


def test_unknown_data_are_refused_before_anything_is_kept(experiment):
    wrong = replace(experiment, data={"name": "minst"})
    with pytest.raises(Refused, match="no image set 'minst'. Allowed: mnist5k"):
        trained(wrong)
    assert not checkpoints.is_trained(wrong)
    assert [file.name for file in wrong.folder.iterdir()] == [".lock"]


def test_unknown_and_absent_devices_are_refused(experiment, monkeypatch):
    for device in ("tpu", "cuda:7", None):
        with pytest.raises(Refused, match="no device .*Allowed: auto, cpu, cuda, mps"):
            checkpoints.trained(experiment, device=device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert checkpoints.resolve("auto") == "cpu"
    with pytest.raises(Refused, match="Device 'cuda' is not on this machine. Here: cpu."):
        evaluated([experiment], device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert checkpoints.resolve("auto") == "cuda"
    assert not experiment.folder.exists()


# Opening by name ---------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_opened_by_its_folders_name(experiment):
    trained(experiment)
    again = checkpoints.opened(experiment.key)
    assert again == experiment and same(trained(again), trained(experiment))


def test_a_twin_and_a_detached_reset_are_trained_and_opened_by_name(experiment):
    plain = trained(experiment)
    for other in (replace(experiment, detach_reset=True), replace(experiment, network="ann-conv-2-4", T=1)):
        network = trained(other)
        assert not same(network, plain)
        again = checkpoints.opened(other.key)
        assert again == other and same(trained(again), network)


def test_a_schedule_with_younger_fields_is_opened_by_its_folders_name(experiment):
    younger = {"warm_up": 1, "selection": {"eps": 0.1, "steps": 2}}
    other = replace(experiment, schedule=replace(experiment.schedule, **younger))
    network = trained(other)
    assert checkpoints.opened(other.key) == other and same(trained(other), network)


def test_a_checkpoint_from_before_there_were_younger_fields_is_opened(experiment):
    first = trained(experiment)
    file = experiment.folder / "checkpoint.json"
    content = json.loads(file.read_text())
    assert set(content["experiment"]) | set(content["experiment"]["schedule"]) == FIRST
    file.write_text(json.dumps(content | {"history": [{"epoch": 1}]}))  # which stood there then
    (experiment.folder / "history.jsonl").unlink()
    assert same(trained(checkpoints.opened(experiment.key)), first)


def test_an_imported_network_is_opened_by_its_folders_name(imported):
    assert checkpoints.opened(imported.key) == imported


def test_a_folder_that_holds_no_network_is_not_opened(experiment):
    with pytest.raises(Refused, match="mine holds no checkpoint.json; name a folder there that does"):
        checkpoints.opened("mine")
    trained(experiment)
    shutil.copytree(experiment.folder, experiment.folder.with_name("mine"))
    with pytest.raises(Refused, match=f"mine holds the checkpoint of {experiment.key}; rename it so"):
        checkpoints.opened("mine")


# Flags -------------------------------------------------------------------------------------------------------------


def test_flags_are_computed_once(experiment, passes):
    other = replace(experiment, seed=1)
    found = evaluated([experiment, other])
    assert [(e.experiment, e.attack) for e in found] == [(x, a) for x in (experiment, other) for a in (None, PGD)]
    data, network = experiment.load_data(), trained(experiment)
    for attack, result in zip((None, PGD), found, strict=False):
        direct = evaluation.flags(network, data.test.take(12), attack, bounds=data.bounds, num_classes=3)
        assert result.flags.dtype == bool
        assert result.flags.tolist() == direct.tolist()
    passes.clear()
    again = evaluated([experiment, other])
    assert passes == []
    assert [e.flags.tolist() for e in again] == [e.flags.tolist() for e in found]


def test_what_is_right_on_clean_images_is_found_once(experiment, passes):
    evaluated([experiment], [None])
    passes.clear()
    evaluated([experiment], [None, attacks.standard("fgsm", 0.1)])
    assert len(passes) == 2  # the gradient, and the verdict


def test_other_attacks_samples_and_splits_are_other_evaluations(experiment, passes):
    evaluated([experiment])
    for given, options in (
        ((attacks.standard("pgd", 0.11, steps=3),), {}),
        ((attacks.standard("pgd", 0.1, steps=4),), {}),
        ((attacks.standard("fgsm", 0.1),), {}),
        ((None,), {"samples": 11}),
        ((None,), {"samples": 6, "split": "validation"}),
        ((None,), {"samples": 6, "split": "test"}),
    ):
        passes.clear()
        (result,) = evaluated([experiment], given, **options)
        assert len(result.flags) == options.get("samples", 12)
        assert passes
    assert len(list((experiment.folder / "evaluations").glob("*.json"))) == 8


def test_an_interrupted_evaluation_keeps_what_it_has(experiment, monkeypatch):
    clean, real, asked = evaluation.flags, evaluation.attacked, []

    def interrupted(network, samples, attack, wanted, **options):
        first, *_ = real(network, samples, attack, wanted, **options)
        yield first
        raise KeyboardInterrupt

    expected = evaluated([experiment])[1]
    shutil.rmtree(experiment.folder / "evaluations")
    monkeypatch.setattr(evaluation, "CHUNK", 3)
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "attacked", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluated([experiment])
    monkeypatch.setattr(evaluation, "flags", lambda *_, **__: pytest.fail("clean images were looked at again"))
    monkeypatch.setattr(evaluation, "attacked", lambda *args, **how: asked.append(args[2:]) or real(*args, **how))
    again = evaluated([experiment])[1]
    ((attack, missing),) = asked
    assert attack == PGD
    assert missing.sum() == clean(trained(experiment), experiment.load_data().test.take(12), **BOUNDS).sum() - 3
    assert again.flags.tolist() == expected.flags.tolist() and again.passes.tolist() == expected.passes.tolist()


def test_flags_of_other_weights_are_not_taken(experiment, passes):
    before = evaluated([experiment])
    state = trained(experiment).state_dict()
    for name in ("head.weight", "head.bias"):
        state[name] = -state[name]
    put_weights(experiment, state)
    passes.clear()
    after = evaluated([experiment])
    assert passes
    assert after[0].flags.tolist() != before[0].flags.tolist()
    passes.clear()
    evaluated([experiment])
    assert not passes


def test_a_full_disk_leaves_no_half_written_flags(experiment, full_disk, store):
    (found,) = evaluated([experiment], [None])
    (file,) = (experiment.folder / "evaluations").glob("*.json")
    file.unlink()
    with full_disk(file.name), pytest.raises(Refused, match="Could not write .*: no space left"):
        evaluated([experiment], [None])
    assert not file.exists()
    assert not leftovers(store)
    assert evaluated([experiment], [None])[0].flags.tolist() == found.flags.tolist()


def test_damaged_flags_are_computed_again(experiment):
    (found,) = evaluated([experiment], [None])
    (file,) = (experiment.folder / "evaluations").glob("*.json")
    file.write_bytes(file.read_bytes()[:40])
    assert evaluated([experiment], [None])[0].flags.tolist() == found.flags.tolist()


def test_flags_of_other_data_are_not_taken(experiment, drawings, tmp_path):
    moved = replace(experiment, data={"name": f"folder:{tmp_path / 'mine'}"})
    shutil.copytree(drawings, tmp_path / "mine")
    evaluated([moved], [None])
    Image.new("L", (8, 8)).save(tmp_path / "mine" / "low" / "07.png")
    images._load.cache_clear()
    with pytest.raises(Refused, match="other bytes"):
        evaluated([moved], [None])


def test_splits_and_counts_that_are_not_there_are_refused(experiment):
    with pytest.raises(Refused, match="no split 'train'. Allowed: test, validation"):
        evaluated([experiment], split="train")
    assert not experiment.folder.exists()
    for samples in (0, 13):
        with pytest.raises(Refused, match=f"{samples} samples were asked for; there can be 1 to 12"):
            evaluated([experiment], [None], samples=samples)


# Many networks -----------------------------------------------------------------------------------------------------


def test_networks_are_copied_with_what_describes_them(experiment, trainings, monkeypatch, store, tmp_path):
    other, never = replace(experiment, seed=1), replace(experiment, seed=2)
    networks = [trained(experiment), trained(other)]
    target = tmp_path / "published"
    assert checkpoints.copy_networks([experiment, other, never], store, target) == 2
    assert sorted(path.name for path in target.iterdir()) == sorted([experiment.key, other.key])
    assert {file.name for file in target.glob("*/*")} == {"weights.pt", "history.jsonl", "checkpoint.json"}
    assert (target / other.key / "history.jsonl").read_bytes() == (other.folder / "history.jsonl").read_bytes()
    assert checkpoints.copy_networks([experiment, other, never], store, target) == 0  # what is there stays
    monkeypatch.setattr(paths, "CHECKPOINTS", target)
    trainings.clear()
    assert same(trained(experiment), networks[0])
    assert same(trained(other), networks[1])
    assert not trainings


@pytest.mark.parametrize("half", ["weights.pt", "history.jsonl", "checkpoint.json"])
def test_a_full_disk_leaves_no_half_copied_network(experiment, store, tmp_path, monkeypatch, full_disk, half):
    def copyfile(source, target):
        target.write_bytes(source.read_bytes()[: 50 if target.name == half else None])
        if target.name == half:
            raise OSError(errno.ENOSPC, "No space left on device")

    trained(experiment)
    target = tmp_path / "published"
    with monkeypatch.context() as patch, full_disk(half), pytest.raises(Refused, match="no space left"):
        patch.setattr(shutil, "copyfile", copyfile)
        checkpoints.copy_networks([experiment], store, target)
    assert not list(target.rglob(half))
    checkpoints.copy_networks([experiment], store, target)
    for name in ("weights.pt", "history.jsonl", "checkpoint.json"):
        assert (target / experiment.key / name).read_bytes() == (experiment.folder / name).read_bytes()


def test_two_workers_train_what_one_does(drawings, store, tmp_path, experiment):
    # in a copy of the package, whose root the spawned processes find by themselves
    copy, plan = tmp_path / "copy", [replace(experiment, seed=seed) for seed in range(3)]
    shutil.copytree(paths.ROOT / "paperlib", copy / "paperlib")
    for one in plan:
        trained(one)
    shutil.copytree(plan[0].folder, copy / "checkpoints" / plan[0].key)
    program = (
        "from paperlib.experiments import Experiment, Schedule, train_all\n"
        f"train_all({plan!r}, workers=2, device='cpu')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "3 networks: 1 trained already, 2 to train." in done.stdout
    assert "[2/2] vanilla, seed 2: epoch 2/2, loss" in done.stderr
    for one in plan:
        theirs = copy / "checkpoints" / one.key
        assert (theirs / "weights.pt").read_bytes() == (one.folder / "weights.pt").read_bytes()
        assert sorted(file.name for file in theirs.iterdir()) == KEPT


def test_where_all_is_trained_no_worker_starts(experiment, capsys, monkeypatch):
    trained(experiment)
    monkeypatch.setattr(experiments, "ProcessPoolExecutor", lambda *_: pytest.fail("a worker was started"))
    capsys.readouterr()
    checkpoints.train_all([experiment], workers=2, device="cpu")
    assert capsys.readouterr().out == "1 networks: 1 trained already, 0 to train.\n"


def test_a_loss_that_becomes_nan_leaves_no_checkpoint(experiment):
    wild = replace(experiment, schedule=replace(experiment.schedule, lr=1e38))
    which = re.escape(f"{wild.defense}, seed {wild.seed}: ")
    with pytest.raises(Refused, match=which + "The loss became (nan|inf) in epoch 1, step [1-4], at learning rate"):
        trained(wild)
    swept = replace(wild, defense="sr", options={"lam": 0.5})
    with pytest.raises(Refused, match=f"^sr, λ = 0.5, seed {wild.seed}: The loss became"):
        trained(swept)
    assert not checkpoints.is_trained(wild)
    assert math.isfinite(weights(trained(experiment)).sum())


# Networks of the released code ------------------------------------------------------------------------------------

TAKEN = Imported(
    sha256="ab" * 32, network="wrn16", dataset="cifar10", defense="at+sr", data={"name": "cifar10"}, recipe=1
)
OTHERS = {
    "sha256": "ac" * 32,
    "network": "vgg11",
    "dataset": "cifar100",
    "defense": "sr",
    "data": {"name": "cifar10", "test": 100},
    "recipe": 2,
}


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """A folder of 2 classes of 10 images, 32×32 in colour."""
    root, rng = tmp_path_factory.mktemp("colours"), np.random.RandomState(0)
    for name in ("cats", "dogs"):
        (root / name).mkdir()
        for i in range(10):
            Image.fromarray(rng.randint(0, 255, (32, 32, 3)).astype(np.uint8)).save(root / name / f"{i}.png")
    return {"name": f"folder:{root}"}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A checkpoint as the released code would write it."""
    path = tmp_path_factory.mktemp("downloads") / "sr.pth"
    torch.save(theirs("wrn16", "cifar10", torch.float32).state_dict(), path)
    return path


@pytest.fixture
def imported(store, file, colours):
    return checkpoints.import_released(file, "wrn16", "cifar10", defense="sr", data=colours)


@pytest.fixture
def small_batches(monkeypatch):
    """WRN-16 on a CPU: no more images at a time than there are."""
    monkeypatch.setattr(evaluation, "batch_size", lambda samples: samples)


def test_every_field_of_an_imported_network_is_in_its_key():
    assert set(OTHERS) == {field.name for field in fields(Imported)}
    changed = [replace(TAKEN, **{name: value}) for name, value in OTHERS.items()]
    assert len({one.key for one in [TAKEN, *changed]}) == 1 + len(changed)
    text = json.dumps(asdict(TAKEN), sort_keys=True)
    assert TAKEN.key == hashlib.sha256(text.encode()).hexdigest()[:16] == "d8751daf8df4c609"
    assert Imported("", "", "", "", {}).recipe == experiment.RECIPE


def test_an_imported_network_tells_its_training_the_released_seed_and_its_file():
    assert (TAKEN.labels, TAKEN.seed, str(TAKEN)) == ({"training": "at+sr"}, 42, "at+sr, imported from abababab")


def test_an_imported_network_is_kept_and_loaded_to_the_same_logits(imported, file, colours, trainings):
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert imported == Imported(digest, "wrn16", "cifar10", "sr", colours)
    assert checkpoints.is_trained(imported)
    assert sorted(f.name for f in imported.folder.iterdir()) == ["checkpoint.json", "weights.pt"]
    content = json.loads((imported.folder / "checkpoint.json").read_text())
    assert content["experiment"] == asdict(imported)
    assert content["data_sha256"] is None  # what it was trained on is not in the file
    found, x = trained(imported), torch.rand(2, 3, 32, 32)
    assert not found.training
    assert torch.equal(found(x), released.load(file, "wrn16", "cifar10")(x))
    assert not trainings


def test_a_file_in_double_precision_takes_images_as_all_do(store, colours, tmp_path):
    torch.save(theirs("wrn16", "cifar10").state_dict(), tmp_path / "double.pth")
    imported = checkpoints.import_released(tmp_path / "double.pth", "wrn16", "cifar10", defense="sr", data=colours)
    assert {p.dtype for p in trained(imported).parameters()} == {torch.float32}


def test_importing_again_changes_nothing(imported, file, colours):
    before = (imported.folder / "weights.pt").read_bytes()
    again = checkpoints.import_released(file, "wrn16", "cifar10", defense="sr", data=colours)
    assert again.key == imported.key
    assert (again.folder / "weights.pt").read_bytes() == before


def test_an_imported_network_is_evaluated_as_any_other(imported, file, passes, small_batches):
    attack, data = attacks.standard("fgsm", 4 / 255), imported.load_data()
    found = evaluated([imported], [None, attack], samples=4)
    network = released.load(file, "wrn16", "cifar10")
    for one, given in zip(found, (None, attack), strict=True):
        how = {"bounds": data.bounds, "num_classes": 2, "batch_size": 4}
        direct = evaluation.flags(network, data.test.take(4), given, **how)
        assert one.flags.tolist() == direct.tolist()
    assert [one.labels["training"] for one in found] == ["sr", "sr"]
    passes.clear()
    assert [one.flags.tolist() for one in evaluated([imported], [None, attack], samples=4)] == [
        one.flags.tolist() for one in found
    ]
    assert passes == []
    assert evaluations.is_evaluated(imported, attack, samples=4, split="test")


def test_an_imported_network_that_is_absent_is_refused_and_not_trained(store, trainings):
    with pytest.raises(Refused, match=r"at\+sr, imported from abababab.*no such network.* import-released at\+sr=FILE"):
        trained(TAKEN)
    assert not trainings
    assert not checkpoints.is_trained(TAKEN)


def test_an_imported_network_that_is_absent_starts_no_worker(experiment, monkeypatch):
    monkeypatch.setattr(experiments, "ProcessPoolExecutor", lambda *_: pytest.fail("a worker was started"))
    with pytest.raises(Refused, match="imported from abababab"):
        checkpoints.train_all([experiment, TAKEN], workers=2, device="cpu")


def test_where_imported_networks_are_there_the_others_are_trained(imported, experiment, capsys):
    trained(experiment)
    checkpoints.train_all([experiment, imported], workers=1, device="cpu")
    assert "2 networks: 2 trained already, 0 to train." in capsys.readouterr().out


@pytest.mark.parametrize("damage", [lambda data: data[:-1], None], ids=["cut", "gone"])
def test_an_imported_network_that_is_damaged_is_refused_until_it_is_imported_again(
    imported, file, colours, trainings, capsys, damage
):
    kept = imported.folder / "weights.pt"
    good = kept.read_bytes()
    if damage is None:
        kept.unlink()
    else:
        kept.write_bytes(damage(good))
    with pytest.raises(Refused, match="import-released sr=FILE") as refusal:
        trained(imported)
    assert not trainings
    said = capsys.readouterr().err + str(refusal.value)
    assert "weights do not match their checksum" in said and "trained again" not in said
    checkpoints.import_released(file, "wrn16", "cifar10", defense="sr", data=colours)
    assert kept.read_bytes() == good
    trained(imported)


@pytest.mark.parametrize("bad", ["missing.pth", "text.pth", "folder"])
def test_a_file_that_cannot_be_imported_is_refused_and_nothing_is_kept(store, tmp_path, colours, bad):
    (tmp_path / "text.pth").write_text("no checkpoint")
    (tmp_path / "folder").mkdir()
    with pytest.raises(Refused, match=bad):
        checkpoints.import_released(tmp_path / bad, "wrn16", "cifar10", defense="sr", data=colours)
    assert not store.exists()


def test_an_import_of_the_other_data_set_keeps_nothing(store, file, colours):
    with pytest.raises(Refused, match="no released wrn16 for cifar100"):
        checkpoints.import_released(file, "wrn16", "cifar100", defense="sr", data=colours)
    assert not store.exists()


def test_imported_networks_are_copied_as_others_are(imported, store, tmp_path, monkeypatch):
    assert checkpoints.copy_networks([imported], store, tmp_path / "published") == 1
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path / "published")
    trained(imported)
