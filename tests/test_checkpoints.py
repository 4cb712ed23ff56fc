"""The store: networks trained once, flags computed once, nothing damaged used, and nothing at all while planning."""

import hashlib
import json
import math
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from test_experiments import FIRST, OTHER_SCHEDULES, VANILLA

from paperlib import arithmetic, attacks, errors, executors, files, networks, paths, training, words
from paperlib.attacks import evaluation
from paperlib.data import images
from paperlib.errors import Refused
from paperlib.executors import machine
from paperlib.store import checkpoints, evaluations
from paperlib.store.experiment import Experiment
from paperlib.training import defenses, loop
from paperlib.training.loop import ATTACKED, Schedule

KEPT = ["checkpoint.json", "history.jsonl", "weights.pt"]
PGD = attacks.standard("pgd", 0.1, steps=3)


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
    return replace(VANILLA, data={"name": f"folder:{drawings}"}, arithmetic="portable")


@pytest.fixture
def moved(experiment, drawings, tmp_path):
    """The experiment on a copy of the data, and a function that changes one of its images."""

    def change():
        Image.new("L", (8, 8)).save(tmp_path / "mine" / "low" / "07.png")
        images._load.cache_clear()

    shutil.copytree(drawings, tmp_path / "mine")
    return replace(experiment, data={"name": f"folder:{tmp_path / 'mine'}"}), change


@pytest.fixture
def trainings(monkeypatch):
    """One entry for each call of the training loop."""
    calls, real = [], loop.epochs

    def epochs(*args, **options):
        calls.append(options["seed"])
        return real(*args, **options)

    monkeypatch.setattr(loop, "epochs", epochs)
    return calls


@pytest.fixture
def passes(monkeypatch):
    """One entry for each forward pass of any network."""
    calls, real = [], networks.Network.forward
    monkeypatch.setattr(networks.Network, "forward", lambda self, x: calls.append(len(x)) or real(self, x))
    return calls


def trained(experiment):
    return checkpoints.trained(experiment, device="cpu", progress=False)


def evaluated(wanted, given=(None, PGD), **options):
    options = {"samples": 12, "device": "cpu", "progress": False} | options
    return evaluations.evaluated(wanted, given, **options)


def weights(network):
    return torch.cat([value.flatten().double() for value in network.state_dict().values()])


def same(a, b):
    return torch.equal(weights(a), weights(b))


def history(experiment):
    """The rows of history.jsonl, one a line."""
    text = (experiment.folder / "history.jsonl").read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def timeless(rows):
    return [row | {"seconds": 0} for row in rows]


def leftovers(folder):
    return [file.name for file in folder.rglob("*") if file.name.endswith(".tmp")]


# ---- training once -----------------------------------------------------------------------------------------------


def test_a_network_is_trained_once_then_loaded_and_says_what_it_is(experiment, trainings, capsys):
    assert not checkpoints.is_trained(experiment)
    first = trained(experiment)
    assert checkpoints.is_trained(experiment)
    assert "vanilla, seed 0: epoch 2/2, loss" in capsys.readouterr().err
    again = trained(experiment)
    assert len(trainings) == 1
    assert same(first, again) and not again.training and not same(first, experiment.build())
    assert sorted(f.name for f in experiment.folder.iterdir()) == KEPT
    content = json.loads((experiment.folder / "checkpoint.json").read_text())
    schedule = Schedule(**content["experiment"]["schedule"])
    assert Experiment(**content["experiment"] | {"schedule": schedule}) == experiment
    digest = hashlib.sha256((experiment.folder / "weights.pt").read_bytes()).hexdigest()
    assert (content["weights_sha256"], content["data_sha256"]) == (digest, experiment.load_data().sha256)
    assert content.keys() == {"experiment", "weights_sha256", "data_sha256"}


def test_a_history_has_a_line_an_epoch(experiment):
    network = trained(experiment)
    rows = history(experiment)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert all(row.keys() == {"epoch", "loss", "lr", "validation_accuracy", "seconds"} for row in rows)
    correct = evaluation.flags(network, experiment.load_data().validation)
    assert rows[1]["validation_accuracy"] == pytest.approx(correct.float().mean().item())


