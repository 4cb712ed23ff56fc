"""The command line: exit codes, one sentence instead of a traceback."""

import hashlib
import io
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from test_released import theirs

from paperlib import __main__ as command_line
from paperlib import paths, profiles
from paperlib.data import datasets, images
from paperlib.errors import Refused
from paperlib.runs import costs, execute, plan
from paperlib.store import checkpoints, released

PARAMS = paths.PARAMS
OF_PROFILES = (
    "reproduce",
    "plan",
    "train",
    "evaluate",
    "restore",
    "keep",
    "report",
    "compare",
    "certificate",
    "export-explorer",
)


@pytest.fixture
def call(monkeypatch, capsys):
    """A function of arguments: what `python -m paperlib` exits with, says and complains of."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["paperlib", *arguments])
        try:
            code = command_line.main()
        except SystemExit as exit:  # argparse
            code = exit.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The folders that commands write to, under a root of their own."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    for name in ("RESULTS", "FIGURES", "BUILD", "CHECKPOINTS"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    return tmp_path


def one_sentence(err):
    return err.endswith(".\n") and err.count("\n") == 1


def test_in_a_process_of_its_own_bad_input_exits_with_two_and_one_sentence():
    command = [sys.executable, "-m", "paperlib", "run", "thm-nope", "--profile", "smoke"]
    done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, env=os.environ | {"COLUMNS": "80"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("There is no notebook 'thm-nope'. Allowed: fig-") and one_sentence(done.stderr)


@pytest.mark.parametrize("command", [*((name,) for name in OF_PROFILES), ("run", "thm-ratio"), ("draw", "thm-ratio")])
def test_an_unknown_profile_is_refused_with_those_there_are(call, folders, command):
    code, out, err = call(*command, "--profile", "nope")
    assert (code, out) == (2, "") and err == f"There is no profile 'nope'. Allowed: {', '.join(profiles.names())}.\n"
    assert list(folders.iterdir()) == []


@pytest.mark.parametrize("command", ["run", "draw", "publish", "plan"])
def test_an_unknown_notebook_is_refused_with_those_there_are(call, folders, command):
    allowed = ", ".join(paths.notebooks())
    assert call(command, "thm-nope") == (2, "", f"There is no notebook 'thm-nope'. Allowed: {allowed}.\n")
    assert call(command, "nowhere/tab-mine.py") == (2, "", "There is no notebook nowhere/tab-mine.py.\n")
    assert list(folders.iterdir()) == []


def test_to_draw_without_a_record_is_refused_unless_the_notebook_is_no_artifact(call, folders):
    code, out, err = call("draw", "thm-ratio", "--profile", "smoke")
    assert code == 2 and out == "" and "build its artifact first" in err and one_sentence(err)
    assert list(folders.iterdir()) == []
    assert call("draw", "your-network", "--profile", "smoke") == (0, "", "")
    assert {path.name for path in folders.rglob("*.*")} == {"your-network.drawn", "your-network.drawn.d"}


@pytest.mark.parametrize(
    "arguments",
    [
        *((), ("frobnicate",), ("run",), ("links",), ("train", "--jobs", "many")),
        *(("import-released", "vanilla=any.pth", "--network", "wrn16"), ("import-released", "--dataset", "cifar10")),
    ],
)
def test_a_command_that_cannot_be_shows_its_usage(call, arguments):
    code, out, err = call(*arguments)
    assert code == 2 and out == "" and err.startswith("usage: python -m paperlib")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("train", "--jobs", "0"), "jobs is 0; it must be a whole number of at least 1."),
        (("reproduce", "--jobs", "-1"), "jobs is -1; it must be a whole number of at least 1."),
        (("plan", "--machines", "0"), "MACHINES is 0; it must be a whole number of at least 1."),
        (("plan", "--machines", "10000000"), "MACHINES is 10000000; it must be 1000000 at most."),
        (("links", "nowhere"), "REPO is 'nowhere'; it must be owner/name, as in jane/sparse-gradients-companion."),
    ],
)
def test_a_value_that_cannot_be_is_refused(call, folders, arguments, reason):
    assert call(*arguments) == (2, "", f"{reason}\n")


@pytest.mark.parametrize("command", ["train", "plan"])
def test_a_device_that_is_not_one_is_refused_before_anything_is_trained(call, house, command):
    house.profile()
    code, _, err = call(command, "--profile", "tiny", "--device", "tpu")
    *progress, refusal = err.splitlines()  # the plan shows its progress
    assert (code, refusal) == (2, "There is no device 'tpu'. Allowed: auto, cpu, cuda, mps.")
    assert len(progress) == (2 if command == "plan" else 0)


def test_help_names_every_command_and_what_it_does(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = call("--help")
    assert code == 0
    for name in (*OF_PROFILES, "import-released", "run", "draw", "publish", "sync", "check", "links"):
        run = getattr(command_line, name.replace("-", "_"))
        assert f"{name} {run.__doc__.splitlines()[0]}" in " ".join(out.split())


def test_an_interruption_says_that_work_is_kept(call, house, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    house.profile()
    monkeypatch.setattr(checkpoints, "train_all", interrupted)
    code, out, err = call("train", "--profile", "tiny")
    assert code == 130 and "goes on from there" in out and err == ""


def test_where_only_ascii_can_be_shown_the_rest_is_a_question_mark(house, monkeypatch):
    house.profile()
    monkeypatch.setattr(sys, "argv", ["paperlib", "plan", "--profile", "tiny"])
    monkeypatch.setattr(command_line, "plan", lambda arguments: print("sr, λ = 0.1"))
    command_line.plan.__doc__ = "A command."
    monkeypatch.setattr(sys, "stdout", shown := io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert command_line.main() == 0
    shown.flush()
    assert shown.buffer.getvalue() == b"sr, ? = 0.1\n"


# ---- plan, restore and keep --------------------------------------------------------------------------------------


def finished(experiment, folder, weights=b"weights"):
    (folder / experiment.key).mkdir(parents=True)
    (folder / experiment.key / "weights.pt").write_bytes(weights)
    (folder / experiment.key / "checkpoint.json").write_text("{}")


@pytest.fixture
def paper(folders, monkeypatch):
    """A folder of profiles with the paper's alone, to which an import then writes."""
    monkeypatch.setattr(paths, "PARAMS", folders / "params")
    shutil.copytree(PARAMS / "templates", folders / "params" / "templates")
    shutil.copy(PARAMS / "paper.yml", folders / "params")
    profiles.load.cache_clear()
    yield
    profiles.load.cache_clear()


