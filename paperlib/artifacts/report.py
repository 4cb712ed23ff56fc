"""Records → one page per profile, REPORT.md and REPORT.html: the claims first, then every artifact."""

import csv
import os
from pathlib import Path

from markdown_it import MarkdownIt

from paperlib import artifacts, errors, files, paths, records
from paperlib.artifacts import claims

READING_ORDER = (
    "fig-random-vs-adversarial",
    "tab-ablation",
    "tab-cost",
    "fig-attack-ladder",
    "tab-masking-checklist",
    "tab-whitebox",
    "tab-blackbox",
    "fig-gradient-maps",
    "thm-ratio",
    "prop-finite-difference",
    "fig-lambda",
    "fig-sr-variants",
    "fig-timesteps-and-leak",
    "fig-landscape",
    "fig-surrogate-width",
    "tab-poisson-eot",
    "tab-events",
    "fig-random-vs-adversarial-events",
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
    """Write the profile's report; returns the artifacts that have no record, which are marked as gaps in it."""
    folder = paths.RESULTS / profile
    found, gaps = {}, {}
    for artifact in reading_order():
        try:
            found[artifact] = records.load(folder / f"{artifact}.json")
        except errors.Refused as problem:
            gaps[artifact] = str(problem)
    text = "\n\n".join(
        [
            f"# What was measured: profile `{profile}`",
            f"{title}. Every number below is rendered from the records in this folder.",
            "## The claims",
            _ledger(found),
            *(_section(a, found.get(a), folder, profile, gaps.get(a)) for a in reading_order()),
            "## Published by others",
            _published(),
        ]
    )
    files.write_atomically(folder / "REPORT.md", (text + "\n").encode())
    html = MarkdownIt("commonmark").enable("table").render(text)
    page = PAGE.format(title=f"Companion report, profile {profile}", body=html)
    files.write_atomically(folder / "REPORT.html", page.encode())
    return list(gaps)


def reading_order() -> list[str]:
    """Every artifact that has a notebook, in reading order; those of others come last."""
    there = {name for name in paths.notebooks() if artifacts.source(name)}
    return [a for a in READING_ORDER if a in there] + sorted(there - set(READING_ORDER))


def _ledger(found: dict[str, dict]) -> str:
    lines = ["| claim | what it says | verdict | what was measured |", "|---|---|---|---|"]
    for claim, verdict, reason in claims.verdicts(found):
        lines.append(f"| {claim.id} | {claim.statement} | **{verdict}** | {reason} |")
    return "\n".join(lines)


def _section(artifact: str, record: dict | None, folder: Path, profile: str, gap: str | None) -> str:
    heading = f"## `{artifact}`"
    if record is None:
        failed = paths.BUILD / profile / f"{artifact}.failed.ipynb"
        evidence = (
            f" Its notebook failed; the evidence is `{failed.relative_to(paths.ROOT)}`." if failed.exists() else ""
        )
        return f"{heading}\n\n**Gap.** {gap}{evidence}"
    blocks = [heading]
    for part in artifacts.parts(artifact):
        figure = paths.figure(profile, artifact, part)
        blocks.append(f"![{artifacts.headline(record, part)}]({os.path.relpath(figure, folder)})")
        blocks += [] if part else [claims.finding(record)]
        blocks.append(artifacts.table(record, part))
    return "\n\n".join(block for block in [*blocks, _provenance(record)] if block)


def _provenance(record: dict) -> str:
    p = record["provenance"]
    tree = {True: "clean tree", False: "changed tree", None: "outside git"}[p["clean"]]
    packages = ", ".join(f"{name} {version}" for name, version in p["packages"].items())
    parameters = ", ".join(f"{name} = {value}" for name, value in p["parameters"].items())
    return (
        f"Provenance: code `{p['code'][:12]}` ({tree}), recipe {p['recipe']}, device {p['device']}, "
        f"data {p['data']['title']} (sha256 `{p['data']['sha256'][:12]}`); {parameters}; {packages}."
    )


def _published() -> str:
    """Numbers of other papers, each with its source; none of them was measured here or on the same network."""
    lines = ["Not measured here, and on other networks and data than the tables above; each with its source.", ""]
    lines += ["| data | network | training | attack | ε | value, % | source |", "|---|---|---|---|---|---|---|"]
    with (paths.PUBLISHED / "numbers.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            cells = (row[name] for name in ("data", "network", "training", "attack", "eps", "value", "source"))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