def test_a_history_tells_which_epoch_was_selected_and_the_network_is_that_one(experiment, monkeypatch):
    last = trained(experiment)
    accuracies, validated = iter([0.5, 0.4]), loop._validated
    monkeypatch.setattr(loop, "_validated", lambda *given: validated(*given) | {ATTACKED: next(accuracies)})
    selecting = replace(experiment, schedule=replace(experiment.schedule, selection=OTHER_SCHEDULES["selection"]))
    first = trained(selecting)
    assert [(row["best_epoch"], row[ATTACKED]) for row in history(selecting)] == [(1, 0.5), (1, 0.4)]
    assert [row["loss"] for row in history(selecting)] == [row["loss"] for row in history(experiment)]
    assert not same(first, last)
    correct = evaluation.flags(first, selecting.load_data().validation)
    assert history(selecting)[0]["validation_accuracy"] == pytest.approx(correct.float().mean().item())


def test_an_epochs_line_stands_above_the_progress_bar(experiment, capsys):
    checkpoints.trained(experiment, device="cpu", progress=True)
    text = capsys.readouterr().err
    assert "epoch 1/2:" in text and "/8 [" in text  # the bar, of two epochs of four steps
    lines = [part[: part.index(", loss ")] for part in text.split("\r") if "vanilla, seed 0: epoch " in part]
    assert lines == ["vanilla, seed 0: epoch 1/2", "vanilla, seed 0: epoch 2/2"]


def interrupted_at(last):
    """The vanilla loss, `last` times (42 training images in batches of 10 are 4 steps an epoch)."""
    steps = iter(range(last))

    def loss(network, batch):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return torch.nn.functional.cross_entropy(network(batch.images), batch.labels)

    return loss


def test_an_interrupted_training_goes_on_where_it_was_to_the_same_bytes(experiment, monkeypatch, store):
    trained(experiment)
    whole, rows = (experiment.folder / "weights.pt").read_bytes(), timeless(history(experiment))
    monkeypatch.setattr(paths, "CHECKPOINTS", store / "second")
    torch.manual_seed(99)  # which must not matter
    with monkeypatch.context() as patch:
        patch.setattr(defenses, "build", lambda *_: SimpleNamespace(loss=interrupted_at(5)))
        with pytest.raises(KeyboardInterrupt):
            trained(experiment)
    assert (experiment.folder / "state.pt").exists()
    assert timeless(history(experiment)) == rows[:1]
    assert not checkpoints.is_trained(experiment)
    trained(experiment)
    assert (experiment.folder / "weights.pt").read_bytes() == whole
    assert not (experiment.folder / "state.pt").exists()
    assert timeless(history(experiment)) == rows


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


def test_a_loss_that_becomes_nan_leaves_no_checkpoint(experiment):
    wild = replace(experiment, schedule=replace(experiment.schedule, lr=1e38))
    with pytest.raises(Refused, match="^vanilla, seed 0: The loss became (nan|inf) in epoch 1, step [1-4], at"):
        trained(wild)
    with pytest.raises(Refused, match="^sr, λ = 0.5, seed 0: The loss became"):
        trained(replace(wild, defense="sr", options={"lam": 0.5}))
    assert not checkpoints.is_trained(wild)
    assert math.isfinite(weights(trained(experiment)).sum())


# ---- what is refused, and what is set aside ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("weights.pt", lambda data: b""),
        ("weights.pt", lambda data: data[:-1]),
        ("weights.pt", lambda data: data[:99] + b"?" + data[100:]),
        ("weights.pt", None),
        ("checkpoint.json", lambda data: data[:100]),
        ("checkpoint.json", lambda data: b'{"experiment": {}, "weights_sha256": 3, "data_sha256": null}'),
    ],
    ids=["empty", "cut", "one byte", "gone", "description", "shape"],
)
def test_a_damaged_checkpoint_is_named_set_aside_and_trained_again(experiment, trainings, capsys, file, damage):
    first, path = trained(experiment), experiment.folder / file
    good = path.read_bytes()
    if damage:
        path.write_bytes(damage(good))
    else:
        path.unlink()
    capsys.readouterr()
    assert same(trained(experiment), first)
    fault = "checkpoint.json is damaged" if file == "checkpoint.json" else "weights do not match their checksum"
    text = capsys.readouterr().err
    assert re.search(f"{experiment.folder}:? {fault}", text) and "the old files are kept as" in text
    assert path.read_bytes() == good
    if damage:
        assert path.with_name(f"{file}.damaged").read_bytes() == damage(good)
    trained(experiment)
    assert len(trainings) == 2


