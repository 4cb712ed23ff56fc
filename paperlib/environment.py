"""Dependencies: pyproject.toml lists them, and the files for pip, conda, Binder and Colab are made from that list.

    python -m paperlib.environment            write requirements.lock, requirements-hashed.txt and environment.yml
    python -m paperlib.environment --check    compare them instead; exit code 1 if one is stale
    python -m paperlib.environment --install  install the locked versions for this interpreter
    python -m paperlib.environment --colab    install what Colab lacks; its own torch stays

It imports the standard library alone, so that it runs in an empty environment.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from paperlib.paths import ROOT

LOCK = ROOT / "requirements.lock"
HASHED = ROOT / "requirements-hashed.txt"
CONDA = ROOT / "environment.yml"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
EXTRAS = ("cluster", "dev", "site")  # of pyproject.toml: what is locked, and installed by make
ON_COLAB = {"torch", "torchvision", "numpy", "jupyterlab", "jupyter-client", "ipykernel"}  # Colab's own stay

WRITTEN = "# Written by `python -m paperlib.environment` from pyproject.toml: "
LOCK_HEADER = WRITTEN + "constraints for pip on every platform.\n"
HASHED_HEADER = (
    WRITTEN + "all locked packages with the SHA-256 of PyPI's files.\n"
    "# python -m pip install --require-hashes --no-deps -r requirements-hashed.txt\n"
)
CONDA_HEADER = WRITTEN + "for conda and Binder.\n# Untested: neither conda's solver nor Binder's build has tried it.\n"


def project() -> dict:
    """pyproject.toml as a dictionary."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def name(requirement: str) -> str:
    """The name of the distribution in a requirement, normalised as in PEP 503: "PyYAML>=6" → "pyyaml"."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def oldest_python(pyproject: dict) -> str:
    """The oldest version of Python that the project runs on."""
    return pyproject["project"]["requires-python"].removeprefix(">=")


def repository() -> str:
    """The public address of the project, which only pyproject.toml holds."""
    return project()["project"]["urls"]["Repository"]


def colab_requirements() -> list[str]:
    """The dependencies to install on Colab: all except its own torch, numpy and Jupyter."""
    requirements = project()["project"]["dependencies"]
    return [requirement for requirement in requirements if name(requirement) not in ON_COLAB]


def environment_yml(pyproject: dict) -> str:
    """The text of environment.yml: Python and pip from conda-forge, all else by pip, CPU-only, in locked versions."""
    pip = [f"--extra-index-url {CPU_INDEX}", f"-c {LOCK.name}", *pyproject["project"]["dependencies"], "-e ."]
    return f"""{CONDA_HEADER}name: {pyproject["project"]["name"]}
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python={oldest_python(pyproject)}
  - pip
  - pip:
""" + "".join(f'      - "{line}"\n' for line in pip)


def lock() -> str:
    """The text of requirements.lock, compiled by uv; a locked version stays unless pyproject.toml excludes it.

    Raises `subprocess.CalledProcessError` with the message of uv in `stderr`, for instance if no index can be reached.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / LOCK.name
        if LOCK.exists():
            shutil.copy(LOCK, output)  # uv prefers the versions in its output file
        python = oldest_python(project())  # without it uv resolves for the Python that runs it
        options = [f"--extra={extra}" for extra in EXTRAS]
        options += ["--universal", f"--python-version={python}", "--fork-strategy=fewest"]
        options += ["--no-header", "--no-annotate", "--quiet", f"--output-file={output}"]
        command = [sys.executable, "-m", "uv", "pip", "compile", *options, "pyproject.toml"]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        return LOCK_HEADER + output.read_text(encoding="utf-8")


def hashed() -> str:
    """The text of requirements-hashed.txt: what `pins` says, with a hash for each of PyPI's files, by uv.

    Raises `subprocess.CalledProcessError` as `lock` does.
    """
    with tempfile.TemporaryDirectory() as folder:
        wanted, output = Path(folder) / "wanted.txt", Path(folder) / HASHED.name
        wanted.write_text("\n".join(pins()), encoding="utf-8")
        options = ["--universal", f"--python-version={oldest_python(project())}", "--no-deps", "--generate-hashes"]
        options += ["--no-header", "--no-annotate", "--quiet", f"--output-file={output}", str(wanted)]
        subprocess.run(
            [sys.executable, "-m", "uv", "pip", "compile", *options], check=True, capture_output=True, text=True
        )
        return HASHED_HEADER + output.read_text(encoding="utf-8")


