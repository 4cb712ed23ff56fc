"""The finite-difference proposition: the h at which SR's quotient is a proxy of ‖∇f‖₁, and the quotient's cost."""

from collections.abc import Iterable

from pandas import DataFrame

from paperlib.artifacts import prop_finite_difference_figures as figures
from paperlib.artifacts.reading import IMAGES, Line, Part, known, listed, one_network, percent, select, trainings, where
from paperlib.artifacts.tabulating import network, number, pivot, quantity
from paperlib.artifacts.thm_ratio import KEPT
from paperlib.labels import SMOOTH, TRUE
from paperlib.words import title

# captions
SCHEMES = "{data}, {samples} test images ({smooth_samples} smooth), {seeds}"
CURVATURE = "{data}, {smooth_samples} test images, {seeds}, {over_seeds}"
WEIGHTS = "{data}, {weight_samples} test images, {seeds}, {over_seeds}"

caption = IMAGES
figure = figures.followed


def headline(record: dict) -> str:
    """The rank correlations of the quotient with ‖∇f‖₁ at SR's h, from the least to the largest."""
    rows = known(select(record, quantity="rank correlation", scheme="forward", precision="float32"))
    if not rows:
        return "The quotient follows ‖∇f‖₁ at no h: nothing varies from image to image"
    used = where(rows, h=record["arrays"]["used_h"])
    if not used:
        return "The quotient at SR's h has no rank correlation with ‖∇f‖₁"
    low, high = (end(r["value"] for r in used) for end in (min, max))
    ends = f"{low:.2f}" if len(used) == 1 else f"{low:.2f} to {high:.2f}"
    return f"At SR's h the quotient's rank correlation with ‖∇f‖₁ is {ends}{one_network(used)}"


def table(record: dict) -> list[DataFrame]:
    """A line for each training and h: the forward quotient of the spiking network in 32 bits."""

    def cell(row: dict) -> str:
        return percent(row) if row["quantity"] == "probability moved" else number(row)

    rows = select(record, regime=TRUE, precision="float32", scheme="forward")
    return [pivot(rows, lambda r: {"training": title(r["training"]), "h": f"{r['h']:g}"}, quantity, cell)]


def box(record: dict) -> Iterable[Line]:
    """The statements of the proposition: error, curvature, steps, window, gradient of the penalty, cost."""
    used = record["arrays"]["used_h"]
    errors = select(record, quantity="relative error", regime=SMOOTH, precision="float64", scheme="forward")
    if errors := [r for r in errors if r["value"]]:
        least = min(r["h"] for r in errors)
        small, at_used = (max(r["value"] for r in where(errors, h=h)) for h in (least, used))
        yield Line(
            small < 0.01,
            "On the smoothed network the quotient tends to ‖g‖₁ (error below 1 %).",
            f"Median error at most {small:.2g} at h = {least:g}, {at_used:.2g} at {used:g}.",
        )
    if slopes := _slopes(record):
        yield Line(
            min(slopes) >= 0.5 and max(slopes) <= 2,
            f"There the curvature term predicts the error at h = {used:g} within a factor of 2.",
            f"Error over prediction: {min(slopes):.2f} to {max(slopes):.2f}.",
        )
    least = min(r["h"] for r in select(record, quantity="probability moved"))
    shares = [r["value"] for r in select(record, quantity="probability moved", h=least, precision="float32")]
    yield Line(
        min(shares) > KEPT,
        "The spiking network answers every step, however small.",
        f"At h = {least:g} {100 * min(shares):.0f} to {100 * max(shares):.0f} % of the images move.",
    )
    inside, total = _inside(record)
    statement = f"h = {used:g} is in the window where the quotient is a proxy."
    yield Line(inside == total, statement, f"In {inside} of {total} networks.")
    for kind, cosines in _cosines(record).items():
        yield Line(
            min(cosines) > 0.9,
            f"On the {kind} network the penalty's gradient is that of double back-propagation (cosine above 0.9).",
            f"Cosine {min(cosines):.2f} to {max(cosines):.2f} over layers and trainings.",
        )
    for name, resource in (("multiply-adds", "arithmetic"), ("bytes kept", "memory")):
        costs = {r["penalty"]: r["value"] for r in select(record, quantity=name)}
        yield Line(
            costs[figures.QUICK] < costs[figures.EXACT],
            f"The quotient costs less {resource} than double back-propagation.",
            f"{costs[figures.QUICK]:.1f} times that of a step without penalty, against {costs[figures.EXACT]:.1f}.",
            of_networks=False,
        )


