"""What runs on a Dask worker: it passes each job to a child process, and watches over both.

The worker's own process computes nothing.  So a job has the client's arithmetic, memory settings and code however the
worker was started, it can be ended, and the worker answers the scheduler while torch computes.  This module imports
neither numpy nor torch.
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from threading import local

from distributed import Reschedule, Status, Worker, get_worker

from paperlib import arithmetic, processes
from paperlib.errors import Refused

MARK = ".store"  # a file in checkpoints/ whose text tells one store from another
EVERY = 0.5  # seconds between two looks whether the job is still wanted
PATIENCE = 10.0  # seconds until a new file is seen on every host of a network folder
GRACE = 5.0  # seconds that a child has to end by itself
OURS = ("COMPANION_", "MALLOC_")  # how the environment variables begin that a child has from the client

_kept = local()  # the child of each thread of the worker


class Died(Exception):
    """The process of a job has died."""


@dataclass(frozen=True)
class Setting:
    """Where and how jobs run; a child takes jobs of one setting only."""

    root: str  # the checkout, on all hosts
    store: str  # the text of the file MARK in its checkpoints/
    code: str  # a digest of the package, so that edited code is loaded anew
    arithmetic: str  # one of `arithmetic.NAMES`
    variables: dict[str, str | None]  # of the client's environment: arithmetic, and what begins as in OURS; None: unset
    prepare: bytes  # the pickled function that a process calls first, or None

    @property
    def topic(self) -> str:
        """The Dask topic of all jobs on one store; one of each job would be a message more for every job."""
        return f"companion-{self.store}"


def perform(setting: Setting, call: bytes) -> tuple[str, object]:
    """Run a pickled job in a child and return how it ended: ("done", None), ("refused", why), ("fault", exception).

    Exceptions are pickled.  What the job prints on stdout goes with its key to the setting's topic of Dask, and
    what it prints on stderr to the worker's log.  Raises `Died` where the child died, which Dask may try again.
    """
    worker = get_worker()
    key = worker.get_current_task()
    if problem := _elsewhere(setting):
        return "refused", f"{problem} (worker {worker.address})"
    try:
        child = _ready(setting)
    except Refused as problem:
        return "refused", f"{problem} (worker {worker.address})"
    try:
        child.connection.send((setting.prepare, call))
        while True:
            if child.connection.poll(EVERY):
                kind, content = child.connection.recv()
                if kind != "line":
                    return kind, content
                worker.log_event(setting.topic, (key, content))
            elif not _is_wanted(worker, key):
                child.stop()
                raise Reschedule  # if the worker is about to end, another one goes on; a cancelled job is forgotten
    except (EOFError, OSError):
        child.stop()
        worker.log_event(setting.topic, (key, f"its process on {worker.address} died, as when memory runs out."))
        raise Died(f"on {worker.address}") from None


class _Child:
    """A process that runs one job after another, see `executors.child`."""

    def __init__(self, setting: Setting):
        self.setting = setting
        self.connection, theirs = Pipe()
        command = [sys.executable, "-m", "paperlib.executors.child", str(theirs.fileno())]
        environment = _environment(setting)
        # not by `multiprocessing`: daemons may start no processes so, and Dask's workers are daemons by default
        self.process = subprocess.Popen(command, cwd=setting.root, env=environment, pass_fds=[theirs.fileno()])
        theirs.close()

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.connection.close()


def _ready(setting: Setting) -> _Child:
    """The child of this thread if it has this setting, otherwise a new one."""
    child = getattr(_kept, "child", None)
    if child is None or child.setting != setting or not child.is_alive:
        arithmetic.refuse_lacking(setting.arithmetic)
        if child is not None:
            child.stop()
        child = _kept.child = _Child(setting)
    return child


def _environment(setting: Setting) -> dict[str, str]:
    """The worker's environment, but with the client's arithmetic, memory settings, and package."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    path = [setting.root, os.environ.get("PYTHONPATH")]
    environment |= setting.variables | {"PYTHONPATH": os.pathsep.join(filter(None, path))}
    environment |= {processes.MAKE: str(os.getpid())}  # which the child does not outlive
    return {name: value for name, value in environment.items() if value is not None}


def _elsewhere(setting: Setting) -> str:
    """A sentence where this host sees another store than the client, or ""."""
    mark = Path(setting.root) / "checkpoints" / MARK
    given_up = time.monotonic() + PATIENCE
    while True:
        try:
            if mark.read_text() == setting.store:
                return ""
            return f"{mark.parent} holds other networks on this host; mount one folder for all hosts."
        except OSError:
            if time.monotonic() > given_up:
                return f"This host does not see {mark.parent}; mount the checkout under the same path on all hosts."
        time.sleep(EVERY)


def _is_wanted(worker: Worker, key: str) -> bool:
    """Whether a client still waits for a job, and this worker is to go on."""
    task = worker.state.tasks.get(key)
    return task is not None and task.state != "cancelled" and worker.status not in (Status.closing, Status.closed)
