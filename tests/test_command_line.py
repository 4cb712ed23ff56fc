"""The command line: exit codes, one sentence instead of a traceback, and runs held against committed ones."""

import copy
import os
import subprocess
import sys

import pytest
from test_claims import record, row

from paperlib import __main__ as command_line
from paperlib import experiments, notebooks, paths, profiles, records, runner
from paperlib import report as reports
from paperlib.errors import Refused

OF_PROFILES = ("reproduce", "plan", "train", "restore", "keep", "report", "compare")


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


@pytest.mark.parametrize("command", OF_PROFILES)
def test_an_unknown_profile_is_refused_with_those_there_are(call, folders, command):
    code, _, err = call(command, "--profile", "nope")
    assert code == 2 and err == f"There is no profile 'nope'. Allowed: {', '.join(profiles.names())}.\n"
    assert list(folders.iterdir()) == []


@pytest.mark.parametrize("command", ["run", "publish"])
def test_an_unknown_notebook_is_refused_with_those_there_are(call, folders, command):
    code, _, err = call(command, "thm-nope")
    assert code == 2 and err == f"There is no notebook 'thm-nope'. Allowed: {', '.join(notebooks.names())}.\n"


@pytest.mark.parametrize("command", [("run", "thm-ratio"), ("draw", "thm-ratio"), ("draw", "thm-nope")])
def test_a_notebook_of_an_unknown_profile_or_without_record_is_one_sentence(call, folders, command):
    code, out, err = call(*command, "--profile", "nope")
    assert code == 2 and out == "" and one_sentence(err)
    assert list(folders.iterdir()) == []


@pytest.mark.parametrize("arguments", [(), ("frobnicate",), ("run",), ("links",), ("train", "--jobs", "many")])
def test_a_command_that_cannot_be_shows_its_usage(call, arguments):
    code, out, err = call(*arguments)
    assert code == 2 and out == "" and err.startswith("usage: python -m paperlib")


@pytest.mark.parametrize("jobs", ["0", "-1"])
def test_less_than_one_job_is_refused(call, folders, jobs):
    code, _, err = call("train", "--profile", "smoke", "--jobs", jobs)
    assert code == 2 and "jobs" in err.splitlines()[-1] and jobs in err.splitlines()[-1]


def test_a_device_that_is_not_one_is_refused_before_anything_is_trained(call, folders):
    code, _, err = call("train", "--profile", "smoke", "--device", "tpu")
    assert code == 2 and err.splitlines()[-1] == "There is no device 'tpu'. Allowed: auto, cpu, cuda, mps."


