"""Trained networks on disk.  A network is loaded if it is there; otherwise it is trained and kept.

checkpoints/<key>/weights.pt, checkpoint.json      a trained network; its experiment and checksums
checkpoints/<key>/history.jsonl                    a line for each epoch, also during the training
checkpoints/<key>/state.pt                         an unfinished training, after its last complete epoch
"""

import io
import json
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import RLock

import torch
from tqdm import tqdm

from paperlib import arithmetic, errors, files, paths
from paperlib.data import datasets
from paperlib.executors import Executor
from paperlib.networks.network import Network
from paperlib.store import released
from paperlib.store.experiment import AnyExperiment, Experiment, Imported, Opened
from paperlib.training import defenses, loop
from paperlib.training.loop import Schedule

DEVICES = ("auto", "cpu", "cuda", "mps")


class Damaged(errors.Refused):
    """The bytes of a checkpoint are not those that were written."""


def resolve(device: str) -> str:
    """The device to use; "auto" is the best one, and in portable arithmetic, which only a CPU has, the CPU.

    Refuses an unknown device, one that this machine lacks, and in portable arithmetic any but the CPU.
    """
    errors.one_of("device", device, DEVICES)
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    names = [name for name in available if available[name]]
    if device not in ("auto", *names):
        raise errors.Refused(f"Device {device!r} is not on this machine. Here: {', '.join(names)}.")
    if arithmetic.current() != arithmetic.NATIVE:
        if device not in ("auto", "cpu"):
            arithmetic.require(arithmetic.NATIVE, f"Device {device!r}")
        return "cpu"
    return names[0] if device == "auto" else device


def trained(experiment: AnyExperiment, *, device: str = "auto", progress: bool = True) -> Network:
    """The experiment's network in eval mode: loaded, or trained first.  An interrupted training resumes.

    The files of a damaged checkpoint are renamed to `*.damaged`, and the network is trained again.  Refuses another
    experiment's checkpoint or weights, data that have changed since, and imports that are missing or damaged.
    """
    errors.refuse_while_planning("trains")
    device, folder = resolve(device), experiment.folder
    with files.locked(folder / ".lease"):  # two processes may need the same network at once
        if not is_trained(experiment):
            _train(experiment, device, progress)
        try:
            return _load(experiment, device)
        except Damaged as damage:
            _refuse_imported(experiment, str(damage))
            damaged = [path for path in (folder / "weights.pt", folder / "checkpoint.json") if path.exists()]
            for path in damaged:
                path.replace(path.with_name(f"{path.name}.damaged"))
            names = ", ".join(f"{path.name}.damaged" for path in damaged)
            print(f"{damage} It will be trained again; the old files are kept as {names}.", file=sys.stderr)
            _train(experiment, device, progress)
            return _load(experiment, device)


def opened(experiments: Iterable[AnyExperiment], **options) -> Iterator[Opened]:
    """Each experiment with its network, by `trained`, one after another, so that only one is in memory."""
    return (Opened(experiment, trained(experiment, **options)) for experiment in experiments)


def in_folder(name: str) -> AnyExperiment:
    """The experiment of the finished checkpoint in the folder checkpoints/`name`, which must be its key."""
    folder = paths.CHECKPOINTS / name
    if not (folder / "checkpoint.json").exists():
        raise errors.Refused(f"{paths.shown(folder)} holds no checkpoint.json; name a folder there that does.")
    content = {"arithmetic": arithmetic.NATIVE} | _described(folder)["experiment"]
    try:
        if "schedule" in content:
            content["schedule"] = Schedule(**content["schedule"])
        experiment = Imported(**content) if "sha256" in content else Experiment(**content)
    except TypeError as problem:  # fields that are missing, or of a newer version
        raise errors.Refused(f"{paths.shown(folder)} describes no experiment of this version: {problem}.") from None
    if experiment.key != name:
        raise errors.Refused(f"{paths.shown(folder)} holds the checkpoint of {experiment.key}; rename it so.")
    return experiment


