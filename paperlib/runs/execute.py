"""The runner: one notebook executed strictly, under a temporary name, so that a failed one is never taken for built."""

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
from paperlib.files import write_atomically
from paperlib.profiles import parameters
from paperlib.runs import twins

_print = partial(print, flush=True)  # through make's pipes too, a line shows when it comes


def execute(
    artifact: str,
    given: dict[str, Any],
    output: Path,
    *,
    origin: str = "",
    echo: Callable[[str], None] = _print,
) -> Path:
    """Execute a notebook with the parameters `given` over its own; `echo` gets its printed lines as they come.

    Writes `output` in one step and only if every cell ran: no times, no stderr (progress is shown, not kept), so the
    same run gives the same bytes.  The list of the library's files that the notebook imported goes beside it (see
    `modules`).  Otherwise removes any older `output`, keeps the unfinished one as `*.failed.ipynb` beside it and raises
    `Refused` with the cell and the reason.  An interrupted run leaves nothing.
    `origin` says where `given` came from, for the sentence that refuses it.
    """
    one_of("notebook", artifact, paths.notebooks())
    source, output = paths.notebook(artifact), output.absolute()
    parameters.check(artifact, parameters.declared(source), given, origin=origin)
    running, failed = output.with_name(f".{output.stem}.running.ipynb"), output.with_suffix(".failed.ipynb")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)
    started = time.monotonic()

    def say(line: str) -> None:
        echo(f"{artifact}: {line}")

    last_cell = f"from paperlib import modules\nmodules.keep({str(output.with_suffix('.done'))!r}, drawing=False)"
    to_run = twins.parse(source.read_text(encoding="utf-8"))
    to_run.cells.append(nbformat.v4.new_code_cell(last_cell))  # its imports decide when it is executed again
    out, err = _Lines(say), _Lines(say)
    say("running")
    try:
        reason = ""
        try:
            notebook = papermill.execute_notebook(
                to_run,
                running,
                given,
                cwd=paths.ROOT,
                progress_bar=False,
                kernel_manager_class=_Kernel,
                record_timing=False,
                stdout_file=out,
                stderr_file=err,
            )
            if notebook.metadata.papermill.exception:  # papermill takes `sys.exit()` for success
                reason = "SystemExit: it stopped before its last cell"
        except PapermillExecutionError as error:
            reason = f"{error.ename}: {error.evalue}"
        except Exception as error:  # a kernel that died or never started, a full disk
            reason = f"{type(error).__name__}: {error}"
        out.close()
        err.close()
        if reason:
            cell, last = _last_started(running), reason.strip().splitlines()[-1]
            where, evidence = f"{paths.shown(source)}: the cell {cell!r} failed", "none"
            if running.exists():
                running.replace(failed)
                evidence = paths.shown(failed)
            raise Refused(f"{where}: {last}. Evidence: {evidence}.")
        notebook.cells.pop()
        write_atomically(output, twins.render(_settled(notebook)).encode())
        failed.unlink(missing_ok=True)
    finally:
        running.unlink(missing_ok=True)
    say(f"{paths.shown(output)} made in {time.monotonic() - started:.0f} s")
    return output


class _Kernel(AsyncKernelManager):
    """This interpreter whatever kernels are registered, this tree's paperlib, one thread, inline figures."""

    @property
    def kernel_spec(self) -> KernelSpec:
        path = [str(paths.ROOT), os.environ.get("PYTHONPATH")]
        env = {
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "OMP_NUM_THREADS": "1",  # two processes with two threads each are many times slower on two cores
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        }
        quiet = ["--log-level=ERROR"]  # each start warns that the kernel talks to this process unencrypted
        return KernelSpec(**get_kernel_dict(quiet) | {"env": env})


class _Lines:
    """A text stream that hands whole lines to `say`, and of a progress bar one state every ten seconds."""

    def __init__(self, say: Callable[[str], None], every: float = 10):
        self.say, self.every, self.rest, self.shown = say, every, "", time.monotonic()

    def write(self, text: str) -> None:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self._tell(line)
        if "\r" in self.rest and time.monotonic() - self.shown > self.every:
            self._tell(self.rest)

    def _tell(self, line: str) -> None:
        state = line.rstrip().split("\r")[-1].rstrip()
        if state:
            self.say(state)
            self.shown = time.monotonic()

    def flush(self) -> None:
        """papermill calls this after each write; a line that has not ended yet stays."""

    def close(self) -> None:
        self._tell(self.rest)


def _last_started(running: Path) -> str:
    """The first line of the cell that was running last, or "" if that is not known."""
    try:
        cells = nbformat.read(running, as_version=4).cells
    except (OSError, ValueError):
        return ""
    started = [cell.source for cell in cells if cell.metadata.get("papermill", {}).get("start_time")]
    return started[-1].partition("\n")[0] if started else ""


def _settled(notebook: NotebookNode) -> NotebookNode:
    """An executed notebook without what differs between equal runs: papermill's metadata, times, how streams came."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        if not cell.metadata.get("tags"):
            cell.metadata.pop("tags", None)
        kept = []
        for item in cell.get("outputs", []):
            if item.output_type == "stream" and kept and kept[-1].output_type == "stream" and item.name == "stdout":
                kept[-1].text += item.text
            elif item.output_type != "stream" or item.name == "stdout":
                kept.append(item)
        if cell.cell_type == "code":
            cell.outputs = kept
    return notebook