def put_weights(experiment, state):
    """Weights with a checksum that is right."""
    data = training.to_bytes(state)
    (experiment.folder / "weights.pt").write_bytes(data)
    file = experiment.folder / "checkpoint.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"weights_sha256": hashlib.sha256(data).hexdigest()}))


class Touching:
    """Whoever unpickles it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("what", ["code", "a list", "numbers"])
def test_weights_that_are_no_tensors_are_refused_and_nothing_is_executed(experiment, tmp_path, what):
    """Their checksum is right."""
    trained(experiment)
    contents = {
        "code": {"head.weight": Touching(tmp_path / "executed")},
        "a list": [1, 2],
        "numbers": {"head.weight": 3},
    }
    put_weights(experiment, contents[what])
    with pytest.raises(Refused, match="weights.pt holds no state dict|holds weights of another network"):
        trained(experiment)
    assert not (tmp_path / "executed").exists()


def test_checkpoints_of_others_are_refused(experiment):
    other = replace(experiment, seed=1)
    trained(other)
    put_weights(other, replace(experiment, network="conv-3-4").build().state_dict())
    with pytest.raises(Refused, match=f"{other.key} holds weights of another network than conv-2-4"):
        trained(other)
    shutil.copytree(other.folder, experiment.folder)
    with pytest.raises(Refused, match=f"{experiment.key} holds a checkpoint of another experiment: .*'seed': 1"):
        trained(experiment)


def test_changed_data_are_refused(moved):
    experiment, change = moved
    evaluated([experiment], [None])
    change()
    with pytest.raises(Refused, match="trained on other bytes of folder:.*mine than are there now"):
        trained(experiment)
    with pytest.raises(Refused, match="other bytes"):  # nor are flags of other data taken
        evaluated([experiment], [None])


def test_unknown_data_are_refused_before_anything_is_kept(experiment):
    wrong = replace(experiment, data={"name": "minst"})
    with pytest.raises(Refused, match="no image set 'minst'. Allowed: mnist5k"):
        trained(wrong)
    assert not checkpoints.is_trained(wrong)
    assert list(wrong.folder.iterdir()) == []


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
    assert checkpoints.resolve("auto") == "cpu"  # which alone is portable
    with pytest.raises(Refused, match="Device 'cuda' takes native arithmetic and this process computes with portable"):
        evaluated([experiment], device="cuda")
    monkeypatch.setattr(arithmetic, "current", lambda: "native")
    assert checkpoints.resolve("auto") == "cuda"
    assert not experiment.folder.exists()


@pytest.mark.parametrize(
    ("verb", "call"),
    [
        ("trains", lambda one, *_: trained(one)),
        ("trains", lambda one, *_: checkpoints.train_all([one], executor=executors.local(1), device="cpu")),
        ("trains", lambda one, network, _: next(loop.epochs(network, None, one.load_data(), one.schedule, seed=0))),
        ("evaluates", lambda _, network, samples: evaluation.flags(network, samples)),
        ("attacks", lambda _, network, samples: next(evaluation.attacked(network, samples, PGD, samples.labels > 0))),
        ("attacks", lambda one, *_: evaluated([one])),
    ],
    ids=["trained", "train_all", "epochs", "flags", "attacked", "evaluated"],
)
def test_while_a_notebook_is_planned_nothing_is_trained_or_attacked(experiment, passes, verb, call):
    network, samples = experiment.build(), experiment.load_data().test
    with errors.planning("tab-mine"), pytest.raises(Refused) as refusal:
        call(experiment, network, samples)
    asks = f"notebook tab-mine: its cell tagged asks {verb} by itself"
    assert str(refusal.value) == f"{asks}; it may only name networks and attacks, by run.ask."
    assert not passes and not checkpoints.is_trained(experiment)
    assert evaluation.flags(network, samples).shape == (12,)  # behind the block it is allowed again


# ---- opening by name ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"detach_reset": True},
        {"network": "ann-conv-2-4", "T": 1},
        {"schedule": replace(VANILLA.schedule, warm_up=1, selection={"eps": 0.1, "steps": 2})},
    ],
    ids=["plain", "detached", "twin", "schedule"],
)
def test_a_checkpoint_is_found_by_its_folders_name(experiment, changes):
    plain, other = trained(experiment), replace(experiment, **changes)
    network = trained(other)
    assert same(network, plain) == (changes == {})
    again = checkpoints.in_folder(other.key)
    assert again == other and same(trained(again), network)


def test_a_checkpoint_from_before_there_were_younger_fields_is_opened(experiment, monkeypatch):
    monkeypatch.setattr(arithmetic, "current", lambda: "native")  # as all was then
    experiment = replace(experiment, arithmetic="native")
    first = trained(experiment)
    file = experiment.folder / "checkpoint.json"
    content = json.loads(file.read_text())
    assert set(content["experiment"]) | set(content["experiment"]["schedule"]) == FIRST
    file.write_text(json.dumps(content | {"history": [{"epoch": 1}]}))  # which stood there then
    (experiment.folder / "history.jsonl").unlink()
    assert same(trained(checkpoints.in_folder(experiment.key)), first)


def test_a_folder_that_holds_no_network_is_not_opened(experiment):
    with pytest.raises(Refused, match="mine holds no checkpoint.json; name a folder there that does"):
        checkpoints.in_folder("mine")
    trained(experiment)
    shutil.copytree(experiment.folder, experiment.folder.with_name("mine"))
    with pytest.raises(Refused, match=f"mine holds the checkpoint of {experiment.key}; rename it so"):
        checkpoints.in_folder("mine")
    description = experiment.folder.with_name("mine") / "checkpoint.json"
    good = description.read_text()
    for text, sentence in (
        ("[]", "is damaged"),
        (good.replace('"tau"', '"mu"'), "no experiment of this version: .*mu"),
    ):
        description.write_text(text)
        with pytest.raises(Refused, match=f"mine.*{sentence}"):
            checkpoints.in_folder("mine")


def test_networks_are_opened_one_after_another(experiment, trainings):
    both = [experiment, replace(experiment, seed=1)]
    opened = checkpoints.opened(both, device="cpu", progress=False)
    assert trainings == []
    first = next(opened)
    assert trainings == [0] and first.experiment == experiment and same(first.network, trained(experiment))
    assert [one.experiment for one in opened] == both[1:] and trainings == [0, 1]


# ---- flags -------------------------------------------------------------------------------------------------------


def test_flags_are_computed_once(experiment, passes):
    other = replace(experiment, seed=1)
    found = evaluated([experiment, other])
    assert [(e.experiment, e.attack) for e in found] == [(x, a) for x in (experiment, other) for a in (None, PGD)]
    network, samples = trained(experiment), experiment.load_data().test.take(12)
    for attack, result in zip((None, PGD), found, strict=False):
        assert result.flags.dtype == bool
        assert result.flags.tolist() == evaluation.flags(network, samples, attack).tolist()
    passes.clear()
    again = evaluated([experiment, other])
    assert passes == []
    assert [e.flags.tolist() for e in again] == [e.flags.tolist() for e in found]
    evaluated([experiment], [None, attacks.standard("fgsm", 0.1)])
    assert len(passes) == 2  # what is right on clean images is known: the gradient, and the verdict


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
    clean, real, calls = evaluation.flags, evaluation.attacked, []

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
    monkeypatch.setattr(evaluation, "attacked", lambda *args, **how: calls.append(args[2:]) or real(*args, **how))
    again = evaluated([experiment])[1]
    ((attack, missing),) = calls
    assert attack == PGD
    assert missing.sum() == clean(trained(experiment), experiment.load_data().test.take(12)).sum() - 3
    assert again.flags.tolist() == expected.flags.tolist() and again.passes.tolist() == expected.passes.tolist()


def test_flags_of_other_weights_are_not_taken(experiment, passes):
    before = evaluated([experiment])
    state = trained(experiment).state_dict()
    for name in ("head.weight", "head.bias"):
        state[name] = -state[name]
    put_weights(experiment, state)
    for fresh in (True, False):
        passes.clear()
        after = evaluated([experiment])
        assert bool(passes) == fresh
        assert after[0].flags.tolist() != before[0].flags.tolist()


def test_flags_are_written_whole_and_damaged_ones_computed_again(experiment, full_disk, store):
    (found,) = evaluated([experiment], [None])
    (file,) = (experiment.folder / "evaluations").glob("*.json")
    file.write_bytes(file.read_bytes()[:40])
    assert evaluated([experiment], [None])[0].flags.tolist() == found.flags.tolist()
    file.unlink()
    with full_disk(file.name), pytest.raises(Refused, match="Could not write .*: no space left"):
        evaluated([experiment], [None])
    assert not file.exists() and not leftovers(store)
    assert evaluated([experiment], [None])[0].flags.tolist() == found.flags.tolist()


def test_splits_and_counts_that_are_not_there_are_refused(experiment):
    with pytest.raises(Refused, match="no split 'train'. Allowed: test, validation"):
        evaluated([experiment], split="train")
    assert not experiment.folder.exists()
    for samples in (0, 13):
        with pytest.raises(Refused, match=f"{samples} samples were asked for; there can be 1 to 12"):
            evaluated([experiment], [None], samples=samples)


# ---- many networks -----------------------------------------------------------------------------------------------


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
def test_a_full_disk_leaves_no_half_copied_network(experiment, store, tmp_path, full_disk, half):
    trained(experiment)
    target = tmp_path / "published"
    with full_disk(half), pytest.raises(Refused, match="no space left"):
        checkpoints.copy_networks([experiment], store, target)
    assert not list(target.rglob(half))
    checkpoints.copy_networks([experiment], store, target)
    for name in ("weights.pt", "history.jsonl", "checkpoint.json"):
        assert (target / experiment.key / name).read_bytes() == (experiment.folder / name).read_bytes()


OWN = """
from torch.nn.functional import cross_entropy
from paperlib.training import defenses

