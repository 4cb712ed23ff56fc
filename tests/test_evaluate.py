"""Evaluations as jobs of an executor: the order, the parts, and the files of a serial run, also after a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec

import pytest
import yaml
from house import ASKS, BEGIN, PARAMETERS, PROFILE

from paperlib import paths
from paperlib.errors import Refused
from paperlib.runs import evaluate, plan
from paperlib.store import checkpoints

dask = pytest.mark.skipif(not find_spec("dask_jobqueue"), reason="the extra cluster is not installed")
SAMPLES = 12  # all test images of the house's data
ASKED = """
coupled = attacks.standard("pgd", 0.01, steps=2, rule={"name": "pdsg"})
worst = Ensemble("worst", [attacks.standard("fgsm", 0.01), coupled])
run.ask(run.profile.experiments("vanilla"), [None, pgd, worst], samples=samples)
"""


class Here:
    """An executor that runs jobs in this process, in reversed order, and keeps what it was given."""

    def __init__(self):
        self.stages = []

    def run(self, function, jobs, *, titles=None, prepare=None):
        self.stages.append((jobs, titles))
        for key in reversed(jobs):
            function(*jobs[key])


@pytest.fixture
def planned(house):
    """The plan of two networks, trained, that are asked for clean samples, PGD and an ensemble."""
    house.asking(ASKED)
    planned = plan.of(house.profile(notebooks={"tab-0": {"samples": SAMPLES}}))
    for experiment in planned.networks:
        checkpoints.trained(experiment, device="cpu", progress=False)
    return planned


def timeless(folder):
    """What the evaluations in a folder hold, without what depends on time."""
    found = {path.relative_to(folder): json.loads(path.read_text()) for path in folder.glob("*/evaluations/*.json")}
    return {name: {k: v for k, v in one.items() if k not in ("seconds", "sha256")} for name, one in found.items()}


def test_jobs_come_in_two_stages_longest_first_and_leave_the_files_of_a_serial_run(planned, capsys):
    for request in plan.requests(planned.profile, "tab-0"):
        request.evaluated()
    serial = timeless(paths.CHECKPOINTS)
    for folder in paths.CHECKPOINTS.glob("*/evaluations"):
        shutil.rmtree(folder)
    capsys.readouterr()

    executor = Here()
    evaluate.evaluate_all(planned, executor=executor, device="cpu", size=5)
    assert capsys.readouterr().out == "6 evaluations: 0 there already, 6 to compute.\n"
    assert timeless(paths.CHECKPOINTS) == serial and len(serial) == 2 * 4
    assert all(one.is_there for one in planned.evaluations)
    (clean, _), (attacks, titles) = executor.stages
    assert [(one.attack, part) for one, part, _ in clean.values()] == 2 * [(None, range(SAMPLES))]
    parts = [range(0, 5), range(5, 10), range(10, 12)]
    assert [(str(one), part) for one, part, _ in attacks.values()] == [
        *2 * [("worst of all at 2.55/255, 12 test images", part) for part in parts],
        *2 * [("PGD-2 at 25.5/255, 12 test images", part) for part in parts],
    ]
    assert [*titles.values()][-1] == "vanilla, seed 1: PGD-2 at 25.5/255, 12 test images, 10 to 11"

    evaluate.evaluate_all(planned, executor=executor, device="cpu", size=5)
    assert len(executor.stages) == 2  # nothing is left to do
    assert capsys.readouterr().out == "6 evaluations: 6 there already, 0 to compute.\n"


def test_a_small_evaluation_is_not_divided(planned):
    executor = Here()
    evaluate.evaluate_all(planned, executor=executor, device="cpu")
    titles = [title for _, titles in executor.stages for title in titles.values()]
    assert len(titles) == 6 and titles[0] == "vanilla, seed 0: clean, 12 test images"


def test_networks_that_are_not_trained_are_refused_before_any_work(planned):
    shutil.rmtree(planned.networks[1].folder)
    with pytest.raises(Refused) as refusal:
        evaluate.evaluate_all(planned, executor=None, device="cpu")
    assert str(refusal.value) == (
        "1 networks are not trained yet, such as vanilla, seed 1; first: python -m paperlib train --profile tiny"
    )
    assert not any(paths.CHECKPOINTS.glob("*/evaluations"))


def test_no_two_evaluations_have_one_key(planned):
    keys = {one.key for one in planned.evaluations}
    assert len(keys) == len(planned.evaluations)
    one = planned.evaluations[0]
    assert plan.Planned(one.experiment, one.attack, 11, "test").key not in keys
    assert plan.Planned(one.experiment, one.attack, SAMPLES, "validation").key not in keys
    assert plan.Planned(one.experiment, one.attack, SAMPLES, "test").key == one.key


# ---- two processes -----------------------------------------------------------------------------------------------

OWN = '''
"""Writes a line for each sample whose flag was kept; with a file "fatal" its process group dies after some of them."""
import os, pathlib, signal
from paperlib.attacks import evaluation
from paperlib.runs import plan

FOLDER = pathlib.Path(__file__).parent
real = evaluation.attacked


def noted(network, samples, attack, wanted, **options):
    for outcome in real(network, samples, attack, wanted, **options):
        yield outcome
        weights = sum(p.double().sum().item() for p in network.parameters())
        with (FOLDER / "log").open("a") as log:
            log.write("".join(f"{weights} {attack} {row}\\n" for row in outcome.rows.tolist()))
        if (FOLDER / "fatal").exists() and len((FOLDER / "log").read_text().splitlines()) > 20:
            os.killpg(0, signal.SIGKILL)


def prepare():
    evaluation.attacked = noted
    plan.register("tiny")
'''
EVALUATE = """
import own
from paperlib import executors, profiles
from paperlib.runs import evaluate, plan

