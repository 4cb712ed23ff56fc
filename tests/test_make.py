"""The Makefile on a small copy of this tree: what is built when, what a failure leaves, what is said.

Two notebooks are kept: fig-lambda as it is, on tiny networks, and tab-whitebox with a stub in place of its code.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from test_tables_and_plots import made

from paperlib import paths, records
from paperlib.profiles import parameters

KEPT = ("fig-lambda", "tab-whitebox")  # a real one and a stub
OURS = ("PROFILE", "PYTHON", "CACHED", "JOBS", "REPO", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHONPATH")
STEP = {"eps_255": 8, "alpha_255": 10, "steps": 1}
PROFILE = {
    "title": "sixty digits",
    "cost": "{minutes: 1, disk_mb: 2, download_mb: 0}",
    "data": {"name": "mnist5k", "train": 60, "validation": 20, "test": 20},
    "network": {"name": "conv-2-2", "T": 1, "tau": 1.0, "rule": "triangle", "precision": "float32"},
    "schedule": {"epochs": 1, "batch_size": 20, "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0005},
    "seeds": [0],
    "trainings": {"vanilla": {}, "sr": {"lam": 0.01}, "at": STEP, "at+sr": STEP | {"lam": 0.01}},
    "events": {
        "data": {"name": "saccades:mnist5k", "T": 2, "train": 20, "validation": 10, "test": 10},
        "network": {"name": "events-conv-2", "T": 2, "tau": 1.0, "rule": "triangle", "precision": "float32"},
        "schedule": {"epochs": 1, "batch_size": 10, "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0005},
        "seeds": [0],
        "trainings": {"vanilla": {}, "sr": {"lam": 0.01}, "at": STEP, "at+sr": STEP | {"lam": 0.01}},
    },
    "notebooks": {"fig-lambda": {"samples": 20, "pgd_steps": 1, "seeds": [0], "lambdas": [0.01]}},
}
STUB = """
# %%
from paperlib import paths, records

print("the stub ran")
records.save(records.load(paths.ROOT / "made.json"), paths.RESULTS / profile / "tab-whitebox.json")
"""
BOOM = '\n# %%\nraise ValueError("boom")\n'


def make(tree, *arguments, profile="smoke"):
    """`make arguments` in `tree`, with this interpreter and nothing of an outer make."""
    environment = {k: v for k, v in os.environ.items() if k not in OURS} | {"OMP_NUM_THREADS": "1"}
    command = ["make", *arguments, f"PROFILE={profile}", f"PYTHON={sys.executable}"]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def copy_of_this_tree(target):
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=paths.ROOT, capture_output=True
    )
    if listed.returncode:
        pytest.skip("needs git, to copy what belongs to this tree")
    for name in map(Path, filter(None, listed.stdout.decode().split("\0"))):
        if name.parts[0] not in ("tests", "results", "figures", "benchmarks") and (paths.ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(paths.ROOT / name, target / name)
    for path in (target / "notebooks").iterdir():
        if path.stem not in KEPT or path.suffix != ".py":
            path.unlink()
    stub = target / "notebooks" / "tab-whitebox.py"
    cells = parameters.cells(stub.read_text(encoding="utf-8"))
    declared = "".join(cell for tags, cell in cells if "parameters" in tags)
    stub.write_text(declared + STUB, encoding="utf-8")
    lines = [f"{k}: {v}" if k == "cost" else yaml.safe_dump({k: v}).strip() for k, v in PROFILE.items()]
    (target / "params" / "smoke.yml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    records.save(made("tab-whitebox"), target / "made.json")
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "a copy"]):
        identity = ["-c", "user.name=a test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *command], cwd=target, check=True, capture_output=True)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A tree in which `make -j2 reproduce` has run once, and what that said; shared by xdist's workers."""
    base = tmp_path_factory.getbasetemp()
    home = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    tree, said = home / "made-tree", home / "made-tree.said"
    with FileLock(home / "made-tree.lock"):
        if not said.exists():
            copy_of_this_tree(tree)
            done = make(tree, "-j2", "reproduce")
            said.write_text(f"{done.returncode}\n{done.stdout}{done.stderr}", encoding="utf-8")
    code, _, text = said.read_text(encoding="utf-8").partition("\n")
    return tree, int(code), text


@pytest.fixture
def tree(first, tmp_path):
    """A copy of the built tree, times included."""
    if first[1]:
        pytest.fail("the first build failed", pytrace=False)
    return shutil.copytree(first[0], tmp_path / "tree")


def times(folder):
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def built(tree):
    """When everything that a build leaves was last written."""
    return {f"{part}/{k}": t for part in ("build", "results", "figures") for k, t in times(tree / part).items()}


def written(before, after):
    """What is new or newer, without the trailing .running files."""
    return {name for name, time in after.items() if before.get(name) != time}


def would_do(tree):
    """The commands that `make reproduce` would run up to its report, as "run tab-whitebox", "report"."""
    done = make(tree, "--dry-run", "build/smoke/report")
    assert done.returncode == 0, done.stderr
    return sorted(re.findall(r"-m paperlib (.*?) --profile", done.stdout))


