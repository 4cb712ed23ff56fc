"""What each claim costs, read off what runs have recorded: minutes of trainings, attacks and notebook, and megabytes.

    python benchmarks/claims.py              print the table for the profile laptop as it is built here
    python benchmarks/claims.py --write      and put it into ARTIFACT.md

An epoch's seconds stand in a network's history, an attack's in the file of its flags, a notebook's beside its record
(*.run.json).  Nothing is timed now.  Where something is missing there is a dash: only a whole build tells all.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from paperlib import arithmetic, artifacts, files, paths, profiles
from paperlib.artifacts import claims
from paperlib.attacks.attack import Attack
from paperlib.attacks.ensembles import Beginning, Transfer, members
from paperlib.runs import plan
from paperlib.runs.run import Request
from paperlib.store.evaluations import is_evaluated
from paperlib.store.experiment import AnyExperiment

PROFILE = "laptop"
PAGE = paths.ROOT / "ARTIFACT.md"
PART = r"(?<=<!-- costs -->\n).*?(?=<!-- /costs -->)"
DESCRIBED = ("attack", "source", "samples", "split")  # entries by which the files of a network's attacks differ
HEAD = ("claim of the paper", "command", "what to look at", "trainings, min", "attacks, min", "notebook, min", "MB")


def table() -> str:
    """The table of all claims as Markdown, and a line that says what was summed."""
    profile = profiles.load(PROFILE)
    lines = [f"| {' | '.join(HEAD)} |", "|---|---|---|--:|--:|--:|--:|"]
    for artifact in dict.fromkeys(claim.artifact for claim in claims.LEDGER):
        requests = plan.requests(profile, artifact)
        networks = rests_on(requests)
        record = paths.RESULTS / PROFILE / f"{artifact}.json"
        costs = (
            minutes(map(training_seconds, networks)),
            minutes(attack_seconds(requests).values()),
            minutes([_content(record.with_suffix(".run.json")).get("seconds")]),
            megabytes([*(e.folder for e in networks), record, *_figures(artifact)]),
        )
        for name in named(artifact):
            shown = f"`make {artifact}`", f"`results/{PROFILE}/{record.name}`"
            lines.append(f"| {' | '.join((name, *shown, *costs))} |")
    everything = minutes(map(training_seconds, plan.of(profile).networks))
    said = f"Minutes of one core as runs of `{PROFILE}` recorded them on {arithmetic.processor()}"
    return "\n".join(lines) + f"\n\n{said}; all trainings of the profile together took {everything} minutes.\n"


def named(artifact: str) -> list[str]:
    """The claims that an artifact decides: "C2: the statement; the networks", a line for each number of a claim."""
    parts: dict[str, list[str]] = {}
    for claim in claims.LEDGER:
        if claim.artifact == artifact:
            number, _, part = claim.id.partition(", ")
            parts.setdefault(number, []).append(part or claims.PAPER[number].rstrip("."))
    return [f"{number}: {'; '.join(own)}" for number, own in parts.items()]


def rests_on(requests: list[Request]) -> list[AnyExperiment]:
    """The networks that a notebook asks for, and those on which transferred examples are made, each once."""
    networks = [experiment for request in requests for experiment in request.networks]
    for request in requests:
        for experiment in request.networks:
            for attack in request.attacks_on(experiment):
                networks += [member.source for member in members(attack) if isinstance(member, Transfer)]
    return list({experiment.key: experiment for experiment in networks}.values())


def training_seconds(experiment: AnyExperiment) -> float | None:
    """The seconds of all epochs of a network; None where there is no history."""
    path = experiment.folder / "history.jsonl"
    return sum(json.loads(line)["seconds"] for line in path.read_text().splitlines()) if path.exists() else None


def attack_seconds(requests: list[Request]) -> dict[tuple[str, str], float | None]:
    """The seconds of each attack that a notebook asks for, by network and description; None where it is not on disk.

    They are 0 where no sample was left for a member of an ensemble, which then has no file.
    """
    found = {}
    for request in requests:
        for experiment in request.networks:
            for attack in request.attacks_on(experiment):
                known = is_evaluated(experiment, attack, samples=request.samples, split=request.split)
                for member in (None, *members(attack)):
                    found.setdefault((experiment.key, described(member, request)), 0.0 if known else None)
    for key in {key for key, _ in found}:
        for path in (paths.CHECKPOINTS / key / "evaluations").glob("*.json"):
            content = _content(path)
            own = json.dumps({name: content[name] for name in DESCRIBED if name in content}, sort_keys=True)
            if (key, own) in found:
                found[key, own] = content["seconds"]
    return found


def described(member: Attack | Transfer | None, request: Request) -> str:
    """`DESCRIBED` of one attack, as the file of its flags holds them, in JSON."""
    source = {"source": member.source.key} if isinstance(member, Transfer) else {}
    attack = member.attack if isinstance(member, Transfer) else member
    attack = attack.whole if isinstance(attack, Beginning) else attack  # it is read off the longer run
    content = {"attack": None if attack is None else asdict(attack), "samples": request.samples, "split": request.split}
    return json.dumps(json.loads(files.as_json(content | source)), sort_keys=True)


def minutes(seconds: Iterable[float | None]) -> str:
    """Their sum in minutes with one decimal; a dash where one is not known."""
    seconds = list(seconds)
    return "–" if None in seconds else f"{sum(seconds) / 60:.1f}"


def megabytes(places: Iterable[Path]) -> str:
    """The size of all files in these folders, and of these files, in MB."""
    found = {file for place in places for file in (place.rglob("*") if place.is_dir() else [place]) if file.is_file()}
    return f"{sum(file.stat().st_size for file in found) / 1e6:.1f}"


def _figures(artifact: str) -> list[Path]:
    return [paths.figure(PROFILE, artifact, part) for part in artifacts.parts(artifact)]


def _content(path: Path) -> dict:
    """The content of a JSON file; {} if there is none, or if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser("python benchmarks/claims.py", description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into ARTIFACT.md")
    made = table()
    if parser.parse_args().write:
        text = re.sub(PART, lambda _: made, PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
        files.write_atomically(PAGE, text.encode())
    print(made, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
