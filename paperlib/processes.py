"""Processes: jobs in parallel ones, of which a dead one is replaced; and none outlives the one that started it."""

import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import active_children, get_context, parent_process
from threading import Thread

from paperlib.errors import Refused

MAKE = "COMPANION_MAKE"  # the environment variable with the process id of the outermost make
EVERY = 1.0  # seconds between two looks whether that process is there, on systems without pidfd


def run(function: Callable, jobs: Mapping[str, tuple], *, workers: int, prepare: Callable | None = None) -> None:
    """Call `function(*arguments)` for each of `jobs`, which maps names to arguments, in `workers` parallel processes.

    Each process first calls `prepare`.  A job whose process dies, as when memory runs out, is tried once more after all
    others, in a new process.  A job that is refused is reported at once, and the others go on.  In the end one sentence
    refuses all that failed.  Any other exception, and an interruption, ends all processes.
    """
    start = partial(ProcessPoolExecutor, 1, get_context("spawn"), _begin, (prepare,))  # torch may deadlock in a fork
    waiting, died, failed = deque(jobs), set(), []
    running: dict[Future, tuple[str, ProcessPoolExecutor]] = {}
    free = [start() for _ in range(min(workers, len(jobs)))]
    try:
        while waiting or running:
            while waiting and free:
                name, pool = waiting.popleft(), free.pop()
                running[pool.submit(function, *jobs[name])] = name, pool
            for job in wait(running, return_when=FIRST_COMPLETED).done:
                name, pool = running.pop(job)
                try:
                    job.result()
                except BrokenProcessPool:
                    pool = start()
                    if name in died:
                        failed.append(name)
                        _report(f"{name}: its process died again.")
                    else:
                        died.add(name)
                        waiting.append(name)
                        advice = "as when memory runs out; fewer JOBS need less"
                        _report(f"{name}: its process died, {advice}. It is tried again after the others.")
                except Refused as problem:
                    failed.append(name)
                    _report(str(problem))
                free.append(pool)
    except BaseException:
        for worker in active_children():  # they would finish their jobs otherwise
            worker.terminate()
        raise
    finally:
        for pool in [*free, *(pool for _, pool in running.values())]:
            pool.shutdown(cancel_futures=True)
    if failed:
        raise Refused(f"{len(failed)} of {len(jobs)} failed, for the reasons above: {'; '.join(failed)}.")


def follow_make() -> None:
    """Interrupt this process once the outermost make that started it has ended; without a make nothing is done.

    A make that is killed takes neither its sub-makes nor their commands with it.
    """
    make = os.environ.get(MAKE, "")
    if make.isdigit():
        Thread(target=_interrupt_after, args=(int(make),), daemon=True).start()


def _begin(prepare: Callable | None) -> None:
    Thread(target=_end_with, args=(parent_process(),), daemon=True).start()
    if prepare:
        prepare()


def _end_with(parent) -> None:
    """End this process at once when the process `parent` has ended, however that happened."""
    parent.join()
    os._exit(1)


def _interrupt_after(make: int) -> None:
    try:
        select.select([os.pidfd_open(make)], [], [])  # it also notices an end that nobody has waited for
    except (AttributeError, OSError):  # only Linux has it; and make may have ended already
        while _exists(make):
            time.sleep(EVERY)
    print("make has ended, so this ends as well.", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGTERM)


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 is not sent
    except OSError:
        return False
    return True


def _report(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
