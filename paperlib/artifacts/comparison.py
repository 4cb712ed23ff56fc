"""My run of a profile, in the working tree, against the committed one: verdicts, statements, numbers, figures."""

import json
import math
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from scipy import stats

from paperlib import arithmetic, artifacts, paths, records, words
from paperlib.artifacts import claims
from paperlib.errors import Refused

CHANCE = math.erfc(1.96 / 2)  # 0.17: see `chance_explains`
LEVEL = 0.01

IDENTICAL, INSIDE, OUTSIDE = "identical", "inside the interval", "outside the interval"
DIFFERENT = "different, without an interval"
ONLY_MINE, ONLY_COMMITTED = "only mine", "only committed"


class Number(NamedTuple):
    """A row of both runs, or of one of them: its label, the two rows, and one of the words above or `records.TIMED`."""

    label: str
    mine: dict | None
    committed: dict | None
    status: str


class Said(NamedTuple):
    """A verdict or what a box says of a statement, with the numbers that it rests on."""

    word: str
    numbers: str

    def __str__(self) -> str:
        return f"{self.word} ({self.numbers.rstrip('.')})"


class Opinion(NamedTuple):
    """A verdict (on a claim) or a statement of a box, in both runs; `mine` is None where my run has none."""

    kind: str  # "verdict" or "statement"
    subject: str
    mine: Said | None
    committed: Said

    @property
    def equal(self) -> bool:
        """Whether both runs say the same, by numbers that may differ."""
        return self.mine is not None and self.mine.word == self.committed.word


@dataclass(frozen=True)
class Artifact:
    """One artifact in both runs.  Where its committed record is missing or damaged, there is nothing but `gap`.

    Where neither run has a record, there is nothing to compare, and no gap either: the report names what is missing.
    """

    name: str
    gap: str = ""  # why the committed record cannot be compared
    loss: str = ""  # why mine cannot
    opinions: list[Opinion] = field(default_factory=list)
    numbers: list[Number] = field(default_factory=list)
    figures: dict[str, bool] = field(default_factory=dict)  # committed file → whether mine has the same bytes

    def count(self, *statuses: str) -> int:
        """How many numbers have one of these statuses."""
        return sum(number.status in statuses for number in self.numbers)

    @property
    def timed(self) -> int:
        """How many numbers are seconds."""
        return self.count(records.TIMED)

    @property
    def outside(self) -> int:
        """How many numbers lie outside the committed interval; a committed one that mine lacks does as well."""
        return self.count(OUTSIDE, ONLY_COMMITTED)

    @property
    def judged(self) -> int:
        """Of how many numbers `outside` could be said: those with a committed interval, and those that mine lacks."""
        known = [n for n in self.numbers if n.status in (IDENTICAL, INSIDE, OUTSIDE) and _has_width(n.committed)]
        return len(known) + self.count(ONLY_COMMITTED)

    def summary(self) -> str:
        """What differs in numbers and figures, in a line; empty where nothing does."""
        changed = [n for n in self.numbers if n.status not in (IDENTICAL, records.TIMED)]
        figures = 0 if self.timed else sum(not same for same in self.figures.values())
        if not changed and not figures:
            return ""
        parts = [f"{self.outside} of {self.judged:,} numbers outside the committed interval"]
        parts[0] += f" ({CHANCE * self.judged:.0f} expected by chance)"
        if without := self.count(DIFFERENT):
            parts.append(f"{without} without an interval differ")
        parts += [f"{self.count(status)} {status}" for status in (ONLY_COMMITTED, ONLY_MINE) if self.count(status)]
        if figures:
            parts.append(f"{figures} of {len(self.figures)} figures differ")
        return ", ".join(parts)


