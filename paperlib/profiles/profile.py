"""A profile: the data, networks and trainings that a file under params/ describes."""

from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

from paperlib import errors
from paperlib.profiles import reading
from paperlib.store.experiment import AnyExperiment, Experiment, Imported, weight_name
from paperlib.training.loop import Schedule

# The fields of a schedule, and whether a file must give them.
SCHEDULE = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(Schedule)}


@dataclass(frozen=True)
class Profile:
    """One file under params/.  Its keys are these fields without `name`, and `base` (see `files.load`)."""

    name: str
    title: str  # one line, for reports
    cost: dict  # minutes on two cores, disk_mb, download_mb; printed before anything starts
    data: dict  # arguments of `datasets.load`
    network: dict  # name, T, tau, rule, precision, arithmetic (the same for the network on events)
    schedule: dict  # fields of `loop.Schedule`
    trainings: dict[str, dict]  # training → its options; `eps_255: 8` means eps = 8/255, and so for every length
    seeds: list[int]
    events: dict  # data, network, schedule, seeds and trainings of the notebooks on event data
    notebooks: dict[str, dict]  # artifact → the parameters that differ from the defaults of the notebook
    rivals: dict[str, dict] = field(default_factory=dict)  # more trainings, for tab-ablation and tab-cost
    imports: list[str] = field(default_factory=list)  # Python files that register trainings, networks or data

    @property
    def origin(self) -> str:
        """The file, as messages name it."""
        return reading.origin(self.name)

    def on_events(self) -> "Profile":
        """This profile with the entries inside `events` in place of its own, and without rivals."""
        return replace(self, **self.events, rivals={})

    def computed(self, arithmetic: str) -> "Profile":
        """This profile with another arithmetic."""
        chosen = {"arithmetic": arithmetic}
        events = self.events | {"network": self.events["network"] | chosen}
        return replace(self, network=self.network | chosen, events=events)

    def parameters(self, artifact: str) -> dict[str, Any]:
        """All parameters of a notebook in this profile.

        Refuses names that the notebook does not declare, and values of another type.
        """
        return reading.given_to(artifact, self.name, self.notebooks)

    def experiments(
        self, training: str, *, seeds: list[int] | None = None, options: dict | None = None, **changes: Any
    ) -> list[Experiment] | list[Imported]:
        """The experiments of a training or rival of this profile, one for each seed.

        `seeds` are those of the profile by default.  With `options` the training need not stand in the file: these are
        all of its options.  `changes` override the file: `network` (a name), `T`, `tau`, `detach_reset`, fields of the
        schedule, and options of the training.  All of these may stand among the options as well.  An imported training
        has one network for all seeds; with changes its networks are trained here.

        Refuses a training that is not in the file, and options and values that the experiment refuses.
        """
        if options is None:
            known = self.trainings | self.rivals
            errors.one_of(f"training in {self.origin}", training, known)
            options = known[training]
        options = _in_range(options)
        if "imported" in options and not changes:
            given = options["imported"], self.network["name"], options["dataset"], training, self.data
            return [Imported(*given, arithmetic=self.network["arithmetic"])]
        options = {name: value for name, value in options.items() if name not in ("imported", "dataset")} | changes
        network = {"network": self.network["name"]} | {n: v for n, v in self.network.items() if n != "name"}
        network |= {name: options.pop(name) for name in ("network", "T", "tau", "detach_reset") if name in options}
        schedule = self.schedule | {name: options.pop(name) for name in SCHEDULE if name in options}
        selection = schedule.get("selection", {})
        if isinstance(selection, dict):  # the schedule refuses anything else
            schedule["selection"] = _in_range(selection)
        return [
            Experiment(
                data=self.data,
                **network,
                defense=training,
                options=options,
                schedule=Schedule(**schedule),
                seed=seed,
            )
            for seed in (self.seeds if seeds is None else seeds)
        ]

    def of(self, trainings: list[str]) -> list[AnyExperiment]:
        """The experiments of some trainings, with every seed."""
        return [e for name in trainings for e in self.experiments(name)]

    def all(self) -> list[AnyExperiment]:
        """The experiments of all trainings, with every seed."""
        return self.of([*self.trainings])

    def weight(self, training: str) -> float:
        """The weight λ or β of a training or rival in this profile; NaN if it has none or is not in the profile."""
        options = (self.trainings | self.rivals).get(training, {})
        return options.get(weight_name(options), float("nan"))


def _in_range(options: dict) -> dict:
    """The options with lengths in the units of the data: {"eps_255": 32} becomes {"eps": 32/255}."""
    lengths = {key: value for key, value in options.items() if key.endswith("_255")}
    for key, value in lengths.items():
        errors.number(key, value, at_least=0)
        if key.removesuffix("_255") in options:
            raise errors.Refused(f"{key} and {key.removesuffix('_255')} are one length; give one of them.")
    others = {key: value for key, value in options.items() if key not in lengths}
    return others | {key.removesuffix("_255"): value / 255 for key, value in lengths.items()}
