"""The files under params/: their names, reading and checking one with its base, writing one for imported networks."""

import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import yaml

from paperlib import errors, files, paths
from paperlib.data import datasets
from paperlib.profiles.profile import SCHEDULE, Profile
from paperlib.store.experiment import Imported

OPTIONAL = {"rivals", "imports"}
ADDING = ("trainings", "rivals", "notebooks")  # tables that add to those of the base
NEEDED = {"vanilla", "sr", "at", "at+sr"}
ON_EVENTS = {"data", "network", "schedule", "seeds", "trainings"}  # entries that `events` gives anew


def names() -> list[str]:
    """The profiles there are."""
    return sorted(path.stem for path in paths.PARAMS.glob("*.yml"))


@cache
def load(name: str) -> Profile:
    """The profile in params/`name`.yml, checked; refuses unknown names, keys, options and values that cannot be.

    A file with a `base` takes over the base's entries.  Its tables `trainings`, `rivals` and `notebooks` add to those
    of the base, entry by entry; an empty one leaves none of them.  Its `imports` are executed.
    """
    errors.one_of("profile", name, names())
    path = paths.PARAMS / f"{name}.yml"
    content = _read(path)
    if isinstance(content, dict) and "base" in content:
        content = _with_base(path, content)
    kinds = {name: get_origin(kind) or kind for name, kind in get_type_hints(Profile).items() if name != "name"}
    _same_keys(path, "the profile", content, set(kinds) - OPTIONAL, OPTIONAL)
    for key, value in content.items():
        _of_kind(path, key, value, kinds[key])
    _same_keys(path, "cost", content["cost"], {"minutes", "disk_mb", "download_mb"})
    for key, value in content["notebooks"].items():
        _of_kind(path, f"notebooks: {key}", value, dict)
    _same_keys(path, "events", content["events"], ON_EVENTS)
    for key, value in content["events"].items():
        _of_kind(path, f"events: {key}", value, kinds[key])
    profile = Profile(name=name, **content)
    for file in profile.imports:
        _execute(path, file)
    _check(path, profile)
    _check(path, profile.on_events())
    try:
        for artifact in profile.notebooks:
            profile.parameters(artifact)
    except errors.Refused as problem:
        raise _named(profile, problem) from None
    return profile


def _with_base(path: Path, content: dict) -> dict:
    """A profile's content with what it takes over from its base."""
    base = content.pop("base")
    errors.one_of(f"base of params/{path.name}", base, [other for other in names() if other != path.stem])
    inherited = _read(paths.PARAMS / f"{base}.yml")
    _of_kind(path, f"base {base}", inherited, dict)
    merged = inherited | content
    for table in ADDING:
        entries = content.get(table)
        if entries and isinstance(entries, dict) and isinstance(inherited.get(table), dict):
            merged[table] = inherited[table] | entries
    return merged


def _execute(path: Path, file: str) -> None:
    """Execute one of a profile's `imports`, a file of this project or an absolute path, once in a process."""
    source = paths.ROOT / Path(file).expanduser()
    if not source.is_file():
        raise errors.Refused(f"params/{path.name}: imports names {file!r}; there is no such file.")
    name = f"paperlib.imported.{files.sha256(str(source.resolve()).encode())[:8]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, source)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(sys.modules[name])
        except Exception as problem:
            del sys.modules[name]
            raise errors.Refused(
                f"params/{path.name}: {file} cannot be imported ({type(problem).__name__}: {problem})."
            ) from problem


