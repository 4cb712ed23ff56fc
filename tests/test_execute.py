"""The execution of tiny notebooks: what a run leaves, after success, failure and interruption, and what it prints."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import papermill
import pytest
from house import SIMPLE

from paperlib import paths
from paperlib.errors import Refused
from paperlib.runs import execute, twins

LAST_CELL = """\
import os, random, sys, time
from paperlib import records, words
for i in range(4):
    print('step', i, flush=True)
    print(f'\\rbar {i} {time.time()}', end='' if i < 3 else '\\n', file=sys.stderr, flush=True)
    time.sleep(random.random() / 20)
print(os.environ['OMP_NUM_THREADS'], os.environ['MPLBACKEND'], os.path.relpath(records.__file__))
eps_255"""


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """Write the notebook fig-t into a folder of its own; returns the path of its source."""
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    paths.NOTEBOOKS.mkdir()

    def write(last_cell="samples + 1", text=SIMPLE):
        source = paths.NOTEBOOKS / "fig-t.py"
        source.write_text(twins.header("fig-t") + text.replace("samples + 1", last_cell), encoding="utf-8")
        return source

    return write


@pytest.fixture
def output(tmp_path):
    """Where the notebook goes; an older result is there."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "fig-t.ipynb").write_text("an older result")
    return tmp_path / "out" / "fig-t.ipynb"


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def quiet(line):
    """Takes no notice."""


