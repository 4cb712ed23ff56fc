"""Evaluations: which samples each attack broke, cached on disk.

checkpoints/<key>/evaluations/<hash>.json      one character a sample for one attack: 1 right, 0 broken, ? not attacked

Nothing is attacked twice: an ensemble shows its next member the survivors of the earlier ones, and flags of the same
attack that are on disk are used.
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
from filelock import FileLock
from tqdm import tqdm

from paperlib import errors, files
from paperlib.attacks import evaluation
from paperlib.attacks.attack import Attack
from paperlib.attacks.ensembles import AnyAttack, Transfer, labels_of, members
from paperlib.attacks.evaluation import Judged, Outcome
from paperlib.data.sets import Split
from paperlib.networks.network import Network
from paperlib.store import checkpoints
from paperlib.store.experiment import Experiment, Imported

FIELDS = Outcome._fields[1:]  # what is kept of each sample
UNKNOWN = 2  # the flag of a sample that the attack was not shown


def size(experiment: Experiment | Imported, attack: AnyAttack) -> dict:
    """An attack's radius under the name of its unit: 1/255 of an image's range, counts of a frame, changed events.

    Clean samples have radius 0.
    """
    eps = 0.0 if attack is None else attack.eps
    if attack is not None and attack.norm == "l0":
        return {"flips": int(eps)}
    return {"eps_counts": round(eps, 6)} if experiment.is_of_events else {"eps_255": round(eps * 255, 6)}


@dataclass(frozen=True, kw_only=True)
class Evaluation(Judged):
    """A trained network under one attack."""

    experiment: Experiment | Imported

    @property
    def size(self) -> dict:
        """The attack's radius as rows carry it."""
        return size(self.experiment, self.attack)

    @property
    def labels(self) -> dict:
        """What a record's row says of it."""
        return self.experiment.labels | labels_of(self.attack) | self.size


def evaluated(
    networks: Iterable[Experiment | Imported],
    attacks: Sequence[AnyAttack] | Callable[[Experiment], Sequence[AnyAttack]],
    *,
    samples: int,
    split: str = "test",
    device: str = "auto",
    progress: bool = True,
) -> list[Evaluation]:
    """Every network under every attack on the first `samples` of `split`, loaded or computed and kept one by one.

    `attacks` may hold None for clean images; a function gives each network its own.  `split` is "test" or "validation".
    Interrupted, it goes on from the last attack, in large sets from the last thousand samples.
    """
    errors.refuse_while_planning("attacks")
    errors.one_of("split", split, ("test", "validation"))
    device, evaluations = checkpoints.resolve(device), []
    work = [(experiment, attacks(experiment) if callable(attacks) else attacks) for experiment in networks]
    with tqdm(total=sum(len(own) for _, own in work), desc="networks × attacks", disable=not progress) as bar:
        for experiment, own in work:
            store = _Store(experiment, samples=samples, split=split, device=device, progress=progress)
            for attack in own:
                evaluations.append(store.evaluation(attack))
                bar.update()
    return evaluations


def is_evaluated(experiment: Experiment | Imported, attack: AnyAttack, *, samples: int, split: str) -> bool:
    """Whether all is there that `evaluated` would need."""
    store = _Store(experiment, samples=samples, split=split, device="cpu", progress=False)
    return checkpoints.is_trained(experiment) and store.knows(attack)