def _check(path: Path, profile: Profile) -> None:
    """Refuse data, networks, schedules and trainings that cannot be."""
    known = profile.trainings | profile.rivals
    for part in ("trainings", "rivals"):
        for key, value in getattr(profile, part).items():
            _of_kind(path, f"{part}: {key}", value, dict)
    if "name" not in profile.data:
        _same_keys(path, "data", profile.data, {"name"}, datasets.CAPS)
    try:
        datasets.refuse_unknown(profile.data["name"])
    except errors.Refused as problem:
        raise _named(profile, problem) from None
    _same_keys(path, "data", profile.data, *datasets.arguments(profile.data["name"]))
    _same_keys(path, "network", profile.network, {"name", "T", "tau", "rule", "precision"})
    needs = {name for name, needed in SCHEDULE.items() if needed}
    _same_keys(path, "schedule", profile.schedule, needs, set(SCHEDULE) - needs)
    for defense, options in profile.trainings.items():
        if "imported" in options or "dataset" in options:
            what = f"the imported training {defense}"
            _same_keys(path, what, options, {"imported", "dataset"}, {"h", "lam", "preset"})
    if not profile.seeds:
        raise errors.Refused(f"{profile.origin}: seeds is empty; there must be one at least.")
    if missing := NEEDED - set(profile.trainings):
        raise errors.Refused(
            f"{profile.origin}: trainings lacks {', '.join(sorted(missing))}, which the claims compare."
        )
    if twice := set(profile.trainings) & set(profile.rivals):
        raise errors.Refused(f"{profile.origin}: {', '.join(sorted(twice))} stand under both trainings and rivals.")
    try:
        for name in known:
            profile.experiments(name)
    except errors.Refused as problem:
        raise _named(profile, problem) from None


def _named(profile: Profile, problem: errors.Refused) -> errors.Refused:
    """The same, with the file's name before it."""
    said = str(problem).removeprefix(f"{profile.origin}: ")
    return errors.Refused(f"{profile.origin}: {said}")


def of_imported(name: str, network: str, data: dict, trainings: dict[str, dict]) -> Path:
    """Write params/`name`.yml: the profile "paper" with imported networks in place of some trainings.

    Nothing of its own is swept, as params/templates/released.yml says: the released files have one λ.
    """
    paper, template = _read(paths.PARAMS / "paper.yml"), paths.PARAMS / "templates" / "released.yml"
    changes = yaml.safe_load(template.read_text(encoding="utf-8").format(first=next(iter(trainings))))
    kept = {training: {k: v for k, v in paper["trainings"][training].items() if k == "h"} for training in trainings}
    content = changes | {
        "title": f"{network} as the released code trained it: {', '.join(trainings)}",
        "cost": paper["cost"],
        "data": data,
        "network": paper["network"] | {"name": network},
        "seeds": [Imported.seed],
        "events": paper["events"] | {"data": paper["events"]["data"] | {"name": "saccades:mnist5k"}},  # no download
        "trainings": {training: imported | kept[training] for training, imported in trainings.items()},
        "notebooks": {a: paper["notebooks"].get(a, {}) | own for a, own in changes["notebooks"].items()},
    }
    path = paths.PARAMS / f"{name}.yml"
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=1000)
    path.write_text(text, encoding="utf-8")  # one line a table, as the Makefile reads the cost
    load.cache_clear()
    try:
        load(name)
    except errors.Refused:
        path.unlink()
        raise
    return path


def family(name: str) -> list[str]:
    """A profile and those that take it as their base."""

    def base(other: str) -> str | None:
        try:
            content = _read(paths.PARAMS / f"{other}.yml")
        except errors.Refused:  # it is refused by name where it is asked for
            return None
        return content.get("base") if isinstance(content, dict) else None

    return [name] + [other for other in names() if base(other) == name]


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise errors.Refused(f"params/{path.name} is not YAML: {' '.join(str(problem).split())}.") from None


def _of_kind(path: Path, what: str, given: Any, kind: type) -> None:
    if not isinstance(given, kind):
        names = {dict: "a table of keys and values", list: "a list", str: "text"}
        raise errors.Refused(f"params/{path.name}: {what} is {given!r}; it must be {names[kind]}.")


def _same_keys(path: Path, what: str, given: Any, needs: set[str], may: set[str] = frozenset()) -> None:
    given = set(given) if isinstance(given, dict) else set()
    if needs - given or given - needs - may:
        wrong = [f"lacks {', '.join(sorted(needs - given))}"] * bool(needs - given)
        wrong += [f"has no use for {', '.join(sorted(given - needs - may))}"] * bool(given - needs - may)
        takes = ", ".join(sorted(needs | may))
        raise errors.Refused(f"params/{path.name}: {what} {' and '.join(wrong)}. It takes: {takes}.")
