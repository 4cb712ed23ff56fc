"""Evaluations on disk: which samples each attack broke, and at what cost.

checkpoints/<key>/evaluations/<hash>.json      one attack; a character a sample: 1 right, 0 broken, ? not attacked;
                                               and the SHA-256 of all that, for one changed bit may change a table

No sample is attacked twice by the same attack.  A member of an ensemble is made on the survivors of the earlier members
only, flags that are on disk are read, and a `Beginning` is read off the file of its whole run.

Several processes, on several hosts, may compute parts of the samples at once.  Each adds its flags to the file under
the file's lease, so the file is replaced, and in the end holds what one process alone would have written; only the
seconds differ.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from paperlib import arithmetic, errors, files, paths
from paperlib.attacks import evaluation
from paperlib.attacks.attack import Attack
from paperlib.attacks.ensembles import AnyAttack, Beginning, Transfer, labels_of, members
from paperlib.attacks.evaluation import Judged, Outcome
from paperlib.data.sets import Split
from paperlib.networks.network import Network
from paperlib.store import checkpoints
from paperlib.store.experiment import AnyExperiment, Experiment

FIELDS = Outcome._fields[1:]  # values that are stored for each sample
UNKNOWN = 2  # flag of a sample that was not attacked


def size(experiment: AnyExperiment, attack: AnyAttack) -> dict:
    """The radius of an attack under the label of its unit: eps_255, eps_counts, flips or moves; 0 for clean samples.

    The units are 1/255 of an image's range, counts of a cell of a frame, changed events, and events moved in time.
    """
    eps = 0.0 if attack is None else attack.eps
    counted = {"l0": "flips", "moves": "moves"}.get(attack.norm) if attack is not None else None
    return {counted: int(eps)} if counted else radius(experiment, eps)


def radius(experiment: AnyExperiment, eps: float) -> dict:
    """A radius in l∞ or l2 under the label of its unit: eps_255 or eps_counts."""
    return {"eps_counts": round(eps, 6)} if experiment.is_of_events else {"eps_255": round(eps * 255, 6)}


@dataclass(frozen=True, kw_only=True)
class Evaluation(Judged):
    """A trained network under one attack."""

    experiment: AnyExperiment
    wide: np.ndarray | None = None  # flags (M,) of the first of two phases, on M samples that begin with these

    @property
    def size(self) -> dict:
        """The radius of the attack, as a label of a record's row."""
        return size(self.experiment, self.attack)

    @property
    def labels(self) -> dict:
        """The labels of a record's row: training, attack and radius."""
        return self.experiment.labels | labels_of(self.attack) | self.size


def evaluated(
    networks: Iterable[AnyExperiment],
    attacks: Sequence[AnyAttack] | Callable[[Experiment], Sequence[AnyAttack]],
    *,
    samples: int,
    split: str = "test",
    device: str = "auto",
    progress: bool = True,
) -> list[Evaluation]:
    """The evaluation of each network under each attack, on the first `samples` samples of `split`.

    Evaluations are read from disk, or computed and stored; networks are trained first where they are not yet.
    `attacks` holds None for clean images; if it is a function, it gives the attacks on an experiment.  `split` is
    "test" or "validation".  After an interruption, work continues after the last complete attack, and in large sets
    after the last complete thousand samples.  Refuses other splits, and to run while a notebook is planned.
    """
    errors.refuse_while_planning("attacks")
    errors.one_of("split", split, ("test", "validation"))
    device, evaluations = checkpoints.resolve(device), []
    pairs = [(experiment, attacks(experiment) if callable(attacks) else attacks) for experiment in networks]
    total = sum(len(attacks_) for _, attacks_ in pairs)
    with tqdm(total=total, desc="networks × attacks", disable=not progress) as bar:
        for experiment, attacks_ in pairs:
            arithmetic.require(experiment.arithmetic, f"The evaluation of {experiment}")
            store = _Store(experiment, samples=samples, split=split, device=device, progress=progress)
            for attack in attacks_:
                evaluations.append(store.evaluation(attack))
                bar.update()
    return evaluations


def evaluate_part(
    experiment: AnyExperiment, attack: AnyAttack, part: range, *, samples: int, split: str, device: str = "auto"
) -> None:
    """Compute what `evaluated` needs of the samples `part`, a range of places among the first `samples` of `split`.

    Parts may be computed in any order, at once and by several hosts, and `evaluated` then finds their flags.  They
    should begin at multiples of `evaluation.BATCH`: a batch of a `coupled` network that lies in two parts is attacked
    twice.  Clean samples (None) are not divided.  Refuses what `evaluated` refuses.
    """
    errors.refuse_while_planning("attacks")
    arithmetic.require(experiment.arithmetic, f"The evaluation of {experiment}")
    device = checkpoints.resolve(device)
    _Store(experiment, samples=samples, split=split, device=device, progress=False, part=part).evaluation(attack)