@pytest.fixture
def a_second_a_step(monkeypatch):
    monkeypatch.setattr(costs._Stopwatch, "_seconds", lambda self, step: 1.0)


def test_the_plan_says_what_is_there_and_what_the_rest_costs(call, house, a_second_a_step):
    house.asking('run.ask(run.profile.of(["vanilla", "sr"]), [None, pgd], samples=12)')
    _, first, *_ = plan.of(house.profile()).networks
    finished(first, paths.CHECKPOINTS)
    code, out, _ = call("plan", "--profile", "tiny", "--device", "cpu", "--machines", "3")
    # a second for 8 images: 4 batches of 10 are 5 s an epoch; 12 images 1.5 s a pass, of which PGD-2 takes 3
    assert code == 0 and out.splitlines() == [
        "tiny: 60 drawings.",
        "  1 of 4 networks and 0 of 8 evaluations are there.",
        "  train sr, λ = 0.01, seed 0 (conv-2-4, 3 epochs): 15 s",
        "  train vanilla, seed 0 (conv-2-4, 3 epochs): 15 s",
        "  train vanilla, seed 1 (conv-2-4, 3 epochs): 15 s",
        "  evaluate 4 networks, clean, 12 test images: 6 s at most",
        "  evaluate 4 networks, PGD-2 at 25.5/255, 12 test images: 18 s at most",
        "In all 1 min 9 s on cpu, by steps timed just now.",
        # 15 s each; then 4 x 4.5 s and 4 x 1.5 s: 4.5 + 4.5, 4.5 + 1.5 + 1.5, 4.5 + 1.5 + 1.5; 69 of 72 s
        "On 3 workers like this one 24 s, 4% of it idle: trainings 15 s, then evaluations 9 s at most. The longest "
        "training takes 15 s and the longest part of an evaluation 4 s, so no number of workers ends before 20 s.",
    ]


