"""Profiles: params/<name>.yml → checked parameters → experiments.  The plan of a profile, and what it costs."""

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from paperlib import errors, parameters, paths
from paperlib.experiments import Experiment
from paperlib.training import Schedule


@dataclass(frozen=True)
class Profile:
    """One file under params/; its keys are these fields."""

    name: str
    title: str  # one line, shown in reports
    cost: dict  # minutes on two cores, disk_mb, download_mb: said before anything starts
    data: dict  # arguments of `images.load`
    network: dict  # name, T, tau, rule
    schedule: dict  # fields of `training.Schedule`
    trainings: dict[str, dict]  # defense → its options; lengths in pixels may be given as `<name>_255`
    seeds: list[int]
    notebooks: dict[str, dict]  # artifact → parameters that differ from the notebook's own

    @property
    def origin(self) -> str:
        return f"params/{self.name}.yml"

    def parameters(self, artifact: str) -> dict[str, Any]:
        """All parameters of a notebook in this profile, checked against what the notebook declares."""
        declared = parameters.declared(paths.NOTEBOOKS / f"{artifact}.py")
        given = {"profile": self.name} | self.notebooks.get(artifact, {})
        return parameters.check(artifact, declared, given, origin=self.origin)

    def experiments(self, training: str, *, seeds: list[int] | None = None, **options: Any) -> list[Experiment]:
        """One experiment a seed for a training of this profile; `options` override the defense's own."""
        errors.one_of(f"training in {self.origin}", training, self.trainings)
        network = dict(self.network)
        return [
            Experiment(
                data=self.data,
                network=network["name"],
                T=network["T"],
                tau=network["tau"],
                rule=network["rule"],
                defense=training,
                options=_in_pixels(self.trainings[training]) | options,
                schedule=Schedule(**self.schedule),
                seed=seed,
            )
            for seed in (self.seeds if seeds is None else seeds)
        ]

    def sweep(self, lambdas: list[float], seeds: list[int]) -> list[Experiment]:
        """SR networks over λ."""
        return [e for lam in lambdas for e in self.experiments("sr", seeds=seeds, lam=lam)]

    def plan(self) -> list[Experiment]:
        """Every network that the profile's notebooks ask for, each once, the costliest trainings first."""
        planned = [e for training in reversed(self.trainings) for e in self.experiments(training)]
        asked = self.parameters("fig-lambda")
        planned += self.sweep(asked["lambdas"], asked["seeds"])
        return list({e.key: e for e in planned}.values())


def names() -> list[str]:
    """The profiles there are."""
    return sorted(path.stem for path in paths.PARAMS.glob("*.yml"))


@cache
def load(name: str) -> Profile:
    """The profile in params/`name`.yml, checked; refuses unknown names, keys, options and values that cannot be."""
    errors.one_of("profile", name, names())
    path = paths.PARAMS / f"{name}.yml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as problem:
        raise errors.Refused(f"params/{path.name} is not YAML: {problem}") from None
    takes = {field.name for field in fields(Profile)} - {"name"}
    _same_keys(path, "the profile", content, takes)
    _same_keys(path, "network", content["network"], {"name", "T", "tau", "rule"})
    _same_keys(path, "schedule", content["schedule"], {field.name for field in fields(Schedule)})
    _same_keys(path, "cost", content["cost"], {"minutes", "disk_mb", "download_mb"})
    _same_keys(path, "data", content["data"], {"name"}, {"train", "validation", "test"})
    profile = Profile(name=name, **content)
    try:
        for training in profile.trainings:
            profile.experiments(training)
    except errors.Refused as problem:
        raise errors.Refused(f"{profile.origin}: {problem}") from None
    for artifact in profile.notebooks:
        profile.parameters(artifact)
    return profile


def _same_keys(path: Path, what: str, given: Any, needs: set[str], may: set[str] = frozenset()) -> None:
    given = set(given) if isinstance(given, dict) else set()
    if needs - given or given - needs - may:
        wrong = [f"lacks {', '.join(sorted(needs - given))}"] * bool(needs - given)
        wrong += [f"has no use for {', '.join(sorted(given - needs - may))}"] * bool(given - needs - may)
        takes = ", ".join(sorted(needs | may))
        raise errors.Refused(f"params/{path.name}: {what} {' and '.join(wrong)}. It takes: {takes}.")


def _in_pixels(options: dict) -> dict:
    """`eps_255: 32` → `eps: 32/255`."""
    return {key.removesuffix("_255"): value / 255 if key.endswith("_255") else value for key, value in options.items()}
