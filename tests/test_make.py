"""The Makefile on a small copy of this tree: what is built when, what a failure leaves, what is printed.

The copy has two notebooks: fig-lambda as it is, on tiny networks, and one of a user's own in another folder, with its
artifact's module beside it.  The user's notebook brings data, a network, a training and attacks; no file of the library
is changed for it.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from filelock import FileLock
from house import PROFILE, clean_environment, commit, copy_of_this_tree, git
from matplotlib.colors import to_hex

from paperlib import artifacts, paths, records, words
from paperlib.measures import doubts

BOOM = '\n# %%\nraise ValueError("boom")\n'
BOTH = ("fig-lambda", "tab-mine")
TINY = PROFILE | {
    "title": "sixty digits",
    "data": {"name": "mnist5k", "train": 60, "validation": 20, "test": 20},
    "network": PROFILE["network"] | {"name": "conv-2-2", "T": 1},
    "schedule": PROFILE["schedule"] | {"epochs": 1, "batch_size": 20},
    "seeds": [0],
    "notebooks": {"fig-lambda": {"samples": 20, "pgd_steps": 1, "seeds": [0], "lambdas": [0.01], "others": {}}},
}
MODULE = '''\
"""What a training of mine keeps under attacks of mine."""
import matplotlib.pyplot as plt
from paperlib.artifacts.reading import percent
from paperlib.artifacts.tabulating import attack_at, pivot, training
from paperlib.words import hue

caption = "{data}, {samples} test images, {seeds}"
headline = lambda record: f"Negatives leave {percent(record['rows'][-1])}"
table = lambda record: [pivot(record["rows"], lambda row: {"": attack_at(row)}, training, percent)]


def figure(record):
    fig, ax = plt.subplots()
    for row in record["rows"]:
        ax.bar(attack_at(row), 100 * row["value"], color=hue(row["training"]))
    return fig
'''
NOTEBOOK = """\
# %% tags=["parameters"]
profile: str = "tiny"  # which file under params/
samples: int = 30  # test images

# %% tags=["asks"]
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from paperlib import artifacts, attacks, runs
from paperlib.artifacts import claims
from paperlib.data import sets
from paperlib.measures import accuracy
from paperlib.networks import architectures
from paperlib.training import defenses


@sets.register("bars")
def bars():
    labels = np.arange(240) % 3
    images = np.random.RandomState(0).randint(0, 60, (240, 1, 6, 6)).astype(np.uint8)
    images[np.arange(240), 0, 2 * labels] += 190
    return sets.Source("240 bars", ("top", "middle", "bottom"), labels, 0, lambda rows: images[rows])


@architectures.register("one-layer")
def one_layer(*, in_channels, image_size, neuron, normed):
    body = [normed(8), architectures.TimeFolded(nn.Flatten())]
    return nn.Conv2d(in_channels, 8, 3, padding=1), body, 8 * image_size**2


@defenses.register("smooth", title="Label smoothing", colour="#123456")
def smooth(network, batch, *, amount):
    return F.cross_entropy(network(batch.images), batch.labels, label_smoothing=amount)


@attacks.register("negative", title="Negative", noise=True)
def negative(network, images, labels, *, eps, bounds):
    return bounds[0] + bounds[1] - images


@attacks.register("lazy", title="Lazy walk")
def lazy(network, images, labels, *, eps, bounds, steps):
    for _ in range(steps):
        x = images.clone().requires_grad_()
        torch.autograd.grad(F.cross_entropy(network(x), labels), x)
    return images


run = runs.begin("tab-mine", globals())
run = replace(run, profile=replace(run.profile, data={"name": "bars"}))
networks = run.profile.experiments("smooth", options={"amount": 0.1}, network="one-layer", epochs=3)
mine = [None, attacks.Attack("lazy", 1.0, {"steps": 3}), attacks.Attack("negative", 1.0)]
request = run.ask(networks, mine, samples=samples)

# %%
record = run.save(accuracy.accuracy_rows(request.evaluated()))
artifacts.draw(record)

# %%
print(artifacts.table(record), claims.finding(record))
"""


def run(command, tree):
    """A command in `tree` with nothing of an outer make; the user's folder is known to it."""
    environment = clean_environment() | {paths.FOLDERS: "mine"}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def make(tree, *arguments, profile="tiny"):
    return run(["make", *arguments, f"PROFILE={profile}", f"PYTHON={sys.executable}"], tree)


