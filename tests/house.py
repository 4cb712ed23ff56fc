"""A house of its own for a test: notebooks, a profile of 60 images, and folders for everything that is made."""

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import yaml

from paperlib import paths, processes, profiles
from paperlib.data import sets
from paperlib.profiles import Profile

FOLDERS = ("NOTEBOOKS", "PARAMS", "CHECKPOINTS", "DATA", "RESULTS", "FIGURES", "BUILD")
ADVERSARIAL = {"eps_255": 32, "alpha_255": 40, "steps": 1}
TRAININGS = {"vanilla": {}, "sr": {"lam": 0.01}, "at": ADVERSARIAL, "at+sr": ADVERSARIAL | {"lam": 0.01}}
SCHEDULE = {"epochs": 3, "batch_size": 10, "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0005}
PROFILE = {
    "title": "60 drawings",
    "cost": {"minutes": 1, "disk_mb": 2, "download_mb": 0},
    "data": {"name": "sixty"},
    "network": {"name": "conv-2-4", "T": 2, "tau": 1.0, "rule": "triangle", "precision": "float32"},
    "schedule": SCHEDULE,
    "seeds": [0, 1],
    "trainings": TRAININGS,
    "events": {
        "data": {"name": "saccades:mnist5k", "T": 2, "train": 20, "validation": 10, "test": 10},
        "network": {"name": "events-conv-2", "T": 2, "tau": 1.0, "rule": "triangle", "precision": "float32"},
        "schedule": SCHEDULE,
        "seeds": [0],
        "trainings": TRAININGS,
    },
    "notebooks": {},
}
MAKES = ("PROFILE", "PYTHON", "CACHED", "JOBS", "REPO", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", processes.MAKE)
PARAMETERS = """\
# %% tags=["parameters"]
profile: str = "tiny"  # which file under params/
samples: int = 6  # test images
device: str = "cpu"  # auto, cpu, cuda or mps

"""
ASKS = '# %% tags=["asks"]\n'
BEGIN = """\
from paperlib import attacks, runs
from paperlib.attacks.ensembles import Ensemble, Transfer

run = runs.begin(notebook, globals())
pgd = attacks.standard("pgd", 0.1, steps=2)
"""
SIMPLE = """\
# %% [markdown]
# # Do tiny notebooks run?

# %% tags=["parameters"]
samples: int = 3  # how many
eps_255: list[int] = [4, 8]  # radii in units of 1/255

# %%
print("samples", samples)

# %%
samples + 1
"""
REST = """
# %%
raise AssertionError("the plan executes no cell but that tagged asks")
"""


def sixty() -> sets.Source:
    """60 images of 8×8 in three classes: 42 to train on, 6 to validate, 12 to test."""
    images = np.random.RandomState(0).randint(0, 255, (60, 1, 8, 8)).astype(np.uint8)
    return sets.Source("60 drawings", ("a", "b", "c"), np.arange(60) % 3, 0, lambda rows: images[rows])


class House:
    """Writes notebooks and the profile "tiny" into the folders of `paths`, which lie under `root`."""

    def __init__(self, root: Path):
        self.root = root

    def notebook(self, name: str, text: str) -> Path:
        source = paths.NOTEBOOKS / f"{name}.py"
        source.write_text(text, encoding="utf-8")
        return source

    def asking(self, *asks: str) -> list[Path]:
        """The notebooks tab-0, tab-1, ...: each opens a run and asks for what its text says."""
        texts = [PARAMETERS + ASKS + BEGIN.replace("notebook", f'"tab-{i}"') + ask for i, ask in enumerate(asks)]
        return [self.notebook(f"tab-{i}", text + REST) for i, text in enumerate(texts)]

    def profile(self, **changes) -> Profile:
        (paths.PARAMS / "tiny.yml").write_text(yaml.safe_dump(PROFILE | changes), encoding="utf-8")
        profiles.load.cache_clear()
        return profiles.load("tiny")


def clean_environment() -> dict[str, str]:
    """The environment variables without those of an outer make and of this checkout; one thread a process."""
    left_out = {*MAKES, "PYTHONPATH", paths.FOLDERS}
    return {name: value for name, value in os.environ.items() if name not in left_out} | {"OMP_NUM_THREADS": "1"}


def copy_of_this_tree(target: Path, notebooks: Iterable[str]) -> None:
    """Copy what belongs to this tree and makes results, with these notebooks alone; skips the test without git."""
    listed = git(paths.ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listed.returncode:
        pytest.skip("needs git, to copy what belongs to this tree")
    for name in map(Path, filter(None, listed.stdout.split("\0"))):
        others = name.parts[0] in ("tests", "results", "figures", "benchmarks")
        unused = name.parts[0] == "notebooks" and name.stem not in notebooks
        if not others and not unused and (paths.ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(paths.ROOT / name, target / name)


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run git as somebody who can commit."""
    identity = ["-c", "user.name=a test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True)


def commit(folder: Path) -> None:
    """Make a repository of `folder` and commit everything in it."""
    for arguments in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "a copy"]):
        git(folder, *arguments).check_returncode()
