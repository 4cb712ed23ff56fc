"""Executors of clusters: separate worker processes give the serial run's bytes, and what is lost is done by others.

Two Dask workers of this machine stand for two hosts.  The package is copied into a folder of its own, whose store the
workers fill; this process is the client.
"""

import importlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import test_processes
import yaml
from house import PROFILE, SIMPLE
from test_processes import awaited, gone, tries

from paperlib import arithmetic, executors, paths, words
from paperlib.data import sets
from paperlib.errors import Refused
from paperlib.store import checkpoints
from paperlib.store.experiment import Experiment
from paperlib.training import defenses
from paperlib.training.loop import Schedule

distributed = pytest.importorskip("distributed", reason="needs the extra cluster: pip install -e '.[cluster]'")
pytest.importorskip("dask_jobqueue", reason="needs the extra cluster: pip install -e '.[cluster]'")

TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs" / "cluster.md"
OWN = '''
"""Data, and a training that notes each of its steps and stops where a test tells it to."""

import os
import time
from pathlib import Path

from house import sixty
from torch.nn.functional import cross_entropy

from paperlib.data import sets
from paperlib.training import defenses

HERE = Path(__file__).parent


def prepare():
    sets.register("sixty")(sixty)
    defenses.register("noted")(noted)


def noted(network, batch, *, name):
    steps = HERE / f"{name}.steps"
    gate = HERE / f"{name}.gate-{len(steps.read_text()) if steps.exists() else 0}"
    if gate.exists():
        (HERE / f"{name}.waits").write_text(f"{os.getpid()} {os.getppid()}")
    while gate.exists():
        time.sleep(0.05)
    with steps.open("a") as file:
        file.write(".")
    return cross_entropy(network(batch.images), batch.labels)
'''
LIGHT = '''
"""A job without torch."""

import os
from pathlib import Path

from paperlib import arithmetic


def tell(file):
    """A job that writes down its process and what that process computes with."""
    variables = {name: os.environ.get(name) for name in ("MALLOC_TRIM_THRESHOLD_", "ATEN_CPU_CAPABILITY")}
    variables |= {"arithmetic": arithmetic.current(), "process": os.getpid()}
    Path(file).write_text(repr(variables))
    print("told", Path(file).name)
'''
NOTEBOOK = SIMPLE.replace("samples: int", 'profile: str = "tiny"  # which file under params/\nsamples: int', 1)
FAILING = NOTEBOOK + '\n# %%\nraise ValueError("boom")\n'


def experiment(name, seed, **options):
    schedule = Schedule(epochs=2, batch_size=10, lr=0.1, momentum=0.9, weight_decay=0.0005)
    common = {"data": {"name": "sixty"}, "network": "conv-2-2", "T": 1, "tau": 1.0, "rule": "triangle"}
    common |= {"precision": "float32", "defense": "noted", "options": {"name": name}, "schedule": schedule}
    return Experiment(**common, seed=seed, **options)


def environment(**more):
    """This process's environment without what make adds, for programs that find the tests' modules."""
    return os.environ | {"PYTHONPATH": f"{paths.ROOT}{os.pathsep}{TESTS}", "OMP_NUM_THREADS": "1"} | more


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A checkout: the package, a module and two notebooks of a user's own, a profile."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(paths.ROOT / "paperlib", root / "paperlib", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "own.py").write_text(OWN)
    (root / "light.py").write_text(LIGHT)
    for folder, name, text in (
        ("notebooks", "tab-simple.py", NOTEBOOK),
        ("notebooks", "tab-failing.py", FAILING),
        ("params", "tiny.yml", yaml.safe_dump(PROFILE)),
    ):
        (root / folder).mkdir(exist_ok=True)
        (root / folder / name).write_text(text, encoding="utf-8")
    return root