def append(path, text="\n"):
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def artifact(name):
    """All that a build of an artifact leaves."""
    left = {f"build/smoke/{name}.{end}" for end in ("ipynb", "done", "drawn")}
    left |= {f"results/smoke/{name}.{end}" for end in ("json", "csv")}
    return left | {f"figures/smoke/{name}.png"}


REPORT = {"results/smoke/REPORT.md", "results/smoke/REPORT.html", "build/smoke/report"}


# ---- what is said before anything is made ------------------------------------------------------------------------


def test_make_alone_prints_help(tmp_path):
    done = make(paths.ROOT)
    assert done.returncode == 0 and done.stderr == ""
    for target in ("reproduce", "compare", "plan", "test", "lint", "lab", "notebooks", "links", "clean"):
        assert f"  make {target} " in done.stdout
    assert all(path.stem in done.stdout for path in paths.NOTEBOOKS.glob("*.py"))
    assert all(path.stem in done.stdout for path in paths.PARAMS.glob("*.yml"))


@pytest.mark.parametrize("target", ["reproduce", "tab-whitebox", "plan", "compare"])
def test_an_unknown_profile_is_one_sentence(target):
    done = make(paths.ROOT, target, profile="nope")
    told = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert done.returncode == 2 and done.stdout == ""
    assert len(told) == 1 and told[0].startswith("There is no profile 'nope'. Allowed: ")
    assert set(told[0].partition("Allowed: ")[2].rstrip(".").split()) == {p.stem for p in paths.PARAMS.glob("*.yml")}
    assert not (paths.ROOT / "build" / "nope").exists()


@pytest.mark.parametrize("profile", sorted(path.stem for path in paths.PARAMS.glob("*.yml")))
def test_the_cost_of_every_profile_can_be_said(profile):
    """The Makefile reads it with sed, from one line of the file."""
    (line,) = (line for line in (paths.ROOT / "Makefile").read_text().splitlines() if "sed -n 's/^cost:" in line)
    script = line.partition("sed -n '")[2].partition("' $(PARAMS)")[0].replace("$(PROFILE)", profile)
    command = ["sed", "-n", script, str(paths.PARAMS / f"{profile}.yml")]
    cost = yaml.safe_load((paths.PARAMS / f"{profile}.yml").read_text(encoding="utf-8"))["cost"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == (
        f"Profile {profile}: about {cost['minutes']} minutes on two cores, {cost['disk_mb']} MB of disk and "
        f"{cost['download_mb']} MB of download, after installation.\n"
    )


# ---- building ----------------------------------------------------------------------------------------------------


def test_reproduce_says_its_cost_and_builds_everything_on_two_cores(first):
    tree, code, said = first
    assert code == 0, said
    assert said.startswith("Profile smoke: about 1 minutes on two cores, 2 MB of disk and 0 MB of download")
    assert "jobserver" not in said and "warning" not in said.lower()
    assert set(built(tree)) >= artifact("fig-lambda") | artifact("tab-whitebox") | REPORT | {"build/smoke/trained"}
    assert not list(tree.rglob("*.failed.ipynb")) and not list(tree.rglob("*.running.ipynb"))
    provenance = records.load(tree / "results" / "smoke" / "fig-lambda.json")["provenance"]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tree, capture_output=True, text=True).stdout.strip()
    assert (provenance["code"], provenance["clean"], provenance["profile"]) == (head, True, "smoke")
    assert len(list((tree / "checkpoints").glob("*/weights.pt"))) == 4


def test_the_second_time_there_is_nothing_to_do(tree):
    before = built(tree)
    done = make(tree, "reproduce")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout == ("Nothing to do: profile smoke is up to date. Its report is results/smoke/REPORT.md.\n")
    assert built(tree) == before


def test_what_is_committed_says_nothing_of_what_is_built(tree):
    """A fresh clone builds everything whatever is committed: without build/, records and figures count for nothing."""
    assert would_do(tree) == []
    shutil.rmtree(tree / "build")
    assert would_do(tree) == sorted(["train", "report"] + [f"{step} {a}" for step in ("run", "draw") for a in KEPT])


BOTH = [f"{step} {name}" for step in ("draw", "run") for name in KEPT]


