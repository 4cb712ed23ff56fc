"""Headline and box of SR's gain over steps, leak and reset of the neurons, and without spikes."""

from collections.abc import Iterator

from paperlib.claims import WORST, clear, points, select
from paperlib.findings.core import Line

WORDS = {"T": "T = {:g}", "tau": "τ = {:g}", "reset": "{} reset", "neuron": "{}"}
ANN = "ANN (ReLU)"
FEW = 4  # as many are told one by one
STATEMENTS = {
    "T": "SR helps with other numbers of steps as well.",
    "tau": "SR helps neurons of another leak as well.",
    "reset": "SR helps with a detached reset as well.",
    "neuron": "SR helps the ANN of the same architecture as well.",
}


def settings(record: dict) -> str:
    """SR's gain in the own setting, where it is clearly another, and an ANN's."""
    found, beside = gains(record), against(record)
    if not found:
        return "No network was trained here to vary T, τ and reset"
    own, *others = found
    spiking = [r for r in others if r["neuron"] == "LIF"]
    other = sorted((r for r in spiking if clear(beside[name(r, own)])), key=lambda r: r["value"])
    told = [f"{name(r, own)} {_round(r)}" for r in other]
    if len(told) > FEW:
        told = [f"from {told[0]} to {told[-1]}"]
    (ann,) = (r for r in others if r["neuron"] == "ReLU")
    over = "over seeds" if len(own["seeds"]) > 1 else "on the same images"
    verdict = ("is not clearly other", "is clearly more", "is clearly less")[clear(beside[name(ann, own)])]
    return (
        f"In the worst case SR gains {_round(own)} points at {word(own, 'T')}, {word(own, 'tau')}; "
        f"{len(other) or 'none'} of {len(spiking)} other settings clearly differ{'s' * (len(other) < 2)} {over}"
        f"{': ' * bool(told)}{', '.join(told)}; the ANN's {_round(ann)} {verdict}"
    )


def box(record: dict) -> Iterator[Line]:
    """Whether SR helps in the own setting, and wherever T, leak, reset or neuron is another: clear of 0 everywhere."""
    found, beside = gains(record), against(record)
    if not found:
        yield Line(None, "SR helps with other steps, leaks and resets, and in an ANN.", "Nothing was trained here.")
        return
    own = found[0]
    yield Line(_helps([own]), f"SR helps at {name(own, own)}.", points(own))
    for axis, statement in STATEMENTS.items():
        rows = [r for r in found if axis in apart(r, own)]
        told = [f"{name(r, own)} {points(r)}, {points(beside[name(r, own)])} against the own" for r in rows]
        if len(rows) > FEW:
            low, *_, high = sorted(rows, key=lambda r: r["value"])
            less, more = (sum(clear(beside[name(r, own)]) == side for r in rows) for side in (-1, 1))
            ends = f"from {name(low, own)} {points(low)} to {name(high, own)} {points(high)}"
            told = [f"{len(rows)} settings {ends}; {less} clearly below the own, {more} above"]
        if rows:
            yield Line(_helps(rows), statement, "; ".join(told))


def _helps(rows: list[dict]) -> bool | None:
    sides = {clear(r) for r in rows}
    return False if -1 in sides else True if sides == {1} else None


def gains(record: dict, attack: str = WORST) -> list[dict]:
    """SR's gain in each setting, the profile's own first."""
    return select(record, quantity="gain", attack=attack)


def against(record: dict, attack: str = WORST) -> dict[str, dict]:
    """By name of the setting its gain minus that of the own."""
    found = gains(record, attack)
    return {name(r, found[0]): r for r in select(record, quantity="gain minus the own", attack=attack)}


def apart(row: dict, own: dict) -> list[str]:
    """In what a row's setting differs from the own."""
    return [axis for axis in WORDS if axis in row and row[axis] != own[axis]]


def name(row: dict, own: dict) -> str:
    """What is other than in the own setting, "T = 2, τ = 0.5"; the own by all that it is."""
    if row["neuron"] == "ReLU":
        return ANN
    axes = apart(row, own) or [axis for axis in WORDS if axis != "neuron"]
    return ", ".join(word(row, axis) for axis in axes)


def word(row: dict, axis: str) -> str:
    """What a row's setting is on one axis."""
    return ANN if row[axis] == "ReLU" else WORDS[axis].format(row[axis])


def _round(row: dict) -> str:
    return f"{100 * row['value']:+z.0f}"
