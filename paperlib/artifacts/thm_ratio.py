"""The ratio theorem: the bounds 3 and 3‖g‖₀ of ρ_adv/ρ_rand, in three regimes and in cases worked out by hand."""

import math
from collections import defaultdict
from collections.abc import Iterable

from pandas import DataFrame

from paperlib.artifacts import thm_ratio_figures as figures
from paperlib.artifacts.reading import Line, Part, clear, known, listed, one_network, percent, plain, select
from paperlib.artifacts.tabulating import network, number, pivot, quantity, training
from paperlib.labels import KEPT, SMOOTH, TRUE
from paperlib.words import radius, title

ABOVE = ("above 3‖g‖₀",)  # outcomes of samples beyond the upper bound
BELOW = ("below 3",)  # and beyond the lower one

# captions
THREE = "{data}, {true_samples} test images ({smooth_samples} in the smooth regime), {seeds}"
EXACT = "Functions worked out by hand, {exact_draws} draws each"
WORST = "{data}, the worst of {true_samples} test images, {seeds}"
SPARSITY = "{data}, {samples} test images, {true_samples} for the ratio, {seeds}"
SCALE = "{data}, {true_samples} test images, the first seed of vanilla training"

caption = THREE
figure = figures.regimes


def headline(record: dict) -> str:
    """The largest share of images above the upper bound."""
    shares = known(select(record, quantity="above 3‖g‖₀", regime=TRUE))
    if not shares:
        return "No ratio was measured with the true forward pass"
    most, note = max(shares, key=lambda r: r["value"]), one_network(shares)
    if not most["value"]:
        return f"With the true forward pass no image exceeds the upper bound at any radius{note}"
    return (
        f"With the true forward pass {100 * most['value']:.0f} % of the images exceed the upper bound in "
        f"{title(most['training'])} networks at {radius(most)}{note}"
    )


def table(record: dict) -> list[DataFrame]:
    """The linear ratios; then for each regime, training and radius the ratio and the shares of images by outcome."""
    shares = "within both bounds", "zero gradient"
    linear = [r for r in record["rows"] if r["quantity"] in ("linear ratio", "upper bound", *shares)]
    return [
        pivot(linear, network, quantity, lambda r: percent(r) if r["quantity"] in shares else number(r)),
        _by_regime(record, ["ratio"], ["inside", "above 3‖g‖₀", "below 3", "undetermined", "nothing can change"]),
    ]


def _by_regime(record: dict, numbers: list[str], shares: list[str]) -> DataFrame:
    """A line for each regime, training and radius, a column for each quantity of `numbers` and `shares`."""
    lines = pivot(
        [r for r in record["rows"] if r["quantity"] in numbers + shares and "regime" in r],
        lambda r: {"regime": r["regime"], "training": title(r["training"]), "ε": radius(r)},
        quantity,
        lambda r: number(r) if r["quantity"] in numbers else percent(r),
    )
    return lines.reindex(columns=["regime", "training", "ε", *numbers, *shares])


def box(record: dict) -> Iterable[Line]:
    """The statements of the theorem: linear regime, closed form, bounds, first order, sparsity, scale of the logits."""
    holds, numbers = within_bounds(record)
    yield Line(holds, "To first order the ratio lies between 3 and 3‖g‖₀.", numbers, of_networks=False)
    covered, total = _covered(record)
    statement = "Monte Carlo agrees with the closed form; the 3 is the uniform law's."
    yield Line(covered == total, statement, f"{covered} of {total} cases.", of_networks=False)
    for regime, kind in ((SMOOTH, "smoothed"), (TRUE, "spiking")):
        for outcomes, bound in ((ABOVE, "upper bound 3‖g‖₀"), (BELOW, "lower bound 3")):
            shares = _largest_shares(select(record, regime=regime), outcomes)
            numbers = ", ".join(f"{100 * share:.0f} % at {eps:g}/255" for eps, share in shares.items())
            yield Line(
                all(share <= 1 - KEPT for share in shares.values()),
                f"The ratio of the {kind} network keeps to the {bound}.",
                f"Images beyond, in the worst training: {numbers}.",
            )
    if rows := _noise_over_first_order(record):
        far, near = max(rows, key=lambda r: r["value"]), min(rows, key=lambda r: abs(r["value"] - 1))
        yield Line(
            far["value"] <= 2 and min(r["value"] for r in rows) >= 0.5,
            "First order predicts ρ_rand of the spiking network within a factor of 2.",
            f"Measured over predicted: up to {far['value']:.3g} ({title(far['training'])}, {radius(far)}), "
            f"at best {near['value']:.3g} ({title(near['training'])}, {radius(near)}).",
        )
    for across, scope in (("samples", "within a network"), ("networks", "from network to network")):
        by_name = {r["sparsity"]: r for r in _survival_correlations(record, across)}
        participation = by_name["participation number"]
        numbers = f"participation number {plain(participation)}, l1 {plain(by_name['l1'])}"
        yield Line(
            {-1: True, 0: None, 1: False}[clear(participation)],
            f"Sparser gradients go with more robustness {scope}.",
            f"Rank correlation with {figures.target(participation)}: {numbers}.",
        )
    holds, numbers = None, "Undefined."
    if medians := _scaled(record, "ratio"):
        low, high = min(medians), max(medians)
        holds, numbers = high < 2 * low, f"Median {low:.3g} to {high:.3g} over the scales, with the same decisions."
    yield Line(holds, "The ratio does not depend on the logits' scale.", numbers)