class _Store:
    """The evaluations of one network on one set of samples."""

    def __init__(self, experiment: Experiment | Imported, *, samples: int, split: str, device: str, progress: bool):
        self.experiment, self.subset = experiment, {"samples": samples, "split": split}
        self.device, self.progress = device, progress
        self.networks: dict[str, Network] = {}

    def evaluation(self, attack: AnyAttack) -> Evaluation:
        """Loaded, or computed where something is missing."""
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
        """Whether nothing would have to be computed."""
        clean = self._kept(None)
        flags = self._standing(clean)
        missing = (clean["flags"] == UNKNOWN).any()
        for member in members(attack):
            known = self._kept(member)["flags"]
            missing |= (known[flags] == UNKNOWN).any()
            flags &= known == 1
        return not missing

    def _standing(self, clean: dict[str, np.ndarray]) -> np.ndarray:
        """Which samples there are to break, (N,) bool."""
        return evaluation.standing(self.experiment.is_stochastic, clean["flags"] == 1)

    def _known(self, attack: Attack | Transfer | None, wanted: np.ndarray) -> dict[str, np.ndarray]:
        """Each of `FIELDS`, (N,), under one attack, for the samples `wanted` at least, and the seconds it took."""
        path = self._path(attack)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):  # two notebooks may ask for the same flags at once
            known = self._kept(attack)
            missing = wanted & (known["flags"] == UNKNOWN)
            if not missing.any():
                return known
            started = time.perf_counter()
            for outcome in self._computed(attack, torch.from_numpy(missing)):
                for name in FIELDS:
                    known[name][outcome.rows.numpy()] = getattr(outcome, name).numpy()
                known["seconds"] += time.perf_counter() - started
                started = time.perf_counter()
                self._keep(attack, known)
        return known

    def _computed(self, attack: Attack | Transfer | None, missing: torch.Tensor) -> Iterator[Outcome]:
        batch_size = evaluation.batch_size(len(self.samples))
        source, network = None, self.network(self.experiment)
        if isinstance(attack, Transfer):
            attack, source = attack.attack, self.network(attack.source)
        if attack is None:
            flags = evaluation.flags(network, self.samples, batch_size=batch_size)
            nothing = torch.zeros(len(flags))
            return iter([Outcome(torch.arange(len(flags)), flags, nothing + 1, nothing, nothing, nothing)])
        return evaluation.attacked(network, self.samples, attack, missing, source=source, batch_size=batch_size)

    @cached_property
    def samples(self) -> Split:
        """Refuses more than there are."""
        return getattr(self.experiment.load_data(), self.subset["split"]).take(self.subset["samples"])

    def network(self, experiment: Experiment | Imported) -> Network:
        """Trained first, where it is not yet."""
        if experiment.key not in self.networks:
            self.networks[experiment.key] = checkpoints.trained(experiment, device=self.device, progress=self.progress)
        return self.networks[experiment.key]

    def _kept(self, attack: Attack | Transfer | None) -> dict[str, np.ndarray]:
        """The content of the file, if it is there, whole, of this attack and of these weights; else blank."""
        n = self.subset["samples"]
        with suppress(OSError, ValueError, TypeError, KeyError):  # not evaluated yet, or a damaged file: written anew
            content = json.loads(self._path(attack).read_text())
            flags = np.array(["01?".index(flag) for flag in content["flags"]])
            known = {name: np.array(content[name], dtype=float) for name in FIELDS[1:]} | {"flags": flags}
            known["seconds"] = np.array(float(content["seconds"]))
            whole = all(known[name].shape == (n,) for name in FIELDS)
            spec = json.loads(files.as_json(self._spec(attack) | {"weights_sha256": self._weights(attack)}))
            if whole and content | spec == content:
                return known
        blank = {name: np.zeros(n) for name in FIELDS}
        return blank | {"flags": np.full(n, UNKNOWN), "seconds": np.array(0.0)}

    def _keep(self, attack: Attack | Transfer | None, known: dict[str, np.ndarray]) -> None:
        flags = "".join("01?"[flag] for flag in known["flags"])
        values = {name: values.tolist() for name, values in known.items()} | {"flags": flags}
        content = self._spec(attack) | {"weights_sha256": self._weights(attack)} | values
        files.write_atomically(self._path(attack), files.as_json(content).encode())

    def _weights(self, attack: Attack | Transfer | None) -> list[str]:
        """Checksums of the networks that decide the flags."""
        networks = [self.experiment, *([attack.source] if isinstance(attack, Transfer) else [])]
        return [checkpoints.description(network)["weights_sha256"] for network in networks]

    def _spec(self, attack: Attack | Transfer | None) -> dict:
        """What determines the flags, apart from the weights."""
        if isinstance(attack, Transfer):
            return {"attack": asdict(attack.attack), "source": attack.source.key} | self.subset
        return {"attack": None if attack is None else asdict(attack)} | self.subset

    def _path(self, attack: Attack | Transfer | None) -> Path:
        return self.experiment.folder / "evaluations" / f"{files.hashed(self._spec(attack))}.json"
