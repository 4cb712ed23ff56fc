"""Leases and reads of a store that several hosts share: holders that died, live or stand still; clocks; lost folders.

Another host is imitated by its name in the lease file, and by what it does to the file: it renews its time or does not.
"""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import pytest

from paperlib import files, paths
from paperlib.errors import Refused

LONG = 60  # seconds that no test lasts


class Clock:
    """The time by which this process waits for leases; sleeping moves it on, and `then` is called after each step."""

    def __init__(self):
        self.now, self.then = 1000.0, lambda: None

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        assert self.now < 100_000, "it waits for ever"
        self.then()


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for name in ("monotonic", "perf_counter"):
        monkeypatch.setattr(time, name, clock)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    return clock


@pytest.fixture(params=["names can be exchanged", "as on NFS"])
def kind_of_folder(request, monkeypatch):
    """Filelock takes over by exchanging two names where the system can."""
    if request.param == "as on NFS":
        monkeypatch.setattr("filelock._soft.exchange_names", lambda *_: False)


def held_elsewhere(path):
    """Leave the lease at `path` as one that a process on another host holds, whose number is that of this one here."""
    with files.locked(path):
        text = path.read_text()
    path.write_text(re.sub("(?m)^host=.*$", "host=elsewhere", text))
    assert f"pid={os.getpid()}\nhost=elsewhere\nmode=lease\n" in path.read_text()


def test_a_lease_is_for_one_names_its_holder_and_is_gone_in_the_end(tmp_path):
    path = tmp_path / "new" / ".lease"
    with files.locked(path), pytest.raises(filelock.Timeout):
        assert f"\npid={os.getpid()}\nhost=" in path.read_text()
        filelock.SoftFileLease(path, lease_duration=files.LEASE, timeout=0).acquire()
    assert not path.exists()
    with pytest.raises(KeyError), files.locked(path):
        raise KeyError
    assert not path.exists()


COUNTING = """
import sys
from pathlib import Path
from paperlib import files
count = Path(sys.argv[1])
for _ in range(20):
    with files.locked(count.with_suffix(".lease")):
        number = int(count.read_text())
        count.write_text(str(number + 1))
"""


def program(text, *arguments, **options):
    """A Python process of its own."""
    environment = os.environ | {"PYTHONPATH": str(Path(files.__file__).parents[1])}
    return subprocess.Popen([sys.executable, "-c", text, *map(str, arguments)], env=environment, text=True, **options)


def test_processes_that_count_together_lose_nothing(tmp_path):
    count = tmp_path / "count"
    count.write_text("0")
    for process in [program(COUNTING, count) for _ in range(3)]:
        assert process.wait(LONG) == 0
    assert count.read_text() == "60"


TAKING = """
import os, signal, sys
from pathlib import Path
from paperlib import files
files.LEASE = 3600
with files.locked(Path(sys.argv[1])):
    if sys.argv[2:]:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_lease_of_a_process_that_died_on_this_host_is_taken_at_once(tmp_path):
    """Not after an hour, as it would be on another host."""
    path = tmp_path / ".lease"
    assert program(TAKING, path, "and die").wait(LONG) == -signal.SIGKILL and path.exists()
    assert program(TAKING, path).wait(LONG) == 0 and not path.exists()


YEAR = 365 * 86_400 * 10**9  # nanoseconds


@pytest.mark.parametrize("written", [0, -10 * YEAR, 10 * YEAR], ids=["now", "long ago", "in the future"])
def test_the_lease_of_a_holder_that_died_on_another_host_runs_out(tmp_path, clock, kind_of_folder, written):
    """By the waiting host's own clock, whatever the time of the file says."""
    path = tmp_path / ".lease"
    held_elsewhere(path)
    stamp = time.time_ns() + written
    os.utime(path, ns=(stamp, stamp))
    before = clock.now
    with files.locked(path):
        assert files.LEASE <= clock.now - before <= 2 * files.LEASE + 1
        assert "host=elsewhere" not in path.read_text()
    assert not path.exists()


