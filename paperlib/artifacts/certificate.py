"""The certificate of a run that was made again: results/<profile>/CERTIFICATE.md, and codecheck.yml at the top.

codecheck.yml follows the CODECHECK configuration file specification 2.0, https://codecheck.org.uk/spec/config/2.0/.
"""

import json
import os
import platform
import subprocess
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import yaml

from paperlib import arithmetic, artifacts, files, paths, records
from paperlib.artifacts import comparison
from paperlib.artifacts.comparison import Comparison
from paperlib.errors import Refused

GAP = "FIXME"  # CODECHECK's tools refuse a configuration that still holds it
BY_HAND = ("paper", "codechecker", "report", "certificate", "repository")  # kept when codecheck.yml is written again


def write(profile: str, names: Sequence[str]) -> tuple[Comparison, Path, Path]:
    """Compare these artifacts with the committed run and write both files; returns the comparison and their paths.

    Refuses where no run is committed, and records that no run in this checkout has made.
    """
    compared, folder = comparison.of(profile, names), paths.RESULTS / profile
    if compared is None:
        raise Refused(f"No run of profile {profile} is committed here; there is nothing to compare with.")
    readable = [artifact.name for artifact in compared.artifacts if not artifact.loss]
    found = {name: records.load(folder / f"{name}.json") for name in readable if (folder / f"{name}.json").exists()}
    foreign = comparison.not_made_here(profile, names)
    if foreign or not found:
        missing = ", ".join(foreign) or f"profile {profile}"
        raise Refused(
            f"No run in this checkout has made the records of {missing}; make reproduce PROFILE={profile} does."
        )
    page, configuration = folder / "CERTIFICATE.md", paths.ROOT / "codecheck.yml"
    now = datetime.now(UTC)
    listed = _files(profile, found)
    files.write_atomically(page, _page(profile, compared, found, list(listed), now).encode())
    entries = _codecheck(profile, compared, listed, now) | _filled_in(configuration)
    text = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=110)
    files.write_atomically(configuration, f"---\n# {GAP} marks what has to be filled in by hand.\n{text}".encode())
    return compared, page, configuration


def _files(profile: str, found: dict[str, dict]) -> dict[Path, str]:
    """Every record and figure of the run, with what it holds."""
    listed = {}
    for name, record in found.items():
        listed[paths.RESULTS / profile / f"{name}.json"] = f"numbers of {name}"
        for part in artifacts.parts(name):
            if (figure := paths.figure(profile, name, part)).is_file():
                listed[figure] = artifacts.headline(record, part)
    return listed


def _page(profile: str, compared: Comparison, found: dict[str, dict], listed: list[Path], now: datetime) -> str:
    """Markdown: the comparison, where and with what the run was made, a digest of every file."""
    blocks = [f"# Profile `{profile}`, made again", compared.first_line(), f"**{compared.last_line()}**"]
    if differences := compared.differences():
        blocks += ["## What differs", "\n".join(f"* {line}" for line in differences)]
    facts = "\n".join(f"| {name} | {fact} |" for name, fact in _facts(profile, found, now).items())
    blocks += ["## Where, when and with what", f"| | |\n|---|---|\n{facts}"]
    digests = [f"| `{paths.shown(path)}` | `{files.sha256(path.read_bytes())}` |" for path in listed]
    blocks += ["## Digests", "\n".join(["| file | SHA-256 |", "|---|---|", *digests])]
    return "\n\n".join(blocks) + "\n"


def _facts(profile: str, found: dict[str, dict], now: datetime) -> dict[str, str]:
    runs = [_run(paths.RESULTS / profile / f"{name}.run.json") for name in found]
    minutes = sum(run["seconds"] for run in runs) / 60
    provenance = [record["provenance"] for record in found.values()]
    tree = {True: "clean tree", False: "changed tree", None: "outside git"}
    packages = {}
    for given in provenance:
        for name, version in given["packages"].items():
            packages.setdefault(name, {})[version] = None
    system = platform.system()
    with suppress(OSError):
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    elsewhere = sum(run["host"] != platform.node() for run in runs)
    return {
        "processor": f"{arithmetic.processor()}, {os.cpu_count()} cores",
        "operating system": system,
        "kernel": f"{platform.system()} {platform.release()} ({platform.machine()})",
        "Python": platform.python_version(),
        "packages": ", ".join(f"{name} {' and '.join(versions)}" for name, versions in packages.items()),
        "arithmetic": ", ".join(dict.fromkeys(given["arithmetic"] for given in provenance)),
        "device": ", ".join(dict.fromkeys(given["device"] for given in provenance)),
        "notebooks made on another machine": f"{elsewhere} of {len(runs)}",
        "made from": f"{min(run['date'] for run in runs)} to {max(run['date'] for run in runs)}",
        "time taken": f"{minutes:.1f} minutes for all notebooks; trainings not counted",
        "code of the run": ", ".join(dict.fromkeys(f"`{p['code']}` ({tree[p['clean']]})" for p in provenance)),
        "compared with": f"`{records.code_version(paths.ROOT)[0]}`",
        "certified": now.isoformat(timespec="seconds"),
        "by": _person(),
    }


def _run(path: Path) -> dict:
    """When and where a record was made, and how long that took; refuses a damaged file."""
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        return {key: run[key] for key in ("seconds", "host", "date")}
    except (ValueError, TypeError, KeyError) as problem:
        raise Refused(f"{paths.shown(path)} is damaged; build its artifact again.") from problem


def _codecheck(profile: str, compared: Comparison, listed: dict[Path, str], now: datetime) -> dict:
    """The entries of codecheck.yml."""
    cited = yaml.safe_load((paths.ROOT / "CITATION.cff").read_text(encoding="utf-8"))["references"][0]
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [f"{author['given-names']} {author['family-names']}" for author in cited["authors"]]
    manifest = [{"file": path.relative_to(paths.ROOT).as_posix(), "comment": text} for path, text in listed.items()]
    address = project["urls"]["Repository"]
    return {
        "version": "https://codecheck.org.uk/spec/config/2.0/",
        "paper": {
            "title": cited["title"],
            "authors": [{"name": name, "ORCID": GAP} for name in names],
            "reference": cited["url"],
        },
        "manifest": manifest,
        "codechecker": [{"name": _person(), "ORCID": GAP}],
        "summary": f"Profile {profile} of an independent companion. {compared.first_line()} {compared.last_line()}",
        "repository": GAP if "OWNER" in address else address,
        "check_time": now.strftime("%Y-%m-%d %H:%M:%S"),
        "certificate": GAP,
        "report": GAP,
    }


def _filled_in(configuration: Path) -> dict:
    """What an earlier codecheck.yml has under the keys `BY_HAND`."""
    if not configuration.exists():
        return {}
    try:
        before = yaml.safe_load(configuration.read_text(encoding="utf-8"))
        return {key: before[key] for key in BY_HAND if key in before}
    except (yaml.YAMLError, TypeError, UnicodeDecodeError) as problem:
        raise Refused(f"{paths.shown(configuration)} is no CODECHECK configuration; move it away.") from problem


def _person() -> str:
    """The name that git knows, or a gap."""
    try:
        command = ["git", "-C", str(paths.ROOT), "config", "user.name"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or GAP
    except OSError:
        return GAP
