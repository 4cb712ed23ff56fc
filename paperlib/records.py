"""The record of an artifact: its numbers and their provenance.  It is strict JSON, with a CSV of the rows beside it.

{"artifact": "tab-ablation", "schema": 3,
 "provenance": {"profile", "parameters", "data", "recipe", "arithmetic", "code", "clean", "packages",
                "device"},
 "words": {"trainings": {name: {"title", "colour"}}, "attacks": {name: title}},      (for the names in the rows)
 "rows": [{"quantity": "accuracy", ...labels: training, attack, eps_255, ...,
           "value", "low", "high", "over", "method", "n", "seeds", "experiments",
           "published": null or {"value", "source"},
           "p": two-sided p-value of the value 0, or of the label `mark`,  (only where there is one)
           "doubts": [reason and remedy, ...]}],                     (only where a sanity check has failed)
 "arrays": {name: nested lists}}                                     (only where a figure needs them)

`low` and `high` are a 95 % interval, and `over` says what it is taken over: "seeds and samples", "seeds", "samples",
"pairs", "draws", "networks", "configurations" (networks of one training and λ), "steps"; null where there is none.  NaN
and infinity are stored as null.  Seconds, host and date differ between runs, so they are kept apart in `*.run.json`:
equal numbers give equal bytes.
"""

import csv
import io
import json
import math
import platform
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np

from paperlib import paths, words
from paperlib.errors import Refused
from paperlib.files import as_json, plain, reason, write_atomically

SCHEMA = 3
MEASURED = ("value", "low", "high", "over", "method", "n")
FIELDS = (*MEASURED, "seeds", "experiments", "published")
OPTIONAL = P, DOUBTS = ("p", "doubts")  # fields that a row may lack; all keys of a row that are no fields are labels
TIMED = "timed"  # the label of rows that hold seconds, which differ between any two runs
PROVENANCE = ("profile", "parameters", "data", "recipe", "arithmetic", "code", "clean", "packages", "device")
PACKAGES = ("torch", "torchvision", "snntorch", "numpy", "scipy", "matplotlib", "seaborn", "papermill", "jupytext")
OUTPUTS = ("results", "figures", "*.ipynb")  # made by runs and committed: `code_version` ignores changes to them


def row(interval, *, seeds, experiments, published=None, doubts=(), **labels) -> dict:
    """One row: its labels, and the fields of `interval`, an object with the attributes `MEASURED`.

    `seeds` and `experiments` (keys) say which networks were measured, `doubts` why the number may be wrong.
    """
    if reserved := [key for key in labels if key in (*FIELDS, P)]:
        raise Refused(f"{', '.join(reserved)} cannot be labels: every row has fields of these names.")
    fields = {field: getattr(interval, field) for field in MEASURED}
    if math.isnan(fields["low"]):
        fields["over"] = None
    fields |= {"seeds": seeds, "experiments": experiments, "published": published}
    if not math.isnan(p := getattr(interval, P, math.nan)):
        fields[P] = p
    return plain(labels | fields | ({DOUBTS: list(doubts)} if doubts else {}))


def array(values, digits: int = 4) -> list:
    """`values` of any shape as nested lists; floats are rounded to `digits` significant digits."""
    values = np.asarray(values)
    if values.dtype.kind == "f":
        values = np.array([float(f"{v:.{digits}g}") for v in values.flat]).reshape(values.shape)
    return plain(values)


def build(artifact: str, *, profile, parameters, data, recipe, arithmetic, device, rows, arrays=None) -> dict:
    """A checked record of `rows` with its provenance and words; `data` holds at least the data's title and sha256."""
    code, clean = code_version()
    provenance = {"profile": profile, "parameters": parameters, "data": data, "recipe": recipe}
    provenance |= {"arithmetic": arithmetic, "code": code, "clean": clean, "packages": packages(), "device": device}
    trainings = {row[name] for row in rows for name in ("training", "against", "made_on") if name in row}
    attacks = {row[name] for row in rows for name in ("attack", "reference_attack", "noise") if name in row}
    record = {"artifact": artifact, "schema": SCHEMA, "provenance": provenance}
    record |= {"words": words.known(trainings, attacks), "rows": rows}
    return check(plain(record | ({"arrays": arrays} if arrays else {})))


def check(record: dict) -> dict:
    """Return `record` if it follows the schema; else `Refused` is raised, with the row and its fault."""
    if not isinstance(record, dict) or record.get("schema") != SCHEMA or not isinstance(record.get("artifact"), str):
        raise Refused(f"This is no record: a dict with 'schema' {SCHEMA} and the name of its 'artifact'.")
    kinds = {"rows": list, "provenance": dict, "words": dict}
    if not all(isinstance(record.get(key), kind) for key, kind in kinds.items()):
        raise Refused(f"Record {record['artifact']} needs a list 'rows' and the dicts 'provenance' and 'words'.")
    if missing := [key for key in PROVENANCE if key not in record["provenance"]]:
        raise Refused(f"Record {record['artifact']}: its provenance lacks {', '.join(missing)}.")
    for i, entry in enumerate(record["rows"]):
        if fault := _fault(entry):
            raise Refused(f"Record {record['artifact']}, row {i} ({label(entry)}): {fault}.")
    by_labels(record)
    return record


