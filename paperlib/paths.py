"""The folders of the project.  No other module knows where they are."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # the checkout, which holds the package and the folders below

README = ROOT / "README.md"
NOTEBOOKS = ROOT / "notebooks"
PARAMS = ROOT / "params"
PUBLISHED = ROOT / "published"
RESULTS = ROOT / "results"
FIGURES = ROOT / "figures"
BUILD = ROOT / "build"
CHECKPOINTS = ROOT / "checkpoints"
DATA = ROOT / "data"
FOLDERS = "COMPANION_NOTEBOOKS"  # the environment variable that names more folders of notebooks


def shown(path: Path) -> str:
    """The text of a path in messages: relative to the project if it lies inside it."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def figure(profile: str, artifact: str, part: str = "") -> Path:
    """The file of a figure; `part` tells the figures of one artifact apart."""
    return FIGURES / profile / (f"{artifact}-{part}.png" if part else f"{artifact}.png")


def notebook_folders() -> list[Path]:
    """The project's folder of notebooks, and those that the environment variable COMPANION_NOTEBOOKS lists."""
    more = os.environ.get(FOLDERS, "").split(os.pathsep)
    return [NOTEBOOKS, *(Path(folder) for folder in more if folder)]


def notebooks() -> dict[str, Path]:
    """The source file of every notebook, by name; of two with one name, that of the earlier folder.

    Files with an underscore in their name are modules and not notebooks.
    """
    found = [path for folder in reversed(notebook_folders()) for path in folder.glob("*.py") if "_" not in path.stem]
    return dict(sorted({path.stem: path for path in found}.items()))


def notebook(name: str) -> Path:
    """The source file of a notebook, which need not exist."""
    return notebooks().get(name, NOTEBOOKS / f"{name}.py")
