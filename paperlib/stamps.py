"""Stamps of Make: build/<profile>/<target>, which lists the files that the target's command wrote, with their digests.

A stamp that does not match its files is removed, so that Make runs the command again.  So a result that was deleted or
changed after it was made is never taken for up to date.  Make compares dates, so a stamp of the future is removed, too:
what is edited now would look older than it.
"""

import time
from collections.abc import Iterable
from pathlib import Path

from paperlib import files, paths

HEADER = "# SHA-256 of the files that were made\n"
SKEW = 300  # seconds by which the clock of a file server may be ahead of this host's
SUFFIXES = ("", ".done", ".drawn")  # of the files in build/<profile>/ that are stamps: "trained", "report", artifacts


def write(stamp: Path, outputs: Iterable[Path]) -> None:
    """Write `stamp`: after a header, a line "SHA-256  path" for each of the files `outputs`; there may be none."""
    lines = [f"{files.sha256(path.read_bytes())}  {paths.shown(path)}\n" for path in outputs]
    files.write_atomically(stamp, "".join([HEADER, *lines]).encode())


def remove_false(profile: str) -> list[str]:
    """Remove each stamp of a profile that does not match its files; returns a sentence for each."""
    sentences = []
    for stamp in sorted((paths.BUILD / profile).glob("*")):
        if stamp.is_file() and stamp.suffix in SUFFIXES and (fault := _fault(stamp)):
            stamp.unlink(missing_ok=True)
            sentences.append(f"{fault} since {paths.shown(stamp)} was made; it is made again.")
    return sentences


def _fault(stamp: Path) -> str:
    """What is wrong with the first output that does not match, or with the stamp itself; "" if nothing is."""
    if stamp.stat().st_mtime > time.time() + SKEW:
        return "The clock was set back"
    header, *lines = stamp.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) or [""]
    if header != HEADER:
        return "Nothing is known of its files"
    for line in map(str.rstrip, lines):
        digest, _, name = line.partition("  ")
        path = paths.ROOT / name
        if not path.is_file():
            return f"{name} is gone"
        if files.sha256(path.read_bytes()) != digest:
            return f"{name} has changed"
    return ""
