"""Headline and box of SR's variants: which change of its form matters."""

from collections.abc import Iterable, Iterator

from paperlib.claims import WORST, clear, points, select
from paperlib.findings.core import Line

AXES = ("confidence", "penalty", "direction", "h")
WORDS = {"square": "q²", "absolute": "|q|", "+": "+d", "-": "-d", "central": "±d"}  # the others stand for themselves


def variants(record: dict) -> str:
    """What the first form gains on vanilla, and which single change of it changes most."""
    found = forms(record)
    if not found:
        return "No variant of SR was trained here"
    if not found[0]["value"]:
        return (
            f"Validation data choose λ = 0 for SR ({name(found[0])}), which leaves nothing to compare its variants with"
        )
    of = {"quantity": "difference", "attack": WORST}
    (gain,) = select(record, **of, against="vanilla", **axes(found[0]))
    told = f"Under the {WORST} SR ({name(found[0])}) differs from vanilla by {points(gain)}"
    single = [r for r in select(record, **of, against="the first") if len(changed(r, found[0])) == 1]
    none = [name(form, changed(form, found[0])) for form in found if not form["value"]]
    tail = f"; validation data choose λ = 0 for {' and '.join(none)}" if none else ""
    if not single:
        return told + tail
    decided = [r for r in single if clear(r)]
    widest = max(decided or single, key=lambda r: abs(r["value"]))
    change = f"{name(widest, changed(widest, found[0]))}, {points(widest)}"
    of_all = f"of {len(single)} single change{'s' * (len(single) != 1)} to it"
    what = "what matters most is" if decided else "none is clear of 0, the largest is"
    return f"{told}; {of_all} {what} {change}{tail}"


def box(record: dict) -> Iterator[Line]:
    """A line an axis: whether changing it alone matters; then what becomes of the gradient's magnitude and sparsity."""
    found = forms(record)
    differences = select(record, quantity="difference", attack=WORST, against="the first")
    for axis in AXES:
        single = [r for r in differences if changed(r, found[0]) == [axis]]
        if single:
            numbers = ", ".join(f"{_escaped(name(r, [axis]))} {points(r)}" for r in single)
            holds = True if any(map(clear, single)) else None
            what = axis if axis == "h" else f"the {axis}"
            yield Line(holds, f"Changing {what} alone changes accuracy under the {WORST}.", numbers)
    for size, statement in (
        ("l1", "Every variant with a λ lowers the gradient's magnitude, the median of ‖∇ₓ f_y‖₁."),
        (
            "participation number",
            "Every variant with a λ makes the gradient sparser: it lowers the median participation number.",
        ),
    ):
        rows = select(record, quantity=size)
        reference = [r for r in rows if "h" not in r and r["value"] is not None]
        own = [r for r in rows if "h" in r and r["value"] is not None]
        if reference and own:
            yield _lowered(own, reference[0], statement)


def _lowered(rows: list[dict], vanilla: dict, statement: str) -> Line:
    """Whether all intervals lie below vanilla's; not so where one lies above."""
    known = vanilla["low"] is not None and all(r["low"] is not None for r in rows)
    below = known and all(r["high"] < vanilla["low"] for r in rows)
    above = known and any(r["low"] > vanilla["high"] for r in rows)
    values = [r["value"] for r in rows]
    told = f"vanilla {vanilla['value']:.3g}, variants {min(values):.3g} to {max(values):.3g}"
    return Line(True if below else False if above else None, statement, told)


def forms(record: dict) -> list[dict]:
    """The rows of what validation data chose, one a variant, the first form first."""
    return select(record, quantity="chosen λ")


def axes(row: dict) -> dict:
    """What the penalty of a row's networks is made of."""
    return {axis: row[axis] for axis in AXES}


def changed(row: dict, first: dict) -> list[str]:
    """The axes in which a row's networks differ from the first form."""
    return [axis for axis in AXES if row[axis] != first[axis]]


def word(row: dict, axis: str) -> str:
    """What stands on one axis, for readers."""
    return f"h = {row['h']:g}" if axis == "h" else WORDS.get(row[axis], row[axis])


def name(row: dict, which: Iterable[str] = AXES) -> str:
    """Some axes of a row's form: "margin, q², +d, h = 0.01"."""
    return ", ".join(word(row, axis) for axis in which)


def _escaped(text: str) -> str:
    """For a cell of a Markdown table."""
    return text.replace("|", r"\|")
