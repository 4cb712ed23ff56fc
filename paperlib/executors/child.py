"""The program of a child of a Dask worker: it runs the jobs that come through a pipe, in one process with one setting.

    python -m paperlib.executors.child FILE_DESCRIPTOR

It ends when the pipe is closed, and when the worker has ended.
"""

import pickle
import signal
import sys
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from threading import Lock

from paperlib import processes
from paperlib.errors import Refused


def main() -> None:
    """Run jobs until there are no more."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a notebook's kernel is ended as well
    processes.follow_make()
    connection, prepared = Connection(int(sys.argv[1])), False
    sys.stdout = lines = _Lines(connection)
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            prepare, call = connection.recv()
            try:
                if not prepared and (first := pickle.loads(prepare)):
                    first()
                prepared = True
                function, arguments = pickle.loads(call)
                function(*arguments)
                ending = "done", None
            except Refused as problem:
                ending = "refused", str(problem)
            except Exception as fault:
                ending = "fault", _pickled(fault)
            lines.close()
            lines.send(*ending)


class _Lines:
    """A text stream that sends whole lines through the pipe."""

    def __init__(self, connection: Connection):
        self.connection, self.lock, self.rest = connection, Lock(), ""

    def write(self, text: str) -> None:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self.send("line", line)

    def send(self, kind: str, content: object) -> None:
        with self.lock:  # threads print, too
            self.connection.send((kind, content))

    def flush(self) -> None:
        """It does nothing: an unfinished line waits for its end."""

    def close(self) -> None:
        """Send the line that has not ended."""
        if self.rest:
            self.write("\n")


def _pickled(fault: Exception) -> bytes:
    """The exception, with its traceback as a note; or a plain one where it cannot be pickled."""
    text = traceback.format_exc()
    fault.add_note(text)
    try:
        pickle.loads(copy := pickle.dumps(fault))
        return copy
    except Exception:
        return pickle.dumps(RuntimeError(text))


if __name__ == "__main__":
    main()
