"""Records → the report of a profile, REPORT.md and REPORT.html: the claims first, then every artifact."""

import csv
import os

from markdown_it import MarkdownIt

from paperlib import artifacts, errors, files, paths, records
from paperlib.artifacts import claims, comparison

READING_ORDER = (
    *("fig-random-vs-adversarial", "tab-ablation", "tab-cost", "fig-attack-ladder", "tab-masking-checklist"),
    *("tab-whitebox", "tab-blackbox", "fig-gradient-maps", "fig-spikes", "thm-ratio", "prop-finite-difference"),
    *("fig-lambda", "fig-sr-variants", "fig-timesteps-and-leak", "fig-landscape", "fig-surrogate-width"),
    *("tab-poisson-eot", "tab-events", "fig-random-vs-adversarial-events", "fig-spikes-events"),
)

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ max-width: 62rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.55 system-ui, sans-serif; color: #222; }}
img {{ max-width: 100%; }}
table {{ border-collapse: collapse; font-size: .85rem; display: block; overflow-x: auto; }}
td, th {{ border-bottom: 1px solid #ddd; padding: .3rem .7rem; text-align: left; vertical-align: top; }}
code {{ background: #f4f4f4; padding: 0 .2em; }}
</style></head><body>
{body}</body></html>
"""


def write(profile: str, title: str) -> list[str]:
    """Write the profile's report, and return the artifacts without a record, which it marks as gaps.

    It opens with a comparison with the committed run, if there is one.  Whoever commits new records writes the report
    once more after the commit and amends that: only then does it say "identical", as it will for everybody else.
    """
    folder, found, gaps, sections = paths.RESULTS / profile, {}, [], []
    opening = _opening(profile)  # first, because it learns words of committed records
    for artifact in reading_order():
        try:
            found[artifact] = records.load(folder / f"{artifact}.json")
        except errors.Refused as problem:
            gaps.append(artifact)
            sections.append(_gap(artifact, profile, str(problem)))
        else:
            sections.append(_section(found[artifact], profile))
    begin = f"# What was measured: profile `{profile}`\n\n{opening}"
    begin += f"{title}. Every number below is rendered from the records in this folder."
    text = "\n\n".join([begin, "## The claims", _ledger(found), *sections, "## Published by others", _published()])
    files.write_atomically(folder / "REPORT.md", (text + "\n").encode())
    html = MarkdownIt("commonmark").enable("table").render(text)
    page = PAGE.format(title=f"Companion report, profile {profile}", body=html)
    files.write_atomically(folder / "REPORT.html", page.encode())
    return gaps


def _opening(profile: str) -> str:
    """How this run compares with the committed one, or nothing without one; free of whatever differs between machines.

    Seconds differ, but the sentence only counts them.
    """
    compared = comparison.of(profile, reading_order())
    if compared is None:
        return ""
    hint = f" `make compare PROFILE={profile}` shows what differs." if compared.differences() else ""
    return f"Beside the committed run: {compared.first_line()}{hint}\n\n"


def reading_order() -> list[str]:
    """Every artifact that has a notebook, in reading order; those that `READING_ORDER` lacks come last."""
    names = {name for name in paths.notebooks() if artifacts.source(name)}
    return [name for name in READING_ORDER if name in names] + sorted(names - set(READING_ORDER))


def _ledger(artifact_records: dict[str, dict]) -> str:
    lines = ["| claim | what it says | verdict | what was measured |", "|---|---|---|---|"]
    for claim, verdict, reason in claims.verdicts(artifact_records):
        lines.append(f"| {claim.id} | {claim.statement} | **{verdict}** | {reason} |")
    return "\n".join(lines)


def _gap(artifact: str, profile: str, reason: str) -> str:
    failed = paths.BUILD / profile / f"{artifact}.failed.ipynb"
    text = f"## `{artifact}`\n\n**Gap.** {reason}"
    return f"{text} Its notebook failed; the evidence is `{paths.shown(failed)}`." if failed.exists() else text


def _section(record: dict, profile: str) -> str:
    """The figures, the finding, the tables and the provenance of an artifact."""
    artifact = record["artifact"]
    blocks = [f"## `{artifact}`"]
    for part in artifacts.parts(artifact):
        figure = os.path.relpath(paths.figure(profile, artifact, part), paths.RESULTS / profile)
        finding = "" if part else claims.finding(record)
        blocks += [f"![{artifacts.headline(record, part)}]({figure})", finding, artifacts.table(record, part)]
    return "\n\n".join(filter(None, [*blocks, _provenance(record)]))


def _provenance(record: dict) -> str:
    provenance = record["provenance"]
    data, code = provenance["data"], provenance["code"][:12]
    tree = {True: "clean tree", False: "changed tree", None: "outside git"}[provenance["clean"]]
    packages = ", ".join(f"{name} {version}" for name, version in provenance["packages"].items())
    parameters = ", ".join(f"{name} = {value}" for name, value in provenance["parameters"].items())
    return (
        f"Provenance: code `{code}` ({tree}), recipe {provenance['recipe']}, "
        f"{provenance['arithmetic']} arithmetic, device {provenance['device']}, "
        f"data {data['title']} (sha256 `{data['sha256'][:12]}`); {parameters}; {packages}."
    )


def _published() -> str:
    """A table of numbers from other papers, on other networks and data, each with its source."""
    lines = ["Not measured here, and on other networks and data than the tables above; each with its source.", ""]
    lines += ["| data | network | training | attack | ε | value, % | source |", "|---|---|---|---|---|---|---|"]
    with (paths.PUBLISHED / "numbers.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            cells = (row[name] for name in ("data", "network", "training", "attack", "eps", "value", "source"))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
