"""A page for each record: figures with their captions, the finding, tables, and how it was computed."""

import os

from paperlib import artifacts, paths, records
from paperlib.artifacts import claims, report
from paperlib.runs import twins
from paperlib.site import links
from paperlib.site.shown import Shown, committed_on


def page(one: Shown, artifact: str) -> str:
    """The page of an artifact in a profile; of one without a record only what is missing."""
    begin = f"# {twins.title(artifact)}\n\n"
    record = one.records.get(artifact)
    if record is None:
        return begin + report.gap(artifact, one.name, _missing(one, artifact)).partition("\n\n")[2]
    blocks = [begin + _ways(one, artifact)]
    for part in artifacts.parts(artifact):
        figure = os.path.relpath(paths.figure(one.name, artifact, part), paths.RESULTS / one.name)
        finding = report.captioned(record, part) if part else claims.finding(record)
        blocks += [f"![{artifacts.headline(record, part)}]({figure})", finding, artifacts.table(record, part)]
    return "\n\n".join(filter(None, [*blocks, "## How it was computed", _computed(one, record)]))


def index(one: Shown) -> str:
    """The report of a profile: the ledger, then a line for each artifact."""
    begin = f"# Report: {one.short}\n\n{one.missing or f'{one.title}. Every number is rendered from the records.'}"
    if one.missing:
        return begin
    lines = [
        f"* [{twins.title(name)}]({name}.md): {artifacts.headline(record)}" for name, record in one.records.items()
    ]
    tree = "\n".join(["```{toctree}", ":hidden:", "", *report.reading_order(), "```"])
    blocks = [begin, *report.front(one.records, one.name), "## Figures and tables", "\n".join(lines), tree]
    return "\n\n".join([*blocks, "## Published by others", report.published(one.records, one.name)])


def gallery(one: Shown) -> str:
    """Every figure of a profile as a card: its headline, and links to its page, its notebook and its provenance."""
    cards = []
    for artifact, record in one.records.items():
        for part in artifacts.parts(artifact):
            figure = paths.figure(one.name, artifact, part).relative_to(paths.ROOT).as_posix()
            headline, there = artifacts.headline(record, part), f"results/{one.name}/{artifact}.md"
            ways = f"[figures and tables]({there}) · [notebook](notebooks/{artifact}.ipynb) · "
            ways += f"[how it was computed]({there}#how-it-was-computed)"
            shown = f"[![{headline}]({figure})]({there})\n\n{headline}."
            cards.append(f"::::{{grid-item-card}}\n{shown}\n:::{{card-footer}}\n{ways}\n:::\n::::")
    inside = "\n".join([":::::{grid} 1 1 2 2", ":gutter: 3", "", *cards, ":::::"]) if cards else one.missing
    return f"## {one.short}: profile `{one.name}`\n\n{inside}"


def _missing(one: Shown, artifact: str) -> str:
    run = f"make {artifact} PROFILE={one.name}"
    return one.missing or f"results/{one.name}/{artifact}.json is missing or damaged: run `{run}`."


def _ways(one: Shown, artifact: str) -> str:
    ways = [("notebook", f"../../notebooks/{artifact}.html"), ("how it was computed", "#how-it-was-computed")]
    ways += [("record: JSON", f"{artifact}.json"), ("CSV", f"{artifact}.csv"), (f"report of {one.name}", "index.html")]
    return f'<ul class="ways">{"".join(f"""<li><a href="{href}">{text}</a></li>""" for text, href in ways)}</ul>'


def _computed(one: Shown, record: dict) -> str:
    """A table of where a record comes from."""
    artifact, revision = record["artifact"], record["provenance"]["code"]
    seeds = sorted({seed for row in record["rows"] for seed in row["seeds"]})
    parts = {
        "profile": f"[`{one.name}`]({links.blob(f'params/{one.name}.yml', revision)})",
        **report.provenance(record),
    }
    day = committed_on(record)
    parts["code"] += f", committed on {day}" if day else ""
    parts["seeds"] = ", ".join(map(str, seeds)) or "none"
    parts["numbers"] = f"[notebook]({links.blob(f'notebooks/{artifact}.py', revision)}) → "
    parts["numbers"] += f'<a href="{artifact}.json">record</a> (schema {records.SCHEMA}, {len(record["rows"]):,} rows)'
    module = artifacts.source(artifact).relative_to(paths.ROOT).as_posix()
    parts["figures, tables"] = f"record → [`{module}`]({links.blob(module)})"
    return "\n".join(["| what | |", "|---|---|", *(f"| {name} | {text} |" for name, text in parts.items())])