@dataclass(frozen=True)
class Comparison:
    """Every artifact in both runs, in reading order."""

    artifacts: list[Artifact]

    def opinions(self, kind: str) -> list[tuple[Artifact, Opinion]]:
        """Every committed verdict, or every committed statement, with the artifact that it belongs to."""
        return [(a, opinion) for a in self.artifacts for opinion in a.opinions if opinion.kind == kind]

    def turned(self, kind: str) -> list[tuple[Artifact, Opinion]]:
        """Those of `opinions` that differ, without the artifacts of which I have no record."""
        return [(a, opinion) for a, opinion in self.opinions(kind) if not a.loss and not opinion.equal]

    def first_line(self) -> str:
        """How many verdicts and statements are equal, and how many numbers and figures identical, of those committed.

        Seconds, and the figures of artifacts that measure them, are named and not counted.
        """
        parts = []
        for kind in ("verdict", "statement"):
            equal = [opinion.equal for _, opinion in self.opinions(kind)]
            parts.append(f"{sum(equal)} of {len(equal)} {kind}s equal")
        statuses = [n.status for a in self.artifacts for n in a.numbers if n.status not in (ONLY_MINE, records.TIMED)]
        parts.append(f"{statuses.count(IDENTICAL):,} of {len(statuses):,} numbers identical")
        same = [same for a in self.artifacts if not a.timed for same in a.figures.values()]
        parts.append(f"{sum(same)} of {len(same)} figures identical")
        line = ", ".join(parts)
        if timed := [artifact for artifact in self.artifacts if artifact.timed]:
            line += f"; and {sum(a.timed for a in timed)} timed numbers"
            drawn = sum(len(artifact.figures) for artifact in timed)
            line += f" and {drawn} figure{'s' * (drawn > 1)} of them" if drawn else ""
            line += ", which differ between any two runs"
        return f"{line}."

    def differences(self, every_number: bool = False) -> list[str]:
        """A line for each verdict and each statement that turned, then for each artifact with a difference or gap.

        With `every_number` each number that differs follows its artifact, indented.
        """
        lines = []
        for artifact, (kind, subject, mine, old) in self.turned("verdict") + self.turned("statement"):
            lines.append(f"{artifact.name}, {kind} {subject}: mine {mine or 'missing'}, committed {old}.")
        for artifact in self.artifacts:
            lines += [f"{artifact.name}: {text}" for text in (artifact.gap, artifact.loss) if text]
            if not artifact.loss and (summary := artifact.summary()):
                lines.append(f"{artifact.name}: {summary}.")
            for label, mine, committed, status in artifact.numbers if every_number else ():
                if status not in (IDENTICAL, records.TIMED):
                    lines.append(f"  {status}: {label}: mine {_shown(mine)}, committed {_shown(committed)}")
        return lines

    def failures(self) -> list[str]:
        """Why my run is not the committed one; empty where it is, apart from chance.

        Where portable arithmetic is not exact, other networks are to be expected, and numbers decide nothing.
        """
        failures = []
        if turned := len(self.turned("verdict")):
            failures.append(f"{turned} verdict{'s differ' if turned > 1 else ' differs'}")
        if lost := sum(bool(artifact.loss) for artifact in self.artifacts):
            failures.append(f"{lost} record{'s' * (lost > 1)} of mine cannot be compared")
        if arithmetic.is_exact() and not chance_explains(*self._outside()):
            failures.append(f"{self._chance()}, more than chance explains")
        return failures

    def last_line(self) -> str:
        """Whether my run gives what is committed, and why not."""
        if failures := self.failures():
            return f"Not reproduced: {'; '.join(failures)}."
        if not self.differences():
            return "Reproduced: nothing differs."
        if not arithmetic.is_exact():
            nearest = f"on this processor, {arithmetic.processor()}, the arithmetic is only the nearest there is"
            return f"Reproduced: every verdict is equal ({self._chance()}; {nearest})."
        return f"Reproduced: every verdict is equal, and chance explains the rest ({self._chance()})."

    def _outside(self) -> tuple[int, int]:
        readable = [artifact for artifact in self.artifacts if not artifact.loss]
        return sum(artifact.outside for artifact in readable), sum(artifact.judged for artifact in readable)

    def _chance(self) -> str:
        outside, judged = self._outside()
        return f"{outside:,} of {judged:,} numbers outside the committed interval, {CHANCE * judged:,.0f} expected"


def chance_explains(outside: int, judged: int) -> bool:
    """Whether two independent runs of the same thing may have `outside` of `judged` numbers outside the interval.

    Of two independent values with the same normal error σ, one lies outside the 95 % interval of the other,
    ± 1.96 σ, with probability P(|Z| > 1.96/√2) = 0.17, because their difference has the error √2 σ.  It is less for
    Student's intervals of few seeds, 0.12 for five.  The answer is no where a binomial count with this probability
    reaches `outside` in less than 1 % of all cases.

    It takes numbers as independent; those of one network are not.  It is generous to runs with the same seeds and
    images, whose errors are mostly shared: trained with another rounding, 1.5 % of tab-whitebox's numbers lay outside.
    """
    return bool(stats.binom.sf(outside - 1, judged, CHANCE) >= LEVEL)


