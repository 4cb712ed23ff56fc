"""The gradient-masking checklist: what failed where."""

from collections.abc import Iterable

from paperlib.claims import title
from paperlib.findings.core import Line
from paperlib.masking import CHECKS, FAILED, PASSED, UNDECIDED, VERDICTS, Cell, cells, number, place


def checks(record: dict) -> str:
    """How many checks passed, and which did not for which training."""
    found = cells(record)
    counts = {verdict: [cell for cell in found if cell.verdict == verdict] for verdict in VERDICTS}
    told = [f"{len(counts[PASSED])} of {len(found)} checks passed"]
    told += [f"{verdict}: {_by_check(counts[verdict])}" for verdict in (FAILED, UNDECIDED) if counts[verdict]]
    return "; ".join(told)


def _by_check(found: list[Cell]) -> str:
    by_check: dict[str, list[str]] = {}
    for cell in found:
        by_check.setdefault(cell.check.otherwise, []).append(_brief(cell))
    return ", ".join(f"{otherwise} ({', '.join(trainings)})" for otherwise, trainings in by_check.items())


def _brief(cell: Cell) -> str:
    value = cell.worst["value"]
    if value is None:
        return title(cell.training)
    by = f"by {abs(100 * value):.0f} points" if cell.check.difference else f"{100 * value:.0f} %"
    return f"{title(cell.training)}, {by}"


def box(record: dict) -> Iterable[Line]:
    """A line a check over all trainings: it holds where all passed, and does not where one failed."""
    found = cells(record)
    for check in CHECKS:
        own = [cell for cell in found if cell.check is check]
        if own:
            verdicts = {cell.verdict for cell in own}
            holds = False if FAILED in verdicts else True if verdicts == {PASSED} else None
            yield Line(holds, f"{check.statement}.", f"{', '.join(map(_told, own))}.")


def _told(cell: Cell) -> str:
    at = place(cell.worst)
    return f"{title(cell.training)} {number(cell.worst)}" + f" ({at})" * bool(at)
