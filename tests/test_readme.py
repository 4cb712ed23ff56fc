"""README's commands and code blocks, verbatim: code runs, commands run or, where they take minutes, are parsed."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from paperlib import __main__ as command_line
from paperlib import profiles
from paperlib.artifacts import claims, summary
from paperlib.paths import README, ROOT
from paperlib.profiles import parameters
from paperlib.runs import plan

TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^ *```(\w+)\n(.*?)^ *```$", TEXT, flags=re.DOTALL | re.MULTILINE)
LINES = [line.split("#")[0].strip() for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
INLINE = re.findall(r"`((?:make|python -m paperlib|papermill) [^`]+)`", TEXT)
COMMANDS = sorted({*LINES, *INLINE} - {""})
ENV = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def run(command):
    return subprocess.run(command, shell=True, cwd=ROOT, env=ENV, capture_output=True, text=True)


@pytest.mark.parametrize("block", [block for kind, block in BLOCKS if kind == "python"])
def test_a_block_of_python_runs(block):
    done = subprocess.run([sys.executable, "-c", block], cwd=ROOT, env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if "judge" in block:
        assert "worst of all" in done.stdout


@pytest.mark.parametrize("command", [c for c in COMMANDS if " make " in f" {c} "])
def test_make_knows_each_target(command):
    # -n prints what would run; a target that is not there is an error
    done = run(re.sub(r"\bmake\b", "make -n", command) + f" PYTHON={sys.executable}")
    new_profile = "There is no profile" in done.stdout + done.stderr  # the profile that `import-released` writes
    assert done.returncode == 0 or new_profile, done.stderr


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python -m paperlib")])
def test_the_command_line_takes_each_command(command):
    words = shlex.split(command)[3:]
    if words == ["--help"]:
        assert "reproduce" in run(command).stdout
    else:
        assert command_line._parser().parse_args([re.sub("^P$", "laptop", word) for word in words])


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("papermill") and "--" not in c])
def test_papermill_s_parameters_are_those_of_the_notebook(command):
    _, source, _, *given = shlex.split(command)
    known = parameters.declared((ROOT / source).with_suffix(".py"))
    for name, value in zip(given[1::3], given[2::3], strict=True):
        assert parameters.check(source, known, {name: float(value) if "." in value else int(value)})


def test_the_environment_is_activated_as_the_block_says():
    assert ". .venv/bin/activate" in LINES and (ROOT / ".venv" / "bin").exists() or "PYTHON" in os.environ


def test_the_profile_of_one_s_own_is_a_profile(tmp_path):
    (block,) = [block for kind, block in BLOCKS if kind == "yaml"]
    decorator, function = re.search(r"# (@.*?\)) (def .*)$", block, flags=re.MULTILINE).groups()
    (tmp_path / "mine.py").write_text(f"from paperlib.training import defenses\n\n{decorator}\n{function}\n")
    text = re.sub(r"^  ", "", block, flags=re.MULTILINE).replace("mine.py]", f"{tmp_path / 'mine.py'}]")
    for file in (ROOT / "params").glob("*.yml"):
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "own.yml").write_text(text)
    code = f"""
from pathlib import Path
import paperlib
from paperlib import paths, profiles
paths.PARAMS = Path({str(tmp_path)!r})
print(profiles.load("own").experiments("noise", seeds=[0])[0].options)"""
    # in a process of its own, because a training that is registered stays
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=ENV, capture_output=True, text=True)
    assert done.stdout.strip() == "{'sigma': 0.2}", done.stderr


def test_it_says_how_many_networks_are_trained():
    (count,) = re.findall(r"trains (\d+) small networks", TEXT)
    assert int(count) == len(plan.of(profiles.load("laptop")).networks)


def test_the_table_of_verdicts_is_that_of_the_records():
    board = TEXT.split("<!-- verdicts -->\n")[1].split("<!-- /verdicts -->")[0]
    assert board == summary.found()
    for profile in summary.PROFILES:
        path = ROOT / "results" / profile / "REPORT.md"
        if not path.exists():
            assert profile == "fashion"  # not run yet
            continue
        report = path.read_text(encoding="utf-8")
        for claim in claims.LEDGER:  # the report says the same in words
            (verdict,) = re.findall(rf"^\| {re.escape(claim.id)} \|.*?\| \*\*(.+?)\*\* \|", report, flags=re.MULTILINE)
            part = claim.id.partition(", ")[2]
            line = next(line for line in board.splitlines() if line.startswith(f"| **{claim.id[:2]}**"))
            cell = line.split(" | ")[1 + [*summary.PROFILES].index(profile)].removesuffix(" |")
            shown = [text.partition(" (")[0] for text in cell.split("<br>")]  # in brackets what Holm leaves
            assert f"{claims.SIGNS[verdict]} {part}".strip() in shown
