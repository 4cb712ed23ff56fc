"""The source files that a process has loaded, written as a list of dependencies for Make."""

import sys
from pathlib import Path

from paperlib import files, paths

# The module of an artifact that lies beside a notebook, and a file that a profile imports, have names in paperlib, too.
DRAWING = ("paperlib.artifacts", "paperlib.words")  # a change of these draws figures again; no notebook is executed
# These change no number.
OMITTED = tuple(f"paperlib.{name}" for name in ("__main__", "executors", "modules", "processes", "stamps"))


def loaded(*, drawing: bool) -> list[Path]:
    """The source files of paperlib's modules in this process, sorted; those of `DRAWING` only if `drawing` is set."""
    omitted = OMITTED if drawing else (*OMITTED, *DRAWING)
    sources = set()
    for name, module in list(sys.modules.items()):
        if _lies_in(name, ("paperlib",)) and not _lies_in(name, omitted):
            attributes = (getattr(module, "__file__", None), getattr(module, "SOURCE", None))  # SOURCE: a file in C
            sources.update(Path(file) for file in attributes if isinstance(file, (str, Path)))
    return sorted(sources)


def keep(target: Path | str, *, drawing: bool) -> None:
    """Write `target`.d, a makefile with the rule "`target` depends on the loaded files".

    Each file is also a target without a recipe, so that Make does not stop after a file was deleted.
    """
    target = Path(target)
    names = [paths.shown(path) for path in loaded(drawing=drawing)]
    lines = [f"{paths.shown(target)}: {' '.join(names)}", *(f"{name}:" for name in names)]
    files.write_atomically(target.with_name(target.name + ".d"), ("\n".join(lines) + "\n").encode())


def _lies_in(name: str, packages: tuple[str, ...]) -> bool:
    """Whether `name` is one of `packages` or a module inside one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)
