"""Committed notebooks → notebooks for the site: its links in place of badges, and texts that stand for the pictures."""

import re
from collections.abc import Mapping

import nbformat
from nbformat import NotebookNode

from paperlib import artifacts, paths
from paperlib.runs import twins
from paperlib.site import links
from paperlib.site.shown import Shown

TWINS = "laptop"  # the profile whose outputs twins show
FOR_COLAB = {"badges", "setup"}  # tags of cells that are of no use on a page
DRAWN = re.compile(r'artifacts\.draw\(.*?(?:, "([\w-]+)")?\)\s*\Z', re.DOTALL)


def page(name: str, shown: list[Shown], pages: Mapping[str, str]) -> str:
    """A notebook's twin, with its outputs, as the source of its page."""
    source = f"notebooks/{name}.ipynb"
    notebook = nbformat.read(paths.ROOT / source, as_version=4)
    cells = [cell for cell in notebook.cells if not FOR_COLAB & set(cell.metadata.get("tags", []))]
    heading = ""
    for cell in cells:
        if cell.cell_type == "markdown":
            heading = ([heading] + re.findall(r"^#+ (.+)$", cell.source, flags=re.MULTILINE))[-1]
            cell.source = links.rewritten(cell.source, source=source, page=source, pages=pages)
            continue
        for output in cell.get("outputs", []):
            _relink(output.get("data", {}), source, pages)
        if _shows_picture(cell):
            cell.metadata["mystnb"] = {"image": {"alt": _alternative(shown, name, cell.source, heading)}}
    first = next(cell for cell in cells if cell.cell_type == "markdown")
    title, _, rest = first.source.partition("\n")
    first.source = f"{title}\n\n{_ways(name, shown)}\n\n{rest}"
    notebook.cells = cells
    return nbformat.writes(notebook)


def _relink(data: NotebookNode, source: str, pages: Mapping[str, str]) -> None:
    """Lead the links and frames of an output to the site's pages, in place: Sphinx does not look at them."""
    if "text/markdown" in data:
        text = links.rewritten(data["text/markdown"], source=source, page=source, pages=pages)
        data["text/markdown"] = re.sub(r"(\]\((?![a-z]+:)[^()\s]+)\.(?:ipynb|md)(?=[#)])", r"\1.html", text)
    if "text/html" in data:
        data["text/html"] = data["text/html"].replace("../figures/laptop/explorer.html", "../explorer.html")


def _shows_picture(cell: NotebookNode) -> bool:
    return any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


def _alternative(shown: list[Shown], name: str, source: str, heading: str) -> str:
    """The headline of the figure that a cell draws, by the record of the twin's profile; else where the picture is."""
    found = DRAWN.search(source)
    record = next((one.records.get(name) for one in shown if one.name == TWINS), None)
    if found is None or record is None or (found[1] or "") not in artifacts.parts(name):
        return f"Picture of the section “{heading}”; the text beside it says what to look at."
    return artifacts.headline(record, found[1] or "")


def _ways(name: str, shown: list[Shown]) -> str:
    """Links from a notebook to its figures and records, to its source, and to where it can be run."""
    ways = []
    for one in shown:
        if name in one.records:
            there = f"../results/{one.name}/{name}"
            ways += [(f"{one.name}: figures and tables", f"{there}.html"), ("record", f"{there}.json")]
    ways.append(("source", links.blob(f"notebooks/{name}.py")))
    colab, binder = twins.addresses(name)
    ways += [("run in Colab", colab), ("run in Binder", binder)]
    return f'<ul class="ways">{"".join(f"""<li><a href="{href}">{text}</a></li>""" for text, href in ways)}</ul>'
