"""The sources of notebooks and their twins: headers, badges, outputs, and a check for stale files.

People edit the source, a .py file in jupytext's percent format.  GitHub, Colab and Binder open its twin, an .ipynb file
beside it.  This module writes the header of a source, down to the setup cell, and all of a twin except its outputs.
"""

import ast
import re
from pathlib import Path
from urllib.parse import quote

import jupytext
import nbformat
from nbformat import NotebookNode

from paperlib import environment, paths
from paperlib.errors import Refused, one_of
from paperlib.files import write_atomically
from paperlib.profiles import parameters

BRANCH = "main"  # that the badges open
REPAIR = "Run `python -m paperlib sync`."  # ends each sentence about a stale file
IN_README = r"(?<=<!-- {0} -->\n).*?(?=<!-- /{0} -->)"  # a part that is written here

BADGES = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{slug}/blob/{branch}/{path})\n"
    "[![Open in Binder](https://mybinder.org/badge_logo.svg)]"
    "(https://mybinder.org/v2/gh/{slug}/{branch}?labpath={quoted})"
)

# The top of every source.  Its variables start with an underscore: `runs.begin` refuses other unknown ones.
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
import paperlib  # before numpy and torch, for it settles the arithmetic

"""


# ---- headers and badges ------------------------------------------------------------------------------------------


def names() -> list[str]:
    """The names of the notebooks in notebooks/, sorted."""
    return [name for name, path in paths.notebooks().items() if path.parent == paths.NOTEBOOKS]


def badges(artifact: str) -> str:
    """The two badges of a notebook, each a line of Markdown."""
    slug = environment.repository().removeprefix("https://github.com/")
    path = f"notebooks/{artifact}.ipynb"
    return BADGES.format(slug=slug, branch=BRANCH, path=path, quoted=quote(path, safe=""))


def addresses(artifact: str) -> list[str]:
    """Where the badges of a notebook lead: Colab, then Binder."""
    return re.findall(r"\)\]\((.+?)\)", badges(artifact))


def header(artifact: str) -> str:
    """The top of a notebook's source: jupytext's lines, the badges and the setup cell."""
    url = environment.repository()
    return HEADER.format(
        badges="\n".join(f"# {line}" for line in badges(artifact).splitlines()),
        name=url.rsplit("/", 1)[-1],
        url=url,
    )


def notebook_table() -> str:
    """A Markdown table for the README: each chapter's notebooks, what each shows, and where it opens."""
    from paperlib.artifacts import contents  # its package loads Matplotlib, which an execution need not wait for

    chapters = {name: chapter for chapter, entries in contents.CHAPTERS.items() for name in entries}
    lines, last = ["| | notebook | what it shows | open in |", "|---|---|---|---|"], None
    for name in contents.order(names()):
        colab, binder = addresses(name)
        chapter = chapters.get(name, "Others")
        shown = f"**{chapter}**" if chapter != last else ""
        links = f"<sub>[Colab]({colab}) [Binder]({binder})</sub>"
        lines.append(
            f"| {shown} | [{title(name)}](notebooks/{name}.ipynb) | {contents.LINES.get(name, '')} | {links} |"
        )
        last = chapter
    return "\n".join(lines) + "\n"


