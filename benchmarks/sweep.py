"""What an executor costs: sweeps of simulated experiments, beside the shortest training of the profile "laptop".

    python benchmarks/sweep.py [COUNT ...]

A simulated experiment is a real one but for its training: it has a key, asks whether it is done, takes the lease, asks
again, and keeps a description.  What is left is the cost of distributing it.  Written are benchmarks/sweep.json,
docs/_static/sweep.png and the table of docs/sweep.md.  All that is compared is measured in one run.
"""

import paperlib  # noqa: F401  before numpy and torch, for it settles the arithmetic

# isort: split
import io
import json
import logging
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import replace
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from rendering import into_page
from tqdm import tqdm

from paperlib import artifacts, executors, files, paths, profiles
from paperlib.executors import Executor
from paperlib.runs import plan
from paperlib.store import checkpoints
from paperlib.store.experiment import Experiment

COUNTS = (10, 100, 1_000, 10_000)
WORKERS = 2
SHARE = 0.01  # of the shortest training, which an experiment of a sweep of `MARK` may cost at most
MARK = 1_000
ROOT = paths.ROOT
RECORD, FIGURE = ROOT / "benchmarks" / "sweep.json", ROOT / "docs" / "_static" / "sweep.png"
PAGE = ROOT / "docs" / "sweep.md"
TITLES = {"local": "processes of this machine", "dask": "a local Dask cluster"}
COLOURS = {"local": "#6a51a3", "dask": "#41ab5d"}


def simulate(experiment: Experiment) -> None:
    """A training that takes no time: all that `checkpoints` does around it."""
    with files.locked(experiment.folder / ".lease"):
        if not checkpoints.is_trained(experiment):
            files.write_atomically(experiment.folder / "checkpoint.json", json.dumps(experiment.content).encode())


def use(root: Path) -> None:
    """Make this process keep networks under `root`."""
    paths.ROOT, paths.CHECKPOINTS = root, root / "checkpoints"


def ready(root: Path) -> None:
    """The same for a process of an executor, which leaves a file when it is ready."""
    use(root)
    (root / f"ready-{os.getpid()}").touch()


def sweep(executor: Executor, experiment: Experiment, count: int, root: Path) -> dict[str, float]:
    """Seconds of a sweep of `count` simulated experiments until the last process is ready ("start"), and then ("rest").

    The first part is mostly that processes start and load torch; it does not grow with `count`.  "done" is the number
    of experiments that the second part has done.
    """
    begun = time.time()
    missing = [one for seed in range(count) if not checkpoints.is_trained(one := replace(experiment, seed=seed))]
    jobs = {one.key: (one,) for one in missing}
    with redirect_stderr(io.StringIO()):  # a line for each job
        executor.run(simulate, jobs, titles={one.key: str(one) for one in missing}, prepare=partial(ready, root))
    ended = time.time()
    finished = [(one.folder / "checkpoint.json").stat().st_mtime for one in missing]
    if len(finished) != count:
        raise RuntimeError(f"{len(finished)} of {count} experiments were done")
    last = max(file.stat().st_mtime for file in root.glob("ready-*"))
    return {"start": last - begun, "rest": ended - last, "done": sum(at >= last for at in finished)}


def overhead(seconds: dict[str, float], workers: int) -> float:
    """Seconds of a worker that an experiment costs once all processes are ready."""
    return seconds["rest"] * workers / seconds["done"]


@contextmanager
def own_store() -> Iterator[Path]:
    """A folder of its own for networks."""
    before = paths.ROOT, paths.CHECKPOINTS
    root = Path(tempfile.mkdtemp())
    try:
        (root / "checkpoints").mkdir()
        use(root)
        yield root
    finally:
        paths.ROOT, paths.CHECKPOINTS = before
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def dask_cluster() -> Iterator[Executor]:
    """An executor with a Dask cluster of `WORKERS` worker processes of one thread."""
    from distributed import LocalCluster

    options = {"n_workers": WORKERS, "threads_per_worker": 1, "memory_limit": 0}
    with LocalCluster(**options, dashboard_address=":0", silence_logs=logging.ERROR) as cluster:
        yield executors.cluster(cluster.scheduler_address)


def shortest() -> Experiment:
    """The experiment of "laptop" whose committed training took the fewest seconds."""

    def seconds(experiment: Experiment) -> float:
        history = paths.RESULTS / "laptop" / "networks" / experiment.key / "history.jsonl"
        return sum(json.loads(line)["seconds"] for line in history.read_text().splitlines())

    kept = {path.parent.name for path in (paths.RESULTS / "laptop" / "networks").glob("*/history.jsonl")}
    return min((one for one in plan.of(profiles.load("laptop")).networks if one.key in kept), key=seconds)


