"""A store that other processes and hosts use as well, that is lost in the middle, or whose clock was set back."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from paperlib import attacks, paths, stamps
from paperlib.attacks import evaluation
from paperlib.data import images
from paperlib.errors import Refused
from paperlib.store import checkpoints, evaluations
from paperlib.store.experiment import Experiment
from paperlib.training import loop
from paperlib.training.loop import Schedule

SCHEDULE = Schedule(epochs=3, batch_size=10, lr=0.1, momentum=0.9, weight_decay=5e-4)
ONE = Experiment({"name": "tiny"}, "conv-2-4", 2, 1.0, "triangle", "float32", "vanilla", {}, SCHEDULE, 0)
FGSM = attacks.standard("fgsm", 0.02)


@pytest.fixture
def store(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "load", lambda **_: tiny)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path / "checkpoints")
    return paths.CHECKPOINTS


def trained():
    return checkpoints.trained(ONE, device="cpu", progress=False)


def evaluated(attack=FGSM):
    return evaluations.evaluated([ONE], [attack], samples=20, device="cpu", progress=False)


def digest(folder):
    return hashlib.sha256((folder / "weights.pt").read_bytes()).hexdigest()


def after_an_epoch(monkeypatch, happens):
    """Let something happen once, between the first epoch and the second of the next training."""
    real = loop.epochs

    def epochs(*arguments, **options):
        for row in real(*arguments, **options):
            yield row
            if row["epoch"] == 1:
                happens()

    monkeypatch.setattr(loop, "epochs", epochs)


CLIENT = """
import sys, time
from pathlib import Path
from paperlib import paths
folder, name, other = Path(sys.argv[1]), *sys.argv[2:]
paths.CHECKPOINTS = folder / "checkpoints"
from paperlib.store import checkpoints
from paperlib.store.experiment import Experiment
from paperlib.training import loop
from paperlib.training.loop import Schedule

def counted(*arguments, **options):
    with (folder / "count").open("a") as count:
        count.write(name)
    while not (folder / other).exists():  # the other one is about to ask for the same network
        time.sleep(0.01)
    yield from real(*arguments, **options)

real, loop.epochs = loop.epochs, counted
data = {"name": "mnist5k", "train": 50, "validation": 10, "test": 10}
one = Experiment(data, "conv-2-4", 2, 1.0, "triangle", "float32", "vanilla", {}, Schedule(2, 10, 0.1, 0.9, 5e-4), 0)
(folder / name).touch()
network = checkpoints.trained(one, device="cpu", progress=False)
print(sum(parameter.double().sum().item() for parameter in network.parameters()))
"""


def test_of_two_clients_that_need_a_network_one_trains_and_the_other_waits_and_loads_it(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(paths.ROOT)}
    clients = [
        subprocess.Popen(
            [sys.executable, "-c", CLIENT, tmp_path, *names], env=environment, stdout=subprocess.PIPE, text=True
        )
        for names in ("ab", "ba")
    ]
    first, second = (client.communicate(timeout=120)[0] for client in clients)
    assert [client.returncode for client in clients] == [0, 0] and first == second != ""
    assert (tmp_path / "count").read_text() in ("a", "b")  # the network was trained once
    (folder,) = (tmp_path / "checkpoints").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.json", "history.jsonl", "weights.pt"]


def test_whoever_lost_its_lease_takes_what_another_has_finished_meanwhile(store, tmp_path, monkeypatch):
    """On another processor the other one's weights may differ; description and weights must be of one training."""
    trained()
    theirs = ONE.folder.rename(tmp_path / "theirs")
    other = replace(ONE, seed=1)
    checkpoints.trained(other, device="cpu", progress=False)
    weights = (other.folder / "weights.pt").read_bytes()
    description = (theirs / "checkpoint.json").read_text().replace(digest(theirs), digest(other.folder))

    def finish():
        (ONE.folder / "weights.pt").write_bytes(weights)
        (ONE.folder / "checkpoint.json").write_text(description)

    after_an_epoch(monkeypatch, finish)
    trained()
    assert digest(ONE.folder) == digest(other.folder) != digest(theirs)
    assert not [*ONE.folder.glob("*.damaged"), *ONE.folder.glob("state.pt")]


