"""Dependencies: what is imported stands in pyproject.toml, and the files that are generated from it are current."""

import ast
import copy
import re
import subprocess
import sys

import pytest
import yaml

from paperlib import environment
from paperlib.paths import NOTEBOOKS, ROOT

PYPROJECT = environment.project()
RUN = PYPROJECT["project"]["dependencies"]
DEV = PYPROJECT["project"]["optional-dependencies"]["dev"]
SITE = PYPROJECT["project"]["optional-dependencies"]["site"]
CLUSTER = PYPROJECT["project"]["optional-dependencies"]["cluster"]
BARE = PYPROJECT["tool"]["companion"]["without-dependencies"]

DISTRIBUTION = {  # where the module's name is not the distribution's
    "yaml": "pyyaml",
    "PIL": "pillow",
    "markdown_it": "markdown-it-py",
    "mpl_toolkits": "matplotlib",
    "IPython": "ipykernel",  # which is IPython's kernel
    "xdist": "pytest-xdist",
    "dask": "distributed",  # which needs one version of it
}
OURS = {"paperlib", "google"}  # google.colab exists on Colab alone; guarded there
SHIPPED = sorted([*(ROOT / "paperlib").rglob("*.py"), *NOTEBOOKS.glob("*.py")])
BESIDE = sorted([*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])
EXTRA = {"site": SITE, "executors": CLUSTER}  # packages of paperlib that need an extra
WITH_TORCH = {"triton"}  # torch brings it where it has a GPU build, and does without it elsewhere


