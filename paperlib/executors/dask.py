"""The executor of a Dask cluster: jobs go to its scheduler, and what they make lies in a folder that all hosts share.

The folder is the only state.  A worker that is lost is replaced by another one, which goes on from what is on disk.
"""

import logging
import os
import pickle
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from paperlib import arithmetic, files, paths, processes
from paperlib.errors import Refused
from paperlib.executors.sweep import Sweep, say

TIMEOUT = 5  # seconds for an answer of the scheduler
EXTRA = "pip install -c requirements.lock -e '.[cluster]'"


def refuse_missing() -> None:
    """Refuse where the extra `cluster` is not installed."""
    try:
        import dask_jobqueue  # noqa: F401
        import distributed  # noqa: F401
    except ImportError as problem:
        raise Refused(f"A cluster needs the extra packages of Dask ({problem}); install them: {EXTRA}") from None


@dataclass(frozen=True)
class Cluster:
    """The workers of the Dask scheduler at an address such as "tcp://host:8786".

    Refused without the extra `cluster`, and where nothing answers at the address.
    """

    scheduler: str

    def __post_init__(self):
        refuse_missing()
        from distributed.comm import get_address_host_port

        try:
            host, port = get_address_host_port(self.scheduler, strict=True)
            socket.create_connection((host, port), TIMEOUT).close()
        except (ValueError, OSError) as problem:
            raise self._silent(problem) from None

    def run(
        self,
        function: Callable,
        jobs: Mapping[str, tuple],
        *,
        titles: Mapping[str, str] | None = None,
        prepare: Callable | None = None,
    ) -> None:
        """Run jobs, see `executors.Executor`; what one prints on stdout is printed here, one at a time."""
        from distributed import as_completed

        from paperlib.executors import agent

        sweep, setting = Sweep(jobs, titles), _setting(prepare)
        name = getattr(function, "func", function).__name__.strip("_")  # of a partial function as well
        tasks = {f"{name}-{key}-{setting.store}": key for key in jobs}

        def show(event: tuple) -> None:  # what a job printed, of another client's as well
            task, line = event[1]
            if task in tasks and len(jobs) == 1:
                print(line, flush=True)
            elif task in tasks:
                say(f"{sweep.titles[tasks[task]]}: {line}")

        with self._client() as client:
            if len(jobs) > 1:
                workers = len(client.scheduler_info(n_workers=-1)["workers"])
                say(f"{self.scheduler} has {workers} workers now; its dashboard: {client.dashboard_link}")
            client.subscribe_topic(setting.topic, show)
            futures = []
            try:
                for rank, (task, key) in enumerate(tasks.items()):
                    call = pickle.dumps((function, jobs[key]))
                    options = {"key": task, "retries": 1, "priority": -rank}
                    futures.append(client.submit(agent.perform, setting, call, **options))
                for future in as_completed(futures, loop=client.loop):
                    self._report(future, tasks[future.key], sweep)
                    future.release()  # so that a later request for the same looks at the disk, not at this answer
            except BaseException:
                with suppress(Exception):  # the scheduler may be gone
                    client.cancel(futures)
                raise
        sweep.refuse_failures()

    @contextmanager
    def _client(self) -> Iterator:
        """A client of the scheduler, without the lines that Dask logs when one of them ends."""
        from distributed import Client

        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
        try:
            client = Client(self.scheduler, timeout=TIMEOUT, set_as_default=False)
        except (ValueError, OSError) as problem:
            raise self._silent(problem) from None
        try:
            yield client
        finally:
            with suppress(Exception):  # the scheduler may be gone
                client.close(timeout=TIMEOUT)

    def _silent(self, problem: Exception) -> Refused:
        return Refused(f"No Dask scheduler answers at {self.scheduler!r}: {problem}. Give SCHEDULER=tcp://HOST:PORT.")

    def _report(self, future, key: str, sweep: Sweep) -> None:
        """Tell the sweep how a job ended; a fault of the program is raised, and refused where the scheduler is gone."""
        from distributed import KilledWorker

        from paperlib.executors import agent

        title = sweep.titles[key]
        if future.status == "finished":
            kind, content = future.result()
            if kind == "done":
                sweep.done(key)
            elif kind == "refused":
                sweep.fail(key, content)
            else:
                raise pickle.loads(content)
        elif future.status == "error":
            problem = future.exception()
            if isinstance(problem, agent.Died):
                sweep.fail(key, f"{title}: its process died again, {problem}.")
            elif isinstance(problem, KilledWorker):
                count = problem.allowed_failures + 1
                advice = "more memory or a longer walltime may help, or more allowed-failures"
                sweep.fail(key, f"{title}: {count} workers were lost with it; {advice}.")
            else:
                sweep.fail(key, f"{title}: Dask could not run it: {type(problem).__name__}: {problem}")
        else:
            kept = "what is done is kept, and the same command goes on from there"
            raise Refused(f"The scheduler {self.scheduler} has ended, or given up {title}; {kept}.")


def _setting(prepare: Callable | None):
    """What all jobs of one call have in common."""
    from paperlib.executors import agent

    names = [name for name in os.environ if name.startswith(agent.OURS) and name != processes.MAKE]
    return agent.Setting(
        root=str(paths.ROOT),
        store=_mark(paths.CHECKPOINTS / agent.MARK),
        code=_code(),
        arithmetic=arithmetic.current(),
        variables={name: os.environ[name] for name in names} | arithmetic.environment(arithmetic.current()),
        prepare=pickle.dumps(prepare),
    )


def _mark(path: Path) -> str:
    """The text of the file that tells this store from others; the first client writes it."""
    if not path.exists():
        new = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        files.write_atomically(new, uuid.uuid4().hex[:8].encode())
        with suppress(FileExistsError):  # another client was first
            os.link(new, path)
        files.remove(new)
    return path.read_text()


def _code() -> str:
    """A digest of the package's files."""
    package = paths.ROOT / "paperlib"
    sources = sorted(path for path in package.rglob("*") if path.suffix in (".py", ".c"))
    return files.hashed([(str(path.relative_to(package)), files.sha256(path.read_bytes())) for path in sources])