def of(profile: str, names: Iterable[str]) -> Comparison | None:
    """The comparison of these artifacts of a profile; None where no record of them is committed, or without git."""
    compared = [_artifact(profile, name) for name in names]
    return Comparison(compared) if any(artifact.numbers for artifact in compared) else None


def not_made_here(profile: str, names: Iterable[str]) -> list[str]:
    """The artifacts whose record came with the checkout: no run has left a `*.run.json` beside it."""
    records_there = {name: paths.RESULTS / profile / f"{name}.json" for name in names}
    return [n for n, path in records_there.items() if path.exists() and not path.with_suffix(".run.json").exists()]


def committed(path: Path) -> bytes | None:
    """A file of the project as git's HEAD has it; None where HEAD has no such file, and without git."""
    name = f"HEAD:./{path.relative_to(paths.ROOT).as_posix()}"  # ./ because the project may lie inside another's tree
    try:
        done = subprocess.run(["git", "-C", str(paths.ROOT), "cat-file", "blob", name], capture_output=True)
    except OSError:
        return None
    return None if done.returncode else done.stdout


def numbers(mine: dict, other: dict) -> list[Number]:
    """The rows of my record and of the committed `other`, in its order; those that only I have come last.

    Rows match by labels and seeds.  They are identical where value, interval and n are.
    """
    if mine["artifact"] != other["artifact"]:
        raise Refused(f"Cannot compare {mine['artifact']} with {other['artifact']}: they are two artifacts.")
    here, there = records.by_labels(mine), records.by_labels(other)
    pairs = [(here.get(key), there.get(key)) for key in there | here]
    return [Number(records.label(old or new), new, old, _status(new, old)) for new, old in pairs]


def said(record: dict) -> dict[tuple[str, str], Said]:
    """What a record says: kind and subject (see `Opinion`) → word and numbers.

    Refuses a record without the rows that its verdicts and statements rest on.
    """
    try:
        own = [claims.judged(claim, record) for claim in claims.LEDGER if claim.artifact == record["artifact"]]
        found = {("verdict", f"{v.claim.id} ({v.claim.statement})"): Said(v.verdict, v.reason) for v in own}
        lines = {("statement", text): Said(word, numbers) for word, text, numbers in claims.statements(record)}
        return found | lines
    except Exception as problem:  # whatever a judge stumbles over in rows that are not those it expects
        why = f"{type(problem).__name__}: {problem}"
        raise Refused(f"its verdicts and statements need rows that are not in the record ({why}).") from problem


def _artifact(profile: str, name: str) -> Artifact:
    path = paths.RESULTS / profile / f"{name}.json"
    if (content := committed(path)) is None:
        return Artifact(name, gap="no committed record to compare with." if path.exists() else "")
    try:
        other = records.check(json.loads(content))
        words.learn(other["words"])
        there = said(other)
    except ValueError as problem:  # no JSON, or refused
        return Artifact(name, gap=f"the committed record cannot be compared: {problem}")
    loss = ""
    try:
        mine = records.load(path)
        rows, here = numbers(mine, other), said(mine)
    except Refused as problem:
        loss, rows, here = str(problem), numbers(other | {"rows": []}, other), {}
    figures = {}
    for part in artifacts.parts(name):
        figure = paths.figure(profile, name, part)
        if (content := committed(figure)) is not None:
            figures[figure.name] = not loss and figure.is_file() and figure.read_bytes() == content
    opinions = [Opinion(*key, here.get(key), old) for key, old in there.items()]
    return Artifact(name, "", loss, opinions, rows, figures)


def _status(mine: dict | None, other: dict | None) -> str:
    if (other or mine).get(records.TIMED):
        return records.TIMED
    if mine is None or other is None:
        return ONLY_COMMITTED if mine is None else ONLY_MINE
    if all(mine[key] == other[key] for key in ("value", "low", "high", "n")):
        return IDENTICAL
    if not _has_width(other):
        return DIFFERENT
    return INSIDE if mine["value"] is not None and other["low"] <= mine["value"] <= other["high"] else OUTSIDE


def _has_width(row: dict) -> bool:
    """Whether a row has an interval; one without width says nothing of the next run (see `reading.clear`)."""
    return None not in (row["low"], row["high"]) and row["low"] < row["high"]


def _shown(row: dict | None) -> str:
    if row is None or row["value"] is None:
        return "nothing" if row is None else "undefined"
    return f"{row['value']}" + (f" [{row['low']}, {row['high']}]" if row["low"] is not None else "")
