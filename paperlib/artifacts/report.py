"""Records → the report of a profile, REPORT.md and REPORT.html: the claims first, then every artifact."""

import csv
import os
from collections.abc import Callable
from functools import wraps
from html import escape

from markdown_it import MarkdownIt

from paperlib import artifacts, errors, files, paths, records
from paperlib.artifacts import claims, comparison, contents

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ max-width: 62rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.55 system-ui, sans-serif; color: #222; }}
img {{ max-width: 100%; }}
figure {{ margin: 1.5rem 0 .5rem; }}
nav {{ columns: 16rem; background: #f4f4f4; padding: .5rem 1rem; }}
nav ul {{ margin: 0; padding-left: 1rem; }}
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
            record = records.load(folder / f"{artifact}.json")
            sections.append(_section(record, profile))
            found[artifact] = record
        except errors.Refused as problem:
            gaps.append(artifact)
            sections.append(gap(artifact, profile, str(problem)))
        except Exception as problem:  # a record may follow the schema and lack what its artifact shows
            gaps.append(artifact)
            sections.append(gap(artifact, profile, f"Its record cannot be shown ({_named(problem)})."))
    begin = f"# What was measured: profile `{profile}`\n\n{opening}"
    begin += f"{title}. Every number below is rendered from the records in this folder."
    text = "\n\n".join([begin, "## The claims", ledger(found), *sections, "## Published by others", published()])
    files.write_atomically(folder / "REPORT.md", (text + "\n").encode())
    page = PAGE.format(title=f"Companion report, profile {profile}", body=_html(text))
    files.write_atomically(folder / "REPORT.html", page.encode())
    return gaps


def _named(problem: Exception) -> str:
    """An exception in one line: "KeyError: 'title'"."""
    return " ".join(f"{type(problem).__name__}: {problem}".split())


def _or_gap(part: Callable[..., str]) -> Callable[..., str]:
    """Decorator of a function that returns a part of the report: where it fails, a marked gap takes its place."""

    @wraps(part)
    def made(*given) -> str:
        try:
            return part(*given)
        except Exception as problem:  # whatever the records and files hold, the rest of the report is written
            return f"**Gap.** This part cannot be shown ({_named(problem)}).\n\n"

    return made


def _html(text: str) -> str:
    """The report as HTML: an anchor at each section, and before the first one a list that links to all of them."""
    markdown, entries, contents_at = MarkdownIt("commonmark", {"html": False}).enable("table"), [], None
    tokens = markdown.parse(text)
    for i, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            heading = tokens[i + 1].content.strip("`")
            anchor = heading.lower().replace(" ", "-")
            token.attrSet("id", anchor)
            entries.append(f'<li><a href="#{anchor}">{escape(heading)}</a></li>')
            contents_at = i if contents_at is None else contents_at
    parts = [
        markdown.renderer.render(part, markdown.options, {}) for part in (tokens[:contents_at], tokens[contents_at:])
    ]
    listed = "\n".join(entries)
    return f'{parts[0]}<nav aria-label="Contents"><ul>\n{listed}\n</ul></nav>\n{parts[1]}'


@_or_gap
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
    """Every artifact that has a notebook, in the order of `contents`."""
    return contents.order(name for name in paths.notebooks() if artifacts.source(name))


@_or_gap
def ledger(artifact_records: dict[str, dict]) -> str:
    """The verdicts on all claims as a Markdown table; `artifact_records` maps artifacts to records."""
    lines = ["| claim | what it says | verdict | what was measured |", "|---|---|---|---|"]
    for claim, verdict, reason in claims.verdicts(artifact_records):
        lines.append(f"| {claim.id} | {claim.statement} | **{verdict}** | {reason} |")
    return "\n".join(lines)


def gap(artifact: str, profile: str, reason: str) -> str:
    """The section of an artifact without a record."""
    failed = paths.BUILD / profile / f"{artifact}.failed.ipynb"
    text = f"## `{artifact}`\n\n**Gap.** {reason}"
    return f"{text} Its notebook failed; the evidence is `{paths.shown(failed)}`." if failed.exists() else text


def _section(record: dict, profile: str) -> str:
    """The figures, the finding, the tables and the provenance of an artifact."""
    artifact = record["artifact"]
    blocks = [f"## `{artifact}`"]
    for part in artifacts.parts(artifact):
        figure = os.path.relpath(paths.figure(profile, artifact, part), paths.RESULTS / profile)
        finding = captioned(record, part) if part else claims.finding(record)
        blocks += [f"![{artifacts.headline(record, part)}]({figure})", finding, artifacts.table(record, part)]
    return "\n\n".join(filter(None, [*blocks, _provenance(record)]))


def captioned(record: dict, part: str) -> str:
    """What stands below the figure of a part: its headline and its caption."""
    return f"**{artifacts.headline(record, part)}** ({artifacts.caption(record, part)})"


def provenance(record: dict) -> dict[str, str]:
    """Where a record comes from, as Markdown: code, recipe, arithmetic, device, data, parameters, packages."""
    given = record["provenance"]
    tree = {True: "clean tree", False: "changed tree", None: "outside git"}[given["clean"]]
    return {
        "code": f"`{given['code'][:12]}` ({tree})",
        "recipe": str(given["recipe"]),
        "arithmetic": given["arithmetic"],
        "device": given["device"],
        "data": f"{given['data']['title']} (sha256 `{given['data']['sha256'][:12]}`)",
        "parameters": ", ".join(f"{name} = {value}" for name, value in given["parameters"].items()),
        "packages": ", ".join(f"{name} {version}" for name, version in given["packages"].items()),
    }


def _provenance(record: dict) -> str:
    return (
        "Provenance: code {code}, recipe {recipe}, {arithmetic} arithmetic, device {device}, data {data}; "
        "{parameters}; {packages}."
    ).format(**provenance(record))


@_or_gap
def published() -> str:
    """A table of numbers from other papers, on other networks and data, each with its source."""
    lines = ["Not measured here, and on other networks and data than the tables above; each with its source.", ""]
    lines += ["| data | network | training | attack | ε | value, % | source |", "|---|---|---|---|---|---|---|"]
    with (paths.PUBLISHED / "numbers.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            cells = (row[name] for name in ("data", "network", "training", "attack", "eps", "value", "source"))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
