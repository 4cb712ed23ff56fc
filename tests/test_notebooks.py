"""The runner on tiny notebooks: what a run leaves behind, and how twins, headers and links stay true."""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import time
from types import ModuleType
from urllib.parse import unquote

import nbformat
import papermill
import pytest

from paperlib import environment, paths
from paperlib.errors import Refused
from paperlib.profiles import parameters
from paperlib.runs import execute, twins

SIMPLE = """\
# %% [markdown]
# # Do tiny notebooks run?

# %% tags=["parameters"]
samples: int = 3  # how many
eps_255: list[int] = [4, 8]  # radii in units of 1/255

# %%
print("samples", samples)

# %%
samples + 1
"""
REAL = sorted(path.stem for path in paths.NOTEBOOKS.glob("*.py"))


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """Write the notebook fig-t into a folder of its own; returns the path of its source."""
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(paths, "README", tmp_path / "README.md")
    paths.NOTEBOOKS.mkdir()

    def write(text=SIMPLE, name="fig-t"):
        source = paths.NOTEBOOKS / f"{name}.py"
        source.write_text(twins.header(name) + text, encoding="utf-8")
        return source

    return write


@pytest.fixture
def tree(tmp_path, monkeypatch, notebook):
    """A whole project of its own: pyproject.toml, README.md and the folder of notebooks."""
    pyproject = (paths.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(pyproject, encoding="utf-8")
    (tmp_path / "README.md").write_text("Start\n<!-- badges -->\nold\n<!-- /badges -->\nend\n", encoding="utf-8")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    return tmp_path


def body(text):
    """SIMPLE with another last cell."""
    return SIMPLE.replace("samples + 1", text)


def left_in(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# ---- execution ----


def test_the_same_run_gives_the_same_bytes(tmp_path, tree, notebook, monkeypatch):
    (tree / "paperlib").mkdir()
    (tree / "paperlib" / "__init__.py").touch()
    monkeypatch.setattr("jupyter_client.kernelspec.KernelSpecManager.get_kernel_spec", None)  # none need be registered
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook(
        body(
            "import os, random, sys, time\nimport paperlib\n"
            "for i in range(4):\n"
            "    print('step', i, flush=True)\n"
            "    print(f'\\rbar {i} {time.time()}', end='' if i < 3 else '\\n', file=sys.stderr, flush=True)\n"
            "    time.sleep(random.random() / 20)\n"
            "print(os.environ['OMP_NUM_THREADS'], os.environ['MPLBACKEND'], os.path.relpath(paperlib.__file__))\n"
            "eps_255"
        )
    )
    runs, lines = [], []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "fig-t.failed.ipynb").touch()
        output = execute.execute("fig-t", {"samples": 5}, tmp_path / folder / "fig-t.ipynb", echo=lines.append)
        assert left_in(tmp_path / folder) == ["fig-t.ipynb"]
        runs.append(output.read_bytes())
    assert runs[0] == runs[1]

    result = nbformat.reads(runs[0].decode(), as_version=4)
    nbformat.validate(result)
    assert [cell.id for cell in result.cells] == [f"cell-{i:02}" for i in range(1, 8)]
    assert not any({"papermill", "execution"} & set(part.metadata) for part in (result, *result.cells))
    stdout, value = result.cells[-1].outputs  # no stderr, however the streams came
    inline = "module://matplotlib_inline.backend_inline"
    assert stdout.text == "step 0\nstep 1\nstep 2\nstep 3\n" + f"1 {inline} {os.path.join('paperlib', '__init__.py')}\n"
    assert value.data["text/plain"] == "[4, 8]"
    assert result.cells[-2].outputs[0].text == "samples 5\n"
    assert "fig-t: samples 5" in lines and "fig-t: step 3" in lines
    bars = [line for line in lines if "bar" in line]
    assert len(bars) == 2 and all(line.startswith("fig-t: bar 3 ") for line in bars)


def test_a_failing_cell_leaves_its_evidence_and_no_output(tmp_path, notebook):
    notebook(body("# the boom\nraise ValueError('first\\nthe last line')"))
    output = tmp_path / "out" / "fig-t.ipynb"
    output.parent.mkdir()
    output.write_text("an older result")
    with pytest.raises(Refused) as refusal:
        execute.execute("fig-t", {}, output, echo=lambda line: None)
    assert left_in(output.parent) == ["fig-t.failed.ipynb"]
    message = str(refusal.value)
    assert "fig-t.py: the cell '# the boom' failed: the last line. " in message
    assert message.endswith(f"{output.with_suffix('.failed.ipynb')}.")
    assert "ValueError" in output.with_suffix(".failed.ipynb").read_text()


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("import os; os.kill(os.getpid(), 9)", "DeadKernelError"),
        ("import sys; sys.exit()", "SystemExit: it stopped before its last cell"),
    ],
)
def test_a_kernel_that_ends_early_is_a_failure_too(tmp_path, notebook, cell, reason):
    notebook(SIMPLE.replace('print("samples", samples)', cell))
    with pytest.raises(Refused, match=reason) as refusal:
        execute.execute("fig-t", {}, tmp_path / "out" / "fig-t.ipynb", echo=lambda line: None)
    assert repr(cell) in str(refusal.value)
    assert left_in(tmp_path / "out") == ["fig-t.failed.ipynb"]