@pytest.mark.parametrize("by", [1, -1, -YEAR], ids=["its clock goes on", "stands almost still", "is set back"])
def test_a_holder_on_another_host_that_renews_its_lease_keeps_it(tmp_path, clock, kind_of_folder, by):
    path, renewed = tmp_path / ".lease", []
    held_elsewhere(path)
    before, times = clock.now, 40

    def renew():
        if clock.now - before >= (len(renewed) + 1) * files.LEASE / 3 and len(renewed) < times:
            stamp = path.stat().st_mtime_ns + by
            os.utime(path, ns=(stamp, stamp))
            renewed.append(clock.now)

    clock.then = renew
    with files.locked(path):
        assert len(renewed) == times  # it was taken only after the last of them
        assert files.LEASE <= clock.now - renewed[-1] <= 2 * files.LEASE + 1


def test_an_empty_lease_file_blocks_nobody_for_ever(tmp_path, clock):
    """Power was lost before its text was written."""
    path = tmp_path / ".lease"
    path.touch()
    with files.locked(path):
        assert path.read_text()


def test_in_a_read_only_folder_there_is_no_lease_and_a_full_disk_is_refused(tmp_path, monkeypatch):
    def refuse(code):
        def acquire(self):
            raise OSError(code, os.strerror(code))

        return acquire

    path = tmp_path / ".lease"
    for code in (errno.EROFS, errno.EACCES, errno.EPERM):
        monkeypatch.setattr(filelock.SoftFileLease, "acquire", refuse(code))
        with files.locked(path):
            entered = True
        assert entered
    monkeypatch.setattr(filelock.SoftFileLease, "acquire", refuse(errno.ENOSPC))
    with pytest.raises(Refused, match="^Could not write .*lease: no space left on device"), files.locked(path):
        pytest.fail("it went on without a lease")


def test_a_lease_in_a_read_only_folder_that_nobody_renews_is_passed_by(tmp_path, clock, monkeypatch):
    """Its holder died before the folder became read-only."""
    path = tmp_path / ".lease"
    held_elsewhere(path)

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("filelock._soft.SoftFileLock._take_over", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with files.locked(path):
        assert "host=elsewhere" in path.read_text()


def test_a_lease_whose_folder_is_lost_ends_without_a_word(tmp_path):
    path = tmp_path / "store" / ".lease"
    with files.locked(path):
        path.parent.rename(tmp_path / "lost")
    with files.locked(path):
        path.unlink()
        path.parent.rmdir()


# ---- reading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ESTALE])
def test_a_file_that_is_being_replaced_is_read_again(tmp_path, monkeypatch, clock, code):
    path, real, tries = tmp_path / "a.json", Path.read_bytes, []
    path.write_bytes(b"text")

    def stale(self):
        tries.append(clock.now)
        if len(tries) < 4:
            raise OSError(code, os.strerror(code))
        return real(self)

    monkeypatch.setattr(Path, "read_bytes", stale)
    assert files.read(path) == b"text" and len(tries) == len(set(tries)) == 4


@pytest.mark.parametrize(("code", "tries"), [(errno.ENOENT, 4), (errno.ESTALE, 4), (errno.EIO, 1)])
def test_what_cannot_be_read_is_refused_in_one_sentence(tmp_path, monkeypatch, clock, code, tries):
    tried = []

    def fail(self, **_):
        tried.append(self)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(Path, "read_bytes", fail)
    reason = f"Could not read a.json: {os.strerror(code).lower()}. Is its folder still there, or still mounted?"
    with pytest.raises(Refused) as refusal:
        files.read(tmp_path / "a.json")
    assert str(refusal.value) == reason and len(tried) == tries
    monkeypatch.setattr(Path, "stat", fail)
    if code != errno.ENOENT:
        with pytest.raises(Refused, match="^Could not read a.json: "):
            files.exists(tmp_path / "a.json")
