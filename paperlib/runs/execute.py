"""The execution of one notebook by papermill.

It runs under a temporary name, so that a notebook that failed is never taken for a finished one.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import papermill
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from paperlib import paths
from paperlib.errors import Refused, one_of
from paperlib.files import make_folder, remove, write_atomically
from paperlib.profiles import parameters
from paperlib.runs import twins

_print = partial(print, flush=True)  # each line at once, also through a pipe of Make


def execute(
    artifact: str,
    given: dict[str, Any],
    output: Path,
    *,
    origin: str = "",
    echo: Callable[[str], None] = _print,
) -> Path:
    """Execute a notebook with the parameters `given` in place of its own, and return `output`.

    If every cell succeeds, `output` is written in one step, without times and without stderr, so that equal runs give
    equal bytes.  Beside it goes the list of the source files that the notebook imported (`output` with the suffix
    .done.d, see `modules`).  If a cell fails, an older `output` is removed, the unfinished notebook is kept beside it
    as *.failed.ipynb, and `Refused` is raised with the cell and the reason.  An interrupted run leaves nothing.
    `echo` receives the notebook's printed lines and its progress as they come.  `origin` is the source of `given` that
    a refusal names, such as a file.
    """
    one_of("notebook", artifact, paths.notebooks())
    source, output = paths.notebook(artifact), output.absolute()
    parameters.check(artifact, parameters.declared(source), given, origin=origin)
    running, failed = output.with_name(f".{output.stem}.running.ipynb"), output.with_suffix(".failed.ipynb")
    make_folder(output.parent)
    remove(output)
    started = time.monotonic()

    def say(line: str) -> None:
        echo(f"{artifact}: {line}")

    notebook = twins.parse(source.read_text(encoding="utf-8"))
    keep_modules = f"from paperlib import modules\nmodules.keep({str(output.with_suffix('.done'))!r}, drawing=False)"
    notebook.cells.append(nbformat.v4.new_code_cell(keep_modules))
    stdout, stderr = _Lines(say), _Lines(say)
    say("running")
    try:
        reason = ""
        try:
            notebook = papermill.execute_notebook(
                notebook,
                running,
                given,
                cwd=paths.ROOT,
                progress_bar=False,
                kernel_manager_class=_Kernel,
                record_timing=False,
                start_timeout=600,  # seconds; on a busy machine 60, the default, are not always enough
                stdout_file=stdout,
                stderr_file=stderr,
            )
            if notebook.metadata.papermill.exception:  # papermill takes `sys.exit()` for success
                reason = "SystemExit: it stopped before its last cell"
        except PapermillExecutionError as error:
            reason = f"{error.ename}: {error.evalue}"
        except Exception as error:  # a kernel that died or did not start, a full disk
            reason = f"{type(error).__name__}: {error}"
        stdout.close()
        stderr.close()
        if reason:
            cell, last_line = _last_started(running), reason.strip().splitlines()[-1]
            evidence = "none"
            if running.exists():
                running.replace(failed)
                evidence = paths.shown(failed)
            raise Refused(f"{paths.shown(source)}: the cell {cell!r} failed: {last_line}. Evidence: {evidence}.")
        notebook.cells.pop()
        write_atomically(output, twins.render(_reproducible(notebook)).encode())
        remove(failed)
    finally:
        remove(running)
    say(f"{paths.shown(output)} made in {time.monotonic() - started:.0f} s")
    return output


class _Kernel(AsyncKernelManager):
    """A kernel of this interpreter, whatever kernels are registered, with this paperlib, one thread, inline figures."""

    @property
    def kernel_spec(self) -> KernelSpec:
        path = [str(paths.ROOT), os.environ.get("PYTHONPATH")]
        env = {
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "OMP_NUM_THREADS": "1",  # two processes with two threads each are many times slower on two cores
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        }
        # Else every kernel warns that its connection is not encrypted, and an interrupted one shows where it was.
        quiet = ["--log-level=CRITICAL"]
        return KernelSpec(**get_kernel_dict(quiet) | {"env": env})


class _Lines:
    """A text stream that passes whole lines to `say`, and every ten seconds the state of a progress bar."""

    def __init__(self, say: Callable[[str], None], every: float = 10):
        self.say, self.every = say, every
        self.rest = ""  # the line that has not ended yet
        self.shown = time.monotonic()  # when a line was passed on

    def write(self, text: str) -> None:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self._pass_on(line)
        if "\r" in self.rest and time.monotonic() - self.shown > self.every:
            self._pass_on(self.rest)

    def _pass_on(self, line: str) -> None:
        state = line.rstrip().split("\r")[-1].rstrip()  # what a terminal would show after the carriage returns
        if state:
            self.say(state)
            self.shown = time.monotonic()

    def flush(self) -> None:
        """papermill calls it after each write.  It does nothing: an unfinished line waits for its end."""

    def close(self) -> None:
        self._pass_on(self.rest)


def _last_started(running: Path) -> str:
    """The first line of the cell that ran last, or "" if it is not known."""
    try:
        cells = nbformat.read(running, as_version=4).cells
    except (OSError, ValueError):
        return ""
    started = [cell.source for cell in cells if cell.metadata.get("papermill", {}).get("start_time")]
    return started[-1].partition("\n")[0] if started else ""


def _reproducible(notebook: NotebookNode) -> NotebookNode:
    """An executed notebook without what differs between equal runs: papermill's metadata, times, parts of streams."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        if not cell.metadata.get("tags"):
            cell.metadata.pop("tags", None)
        outputs = []
        for item in cell.get("outputs", []):
            follows_stream = bool(outputs) and outputs[-1].output_type == "stream"
            if item.output_type != "stream" or (item.name == "stdout" and not follows_stream):
                outputs.append(item)
            elif item.name == "stdout":  # how a stream is divided differs from run to run
                outputs[-1].text += item.text
        if cell.cell_type == "code":
            cell.outputs = outputs
    return notebook
