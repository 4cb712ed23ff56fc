"""Processes: jobs in parallel ones, of which a dead one is replaced; and none outlives the one that started it."""

import os
import select
import signal
import sys
import time
from multiprocessing import parent_process
from threading import Thread

MAKE = "COMPANION_MAKE"  # the environment variable with the process id of the outermost make
EVERY = 1.0  # seconds between two looks whether that process is there, on systems without pidfd


def follow_make() -> None:
    """Interrupt this process once the outermost make that started it has ended; without a make nothing is done.

    A make that is killed takes neither its sub-makes nor their commands with it.
    """
    make = os.environ.get(MAKE, "")
    if make.isdigit():
        Thread(target=_interrupt_after, args=(int(make),), daemon=True).start()


def end_with_parent() -> None:
    """End this process, which `multiprocessing` started, at once when its parent has ended, however that happened."""
    Thread(target=_end_with, args=(parent_process(),), daemon=True).start()


def _end_with(parent) -> None:
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
