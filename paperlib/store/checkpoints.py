"""Trained networks on disk: a network is loaded, or trained and kept where it is not there yet.

checkpoints/<key>/weights.pt, checkpoint.json      a trained network, its experiment and checksums
checkpoints/<key>/history.jsonl                    a line an epoch, from the first on
checkpoints/<key>/state.pt                         an unfinished training, after its last whole epoch
"""

import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import active_children, get_context
from pathlib import Path
from threading import RLock

import torch
from filelock import FileLock
from tqdm import tqdm

from paperlib import errors, files, paths
from paperlib.data import datasets
from paperlib.networks.network import Network
from paperlib.store import released
from paperlib.store.experiment import Experiment, Imported, Opened
from paperlib.training import defenses, loop
from paperlib.training.loop import Schedule

DEVICES = ("auto", "cpu", "cuda", "mps")


class Damaged(errors.Refused):
    """A checkpoint whose bytes are not those that were written."""


def resolve(device: str) -> str:
    """The device to use: "auto" takes the best there is; refuses an unknown one and one this machine lacks."""
    errors.one_of("device", device, DEVICES)
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there[device]:
        raise errors.Refused(
            f"Device {device!r} is not on this machine. Here: {', '.join(d for d in there if there[d])}."
        )
    return device


def trained(experiment: Experiment | Imported, *, device: str = "auto", progress: bool = True) -> Network:
    """The experiment's network in eval mode: loaded, or trained first (resuming where it was interrupted).

    A damaged checkpoint is named, set aside as `*.damaged` and trained again.
    """
    errors.refuse_while_planning("trains")
    device, folder = resolve(device), experiment.folder
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):  # two notebooks may ask for the same network at once
        if not is_trained(experiment):
            _train(experiment, device, progress)
        try:
            return _load(experiment, device)
        except Damaged as damage:
            _refuse_imported(experiment, str(damage))
            aside = [path for path in (folder / "weights.pt", folder / "checkpoint.json") if path.exists()]
            for path in aside:
                path.replace(path.with_name(path.name + ".damaged"))
            names = ", ".join(f"{path.name}.damaged" for path in aside)
            print(f"{damage} It will be trained again; the old files are kept as {names}.", file=sys.stderr)
            _train(experiment, device, progress)
            return _load(experiment, device)


def opened(
    experiments: Iterable[Experiment | Imported], *, device: str = "auto", progress: bool = True
) -> Iterator[Opened]:
    """Each experiment with its network (see `trained`), one after another, so that one network is in memory."""
    for experiment in experiments:
        yield Opened(experiment, trained(experiment, device=device, progress=progress))


def in_folder(name: str) -> Experiment | Imported:
    """The experiment of the finished checkpoint in checkpoints/`name`; refuses a folder that holds none."""
    folder = paths.CHECKPOINTS / name
    if not (folder / "checkpoint.json").exists():
        raise errors.Refused(f"{paths.shown(folder)} holds no checkpoint.json; name a folder there that does.")
    content = json.loads((folder / "checkpoint.json").read_text())["experiment"]
    if "sha256" in content:
        experiment = Imported(**content)
    else:
        experiment = Experiment(**content | {"schedule": Schedule(**content["schedule"])})
    if experiment.key != name:
        raise errors.Refused(f"{paths.shown(folder)} holds the checkpoint of {experiment.key}; rename it so.")
    return experiment


def import_released(source: Path, network: str, dataset: str, *, defense: str, data: dict) -> Imported:
    """Keep a checkpoint of the released code beside our own; refuses the files that `released.load` refuses."""
    datasets.refuse_unknown(data["name"])
    loaded = released.load(source, network, dataset)
    imported = Imported(files.sha256(source.read_bytes()), network, dataset, defense, data)
    _keep(imported, loaded, data_sha256=None)
    return imported


def is_trained(experiment: Experiment | Imported) -> bool:
    """Whether a finished checkpoint is there (its checksum is verified when it is loaded)."""
    return (experiment.folder / "checkpoint.json").exists()


def train_all(
    experiments: Sequence[Experiment],
    *,
    workers: int,
    device: str = "auto",
    prepare: Callable[[], object] | None = None,
) -> None:
    """Train the missing networks, `workers` processes of one thread each side by side; a line an epoch on stderr.

    Each worker calls `prepare` first, which may register trainings, networks and data of a user's own.
    """
    device, missing = resolve(device), [e for e in experiments if not is_trained(e)]
    print(f"{len(experiments)} networks: {len(experiments) - len(missing)} trained already, {len(missing)} to train.")
    for experiment in missing:
        _refuse_imported(experiment)
    if not missing:
        return
    context = get_context("spawn")  # a forked torch may deadlock
    with ProcessPoolExecutor(min(workers, len(missing)), context, _start_worker, (prepare,)) as pool:
        jobs = [pool.submit(_train_quietly, e, device, f"[{i}/{len(missing)}]") for i, e in enumerate(missing, 1)]
        try:
            for job in as_completed(jobs):
                job.result()
        except BaseException:
            for worker in active_children():  # else they would finish what they train; whole epochs are kept
                worker.terminate()
            pool.shutdown(cancel_futures=True)
            raise