def test_an_interrupted_run_leaves_nothing(tmp_path, notebook):
    notebook(body("import os, time\nprint('kernel', os.getpid(), flush=True)\ntime.sleep(60)"))
    output = tmp_path / "out" / "fig-t.ipynb"
    output.parent.mkdir()
    output.write_text("an older result")
    code = (
        "import pathlib, signal, sys; from paperlib import paths, runner; paths.NOTEBOOKS = pathlib.Path(sys.argv[1]); "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # a shell's background jobs are born deaf to it
        "execute.execute('fig-t', {}, pathlib.Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(paths.NOTEBOOKS), str(output)]
    with subprocess.Popen(command, cwd=paths.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        kernel = next(int(line.split()[-1]) for line in run.stdout if line.startswith("fig-t: kernel "))
        run.send_signal(signal.SIGINT)
        errors = run.communicate(timeout=20)[1]
    assert run.returncode != 0 and "KeyboardInterrupt" in errors
    assert left_in(output.parent) == []
    for _ in range(50):
        try:
            os.kill(kernel, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the kernel outlived its run")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"epsilon": 3}, "params/x.yml: notebook fig-t has no parameter 'epsilon'. It takes: samples, eps_255."),
        ({"samples": "abc"}, "params/x.yml: notebook fig-t takes samples: int (how many), not 'abc'."),
    ],
)
def test_wrong_parameters_are_refused_before_anything_runs(tmp_path, notebook, given, words):
    notebook()
    output = tmp_path / "fig-t.ipynb"
    output.write_text("an older result")
    with pytest.raises(Refused) as refusal:
        execute.execute("fig-t", given, output, origin="params/x.yml", echo=pytest.fail)
    assert str(refusal.value) == words and output.read_text() == "an older result"


def test_a_notebook_that_is_not_there_or_takes_nothing_is_refused(tmp_path, notebook):
    notebook(SIMPLE.replace(' tags=["parameters"]', ""))
    with pytest.raises(Refused, match="fig-t: 0 cells are tagged parameters"):
        execute.execute("fig-t", {"samples": 3}, tmp_path / "fig-t.ipynb", echo=pytest.fail)
    with pytest.raises(Refused, match="no notebook 'fig-u'. Allowed: fig-t"):
        execute.execute("fig-u", {}, tmp_path / "fig-u.ipynb", echo=pytest.fail)


def test_inside_a_kernel_a_name_that_papermill_only_warns_of_is_refused(tmp_path, notebook):
    check = (
        "from pathlib import Path\n\nfrom paperlib import parameters\n\n"
        f"_declared = parameters.declared(Path({str(paths.NOTEBOOKS)!r}) / 'fig-t.py')\n"
        "parameters.from_namespace('fig-t', _declared, globals())"
    )
    source = notebook(SIMPLE.replace('print("samples", samples)', check))
    twins.sync()
    options = {"progress_bar": False, "kernel_manager_class": execute._Kernel}
    with pytest.raises(papermill.PapermillExecutionError, match="no parameter 'epsilon'. It takes: samples, eps_255"):
        papermill.execute_notebook(source.with_suffix(".ipynb"), None, {"epsilon": 3}, **options)
    papermill.execute_notebook(source.with_suffix(".ipynb"), None, {"samples": 4}, **options)  # IPython's names pass


def test_progress_bars_become_occasional_lines(monkeypatch):
    now, lines = [0.0], []
    monkeypatch.setattr(runner.time, "monotonic", lambda: now[0])
    stream = execute._Lines(lines.append, every=10)
    for second in range(25):
        now[0] = second
        stream.write(f"\r{second} of 25")
    stream.write("\r25 of 25\nplain ")
    stream.write("line\r\n\nno end")
    assert lines == ["11 of 25", "22 of 25", "25 of 25", "plain line"]
    stream.close()
    assert lines[-1] == "no end"


# ---- twins, headers, links ----


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


def test_sync_makes_twins_once_and_then_changes_nothing(notebook):
    source = notebook()
    twin = source.with_suffix(".ipynb")
    assert [sentence.split(" is ")[0] for sentence in twins.stale()] == [str(twin)]
    assert twins.sync() == [twin]
    before = twin.read_bytes()
    assert twins.stale() == [] and twins.sync() == [] and twin.read_bytes() == before
    result = nbformat.read(twin, as_version=4)
    nbformat.validate(result)
    assert [cell.metadata.get("tags") for cell in result.cells[:4]] == [["badges"], ["setup"], None, ["parameters"]]
    assert [cell.id for cell in result.cells] == [f"cell-{i:02}" for i in range(1, 7)]


def test_an_edit_makes_the_twin_stale_and_sync_keeps_the_other_outputs(notebook):
    source = notebook()
    twin = source.with_suffix(".ipynb")
    twins.sync()
    ran(twin)
    twins.sync()  # execution counts in order
    assert twins.stale() == []
    source.write_text(source.read_text().replace("samples + 1", "samples + 2"))
    assert len(twins.stale()) == 1 and "fig-t.ipynb is not up to date" in twins.stale()[0]
    assert twins.sync() == [twin]
    assert outputs(twin) == {
        "import sys": (1, 1),
        "samples: int = 3  # how many": (2, 1),
        'print("samples", samples)': (3, 1),
        "samples + 2": (None, 0),
    }


def test_equal_cells_keep_their_own_outputs(notebook):
    source = notebook(SIMPLE + "\n# %%\nsamples + 1\n")
    twin = source.with_suffix(".ipynb")
    twins.sync()
    run = nbformat.read(twin, as_version=4)
    for number, cell in enumerate(run.cells[-2:]):
        cell.outputs = [nbformat.v4.new_output("stream", text=str(number))]
    nbformat.write(run, twin)
    twins.sync()
    assert [cell.outputs[0].text for cell in nbformat.read(twin, as_version=4).cells[-2:]] == ["0", "1"]


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


def test_publish_takes_the_outputs_and_only_those_of_this_source_and_its_own_parameters(tmp_path, notebook):
    source = notebook()
    twin = twins.sync()[0]
    executed = tmp_path / "executed.ipynb"

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


def badge_targets(text):
    """The paths, below the root, that Colab and Binder badges in `text` open."""
    return re.findall(r"/blob/main/([^)\s]+)", text), [unquote(p) for p in re.findall(r"labpath=([^)\s]+)", text)]


def test_badges_are_rendered_from_the_repository_and_open_existing_files(tree, notebook):
    notebook(name="fig-t")
    notebook(SIMPLE.replace("Do tiny notebooks run?", "A second one"), name="tab-u")
    twins.sync()
    colab, binder = badge_targets(twins.header("fig-t"))
    assert colab == binder == ["notebooks/fig-t.ipynb"] and (tree / colab[0]).exists()
    readme = (tree / "README.md").read_text()
    assert readme.startswith("Start\n<!-- badges -->\n* [Do tiny notebooks run?](notebooks/fig-t.ipynb) [![")
    assert readme.endswith(")\n<!-- /badges -->\nend\n") and "old" not in readme and "* [A second one](" in readme
    assert badge_targets(readme)[0] == badge_targets(readme)[1] == ["notebooks/fig-t.ipynb", "notebooks/tab-u.ipynb"]
    (tree / "README.md").write_text(readme.replace("A second one", "Another"))
    assert twins.stale() == [f"README.md is not up to date. {twins.REPAIR}"]


def test_links_rewrites_the_address_everywhere(tree, notebook):
    source = notebook()
    twins.sync()
    old = environment.repository()
    with open(tree / "README.md", "a", encoding="utf-8") as readme:
        readme.write(f"clone {old}.git, issues at {old}/issues, but not {old}-fork\n")
    written = twins.links("jane/snn.sparse")
    assert {path.name for path in written} == {"pyproject.toml", "README.md", "fig-t.py", "fig-t.ipynb"}
    new = "https://github.com/jane/snn.sparse"
    assert environment.repository() == new and twins.stale() == []
    assert f"clone {new}.git, issues at {new}/issues, but not {old}-fork" in (tree / "README.md").read_text()
    for path in (source, source.with_suffix(".ipynb"), tree / "pyproject.toml"):
        assert old not in path.read_text() and "jane/snn.sparse" in path.read_text()
    assert "mybinder.org/v2/gh/jane/snn.sparse/main" in source.read_text()
    assert twins.links("jane/snn.sparse") == []


@pytest.mark.parametrize("repo", ["", "jane", "https://github.com/jane/x", "jane/x/y", "jane/x y"])
def test_links_refuses_what_is_no_owner_and_name(repo):
    with pytest.raises(Refused, match="it must be owner/name"):
        twins.links(repo)


def setup_cell():
    return next(cell for tags, cell in parameters.cells(twins.header("fig-t")) if "setup" in tags)


def test_the_setup_cell_does_nothing_elsewhere():
    namespace, before = {}, (os.getcwd(), list(sys.path))
    exec(setup_cell(), namespace)
    assert set(namespace) == {"__builtins__", "sys"} and (os.getcwd(), sys.path) == before


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
    assert public == {"sys", "os", "subprocess"}  # modules: `from_namespace` would refuse a variable


# ---- the real notebooks ----


def test_every_twin_header_and_badge_is_in_sync():
    assert twins.stale() == []


@pytest.mark.parametrize("name", REAL)
def test_papermills_help_documents_the_parameters(name):
    declared = parameters.declared(paths.NOTEBOOKS / f"{name}.py")
    shown = papermill.inspect_notebook(paths.NOTEBOOKS / f"{name}.ipynb")
    assert_same_help(shown, declared)


def test_papermills_help_documents_a_tiny_notebooks_parameters(notebook):
    source = notebook(SIMPLE)
    twins.sync()
    assert_same_help(papermill.inspect_notebook(source.with_suffix(".ipynb")), parameters.declared(source))


def assert_same_help(shown, declared):
    assert [p["name"] for p in shown.values()] == list(declared)
    for name, parameter in declared.items():
        kind, default, words = (shown[name][key] for key in ("inferred_type_name", "default", "help"))
        assert (name, kind, ast.literal_eval(default), words) == tuple(parameter)


@pytest.mark.parametrize("name", REAL)
def test_every_badge_opens_a_file(name):
    twin = json.loads((paths.NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))
    text = "".join(twin["cells"][0]["source"])
    colab, binder = badge_targets(text)
    assert colab == binder == [f"notebooks/{name}.ipynb"] and (paths.ROOT / colab[0]).exists()