def is_evaluated(experiment: AnyExperiment, attack: AnyAttack, *, samples: int, split: str) -> bool:
    """Whether `evaluated` would neither train nor attack: the network and all flags that it needs are on disk."""
    store = _Store(experiment, samples=samples, split=split, device="cpu", progress=False)
    return checkpoints.is_trained(experiment) and store.knows(attack)


def stored(experiment: AnyExperiment, *, split: str) -> Iterator[tuple[Attack, np.ndarray]]:
    """Every attack on this network of which there are flags on disk, with the flags: 1 right, 0 broken, or `UNKNOWN`.

    The flags, (N,), are of the first N samples of `split`, where N differs.  A sample that left its ball is `UNKNOWN`.
    Files of other weights or of attacks that are not registered are left out.
    """
    weights = checkpoints.description(experiment)["weights_sha256"]
    for path in sorted((experiment.folder / "evaluations").glob("*.json")):
        with suppress(OSError, ValueError, TypeError, KeyError):  # a damaged file, or an attack that is not known here
            content, flags = _read(path)
            if content["attack"] and content["split"] == split and content["weights_sha256"][0] == weights:
                yield Attack(**content["attack"]), np.where(content["strayed"], UNKNOWN, flags)


class _Store:
    """The evaluations of one network on one set of samples, of which those in `part` are attacked; by default all."""

    def __init__(
        self,
        experiment: AnyExperiment,
        *,
        samples: int,
        split: str,
        device: str,
        progress: bool,
        part: range | None = None,
    ):
        self.experiment, self.subset = experiment, {"samples": samples, "split": split}
        self.device, self.progress = device, progress
        self.part = range(samples) if part is None else part
        self.networks: dict[str, Network] = {}

    def evaluation(self, attack: AnyAttack) -> Evaluation:
        """The evaluation under `attack`; flags that are not on disk are computed."""
        self.network(self.experiment)
        clean = self._known(None, np.ones(len(self.samples), dtype=bool))
        if attack is None:
            return Evaluation(None, clean["flags"] == 1, clean["forward"], experiment=self.experiment)
        flags = self._standing(clean)
        costs = {name: np.zeros(len(flags)) for name in FIELDS}
        for member in members(attack):
            known = self._known(member, flags)
            costs = {name: costs[name] + known[name] * flags for name in FIELDS}
            flags = flags & (known["flags"] == 1)
        return Evaluation(
            attack,
            flags,
            passes=costs["forward"] + costs["backward"],
            vanished=float(costs["vanished"].sum() / max(costs["backward"].sum(), 1)),
            strayed=int(costs["strayed"].sum()),
            stochastic=self.experiment.is_stochastic,
            experiment=self.experiment,
        )

    def knows(self, attack: AnyAttack) -> bool:
        """Whether all flags that `evaluation` needs are on disk."""
        clean = self._kept(None)
        flags = self._standing(clean)
        missing = (clean["flags"] == UNKNOWN).any()
        for member in members(attack):
            known = self._kept(member)["flags"]
            missing |= (known[flags] == UNKNOWN).any()
            flags &= known == 1
        return not missing

    def _standing(self, clean: dict[str, np.ndarray]) -> np.ndarray:
        """The samples that an attack has to break, (N,) bool."""
        within = np.zeros(self.subset["samples"], dtype=bool)
        within[self.part.start : self.part.stop] = True
        return evaluation.standing(self.experiment.is_stochastic, clean["flags"] == 1) & within

    def _known(self, attack: Attack | Transfer | None, wanted: np.ndarray) -> dict[str, np.ndarray]:
        """Each of `FIELDS`, (N,), and "seconds", for one attack; flags are known at least for the samples `wanted`."""
        if isinstance(attack, Beginning):
            return _cut(self._known(attack.whole, wanted), attack.options["steps"])
        known = self._kept(attack)
        if not (wanted & (known["flags"] == UNKNOWN)).any():
            return known
        with files.locked(self._lease(attack, f".{self.part.start}-{self.part.stop}")):  # two may need the same part
            known = self._kept(attack)
            missing = wanted & (known["flags"] == UNKNOWN)
            started = time.perf_counter()
            for outcome in self._computed(attack, torch.from_numpy(missing)) if missing.any() else ():
                for name in FIELDS:
                    known[name][outcome.rows.numpy()] = getattr(outcome, name).numpy()
                self._add(attack, known, time.perf_counter() - started)
                started = time.perf_counter()
        return known

    def _add(self, attack: Attack | Transfer | None, known: dict[str, np.ndarray], seconds: float) -> None:
        """Write the file of one attack with `known`, which also receives what others have computed meanwhile."""
        with files.locked(self._lease(attack)):
            theirs = self._kept(attack)
            unknown = known["flags"] == UNKNOWN
            for name in FIELDS:
                known[name] = np.where(unknown, theirs[name], known[name])
            known["seconds"] = theirs["seconds"] + seconds
            self._keep(attack, known)

    def _computed(self, attack: Attack | Transfer | None, missing: torch.Tensor) -> Iterator[Outcome]:
        """The outcomes of one attack on the samples `missing`, (N,) bool; on all samples for clean images."""
        source, network = None, self.network(self.experiment)
        if isinstance(attack, Transfer):
            attack, source = attack.attack, self.network(attack.source)
        if attack is None:
            flags = evaluation.flags(network, self.samples)
            nothing = torch.zeros(len(flags))
            return iter([Outcome(torch.arange(len(flags)), flags, nothing + 1, nothing, nothing, nothing)])
        return evaluation.attacked(network, self.samples, attack, missing, source=source)

    @cached_property
    def samples(self) -> Split:
        """The samples; refuses a number that the split does not have."""
        return getattr(self.experiment.load_data(), self.subset["split"]).take(self.subset["samples"])

    def network(self, experiment: AnyExperiment) -> Network:
        """The network of an experiment, trained first where it is not yet."""
        if experiment.key not in self.networks:
            self.networks[experiment.key] = checkpoints.trained(experiment, device=self.device, progress=self.progress)
        return self.networks[experiment.key]

    def _kept(self, attack: Attack | Transfer | None) -> dict[str, np.ndarray]:
        """Each of `FIELDS`, (N,), and "seconds", from the file of one attack.

        All flags are `UNKNOWN` if there is no file, if it is damaged, or if it is of other weights.  A file without a
        checksum, as older versions wrote, counts as damaged.
        """
        if isinstance(attack, Beginning):
            return _cut(self._kept(attack.whole), attack.options["steps"])
        n = self.subset["samples"]
        unknown = {name: np.zeros(n) for name in FIELDS}
        unknown |= {"flags": np.full(n, UNKNOWN), "seconds": np.array(0.0)}
        if not files.exists(self._path(attack)):
            return unknown
        with suppress(OSError, ValueError, TypeError, KeyError):  # a damaged file, which is replaced
            content, flags = _read(self._path(attack))
            known = {name: np.array(content[name], dtype=float) for name in FIELDS[1:]} | {"flags": flags}
            known["seconds"] = np.array(float(content["seconds"]))
            complete = all(known[name].shape == (n,) for name in FIELDS)
            spec = json.loads(files.as_json(self._spec(attack) | {"weights_sha256": self._weights(attack)}))
            if complete and content | spec == content:
                return known
        return unknown

    def _keep(self, attack: Attack | Transfer | None, known: dict[str, np.ndarray]) -> None:
        """Write the file of one attack."""
        flags = "".join("01?"[flag] for flag in known["flags"])
        values = {name: values.tolist() for name, values in known.items()} | {"flags": flags}
        content = files.plain(self._spec(attack) | {"weights_sha256": self._weights(attack)} | values)
        content |= {"sha256": _checksum(content)}
        files.write_atomically(self._path(attack), files.as_json(content).encode())

    def _weights(self, attack: Attack | Transfer | None) -> list[str]:
        """Checksums of the networks that the flags depend on."""
        networks = [self.experiment, *([attack.source] if isinstance(attack, Transfer) else [])]
        return [checkpoints.description(network)["weights_sha256"] for network in networks]

    def _spec(self, attack: Attack | Transfer | None) -> dict:
        """Everything that determines the flags, except the weights."""
        if isinstance(attack, Transfer):
            return {"attack": asdict(attack.attack), "source": attack.source.key} | self.subset
        return {"attack": None if attack is None else asdict(attack)} | self.subset

    def _path(self, attack: Attack | Transfer | None) -> Path:
        return self.experiment.folder / "evaluations" / f"{files.hashed(self._spec(attack))}.json"

    def _lease(self, attack: Attack | Transfer | None, part: str = "") -> Path:
        return self._path(attack).with_suffix(f"{part}.lease")