def copy_networks(experiments: Iterable[Experiment], source: Path, target: Path) -> int:
    """Copy finished checkpoints (weights and what describes them) between folders; returns how many there were."""
    copied = 0
    for experiment in experiments:
        here, there = source / experiment.key, target / experiment.key
        if (here / "checkpoint.json").exists() and not (there / "checkpoint.json").exists():
            for name in ("weights.pt", "history.jsonl", "checkpoint.json"):
                if (here / name).exists():
                    files.write_atomically(there / name, (here / name).read_bytes())
            copied += 1
    return copied


def _refuse_imported(experiment: Experiment | Imported, why: str = "There is no such network.") -> None:
    if isinstance(experiment, Imported):
        command = f"python -m paperlib import-released {experiment.defense}=FILE ..."
        raise errors.Refused(f"{experiment}: {why} None can be trained in its place; import the file: {command}")


def _train(experiment: Experiment | Imported, device: str, progress: bool, tag: str = "") -> None:
    _refuse_imported(experiment)
    network, data = experiment.build(), experiment.load_data()
    defense = defenses.build(experiment.defense, experiment.options)
    state = experiment.folder / "state.pt"
    history, seed = [], experiment.seed
    rows = loop.epochs(
        network, defense, data, experiment.schedule, seed=seed, device=device, state=state, progress=progress
    )
    try:
        for row in rows:
            history.append(json.dumps(row) + "\n")
            files.write_atomically(experiment.folder / "history.jsonl", "".join(history).encode())
            tqdm.write(  # above the bar, not behind it
                f"{tag} {experiment}: epoch {row['epoch']}/{experiment.schedule.epochs}, loss {row['loss']:.3f}, "
                f"validation {row['validation_accuracy']:.1%}, {row['seconds']:.0f} s".strip(),
                file=sys.stderr,  # a notebook keeps its stdout, which must not differ from run to run
            )
    except errors.Refused as problem:
        raise errors.Refused(f"{experiment}: {problem}") from None
    _keep(experiment, network, data_sha256=data.sha256)
    state.unlink(missing_ok=True)


def _keep(experiment: Experiment | Imported, network: Network, *, data_sha256: str | None) -> None:
    weights = loop.to_bytes({name: value.cpu() for name, value in network.state_dict().items()})
    content = {
        "experiment": experiment.content,
        "weights_sha256": files.sha256(weights),
        "data_sha256": data_sha256,  # what it was trained on; None where that is not known
    }
    experiment.folder.mkdir(parents=True, exist_ok=True)
    files.write_atomically(experiment.folder / "weights.pt", weights)
    files.write_atomically(experiment.folder / "checkpoint.json", json.dumps(content, indent=1).encode())


def _start_worker(prepare: Callable[[], object] | None) -> None:
    torch.set_num_threads(1)  # two processes with two threads each are many times slower on two cores
    tqdm.set_lock(RLock())  # its own lock spans processes, and a worker that is ended would leave it behind
    if prepare:
        prepare()


def _train_quietly(experiment: Experiment, device: str, tag: str) -> None:
    with FileLock(experiment.folder / ".lock"):
        if not is_trained(experiment):
            _train(experiment, device, progress=False, tag=tag)


def description(experiment: Experiment | Imported) -> dict:
    """The content of a trained network's checkpoint.json."""
    try:
        return json.loads((experiment.folder / "checkpoint.json").read_text())
    except ValueError:
        raise Damaged(f"{paths.shown(experiment.folder)}: checkpoint.json is damaged.") from None


def _load(experiment: Experiment, device: str) -> Network:
    folder = experiment.folder
    content = description(experiment)
    if content["experiment"] != json.loads(json.dumps(experiment.content)):
        raise errors.Refused(
            f"{paths.shown(folder)} holds a checkpoint of another experiment: {content['experiment']}."
        )
    if content["data_sha256"] not in (None, experiment.load_data().sha256):
        raise errors.Refused(
            f"{paths.shown(folder)}: trained on other bytes of {experiment.data['name']} than are there "
            "now. Restore the data, or delete the folder to train again."
        )
    weights = (folder / "weights.pt").read_bytes() if (folder / "weights.pt").exists() else b""
    if files.sha256(weights) != content["weights_sha256"]:
        raise Damaged(f"{paths.shown(folder)}: weights do not match their checksum (damaged file?).")
    network = experiment.build()
    try:
        network.load_state_dict(torch.load(io.BytesIO(weights), weights_only=True))
    except RuntimeError as problem:
        reason = " ".join(str(problem).split())
        raise errors.Refused(
            f"{paths.shown(folder)} holds weights of another network than {experiment.network}: {reason}"
        ) from None
    return network.to(device).eval()
