"""What a notebook opens and closes: `begin` checks its parameters, `save` keeps its record where it belongs."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paperlib import files, paths, profiles, records
from paperlib.data import datasets, sets
from paperlib.profiles import Profile, parameters
from paperlib.store import checkpoints, experiment


@dataclass(frozen=True)
class Run:
    """One run of one notebook."""

    artifact: str
    profile: Profile
    parameters: dict[str, Any]
    record_path: Path
    started: float

    @property
    def data(self) -> sets.ImageSet:
        return datasets.load(**self.profile.data)

    def record(self, rows: list[dict], arrays: dict | None = None) -> dict:
        """A record of what is measured so far, for a figure on the way; nothing is kept."""
        return records.build(
            self.artifact,
            profile=self.profile.name,
            parameters=self.parameters,
            data={"name": self.data.name, "title": self.data.title, "sha256": self.data.sha256},
            recipe=experiment.RECIPE,
            device=checkpoints.resolve(self.parameters["device"]),
            rows=rows,
            arrays=arrays,
        )

    def save(self, rows: list[dict], arrays: dict | None = None) -> dict:
        """Keep the artifact's record as JSON and CSV, and return it."""
        record = self.record(rows, arrays)
        records.save(record, self.record_path)
        records.save_run(self.record_path, seconds=time.perf_counter() - self.started)
        return record


def begin(artifact: str, namespace: dict[str, Any], *, on_events: bool = False) -> Run:
    """Open a run: `namespace` is the notebook's `globals()`, right after its parameters cell.

    With `on_events` the run's profile and data are those of the profile's entry `events`.
    Refuses names that the notebook does not declare and values of another type.  With the profile's own parameters the
    record goes to results/<profile>/, with any others to a folder of its own under build/own/, which is printed.
    """
    declared = parameters.declared(paths.NOTEBOOKS / f"{artifact}.py")
    values = parameters.from_namespace(artifact, declared, namespace)
    profile = profiles.load(values["profile"])
    own = {name: v for name, v in values.items() if v != profile.parameters(artifact)[name] and name != "device"}
    folder = paths.RESULTS / profile.name
    if own:
        folder = paths.BUILD / "own" / f"{artifact}-{files.sha256(repr(sorted(values.items())).encode())[:8]}"
        where = folder.relative_to(paths.ROOT)
        print(f"Not as in {profile.origin}: {', '.join(own)}. This run's record therefore goes to {where}/.")
    profile = profile.on_events() if on_events else profile
    return Run(artifact, profile, values, folder / f"{artifact}.json", time.perf_counter())
