"""Processes that are killed: their jobs are named and tried again, and none outlives the one that began it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paperlib import executors, processes
from paperlib.errors import Refused

LONG = 60  # seconds that no test lasts


def note(folder, name):
    """A job: leaves a file with the number of the process; "fatal" always dies, "unlucky" the first time."""
    file = folder / name
    tries = len(file.read_text().split()) if file.exists() else 0
    with file.open("a") as out:
        out.write(f"{os.getpid()}\n")
    if name == "fatal" or (name == "unlucky" and not tries):
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory runs out
    if name == "wrong":
        raise Refused("wrong: this cannot be.")


def run(folder, *names, workers=2):
    executors.local(workers).run(note, {name: (folder, name) for name in names})


def tries(folder):
    return {path.name: len(path.read_text().split()) for path in folder.iterdir()}


def test_a_job_whose_process_dies_is_named_and_tried_again_after_the_others(tmp_path, capfd):
    run(tmp_path, "unlucky", "one", "two", workers=1)
    assert tries(tmp_path) == {"unlucky": 2, "one": 1, "two": 1}  # none is lost, none done twice
    died, one, second = ((tmp_path / name).read_text().split() for name in ("unlucky", "one", "two"))
    assert one == second == died[1:] != died[:1]
    said = capfd.readouterr().err.splitlines()
    assert said[0].startswith("unlucky: its process died, as when memory runs out; fewer JOBS need less.")
    assert [line.partition(", about")[0] for line in said[1:]] == ["one: done; 1 of 3", "two: done; 2 of 3"]


def test_what_fails_stops_no_other_and_is_refused_in_the_end(tmp_path, capfd):
    with pytest.raises(Refused) as refusal:
        run(tmp_path, "fatal", "wrong", "one", "two")
    assert tries(tmp_path) == {"fatal": 2, "wrong": 1, "one": 1, "two": 1}
    text, _, failed = str(refusal.value).removesuffix(".").partition(": ")
    assert text == "2 of 4 failed, for the reasons above" and set(failed.split("; ")) == {"wrong", "fatal"}
    said = capfd.readouterr().err.splitlines()
    assert "wrong: this cannot be." in said and "fatal: its process died again." in said
    assert len(said) in (4, 5)  # a job that is done last is not told


def forever(file):
    file.write_text(str(os.getpid()))
    time.sleep(LONG)


def fails(folder):
    while not (folder / "other").exists():
        time.sleep(0.01)
    raise KeyError("no sentence, but a fault of the program")


def test_a_fault_of_the_program_ends_all(tmp_path):
    jobs = {"other": (forever, tmp_path / "other"), "fault": (fails, tmp_path)}
    with pytest.raises(KeyError, match="no sentence"):
        executors.local(2).run(_call, jobs)
    assert gone(int((tmp_path / "other").read_text()))


def _call(function, argument):
    function(argument)


def gone(process):
    """Whether a process ends soon; a dead one may wait for its parent to take notice of it."""
    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline:
        try:
            os.kill(process, 0)
            if re.search(r"^State:\s+Z", Path(f"/proc/{process}/status").read_text(), re.MULTILINE):
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def awaited(path):
    """The text of a file that another process is about to write."""
    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline:
        if path.exists() and (text := path.read_text()):
            return text
        time.sleep(0.05)
    pytest.fail(f"{path.name} was not written")


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_a_script_that_is_ended(tmp_path, ending):
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\nfrom test_processes import forever\nfrom paperlib import executors\n"
        "if __name__ == '__main__':\n"
        f"    executors.local(1).run(forever, {{'a': (Path({str(tmp_path / 'worker')!r}),)}})\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(processes.__file__).parents[1])}
    with subprocess.Popen([sys.executable, script], env=environment, stderr=subprocess.DEVNULL) as parent:
        worker = int(awaited(tmp_path / "worker"))
        parent.send_signal(ending)
    assert gone(worker)


WATCHING = """
import signal, sys, time
from paperlib import processes
signal.signal(signal.SIGTERM, signal.default_int_handler)
processes.follow_make()
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_a_command_ends_with_the_outermost_make(tmp_path, ending):
    """The make here calls another one, by a shell, as the Makefile does."""
    (tmp_path / "watching.py").write_text(WATCHING)
    top = (Path(processes.__file__).parents[1] / "Makefile").read_text().partition(".DELETE_ON_ERROR")[0]
    (rule,) = re.findall(r"^ifndef COMPANION_MAKE\n.*?^endif\n", top, re.MULTILINE | re.DOTALL)
    makefile = f"{rule}top:\n\t@if true; then $(MAKE) -k inner; echo; fi\ninner:\n\t@{sys.executable} watching.py\n"
    (tmp_path / "Makefile").write_text(makefile)
    environment = {k: v for k, v in os.environ.items() if k not in (processes.MAKE, "MAKEFLAGS", "MAKELEVEL")}
    environment |= {"PYTHONPATH": str(Path(processes.__file__).parents[1])}
    with subprocess.Popen(
        ["make", "-s", "top"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as make:
        assert make.stdout.readline() == "ready\n"
        make.send_signal(ending)
        rest = make.stdout.read()  # until the last of them has closed it
    assert "make has ended, so this ends as well." in rest and "Error 130" in rest
