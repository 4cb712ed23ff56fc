"""The source pages of the site: docs/ as it is, and beside it what is made of notebooks, records and README."""

import shutil
from html import escape
from pathlib import Path

from paperlib import paths
from paperlib.artifacts import contents, report, summary
from paperlib.runs import twins
from paperlib.site import league, links, notebooks, quoting, readme, results, verdicts
from paperlib.site.shown import Shown

DOCS = paths.ROOT / "docs"
EXPLORER = "explorer.html"
BENCHMARKS = "benchmarks/README.md"
COPIED = (".json", ".csv")  # of the files in results/
SCIENCE = ("theory", "attacks", "certificates", "training", "networks", "data")  # packages that the API describes


def write(folder: Path, profiles: list[str]) -> None:
    """Write all source pages.  Files under `_extra` are copied to the site, those under `_parts` are included."""
    shown, names = [Shown(name) for name in profiles], contents.order(twins.names())
    shutil.copytree(DOCS, folder)
    pages = _pages(names)
    texts = {f"notebooks/{name}.ipynb": notebooks.page(name, shown, pages) for name in names}
    for one in shown:
        texts[f"results/{one.name}/index.md"] = results.index(one)
        if one.records:
            texts |= {f"results/{one.name}/{name}.md": results.page(one, name) for name in report.reading_order()}
    howto = readme.sections()
    for heading, text in howto.items():
        place = f"howto/{readme.slug(heading)}.md"
        texts[place] = readme.page(heading, text, place, pages)
    if (written := DOCS / "glossary.md").exists():
        text = written.read_text(encoding="utf-8")
        texts["glossary.md"] = links.rewritten(text, source="docs/glossary.md", page="glossary.md", pages=pages)
    else:
        texts["glossary.md"] = readme.page("Glossary", readme.glossary(), "glossary.md", pages)
    title, _, benchmarks = (paths.ROOT / BENCHMARKS).read_text(encoding="utf-8").removeprefix("# ").partition("\n")
    texts["benchmarks.md"] = readme.page(title, benchmarks, "benchmarks.md", pages, source=BENCHMARKS)
    texts |= {f"api/{package}.md": _api(package) for package in SCIENCE}
    texts["_parts/board.md"] = verdicts.board(shown)
    texts["_parts/cards.md"] = verdicts.cards(shown)
    texts["_parts/missing.md"] = "\n\n".join(one.missing for one in shown)
    for part, made in (("league", league.page), ("quoting", quoting.page), ("gallery", results.gallery)):
        texts[f"_parts/{part}.md"] = "\n\n".join(map(made, shown))
    texts["_parts/doors.md"] = _doors(names)
    texts["_parts/notebooks.md"] = _chapters(names)
    texts["_parts/toctrees.md"] = _toctrees(names, shown, list(howto))
    for place, text in texts.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(text + "\n", encoding="utf-8")
    pictures = [image for text in howto.values() for image in links.images(text, "README.md")]
    _copy_files(folder, shown, pictures + links.images(benchmarks, BENCHMARKS))


def _pages(names: list[str]) -> dict[str, str]:
    """Files and headings of the project that have a page → that page, without its ending."""
    pages = {f"notebooks/{name}{end}": f"notebooks/{name}.ipynb" for name in names for end in (".ipynb", ".py")}
    pages |= {f"README.md#{readme.slug(heading)}": f"howto/{readme.slug(heading)}.md" for heading in readme.sections()}
    pages |= {f"results/{name}/REPORT.md": f"results/{name}/index.md" for name in summary.PROFILES}
    return pages | {
        "README.md": "index.md",
        "README.md#glossary": "glossary.md",
        "docs/glossary.md": "glossary.md",
        "docs/cluster.md": "cluster.md",
        BENCHMARKS: "benchmarks.md",
    }


def _doors(names: list[str]) -> str:
    """The pages that a newcomer may want, as cards."""
    doors = [
        ("Which number to quote", "numbers.html", "One accuracy, many tables: which one answers for a training."),
        ("Trainings × attacks", "trainings.html", "Every training under every attack, to be sorted."),
        ("All figures", "gallery.html", "Each with its finding, its record and its provenance."),
        ("Your own network", "notebooks/your-network.html", "Attack any PyTorch network with two lines."),
    ]
    if (paths.FIGURES / "laptop" / EXPLORER).exists():
        doors.insert(0, ("Explorer", EXPLORER, "See what attacks do to images and spikes, in the browser."))
    if "start-here" in names:
        doors.insert(0, ("Start here", "notebooks/start-here.html", "The idea in one notebook, for newcomers."))
    items = "".join(f'<li><a href="{href}">{escape(title)}</a><br>{escape(text)}</li>' for title, href, text in doors)
    return f'```{{raw}} html\n<ul class="doors">{items}</ul>\n```'


def _chapters(names: list[str]) -> str:
    """The notebooks in reading order, chapter by chapter, each with its line."""
    blocks = []
    for chapter, lines in contents.CHAPTERS.items():
        there = [name for name in lines if name in names]
        listed = [f"* [{twins.title(name)}](notebooks/{name}.ipynb)<br>{lines[name]}" for name in there]
        blocks += [f"### {chapter}", "\n".join(listed)] if there else []
    return "\n\n".join(blocks)


def _toctrees(names: list[str], shown: list[Shown], headings: list[str]) -> str:
    """The site's contents, which also decide what is previous and next."""
    trees = {chapter: [name for name in lines if name in names] for chapter, lines in contents.CHAPTERS.items()}
    trees["Other notebooks"] = [name for name in names if name not in contents.LINES]
    trees = {chapter: [f"/notebooks/{name}" for name in chosen] for chapter, chosen in trees.items()}
    trees["Results"] = ["/trainings", "/numbers", "/gallery", *(f"/results/{one.name}/index" for one in shown)]
    trees["How to"] = [*(f"/howto/{readme.slug(heading)}" for heading in headings), "/cluster"]
    trees["Reference"] = ["/glossary", "/api/index", *(f"/api/{package}" for package in SCIENCE), "/benchmarks"]
    return "\n\n".join(
        "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *entries, "```"])
        for caption, entries in trees.items()
        if entries
    )


def _api(package: str) -> str:
    """The page of a package: what its docstring says, then each of its modules."""
    blocks = [f"# paperlib.{package}", _automodule(f"paperlib.{package}")]
    for path in sorted((paths.ROOT / "paperlib" / package).glob("[a-z]*.py")):
        blocks += [f"## {path.stem}", _automodule(f"paperlib.{package}.{path.stem}", members=True)]
    return "\n\n".join(blocks)


def _automodule(module: str, members: bool = False) -> str:
    lines = ["```{eval-rst}", f".. automodule:: {module}", *(["   :members:"] if members else []), "```"]
    return "\n".join(lines)


def _copy_files(folder: Path, shown: list[Shown], pictures: list[str]) -> None:
    """Pictures beside the pages that show them; records, reports and the explorer where the site offers them."""
    extra = folder / "_extra"
    for one in shown:
        if (paths.FIGURES / one.name).is_dir():
            shutil.copytree(paths.FIGURES / one.name, folder / "figures" / one.name)
        (extra / "results" / one.name).mkdir(parents=True)
        for path in (paths.RESULTS / one.name).glob("*.*"):
            if path.suffix in COPIED and not path.name.endswith(".run.json"):
                shutil.copy(path, extra / "results" / one.name)
    for picture in pictures:
        (folder / picture).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(paths.ROOT / picture, folder / picture)
    if (explorer := paths.FIGURES / "laptop" / EXPLORER).exists():
        shutil.copy(explorer, extra / EXPLORER)