def test_the_plan_writes_its_first_line_before_anything_is_read_or_timed(call, house, monkeypatch, capsys):
    house.asking('run.ask(run.profile.experiments("vanilla"))')
    house.profile()
    shown, of = [], plan.of
    monkeypatch.setattr(plan, "of", lambda profile: shown.append(capsys.readouterr()) or of(profile))
    monkeypatch.setattr(costs._Stopwatch, "_seconds", lambda self, step: shown.append(capsys.readouterr()) or 1.0)
    assert call("plan", "--profile", "tiny", "--device", "cpu")[0] == 0
    read, timed = shown
    assert read.err.splitlines()[0] == "Loading torch for the profile tiny ..." and read.out == "tiny: 60 drawings.\n"
    assert "steps timed:   0%" in timed.err and "training conv-2-4" in timed.err


def test_the_plan_of_a_base_is_that_of_its_family(call, house, a_second_a_step):
    house.asking('run.ask(run.profile.experiments("vanilla"))')
    house.profile()
    (paths.PARAMS / "mine.yml").write_text(yaml.safe_dump({"base": "tiny", "title": "one seed", "seeds": [0]}))
    for name, titles in (("mine", ["mine: one seed."]), ("tiny", ["tiny: 60 drawings.", "mine: one seed."])):
        code, out, _ = call("plan", "--profile", name, "--device", "cpu")
        *found, total = [line for line in out.splitlines() if not line.startswith("  ")]
        assert code == 0 and found == titles and total.startswith("In all ")


def test_the_report_takes_the_title_of_a_base(call, house):
    house.profile()
    (paths.PARAMS / "mine.yml").write_text("base: tiny\n")
    assert call("report", "--profile", "mine") == (0, "results/mine/REPORT.md (and .html) written.\n", "")
    assert "\n60 drawings. Every number" in (paths.RESULTS / "mine" / "REPORT.md").read_text()


def test_networks_are_kept_and_restored_and_never_overwritten(call, house):
    house.asking('run.ask(run.profile.of(["vanilla", "at"]))')
    first, second, *_ = plan.of(house.profile()).networks
    kept = paths.RESULTS / "tiny" / "networks"
    finished(first, paths.CHECKPOINTS, b"one")
    finished(second, paths.CHECKPOINTS, b"two")
    (paths.CHECKPOINTS / first.key / "evaluations").mkdir()
    assert call("keep", "--profile", "tiny")[:2] == (0, "2 of 4 networks kept.\n")
    assert sorted(p.name for p in (kept / first.key).iterdir()) == ["checkpoint.json", "weights.pt"]
    (paths.CHECKPOINTS / first.key / "checkpoint.json").unlink()  # trained no more
    (paths.CHECKPOINTS / second.key / "weights.pt").write_bytes(b"mine")
    assert call("restore", "--profile", "tiny")[:2] == (0, "1 of 4 networks restored.\n")
    assert (paths.CHECKPOINTS / first.key / "weights.pt").read_bytes() == b"one"
    assert (paths.CHECKPOINTS / second.key / "weights.pt").read_bytes() == b"mine"
    (kept / "of an older plan").mkdir()
    assert call("keep", "--profile", "tiny")[:2] == (0, "2 of 4 networks kept.\n")
    assert (kept / second.key / "weights.pt").read_bytes() == b"mine"  # which is newer
    shutil.rmtree(paths.CHECKPOINTS)
    assert call("keep", "--profile", "tiny")[:2] == (0, "0 of 4 networks kept.\n")  # here nothing is trained
    assert sorted(folder.name for folder in kept.iterdir()) == sorted([first.key, second.key])