def within_bounds(record: dict) -> tuple[bool | None, str]:
    """Whether all gradients lie within both bounds (None where there is no gradient), and a sentence of the counts."""
    rows, zero = select(record, quantity="within both bounds"), select(record, quantity="zero gradient")
    inside, total = sum(round((r["value"] or 0) * r["n"]) for r in rows), sum(r["n"] for r in rows)
    vanished = sum(round(r["value"] * r["n"]) for r in zero)
    return inside == total if total else None, (
        f"{inside:,} of {total:,} gradients of {len(rows)} networks lie within both bounds; "
        f"{vanished:,} more are exactly 0 and have no ratio."
    )


def _largest_shares(rows: list[dict], outcomes: tuple[str, ...]) -> dict[float, float]:
    """For each radius, of all trainings the largest share of images with one of these outcomes."""
    shares: dict[float, dict[str, float]] = defaultdict(lambda: defaultdict(float))  # radius → training → share
    for row in rows:
        if row["quantity"] in outcomes:
            shares[row["eps_255"]][row["training"]] += row["value"] or 0
    return {eps: max(by_training.values()) for eps, by_training in shares.items()}


# ---- the other figures -------------------------------------------------------------------------------------------


def outcomes_headline(record: dict) -> str:
    """The count of radii at which every training keeps to both bounds."""
    inside = select(record, quantity="inside", regime=TRUE)
    radii = {r["eps_255"] for r in inside}
    broken = {r["eps_255"] for r in inside if r["value"] is None or r["value"] < KEPT}
    return (
        f"Nearly all images of every training lie within both bounds at {len(radii - broken)} of {len(radii)} "
        f"radii{one_network(inside)}"
    )


def exact_headline(record: dict) -> str:
    """Whether linear cases agree with the closed form, and logistic ones lie outside the bounds."""
    covered, total = _covered(record)
    pairs = _measured(record, "3‖g‖₀")
    outside = sum(measured["high"] < 3 or measured["low"] > upper["value"] for upper, measured in pairs)
    linear = "every linear case" if covered == total else f"{covered} of {total} linear cases"
    logistic = "every logistic one leaves" if outside == len(pairs) else "not every logistic one leaves"
    return f"Monte Carlo agrees with the closed form in {linear}, and {logistic} the bounds"


def _covered(record: dict) -> tuple[int, int]:
    """The count of linear cases with the closed form within their interval, up to rounding, and the count of all."""
    pairs = _measured(record, "closed form")
    return sum(m["low"] * (1 - 1e-9) <= closed["value"] <= m["high"] * (1 + 1e-9) for closed, m in pairs), len(pairs)


def _measured(record: dict, name: str) -> list[tuple[dict, dict]]:
    """The rows of a quantity, each with the ratio by Monte Carlo in the same case."""
    case = "f", "case", "eps", "law"
    return [
        (row, *select(record, quantity="measured", **{label: row.get(label) for label in case}))
        for row in select(record, quantity=name)
    ]


def exact_table(record: dict) -> list[DataFrame]:
    """A line for each function and law of the noise."""

    def head(row: dict) -> dict:
        name = f"{row['f']}, {row['case']}, ε = {row['eps']:.2g}" if "eps" in row else row["case"]
        return {"f": name, "noise": row["law"]}

    return [pivot([r for r in record["rows"] if "case" in r], head, quantity, number).fillna("")]


def vulnerabilities_headline(record: dict) -> str:
    """SR's two vulnerabilities in units of those of vanilla training, at the largest radius."""
    symbols = "ρ_adv", "ρ_rand"
    last = {
        (name, symbol): select(record, quantity=symbol, regime=TRUE, training=name)[-1]
        for name in ("sr", "vanilla")
        for symbol in symbols
    }
    if not all(row["value"] for row in last.values()):
        return "Both vulnerabilities, which the ratio alone does not show"
    adv, rand = (last["sr", symbol]["value"] / last["vanilla", symbol]["value"] for symbol in symbols)
    return (
        f"At the largest ε SR's vulnerability to attacks is {adv:.2g} times vanilla's, to noise {rand:.2g} times"
        f"{one_network(last.values())}"
    )


