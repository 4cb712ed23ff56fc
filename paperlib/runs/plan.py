"""The plan of a profile: every training and evaluation that its notebooks ask for.

A notebook names them in one cell, which is tagged `asks`, by `run.ask`.  The plan executes this cell with the
notebook's parameters, and no other cell.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from paperlib import errors, files, labels, paths, profiles, words
from paperlib.attacks.ensembles import AnyAttack, Transfer, members
from paperlib.data import datasets
from paperlib.profiles import Profile, parameters
from paperlib.profiles.selections import once
from paperlib.runs.run import Request, Run
from paperlib.store import evaluations
from paperlib.store.evaluations import is_evaluated
from paperlib.store.experiment import AnyExperiment, Imported
from paperlib.training import defenses
from paperlib.training.loop import passes

TAG = "asks"


@dataclass(frozen=True)
class Planned:
    """The evaluation of one network under one attack (None: clean samples)."""

    experiment: AnyExperiment
    attack: AnyAttack
    samples: int
    split: str

    @property
    def key(self) -> str:
        """A name that no other evaluation has: the network's key, and a hash of the rest."""
        return f"{self.experiment.key}-{files.hashed([repr(self.attack), self.samples, self.split])}"

    @property
    def is_there(self) -> bool:
        """Whether it is on disk already."""
        return is_evaluated(self.experiment, self.attack, samples=self.samples, split=self.split)

    def __str__(self) -> str:
        attack = labels.CLEAN
        if self.attack is not None:
            attack = f"{self.attack.title} at {words.radius(evaluations.size(self.experiment, self.attack))}"
        kind = "recordings" if self.experiment.is_of_events else "images"
        return f"{attack}, {self.samples} {self.split} {kind}"


@dataclass(frozen=True)
class Plan:
    """Everything that the notebooks of a profile ask for, each once."""

    profile: Profile
    networks: list[AnyExperiment]  # the costliest trainings first
    evaluations: list[Planned]  # clean samples before attacks on a network


def of(profile: Profile) -> Plan:
    """The plan of a profile: executes the cell `asks` of every notebook.

    Refuses what `requests` refuses, and parameters that ask for more samples than the data have.
    """
    asked: list[AnyExperiment] = []
    sources: list[AnyExperiment] = []  # networks on which transferred examples are made
    unique: dict[str, Planned] = {}
    for request in _all_requests(profile):
        asked += request.networks
        for experiment, attack in _evaluations(request):
            sources += [member.source for member in members(attack) if isinstance(member, Transfer)]
            planned = Planned(experiment, attack, request.samples, request.split)
            unique.setdefault(planned.key, planned)
    return Plan(profile, sorted(once(asked + sources), key=_passes, reverse=True), list(unique.values()))


def requests(profile: Profile, artifact: str) -> list[Request]:
    """What one notebook asks for with a profile's parameters.

    Refuses a notebook that does not have exactly one cell tagged `asks`, and a cell that fails, that trains or attacks
    by itself, or that opens no run.
    """
    return [request for run in _runs(profile, artifact) for request in run.requests]


def _runs(profile: Profile, artifact: str) -> list[Run]:
    """The runs that the cell `asks` of a notebook opens."""
    source = paths.notebook(artifact)
    cells = [cell for tags, cell in parameters.cells(source.read_text(encoding="utf-8")) if TAG in tags]
    if len(cells) != 1:
        raise errors.Refused(f"notebook {artifact}: {len(cells)} cells are tagged {TAG}; there must be one.")
    namespace = {"__name__": f"notebook {artifact}", **profile.parameters(artifact)}
    try:
        with errors.planning(artifact):
            exec(compile(cells[0], str(source), "exec"), namespace)
    except errors.Refused as problem:
        prefix = f"notebook {artifact}: "
        raise errors.Refused(prefix + str(problem).removeprefix(prefix)) from problem
    except Exception as problem:
        raise errors.Refused(
            f"notebook {artifact}: its cell tagged {TAG} failed ({type(problem).__name__}: {problem})."
        ) from problem
    runs = [value for value in namespace.values() if isinstance(value, Run)]
    if not runs:
        raise errors.Refused(f"notebook {artifact}: its cell tagged {TAG} opens no run; begin one by runs.begin.")
    return runs


def _refuse_missing_samples(runs: list[Run]) -> None:
    """Refuse parameters `samples` and `..._samples` that ask for more samples than there are, all in one sentence.

    Such a parameter counts samples of the splits for which `run.ask` was given its value, otherwise of the test split.
    """
    missing: dict[str, list[str]] = {}  # what there is → the parameters that ask for more
    for run in runs:
        for name, value in run.parameters.items():
            if name != "samples" and not name.endswith("_samples"):
                continue
            splits = {request.split for request in run.requests if request.samples == value} or {"test"}
            for split in sorted(splits):
                there, data = datasets.available(run.profile.data, split), run.profile.data["name"]
                if there is not None and value > there:
                    asked = missing.setdefault(f"{data} has {there} {split} samples", [])
                    asked.append(f"{run.artifact} ({name}: {value})")
    if missing:
        parts = [f"{there}, too few for {', '.join(asked)}" for there, asked in missing.items()]
        raise errors.Refused(f"{runs[0].profile.origin}: {'; '.join(parts)}. Set these parameters under `notebooks:`.")


def register(profile: str) -> None:
    """Make this process know the trainings, attacks, networks and data that a profile's notebooks register."""
    _all_requests(profiles.load(profile))


def _all_requests(profile: Profile) -> list[Request]:
    runs = [run for artifact in paths.notebooks() for run in _runs(profile, artifact)]
    _refuse_missing_samples(runs)
    return [request for run in runs for request in run.requests]


def _evaluations(request: Request) -> Iterator[tuple[AnyExperiment, AnyAttack]]:
    """Each network with each attack on it, clean samples first: those that it gets wrong are not attacked."""
    for experiment in request.networks:
        attacks = request.attacks_on(experiment)
        if attacks:
            yield experiment, None
        for attack in attacks:
            yield experiment, attack


def _passes(experiment: AnyExperiment) -> int:
    """The passes of each image through the network in the whole training."""
    if isinstance(experiment, Imported):
        return 0
    return experiment.schedule.epochs * sum(passes(defenses.build(experiment.defense, experiment.options)))