def by(executor):
    planned = plan.of(profiles.load("tiny"))
    evaluate.evaluate_all(planned, executor=executor, device="cpu", prepare=own.prepare, size=10)
    assert all(one.is_there for one in planned.evaluations)
"""
BY_PROCESSES = EVALUATE + "by(executors.local(2))"
BY_A_CLUSTER = (
    EVALUATE
    + """
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", memory_limit=0) as cluster:
        by(executors.cluster(cluster.scheduler_address))
"""
)
SERIAL = """
from paperlib import profiles
from paperlib.runs import plan
for request in plan.requests(profiles.load("tiny"), "tab-0"):
    request.evaluated()
"""


def program(copy, text):
    environment = os.environ | {"PYTHONPATH": str(copy)}
    return subprocess.run(
        [sys.executable, "-c", text], cwd=copy, env=environment, capture_output=True, text=True, start_new_session=True
    )


@pytest.mark.parametrize("second", [BY_PROCESSES, pytest.param(BY_A_CLUSTER, marks=dask)], ids=["processes", "cluster"])
def test_two_processes_that_are_killed_go_on_and_leave_the_files_of_a_serial_run(tmp_path, second):
    # in a copy of the package, whose root the spawned processes find by themselves
    copy = tmp_path / "copy"
    shutil.copytree(paths.ROOT / "paperlib", copy / "paperlib")
    (copy / "params").mkdir()
    (copy / "notebooks").mkdir()
    data = {"name": "mnist5k", "train": 200, "validation": 10, "test": 40}
    profile = PROFILE | {"data": data, "notebooks": {"tab-0": {"samples": 40}}}
    (copy / "params" / "tiny.yml").write_text(yaml.safe_dump(profile))
    asks = f"{PARAMETERS}{ASKS}{BEGIN.replace('notebook', chr(34) + 'tab-0' + chr(34))}{ASKED}"
    asks = asks.replace('"pdsg"', '"atan", "gamma": 2.0')  # the whole batch of a coupled rule would lie in every part
    (copy / "notebooks" / "tab-0.py").write_text(asks)
    (copy / "own.py").write_text(OWN)
    done = program(copy, SERIAL)
    assert done.returncode == 0, done.stderr
    store = copy / "checkpoints"
    serial = timeless(store)
    for folder in store.glob("*/evaluations"):
        shutil.rmtree(folder)

    (copy / "fatal").touch()
    assert program(copy, BY_PROCESSES).returncode == -signal.SIGKILL
    kept = (copy / "log").read_text().splitlines()
    (copy / "fatal").unlink()
    done = program(copy, second)
    assert done.returncode == 0, done.stderr
    assert timeless(store) == serial and len(serial) == 2 * 4
    noted = Counter((copy / "log").read_text().splitlines())
    assert set(noted.values()) == {1}  # nothing that was kept was computed again
    assert 20 < len(kept) < len(noted)