def vulnerabilities_table(record: dict) -> list[DataFrame]:
    """For each regime, training and radius both vulnerabilities, as they are and over first order."""
    numbers = ["ρ_rand", "ρ_adv", "ρ_rand over first order", "ρ_adv over first order"]
    return [_by_regime(record, numbers, ["draws that moved f_y"])]


def first_order_headline(record: dict) -> str:
    """The largest ρ_rand over first order."""
    rows = _noise_over_first_order(record)
    if not rows:
        return "No noise moved any output"
    most = max(rows, key=lambda r: r["value"])
    return (
        f"Noise of {radius(most)} moves spiking {title(most['training'])} networks {_times(most['value'])} times as "
        f"much as first order says{one_network(rows)}"
    )


def _noise_over_first_order(record: dict) -> list[dict]:
    return [r for r in select(record, quantity="ρ_rand over first order", regime=TRUE) if r["value"]]


def worst_headline(record: dict) -> str:
    """The largest violation of each bound that a search found."""
    rows = [r for r in select(record, quantity="ratio over bound") if r["value"]]
    upper, lower = ([r["value"] for r in rows if r["bound"] == bound] for bound in ("upper", "lower"))
    phrases = [f"{_times(max(upper))} times the upper bound"] if upper else []
    phrases += [f"{min(lower):.2g} times the lower"] if lower else []
    if not phrases:
        return "No ratio was found to search for the worst"
    return f"The most extreme ratios found are {listed(phrases)} (one image of one network each)"


def _times(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def sparsity_headline(record: dict) -> str:
    """The measures whose rank correlation with surviving the attack is largest."""

    def best(across: str) -> str:
        rows = known(_survival_correlations(record, across))
        return max(rows, key=lambda r: abs(r["value"]))["sparsity"] if rows else "nothing"

    note = one_network(select(record, quantity="sparsity"))
    between, within = best("networks"), best("samples")
    return f"What goes best with robustness: between networks {between}, between images {within}{note}"


def _survival_correlations(record: dict, across: str) -> list[dict]:
    return select(record, quantity="rank correlation", target="survival", across=across)


def sparsity_table(record: dict) -> list[DataFrame]:
    """The sparsities of each training, then their correlations with what was measured."""

    def head(row: dict) -> dict:
        return {"rank correlation of": row["sparsity"], "over": row["across"]}

    sizes, correlations = (select(record, quantity=name) for name in ("sparsity", "rank correlation"))
    medians = pivot(sizes, lambda r: {"median": r["sparsity"]}, training, number)
    return [medians, pivot(correlations, head, figures.target, plain)]


def scale_headline(record: dict) -> str:
    """The range of the ratio when the logits are scaled."""
    ratios = _scaled(record, "ratio")
    if not ratios:
        return "Scaled logits give the same decisions, and no ratio (one network)"
    orders = math.log10(max(ratios) / min(ratios))
    change = f"by {orders:.0f} orders of magnitude" if orders >= 1 else f"by a factor of {10**orders:.2g}"
    return f"Scaled logits give the same decisions, while the measured ratio moves {change} (one network)"


def _scaled(record: dict, what: str) -> list[float]:
    return [r["value"] for r in select(record, quantity="scaled", what=what) if r["value"]]


def scale_table(record: dict) -> list[DataFrame]:
    """A line for each quantity, a column for each factor of the logits."""

    def cell(row: dict) -> str:
        return percent(row) if row["what"] in figures.SHARES else number(row)

    rows = select(record, quantity="scaled")
    return [pivot(rows, lambda r: {"median": r["what"]}, lambda r: f"c = {r['scale']:g}", cell)]


PARTS = {
    "outcomes": Part(outcomes_headline, THREE, figures.outcomes),
    "exact": Part(exact_headline, EXACT, figures.exact, exact_table),
    "vulnerabilities": Part(vulnerabilities_headline, THREE, figures.vulnerabilities, vulnerabilities_table),
    "first-order": Part(first_order_headline, THREE, figures.first_order),
    "worst": Part(worst_headline, WORST, figures.worst),
    "sparsity": Part(sparsity_headline, SPARSITY, figures.sparsity, sparsity_table),
    "scale": Part(scale_headline, SCALE, figures.scale, scale_table),
}
