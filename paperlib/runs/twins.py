"""Notebook sources and their `.ipynb` twins: headers, badges, outputs, and checks for stale copies.

People edit the py:percent source; GitHub, Colab and Binder open the twin.  This module writes the header of a source,
down to the setup cell, and all of a twin but its outputs.
"""

import ast
import re
from pathlib import Path
from urllib.parse import quote

import jupytext
import nbformat
from nbformat import NotebookNode

from paperlib import environment, paths
from paperlib.artifacts import report
from paperlib.errors import Refused, one_of
from paperlib.files import write_atomically
from paperlib.profiles import parameters

BRANCH = "main"  # what the badges open
REPAIR = "Run `python -m paperlib sync`."  # ends each sentence about a stale file
README_BADGES = re.compile(r"(?<=<!-- badges -->\n).*?(?=<!-- /badges -->)", re.DOTALL)

BADGES = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{slug}/blob/{branch}/{path})\n"
    "[![Open in Binder](https://mybinder.org/badge_logo.svg)]"
    "(https://mybinder.org/v2/gh/{slug}/{branch}?labpath={quoted})"
)

# The top of every source.  Only underscored names: the cell after the parameters refuses variables it does not know.
HEADER = """\
# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["badges"]
{badges}

# %% tags=["setup"] jupyter={{"source_hidden": true}}
import sys

if "google.colab" in sys.modules:  # Colab opens this file alone: fetch the rest; torch is there already
    import os
    import subprocess

    _url, _home = "{url}", "/content/{name}"
    if not os.path.exists(_home):
        subprocess.run(["git", "clone", "--depth=1", _url, _home], check=True)
    os.chdir(_home)
    subprocess.run([sys.executable, "-m", "paperlib.environment", "--colab"], check=True)
    sys.path.insert(0, _home)

"""


# ---- the rendered parts ------------------------------------------------------------------------------------------


def names() -> list[str]:
    """The names of the notebooks in notebooks/, sorted."""
    return [name for name, path in paths.notebooks().items() if path.parent == paths.NOTEBOOKS]


def badges(artifact: str) -> str:
    """The two badges of a notebook, Markdown, a line each."""
    slug = environment.repository().removeprefix("https://github.com/")
    path = f"notebooks/{artifact}.ipynb"
    return BADGES.format(slug=slug, branch=BRANCH, path=path, quoted=quote(path, safe=""))


def header(artifact: str) -> str:
    """`HEADER` for one notebook: jupytext's lines, the badges, the setup cell."""
    url = environment.repository()
    return HEADER.format(
        badges="\n".join(f"# {line}" for line in badges(artifact).splitlines()),
        name=url.rsplit("/", 1)[-1],
        url=url,
    )


def badge_table() -> str:
    """A Markdown list for the README, in reading order: each notebook's title, linked, with its badges."""
    lines = []
    order = report.reading_order()
    for name in [*order, *(name for name in names() if name not in order)]:
        found = re.search(r"^# # (.+)$", source_of(name).read_text(encoding="utf-8"), flags=re.MULTILINE)
        title, both = found[1] if found else name, badges(name).replace("\n", " ")
        lines.append(f"* [{title}](notebooks/{name}.ipynb) {both}\n")
    return "".join(lines)


def source_of(artifact: str) -> Path:
    """The py:percent file of a notebook."""
    return paths.NOTEBOOKS / f"{artifact}.py"


# ---- twins -------------------------------------------------------------------------------------------------------


def sync() -> list[Path]:
    """Bring every header, twin and the README's badges up to date; outputs of unchanged cells stay.

    Returns the files that were written: none, if nothing was stale.
    """
    written = {path: text for path, text in _wanted().items() if _differs(path, text)}
    for path, text in written.items():
        write_atomically(path, text.encode())
    return list(written)


def stale() -> list[str]:
    """A sentence for each file that `sync` would write, and for each twin whose source is gone."""
    behind = [path for path, text in _wanted().items() if _differs(path, text)]
    orphans = sorted(path for path in paths.NOTEBOOKS.glob("*.ipynb") if not path.with_suffix(".py").exists())
    return [f"{paths.shown(path)} is not up to date. {REPAIR}" for path in behind] + [
        f"{paths.shown(path)} has no source {path.stem}.py beside it. Remove it." for path in orphans
    ]