def title(artifact: str) -> str:
    """The heading of a notebook; its name where it has none."""
    heading = re.search(r"^# # (.+)$", source_of(artifact).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return heading[1] if heading else artifact


def source_of(artifact: str) -> Path:
    """The file of a notebook's source."""
    return paths.NOTEBOOKS / f"{artifact}.py"


# ---- twins -------------------------------------------------------------------------------------------------------


def sync() -> list[Path]:
    """Bring every header, every twin and README's tables up to date; unchanged cells keep their outputs.

    Returns the files that were written, which are those that were stale.
    """
    changes = {path: text for path, text in _rendered().items() if _differs(path, text)}
    for path, text in changes.items():
        write_atomically(path, text.encode())
    return list(changes)


def stale() -> list[str]:
    """A sentence for each file that `sync` would write, and for each twin without a source."""
    outdated = [path for path, text in _rendered().items() if _differs(path, text)]
    orphans = sorted(path for path in paths.NOTEBOOKS.glob("*.ipynb") if not path.with_suffix(".py").exists())
    return [f"{paths.shown(path)} is not up to date. {REPAIR}" for path in outdated] + [
        f"{paths.shown(path)} has no source {path.stem}.py beside it. Remove it." for path in orphans
    ]


def publish(artifact: str, executed: Path) -> Path:
    """Write the twin of a source with the outputs of an executed notebook, and return its path.

    Refuses a notebook that was executed from another version of the source, or with parameters that are not its own.
    """
    one_of("notebook", artifact, names())
    run, source = _read(executed), source_of(artifact)
    injected = [cell.source for cell in run.cells if "injected-parameters" in cell.metadata.get("tags", [])]
    run.cells = [cell for cell in run.cells if cell.source not in injected]
    notebook = parse(source.read_text(encoding="utf-8"))
    if [cell.source for cell in run.cells] != [cell.source for cell in notebook.cells]:
        raise Refused(
            f"{paths.shown(executed)} was executed from another version of {paths.shown(source)}. Execute it again."
        )
    defaults = {parameter.name: parameter.default for parameter in parameters.declared(source).values()}
    for assignment in ast.parse("\n".join(injected)).body:
        name, value = assignment.targets[0].id, ast.literal_eval(assignment.value)
        if value != defaults[name]:
            raise Refused(
                f"{paths.shown(executed)} ran with {name} = {value!r}; a twin shows its own {defaults[name]!r}."
            )
    twin = source.with_suffix(".ipynb")
    write_atomically(twin, render(_with_outputs(notebook, run)).encode())
    return twin


def links(repo: str) -> list[Path]:
    """Replace the address of the public repository by github.com/`repo` ("owner/name") in every file that names it.

    Returns the files that were written.
    """
    if not re.fullmatch(r"[a-z\d][a-z\d-]*/(?!\.+$)[\w.-]+", repo, re.ASCII | re.IGNORECASE):
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


def _rendered() -> dict[Path, str]:
    """The text that each source, each twin and the README should have."""
    texts = {}
    for name in names():
        source, twin = source_of(name), source_of(name).with_suffix(".ipynb")
        cells = parameters.cells(source.read_text(encoding="utf-8"))
        texts[source] = header(name) + "".join(cell for tags, cell in cells if not {"badges", "setup"} & set(tags))
        texts[twin] = render(_with_outputs(parse(texts[source]), _read(twin) if twin.exists() else None))
    if paths.README.exists():
        from paperlib.artifacts import summary  # its package loads Matplotlib, which an execution need not wait for

        readme = paths.README.read_text(encoding="utf-8")
        for part, written in (("verdicts", summary.found), ("notebooks", notebook_table)):
            place = re.compile(IN_README.format(part), re.DOTALL)
            if place.search(readme):
                readme = place.sub(written().replace("\\", r"\\"), readme)
        texts[paths.README] = readme
    return texts


def _differs(path: Path, text: str) -> bool:
    return not path.exists() or path.read_text(encoding="utf-8") != text


def parse(text: str) -> NotebookNode:
    """A source's text as a notebook, whose metadata do not depend on the version of jupytext."""
    notebook = jupytext.reads(text, fmt="py:percent")
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": {"name": "python"}})
    return notebook


def _with_outputs(notebook: NotebookNode, run: NotebookNode | None) -> NotebookNode:
    """`notebook` with the outputs of the executed notebook `run` in every code cell that has the same source."""
    executed = [cell for cell in run.cells if cell.cell_type == "code"] if run else []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, start=1):
        same = next((other for other in executed if other.source == cell.source), None)
        if same is not None:
            executed.remove(same)
            cell.outputs, cell.execution_count = same.outputs, count if same.execution_count else None
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
    """The text of a notebook's file.  Its cell ids are numbered, because jupytext draws them at random."""
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id = f"cell-{number:02}"
    return nbformat.writes(notebook).rstrip("\n") + "\n"