def prepare(target):
    copy_of_this_tree(target, ["fig-lambda"])
    (target / "mine").mkdir()
    (target / "mine" / "tab-mine.py").write_text(NOTEBOOK, encoding="utf-8")
    (target / "mine" / "tab_mine.py").write_text(MODULE, encoding="utf-8")
    one_line_a_table = {"sort_keys": False, "default_flow_style": None, "width": 1000}  # as the Makefile reads the cost
    (target / "params" / "tiny.yml").write_text(yaml.safe_dump(TINY, **one_line_a_table), encoding="utf-8")
    commit(target)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A tree in which `make -j2 reproduce` has run once, and what that printed; shared by xdist's workers."""
    base = tmp_path_factory.getbasetemp()
    home = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    tree, printed = home / "made-tree", home / "made-tree.printed"
    with FileLock(home / "made-tree.lock"):
        if not printed.exists():
            prepare(tree)
            done = make(tree, "-j2", "reproduce")
            printed.write_text(f"{done.returncode}\n{done.stdout}{done.stderr}", encoding="utf-8")
    code, _, text = printed.read_text(encoding="utf-8").partition("\n")
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
    """What is new or newer."""
    return {name for name, time in after.items() if before.get(name) != time}


def would_do(tree):
    """The commands that `make reproduce` would run up to its report, as "run tab-mine", "report"."""
    done = make(tree, "--dry-run", "build/tiny/report")
    assert done.returncode == 0, done.stderr
    return sorted(re.findall(r"-m paperlib (.*?) --profile", done.stdout))


def append(path, text="\n"):
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def artifact(name):
    """All that a build of an artifact leaves."""
    executed = {f"build/tiny/{name}.{end}" for end in ("ipynb", "done", "done.d")}
    return executed | {f"results/tiny/{name}.{end}" for end in ("json", "csv", "run.json")} | drawn(name)


def drawn(name):
    return {f"build/tiny/{name}.drawn", f"build/tiny/{name}.drawn.d", f"figures/tiny/{name}.png"}


TRAINED = {"build/tiny/trained", "build/tiny/trained.d"}
REPORT = {"results/tiny/REPORT.md", "results/tiny/REPORT.html", "build/tiny/report"}


# ---- what is printed before anything is made ---------------------------------------------------------------------


def test_make_alone_prints_help():
    done = make(paths.ROOT)
    assert done.returncode == 0 and done.stderr == ""
    for target in ("reproduce", "compare", "certificate", "plan", "test", "lint", "lab", "notebooks", "links", "clean"):
        assert f"  make {target} " in done.stdout
    assert all(path.stem in done.stdout for path in paths.NOTEBOOKS.glob("*.py"))
    assert all(path.stem in done.stdout for path in paths.PARAMS.glob("*.yml"))


@pytest.mark.parametrize("target", ["reproduce", "tab-whitebox", "plan", "compare", "certificate"])
def test_an_unknown_profile_is_one_sentence(target):
    done = make(paths.ROOT, target, profile="nope")
    sentences = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert done.returncode == 2 and done.stdout == ""
    assert len(sentences) == 1 and sentences[0].startswith("There is no profile 'nope'. Allowed: ")
    allowed = sentences[0].partition("Allowed: ")[2].rstrip(".").split()
    assert set(allowed) == {path.stem for path in paths.PARAMS.glob("*.yml")}
    assert not (paths.ROOT / "build" / "nope").exists()


