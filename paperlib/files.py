"""Files: atomic writes, leases, patient reads, strict JSON, checksums, Python modules."""

import errno
import hashlib
import importlib.util
import json
import math
import os
import re
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

import numpy as np
from filelock import SoftFileLease, Timeout

from paperlib import paths
from paperlib.errors import Refused

LEASE = 10.0  # seconds after which a lease that is no longer renewed may be taken over; equal on all hosts
POLL = 0.1  # seconds between two looks at a lease that another process holds
PAUSES = 0.05, 0.2, 0.5  # seconds before a file that is being replaced is read again


def write_atomically(path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all; parent folders are made.  Refused where the system cannot write.

    After a loss of power the file is there as well: its bytes are synced before it gets its name, and its folder after.
    On a network folder another host sees the old file or the new one, too (see `read`); of two hosts that write at once
    the last one stays.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")  # os.replace is atomic within a folder
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):  # the first error is the one to tell
                temporary.unlink(missing_ok=True)
            raise
        _sync(path.parent)
    except OSError as error:
        raise _cannot_write(path, error, len(data)) from error


def make_folder(folder: Path) -> None:
    """Make a folder and its parents where they are not yet; refused where the system cannot."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error


def remove(*given: Path) -> None:
    """Remove files that may be gone already.

    One that cannot be removed stays: whoever cleans up has an error to tell, which another one must not hide.
    """
    for path in given:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Make a change of names in a folder last; no more can be done on systems that do not open folders."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _cannot_write(path: Path, error: OSError, size: int = 0) -> Refused:
    remedy = f"free {size // 1000 + 1:,} kB" if error.errno == errno.ENOSPC else "solve that"
    advice = f"Nothing half-written was left; {remedy} and start again."
    return Refused(f"Could not write {paths.shown(path)}: {reason(error)}. {advice}")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """A context that only one process at a time is in, on all hosts that share the folder: it holds the lease `path`.

    The lease is a file, made with its folder and removed in the end, that names the holder's host and process.  The
    holder renews it three times in `LEASE` seconds.  If its process dies, another one on the same host takes the lease
    at once.  One on another host takes it after it has seen no renewal for `LEASE` seconds, by its own clock: the
    clocks of hosts may show different times, and may be set; only their speed must be about the same.

    A holder that stands still for longer loses its lease without notice, and then two processes do the same work.  So
    what is written under a lease is written whole, and from both it must be equally good.

    In a read-only folder nobody writes, so there is nothing to lock.
    """
    make_folder(path.parent)
    lease = SoftFileLease(path, lease_duration=LEASE, timeout=LEASE, poll_interval=POLL)
    try:
        _acquire(lease, path)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise _cannot_write(path, error) from error
    try:
        yield
    finally:
        with suppress(OSError):  # its folder may be lost; it is not renewed any more, so it runs out
            lease.release()


def _acquire(lease: SoftFileLease, path: Path) -> None:
    """Wait for a lease; break it if two looks, `LEASE` seconds apart, find the same file with the same time.

    Filelock itself takes over what has run out only where two names can be exchanged, which NFS and SMB refuse.
    """
    seen = None
    while True:
        try:
            lease.acquire()
            return
        except Timeout:
            found = _version(path)
            if found and found == seen:
                path.unlink(missing_ok=True)
            seen = found


def _version(path: Path) -> tuple | None:
    """What changes in a file's status when it is renewed or replaced; None where there is no file."""
    with suppress(FileNotFoundError):
        status = path.stat()
        return status.st_ino, status.st_mtime_ns, status.st_ctime_ns
    return None


def read(path: Path) -> bytes:
    """The bytes of a file that is known to be there; refused where the system cannot read it.

    On a network folder a file that another host replaces at this moment may seem to be gone, or turn stale while it is
    read.  So after these two errors it is read again, a few times.
    """
    for pause in (*PAUSES, None):
        try:
            return path.read_bytes()
        except OSError as error:
            if pause is None or error.errno not in (errno.ENOENT, errno.ESTALE):
                raise _cannot_read(path, error) from error
            time.sleep(pause)


def exists(path: Path) -> bool:
    """Whether there is a file or folder; refused where the system cannot tell, as when a network folder is lost."""
    try:
        return path.exists()
    except OSError as error:
        raise _cannot_read(path, error) from error


def _cannot_read(path: Path, error: OSError) -> Refused:
    return Refused(f"Could not read {paths.shown(path)}: {reason(error)}. Is its folder still there, or still mounted?")


def set_aside(path: Path, fault: str, remedy: str) -> None:
    """Rename a file that cannot be used to `*.damaged`, where it is kept, and say so on stderr."""
    path.replace(path.with_name(f"{path.name}.damaged"))
    kept = f"the old file is kept as {path.name}.damaged"
    print(f"{paths.shown(path)} {fault}. {remedy}; {kept}.", file=sys.stderr)


def sha256(data: bytes) -> str:
    """The SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def hashed(content: object) -> str:
    """A short name for `content`: the first 16 digits of the SHA-256 of its JSON with sorted keys."""
    return sha256(json.dumps(content, sort_keys=True).encode())[:16]


def module(path: Path, name: str) -> ModuleType:
    """The module in the Python file `path`, under the name `name`; the file is executed once in a process."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(sys.modules[name])
        except BaseException:
            del sys.modules[name]  # the next call must not find an incomplete module
            raise
    return sys.modules[name]


def plain(value):
    """`value` in the types of JSON: arrays, tuples and ranges become lists, NaN and infinity None; or refused."""
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (str, int, float)):
        return None if isinstance(value, float) and not math.isfinite(value) else value
    raise Refused(f"A record cannot hold {value!r} of type {type(value).__name__}; it holds text, numbers and lists.")


def as_json(content: object) -> str:
    """Strict JSON, indented, with each innermost list on one line."""
    text = json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False)
    # Strings are safe: in JSON they hold no line break, without which the pattern does not match.
    return re.sub(r"\[\n[^\[\]{}]*\n *\]", lambda match: re.sub(r"\n *", " ", match[0]), text) + "\n"


def reason(error: OSError) -> str:
    """The cause of an OSError as the system describes it."""
    return (error.strerror or str(error)).lower()
