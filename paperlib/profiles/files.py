"""Files under params/: checking one as a profile, and writing one for imported networks."""

from functools import cache
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import yaml

from paperlib import arithmetic, errors, files, paths
from paperlib.data import datasets
from paperlib.profiles.profile import SCHEDULE, Profile
from paperlib.profiles.reading import content_of, names, of_kind, read
from paperlib.store.experiment import Imported

OPTIONAL = {"rivals", "imports"}
NEEDED = {"vanilla", "sr", "at", "at+sr"}  # the trainings that every profile has
ON_NETWORK = {"name", "T", "tau", "rule", "precision"}
ON_EVENTS = {"data", "network", "schedule", "seeds", "trainings"}  # the entries inside `events`


@cache
def load(name: str) -> Profile:
    """The profile in params/`name`.yml, checked.

    `reading.content_of` says what a `base` gives.  Each file of `imports` is executed once.

    Refuses an unknown profile, unknown or missing keys, values of the wrong type, data, networks, schedules and
    trainings that do not exist or do not fit, and imports that fail.  A file is refused in a sentence that names it.
    """
    errors.one_of("profile", name, names())
    path, content = paths.PARAMS / f"{name}.yml", content_of(name)
    kinds = {key: get_origin(kind) or kind for key, kind in get_type_hints(Profile).items() if key != "name"}
    _same_keys(path, "the profile", content, set(kinds) - OPTIONAL, OPTIONAL)
    for key, value in content.items():
        of_kind(path, key, value, kinds[key])
    _same_keys(path, "cost", content["cost"], {"minutes", "disk_mb", "download_mb"})
    for key, value in content["notebooks"].items():
        of_kind(path, f"notebooks: {key}", value, dict)
    _same_keys(path, "events", content["events"], ON_EVENTS)
    for key, value in content["events"].items():
        of_kind(path, f"events: {key}", value, kinds[key])
    network = {"arithmetic": arithmetic.PORTABLE} | content["network"]
    _same_keys(path, "events: network", content["events"]["network"], ON_NETWORK)
    profile = Profile(name=name, **content | {"network": network}).computed(network["arithmetic"])
    for file in profile.imports:
        of_kind(path, "an entry of imports", file, str)
        _execute(path, file)
    _check(path, profile)
    _check(path, profile.on_events())
    try:
        for artifact in profile.notebooks:
            profile.parameters(artifact)
    except errors.Refused as problem:
        raise _named(profile, problem) from None
    return profile


def _execute(path: Path, file: str) -> None:
    """Execute a file of `imports`, given relative to the project or as an absolute path, once in a process."""
    source = paths.ROOT / errors.home(f"params/{path.name}: an entry of imports", file)
    if source.suffix != ".py" or not source.is_file():
        raise errors.Refused(f"params/{path.name}: imports names {file!r}; there is no such Python file.")
    name = f"paperlib.imported.{files.sha256(str(source.resolve()).encode())[:8]}"
    try:
        files.module(source, name)
    except Exception as problem:
        reason = " ".join(f"{type(problem).__name__}: {problem}".split())
        raise errors.Refused(f"params/{path.name}: {file} cannot be imported ({reason}).") from problem


def _check(path: Path, profile: Profile) -> None:
    """Refuse data, networks, schedules and trainings that do not exist or do not fit."""
    for part in ("trainings", "rivals"):
        for key, value in getattr(profile, part).items():
            of_kind(path, f"{part}: {key}", value, dict)
    if "name" not in profile.data:
        _same_keys(path, "data", profile.data, {"name"}, datasets.CAPS)
    try:
        datasets.refuse_unknown(profile.data["name"])
    except errors.Refused as problem:
        raise _named(profile, problem) from None
    _same_keys(path, "data", profile.data, *datasets.arguments(profile.data["name"]))
    _same_keys(path, "network", profile.network, ON_NETWORK | {"arithmetic"})
    required = {name for name, is_required in SCHEDULE.items() if is_required}
    _same_keys(path, "schedule", profile.schedule, required, set(SCHEDULE) - required)
    for training, options in profile.trainings.items():
        if "imported" in options or "dataset" in options:
            part = f"the imported training {training}"
            _same_keys(path, part, options, {"imported", "dataset"}, {"h", "lam", "preset"})
    if not profile.seeds:
        raise errors.Refused(f"{profile.origin}: seeds is empty; there must be one at least.")
    try:
        errors.distinct("seeds", profile.seeds)
    except errors.Refused as problem:
        raise _named(profile, problem) from None
    if missing := NEEDED - set(profile.trainings):
        raise errors.Refused(
            f"{profile.origin}: trainings lacks {', '.join(sorted(missing))}, which the claims compare."
        )
    if twice := set(profile.trainings) & set(profile.rivals):
        raise errors.Refused(f"{profile.origin}: {', '.join(sorted(twice))} stand under both trainings and rivals.")
    try:
        for training in profile.trainings | profile.rivals:
            profile.experiments(training)
    except errors.Refused as problem:
        raise _named(profile, problem) from None


def _named(profile: Profile, problem: errors.Refused) -> errors.Refused:
    """The same refusal in a sentence that begins with the name of the file."""
    sentence = str(problem).removeprefix(f"{profile.origin}: ")
    return errors.Refused(f"{profile.origin}: {sentence}")


def of_imported(name: str, network: str, data: dict, trainings: dict[str, dict]) -> Path:
    """Write params/`name`.yml, the profile "paper" with imported networks in place of some trainings, and check it.

    `network` and `data` are those of the imported networks; `trainings` maps a training to its entries `imported` and
    `dataset`.  params/templates/released.yml says what else differs: as the released files have one λ, nothing is
    swept.  Returns the path.  A profile that `load` refuses is removed again.
    """
    paper, template = read(paths.PARAMS / "paper.yml"), paths.PARAMS / "templates" / "released.yml"
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
        "notebooks": {a: paper["notebooks"].get(a, {}) | values for a, values in changes["notebooks"].items()},
    }
    path = paths.PARAMS / f"{name}.yml"
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=1000)
    path.write_text(text, encoding="utf-8")  # each table in one line: the Makefile reads the cost
    load.cache_clear()
    try:
        load(name)
    except errors.Refused:
        path.unlink()
        raise
    return path


def family(name: str) -> list[str]:
    """The name of a profile, then the names of those that have it as their base."""

    def base(other: str) -> str | None:
        try:
            content = read(paths.PARAMS / f"{other}.yml")
        except errors.Refused:  # `load` refuses this file; it does not concern the others
            return None
        return content.get("base") if isinstance(content, dict) else None

    return [name] + [other for other in names() if base(other) == name]


def _same_keys(path: Path, part: str, table: Any, required: set[str], optional: set[str] = frozenset()) -> None:
    """Refuse a table without one of the `required` keys, or with a key that is neither required nor optional."""
    keys = set(table) if isinstance(table, dict) else set()
    missing, unknown = sorted(required - keys), sorted(keys - required - optional)
    problems = []
    if missing:
        problems.append(f"lacks {', '.join(missing)}")
    if unknown:
        problems.append(f"has no use for {', '.join(unknown)}")
    if problems:
        allowed = ", ".join(sorted(required | optional))
        raise errors.Refused(f"params/{path.name}: {part} {' and '.join(problems)}. It takes: {allowed}.")
