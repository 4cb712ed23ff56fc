"""A build that is killed again and again, then finishes, and must be an undisturbed build to the byte.

    python tests/torture.py --kills 200 --seed 0        what `make torture` runs

In a small copy of this tree, on tiny networks of images and of events, `make reproduce` starts; after a random time, a
third of an undisturbed build's at most, it is ended by SIGKILL, which no process can catch.  Every other kill strikes
while one of the next files is being written.  What was made stays, so the next build comes further.
Half of the kills take the notebook's kernel along, as when a machine halts; else the kernel, which has a process group
of its own, lives on for a second beside the next build.  After each kill every file that has its final name must be
whole.  When a build has come to its end in spite of all, what it made is compared with the undisturbed build's, and
removed, and the next one starts.  Linux only: it finds the processes of a build through /proc.
"""

import argparse
import contextlib
import csv
import hashlib
import io
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile
from collections import Counter
from pathlib import Path

import yaml
from PIL import Image

import paperlib  # noqa: F401  before numpy, which house.py imports

# isort: split
from house import PROFILE, clean_environment, commit, copy_of_this_tree

from paperlib import arithmetic, stamps

NOTEBOOKS = {
    "fig-lambda": {"samples": 20, "pgd_steps": 1, "seeds": [0], "lambdas": [0.01], "others": {}},
    "fig-random-vs-adversarial-events": {
        "samples": 10, "pgd_steps": 2, "flip_steps": 2, "eps_counts": [0.2], "flips": [5],
    },
}  # fmt: skip
TINY = PROFILE | {
    "title": "sixty digits",
    "data": {"name": "mnist5k", "train": 60, "validation": 20, "test": 20},
    "network": PROFILE["network"] | {"name": "conv-2-2", "T": 1},
    "notebooks": NOTEBOOKS,
}
MADE = ("build", "results", "figures", "checkpoints", "data")
TEMPORARY = (".tmp", ".lock", ".lease", ".running.ipynb")  # ends of names that no reader opens
MARK = "COMPANION_TORTURE"  # the environment variable by which the processes of a build are found
PHASES = {"train": "training", "run": "a notebook", "draw": "drawing", "report": "the report", "verify": "the stamps"}
WRITES = 5  # a kill that waits for a file to be written strikes at one of the first so many


def prepare(tree: Path, notebooks: dict | None = None) -> None:
    """A copy of this tree with the profile "tiny" and `notebooks`, all of `NOTEBOOKS` by default, committed."""
    chosen = NOTEBOOKS if notebooks is None else notebooks
    copy_of_this_tree(tree, chosen)
    one_line_a_table = {"sort_keys": False, "default_flow_style": None, "width": 1000}  # as the Makefile reads the cost
    text = yaml.safe_dump(TINY | {"notebooks": chosen}, **one_line_a_table)
    (tree / "params" / "tiny.yml").write_text(text, encoding="utf-8")
    commit(tree)


class Build:
    """One start of `make reproduce`, or of another target, in a tree; what it prints goes to torture.log beside it."""

    def __init__(self, tree: Path, target: str = "reproduce"):
        self.tree, self.mark, self.older = tree, uuid.uuid4().hex, _temporary(tree)
        command = ["make", target, "PROFILE=tiny", "JOBS=2", f"PYTHON={sys.executable}"]
        environment = clean_environment() | {MARK: self.mark}
        with (tree.parent / "torture.log").open("ab") as log:
            self.make = subprocess.Popen(
                command, cwd=tree, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
            )

    def kill(self, moment: float, *, write: int, kernels: bool) -> tuple[str, bool] | None:
        """Kill the process group after `moment` seconds; returns what ran, and whether a file was being written.

        None if the build had ended before.  It is killed earlier while its file number `write` is being written, of
        those that are seen, unless `write` is 0.  With `kernels`, processes that have their own group are killed too.
        """
        end, seen = time.monotonic() + moment, set()
        while self.make.poll() is None and time.monotonic() < end:
            writing = self._writing() if write else set()
            seen |= writing
            if writing and len(seen) >= write:
                break
            time.sleep(0.003)
        if self.make.poll() is not None:
            return None
        processes = self.processes()
        os.killpg(self.make.pid, signal.SIGKILL)
        for process in processes if kernels else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.make.wait()
        commands = " ".join(processes.values())
        ran = [phase for command, phase in PHASES.items() if f"-m paperlib {command} " in commands]
        return (ran or ["make itself"])[0], bool(self._writing())

    def processes(self) -> dict[int, str]:
        """The processes of this build that are alive, with their command lines."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended, or belongs to another user
                if f"{MARK}={self.mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def _writing(self) -> set[Path]:
        return _temporary(self.tree) - self.older


def _made(tree: Path) -> list[Path]:
    return sorted(path for part in MADE for path in (tree / part).rglob("*") if path.is_file())


def _temporary(tree: Path) -> set[Path]:
    """Files that are being written, or were when their process was killed."""
    walked = (entry for part in MADE for entry in os.walk(tree / part))
    return {Path(folder) / name for folder, _, names in walked for name in names if name.endswith(".tmp")}


def faults(tree: Path) -> list[str]:
    """The files with a final name that are not whole, and those that a reader has taken for damaged."""
    found = []
    for path in _made(tree):
        if path.name.endswith(TEMPORARY):
            continue
        try:
            assert not path.name.endswith((".damaged", ".failed.ipynb"))
            _read_whole(path)
        except FileNotFoundError:  # a kernel that is still alive has removed it
            pass
        except Exception as problem:
            found.append(f"{path.relative_to(tree)}: {type(problem).__name__} {problem}".strip())
    return found


def _read_whole(path: Path) -> None:
    """Read a file to its end, by other means than the library's; whatever is not whole raises."""
    data = path.read_bytes()
    if path.name == "state.pt":
        assert hashlib.sha256(data[32:]).digest() == data[:32]
    elif path.suffix in (".pt", ".npz"):
        assert zipfile.ZipFile(io.BytesIO(data)).testzip() is None
    elif path.name == "checkpoint.json":
        assert (
            hashlib.sha256(path.with_name("weights.pt").read_bytes()).hexdigest() == json.loads(data)["weights_sha256"]
        )
    elif path.parent.name == "evaluations":
        others = {name: value for name, value in json.loads(data).items() if name != "sha256"}
        assert hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest() == json.loads(data)["sha256"]
    elif path.suffix in (".json", ".ipynb"):
        json.loads(data)
    elif path.suffix == ".jsonl":
        assert data.endswith(b"\n") and all(map(json.loads, data.splitlines()))
    elif path.suffix == ".csv":
        header, *rows = csv.reader(io.StringIO(data.decode(), newline=""))
        assert data.endswith(b"\n") and rows and all(len(row) == len(header) for row in rows)
    elif path.suffix == ".png":
        Image.open(io.BytesIO(data)).load()
    elif path.suffix == ".html":
        assert data.endswith(b"</html>\n")
    elif path.suffix in stamps.SUFFIXES:
        assert data.startswith(stamps.HEADER.encode())
    else:
        assert path.suffix in (".md", ".d") and data.endswith(b"\n"), "a file of no known kind"


