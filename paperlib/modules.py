"""Which files of the library a process has loaded, kept as a list that Make reads."""

import sys
from pathlib import Path

from paperlib import files, paths

LIBRARY = paths.ROOT / "paperlib"
DRAWING = ("artifacts", "words.py")  # of the library: a change of these redraws, and executes no notebook again
COMMANDS = ("__main__.py",)  # the command line decides no number and no picture


def loaded(*, drawing: bool) -> list[Path]:
    """The library's files that this process has loaded, sorted; those of `DRAWING` only where `drawing` is set."""
    found = set()
    for module in list(sys.modules.values()):
        for name in (getattr(module, "__file__", None), getattr(module, "SOURCE", None)):  # SOURCE: of C
            if isinstance(name, (str, Path)) and Path(name).is_relative_to(LIBRARY):
                found.add(Path(name))
    left_out = COMMANDS if drawing else (*COMMANDS, *DRAWING)
    return sorted(path for path in found if path.relative_to(LIBRARY).parts[0] not in left_out)


def keep(target: Path | str, *, drawing: bool) -> None:
    """Write the rule "`target` depends on the loaded files" to `target`.d, for Make.

    Each file is a target without a rule as well, so that Make goes on when one is deleted.
    """
    target = Path(target)
    names = [str(path.relative_to(paths.ROOT)) for path in loaded(drawing=drawing)]
    stamp = target.relative_to(paths.ROOT) if target.is_relative_to(paths.ROOT) else target
    lines = [f"{stamp}: {' '.join(names)}", *(f"{name}:" for name in names)]
    files.write_atomically(target.with_name(target.name + ".d"), ("\n".join(lines) + "\n").encode())