# ---- the other figures -------------------------------------------------------------------------------------------


def window_headline(record: dict) -> str:
    """The count of networks where the quotient is a proxy at SR's h."""
    inside, total = _inside(record)
    note = one_network(select(record, quantity="window from"))
    return f"At SR's h the quotient is a proxy of ‖∇f‖₁ in {inside} of {total} networks{note}"


def _inside(record: dict) -> tuple[int, int]:
    """The count of networks where SR's h lies within the window, and the count of all."""
    used, networks = record["arrays"]["used_h"], figures.windows(record)
    return sum(w.low is not None and w.low <= used <= w.high for w in networks), len(networks)


def schemes_headline(record: dict) -> str:
    """The least error of any scheme, on the smoothed and on the spiking networks of the training that is drawn."""
    training = trainings(record)[0]
    rows = known(select(record, quantity="relative error", precision="float64", training=training))
    regimes = (where(rows, regime=regime) for regime in (SMOOTH, TRUE))
    smooth, spiking = (min(rows, key=lambda r: r["value"], default=None) for rows in regimes)
    if not smooth or not spiking:
        return "No gradient, no error"
    return (
        f"The quotient's error falls to {smooth['value']:.1g} on the smoothed network, on the spiking one only to "
        f"{spiking['value']:.1g}{one_network(rows)}"
    )


def curvature_headline(record: dict) -> str:
    """The range of the error over the curvature term at SR's h."""
    slopes = _slopes(record)
    if not slopes:
        return "No curvature was measured"
    note = one_network(select(record, quantity="error over prediction"))
    ends = f"{min(slopes):.2f} to {max(slopes):.2f}"
    return f"At SR's h the error on smoothed networks is {ends} times the curvature term{note}"


def _slopes(record: dict) -> list[float]:
    """Error over prediction at SR's h: a number for each training, scheme and precision."""
    return [r["value"] for r in known(select(record, quantity="error over prediction", h=record["arrays"]["used_h"]))]


def curvature_table(record: dict) -> list[DataFrame]:
    """A line for each network: its accuracy in the two regimes."""
    return [pivot(select(record, quantity="accuracy"), network, lambda r: f"accuracy, {r['regime']}", percent)]


def weights_headline(record: dict) -> str:
    """The least cosine between the penalty's gradients by finite difference and exactly."""
    least = [f"{min(cosines):.2f} on {kind} networks" for kind, cosines in _cosines(record).items()]
    note = one_network(select(record, quantity="cosine"))
    least = listed(least) if least else "undefined"
    return f"The least cosine of the penalty's gradient, finite difference and exact: {least}{note}"


def _cosines(record: dict) -> dict[str, list[float]]:
    """The cosines that are defined, of the smoothed and of the spiking networks."""
    kinds = {SMOOTH: "smoothed", TRUE: "spiking"}
    rows = {kind: known(select(record, quantity="cosine", regime=regime)) for regime, kind in kinds.items()}
    return {kind: [r["value"] for r in rows[kind]] for kind in rows if rows[kind]}


def weights_table(record: dict) -> list[DataFrame]:
    """A line for each regime, training and layer; then the cost of the penalty by the two ways."""

    def head(row: dict) -> dict:
        return {"network": row["regime"], "training": title(row["training"]), "layer": row["layer"]}

    layers, costs = ([r for r in record["rows"] if label in r] for label in ("layer", "penalty"))
    by_way = pivot(costs, lambda r: {"penalty by": r["penalty"]}, quantity, number)
    return [pivot(layers, head, quantity, number), by_way]


PARTS = {
    "window": Part(window_headline, IMAGES, figures.window),
    "schemes": Part(schemes_headline, SCHEMES, figures.schemes),
    "curvature": Part(curvature_headline, CURVATURE, figures.curvature, curvature_table),
    "weights": Part(weights_headline, WEIGHTS, figures.weights, weights_table),
}
