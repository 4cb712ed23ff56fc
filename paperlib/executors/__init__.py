"""Executors: where independent jobs run, in processes of this machine or on the workers of a Dask cluster.

    executors.local(workers=2).run(function, {"a": (1,), "b": (2,)})
    executors.cluster("tcp://host:8786").run(function, {"a": (1,), "b": (2,)})

Both take the same jobs and fail in the same way.  A job returns nothing: its result is what it leaves on disk.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from paperlib import errors

LOCAL, DASK, QUEUES = "local", "dask", ("slurm", "pbs")
NAMES = (LOCAL, DASK, *QUEUES)


class Executor(Protocol):
    """Something that runs jobs."""

    def run(
        self,
        function: Callable,
        jobs: Mapping[str, tuple],
        *,
        titles: Mapping[str, str] | None = None,
        prepare: Callable | None = None,
    ) -> None:
        """Call `function(*arguments)` for each of `jobs`, which maps keys to arguments, earlier ones first.

        A key says what the job makes: on a cluster, jobs of one function and key that two clients ask for run once.
        `titles` are the names that a key has in messages, if another than itself.  Each process first calls `prepare`.
        A job whose process dies, as when memory runs out, is tried once more in a new process.  A job that is refused
        is reported at once, and the others go on.  In the end one sentence refuses all that failed.  Any other
        exception, and an interruption, ends all jobs.
        """


def local(workers: int) -> Executor:
    """The executor with `workers` parallel processes on this machine."""
    from paperlib.executors.machine import Local

    return Local(workers)


def cluster(scheduler: str) -> Executor:
    """The executor with the workers of the Dask scheduler at an address such as "tcp://host:8786".

    Refused without the extra `cluster`, and where no scheduler answers.
    """
    from paperlib.executors.dask import Cluster

    return Cluster(scheduler)


@contextmanager
def chosen(name: str, *, workers: int, scheduler: str = "") -> Iterator[Executor]:
    """The executor called `name`, one of `NAMES`; a queueing system's cluster is started and ended with the block.

    `workers` are those of "local" and at most those of a queueing system; `scheduler` is the address for "dask".
    """
    errors.one_of("executor", name, NAMES)
    if name == DASK and not scheduler:
        raise errors.Refused("The executor dask needs the address of a scheduler, such as SCHEDULER=tcp://host:8786.")
    if name == LOCAL:
        yield local(workers)
    elif name == DASK:
        yield cluster(scheduler)
    else:
        from paperlib.executors import queues

        with queues.started(name, workers) as address:
            yield cluster(address)