def prepare():
    @defenses.register("doubled")
    def doubled(network, batch):
        return 2 * cross_entropy(network(batch.images), batch.labels)
"""


def test_two_workers_train_what_one_does_and_what_prepare_alone_registers(store, tmp_path, experiment, monkeypatch):
    # in a copy of the package, whose root the spawned processes find by themselves
    monkeypatch.setattr(defenses, "DEFENSES", dict(defenses.DEFENSES))
    monkeypatch.setattr(words, "_trainings", dict(words._trainings))
    exec(OWN, own := {"__name__": "own"})
    own["prepare"]()
    copy, plan = tmp_path / "copy", [replace(experiment, seed=seed) for seed in range(2)]
    plan.append(replace(experiment, defense="doubled"))
    shutil.copytree(paths.ROOT / "paperlib", copy / "paperlib")
    (copy / "own.py").write_text(OWN)
    for one in plan:
        trained(one)
    shutil.copytree(plan[0].folder, copy / "checkpoints" / plan[0].key)
    program = (
        "import own\n"
        "from paperlib import executors\n"
        "from paperlib.store.checkpoints import train_all\n"
        "from paperlib.store.experiment import Experiment, Schedule\n"
        "own.prepare()  # here, to name the experiment; a spawned worker knows nothing of it\n"
        f"train_all({plan!r}, executor=executors.local(2), device='cpu', prepare=own.prepare)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "3 networks: 1 trained already, 2 to train." in done.stdout
    assert "[1/2] vanilla, seed 1: epoch 2/2, loss" in done.stderr
    assert "[2/2] doubled, seed 0: epoch 2/2, loss" in done.stderr
    for one in plan:
        theirs = copy / "checkpoints" / one.key
        assert (theirs / "weights.pt").read_bytes() == (one.folder / "weights.pt").read_bytes()
        assert sorted(file.name for file in theirs.iterdir()) == KEPT


@pytest.mark.parametrize("train", [trained, lambda one: checkpoints._train_quietly(one, "cpu", "")])
def test_what_another_process_trains_meanwhile_is_not_trained_again(experiment, trainings, store, monkeypatch, train):
    """While this one waits for the lock."""
    trained(experiment)
    finished = experiment.folder.rename(store / "theirs")
    real = files.locked

    @contextmanager
    def waited(path):
        with real(path):
            shutil.copytree(finished, experiment.folder, dirs_exist_ok=True)
            yield

    monkeypatch.setattr(files, "locked", waited)
    train(experiment)
    assert len(trainings) == 1


def test_where_all_is_trained_no_worker_starts(experiment, capsys, monkeypatch):
    trained(experiment)
    monkeypatch.setattr(machine, "ProcessPoolExecutor", lambda *_: pytest.fail("a worker was started"))
    capsys.readouterr()
    checkpoints.train_all([experiment], executor=executors.local(2), device="cpu")
    assert capsys.readouterr().out == "1 networks: 1 trained already, 0 to train.\n"