def third_party(path) -> set[str]:
    """The distributions that a source file imports, at its top or inside a function."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules.add(node.module.split(".")[0])
    beside = {p.stem for p in path.parent.iterdir()}  # a test's helpers
    return {DISTRIBUTION.get(m, environment.name(m)) for m in modules - sys.stdlib_module_names - OURS - beside}


@pytest.mark.parametrize("path", SHIPPED + BESIDE, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_import_is_declared(path):
    extras = DEV + BARE + CLUSTER if path in BESIDE else EXTRA.get(path.parent.name, [])
    declared = {environment.name(r) for r in RUN + extras}
    assert third_party(path) - WITH_TORCH <= declared


def test_environment_runs_where_nothing_is_installed():
    command = [sys.executable, "-S", "-m", "paperlib.environment", "--help"]  # -S: no site-packages
    assert "--install" in subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_lock_generated_again_is_the_same():
    try:
        again = environment.lock()
    except subprocess.CalledProcessError as error:
        if "error sending request" in error.stderr or "network was disabled" in error.stderr:
            pytest.skip("uv reaches no package index, so the lock cannot be compiled again")
        raise AssertionError(error.stderr) from None
    assert environment.LOCK.read_text(encoding="utf-8") == again


def test_lock_is_a_constraints_file_that_covers_every_dependency():
    lines = [line for line in environment.LOCK.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    pins = [line.split(" ; ")[0] for line in lines]
    for pin in pins:  # pip refuses extras here; a hash or an address would tie it to one machine
        assert re.fullmatch(r"[a-z0-9-]+==[\w.!]+", pin), pin
    assert {environment.name(r) for r in RUN + DEV + SITE + CLUSTER} <= {environment.name(pin) for pin in pins}
    assert {r for r in RUN if "==" in r} <= set(pins)


def test_every_locked_package_has_hashes_and_none_has_another_version():
    assert environment.hashed_pins() == environment.pins()
    assert set(BARE) <= set(environment.pins()) and any(pin.startswith("torch==") for pin in environment.pins())
    for entry in re.split(r"\n(?=[a-z])", environment.HASHED.read_text(encoding="utf-8").rstrip())[1:]:
        pin, *hashes = re.split(r" \\\n    ", entry)
        assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes), pin


def test_hashes_are_written_anew_only_where_a_version_has_moved(monkeypatch, tmp_path, capsys):
    hashed = tmp_path / "requirements-hashed.txt"
    hashed.write_text("".join(f"{pin} \\\n    --hash=sha256:0\n" for pin in environment.pins()))
    monkeypatch.setattr(environment, "HASHED", hashed)
    monkeypatch.setattr(environment, "lock", environment.LOCK.read_text)
    monkeypatch.setattr(environment, "hashed", lambda: "new")
    monkeypatch.setattr(sys, "argv", ["environment"])
    assert environment.main() == 0 and hashed.read_text() != "new"
    hashed.write_text(hashed.read_text().replace("torch==2", "torch==1"))
    monkeypatch.setattr(sys, "argv", ["environment", "--check"])
    assert environment.main() == 1
    assert capsys.readouterr().out.count("requirements-hashed.txt is not what pyproject.toml gives") == 1
    monkeypatch.setattr(sys, "argv", ["environment"])
    assert environment.main() == 0 and hashed.read_text() == "new"


@pytest.mark.parametrize("cpu_only", [False, True])
def test_an_installation_compares_hashes_but_of_files_that_pypi_does_not_have(monkeypatch, cpu_only):
    commands = []
    monkeypatch.setattr(environment.subprocess, "run", lambda command, **_: commands.append(" ".join(command)))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", environment.CPU_INDEX if cpu_only else "")
    environment.install()
    assert len(commands) == 2 and all(" -m pip install " in command for command in commands)
    if cpu_only:
        assert all(f"-c {environment.LOCK}" in command for command in commands) and "hashes" not in "".join(commands)
        assert all(package in commands[1] for package in BARE)
    else:
        assert f"--require-hashes --no-deps -r {environment.HASHED}" in commands[0]
        assert commands[1].endswith("--no-deps --no-build-isolation -e .")


def test_conda_file_follows_pyproject():
    assert environment.CONDA.read_text(encoding="utf-8") == environment.environment_yml(PYPROJECT)
    changed = copy.deepcopy(PYPROJECT)
    changed["project"]["dependencies"].append("left-pad==1.0")
    changed["project"]["requires-python"] = ">=3.12"
    conda, pip = (yaml.safe_load(environment.environment_yml(p))["dependencies"] for p in (changed, PYPROJECT))
    assert conda[0] == "python=3.12" and pip[0] == "python=3.11"
    assert set(conda[-1]["pip"]) - set(pip[-1]["pip"]) == {"left-pad==1.0"}
    assert conda[-1]["pip"][-1] == "-e ."


def test_check_names_the_stale_file_which_writing_brings_up_to_date(monkeypatch, tmp_path, capsys):
    stale = tmp_path / "environment.yml"
    stale.write_text("name: something else\n")
    monkeypatch.setattr(environment, "CONDA", stale)
    monkeypatch.setattr(environment, "lock", environment.LOCK.read_text)
    monkeypatch.setattr(sys, "argv", ["environment", "--check"])
    assert environment.main() == 1
    assert capsys.readouterr().out.count("environment.yml is not what pyproject.toml gives") == 1
    assert stale.read_text() == "name: something else\n"
    monkeypatch.setattr(sys, "argv", ["environment"])
    assert environment.main() == 0
    assert stale.read_text() == environment.environment_yml(PYPROJECT)


def test_colab_keeps_its_own_torch(monkeypatch):
    commands = []
    monkeypatch.setattr(environment.subprocess, "run", lambda command, **_: commands.append(command))
    environment.install_on_colab()
    requirements, editable = commands
    assert editable[-3:] == ["--no-deps", "--editable", "."]
    installed = {environment.name(part) for part in requirements if part[0].isalpha()}
    assert installed.isdisjoint({"torch", "torchvision", "numpy"}) and {"snntorch", "mlxtend", "papermill"} <= installed


def test_citation_agrees_with_pyproject():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PYPROJECT["project"]["version"]
    assert citation["license"] == PYPROJECT["project"]["license"]
