"""What the trainings cost."""

from collections.abc import Iterable

from paperlib.claims import select, title
from paperlib.findings.ablation import equal_cost
from paperlib.findings.core import Line

EXACT = ("exact-l1", "l2")  # by double back-propagation


def cost(record: dict) -> str:
    """A step of SR and the slowest step against a vanilla one; then which training is best at equal passes."""
    seconds, memory = (
        {r["training"]: r["value"] for r in relative(record, what)} for what in ("seconds", "bytes kept")
    )
    if "sr" not in seconds:
        return equal_cost(record)
    told = (
        f"SR's step takes {seconds['sr']:.1f} times the time and {memory['sr']:.1f} times the memory of a vanilla one"
    )
    slowest = max(seconds, key=seconds.get)
    if slowest != "sr":
        told += f", {title(slowest)}'s {seconds[slowest]:.1f} and {memory[slowest]:.1f} times"
    return f"{told}. {equal_cost(record)}"


def box(record: dict) -> Iterable[Line]:
    """What SR's second pass costs, and what it saves."""
    words = {"passes": "fewer passes", "multiply-adds": "fewer multiply-adds", "bytes kept": "less memory"}
    for what, less in (words | {"seconds": "less time"}).items():
        by_name = {row["training"]: row for row in relative(record, what)}
        rivals = [by_name[name] for name in EXACT if name in by_name]
        if "sr" in by_name and rivals:
            sr = by_name["sr"]
            cheaper = [_ends(sr)[1] < _ends(rival)[0] for rival in rivals]
            dearer = [_ends(sr)[0] > _ends(rival)[1] for rival in rivals]
            told = ", ".join(f"{title(row['training'])} {_times(row)}" for row in (sr, *rivals)) + " a vanilla step"
            holds = True if all(cheaper) else False if any(dearer) else None
            yield Line(holds, f"A step of SR takes {less} than one of double back-propagation.", told)


def relative(record: dict, what: str) -> list[dict]:
    """What a step of each training takes of something, relative to a vanilla one."""
    return select(record, quantity="relative cost", what=what)


def _ends(row: dict) -> tuple[float, float]:
    return (row["value"], row["value"]) if row["low"] is None else (row["low"], row["high"])


def _times(row: dict) -> str:
    reach = "" if row["low"] is None else f" [{row['low']:.1f}, {row['high']:.1f}]"
    return f"{row['value']:.1f} times{reach}"