def test_the_same_run_gives_the_same_bytes(tmp_path, notebook, monkeypatch):
    shutil.copytree(paths.ROOT / "paperlib", tmp_path / "paperlib", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr("jupyter_client.kernelspec.KernelSpecManager.get_kernel_spec", None)  # none need be registered
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook(LAST_CELL)
    monkeypatch.setattr(paths, "ROOT", tmp_path)  # whose paperlib is the one that is imported
    runs, lines = [], []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        (folder / "fig-t.failed.ipynb").touch()
        runs.append(execute.execute("fig-t", {"samples": 5}, folder / "fig-t.ipynb", echo=lines.append).read_bytes())
        assert left_in(folder) == ["fig-t.done.d", "fig-t.ipynb"]
    assert runs[0] == runs[1]

    result = nbformat.reads(runs[0].decode(), as_version=4)
    nbformat.validate(result)
    assert [cell.id for cell in result.cells] == [f"cell-{i:02}" for i in range(1, 8)]
    assert not any({"papermill", "execution"} & set(part.metadata) for part in (result, *result.cells))
    stdout, value = result.cells[-1].outputs  # no stderr, however the streams came
    inline = "module://matplotlib_inline.backend_inline"
    assert stdout.text == f"step 0\nstep 1\nstep 2\nstep 3\n1 {inline} {Path('paperlib', 'records.py')}\n"
    assert value.data["text/plain"] == "[4, 8]"
    assert result.cells[-2].outputs[0].text == "samples 5\n"
    assert "fig-t: samples 5" in lines and "fig-t: step 3" in lines
    bars = [line for line in lines if "bar" in line]
    assert len(bars) == 2 and all(line.startswith("fig-t: bar 3 ") for line in bars)

    # what was imported, but for the words, which decide no number; each file alone as well, should it be deleted
    names = ("__init__", "arithmetic", "errors", "files", "labels", "paths", "records")
    imported = [f"paperlib/{name}.py" for name in names]
    rule, *alone = (tmp_path / "two" / "fig-t.done.d").read_text().splitlines()
    assert rule == f"two/fig-t.done: {' '.join(imported)}" and alone == [f"{name}:" for name in imported]


@pytest.mark.parametrize(
    ("cell", "first_line", "reason"),
    [
        ("# the boom\nraise ValueError('first\\nthe last line')", "# the boom", "the last line"),
        ("import os; os.kill(os.getpid(), 9)", "import os; os.kill(os.getpid(), 9)", "DeadKernelError"),
        ("import sys; sys.exit()", "import sys; sys.exit()", "SystemExit: it stopped before its last cell"),
    ],
)
def test_a_failing_cell_leaves_its_evidence_and_no_output(notebook, output, cell, first_line, reason):
    source = notebook(text=SIMPLE.replace('print("samples", samples)', cell))
    with pytest.raises(Refused) as refusal:
        execute.execute("fig-t", {}, output, echo=quiet)
    assert left_in(output.parent) == ["fig-t.failed.ipynb"]
    message, failed = str(refusal.value), output.with_suffix(".failed.ipynb")
    assert message.startswith(f"{source}: the cell {first_line!r} failed: ") and reason in message
    assert message.endswith(f". Evidence: {failed}.") and "\n" not in message
    assert cell in [part.source for part in nbformat.read(failed, as_version=4).cells]


def test_an_interrupted_run_leaves_nothing(notebook, output):
    notebook("import os, time\nprint('kernel', os.getpid(), flush=True)\ntime.sleep(60)")
    code = (
        "import pathlib, signal, sys; from paperlib import paths; from paperlib.runs import execute; "
        "paths.NOTEBOOKS = pathlib.Path(sys.argv[1]); "
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
    ("name", "given", "tag", "reason"),
    [
        (
            *("fig-t", {"epsilon": 3}, "parameters"),
            "params/x.yml: notebook fig-t has no parameter 'epsilon'. It takes: samples, eps_255.",
        ),
        (
            *("fig-t", {"samples": "abc"}, "parameters"),
            "params/x.yml: notebook fig-t takes samples: int (how many), not 'abc'.",
        ),
        ("fig-t", {"samples": 3}, "other", "notebook fig-t: 0 cells are tagged parameters; there must be one."),
        ("fig-u", {}, "parameters", "There is no notebook 'fig-u'. Allowed: fig-t."),
    ],
)
def test_what_cannot_be_executed_is_refused_before_anything_runs(notebook, output, name, given, tag, reason):
    notebook(text=SIMPLE.replace("parameters", tag))
    with pytest.raises(Refused) as refusal:
        execute.execute(name, given, output, origin="params/x.yml", echo=pytest.fail)
    assert str(refusal.value) == reason and output.read_text() == "an older result"


def test_inside_a_kernel_a_name_that_papermill_only_warns_of_is_refused(notebook):
    check = (
        "from pathlib import Path\n\nfrom paperlib.profiles import parameters\n\n"
        f"_declared = parameters.declared(Path({str(paths.NOTEBOOKS)!r}) / 'fig-t.py')\n"
        "parameters.from_namespace('fig-t', _declared, globals())"
    )
    source = notebook(text=SIMPLE.replace('print("samples", samples)', check))
    twin = source.with_suffix(".ipynb")
    twin.write_text(twins.render(twins.parse(source.read_text())))
    options = {"progress_bar": False, "kernel_manager_class": execute._Kernel}
    with pytest.raises(papermill.PapermillExecutionError) as failure:  # IPython's own names pass
        papermill.execute_notebook(twin, None, {"epsilon": 3}, **options)
    assert failure.value.evalue == "notebook fig-t has no parameter 'epsilon'. It takes: samples, eps_255."


def test_progress_bars_become_occasional_lines(monkeypatch):
    now, lines = [0.0], []
    monkeypatch.setattr(execute.time, "monotonic", lambda: now[0])
    stream = execute._Lines(lines.append, every=10)
    for second in range(25):
        now[0] = second
        stream.write(f"\r{second} of 25")
    stream.write("\r25 of 25\nplain ")
    stream.write("line\r\n\nno end")
    assert lines == ["11 of 25", "22 of 25", "25 of 25", "plain line"]
    stream.close()
    assert lines[-1] == "no end"


def test_what_executes_a_notebook_loads_neither_torch_nor_matplotlib():
    code = "import sys; from paperlib.profiles import reading; from paperlib.runs import execute; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, text=True, check=True)
    assert "papermill" in loaded.stdout.split() and not {"torch", "matplotlib"} & set(loaded.stdout.split())
