"""Records → the report of a profile, REPORT.md and REPORT.html: the claims first, then every artifact."""

import csv
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import wraps
from html import escape

from markdown_it import MarkdownIt

from paperlib import artifacts, errors, files, paths, records, words
from paperlib.artifacts import claims, comparison, consistency, contents, quotes, summary
from paperlib.artifacts.reading import percent, select
from paperlib.profiles import reading as profiles

AGREE = (
    "They do: no accuracy of the same networks within the same radius lies below the worst case by more than chance "
    "explains, and no quantity has two values."
)
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
    text = "\n\n".join([begin, *front(found, profile), *sections, "## Published by others", published(found, profile)])
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


def front(found: Mapping[str, dict], profile: str) -> list[str]:
    """The sections before the artifacts, headings and texts; `found` maps artifacts to the records of `profile`."""
    blocks = ["## The claims", ledger(found)]
    if profile in summary.PROFILES:
        blocks += ["## Side by side", _or_gap(summary.side_by_side)()]
    blocks += ["## Which number to quote", _quotes(found)]
    return [*blocks, "## Do the records agree?", _disagreements(found)]


@_or_gap
def _quotes(found: Mapping[str, dict]) -> str:
    return quotes.table(found, consistency.rows_in_doubt(found))


@_or_gap
def _disagreements(found: Mapping[str, dict]) -> str:
    problems = [f"* {problem}" for problem in consistency.disagreements(found)]
    return "\n".join(problems) if problems else AGREE


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


def found_in(profile: str) -> dict[str, dict]:
    """Artifact → record of a profile, in reading order, without those that are missing or damaged."""
    found = {}
    for artifact in reading_order():
        with suppress(errors.Refused):
            found[artifact] = records.load(paths.RESULTS / profile / f"{artifact}.json")
    return found


def reading_order() -> list[str]:
    """Every artifact that has a notebook, in the order of `contents`."""
    return contents.order(name for name in paths.notebooks() if artifacts.source(name))


@_or_gap
def ledger(found: Mapping[str, dict]) -> str:
    """The verdicts on all claims as a Markdown table, and what is adjusted; `found` maps artifacts to records."""
    verdicts = claims.verdicts(found)
    lines = ["| claim | what it says | verdict | after Holm | what was measured |", "|---|---|---|---|---|"]
    for one in verdicts:
        after = "–" if one.holm is None else f"{one.adjusted}, p = {one.holm:.2g}"
        lines.append(f"| {one.claim.id} | {one.claim.statement} | **{one.verdict}** | {after} | {one.reason} |")
    return "\n".join(lines) + f"\n\n{claims.multiplicity(verdicts)}"


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
def published(found: Mapping[str, dict], profile: str) -> str:
    """A table of numbers from other papers, each with its source, and whether one of `profile` compares with it."""
    lines = [
        "Numbers of the paper's method that other papers report; no other number with a source that can be opened is "
        "known here. The last column says which of ours is comparable, or what parts the two.",
        "",
        "| data | network | training | attack | ε | value, % | source | ours |",
        "|---|---|---|---|---|---|---|---|",
    ]
    with (paths.PUBLISHED / "numbers.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            cells = [row[name] for name in ("data", "network", "training", "attack", "eps", "value", "source")]
            lines.append(f"| {' | '.join([*cells, _comparable(row, found.get(row['artifact']), profile)])} |")
    return "\n".join(lines)


def _comparable(row: dict, record: dict | None, profile: str) -> str:
    """Our number beside a published one where data, network, attack and radius are the same; else what differs."""
    if record is None:
        return "not measured"
    title, network = record["provenance"]["data"]["title"], network_of(profile)
    reasons = [] if re.search(rf"{row['data']}\b", title) else [f"data: {title}"]
    reasons += [] if network.startswith(row["network"]) else [f"network: {network or 'not known'}"]
    means = select(record, quantity="mean accuracy", budget=None)
    own = [mean for mean in means if words.title(mean["training"]) == row["training"]]
    radius = row["eps"].removesuffix("/255")
    there = [mean for mean in own if words.attack(mean) == row["attack"] and f"{mean['eps_255']:g}" == radius]
    if not radius:
        reasons.append("its radius is not reported")
    elif not there:
        reasons.append(f"attack: no {row['attack']} at {row['eps']} on {row['training']}")
    return f"not comparable ({'; '.join(reasons)})" if reasons else f"comparable: {percent(there[0])}"


def network_of(profile: str) -> str:
    """The network of a profile as the published table names it: "VGG-11, T = 8"; empty where none is given."""
    content = profiles.content_of(profile)
    given = content.get("network", {}) if isinstance(content, dict) else {}
    name = {"vgg11": "VGG-11", "wrn16": "WRN-16"}.get(given.get("name"), given.get("name"))
    return f"{name}, T = {given.get('T')}" if name else ""
