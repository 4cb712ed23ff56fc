"""Twins of notebooks, headers, badges and links: how they stay true to their sources."""

import ast
import json
import os
import re
import subprocess
import sys
from types import ModuleType
from urllib.parse import unquote

import nbformat
import papermill
import pytest
from house import SIMPLE

from paperlib import environment, paths
from paperlib.errors import Refused
from paperlib.profiles import parameters
from paperlib.runs import twins

REAL = twins.names()


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """A project of its own; a function that writes a notebook into it and returns the path of its source."""
    pyproject = (paths.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(pyproject, encoding="utf-8")
    (tmp_path / "README.md").write_text("Start\n<!-- notebooks -->\nold\n<!-- /notebooks -->\nend\n", encoding="utf-8")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(paths, "README", tmp_path / "README.md")
    paths.NOTEBOOKS.mkdir()

    def write(text=SIMPLE, name="fig-t"):
        source = paths.NOTEBOOKS / f"{name}.py"
        source.write_text(twins.header(name) + text, encoding="utf-8")
        return source

    return write


def ran(path, text="done"):
    """Give each code cell of a twin an output, as if it had run."""
    twin = nbformat.read(path, as_version=4)
    for cell in twin.cells:
        if cell.cell_type == "code":
            cell.execution_count = 9
            cell.outputs = [nbformat.v4.new_output("execute_result", {"text/plain": text}, execution_count=9)]
    nbformat.write(twin, path)


def outputs(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    for cell in cells:
        assert all(output.execution_count == cell.execution_count for output in cell.outputs)
    return {cell.source.splitlines()[0]: (cell.execution_count, len(cell.outputs)) for cell in cells}


# ---- sync and check ----------------------------------------------------------------------------------------------


def test_sync_makes_twins_once_and_then_changes_nothing(notebook):
    twin = notebook().with_suffix(".ipynb")
    assert twins.stale() == [
        f"{name} is not up to date. {twins.REPAIR}" for name in ("notebooks/fig-t.ipynb", "README.md")
    ]
    assert twins.sync() == [twin, paths.README]
    before = twin.read_bytes()
    assert twins.stale() == [] and twins.sync() == [] and twin.read_bytes() == before
    result = nbformat.read(twin, as_version=4)
    nbformat.validate(result)
    assert [cell.metadata.get("tags") for cell in result.cells[:4]] == [["badges"], ["setup"], None, ["parameters"]]
    assert [cell.id for cell in result.cells] == [f"cell-{i:02}" for i in range(1, 7)]


def test_an_edit_makes_the_twin_stale_and_sync_keeps_the_outputs_of_the_other_cells(notebook):
    source = notebook(SIMPLE + "\n# %%\nsamples + 1\n")
    twin = source.with_suffix(".ipynb")
    twins.sync()
    ran(twin)
    run = nbformat.read(twin, as_version=4)
    for number, cell in enumerate(run.cells[-2:]):  # of two equal cells each keeps its own
        cell.outputs = [nbformat.v4.new_output("stream", text=str(number))]
    nbformat.write(run, twin)
    twins.sync()  # execution counts in order
    assert [cell.outputs[0].text for cell in nbformat.read(twin, as_version=4).cells[-2:]] == ["0", "1"]
    source.write_text(source.read_text().replace("samples + 1\n\n", "samples + 2\n\n"))
    assert twins.stale() == [f"notebooks/fig-t.ipynb is not up to date. {twins.REPAIR}"]
    assert twins.sync() == [twin]
    result = nbformat.read(twin, as_version=4)
    code = [cell for cell in result.cells if cell.cell_type == "code"]
    assert [(cell.execution_count, len(cell.outputs)) for cell in code] == [(1, 1), (2, 1), (3, 1), (None, 0), (5, 1)]
    assert [cell.source for cell in code[-2:]] == ["samples + 2", "samples + 1"] and code[-1].outputs[0].text == "0"


def test_a_damaged_header_is_stale_and_rendered_again(notebook):
    source = notebook()
    twins.sync()
    good = source.read_text()
    incomplete = good.replace("#       format_version: '1.3'\n", "")
    for damaged in (incomplete, good.replace("/blob/main/", "/blob/old/"), SIMPLE):
        assert damaged != good
        source.write_text(damaged)
        assert any("fig-t.py is not up to date" in sentence for sentence in twins.stale())
        twins.sync()
        assert source.read_text() == good


def test_a_twin_without_source_and_one_that_is_no_notebook_are_named(notebook):
    twin = notebook().with_suffix(".ipynb")
    twins.sync()
    twin.with_stem("fig-gone").write_text("{}")
    assert len(twins.stale()) == 1 and "fig-gone.ipynb has no source fig-gone.py" in twins.stale()[0]
    twin.write_text("<<<<<<< HEAD")
    with pytest.raises(Refused, match="fig-t.ipynb is not a notebook"):
        twins.sync()


def test_notebooks_of_other_folders_have_neither_twin_nor_badge(notebook, tmp_path, monkeypatch):
    notebook()
    twins.sync()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "tab-mine.py").write_text(SIMPLE)
    (tmp_path / "mine" / "tab_mine.py").touch()
    monkeypatch.setenv(paths.FOLDERS, str(tmp_path / "mine"))
    assert list(paths.notebooks()) == ["fig-t", "tab-mine"] and twins.names() == ["fig-t"]
    assert twins.stale() == [] and twins.sync() == []


# ---- publish -----------------------------------------------------------------------------------------------------


def test_publish_takes_the_outputs_and_only_those_of_this_source_and_its_own_parameters(tmp_path, notebook):
    source = notebook()
    twin, executed = twins.sync()[0], tmp_path / "executed.ipynb"

    def execute(samples):
        run = nbformat.read(twin, as_version=4)
        run.cells.insert(4, nbformat.v4.new_code_cell(f"# Parameters\nsamples = {samples}\n"))
        run.cells[4].metadata.tags = ["injected-parameters"]
        nbformat.write(run, executed)
        ran(executed, "fresh")

    execute(samples=3)
    assert twins.publish("fig-t", executed) == twin
    assert outputs(twin) == {cell: (i, 1) for i, cell in enumerate(outputs(twin), start=1)}
    assert len(outputs(twin)) == 4 and twins.stale() == []
    execute(samples=4)
    with pytest.raises(Refused, match="ran with samples = 4; a twin shows its own 3"):
        twins.publish("fig-t", executed)
    execute(samples=3)
    source.write_text(source.read_text() + "\n# %%\n1\n")
    with pytest.raises(Refused, match="executed from another version of"):
        twins.publish("fig-t", executed)


# ---- badges and links --------------------------------------------------------------------------------------------


def badge_targets(text):
    """The paths, below the root, that Colab and Binder badges in `text` open."""
    return re.findall(r"/blob/main/([^)\s]+)", text), [unquote(p) for p in re.findall(r"labpath=([^)\s]+)", text)]


def test_badges_are_rendered_from_the_repository_and_open_existing_files(notebook):
    notebook(name="fig-t")
    notebook(SIMPLE.replace("Do tiny notebooks run?", "A second one"), name="tab-u")
    twins.sync()
    colab, binder = badge_targets(twins.header("fig-t"))
    assert colab == binder == ["notebooks/fig-t.ipynb"] and (paths.ROOT / colab[0]).exists()
    readme = paths.README.read_text()
    assert readme.startswith("Start\n<!-- notebooks -->\n| | notebook |")
    assert "| [Do tiny notebooks run?](notebooks/fig-t.ipynb) |" in readme and "| [A second one](" in readme
    assert readme.endswith("</sub> |\n<!-- /notebooks -->\nend\n") and "old" not in readme
    assert badge_targets(readme)[0] == badge_targets(readme)[1] == ["notebooks/fig-t.ipynb", "notebooks/tab-u.ipynb"]
    paths.README.write_text(readme.replace("A second one", "Another"))
    assert twins.stale() == [f"README.md is not up to date. {twins.REPAIR}"]


def test_links_rewrites_the_address_everywhere(notebook):
    source, readme = notebook(), paths.README
    twins.sync()
    old, new = environment.repository(), "https://github.com/jane/snn.sparse"
    readme.write_text(readme.read_text() + f"clone {old}.git, issues at {old}/issues, but not {old}-fork\n")
    written = twins.links("jane/snn.sparse")
    assert {path.name for path in written} == {"pyproject.toml", "README.md", "fig-t.py", "fig-t.ipynb"}
    assert environment.repository() == new and twins.stale() == []
    assert f"clone {new}.git, issues at {new}/issues, but not {old}-fork" in readme.read_text()
    for path in (source, source.with_suffix(".ipynb"), paths.ROOT / "pyproject.toml"):
        assert old not in path.read_text() and "jane/snn.sparse" in path.read_text()
    assert "mybinder.org/v2/gh/jane/snn.sparse/main" in source.read_text()
    assert twins.links("jane/snn.sparse") == []


@pytest.mark.parametrize(
    "repo", ["", "jane", "https://github.com/jane/x", "jane/x/y", "jane/x y", "../..", "jane/..", "-jane/x", "jäne/x"]
)
def test_links_refuses_what_is_no_owner_and_name(repo):
    with pytest.raises(Refused, match="it must be owner/name"):
        twins.links(repo)


# ---- the setup cell ----------------------------------------------------------------------------------------------


def setup_cell():
    return next(cell for tags, cell in parameters.cells(twins.header("fig-t")) if "setup" in tags)


def test_the_setup_cell_does_nothing_elsewhere():
    namespace, before = {}, (os.getcwd(), list(sys.path))
    exec(setup_cell(), namespace)
    assert set(namespace) == {"__builtins__", "sys", "paperlib"} and (os.getcwd(), sys.path) == before


def test_on_colab_the_setup_cell_fetches_the_rest(monkeypatch):
    commands, folders, namespace = [], [], {}
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(os, "chdir", folders.append)
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    exec(setup_cell(), namespace)
    clone, install = commands
    assert clone[:2] == ["git", "clone"] and clone[-2:] == [environment.repository(), folders[0]]
    assert install == [sys.executable, "-m", "paperlib.environment", "--colab"] and sys.path[0] == folders[0]
    public = {name for name in namespace if not name.startswith("_")}
    assert public == {"sys", "os", "subprocess", "paperlib"}  # modules: `from_namespace` would refuse a variable


# ---- the real notebooks ------------------------------------------------------------------------------------------


def test_every_twin_header_and_badge_is_in_sync():
    assert twins.stale() == []


@pytest.mark.parametrize("name", REAL)
def test_a_twin_opens_from_its_badges_and_papermills_help_documents_its_parameters(name):
    twin = paths.NOTEBOOKS / f"{name}.ipynb"
    colab, binder = badge_targets("".join(json.loads(twin.read_text(encoding="utf-8"))["cells"][0]["source"]))
    assert colab == binder == [f"notebooks/{name}.ipynb"]
    declared, shown = parameters.declared(twin.with_suffix(".py")), papermill.inspect_notebook(twin)
    assert list(shown) == list(declared)
    for parameter in declared.values():
        kind, default, text = (shown[parameter.name][key] for key in ("inferred_type_name", "default", "help"))
        assert (parameter.name, kind, ast.literal_eval(default), text) == tuple(parameter)