def training(experiment: Experiment) -> float:
    """Seconds of a training on one thread, in this process."""
    experiment.load_data()
    with own_store():
        started = time.perf_counter()
        checkpoints.trained(experiment, device="cpu", progress=False)
        return time.perf_counter() - started


def measure(counts: list[int]) -> Iterator[dict]:
    """The record after each sweep, smaller ones first; the executors take turns."""
    experiment = shortest()
    checkpoints.start_worker(None)
    training(experiment)  # the first one warms up
    trainings, sweeps = [training(experiment)], []
    kinds: dict[str, Callable] = {"local": lambda: nullcontext(executors.local(WORKERS)), "dask": dask_cluster}
    pairs = [(count, name) for count in counts for name in kinds]
    for count, name in tqdm(pairs, desc="sweeps"):
        with own_store() as root, kinds[name]() as executor:
            seconds = sweep(executor, experiment, count, root)
        sweeps.append({"executor": name, "count": count} | seconds)
        trainings.append(training(experiment))
        yield {
            "machine": {"processor": _processor(), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
            "workers": WORKERS,
            "training": {"experiment": str(experiment), "epochs": experiment.schedule.epochs, "seconds": trainings},
            "sweeps": sweeps,
        }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def shares(record: dict) -> dict[str, dict[int, float]]:
    """Executor → number of experiments → what each costs, as a share of the fastest of the timed trainings."""
    shortest_training, found = min(record["training"]["seconds"]), {}
    for one in record["sweeps"]:
        found.setdefault(one["executor"], {})[one["count"]] = overhead(one, record["workers"]) / shortest_training
    return found


def table(record: dict) -> str:
    """The machine, and a line of Markdown for each sweep."""
    seconds, machine = record["training"]["seconds"], record["machine"]
    fastest, median = min(seconds), statistics.median(seconds)
    lines = [
        f"{machine['processor']}, {machine['cores']} cores. Of {len(seconds)} trainings the fastest took "
        f"{fastest:.2f} s, the median {median:.2f} s, the slowest {max(seconds):.2f} s.",
        "",
        "| executor | experiments | timed | a worker's time for each | of the fastest training | of their median |",
        "|---|---|---|---|---|---|",
    ]
    for one in record["sweeps"]:
        each = overhead(one, record["workers"])
        lines.append(
            f"| {TITLES[one['executor']]} | {one['count']:,} | {one['done']:,} | {1000 * each:,.1f} ms "
            f"| {100 * each / fastest:.2f} % | {100 * each / median:.2f} % |"
        )
    return "\n".join(lines)


def draw(record: dict) -> Figure:
    """The cost of an experiment against the number of experiments in a sweep."""
    figure, ax = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
    found = shares(record)
    for name, values in found.items():
        ax.plot(list(values), [100 * value for value in values.values()], "o-", color=COLOURS[name], label=TITLES[name])
    ax.axhline(100 * SHARE, color="#555555", linestyle=":", label=f"aim at {MARK:,} experiments: {SHARE:.0%}")
    ax.set(
        xscale="log", yscale="log", xlabel="experiments in a sweep", ylabel="overhead per experiment,\n% of a training"
    )
    costs = [f"{values[MARK]:.1%} ({name})" for name, values in found.items() if MARK in values]
    if costs:
        ax.set_title(f"One of {MARK:,} experiments costs {', '.join(costs)} of a training", fontsize=11)
    ax.legend(frameon=False)
    return figure


def main() -> None:
    """Measure, and write the record and the figure."""
    for record in measure([int(count) for count in sys.argv[1:]] or list(COUNTS)):
        files.write_atomically(RECORD, files.as_json(record).encode())
        picture = io.BytesIO()
        draw(record).savefig(picture, format="png", dpi=artifacts.DPI, metadata={"Software": None})
        files.write_atomically(FIGURE, picture.getvalue())
        into_page(table(record), PAGE, "sweeps")
    for name, values in shares(record).items():
        for count, share in values.items():
            print(f"{TITLES[name]}, {count:,} experiments: {share:.2%} of a training each")


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = os.pathsep.join(  # for the processes of both executors
        filter(None, [str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH")])
    )
    import sweep  # so that other processes find `simulate` and `use` in a module

    sweep.main()
