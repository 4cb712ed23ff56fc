"""The profiles that the site shows, with the records that they have."""

import re
import subprocess
from dataclasses import dataclass
from functools import cached_property

from paperlib import paths
from paperlib.artifacts import claims, report
from paperlib.profiles import reading


@dataclass(frozen=True)
class Shown:
    """A profile and its records."""

    name: str

    @cached_property
    def records(self) -> dict[str, dict]:
        """Artifact → record, in reading order; an artifact whose record is missing or damaged is left out."""
        return report.found_in(self.name)

    @cached_property
    def title(self) -> str:
        """What the profile is, as its file says."""
        return reading.content_of(self.name)["title"]

    @property
    def short(self) -> str:
        """The first part of `title`, which is the data."""
        return re.split(", | \\(", self.title)[0]

    @cached_property
    def verdicts(self) -> list[claims.Verdict]:
        """A verdict on each line of the ledger, "not measured" where there is no record."""
        return claims.verdicts(self.records)

    @property
    def missing(self) -> str:
        """What to run where there is no record at all; empty where there is one."""
        if self.records:
            return ""
        run = "make reproduce" if self.name == "laptop" else f"make reproduce PROFILE={self.name}"
        return f"Profile {self.name} has no records yet: run `{run}`, then `make site PROFILE={self.name}`."


def committed_on(record: dict) -> str | None:
    """The day of the commit with which a record was made; None where git does not know that commit."""
    command = ["git", "-C", str(paths.ROOT), "show", "--no-patch", "--format=%cs", record["provenance"]["code"]]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None