def pins() -> list[str]:
    """The locked requirements and those that are installed without their dependencies, sorted."""
    locked = [line for line in LOCK.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return sorted([*locked, *project()["tool"]["companion"]["without-dependencies"]])


def hashed_pins() -> list[str]:
    """The requirements in requirements-hashed.txt, without their hashes, sorted."""
    lines = HASHED.read_text(encoding="utf-8").splitlines() if HASHED.exists() else []
    return sorted(line.removesuffix("\\").strip() for line in lines if line[:1].isalnum())


def install() -> None:
    """Install the companion and its locked dependencies for this interpreter; installed packages stay.

    Each file is compared with its hash, but where PIP_EXTRA_INDEX_URL names PyTorch's CPU builds: torch has other files
    there, whose hashes PyPI does not tell.
    """
    with_cuda, cpu_only = "3.2 GB to download, 6.5 GB on disk (measured)", "0.4 GB and 1.7 GB (estimated)"
    is_cpu_only = CPU_INDEX in os.environ.get("PIP_EXTRA_INDEX_URL", "")
    if sys.platform != "linux" or is_cpu_only:
        size = cpu_only
    else:
        size = f"{with_cuda}; CPU only, by PIP_EXTRA_INDEX_URL={CPU_INDEX}: {cpu_only}"
    print(f"Installing the packages of {LOCK.name} into {sys.prefix}, some minutes; at most {size}.", flush=True)
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    if is_cpu_only:
        locked, bare = [*pip, "-c", str(LOCK)], project()["tool"]["companion"]["without-dependencies"]
        subprocess.run([*locked, "-e", f".[{','.join(EXTRAS)}]"], cwd=ROOT, check=True)
        subprocess.run([*locked, "--no-deps", *bare], cwd=ROOT, check=True)
    else:  # in two steps: pip takes no editable project beside hashes
        subprocess.run([*pip, "--require-hashes", "--no-deps", "-r", str(HASHED)], cwd=ROOT, check=True)
        subprocess.run([*pip, "--no-deps", "--no-build-isolation", "-e", "."], cwd=ROOT, check=True)


def install_on_colab() -> None:
    """Install the companion on Colab, whose own torch stays."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *colab_requirements()], cwd=ROOT, check=True)
    subprocess.run([*pip, "--no-deps", "--editable", "."], cwd=ROOT, check=True)


def main() -> int:
    """Run the command line.  Returns 0, or 1 if an installation failed or, with --check, if a file is stale."""
    parser = argparse.ArgumentParser("python -m paperlib.environment", description="Write the files of pip and conda.")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="compare instead; exit code 1 if a file is stale")
    action.add_argument("--install", action="store_true", help="install the locked versions for this interpreter")
    action.add_argument("--colab", action="store_true", help="install what Colab lacks; its own torch stays")
    arguments = parser.parse_args()
    try:
        if arguments.install:
            install()
            return 0
        if arguments.colab:
            install_on_colab()
            return 0
        stale = _stale({LOCK: lock(), CONDA: environment_yml(project())}, write=not arguments.check)
        if pins() != hashed_pins():  # the hashes themselves may grow, as a version gets files for newer Pythons
            stale.append(HASHED)
            if not arguments.check:
                HASHED.write_text(hashed(), encoding="utf-8")
    except (subprocess.CalledProcessError, KeyboardInterrupt) as error:
        print(getattr(error, "stderr", "") or "Not everything is installed; start again to go on.", file=sys.stderr)
        return 1
    if arguments.check:
        for path in stale:
            print(f"{path.name} is not what pyproject.toml gives: run `python -m paperlib.environment`.")
    return int(arguments.check and bool(stale))


def _stale(texts: dict[Path, str], *, write: bool) -> list[Path]:
    """The files that do not hold the text that they should; with `write` they get it."""
    stale = [path for path, text in texts.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale if write else ():
        path.write_text(texts[path], encoding="utf-8")
    return stale


if __name__ == "__main__":
    sys.exit(main())
