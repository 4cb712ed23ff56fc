"""A profile: the networks that a file under params/ describes."""

from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

from paperlib import errors, paths
from paperlib.profiles import parameters
from paperlib.store.experiment import Experiment, Imported
from paperlib.training.loop import Schedule

SCHEDULE = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(Schedule)}  # whether needed


@dataclass(frozen=True)
class Profile:
    """One file under params/; its keys are these fields, and `base` for a profile whose entries it takes over."""

    name: str
    title: str  # one line, shown in reports
    cost: dict  # minutes on two cores, disk_mb, download_mb: said before anything starts
    data: dict  # arguments of `datasets.load`
    network: dict  # name, T, tau, rule, precision
    schedule: dict  # fields of `loop.Schedule`
    trainings: dict[str, dict]  # defense → its options; lengths in pixels may be given as `<name>_255`
    seeds: list[int]
    events: dict  # the entries that `ON_EVENTS` names once more, for the notebooks on event data
    notebooks: dict[str, dict]  # artifact → parameters that differ from the notebook's own
    rivals: dict[str, dict] = field(default_factory=dict)  # more trainings, which tab-ablation and tab-cost compare
    imports: list[str] = field(default_factory=list)  # Python files that register trainings, networks or data of yours

    @property
    def origin(self) -> str:
        return f"params/{self.name}.yml"

    def on_events(self) -> "Profile":
        """This profile on event data: what stands under `events` in place of the entries of those names."""
        return replace(self, **self.events, rivals={})

    def parameters(self, artifact: str) -> dict[str, Any]:
        """All parameters of a notebook in this profile, checked against what the notebook declares."""
        declared = parameters.declared(paths.notebook(artifact))
        given = self.notebooks.get(artifact, {}) | {"profile": self.name}
        return parameters.check(artifact, declared, given, origin=self.origin)

    def experiments(
        self, training: str, *, seeds: list[int] | None = None, options: dict | None = None, **changes: Any
    ) -> list[Experiment] | list[Imported]:
        """One experiment a seed for a training or rival of this profile; `changes` override what the file says.

        They are `network` (a name), `T`, `tau` and `detach_reset`, fields of the schedule, and options of the training.
        The file may set a field of the schedule among a training's options, too.  An imported training has one network,
        whatever the seeds; with changes it is one of our own.  With `options` the training need not stand in the file:
        these are all of its options.
        """
        known = self.trainings | self.rivals
        if options is None:
            errors.one_of(f"training in {self.origin}", training, known)
        given = _in_pixels(known[training] if options is None else options)
        if "imported" in given and not changes:
            return [Imported(given["imported"], self.network["name"], given["dataset"], training, self.data)]
        given = {name: value for name, value in given.items() if name not in ("imported", "dataset")} | changes
        network = {"network": self.network["name"]} | {n: v for n, v in self.network.items() if n != "name"}
        network |= {name: given.pop(name) for name in ("network", "T", "tau", "detach_reset") if name in given}
        schedule = self.schedule | {name: given.pop(name) for name in SCHEDULE if name in given}
        selection = schedule.get("selection", {})  # what is no table is refused by the schedule
        schedule["selection"] = _in_pixels(selection) if isinstance(selection, dict) else selection
        return [
            Experiment(
                data=self.data,
                **network,
                defense=training,
                options=given,
                schedule=Schedule(**schedule),
                seed=seed,
            )
            for seed in (self.seeds if seeds is None else seeds)
        ]

    def of(self, trainings: list[str]) -> list[Experiment | Imported]:
        """Some trainings with every seed."""
        return [e for name in trainings for e in self.experiments(name)]

    def all(self) -> list[Experiment | Imported]:
        """Every training with every seed."""
        return self.of([*self.trainings])

    def weight(self, training: str) -> float:
        """The λ of a training or rival in this profile; NaN where that is not known."""
        return (self.trainings | self.rivals).get(training, {}).get("lam", float("nan"))


def _in_pixels(options: dict) -> dict:
    """`eps_255: 32` → `eps: 32/255`."""
    lengths = {key: value for key, value in options.items() if key.endswith("_255")}
    for key, value in lengths.items():
        errors.number(key, value, at_least=0)
        if key.removesuffix("_255") in options:
            raise errors.Refused(f"{key} and {key.removesuffix('_255')} are one length; give one of them.")
    return {key: value for key, value in options.items() if key not in lengths} | {
        key.removesuffix("_255"): value / 255 for key, value in lengths.items()
    }
