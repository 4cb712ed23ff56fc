"""pyproject.toml is the one list of dependencies; what conda, Binder, Colab and pip's constraints need follows from it.

    python -m paperlib.environment            write requirements.lock and environment.yml
    python -m paperlib.environment --check    compare them instead; exit code 1 if one is stale
    python -m paperlib.environment --install  install the locked versions for this interpreter
    python -m paperlib.environment --colab    install what Colab lacks beside its own torch

Imports nothing beyond the standard library, so that it runs in an environment that is still empty.
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
ON_COLAB = {"torch", "torchvision", "numpy", "jupyterlab", "jupyter-client", "ipykernel"}  # the running kernel

WRITTEN = "# Written by `python -m paperlib.environment` from pyproject.toml: "
LOCK_HEADER = WRITTEN + "constraints for pip on every platform.\n"
CONDA_HEADER = WRITTEN + "for conda and Binder.\n# Untested: neither conda's solver nor Binder's build has tried it.\n"


def project() -> dict:
    """pyproject.toml as a dictionary."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def name(requirement: str) -> str:
    """The distribution that a requirement names, normalised (PEP 503): "PyYAML>=6" → "pyyaml"."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def repository() -> str:
    """The public address, from the one place that knows it."""
    return project()["project"]["urls"]["Repository"]


def colab_requirements() -> list[str]:
    """What a Colab notebook lacks: every dependency but Colab's own torch, numpy and Jupyter."""
    return [r for r in project()["project"]["dependencies"] if name(r) not in ON_COLAB]


def environment_yml(pyproject: dict) -> str:
    """environment.yml: Python and pip from conda-forge, the rest by pip from the CPU-only builds, as locked."""
    python = pyproject["project"]["requires-python"].removeprefix(">=")
    pip = [f"--extra-index-url {CPU_INDEX}", f"-c {LOCK.name}", *pyproject["project"]["dependencies"], "-e ."]
    return f"""{CONDA_HEADER}name: {pyproject["project"]["name"]}
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python={python}
  - pip
  - pip:
""" + "".join(f'      - "{line}"\n' for line in pip)


def lock() -> str:
    """requirements.lock, compiled by uv; versions already locked stay unless pyproject.toml rules them out.

    Raises `subprocess.CalledProcessError` with uv's words in `stderr`, for instance if no index can be reached.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / LOCK.name
        if LOCK.exists():
            shutil.copy(LOCK, output)  # uv takes the versions it finds in its output file as preferences
        python = project()["project"]["requires-python"].removeprefix(">=")  # else uv takes the one it runs on
        options = ["--extra=dev", "--universal", f"--python-version={python}", "--fork-strategy=fewest"]
        options += ["--no-header", "--no-annotate", "--quiet", f"--output-file={output}"]
        command = [sys.executable, "-m", "uv", "pip", "compile", *options, "pyproject.toml"]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        return LOCK_HEADER + output.read_text(encoding="utf-8")


def install() -> None:
    """Install the companion and its locked dependencies for this interpreter; what is there already stays."""
    large, small = "3.2 GB to download, 6.5 GB on disk (measured)", "0.4 GB and 1.7 GB (estimated)"
    cpu_only = sys.platform != "linux" or CPU_INDEX in os.environ.get("PIP_EXTRA_INDEX_URL", "")
    choice = small if cpu_only else f"{large}; CPU only, by PIP_EXTRA_INDEX_URL={CPU_INDEX}: {small}"
    print(f"Installing the packages of {LOCK.name} into {sys.prefix}, some minutes; at most {choice}.", flush=True)
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "-c", str(LOCK)]
    subprocess.run([*pip, "-e", ".[dev]"], cwd=ROOT, check=True)
    subprocess.run([*pip, "--no-deps", *project()["tool"]["companion"]["without-dependencies"]], cwd=ROOT, check=True)


def install_on_colab() -> None:
    """Install the companion beside Colab's own torch, which stays."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *colab_requirements()], cwd=ROOT, check=True)
    subprocess.run([*pip, "--no-deps", "--editable", "."], cwd=ROOT, check=True)


def main() -> int:
    """Run the command line; 0 unless an installation failed or, with --check, a file is stale."""
    parser = argparse.ArgumentParser("python -m paperlib.environment", description="Write what pip and conda read.")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="compare instead; exit code 1 if a file is stale")
    action.add_argument("--install", action="store_true", help="install the locked versions for this interpreter")
    action.add_argument("--colab", action="store_true", help="install what Colab lacks beside its own torch")
    choice = parser.parse_args()
    try:
        if choice.install or choice.colab:
            install() if choice.install else install_on_colab()
            return 0
        files = {LOCK: lock(), CONDA: environment_yml(project())}
    except (subprocess.CalledProcessError, KeyboardInterrupt) as error:
        print(getattr(error, "stderr", "") or "Not everything is installed; start again to go on.", file=sys.stderr)
        return 1
    stale = [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if choice.check:
            print(f"{path.name} is not what pyproject.toml gives: run `python -m paperlib.environment`.")
        else:
            path.write_text(files[path], encoding="utf-8")
    return int(choice.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
