"""One run of a notebook: `begin` checks its parameters, `ask` names what it needs, `save` writes its record."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paperlib import arithmetic, errors, files, paths, profiles, records
from paperlib.attacks.ensembles import AnyAttack
from paperlib.data import datasets
from paperlib.data.sets import ImageSet
from paperlib.profiles import Profile, parameters
from paperlib.store import checkpoints, evaluations
from paperlib.store.evaluations import Evaluation
from paperlib.store.experiment import RECIPE, AnyExperiment, Opened


@dataclass(frozen=True)
class Request:
    """Networks that a notebook needs, and attacks on the first `samples` samples of a split of their data."""

    networks: list[AnyExperiment]
    attacks: Sequence[AnyAttack] | Callable[[AnyExperiment], Sequence[AnyAttack]]
    samples: int
    split: str
    device: str

    def evaluated(self) -> list[Evaluation]:
        """Every network under every attack, loaded or computed (see `evaluations.evaluated`)."""
        return evaluations.evaluated(
            self.networks, self.attacks, samples=self.samples, split=self.split, device=self.device
        )

    def attacks_on(self, network: AnyExperiment) -> Sequence[AnyAttack]:
        """The attacks on one of the networks."""
        return self.attacks(network) if callable(self.attacks) else self.attacks


@dataclass(frozen=True)
class Run:
    """One run of one notebook."""

    artifact: str
    profile: Profile
    parameters: dict[str, Any]
    record_path: Path
    started: float  # time.perf_counter() at the beginning
    requests: list[Request] = field(default_factory=list)

    @property
    def data(self) -> ImageSet:
        """The data of the profile."""
        return datasets.load(**self.profile.data)

    @property
    def device(self) -> str:
        """The notebook's parameter of that name; "auto" if it has none."""
        return self.parameters.get("device", "auto")

    def ask(
        self,
        networks: Iterable[AnyExperiment],
        attacks: Sequence[AnyAttack] | Callable[[AnyExperiment], Sequence[AnyAttack]] = (),
        *,
        samples: int = 0,
        split: str = "test",
    ) -> Request:
        """Name networks, and attacks on the first `samples` samples of `split`, for the plan.  Nothing is computed.

        `attacks` may hold None for clean samples; or it is a function that gives each network its own attacks.
        Refuses no samples, and, before anything is trained, more than there are (the plan names all such parameters).
        """
        if attacks:
            errors.one_of("split", split, ("test", "validation"))
            errors.count("samples", samples)
            there = None if errors.is_planning() else datasets.available(self.profile.data, split)
            if there is not None and samples > there:
                name = self.profile.data["name"]
                raise errors.Refused(f"{self.artifact} asks for {samples} {split} samples; {name} has {there}.")
        request = Request(list(networks), attacks, samples, split, self.device)
        self.requests.append(request)
        return request

    def opened(self, networks: Iterable[AnyExperiment]) -> Iterator[Opened]:
        """Each experiment with its trained network, one after another."""
        return checkpoints.opened(networks, device=self.device)

    def record(self, rows: list[dict], arrays: dict | None = None) -> dict:
        """A record of these rows, for a figure before the last one; nothing is written."""
        return records.build(
            self.artifact,
            profile=self.profile.name,
            parameters=self.parameters,
            data={"name": self.data.name, "title": self.data.title, "sha256": self.data.sha256},
            recipe=RECIPE,
            arithmetic=self.profile.network["arithmetic"],
            device=checkpoints.resolve(self.device),
            rows=rows,
            arrays=arrays,
        )

    def save(self, rows: list[dict], arrays: dict | None = None) -> dict:
        """Write the artifact's record as JSON and CSV, and return it."""
        record = self.record(rows, arrays)
        records.save(record, self.record_path)
        records.save_run(self.record_path, seconds=time.perf_counter() - self.started)
        return record


def begin(artifact: str, namespace: dict[str, Any], *, on_events: bool = False) -> Run:
    """Open a run.  `namespace` is the notebook's `globals()`, in the first cell after its parameters.

    With `on_events` the run has the data, networks and trainings under the profile's key `events`.
    With the profile's own parameters the record goes to results/<profile>/.  With others, and where this process has
    another arithmetic than the profile, it goes to a folder of its own under build/own/, which is printed; another
    device alone does not count.
    Refuses variables that are no parameters of the notebook, and values of another type.
    """
    declared = parameters.declared(paths.notebook(artifact))
    values = parameters.from_namespace(artifact, declared, namespace)
    profile = profiles.load(values["profile"])
    usual = profile.parameters(artifact)
    changed = [name for name, value in values.items() if value != usual[name] and name != "device"]
    settled = profile.network["arithmetic"] if errors.is_planning() else arithmetic.current()
    if settled != profile.network["arithmetic"]:
        profile, changed = profile.computed(settled), [*changed, f"the arithmetic, which is {settled}"]
    folder = paths.RESULTS / profile.name
    if changed:
        hashed = files.sha256(repr((settled, sorted(values.items()))).encode())[:8]
        folder = paths.BUILD / "own" / f"{artifact}-{hashed}"
        print(
            f"Not as in {profile.origin}: {', '.join(changed)}. "
            f"This run's record therefore goes to {folder.relative_to(paths.ROOT)}/."
        )
    if on_events:
        profile = profile.on_events()
    return Run(artifact, profile, values, folder / f"{artifact}.json", time.perf_counter())