def _fault(entry) -> str | None:
    """What is wrong with a row; None if nothing is."""
    if missing := [field for field in FIELDS if not isinstance(entry, dict) or field not in entry]:
        return f"it lacks {', '.join(missing)}"
    rules = dict.fromkeys(("value", "low", "high"), (_is_number_or_null, "a finite number or null"))
    rules |= dict.fromkeys(("seeds", "experiments", DOUBTS), (lambda given: isinstance(given, list), "a list"))
    rules["over"] = (lambda given: given is None or isinstance(given, str), "text or null")
    rules["method"] = (lambda given: isinstance(given, str), "text")
    rules["n"] = (lambda given: type(given) is int and given >= 0, "a count")
    rules[P] = (lambda given: _is_number_or_null(given) and given is not None and 0 <= given <= 1, "between 0 and 1")
    rules["published"] = (_is_published, "null, or a dict of a number 'value' and its 'source'")
    for field, (follows, needed) in rules.items():
        if field in entry and not follows(entry[field]):
            return f"{field} is {entry[field]!r}; it must be {needed}"
    return None


def _is_number_or_null(given) -> bool:
    return given is None or (isinstance(given, (int, float)) and not isinstance(given, bool) and math.isfinite(given))


def _is_published(given) -> bool:
    value, source = (given.get("value"), given.get("source")) if isinstance(given, dict) else (None, None)
    return given is None or (value is not None and _is_number_or_null(value) and bool(source))


def save(record: dict, path) -> None:
    """Check `record`, then write it to `path` (.json), and its rows to a .csv of the same name, each atomically."""
    text = as_json(check(record))
    write_atomically(Path(path).with_suffix(".csv"), _csv(record["rows"]).encode())
    write_atomically(path, text.encode())


def load(path) -> dict:
    """The checked record at `path`; its words are passed to `words.learn`.  Refuses whatever is no record."""
    name = paths.shown(Path(path))
    try:
        record = check(json.loads(Path(path).read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise Refused(f"{name}: there is no such record; build its artifact first.") from error
    except OSError as error:
        raise Refused(f"{name}: cannot be read ({reason(error)}).") from error
    except Refused as error:
        raise Refused(f"{name}: {error}") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested too deeply
        damage = f"damaged, not valid JSON ({error})"
        raise Refused(f"{name}: {damage}. Delete it and build its artifact again.") from error
    words.learn(record["words"])
    return record


def save_run(path, *, seconds: float) -> None:
    """Write `<artifact>.run.json` beside the record at `path`: what differs between runs that give equal numbers."""
    date = datetime.now(UTC).isoformat(timespec="seconds")
    run = {"seconds": seconds, "host": platform.node(), "date": date, "python": platform.python_version()}
    write_atomically(Path(path).with_suffix(".run.json"), as_json(run).encode())


def code_version(root=paths.ROOT) -> tuple[str, bool | None]:
    """Git commit of the checkout at `root`, and whether its tracked files are unchanged, apart from `OUTPUTS`.

    ("unknown", None) without git, and where `root` is not the top of a checkout but may lie inside another's.
    """

    def git(*arguments):
        command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != Path(root).resolve():
            return "unknown", None
        excluded = [f":(exclude){output}" for output in OUTPUTS]
        changes = git("status", "--porcelain", "--untracked-files=no", "--", ".", *excluded)
        return git("rev-parse", "--verify", "HEAD"), not changes
    except (OSError, subprocess.CalledProcessError):
        return "unknown", None


def packages() -> dict[str, str]:
    """Versions of Python and of the packages that can change a number or a figure; absent ones are left out."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def label(entry) -> str:
    """A row's labels as text: "accuracy, training SR, eps 0.03137, seeds 0 1"."""
    labels = _labels(entry) if isinstance(entry, dict) else {}
    return ", ".join(_text(value) if key == "quantity" else f"{key} {_text(value)}" for key, value in labels.items())


def by_labels(record: dict) -> dict[str, dict]:
    """The rows by their labels, whose order does not matter; refused where two have the same."""
    rows = {}
    for entry in record["rows"]:
        key = json.dumps(_labels(entry), sort_keys=True)
        if key in rows:
            raise Refused(f"Record {record['artifact']} has two rows ({label(entry)}); a label must tell them apart.")
        rows[key] = entry
    return rows


def _labels(entry: dict) -> dict:
    """A row's labels, and its seeds, which tell rows apart as well."""
    return {key: value for key, value in entry.items() if key == "seeds" or key not in (*FIELDS, *OPTIONAL)}


def _csv(rows: list[dict]) -> str:
    """A table with a column for each key of any row, and one for the source of a published value."""
    lines = []
    for entry in rows:
        published = entry["published"] or {}
        cells = entry | {"published": published.get("value"), "published_source": published.get("source")}
        lines.append({key: " ".join(map(str, cell)) if isinstance(cell, list) else cell for key, cell in cells.items()})
    table = io.StringIO()
    writer = csv.DictWriter(table, dict.fromkeys(key for line in lines for key in line), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return table.getvalue()


def _text(value) -> str:
    if isinstance(value, list):
        return " ".join(map(_text, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