# ---- networks of the released code -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def download(tmp_path_factory):
    """A state dict of the released wrn16 for CIFAR-10, all random, and a folder of images of its size."""
    root, rng = tmp_path_factory.mktemp("downloads"), np.random.RandomState(0)
    torch.save(theirs("wrn16", "cifar10", torch.float32).state_dict(), root / "vanilla.pth")
    (root / "text.pth").write_text("no checkpoint")
    for name in ("cats", "dogs"):
        (root / "photos" / name).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(rng.randint(0, 255, (32, 32, 3)).astype(np.uint8)).save(root / "photos" / name / f"{i}.png")
    return root


WRN16 = ("--network", "wrn16", "--dataset", "cifar10")


@pytest.mark.filterwarnings("ignore:This process computes with portable arithmetic")  # here, torch is there already
def test_released_networks_are_imported_and_planned_from_then_on(call, paper, download, a_second_a_step, monkeypatch):
    file, photos, x = download / "vanilla.pth", f"folder:{download / 'photos'}", torch.rand(2, 3, 32, 32)
    code, out, err = call("import-released", f"vanilla={file}", f"at+sr={file}", *WRN16, "--data", photos)
    assert (code, err) == (0, "")
    profile = profiles.load("released-wrn16-cifar10")
    (vanilla,), (both,) = profile.experiments("vanilla"), profile.experiments("at+sr")
    assert out.splitlines() == [
        f"{file} is now checkpoints/{vanilla.key}.",
        f"{file} is now checkpoints/{both.key}.",
        "params/released-wrn16-cifar10.yml written.",
        "Next: make reproduce PROFILE=released-wrn16-cifar10, "
        "or one notebook: make tab-ablation PROFILE=released-wrn16-cifar10",
    ]
    assert vanilla.sha256 == both.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (vanilla.data, profile.data) == ({"name": photos}, {"name": photos})
    network = checkpoints.trained(vanilla, device="cpu", progress=False)
    assert torch.equal(network(x), released.load(file, "wrn16", "cifar10")(x))
    images._load.cache_clear()
    code, _, err = call("train", "--profile", "released-wrn16-cifar10", "--device", "cpu")
    assert code == 2 and f"{photos} has 4 test samples, too few for " in err and "tab-ablation (samples: 10000)" in err
    monkeypatch.setattr(datasets, "available", lambda *_: None)  # as if there were enough of them
    code, out, _ = call("plan", "--profile", "released-wrn16-cifar10", "--device", "cpu")
    assert code == 0 and "  2 of 4 networks and 0 of " in out
    assert [line.split(" (")[0] for line in out.splitlines() if line.startswith("  train ")] == [
        "  train at, seed 42",
        "  train sr, λ = 0.01, seed 42",
    ]


