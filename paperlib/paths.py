"""Where everything lives: the only module that knows folders."""

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


def shown(path: Path) -> str:
    """A path as messages name it: relative to the project where it lies inside."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def figure(profile: str, artifact: str, part: str = "") -> Path:
    """The file of one of an artifact's figures."""
    return FIGURES / profile / f"{artifact}{'-' * bool(part)}{part}.png"
