"""Dependencies: pyproject.toml lists them, and the files for pip, conda, Binder and Colab are made from that list.

    python -m paperlib.environment            write requirements.lock and environment.yml
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
CONDA = ROOT / "environment.yml"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
EXTRAS = ("cluster", "dev", "site")  # of pyproject.toml: what is locked, and installed by make
ON_COLAB = {"torch", "torchvision", "numpy", "jupyterlab", "jupyter-client", "ipykernel"}  # Colab's own stay

WRITTEN = "# Written by `python -m paperlib.environment` from pyproject.toml: "
LOCK_HEADER = WRITTEN + "constraints for pip on every platform.\n"
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


def install() -> None:
    """Install the companion and its locked dependencies for this interpreter; installed packages stay."""
    with_cuda, cpu_only = "3.2 GB to download, 6.5 GB on disk (measured)", "0.4 GB and 1.7 GB (estimated)"
    if sys.platform != "linux" or CPU_INDEX in os.environ.get("PIP_EXTRA_INDEX_URL", ""):
        size = cpu_only
    else:
        size = f"{with_cuda}; CPU only, by PIP_EXTRA_INDEX_URL={CPU_INDEX}: {cpu_only}"
    print(f"Installing the packages of {LOCK.name} into {sys.prefix}, some minutes; at most {size}.", flush=True)
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "-c", str(LOCK)]
    subprocess.run([*pip, "-e", f".[{','.join(EXTRAS)}]"], cwd=ROOT, check=True)
    subprocess.run([*pip, "--no-deps", *project()["tool"]["companion"]["without-dependencies"]], cwd=ROOT, check=True)


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
        files = {LOCK: lock(), CONDA: environment_yml(project())}
    except (subprocess.CalledProcessError, KeyboardInterrupt) as error:
        print(getattr(error, "stderr", "") or "Not everything is installed; start again to go on.", file=sys.stderr)
        return 1
    stale = [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if arguments.check:
            print(f"{path.name} is not what pyproject.toml gives: run `python -m paperlib.environment`.")
        else:
            path.write_text(files[path], encoding="utf-8")
    return int(arguments.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