@contextmanager
def dask(copy, file, program, *options):
    """A Dask scheduler, which writes its address to `file`, or workers, with another arithmetic than the client's."""
    command = [sys.executable, "-m", f"distributed.cli.dask_{program}", "--host", "127.0.0.1", *options]
    variables = {"COMPANION_ARITHMETIC": "native", "MALLOC_TRIM_THRESHOLD_": "1", "COMPANION_MAKE": "1"}
    variables |= {"PYTHONPATH": f"{copy}{os.pathsep}{TESTS}"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command += ["--scheduler-file", str(file)]
    with subprocess.Popen(command, cwd=copy, env=environment(**variables), **quiet) as process:
        awaited(file)
        yield process
        process.kill()  # what it started ends with it


SCHEDULER = ("scheduler", "--port", "0", "--dashboard-address", "127.0.0.1:0")
WORKERS = ("worker", "--nworkers", "2", "--nthreads", "1", "--memory-limit", "0")


@pytest.fixture(scope="module")
def scheduler(copy):
    """The address of a scheduler with two workers."""
    file = copy / "scheduler.json"
    with dask(copy, file, *SCHEDULER), dask(copy, file, *WORKERS):
        yield json.loads(file.read_text())["address"]


@pytest.fixture
def own(copy, monkeypatch):
    """The user's module, with its data and training known here, and the copy as this process's checkout."""
    monkeypatch.setattr(paths, "ROOT", copy)
    monkeypatch.setattr(paths, "CHECKPOINTS", copy / "checkpoints")
    monkeypatch.setattr(sets, "SOURCES", dict(sets.SOURCES))
    monkeypatch.setattr(defenses, "DEFENSES", dict(defenses.DEFENSES))
    monkeypatch.setattr(words, "_trainings", dict(words._trainings))
    monkeypatch.syspath_prepend(copy)
    own = importlib.import_module("own")
    own.prepare()
    return own


@pytest.fixture
def cluster(scheduler, own):
    return executors.cluster(scheduler)


def train(cluster, own, networks):
    checkpoints.train_all(networks, executor=cluster, device="cpu", prepare=own.prepare)


@contextmanager
def closed(*gates):
    """A block in which trainings wait at these gates."""
    for gate in gates:
        gate.touch()
    try:
        yield
    finally:
        for gate in gates:
            gate.unlink()


def weights(networks):
    return {one.key: (one.folder / "weights.pt").read_bytes() for one in networks}


# ---- trainings ---------------------------------------------------------------------------------------------------


def test_workers_give_the_serial_runs_bytes_though_one_is_killed(cluster, own, copy, tmp_path, monkeypatch, capfd):
    """It is killed in the second epoch; another one goes on with that epoch, so that no step is taken twice."""
    networks = [experiment(f"bytes{seed}", seed) for seed in range(4)]
    with monkeypatch.context() as serial:
        serial.setattr(paths, "CHECKPOINTS", tmp_path)
        serial.setattr(own, "HERE", tmp_path)
        for one in networks:
            checkpoints.trained(one, device="cpu", progress=False)
        expected = weights(networks)
    (steps,) = {len((tmp_path / f"bytes{seed}.steps").read_text()) for seed in range(4)}
    with ThreadPoolExecutor() as thread, closed(copy / f"bytes0.gate-{steps // 2}"):
        sweep = thread.submit(train, cluster, own, networks)
        child, worker = map(int, awaited(copy / "bytes0.waits").split())
        os.kill(worker, signal.SIGKILL)
        assert gone(child)
    sweep.result()
    assert weights(networks) == expected
    for seed in range(4):
        assert len((copy / f"bytes{seed}.steps").read_text()) == steps
    said = capfd.readouterr().err
    assert re.search(r"\d workers now; its dashboard: http://127.0.0.1:", said)
    assert re.search(r"\[\d/4\] noted, seed \d: done; 3 of 4, about [\d:]+ left\.", said)


def wanted(scheduler):
    """How many clients wait for each task of the scheduler."""
    with distributed.Client(scheduler, set_as_default=False) as client:
        return client.run_on_scheduler(
            lambda dask_scheduler: {key: len(task.who_wants) for key, task in dask_scheduler.tasks.items()}
        )


def test_what_two_clients_want_is_computed_once(cluster, own, copy, scheduler):
    networks = [experiment(f"twice{seed}", seed) for seed in range(2)]
    with ThreadPoolExecutor() as threads, closed(*(copy / f"twice{seed}.gate-0" for seed in range(2))):
        sweeps = [threads.submit(train, cluster, own, networks) for _ in range(2)]
        deadline = time.monotonic() + test_processes.LONG
        while (tasks := wanted(scheduler)) != dict.fromkeys(tasks, 2) or len(tasks) != 2:
            assert time.monotonic() < deadline, tasks
            time.sleep(0.1)
        assert {key.split("-")[1] for key in tasks} == {one.key for one in networks}
    for sweep in sweeps:
        sweep.result()
    assert len({len((copy / f"twice{seed}.steps").read_text()) for seed in range(2)}) == 1
    assert all(checkpoints.is_trained(one) for one in networks)


# ---- jobs that fail ----------------------------------------------------------------------------------------------


def test_jobs_fail_as_in_processes_of_one_machine(cluster, tmp_path, capfd):
    names = ("unlucky", "fatal", "wrong", "one")
    with pytest.raises(Refused, match="^2 of 4 failed, for the reasons above: (wrong; fatal|fatal; wrong)[.]$"):
        cluster.run(test_processes.note, {name: (tmp_path, name) for name in names})
    assert tries(tmp_path) == {"unlucky": 2, "fatal": 2, "wrong": 1, "one": 1}
    said = capfd.readouterr().err
    assert "\nwrong: this cannot be.\n" in said
    assert len(re.findall("unlucky: its process on tcp://.* died, as when memory runs out", said)) == 1
    assert len(re.findall("fatal: its process died again, on tcp://", said)) == 1


def test_a_fault_of_the_program_ends_all(cluster, tmp_path):
    jobs = {"other": (test_processes.forever, tmp_path / "other"), "fault": (test_processes.fails, tmp_path)}
    with pytest.raises(KeyError, match="no sentence") as fault:
        cluster.run(test_processes._call, jobs)
    assert "in fails" in fault.value.__notes__[0]  # where it happened, on the worker
    assert gone(int((tmp_path / "other").read_text()))


CLIENT = """
import sys
from pathlib import Path
from test_processes import forever
from paperlib import executors
executors.cluster(sys.argv[1]).run(forever, {sys.argv[2]: (Path(sys.argv[2]),)})
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_the_job_of_a_client_that_is_ended_ends(scheduler, copy, tmp_path, ending):
    command = [sys.executable, "-c", CLIENT, scheduler, str(tmp_path / "job")]
    with subprocess.Popen(command, cwd=copy, env=environment(PYTHONPATH=str(TESTS)), stderr=subprocess.DEVNULL) as it:
        job = int(awaited(tmp_path / "job"))
        it.send_signal(ending)
    assert gone(job)


def test_a_scheduler_that_is_killed_is_one_sentence(own, copy, tmp_path):
    light = importlib.import_module("light")

    with dask(copy, tmp_path / "file", *SCHEDULER) as process, ThreadPoolExecutor() as thread:
        address = json.loads((tmp_path / "file").read_text())["address"]
        jobs = {name: (tmp_path / name,) for name in ("a", "b")}
        sweep = thread.submit(executors.cluster(address).run, light.tell, jobs)  # there is no worker for them
        while len(wanted(address)) < 2:
            assert not sweep.done()
        process.kill()
        with pytest.raises(
            Refused, match=f"^The scheduler {address} has ended, or given up [ab]; what is done is kept"
        ):
            sweep.result()


# ---- what a job runs in ------------------------------------------------------------------------------------------


def told(cluster, folder, count=1):
    """What `count` jobs tell of their processes."""
    light = importlib.import_module("light")

    folder.mkdir()
    cluster.run(light.tell, {f"{folder.name}{i}": (folder / str(i),) for i in range(count)})
    return [eval(path.read_text()) for path in folder.iterdir()]


def test_a_job_has_the_clients_arithmetic_and_memory_settings(cluster, tmp_path, monkeypatch, capfd):
    """Not those that its worker was started with."""
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "4000000000")
    (job,) = told(cluster, tmp_path / "portable")
    assert job["arithmetic"] == "portable" and job["MALLOC_TRIM_THRESHOLD_"] == "4000000000"
    if arithmetic.is_exact():
        assert job["ATEN_CPU_CAPABILITY"] == "avx2"
    assert capfd.readouterr().out == "told 0\n"  # what a job prints is printed here
    monkeypatch.setattr(arithmetic, "current", lambda: "native")
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_")
    (job,) = told(cluster, tmp_path / "native")
    assert job["arithmetic"] == "native" and job["MALLOC_TRIM_THRESHOLD_"] is None
    assert job["ATEN_CPU_CAPABILITY"] == arithmetic.environment("native")["ATEN_CPU_CAPABILITY"]


def test_edited_code_is_loaded_anew(cluster, copy, tmp_path):
    def processes(folder):
        return {job["process"] for job in told(cluster, tmp_path / folder, 4)}

    first, second = processes("a"), processes("b")
    assert len(first | second) <= 2  # one for each worker, which lasts
    with (copy / "paperlib" / "words.py").open("a") as file:
        file.write("\n")
    assert not processes("c") & (first | second)


def test_a_worker_that_sees_another_store_is_refused(cluster, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path)
    with pytest.raises(Refused, match="1 of 1 failed"):
        told(cluster, tmp_path / "jobs")
    assert "checkpoints holds other networks on this host; mount one folder for all hosts" in capfd.readouterr().err
    assert not list((tmp_path / "jobs").iterdir())


# ---- the command line --------------------------------------------------------------------------------------------


def paperlib(copy, *arguments, **variables):
    command = [sys.executable, "-m", "paperlib", *arguments]
    variables = environment(PYTHONPATH=str(TESTS)) | variables
    return subprocess.run(command, cwd=copy, env=variables, capture_output=True, text=True)


def test_a_worker_executes_a_notebook(scheduler, copy):
    done = paperlib(copy, "run", "tab-simple", "--profile", "tiny", "--executor", "dask", "--scheduler", scheduler)
    assert done.returncode == 0, done.stderr
    assert "tab-simple: samples 3\n" in done.stdout
    assert "build/tiny/tab-simple.ipynb" in (copy / "build" / "tiny" / "tab-simple.done").read_text()
    failed = paperlib(copy, "run", "tab-failing", "--profile", "tiny", "--executor", "dask", "--scheduler", scheduler)
    assert failed.returncode == 2 and "Traceback" not in failed.stderr
    assert "notebooks/tab-failing.py: the cell 'raise ValueError(\"boom\")' failed: ValueError: boom." in failed.stderr
    assert not (copy / "build" / "tiny" / "tab-failing.done").exists()


@pytest.fixture
def silent_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:{port}", "nonsense", "http://127.0.0.1:{port}", "tcp://:a"])
def test_a_scheduler_that_does_not_answer_is_one_sentence(silent_port, address):
    address = address.format(port=silent_port)
    with pytest.raises(Refused, match=re.escape(f"No Dask scheduler answers at {address!r}: ")):
        executors.cluster(address)


def test_what_cannot_be_chosen_is_refused(monkeypatch):
    for name, sentence in (
        ("spark", "There is no executor 'spark'. Allowed: local, dask, slurm, pbs."),
        ("dask", "The executor dask needs the address of a scheduler, such as SCHEDULER=tcp://host:8786."),
    ):
        with pytest.raises(Refused) as refusal, executors.chosen(name, workers=1):
            pass
        assert str(refusal.value) == sentence
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(Refused, match=r"install them: pip install -c requirements.lock -e '.\[cluster\]'"):
        executors.cluster("tcp://127.0.0.1:1")


# ---- queueing systems --------------------------------------------------------------------------------------------

SBATCH = """#!/bin/sh
# As Slurm does, but at once and without its environment: starts the script, and says its number.
cd {folder}
n=$(ls | grep -c script)
n=$((n + 1))
cp "$1" script$n
env -i PATH="$PATH" HOME="$HOME" PYTHONDONTWRITEBYTECODE=1 setsid sh ./script$n >output$n 2>&1 </dev/null &
echo $! >process$n
echo "Submitted batch job $n"
"""
SCANCEL = """#!/bin/sh
echo "$1" >>{folder}/cancelled
kill -TERM -$(cat {folder}/process$1)
"""
REFUSING = "#!/bin/sh\necho 'sbatch: error: invalid partition specified: nope' >&2\nexit 1\n"
# the example of the docs, on two cores
JOBQUEUE = yaml.safe_load(re.search(r"^```yaml\n(jobqueue:.*?)^```", DOCS.read_text(), re.DOTALL | re.MULTILINE)[1])
JOBQUEUE = JOBQUEUE["jobqueue"]["slurm"] | {"cores": 2, "job-script-prologue": ["export MINE='it is'"]}
# a program in the place of make: it asks the scheduler's workers for two jobs
ASKING = """
import sys
from pathlib import Path
import light
from paperlib import executors
executor, scheduler = sys.argv[-2:]
assert executor == "EXECUTOR=dask"
address = scheduler.removeprefix("SCHEDULER=")
executors.cluster(address).run(light.tell, {name: (Path(sys.argv[1]) / name,) for name in ("a", "b")})
"""


@pytest.fixture
def slurm(tmp_path):
    """A function of the text of sbatch and of settings: the environment of a host that submits batch jobs."""

    def host(sbatch=SBATCH, **changes):
        for name, text in (("sbatch", sbatch), ("scancel", SCANCEL)):
            (tmp_path / "bin").mkdir(exist_ok=True)
            (tmp_path / "bin" / name).write_text(text.format(folder=tmp_path / "jobs"))
            (tmp_path / "bin" / name).chmod(0o755)
        (tmp_path / "jobs").mkdir()
        (tmp_path / "dask").mkdir()
        settings = {"jobqueue": {"slurm": JOBQUEUE | changes}}
        (tmp_path / "dask" / "jobqueue.yaml").write_text(yaml.safe_dump(settings))
        path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return {"PATH": path, "DASK_CONFIG": str(tmp_path / "dask"), "PYTHONPATH": f"{TESTS}"}

    return host


SLURM = ("cluster", "--executor", "slurm", "--profile", "tiny", "--jobs", "2", "--")


def test_slurm_brings_workers_and_gives_them_back(copy, tmp_path, slurm):
    command = (sys.executable, "-c", ASKING, str(tmp_path))
    done = paperlib(copy, *SLURM, *command, **slurm(), MALLOC_TRIM_THRESHOLD_="4000000000")
    assert done.returncode == 0, done.stderr
    told = [eval((tmp_path / name).read_text()) for name in ("a", "b")]
    assert all(job["MALLOC_TRIM_THRESHOLD_"] == "4000000000" for job in told)
    jobs = tmp_path / "jobs"
    scripts = sorted(path.read_text() for path in jobs.glob("script*"))
    assert len(scripts) == 1  # a batch job of two workers is enough for both jobs
    for script in scripts:
        assert "#SBATCH -t 01:00:00\n#SBATCH --constraint=avx2\n" in script and "#SBATCH -A my-project" in script
        assert "--nthreads 1 " in script and "--nworkers 2 " in script
        assert "--lifetime 55m --lifetime-stagger 4m" in script  # it ends before Slurm kills it
        prologue, worker = script.partition("dask_worker")[::2]
        lines = prologue.splitlines()
        assert {"export MINE='it is'", "export MALLOC_TRIM_THRESHOLD_=4000000000"} <= set(lines) and worker
        assert "export COMPANION_ARITHMETIC=portable" in lines and "export OMP_NUM_THREADS=1" in lines
    assert sorted((jobs / "cancelled").read_text().split()) == [str(i + 1) for i in range(len(scripts))]
    assert all(gone(int(path.read_text())) for path in jobs.glob("process*"))


@pytest.mark.parametrize(
    ("sbatch", "changes", "sentence"),
    [
        (
            REFUSING,
            {},
            "The executor slurm cannot submit a batch job: sbatch: error: invalid partition specified: nope",
        ),
        (SBATCH, {"memory": None}, "The executor slurm needs a batch job's cores and memory under jobqueue.slurm in "),
    ],
)
def test_a_queueing_system_that_takes_no_job_is_one_sentence(copy, slurm, sbatch, changes, sentence):
    done = paperlib(copy, *SLURM, "true", **slurm(sbatch, **changes))
    assert done.returncode == 2 and done.stderr.startswith(sentence) and done.stderr.count("\n") == 1, done.stderr


def test_a_host_without_a_queueing_system_is_refused(copy):
    done = paperlib(copy, *SLURM, "true", PATH="/nowhere")
    assert done.stderr == "The executor slurm needs the command sbatch, which is not on this host's PATH.\n"


# ---- make --------------------------------------------------------------------------------------------------------

# a program in the place of Python: it writes down what it is asked, and starts no cluster but the command after it
PROGRAM = """#!/bin/sh
printf '%s\\n' "$*" >>asked
case "$3" in
  train) touch build/tiny/trained ;;
  run) touch "build/tiny/$4.done" ;;
  draw) touch "build/tiny/$4.drawn" ;;
  report) touch build/tiny/report ;;
  cluster) while [ "$1" != -- ]; do shift; done; shift; MAKEFLAGS= exec "$@" EXECUTOR=dask SCHEDULER=tcp://host:1 ;;