def made(tree: Path) -> dict[str, str]:
    """The SHA-256 of every file that a build has left, by name, without the seconds in histories and evaluations.

    Left out: the *.run.json, which hold nothing but times and the host.
    """
    digests = {}
    for path in _made(tree):
        data = path.read_bytes()
        if path.suffix == ".jsonl":
            data = json.dumps([{**json.loads(row), "seconds": None} for row in data.splitlines()]).encode()
        elif path.parent.name == "evaluations" and path.suffix == ".json":
            data = json.dumps(json.loads(data) | {"seconds": None, "sha256": None}).encode()
        if not path.name.endswith((*TEMPORARY, ".run.json")):
            digests[str(path.relative_to(tree))] = hashlib.sha256(data).hexdigest()
    return digests


def remove_made(tree: Path) -> None:
    """Remove everything that builds have made."""
    for part in MADE:
        shutil.rmtree(tree / part, ignore_errors=True)


def undisturbed(tree: Path, target: str = "reproduce") -> tuple[dict[str, str], float]:
    """A build without a kill: what it made (see `made`), and its seconds."""
    started, build = time.monotonic(), Build(tree, target)
    if build.make.wait():
        raise SystemExit(f"A build without any kill failed:\n{(tree.parent / 'torture.log').read_text()[-3000:]}")
    return made(tree), time.monotonic() - started


class Torture:
    """Builds in one tree under kills, drawn from `seed`; counts kills by what ran, and collects what went wrong."""

    def __init__(self, tree: Path, seed: int, target: str = "reproduce"):
        self.tree, self.target, self.draw = tree, target, random.Random(seed)
        self.kills, self.writing, self.builds, self.faults = Counter(), 0, 0, []
        self.expected, self.seconds = undisturbed(tree, target)
        remove_made(tree)

    def build(self, kills: int) -> None:
        """Build from nothing, with a kill at random moments, at most `kills` times, and compare what was made."""
        for number in range(kills):
            build = Build(self.tree, self.target)
            write = self.draw.randint(1, WRITES) if number % 2 else 0
            moment = math.inf if write else self.draw.uniform(0, self.seconds / 3)
            hit = build.kill(moment, write=write, kernels=self.draw.random() < 0.5)
            if hit is None:
                if build.make.returncode:
                    self.faults.append(f"after {self.kills.total()} kills the build fails: ...{self._printed()}")
                break
            self.kills[hit[0]] += 1
            self.writing += hit[1]
            self.faults += [f"after {self.kills.total()} kills: {fault}" for fault in faults(self.tree)]
        last = Build(self.tree, self.target)
        if last.make.wait():
            self.faults.append(f"after {self.kills.total()} kills the build fails: ...{self._printed()}")
        self.builds += 1
        found = made(self.tree)
        differing = sorted(name for name in self.expected.keys() | found if self.expected.get(name) != found.get(name))
        self.faults += [f"after {self.kills.total()} kills {name} is another one" for name in differing]
        remove_made(self.tree)

    def _printed(self) -> str:
        return (self.tree.parent / "torture.log").read_text(encoding="utf-8", errors="replace")[-2000:]

    def summary(self) -> str:
        """One paragraph: the counts."""
        by_phase = ", ".join(f"{count} during {phase}" for phase, count in self.kills.most_common())
        return (
            f"{self.kills.total()} kills ({by_phase}; {self.writing} while a file was being written) in {self.builds} "
            f"builds of {len(self.expected)} files and {self.seconds:.0f} s each; {len(self.faults)} faults."
        )


def main() -> int:
    """Run the command line; returns 0 if nothing was found, else 1."""
    parser = argparse.ArgumentParser("python tests/torture.py", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="how many at least (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (default: 0)")
    arguments = parser.parse_args()
    print(f"Seed {arguments.seed}, at least {arguments.kills} kills, on {arithmetic.processor()}.", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        prepare(tree)
        torture = Torture(tree, arguments.seed)
        while torture.kills.total() < arguments.kills and not torture.faults:
            torture.build(kills=20)
            print(torture.summary(), flush=True)
    print(*torture.faults, sep="\n", end="")
    return 1 if torture.faults else 0


if __name__ == "__main__":
    sys.exit(main())
