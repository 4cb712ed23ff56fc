"""The executor of one machine: parallel processes, of which a dead one is replaced."""

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import active_children, get_context

from paperlib import processes
from paperlib.errors import Refused
from paperlib.executors.sweep import Sweep, say


@dataclass(frozen=True)
class Local:
    """`workers` parallel processes, each of which ends with this one."""

    workers: int

    def run(
        self,
        function: Callable,
        jobs: Mapping[str, tuple],
        *,
        titles: Mapping[str, str] | None = None,
        prepare: Callable | None = None,
    ) -> None:
        """Run jobs, see `executors.Executor`; one whose process died is tried again after all others."""
        begin = partial(_begin, prepare)
        start = partial(ProcessPoolExecutor, 1, get_context("spawn"), begin)  # torch may deadlock in a fork
        sweep, waiting, died = Sweep(jobs, titles), deque(jobs), set()
        running: dict[Future, tuple[str, ProcessPoolExecutor]] = {}
        free = [start() for _ in range(min(self.workers, len(jobs)))]
        try:
            while waiting or running:
                while waiting and free:
                    key, pool = waiting.popleft(), free.pop()
                    running[pool.submit(function, *jobs[key])] = key, pool
                for job in wait(running, return_when=FIRST_COMPLETED).done:
                    key, pool = running.pop(job)
                    try:
                        job.result()
                        sweep.done(key)
                    except BrokenProcessPool:
                        pool = start()
                        if key in died:
                            sweep.fail(key, f"{sweep.titles[key]}: its process died again.")
                        else:
                            died.add(key)
                            waiting.append(key)
                            advice = "as when memory runs out; fewer JOBS need less"
                            say(f"{sweep.titles[key]}: its process died, {advice}. It is tried again after the others.")
                    except Refused as problem:
                        sweep.fail(key, str(problem))
                    free.append(pool)
        except BaseException:
            for worker in active_children():  # they would finish their jobs otherwise
                worker.terminate()
            raise
        finally:
            for pool in [*free, *(pool for _, pool in running.values())]:
                pool.shutdown(cancel_futures=True)
        sweep.refuse_failures()


def _begin(prepare: Callable | None) -> None:
    processes.end_with_parent()
    if prepare:
        prepare()