esac
"""


def test_make_starts_one_cluster_and_sends_everything_to_it(copy, tmp_path):
    shutil.copy(TESTS.parent / "Makefile", tmp_path)
    shutil.copy(TESTS.parent / "requirements.lock", tmp_path)
    for folder in ("notebooks", "params"):
        shutil.copytree(copy / folder, tmp_path / folder)
    (tmp_path / "python").write_text(PROGRAM)
    (tmp_path / "python").chmod(0o755)
    names = {name for name in os.environ if name.startswith(("COMPANION_", "MAKE", "MFLAGS"))}
    clean = {name: value for name, value in os.environ.items() if name not in names}

    def make(*arguments):
        (tmp_path / "asked").write_text("")
        command = ["make", "reproduce", "PROFILE=tiny", "PYTHON=./python", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True)
        return done, (tmp_path / "asked").read_text().splitlines()

    done, asked = make("EXECUTOR=slurm", "JOBS=7")
    assert done.returncode == 0, done.stderr
    (started,) = [line for line in asked if line.startswith("-m paperlib cluster")]
    assert started.startswith("-m paperlib cluster --executor slurm --jobs 7 --profile tiny -- make ")
    assert " -j7 " in started
    there = " --executor dask --scheduler tcp://host:1"
    (trained,) = [line for line in asked if line.startswith("-m paperlib train ")]
    assert trained.endswith(there)
    (evaluated,) = [line for line in asked if line.startswith("-m paperlib evaluate ")]
    assert evaluated.endswith(there) and asked.index(evaluated) == asked.index(trained) + 1
    executed = sorted(line for line in asked if line.startswith("-m paperlib run "))
    assert executed == [f"-m paperlib run {name} --profile tiny{there}" for name in ("tab-failing", "tab-simple")]
    assert [line for line in asked if "report" in line] == ["-m paperlib report --profile tiny"]

    shutil.rmtree(tmp_path / "build")
    scheduler = "tcp://host:1; touch hacked $(touch hacked) it's"
    done, asked = make("EXECUTOR=dask", f"SCHEDULER={scheduler}")  # as many jobs as there are notebooks
    assert (
        f" --jobs 2 --device auto --executor dask --scheduler {scheduler}" in asked[0]
        and not (tmp_path / "hacked").exists()
    )

    done, asked = make("EXECUTOR=spark")
    assert done.returncode == 2 and asked == []
    assert done.stderr.splitlines()[0] == "There is no executor 'spark'. Allowed: " + " ".join(executors.NAMES) + "."