def publish(artifact: str, executed: Path) -> Path:
    """Make the committed twin from an executed notebook: its outputs under the source's cells.

    Refuses a run of another version of the source, or one with parameters that are not the source's own.
    """
    one_of("notebook", artifact, names())
    run, source = _read(executed), source_of(artifact)
    injected = [cell.source for cell in run.cells if "injected-parameters" in cell.metadata.get("tags", [])]
    run.cells = [cell for cell in run.cells if cell.source not in injected]
    own = parse(source.read_text(encoding="utf-8"))
    if [cell.source for cell in run.cells] != [cell.source for cell in own.cells]:
        raise Refused(
            f"{paths.shown(executed)} was executed from another version of {paths.shown(source)}. Execute it again."
        )
    defaults = {parameter.name: parameter.default for parameter in parameters.declared(source).values()}
    for node in ast.parse("\n".join(injected)).body:
        name, value = node.targets[0].id, ast.literal_eval(node.value)
        if value != defaults[name]:
            raise Refused(
                f"{paths.shown(executed)} ran with {name} = {value!r}; a twin shows its own {defaults[name]!r}."
            )
    twin = source.with_suffix(".ipynb")
    write_atomically(twin, render(_with_outputs(own, run)).encode())
    return twin


def links(repo: str) -> list[Path]:
    """Point everything at github.com/`repo` ("owner/name"): pyproject.toml, which says it, and what repeats it."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise Refused(f"REPO is {repo!r}; it must be owner/name, as in jane/sparse-gradients-companion.")
    old = re.escape(environment.repository().removeprefix("https://github.com/"))
    address = re.compile(rf"(?<=github\.com/){old}(?![\w-])")
    written = []
    for path in (paths.ROOT / name for name in ("pyproject.toml", "CITATION.cff", "README.md")):
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if address.sub(repo, text) != text:
            write_atomically(path, address.sub(repo, text).encode())
            written.append(path)
    return written + sync()


def _wanted() -> dict[Path, str]:
    """What each source, each twin and the README should hold."""
    wanted = {}
    for name in names():
        source, twin = source_of(name), source_of(name).with_suffix(".ipynb")
        cells = parameters.cells(source.read_text(encoding="utf-8"))
        wanted[source] = header(name) + "".join(cell for tags, cell in cells if not {"badges", "setup"} & set(tags))
        wanted[twin] = render(_with_outputs(parse(wanted[source]), _read(twin) if twin.exists() else None))
    if paths.README.exists():
        wanted[paths.README] = README_BADGES.sub(lambda _: badge_table(), paths.README.read_text(encoding="utf-8"))
    return wanted


def _differs(path: Path, text: str) -> bool:
    return not path.exists() or path.read_text(encoding="utf-8") != text


def parse(text: str) -> NotebookNode:
    """A py:percent text as a notebook, with the same bytes whatever jupytext's version."""
    notebook = jupytext.reads(text, fmt="py:percent")
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": {"name": "python"}})
    return notebook


def _with_outputs(notebook: NotebookNode, run: NotebookNode | None) -> NotebookNode:
    """`notebook` with the outputs of `run` in every code cell whose source is the same."""
    executed = [cell for cell in run.cells if cell.cell_type == "code"] if run else []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, start=1):
        same = next((other for other in executed if other.source == cell.source), None)
        if same is not None:
            executed.remove(same)
            cell.outputs, cell.execution_count = same.outputs, same.execution_count and count
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = cell.execution_count
    return notebook


def _read(path: Path) -> NotebookNode:
    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, nbformat.ValidationError) as error:
        reason = type(error).__name__
        raise Refused(f"{paths.shown(path)} is not a notebook ({reason}); remove it and make it again.") from None


def render(notebook: NotebookNode) -> str:
    """A notebook's file, with cell ids in order: the ones it comes with are random."""
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id = f"cell-{number:02}"
    return nbformat.writes(notebook).rstrip("\n") + "\n"