@pytest.mark.parametrize(
    ("touched", "expected"),
    [
        ("paperlib/plots/core.py", ["draw fig-lambda", "draw tab-whitebox", "report"]),
        ("paperlib/findings/accuracy.py", ["draw fig-lambda", "draw tab-whitebox", "report"]),
        ("paperlib/claims.py", ["draw fig-lambda", "draw tab-whitebox", "report"]),
        ("paperlib/tables.py", ["draw fig-lambda", "draw tab-whitebox", "report"]),
        ("paperlib/report.py", ["report"]),
        ("published/numbers.csv", ["report"]),
        ("paperlib/notebooks.py", []),
        ("paperlib/runner.py", []),
        ("paperlib/__main__.py", []),
        ("README.md", []),
        ("notebooks/tab-whitebox.py", ["draw tab-whitebox", "report", "run tab-whitebox"]),
        ("notebooks/fig-lambda.py", [*BOTH, "report", "train"]),  # its parameters name networks
        ("paperlib/measures/accuracy.py", [*BOTH, "report", "train"]),
        ("paperlib/attacks/gradient.py", [*BOTH, "report", "train"]),
        ("params/smoke.yml", [*BOTH, "report", "train"]),
        ("params/laptop.yml", []),
    ],
)
def test_a_change_makes_again_what_depends_on_it_and_nothing_else(tree, touched, expected):
    os.utime(tree / touched)
    assert would_do(tree) == sorted(expected)


def test_a_change_of_plots_redraws_and_executes_no_notebook(tree):
    append(tree / "paperlib" / "plots" / "core.py")
    before = built(tree)
    done = make(tree, "reproduce")
    assert done.returncode == 0, done.stdout + done.stderr
    figures = {f"figures/smoke/{name}.png" for name in KEPT}
    assert written(before, built(tree)) == figures | {f"build/smoke/{name}.drawn" for name in KEPT} | REPORT
    assert "running" not in done.stdout and "warning" not in done.stderr


# ---- failing -----------------------------------------------------------------------------------------------------


def test_a_failing_notebook_is_a_marked_gap_until_it_is_repaired(tree):
    source = tree / "notebooks" / "tab-whitebox.py"
    for name in artifact("tab-whitebox") | artifact("fig-lambda") | REPORT:
        if name.endswith((".done", ".drawn", "report")) and "fig-lambda.done" not in name:
            (tree / name).unlink()  # fig-lambda lacks its drawing, tab-whitebox everything
    append(source, BOOM)
    done = make(tree, "reproduce", "JOBS=1")  # the failing one comes first
    assert done.returncode != 0
    assert "tab-whitebox.py: the cell 'raise ValueError(\"boom\")' failed: boom." in done.stderr.replace(
        "ValueError: ", ""
    )
    assert "Traceback" not in done.stderr
    there = set(built(tree))
    assert not there & artifact("tab-whitebox") and "build/smoke/report" not in there
    assert there >= artifact("fig-lambda") | {"build/smoke/tab-whitebox.failed.ipynb", "results/smoke/REPORT.md"}
    text = (tree / "results" / "smoke" / "REPORT.md").read_text(encoding="utf-8")
    gap = text.partition("## `tab-whitebox`\n")[2].partition("\n## ")[0]
    assert "**Gap.**" in gap and "build/smoke/tab-whitebox.failed.ipynb" in gap
    assert text.count("**Gap.**") == 1

    before = built(tree)
    source.write_text(source.read_text(encoding="utf-8").removesuffix(BOOM), encoding="utf-8")
    done = make(tree, "reproduce")
    assert done.returncode == 0, done.stdout + done.stderr
    assert written(before, built(tree)) == artifact("tab-whitebox") | REPORT
    assert "build/smoke/tab-whitebox.failed.ipynb" not in built(tree)
    assert "**Gap.**" not in (tree / "results" / "smoke" / "REPORT.md").read_text(encoding="utf-8")


def test_a_failure_after_a_success_leaves_neither_its_stamps_nor_its_record(tree):
    """Else an old source put back with its old time would look built, while its record and its figure are gone."""
    source = tree / "notebooks" / "tab-whitebox.py"
    text, time = source.read_text(encoding="utf-8"), source.stat().st_mtime_ns
    append(source, BOOM)
    assert make(tree, "tab-whitebox").returncode != 0
    assert not set(built(tree)) & {name for name in artifact("tab-whitebox") if not name.endswith((".done", ".drawn"))}
    source.write_text(text, encoding="utf-8")
    os.utime(source, ns=(time, time))
    assert would_do(tree) == ["draw tab-whitebox", "report", "run tab-whitebox"]
    assert not set(built(tree)) & artifact("tab-whitebox")


# ---- networks that are kept --------------------------------------------------------------------------------------


def test_kept_networks_are_restored_in_place_of_training(tree):
    weights = {path.parent.name: path.read_bytes() for path in (tree / "checkpoints").glob("*/weights.pt")}
    for key in weights:  # as `make notebooks` keeps them
        (tree / "results" / "smoke" / "networks" / key).mkdir(parents=True)
        for name in ("weights.pt", "checkpoint.json"):
            shutil.copy(tree / "checkpoints" / key / name, tree / "results" / "smoke" / "networks" / key / name)
    shutil.rmtree(tree / "checkpoints")
    (tree / "build" / "smoke" / "trained").unlink()
    done = make(tree, "build/smoke/trained", "CACHED=1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["4 of 4 networks restored.", "4 networks: 4 trained already, 0 to train."]
    assert weights == {path.parent.name: path.read_bytes() for path in (tree / "checkpoints").glob("*/weights.pt")}