def import_released(source: Path, network: str, dataset: str, *, defense: str, data: dict) -> Imported:
    """Keep the released code's checkpoint in the file `source` beside our own; the rest are fields of `Imported`."""
    datasets.refuse_unknown(data["name"])
    loaded = released.load(source, network, dataset)
    imported = Imported(files.sha256(source.read_bytes()), network, dataset, defense, data)
    _keep(imported, loaded, data_sha256=None)
    return imported


def is_trained(experiment: AnyExperiment) -> bool:
    """Whether there is a finished checkpoint.  (Its checksum is compared when it is loaded.)"""
    return files.exists(experiment.folder / "checkpoint.json")


def train_all(
    experiments: Sequence[Experiment], *, executor: Executor, device: str = "auto", prepare: Callable | None = None
) -> None:
    """Train the missing networks by an executor, in processes of one thread each; a line an epoch on stderr.

    Each process first calls `prepare`, which may register a user's own trainings, networks and data sets.  One network
    that cannot be trained stops no other (see `executors.Executor`); complete epochs are kept.
    """
    errors.refuse_while_planning("trains")
    device, missing = resolve(device), [e for e in experiments if not is_trained(e)]
    print(f"{len(experiments)} networks: {len(experiments) - len(missing)} trained already, {len(missing)} to train.")
    for experiment in missing:
        _refuse_imported(experiment)
    if not missing:
        return
    tags = [f"[{i}/{len(missing)}]" for i in range(1, len(missing) + 1)]
    jobs = {e.key: (e, device, tag) for e, tag in zip(missing, tags, strict=True)}
    titles = {e.key: f"{tag} {e}" for e, tag in zip(missing, tags, strict=True)}
    executor.run(_train_quietly, jobs, titles=titles, prepare=partial(start_worker, prepare))


def copy_networks(experiments: Iterable[Experiment], source: Path, target: Path) -> int:
    """Copy the finished checkpoints of `experiments` that the folder `target` lacks; returns their number."""
    count = 0
    for experiment in experiments:
        old, new = source / experiment.key, target / experiment.key
        if (old / "checkpoint.json").exists() and not (new / "checkpoint.json").exists():
            for name in ("weights.pt", "history.jsonl", "checkpoint.json"):  # the last one says that it is complete
                if (old / name).exists():
                    files.write_atomically(new / name, (old / name).read_bytes())
            count += 1
    return count


def _refuse_imported(experiment: AnyExperiment, why: str = "There is no such network.") -> None:
    if isinstance(experiment, Imported):
        command = f"python -m paperlib import-released {experiment.defense}=FILE ..."
        raise errors.Refused(f"{experiment}: {why} None can be trained in its place; import the file: {command}")


def _train(experiment: AnyExperiment, device: str, progress: bool, tag: str = "") -> None:
    _refuse_imported(experiment)
    arithmetic.require(experiment.arithmetic, f"The training of {experiment}")
    network, data = experiment.build(), experiment.load_data()
    defense = defenses.build(experiment.defense, experiment.options)
    history, state = [], experiment.folder / "state.pt"
    options = {"seed": experiment.seed, "device": device, "state": state, "progress": progress}
    rows = loop.epochs(network, defense, data, experiment.schedule, **options)
    try:
        for row in rows:
            history.append(json.dumps(row) + "\n")
            files.write_atomically(experiment.folder / "history.jsonl", "".join(history).encode())
            tqdm.write(  # it writes above the progress bar
                f"{tag} {experiment}: epoch {row['epoch']}/{experiment.schedule.epochs}, loss {row['loss']:.3f}, "
                f"validation {row['validation_accuracy']:.1%}, {row['seconds']:.0f} s{_peak(row)}".strip(),
                file=sys.stderr,  # stdout is kept in a notebook, where it must not differ between runs
            )
    except errors.Refused as problem:
        raise errors.Refused(f"{experiment}: {problem}") from None
    if not is_trained(experiment):  # otherwise this one stood still, lost its lease, and somebody else was first
        _keep(experiment, network, data_sha256=data.sha256)
    files.remove(state)