def test_help_names_every_command_and_what_it_does(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = call("--help")
    assert code == 0
    for name in (*OF_PROFILES, "run", "draw", "publish", "sync", "check", "links"):
        assert f"{name} {getattr(command_line, name).__doc__.splitlines()[0]}" in " ".join(out.split())


def test_a_bad_address_is_refused(call):
    code, _, err = call("links", "not-a-repository")
    assert code == 2 and "'not-a-repository'; it must be owner/name" in err and one_sentence(err)


def test_an_interruption_says_that_work_is_kept(call, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiments, "train_all", interrupted)
    code, out, err = call("train", "--profile", "smoke")
    assert code == 130 and "goes on from there" in out and err == ""


# ---- plan, restore and keep --------------------------------------------------------------------------------------


def finished(experiment, folder, weights=b"weights"):
    (folder / experiment.key).mkdir(parents=True)
    (folder / experiment.key / "weights.pt").write_bytes(weights)
    (folder / experiment.key / "checkpoint.json").write_text("{}")


def test_the_plan_says_cost_and_what_is_missing(call, folders):
    profile = profiles.load("smoke")
    first, *missing = profile.plan()
    finished(first, paths.CHECKPOINTS)
    code, out, _ = call("plan", "--profile", "smoke")
    title, cost, *lines = out.splitlines()
    assert code == 0 and title == f"{profile.title}."
    assert f"about {profile.cost['minutes']} minutes" in cost and f"{profile.cost['disk_mb']} MB of disk" in cost
    assert f"{profile.cost['download_mb']} MB of download. 1 of {1 + len(missing)} networks are trained." in cost
    assert lines == [f"  to train: {e} ({e.network}, {e.schedule.epochs} epochs)" for e in missing]


def test_networks_are_kept_and_restored_and_never_overwritten(call, folders):
    first, second, *others = profiles.load("smoke").plan()
    total, kept = 2 + len(others), paths.RESULTS / "smoke" / "networks"
    finished(first, paths.CHECKPOINTS, b"one")
    finished(second, paths.CHECKPOINTS, b"two")
    (paths.CHECKPOINTS / first.key / "evaluations").mkdir()
    assert call("keep", "--profile", "smoke")[:2] == (0, f"2 of {total} networks kept.\n")
    assert sorted(p.name for p in (kept / first.key).iterdir()) == ["checkpoint.json", "weights.pt"]
    (paths.CHECKPOINTS / first.key / "checkpoint.json").unlink()  # trained no more
    (paths.CHECKPOINTS / second.key / "weights.pt").write_bytes(b"mine")
    assert call("restore", "--profile", "smoke")[:2] == (0, f"1 of {total} networks restored.\n")
    assert (paths.CHECKPOINTS / first.key / "weights.pt").read_bytes() == b"one"
    assert (paths.CHECKPOINTS / second.key / "weights.pt").read_bytes() == b"mine"


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
    monkeypatch.setattr(runner, "execute", failing)
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

    for name in ("train", "run", "draw", "report"):
        step(name)
    code, _, err = call("reproduce", "--profile", "smoke")
    assert code == len(failing) and err == "the cell failed.\n" * len(failing)
    wanted = [f"{step} {a}" for a in reports.artifacts() for step in ("run", "draw") if (step, a) != ("draw", *failing)]
    assert done == ["train", *wanted, "report"]


# ---- my run against the committed one ----------------------------------------------------------------------------


def git(folder, *arguments):
    identity = ["-c", "user.name=a test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


COMMITTED = record(
    "tab-ablation",
    [
        row("mean accuracy", 0.5, 0.4, 0.6, training="sr", attack="clean"),
        row("mean accuracy", 0.3, 0.2, 0.4, training="sr", attack="PGD-20"),
    ],
)


@pytest.fixture
def mine(folders):
    """A function that puts my run's values in place of the committed ones, 0.5 and 0.3."""
    path = paths.RESULTS / "smoke" / "tab-ablation.json"
    records.save(COMMITTED, path)
    git(folders, "init", "--quiet")
    git(folders, "add", "--all")
    git(folders, "commit", "--quiet", "--message", "a record")

    def write(*values):
        changed = copy.deepcopy(COMMITTED)
        for entry, value in zip(changed["rows"], values, strict=False):
            entry["value"] = value
        changed["rows"] = changed["rows"][: len(values)]
        records.save(changed, path)

    return write


def told(out):
    """What is said of tab-ablation; of the others, that none is committed."""
    lines = out.splitlines()
    absent = [line for line in lines if line.endswith(": no committed record to compare with.")]
    assert len(absent) == len(notebooks.names()) - 1
    return [line for line in lines if line not in absent]


@pytest.mark.parametrize(
    ("values", "code", "lines"),
    [
        ((0.5, 0.3), 0, ["tab-ablation: 2 identical"]),
        ((0.5, 0.35), 0, ["tab-ablation: 1 identical, 1 inside the interval"]),
        ((0.5, 0.1), 1, ["tab-ablation: 1 identical, 1 moved", "  moved: mean accuracy, training sr, attack PGD-20"]),
        (
            (0.9, 0.35),
            1,
            ["tab-ablation: 1 inside the interval, 1 moved", "  moved: mean accuracy, training sr, attack"],
        ),
        ((0.5,), 1, ["tab-ablation: 1 identical, 1 only committed", "  only committed: mean accuracy, training sr"]),
    ],
)
def test_my_run_is_held_against_the_committed_one(call, mine, values, code, lines):
    mine(*values)
    found, out, err = call("compare", "--profile", "smoke")
    said = told(out)
    assert (found, err, len(said)) == (code, "", len(lines))
    assert all(line.startswith(start) for line, start in zip(said, lines, strict=True))


def test_a_moved_number_is_told_with_both_values(call, mine):
    mine(0.5, 0.1)
    assert "mine 0.1, committed 0.3" in call("compare", "--profile", "smoke")[1]


def test_comparing_without_a_run_of_my_own_is_refused(call, mine):
    (paths.RESULTS / "smoke" / "tab-ablation.json").unlink()
    code, _, err = call("compare", "--profile", "smoke")
    assert code == 2 and "tab-ablation.json" in err and "build its artifact first" in err and one_sentence(err)