def test_the_data_set_itself_is_looked_at_unless_another_is_named(call, paper, download):
    assert call("import-released", f"sr={download / 'vanilla.pth'}", *WRN16)[0] == 0
    assert profiles.load("released-wrn16-cifar10").experiments("sr")[0].data == {"name": "cifar10"}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["trades={}/vanilla.pth"], "There is no training 'trades'. Allowed: at, at+sr, sr, vanilla."),
        (["={}/vanilla.pth"], "There is no training ''. Allowed: at, at+sr, sr, vanilla."),
        (["{}/vanilla.pth"], "Allowed: at, at+sr, sr, vanilla."),
        (["vanilla"], "vanilla"),
        (["vanilla="], "vanilla"),
        (["vanilla={}/nowhere.pth"], "There is no file {}/nowhere.pth."),
        (["vanilla={}/text.pth"], "{}/text.pth is no PyTorch state dict ("),
        (["vanilla={}"], "{}"),  # a folder
        (["vanilla={}/vanilla.pth", "sr={}/text.pth"], "{}/text.pth is no PyTorch state dict ("),
        (["vanilla={}/vanilla.pth", "vanilla={}/vanilla.pth"], "vanilla"),  # which of them is meant?
    ],
)
def test_a_file_or_training_that_cannot_be_is_refused_in_one_sentence(call, paper, download, files, words):
    code, _, err = call("import-released", *(file.format(download) for file in files), *WRN16)
    assert code == 2 and words.format(download) in err and err.count("\n") == 1
    assert profiles.names() == ["paper"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("--network", "vgg11"), "This is no released vgg11 for cifar10: missing layer1.0.weight; "),
        (("--network", "resnet"), "There is no released network 'resnet'. Allowed: vgg11, wrn16.\n"),
        (("--dataset", "cifar100"), "fc.weight of shape (10, 256) instead of (100, 256)"),
        (("--dataset", "mnist5k"), "There is no data set of the released code 'mnist5k'. Allowed: cifar10, cifar100."),
        (("--data", "imagenet"), "There is no image set 'imagenet'. Allowed: mnist5k"),
    ],
)
def test_a_network_or_data_set_that_cannot_be_leaves_nothing_behind(call, paper, download, changes, words):
    images._load.cache_clear()
    code, _, err = call("import-released", f"vanilla={download / 'vanilla.pth'}", *WRN16, *changes)
    assert code == 2 and words in err and err.count("\n") == 1
    assert profiles.names() == ["paper"] and not paths.CHECKPOINTS.exists()


# ---- a failing notebook ------------------------------------------------------------------------------------------


def test_a_failed_run_leaves_no_record_and_no_figure_behind(call, folders, monkeypatch):
    def failing(artifact, given, output, *, origin):
        assert (given["profile"], origin) == ("smoke", "params/smoke.yml")
        assert output == paths.BUILD / "smoke" / "thm-ratio.ipynb"
        raise Refused("the cell failed.")

    stale = [paths.RESULTS / "smoke" / f"thm-ratio.{end}" for end in ("json", "csv", "run.json")]
    stale.append(paths.FIGURES / "smoke" / "thm-ratio.png")
    others = [paths.RESULTS / "smoke" / "tab-ablation.json", paths.RESULTS / "laptop" / "thm-ratio.json"]
    for path in stale + others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.setattr(execute, "execute", failing)
    assert call("run", "thm-ratio", "--profile", "smoke") == (2, "", "the cell failed.\n")
    assert not any(path.exists() for path in stale) and all(path.exists() for path in others)


@pytest.mark.parametrize("failing", [(), ("thm-ratio",)])
def test_reproduce_without_make_goes_on_after_a_failure_and_says_so(call, folders, monkeypatch, failing):
    done = []

    def step(name):
        def doing(arguments):
            artifact = f" {arguments.artifact}" if name in ("run", "draw") else ""
            done.append(name + artifact)
            if name == "run" and arguments.artifact in failing:
                raise Refused("the cell failed.")
            return 0

        doing.__doc__ = "For the parser."
        monkeypatch.setattr(command_line, name, doing)

    for name in ("train", "evaluate", "run", "draw", "report"):
        step(name)
    code, _, err = call("reproduce", "--profile", "smoke")
    assert code == len(failing) and err == "the cell failed.\n" * len(failing)
    wanted = [f"{step} {a}" for a in paths.notebooks() for step in ("run", "draw") if (step, a) != ("draw", *failing)]
    assert done == ["train", "evaluate", *wanted, "report"]


def test_reproduce_without_make_prints_why_an_evaluation_failed_and_goes_on_to_the_notebooks(call, monkeypatch):
    done = []
    for name in ("train", "run", "draw", "report"):
        monkeypatch.setattr(command_line, name, lambda _, name=name: done.append(name) or 0)
        getattr(command_line, name).__doc__ = "For the parser."
    monkeypatch.setattr(command_line, "evaluate", refusing)
    code, _, err = call("reproduce", "--profile", "smoke")
    assert code == 0 and err == "1 of 3 failed.\n"
    assert done == ["train", *["run", "draw"] * len(paths.notebooks()), "report"]


def refusing(arguments):
    """For the parser."""
    raise Refused("1 of 3 failed.")
