"""Headline of attacks on networks that draw their input at random."""

from paperlib.claims import select, title

OVERWRITTEN = "overwritten"  # how the title of the released loop ends


def expectations(record: dict) -> str:
    """What the released loop and the real expectation change, with the most draws."""
    loop, expectation = compared(record, "mean contrast")
    if not loop:
        return "No network with random input was looked at"
    return (
        f"The released loop changes accuracy against one draw by {_told(loop)} points; "
        f"{expectation[0]['attack'].partition(' ')[2]}, a real expectation, against that loop by {_told(expectation)}"
    )


def compared(record: dict, quantity: str) -> tuple[list[dict], list[dict]]:
    """Contrasts of the released loop with one draw, and of the expectation with that loop, of the most draws each."""
    rows = select(record, quantity=quantity)
    loop, expectation = ([r for r in rows if r[side].endswith(OVERWRITTEN)] for side in ("attack", "reference"))
    return tuple([r for r in side if r["attack"] == side[-1]["attack"]] for side in (loop, expectation))


def _told(rows: list[dict]) -> str:
    return ", ".join(f"{round(100 * r['value']):+d} ({title(r['training'])})" for r in rows)
