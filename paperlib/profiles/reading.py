"""Reading files under params/ without torch: their names, their entries, and what they give to notebooks."""

from pathlib import Path
from typing import Any

import yaml

from paperlib import arithmetic, errors, paths
from paperlib.profiles import parameters

MOST = 100_000  # values in a file; the largest here has a few hundred
TABLES = ("trainings", "rivals", "notebooks")  # they add their entries to those of the base


def names() -> list[str]:
    """The names of all profiles."""
    return sorted(path.stem for path in paths.PARAMS.glob("*.yml"))


def origin(profile: str) -> str:
    """The file of a profile, as messages name it."""
    return f"params/{profile}.yml"


def content_of(name: str) -> Any:
    """The entries of params/`name`.yml; only `files.load` checks them.

    A file with a `base` has the entries of that profile unless it gives its own.  Its tables `trainings`, `rivals` and
    `notebooks` add to those of the base, entry by entry; an empty table removes all entries of the base.  Its `imports`
    follow those of the base.
    """
    path = paths.PARAMS / f"{name}.yml"
    content = read(path)
    return _with_base(path, content) if isinstance(content, dict) and "base" in content else content


def arithmetic_of(profile: str) -> str:
    """The arithmetic of a profile's network; "portable" where there is none or no such (`files.load` refuses that)."""
    content = content_of(profile)
    network = content.get("network") if isinstance(content, dict) else None
    given = network.get("arithmetic") if isinstance(network, dict) else None
    return given if given in arithmetic.NAMES else arithmetic.PORTABLE


def given_to(artifact: str, profile: str, notebooks: dict[str, dict]) -> dict[str, Any]:
    """All parameters of a notebook; `notebooks` is the table of that name in the profile's file.

    Refuses names that the notebook does not declare, and values of another type.
    """
    declared = parameters.declared(paths.notebook(artifact))
    given = notebooks.get(artifact, {}) | {"profile": profile}
    return parameters.check(artifact, declared, given, origin=origin(profile))


def parameters_of(profile: str, artifact: str) -> dict[str, Any]:
    """All parameters of a notebook in a profile, whose other entries are not checked; refuses what `given_to` does."""
    path, content = paths.PARAMS / f"{profile}.yml", content_of(profile)
    of_kind(path, "the profile", content, dict)
    notebooks = content.get("notebooks", {})
    of_kind(path, "notebooks", notebooks, dict)
    of_kind(path, f"notebooks: {artifact}", notebooks.get(artifact, {}), dict)
    return given_to(artifact, profile, notebooks)


def _with_base(path: Path, content: dict) -> dict:
    """The content of a profile with the entries of its base; a base has no base of its own."""
    base = content.pop("base")
    errors.one_of(f"base of params/{path.name}", base, [other for other in names() if other != path.stem])
    inherited = read(paths.PARAMS / f"{base}.yml")
    of_kind(path, f"base {base}", inherited, dict)
    merged = inherited | content
    for table in TABLES:
        entries = content.get(table)
        if entries and isinstance(entries, dict) and isinstance(inherited.get(table), dict):
            merged[table] = inherited[table] | entries
    imports = [part["imports"] for part in (inherited, content) if "imports" in part]
    if all(isinstance(files_, list) for files_ in imports):
        merged |= {"imports": [file for files_ in imports for file in files_]}
    return merged


class _Loader(yaml.SafeLoader):
    """YAML without what is lost silently or breaks later: a key that stands twice, or is no text."""

    def construct_mapping(self, node, deep=False):
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, name in enumerate(names):
            if not isinstance(name, str) or name in names[:number]:
                fault = "stands there twice" if isinstance(name, str) else "must be text"
                raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} {fault}", node.start_mark)
        return super().construct_mapping(node, deep)


def read(path: Path) -> Any:
    """The content of a YAML file; refuses what is not YAML, what `_Loader` does not take, and what is endless."""
    data = path.read_bytes()
    try:
        content = yaml.load(data.decode(), _Loader)
    except RecursionError:
        raise errors.Refused(f"params/{path.name} is nested too deeply.") from None
    except Exception as problem:  # of a value that does not fit its tag PyYAML tells by many types
        raise errors.Refused(f"params/{path.name} is not YAML: {' '.join(str(problem).split())}.") from None
    if _is_endless(content):
        raise errors.Refused(f"params/{path.name} stands for more than {MOST:,} values; are there aliases of aliases?")
    return content


def _is_endless(content: Any) -> bool:
    """Whether there are more than `MOST` values: a few lines of aliases may stand for more than any memory holds."""
    waiting, count = [content], 0
    while waiting and count <= MOST:
        value = waiting.pop()
        count += 1
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return count > MOST


def of_kind(path: Path, part: str, value: Any, kind: type) -> None:
    """Refuse a value that is not of the type `kind`."""
    if not isinstance(value, kind):
        kinds = {dict: "a table of keys and values", list: "a list", str: "text"}
        raise errors.Refused(f"params/{path.name}: {part} is {value!r}; it must be {kinds[kind]}.")