def _peak(row: dict) -> str:
    return f", at most {row['peak_mb']:,.0f} MB" if "peak_mb" in row else ""


def _keep(experiment: AnyExperiment, network: Network, *, data_sha256: str | None) -> None:
    weights = loop.to_bytes({name: value.cpu() for name, value in network.state_dict().items()})
    content = {"experiment": experiment.content, "weights_sha256": files.sha256(weights), "data_sha256": data_sha256}
    # Both replace what is there, which may be what a killed training or other data left: linking them, so that the
    # first one stays, could join old weights to a new description.
    files.write_atomically(experiment.folder / "weights.pt", weights)
    files.write_atomically(experiment.folder / "checkpoint.json", json.dumps(content, indent=1).encode())


def start_worker(prepare: Callable[[], object] | None) -> None:
    """Prepare a process that trains or evaluates beside others; `prepare` is the caller's own."""
    torch.set_num_threads(1)  # on two cores, two processes with two threads each are many times slower
    tqdm.set_lock(RLock())  # tqdm's own lock is shared by all processes; a terminated one would never release it
    if prepare:
        prepare()


def _train_quietly(experiment: Experiment, device: str, tag: str) -> None:
    with files.locked(experiment.folder / ".lease"):
        if not is_trained(experiment):
            _train(experiment, device, progress=False, tag=tag)


def description(experiment: AnyExperiment) -> dict:
    """The content of a trained network's checkpoint.json."""
    return _described(experiment.folder)


def history(experiment: AnyExperiment) -> list[dict]:
    """A row for each epoch of a training (see `loop.epochs`), so far as it has come; empty where none is kept."""
    path = experiment.folder / "history.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _described(folder: Path) -> dict:
    """The content of a folder's checkpoint.json, which names the experiment and the checksums; or `Damaged`."""
    data = files.read(folder / "checkpoint.json")
    try:
        content = json.loads(data)
        kinds = {"experiment": dict, "weights_sha256": str, "data_sha256": str | None}
        if all(isinstance(content[name], kind) for name, kind in kinds.items()):
            return content
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise Damaged(f"{paths.shown(folder)}: checkpoint.json is damaged.")


def _load(experiment: AnyExperiment, device: str) -> Network:
    folder, shown, content = experiment.folder, paths.shown(experiment.folder), description(experiment)
    if content["experiment"] != json.loads(json.dumps(experiment.content)):
        raise errors.Refused(f"{shown} holds a checkpoint of another experiment: {content['experiment']}.")
    if content["data_sha256"] not in (None, experiment.load_data().sha256):
        remedy = "Restore the data, or delete the folder to train again."
        problem = f"{shown}: trained on other bytes of {experiment.data['name']} than are there now."
        raise errors.Refused(f"{problem} {remedy}")
    weights = files.read(folder / "weights.pt") if files.exists(folder / "weights.pt") else b""
    if files.sha256(weights) != content["weights_sha256"]:
        raise Damaged(f"{shown}: weights do not match their checksum (damaged file?).")
    network = experiment.build()
    try:
        network.load_state_dict(torch.load(io.BytesIO(weights), weights_only=True))
    except RuntimeError as problem:
        reason = " ".join(str(problem).split())
        raise errors.Refused(f"{shown} holds weights of another network than {experiment.network}: {reason}") from None
    except (pickle.UnpicklingError, TypeError, AttributeError):
        kind = "no state dict, or one with more than tensors"
        raise errors.Refused(f"{shown}: weights.pt holds {kind}; nothing in it was executed.") from None
    return network.to(device).eval()