def _read(path: Path) -> tuple[dict, np.ndarray]:
    """The content of one attack's file, and its flags (N,); a damaged file raises ValueError, TypeError or KeyError."""
    try:
        content = json.loads(files.read(path))
    except RecursionError:
        raise ValueError(f"{paths.shown(path)} is nested too deeply") from None
    if content["sha256"] != _checksum(content):
        raise ValueError(f"{paths.shown(path)} has another checksum")
    return content, np.array(["01?".index(flag) for flag in content["flags"]])


def _checksum(content: dict) -> str:
    """The SHA-256 of an evaluation's content, in types of JSON, without the checksum itself."""
    others = {name: value for name, value in content.items() if name != "sha256"}
    return files.sha256(json.dumps(others, sort_keys=True).encode())


def _cut(known: dict[str, np.ndarray], steps: int) -> dict[str, np.ndarray]:
    """What a run of `steps` steps gives, from a run that went on for two or more until each sample was misclassified.

    A sample that is misclassified at iterate k has cost k + 1 gradients.  Where a gradient vanishes the sample stays in
    its place, so all later ones vanish, too.
    """
    backward = np.minimum(known["backward"], steps)
    flags = np.where((known["flags"] == 0) & (known["backward"] > steps + 1), 1, known["flags"])
    vanished = np.maximum(known["vanished"] - (known["backward"] - backward), 0)
    costs = {"forward": np.where(known["forward"] > 0, backward + 1, 0), "backward": backward, "vanished": vanished}
    return known | {"flags": flags} | costs