@pytest.mark.parametrize("profile", sorted(path.stem for path in paths.PARAMS.glob("*.yml")))
def test_the_cost_of_every_profile_can_be_printed(profile):
    """The Makefile reads it with sed, from one line of the file."""
    (line,) = (line for line in (paths.ROOT / "Makefile").read_text().splitlines() if "sed -n 's/^cost:" in line)
    script = line.partition("sed -n '")[2].partition("' $(PARAMS)")[0].replace("$(PROFILE)", profile)
    command = ["sed", "-n", script, str(paths.PARAMS / f"{profile}.yml")]
    cost = yaml.safe_load((paths.PARAMS / f"{profile}.yml").read_text(encoding="utf-8"))["cost"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == (
        f"Profile {profile}: about {cost['minutes']} minutes on two cores, {cost['disk_mb']} MB of disk and "
        f"{cost['download_mb']} MB of download, after installation.\n"
    )


@pytest.mark.parametrize(
    "given", ["a; touch hacked", "$(shell touch hacked)", "`touch hacked`", "it's", "tiny|cifar", "%"]
)
def test_what_a_user_gives_is_never_a_command(tmp_path, given):
    shutil.copy(paths.ROOT / "Makefile", tmp_path)
    (tmp_path / "params").mkdir()
    for name in ("tiny", "cifar", "laptop"):
        (tmp_path / "params" / f"{name}.yml").touch()
    refused = run(["make", "plan", f"PROFILE={given}"], tmp_path)
    assert refused.returncode == 2 and refused.stdout == ""
    assert refused.stderr.splitlines()[0] == f"There is no profile '{given}'. Allowed: cifar laptop tiny."
    done = run(["make", "plan", f"DEVICE={given}", "PYTHON=echo", "PROFILE=tiny"], tmp_path)
    assert done.stdout == f"-m paperlib plan --profile tiny --device {given}\n"
    done = run(["make", "plan", "DEVICE=cpu", f"MACHINES={given}", "PYTHON=echo", "PROFILE=tiny"], tmp_path)
    assert done.stdout == f"-m paperlib plan --profile tiny --device cpu --machines {given}\n"
    assert run(["make", "links", f"REPO={given}", "PYTHON=echo"], tmp_path).stdout == f"-m paperlib links {given}\n"
    assert not (tmp_path / "hacked").exists()


# ---- building ----------------------------------------------------------------------------------------------------


def test_reproduce_prints_its_cost_and_builds_everything_on_two_cores(first):
    tree, code, printed = first
    assert code == 0, printed
    assert printed.startswith("Profile tiny: about 1 minutes on two cores, 2 MB of disk and 0 MB of download")
    assert "jobserver" not in printed and "warning" not in printed.lower()
    assert set(built(tree)) == artifact("fig-lambda") | artifact("tab-mine") | TRAINED | REPORT
    provenance = records.load(tree / "results" / "tiny" / "fig-lambda.json")["provenance"]
    head = git(tree, "rev-parse", "HEAD").stdout.strip()
    assert (provenance["code"], provenance["clean"], provenance["profile"]) == (head, True, "tiny")
    assert len(list((tree / "checkpoints").glob("*/weights.pt"))) == 3


def test_what_a_users_notebook_registers_is_trained_doubted_titled_coloured_and_reported(first, monkeypatch):
    """This process has not executed the notebook: it knows what the record tells."""
    tree, _, printed = first
    assert "3 networks: 0 trained already, 3 to train." in printed
    assert re.search(r"\[\d/3\] smooth, seed 0: epoch 3/3, loss ", printed)  # the tag is that of `train`'s workers
    monkeypatch.setenv(paths.FOLDERS, str(tree / "mine"))
    monkeypatch.setattr(words, "_trainings", {})
    monkeypatch.setattr(words, "_attacks", {})
    record = records.load(tree / "results" / "tiny" / "tab-mine.json")
    clean, lazy, negative = record["rows"]
    assert (lazy["attack"], lazy["steps"], lazy["value"]) == ("lazy", 3, clean["value"])
    assert clean["value"] > 0.8 > negative["value"] + 0.4 and clean["seeds"] == [0]
    assert doubts.NOISE in lazy["doubts"] and "doubts" not in negative and "doubts" not in clean
    (bars,) = artifacts.draw(record).axes[0].containers[:1]
    assert to_hex(bars[0].get_facecolor()) == "#123456"
    table = artifacts.table(record)
    assert "| Lazy walk-3, 255/255 |" in table and "| Negative, 255/255 " in table and "Label smoothing" in table
    assert " † |" in table and f"† Unreliable: {doubts.NOISE}" in table
    section = (tree / "results" / "tiny" / "REPORT.md").read_text(encoding="utf-8").partition("## `tab-mine`\n")[2]
    assert table in section and "data 240 bars" in section and artifacts.headline(record) in section
    executed = (tree / "build" / "tiny" / "tab-mine.ipynb").read_text(encoding="utf-8")
    assert "Lazy walk-3, 255/255" in executed and "image/png" in executed


def test_the_plan_costs_what_a_users_notebook_registers(tree):
    """It is given by path here.  What was built is all that was planned."""
    command = [sys.executable, "-m", "paperlib", "plan", "mine/tab-mine.py", "--profile", "tiny", "--device", "cpu"]
    done = run(command, tree)
    assert done.stdout.splitlines() == ["tiny: sixty digits.", "  3 of 3 networks and 9 of 9 evaluations are there."]
    # of the nine one is PGD, which the strongest attack begins with
    assert len(list((tree / "checkpoints").glob("*/evaluations/*.json"))) == 8
    shutil.rmtree(tree / "checkpoints")
    lines = run(command, tree).stdout.splitlines()
    listed = {line.rpartition(": ")[0].strip() for line in lines[2:-1]}
    assert listed >= {
        "train smooth, seed 0 (one-layer, 3 epochs)",
        *("evaluate 1 networks, clean, 30 test images", "evaluate 1 networks, Lazy walk-3 at 255/255, 30 test images"),
        "evaluate 1 networks, Negative at 255/255, 30 test images",
    }
    assert len(listed) == 3 + 3 + 3 and re.fullmatch(r"In all \d+ s on cpu, by steps timed just now\.", lines[-1])


def test_the_second_time_there_is_nothing_to_do(tree):
    before = built(tree)
    done = make(tree, "reproduce")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout == "Nothing to do: profile tiny is up to date. Its report is results/tiny/REPORT.md.\n"
    assert built(tree) == before


def test_what_is_committed_says_nothing_of_what_is_built(tree):
    """A fresh clone builds everything whatever is committed: without build/, records and figures count for nothing."""
    assert would_do(tree) == []
    shutil.rmtree(tree / "build")
    assert would_do(tree) == sorted(["train", "report"] + [f"{step} {a}" for step in ("run", "draw") for a in BOTH])


EVERYTHING = ["draw fig-lambda", "draw tab-mine", "report", "run fig-lambda", "run tab-mine", "train"]
FIGURES = ["draw fig-lambda", "draw tab-mine", "report"]


def test_what_is_gone_or_changed_is_made_again(tree):
    """The stamps are true as long as they match what was made: no file is ever taken for built because of its date."""
    assert make(tree, "true-stamps").stdout == "" and would_do(tree) == []
    figure, record = tree / "figures" / "tiny" / "tab-mine.png", tree / "results" / "tiny" / "tab-mine.json"
    figure.write_bytes(figure.read_bytes()[:-1])
    assert "figures/tiny/tab-mine.png has changed since build/tiny/tab-mine.drawn" in make(tree, "true-stamps").stdout
    assert would_do(tree) == ["draw tab-mine", "report"]
    text = record.read_text(encoding="utf-8")
    record.write_text(text.replace('"n": 30', '"n": 31', 1), encoding="utf-8")  # as one flipped bit may do
    make(tree, "true-stamps")
    assert would_do(tree) == ["draw tab-mine", "report", "run tab-mine"]
    for folder in ("results", "checkpoints"):
        shutil.rmtree(tree / folder)
    done = make(tree, "reproduce", "--dry-run")
    assert "results/tiny/fig-lambda.json is gone" in done.stdout
    assert not re.search("^Nothing to do", done.stdout, re.MULTILINE)  # indented it is part of a recipe
    assert set(re.findall(r"-m paperlib (.*?) --profile", done.stdout)) >= set(EVERYTHING)


@pytest.mark.parametrize(
    ("touched", "expected"),
    [
        ("paperlib/words.py", FIGURES),
        ("paperlib/artifacts/tabulating.py", FIGURES),
        ("paperlib/artifacts/drawing.py", ["draw fig-lambda", "report"]),
        ("paperlib/artifacts/fig_lambda.py", ["draw fig-lambda", "report"]),
        ("mine/tab_mine.py", ["draw tab-mine", "report"]),
        ("paperlib/artifacts/report.py", ["report"]),
        ("published/numbers.csv", ["report"]),
        ("paperlib/runs/twins.py", []),
        ("paperlib/runs/execute.py", []),
        ("paperlib/runs/costs.py", []),
        ("paperlib/__main__.py", []),
        ("paperlib/modules.py", []),
        ("paperlib/measures/landscape.py", []),  # which neither of them imports
        ("README.md", []),
        ("paperlib/runs/plan.py", ["train"]),
        ("mine/tab-mine.py", ["draw tab-mine", "report", "run tab-mine", "train"]),
        ("paperlib/profiles/selections.py", ["draw fig-lambda", "report", "run fig-lambda", "train"]),
        ("paperlib/networks/rules.py", EVERYTHING),  # runs.begin imports it
        ("paperlib/networks/neuron.c", EVERYTHING),
        ("paperlib/attacks/gradient.py", EVERYTHING),
        ("params/tiny.yml", EVERYTHING),
        ("params/laptop.yml", []),
    ],
)
def test_a_change_makes_again_what_depends_on_it_and_nothing_else(tree, touched, expected):
    os.utime(tree / touched)
    assert would_do(tree) == expected


def test_a_file_of_the_library_that_is_gone_stops_nothing(tree):
    (tree / "paperlib" / "artifacts" / "drawing.py").unlink()
    assert would_do(tree) == ["draw fig-lambda", "report"]


def test_a_change_of_one_module_builds_again_by_need(tree):
    module, table = tree / "paperlib" / "profiles" / "selections.py", tree / "results" / "tiny" / "fig-lambda.csv"
    module.write_text('"""Another docstring."""\n' + module.read_text(encoding="utf-8"), encoding="utf-8")
    before, rows = built(tree), table.read_bytes()
    done = make(tree, "reproduce")
    assert done.returncode == 0, done.stdout + done.stderr
    assert written(before, built(tree)) == artifact("fig-lambda") | TRAINED | REPORT
    assert table.read_bytes() == rows and "3 trained already, 0 to train." in done.stdout

    append(tree / "mine" / "tab_mine.py")
    before = built(tree)
    done = make(tree, "reproduce")
    assert done.returncode == 0 and "running" not in done.stdout, done.stdout + done.stderr
    assert written(before, built(tree)) == drawn("tab-mine") | REPORT
    assert make(tree, "reproduce").stdout.startswith("Nothing to do")


# ---- failing -----------------------------------------------------------------------------------------------------


def test_a_failing_notebook_is_a_marked_gap_until_it_is_repaired(tree):
    source = tree / "mine" / "tab-mine.py"
    text, time = source.read_text(encoding="utf-8"), source.stat().st_mtime_ns
    for name in drawn("fig-lambda"):  # is drawn though the other one fails
        (tree / name).unlink()
    append(source, BOOM)
    done = make(tree, "reproduce", "JOBS=1")
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "mine/tab-mine.py: the cell 'raise ValueError(\"boom\")' failed: ValueError: boom." in done.stderr
    there = set(built(tree))
    assert there & artifact("tab-mine") == {"build/tiny/tab-mine.drawn.d"}
    assert there >= artifact("fig-lambda")
    report = tree / "results" / "tiny" / "REPORT.md"
    gap = report.read_text(encoding="utf-8").partition("## `tab-mine`\n")[2].partition("\n## ")[0]
    assert "**Gap.**" in gap and "build/tiny/tab-mine.failed.ipynb" in gap
    assert report.read_text(encoding="utf-8").count("**Gap.**") == 1

    # the old source with its old time is built again: else it would look built, while record and figure are gone
    before = built(tree)
    source.write_text(text, encoding="utf-8")
    os.utime(source, ns=(time, time))
    assert {"run tab-mine", "draw tab-mine", "report"} <= set(would_do(tree))
    done = make(tree, "reproduce")
    assert done.returncode == 0, done.stdout + done.stderr
    assert artifact("tab-mine") | REPORT <= written(before, built(tree)) <= artifact("tab-mine") | REPORT | TRAINED
    assert "build/tiny/tab-mine.failed.ipynb" not in built(tree)
    assert "**Gap.**" not in report.read_text(encoding="utf-8")


# ---- networks that are kept --------------------------------------------------------------------------------------


def test_kept_networks_are_restored_in_place_of_training(tree):
    weights = {path.parent.name: path.read_bytes() for path in (tree / "checkpoints").glob("*/weights.pt")}
    for key in weights:  # as `make notebooks` keeps them
        for name in ("weights.pt", "checkpoint.json"):
            kept = tree / "results" / "tiny" / "networks" / key / name
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tree / "checkpoints" / key / name, kept)
    shutil.rmtree(tree / "checkpoints")
    (tree / "build" / "tiny" / "trained").unlink()
    done = make(tree, "build/tiny/trained", "CACHED=1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["3 of 3 networks restored.", "3 networks: 3 trained already, 0 to train."]
    assert weights == {path.parent.name: path.read_bytes() for path in (tree / "checkpoints").glob("*/weights.pt")}
