"""The plan of a profile: every training and evaluation that its notebooks ask for.

A notebook names them in one cell, tagged `asks`, by `run.ask`.  The plan executes that cell with the notebook's
parameters, and nothing else of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from paperlib import errors, paths, profiles, words
from paperlib.attacks.ensembles import AnyAttack, Transfer, members
from paperlib.profiles import Profile, parameters
from paperlib.profiles.selections import once
from paperlib.runs.run import AnyExperiment, Request, Run
from paperlib.store import evaluations
from paperlib.store.evaluations import is_evaluated
from paperlib.store.experiment import Imported
from paperlib.training import defenses
from paperlib.training.loop import passes

TAG = "asks"


@dataclass(frozen=True)
class Planned:
    """One network under one attack (None: clean images)."""

    experiment: AnyExperiment
    attack: AnyAttack
    samples: int
    split: str

    @property
    def is_there(self) -> bool:
        return is_evaluated(self.experiment, self.attack, samples=self.samples, split=self.split)

    def __str__(self) -> str:
        attack = "clean"
        if self.attack is not None:
            attack = f"{self.attack.title} at {words.radius(evaluations.size(self.experiment, self.attack))}"
        kind = "recordings" if self.experiment.is_of_events else "images"
        return f"{attack}, {self.samples} {self.split} {kind}"


def requests(profile: Profile, artifact: str) -> list[Request]:
    """What one notebook asks for with a profile's parameters.

    Refuses a notebook without exactly one cell tagged `asks` or whose cell fails, trains or attacks by itself, or opens
    no run.
    """
    source = paths.notebook(artifact)
    found = [cell for tags, cell in parameters.cells(source.read_text(encoding="utf-8")) if TAG in tags]
    if len(found) != 1:
        raise errors.Refused(f"notebook {artifact}: {len(found)} cells are tagged {TAG}; there must be one.")
    namespace = {"__name__": f"notebook {artifact}", **profile.parameters(artifact)}
    try:
        with errors.planning(artifact):
            exec(compile(found[0], str(source), "exec"), namespace)
    except errors.Refused:
        raise
    except Exception as problem:
        raise errors.Refused(
            f"notebook {artifact}: its cell tagged {TAG} failed ({type(problem).__name__}: {problem})."
        ) from problem
    runs = [value for value in namespace.values() if isinstance(value, Run)]
    if not runs:
        raise errors.Refused(f"notebook {artifact}: its cell tagged {TAG} opens no run; begin one by runs.begin.")
    return [request for run in runs for request in run.requests]


def experiments(profile: Profile) -> list[AnyExperiment]:
    """Every network that the profile's notebooks ask for, each once, those of most passes first."""
    networks = [e for request in _requests(profile) for e in request.networks]
    networks += [e for _, attack, _ in _attacks(profile) for e in _sources(attack)]
    return sorted(once(networks), key=_passes, reverse=True)


def planned(profile: Profile) -> list[Planned]:
    """Every evaluation that the profile's notebooks ask for, each once; the clean flags of a network come first."""
    found = {}
    for experiment, attack, request in _attacks(profile):
        one = Planned(experiment, attack, request.samples, request.split)
        found.setdefault((experiment.key, repr(attack), one.samples, one.split), one)
    return list(found.values())


def register(profile: str) -> None:
    """Make this process know the trainings, attacks, networks and data that a profile's notebooks register."""
    _requests(profiles.load(profile))


def _requests(profile: Profile) -> list[Request]:
    return [request for artifact in paths.notebooks() for request in requests(profile, artifact)]


def _attacks(profile: Profile) -> Iterator[tuple[AnyExperiment, AnyAttack, Request]]:
    """Each network with each attack on it; clean images first: samples that are wrong already are not attacked."""
    for request in _requests(profile):
        for experiment in request.networks:
            attacks = request.attacks_on(experiment)
            if attacks:
                yield experiment, None, request
            for attack in attacks:
                yield experiment, attack, request


def _sources(attack: AnyAttack) -> list[AnyExperiment]:
    """The networks that an attack's examples are made on."""
    return [member.source for member in members(attack) if isinstance(member, Transfer)]


def _passes(experiment: AnyExperiment) -> int:
    """Passes that each image takes through a network in training; the costliest are trained first."""
    if isinstance(experiment, Imported):
        return 0
    return experiment.schedule.epochs * sum(passes(defenses.build(experiment.defense, experiment.options)))
