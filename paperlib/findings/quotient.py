"""The finite-difference proposition: headlines, and what holds of it."""

from collections.abc import Iterable

from paperlib.claims import KEPT, SMOOTH, TRUE, select, title
from paperlib.findings.core import Line


def box(record: dict) -> Iterable[Line]:
    """What holds of the proposition, line by line."""
    used = record["arrays"]["used_h"]
    own = {"regime": SMOOTH, "precision": "float64", "scheme": "forward"}
    errors = [r for r in select(record, quantity="relative error", **own) if r["value"]]
    if errors:
        least = min(r["h"] for r in errors)
        small, at_used = ([r["value"] for r in errors if r["h"] == h] for h in (least, used))
        yield Line(
            max(small) < 0.01,
            "On the smoothed network the quotient tends to ‖g‖₁ (error below 1 %).",
            f"Median error at most {max(small):.2g} at h = {least:g}, {max(at_used):.2g} at {used:g}.",
        )
    slopes = _slopes(record)
    if slopes:
        yield Line(
            min(slopes) >= 0.5 and max(slopes) <= 2,
            f"There the curvature term predicts the error at h = {used:g} within a factor of 2.",
            f"Error over prediction: {min(slopes):.2f} to {max(slopes):.2f}.",
        )
    first = min(r["h"] for r in record["rows"] if r["quantity"] == "probability moved")
    moved = [r["value"] for r in select(record, quantity="probability moved", h=first, precision="float32")]
    yield Line(
        min(moved) > KEPT,
        "The spiking network answers every step, however small.",
        f"At h = {first:g} {100 * min(moved):.0f} to {100 * max(moved):.0f} % of the images move.",
    )
    inside, of = _inside(record)
    yield Line(
        inside == of, f"h = {used:g} is in the window where the quotient is a proxy.", f"In {inside} of {of} networks."
    )
    for name, cosines in _cosines(record).items():
        low, high = min(cosines), max(cosines)
        yield Line(
            low > 0.9,
            f"On the {name} network the penalty's gradient is that of double back-propagation (cosine above 0.9).",
            f"Cosine {low:.2f} to {high:.2f} over layers and trainings.",
        )
    cost = {(r["quantity"], r["penalty"]): r["value"] for r in record["rows"] if "penalty" in r}
    quick, exact = "finite difference", "double back propagation"
    for quantity, what in (("multiply-adds", "arithmetic"), ("bytes kept", "memory")):
        a, b = cost[quantity, quick], cost[quantity, exact]
        numbers = f"{a:.1f} times that of a step without penalty, against {b:.1f}."
        yield Line(a < b, f"The quotient costs less {what} than double back-propagation.", numbers)


def followed(record: dict) -> str:
    """How well the quotient follows ‖∇f‖₁ at SR's h, and where it does best."""
    own = {"quantity": "rank correlation", "scheme": "forward", "precision": "float32"}
    rows = [r for r in select(record, **own) if r["value"] is not None]
    if not rows:
        return "The quotient follows ‖∇f‖₁ at no h: nothing varies from image to image"
    used = record["arrays"]["used_h"]
    told = [f"{title(r['training'])} {r['value']:.2f}" for r in rows if r["h"] == used]
    best = max(rows, key=lambda r: r["value"])
    return (
        f"At SR's h = {used:g} the quotient's rank correlation with ‖∇f‖₁ is {', '.join(told) or 'undefined'}; "
        f"the best is {best['value']:.2f} at h = {best['h']:g}"
    )


def window(record: dict) -> str:
    """In how many networks SR's h is a proxy."""
    inside, of = _inside(record)
    used = record["arrays"]["used_h"]
    return f"SR's h = {used:g} lies in the window where the quotient is a proxy in {inside} of {of} networks"


def _inside(record: dict) -> tuple[int, int]:
    """In how many networks SR's h lies within the window, of how many."""
    used, lows = record["arrays"]["used_h"], select(record, quantity="window from", precision="float32")
    inside = 0
    for low in lows:
        same = {"training": low["training"], "seeds": low["seeds"], "precision": "float32"}
        (high,) = select(record, quantity="window to", **same)
        inside += low["value"] is not None and low["value"] <= used <= high["value"]
    return inside, len(lows)


def schemes(record: dict) -> str:
    """The least error of any scheme, smoothed and spiking."""

    def least(regime: str) -> dict | None:
        rows = select(record, quantity="relative error", regime=regime, precision="float64")
        return min((r for r in rows if r["value"] is not None), key=lambda r: r["value"], default=None)

    smooth, spiking = least(SMOOTH), least(TRUE)
    if not smooth or not spiking:
        return "No gradient, no error"
    return (
        f"The least median error is {smooth['value']:.1g} on the smoothed network and {spiking['value']:.1g} on the "
        f"spiking one ({spiking['scheme']}, h = {spiking['h']:g}), whose gradient is another function's"
    )


def curvature(record: dict) -> str:
    """How much of the error the curvature term is."""
    used, slopes = record["arrays"]["used_h"], _slopes(record)
    if not slopes:
        return "No curvature was measured"
    return (
        f"At h = {used:g} the smoothed networks' error is {min(slopes):.2f} to {max(slopes):.2f} of the curvature term"
    )


def weights(record: dict) -> str:
    """How alike the penalty's gradient is by either way."""
    told = [f"{min(c):.2f} to {max(c):.2f} on the {name} networks" for name, c in _cosines(record).items()]
    return f"Cosine of the penalty's gradient by finite difference and exactly: {', '.join(told) or 'undefined'}"


def _slopes(record: dict) -> list[float]:
    """Error over prediction at SR's h, a number a training and scheme."""
    rows = select(record, quantity="error over prediction", h=record["arrays"]["used_h"])
    return [r["value"] for r in rows if r["value"] is not None]


def _cosines(record: dict) -> dict[str, list[float]]:
    """All that are defined, of the smoothed and of the spiking networks."""
    found = {
        name: [r["value"] for r in select(record, quantity="cosine", regime=regime) if r["value"] is not None]
        for name, regime in (("smoothed", SMOOTH), ("spiking", TRUE))
    }
    return {name: cosines for name, cosines in found.items() if cosines}