# ---- a lost folder -----------------------------------------------------------------------------------------------


def test_a_network_s_folder_that_is_removed_in_mid_training_is_made_again(store, monkeypatch):
    trained()
    whole = digest(ONE.folder)
    shutil.rmtree(ONE.folder)
    after_an_epoch(monkeypatch, lambda: shutil.rmtree(ONE.folder))
    trained()
    assert digest(ONE.folder) == whole
    assert sorted(path.name for path in ONE.folder.iterdir()) == ["checkpoint.json", "history.jsonl", "weights.pt"]


def lose(store):
    """What is left of a folder where nothing can be made any more."""
    store.rename(store.with_name("lost"))
    store.touch()


def test_a_store_that_is_lost_in_mid_training_is_one_sentence(store, monkeypatch):
    after_an_epoch(monkeypatch, lambda: lose(store))
    with pytest.raises(Refused) as refusal:
        trained()
    assert "Could not write checkpoints/" in str(refusal.value) and "\n" not in str(refusal.value)
    with pytest.raises(Refused, match="^Could not (read|write) checkpoints/"):
        trained()


@pytest.mark.parametrize("loss", [lambda store: shutil.rmtree(ONE.folder), shutil.rmtree, lose])
def test_a_store_that_is_lost_in_mid_evaluation_is_one_sentence(store, monkeypatch, loss):
    real = evaluation.attacked

    def attacked(*arguments, **options):
        outcomes = list(real(*arguments, **options))
        loss(store)
        return outcomes

    trained()
    monkeypatch.setattr(evaluation, "attacked", attacked)
    with pytest.raises(Refused) as refusal:
        evaluated()
    assert str(refusal.value).startswith("Could not ") and f"checkpoints/{ONE.key}" in str(refusal.value)


# ---- a clock that was set back -----------------------------------------------------------------------------------


def in_the_future(folder, seconds):
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (time.time() + seconds, time.time() + seconds))


def test_networks_and_evaluations_of_the_future_are_as_good_as_others(store, monkeypatch):
    (before,) = evaluated()
    in_the_future(store, 10**7)
    monkeypatch.setattr(loop, "epochs", lambda *_, **__: pytest.fail("it was trained again"))
    monkeypatch.setattr(evaluation, "attacked", lambda *_, **__: pytest.fail("it was attacked again"))
    (after,) = evaluated()
    assert after.flags.tolist() == before.flags.tolist()


def test_a_training_of_the_future_is_resumed(store, monkeypatch):
    def stop():
        in_the_future(store, 10**7)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        after_an_epoch(patch, stop)
        with pytest.raises(KeyboardInterrupt):
            trained()
    steps, real = [], loop.Step.loss
    monkeypatch.setattr(loop.Step, "loss", lambda *arguments: steps.append(1) or real(*arguments))
    trained()
    assert len(steps) == 10 * (SCHEDULE.epochs - 1)  # 100 images in batches of 10


def test_a_stamp_of_the_future_is_removed_and_one_of_a_server_that_is_a_little_ahead_stays(tmp_path, monkeypatch):
    for name in ("ROOT", "BUILD"):
        monkeypatch.setattr(paths, name, tmp_path / "build" if name == "BUILD" else tmp_path)
    stamp = tmp_path / "build" / "tiny" / "tab-0.done"
    stamps.write(stamp, [])
    in_the_future(stamp, 60)
    assert stamps.remove_false("tiny") == [] and stamp.exists()
    in_the_future(stamp, 3600)
    sentence = "The clock was set back since build/tiny/tab-0.done was made; it is made again."
    assert stamps.remove_false("tiny") == [sentence] and not stamp.exists()
