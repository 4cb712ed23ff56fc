"""Where everything lives: the only module that knows folders."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # the checkout: params, published and notebooks lie beside the package

README = ROOT / "README.md"
NOTEBOOKS = ROOT / "notebooks"
PARAMS = ROOT / "params"
PUBLISHED = ROOT / "published"
RESULTS = ROOT / "results"
FIGURES = ROOT / "figures"
BUILD = ROOT / "build"
CHECKPOINTS = ROOT / "checkpoints"
DATA = ROOT / "data"
FOLDERS = "COMPANION_NOTEBOOKS"  # an environment variable: more folders of notebooks


def shown(path: Path) -> str:
    """A path as messages name it: relative to the project where it lies inside."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def figure(profile: str, artifact: str, part: str = "") -> Path:
    """The file of one of an artifact's figures."""
    return FIGURES / profile / f"{artifact}{'-' * bool(part)}{part}.png"


def notebook_folders() -> list[Path]:
    """The folders of notebooks: ours, and those that the environment variable COMPANION_NOTEBOOKS names."""
    more = os.environ.get(FOLDERS, "").split(os.pathsep)
    return [NOTEBOOKS, *(Path(folder) for folder in more if folder)]


def notebooks() -> dict[str, Path]:
    """Every notebook's source by its name.  Hyphens make a name; a file with underscores is a module beside one."""
    found = {}
    for folder in reversed(notebook_folders()):
        found |= {path.stem: path for path in folder.glob("*.py") if "_" not in path.stem}
    return dict(sorted(found.items()))


def notebook(name: str) -> Path:
    """The source of a notebook, whether it is there or not."""
    return notebooks().get(name, NOTEBOOKS / f"{name}.py")
