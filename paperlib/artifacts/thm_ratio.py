"""The ratio theorem: the bounds 3 and 3‖g‖₀ of ρ_adv/ρ_rand, in three regimes and in cases worked out by hand."""

from collections import defaultdict
from collections.abc import Iterable
from functools import partial

from matplotlib.figure import Figure
from pandas import DataFrame

from paperlib import words
from paperlib.artifacts import thm_ratio_figures as figures
from paperlib.artifacts.reading import Line, Part, captioned, clear, known, percent, plain, select, where
from paperlib.artifacts.tabulating import network, number, pivot, quantity, training
from paperlib.labels import SMOOTH, TRUE
from paperlib.words import title

KEPT = 0.95  # a bound counts as kept where it holds for at least so many samples; C2 about networks is judged by it
ABOVE = ("above 3‖g‖₀", "only the attack moved")  # outcomes of samples beyond the upper bound
BELOW = ("below 3",)  # and beyond the lower one

# captions
EXACT = "Functions worked out by hand, {exact_draws} draws each"
THREE = "{data}, {true_samples} test images ({smooth_samples} in the smooth regime), {seeds}"
WORST = "{data}, the worst of {true_samples} test images, {seeds}"
SPARSITY = "{data}, {samples} test images, {true_samples} for the ratio, {seeds}"
SCALE = "{data}, {true_samples} test images, the first seed of vanilla training"


def headline(record: dict) -> str:
    """The radii at which the bounds are kept, and the largest share of images above the upper one."""
    shares = known(select(record, quantity="above 3‖g‖₀", regime=TRUE))
    if not shares:
        return "No ratio was measured with the true forward pass"
    most = max(shares, key=lambda r: r["value"])
    kept = [eps for eps in dict.fromkeys(r["eps_255"] for r in shares) if _all_within(record, eps)]
    where = f"at ε = {', '.join(f'{eps:g}' for eps in kept)}/255" if kept else "at no ε"
    beyond = f"{100 * most['value']:.0f} % of {title(most['training'])}'s, at {words.radius(most)}"
    return (
        f"With the true forward pass every training keeps to both bounds {where}; "
        f"the largest share of images above the upper one: {beyond}"
    )


def caption(record: dict) -> str:
    """Data, images of each regime and seeds."""
    return captioned(record, THREE + ", linear ratio: {samples} images")


def figure(record: dict) -> Figure:
    """The ratio against ε in three regimes, and the shares of images within and beyond the bounds."""
    return figures.regimes(record)


def table(record: dict) -> list[DataFrame]:
    """The linear ratios; then for each regime, training and radius the ratio and the shares of images by outcome."""
    shares = "within both bounds", "zero gradient"
    linear = [r for r in record["rows"] if r["quantity"] in ("linear ratio", "upper bound", *shares)]
    columns = ("ratio", "inside", "above 3‖g‖₀", "below 3", "only the attack moved", "nothing moved")
    return [
        pivot(linear, network, quantity, lambda r: percent(r) if r["quantity"] in shares else number(r)),
        _by_regime(record, columns, numbers=("ratio",)),
    ]


def box(record: dict) -> Iterable[Line]:
    """The statements of the theorem: linear regime, closed form, bounds, first order, sparsity, scale of the logits."""
    holds, reason = within_bounds(record)
    yield Line(holds, "To first order the ratio lies between 3 and 3‖g‖₀.", reason)
    covered, total = _covered(record)
    statement = "Monte Carlo agrees with the closed form; the 3 is the uniform law's."
    yield Line(covered == total, statement, f"{covered} of {total} cases.")
    yield from _bounds_kept(record)
    yield from _first_order_holds(record)
    yield from _sparser_is_more_robust(record)
    yield _scale_does_not_matter(record)


def within_bounds(record: dict) -> tuple[bool | None, str]:
    """Whether all gradients lie within both bounds (None where there is no gradient), and a sentence of the counts."""
    rows, zero = select(record, quantity="within both bounds"), select(record, quantity="zero gradient")
    inside, total = sum(round((r["value"] or 0) * r["n"]) for r in rows), sum(r["n"] for r in rows)
    vanished = sum(round(r["value"] * r["n"]) for r in zero)
    return inside == total if total else None, (
        f"{inside:,} of {total:,} gradients of {len(rows)} networks lie within both bounds; "
        f"{vanished:,} more are exactly 0 and have no ratio."
    )


def _all_within(record: dict, eps_255: float) -> bool:
    """Whether every training keeps to both bounds at a radius."""
    rows = select(record, quantity="inside", regime=TRUE, eps_255=eps_255)
    return all(r["value"] is not None and r["value"] >= KEPT for r in rows)


def _bounds_kept(record: dict) -> Iterable[Line]:
    """A line for each regime and bound."""
    for regime, kind in ((SMOOTH, "smoothed"), (TRUE, "spiking")):
        for outcomes, bound in ((ABOVE, "upper bound 3‖g‖₀"), (BELOW, "lower bound 3")):
            shares = _largest_shares(select(record, regime=regime), outcomes)
            numbers = ", ".join(f"{100 * share:.0f} % at {eps:g}/255" for eps, share in shares.items())
            yield Line(
                all(share <= 1 - KEPT for share in shares.values()),
                f"The ratio of the {kind} network keeps to the {bound}.",
                f"Images beyond, in the worst training: {numbers}.",
            )


def _largest_shares(rows: list[dict], outcomes: tuple[str, ...]) -> dict[float, float]:
    """For each radius, of all trainings the largest share of images with one of these outcomes."""
    shares: dict[float, dict[str, float]] = defaultdict(lambda: defaultdict(float))  # radius → training → share
    for row in rows:
        if row["quantity"] in outcomes:
            shares[row["eps_255"]][row["training"]] += row["value"] or 0
    return {eps: max(by_training.values()) for eps, by_training in shares.items()}


def _first_order_holds(record: dict) -> Iterable[Line]:
    """One line; none where no noise moved an output."""
    rows = _noise_over_first_order(record)
    if rows:
        far, near = max(rows, key=lambda r: r["value"]), min(rows, key=lambda r: abs(r["value"] - 1))
        yield Line(
            far["value"] <= 2 and min(r["value"] for r in rows) >= 0.5,
            "First order predicts ρ_rand of the spiking network within a factor of 2.",
            f"Measured over predicted: up to {far['value']:.3g} ({title(far['training'])}, {words.radius(far)}), "
            f"at best {near['value']:.3g} ({title(near['training'])}, {words.radius(near)}).",
        )


def _sparser_is_more_robust(record: dict) -> Iterable[Line]:
    """A line for the correlation across samples, and one for that across networks."""
    for across, scope in (("samples", "within a network"), ("networks", "from network to network")):
        by_name = {r["sparsity"]: r for r in _survival_correlations(record, across)}
        participation, l1 = by_name["participation number"], by_name["l1"]
        numbers = f"participation number {plain(participation)}, l1 {plain(l1)}"
        yield Line(
            {-1: True, 0: None, 1: False}[clear(participation)],
            f"Sparser gradients go with more robustness {scope}.",
            f"Rank correlation with {figures.target(participation)}: {numbers}.",
        )


def _scale_does_not_matter(record: dict) -> Line:
    medians, statement = _scaled(record, "ratio"), "The ratio does not depend on the logits' scale."
    if not medians:
        return Line(None, statement, "Undefined.")
    low, high = min(medians), max(medians)
    numbers = f"Median {low:.3g} to {high:.3g} over the scales, with the same decisions."
    return Line(high < 2 * low, statement, numbers)


def _by_regime(record: dict, quantities: tuple[str, ...], numbers: tuple[str, ...]) -> DataFrame:
    """A line for each regime, training and radius; `quantities` are the columns, shares except for `numbers`."""

    def head(row: dict) -> dict:
        return {"regime": row["regime"], "training": title(row["training"]), "ε": words.radius(row)}

    rows = [r for r in record["rows"] if r["quantity"] in quantities and "regime" in r]
    lines = pivot(rows, head, quantity, lambda r: number(r) if r["quantity"] in numbers else percent(r))
    return lines.reindex(columns=["regime", "training", "ε", *quantities])


# ---- the other figures -------------------------------------------------------------------------------------------


def exact_headline(record: dict) -> str:
    """The counts of linear cases that agree with the closed form, and of logistic ones outside the bounds."""
    covered, total = _covered(record)
    bounds, outside = select(record, quantity="3‖g‖₀"), 0
    for upper in bounds:
        measured = _measured(record, upper)
        outside += measured["high"] < 3 or measured["low"] > upper["value"]
    return (
        f"Monte Carlo agrees with the closed form in {covered} of {total} linear cases; "
        f"{outside} of {len(bounds)} logistic ones lie outside the bounds"
    )


def _covered(record: dict) -> tuple[int, int]:
    """The count of linear cases with the closed form within their interval, up to rounding, and the count of all."""
    rows, covered = select(record, quantity="closed form"), 0
    for closed in rows:
        measured = _measured(record, closed)
        covered += measured["low"] * (1 - 1e-9) <= closed["value"] <= measured["high"] * (1 + 1e-9)
    return covered, len(rows)


def _measured(record: dict, row: dict) -> dict:
    """The ratio by Monte Carlo in the case of `row`."""
    case = {name: row.get(name) for name in ("f", "case", "eps", "law")}
    (measured,) = select(record, quantity="measured", **case)
    return measured


def exact_table(record: dict) -> list[DataFrame]:
    """A line for each function and law of the noise."""

    def head(row: dict) -> dict:
        name = f"{row['f']}, {row['case']}, ε = {row['eps']:.2g}" if "eps" in row else row["case"]
        return {"f": name, "noise": row["law"]}

    return [pivot([r for r in record["rows"] if "case" in r], head, quantity, number).fillna("")]


def vulnerabilities_headline(record: dict) -> str:
    """SR's two vulnerabilities in units of those of vanilla training, at the largest radius."""

    def last(name: str, symbol: str) -> dict:
        return select(record, quantity=symbol, regime=TRUE, training=name)[-1]

    symbols = "ρ_adv", "ρ_rand"
    values = {(name, symbol): last(name, symbol)["value"] for name in ("sr", "vanilla") for symbol in symbols}
    if not all(values.values()):
        return "Both vulnerabilities, which the ratio alone does not show"
    adv, rand = (values["sr", symbol] / values["vanilla", symbol] for symbol in symbols)
    return (
        f"At ε = {words.radius(last('sr', 'ρ_adv'))} SR's median ρ_adv is {adv:.2g} times that of vanilla training, "
        f"its ρ_rand {rand:.2g} times: the ratio alone would not tell"
    )


def vulnerabilities_table(record: dict) -> list[DataFrame]:
    """For each regime, training and radius both vulnerabilities, as they are and over first order."""
    numbers = "ρ_rand", "ρ_adv", "ρ_rand over first order", "ρ_adv over first order"
    return [_by_regime(record, (*numbers, "draws that moved f_y"), numbers)]


def first_order_headline(record: dict) -> str:
    """The largest ρ_rand over first order, and the correlation of the ratio with confidence."""
    rows = _noise_over_first_order(record)
    if not rows:
        return "No noise moved any output"
    most = max(rows, key=lambda r: r["value"])
    return (
        f"A spiking network is rough: at {words.radius(most)} ρ_rand is {_times(most['value'])} times what first "
        f"order says ({title(most['training'])}){_confidence(record)}"
    )


def _noise_over_first_order(record: dict) -> list[dict]:
    return [r for r in select(record, quantity="ρ_rand over first order", regime=TRUE) if r["value"]]


def _confidence(record: dict) -> str:
    rows = select(record, quantity="ratio against confidence", regime=TRUE)
    rows = known(where(rows, eps_255=rows[-1]["eps_255"]))
    if not rows:
        return ""
    low, high = (end(r["value"] for r in rows) for end in (min, max))
    return f"; at {words.radius(rows[0])} the ratio's rank correlation with confidence is {low:.2f} to {high:.2f}"


def worst_headline(record: dict) -> str:
    """The largest violation of each bound that a search found."""
    rows = [r for r in select(record, quantity="ratio over bound") if r["value"]]
    upper = max((r["value"] for r in rows if r["bound"] == "upper"), default=None)
    lower = min((r["value"] for r in rows if r["bound"] == "lower"), default=None)
    phrases = [] if upper is None else [f"a ratio {_times(upper)} times the upper bound"]
    phrases += [] if lower is None else [f"one {lower:.2g} times the lower"]
    return f"The worst that a search found: {', '.join(phrases) or 'nothing'}"


def _times(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def sparsity_headline(record: dict) -> str:
    """The measure whose rank correlation with surviving the attack is largest."""

    def best(across: str) -> str:
        rows = known(_survival_correlations(record, across))
        most = max(rows, key=lambda r: abs(r["value"]), default=None)
        return f"{most['sparsity']} (r = {most['value']:.2f})" if most else "nothing"

    return (
        f"What goes best with robustness: {best('networks')} from network to network, "
        f"{best('samples')} from image to image"
    )


def _survival_correlations(record: dict, across: str) -> list[dict]:
    return select(record, quantity="rank correlation", target="survival", across=across)


def sparsity_table(record: dict) -> list[DataFrame]:
    """The sparsities of each training, then their correlations with what was measured."""

    def head(row: dict) -> dict:
        return {"rank correlation of": row["sparsity"], "over": row["across"]}

    sizes, correlations = select(record, quantity="sparsity"), select(record, quantity="rank correlation")
    return [
        pivot(sizes, lambda r: {"median": r["sparsity"]}, training, number),
        pivot(correlations, head, figures.target, plain),
    ]


def scale_headline(record: dict) -> str:
    """The range of the ratio and of the participation number when the logits are scaled."""
    ratios, participation = _scaled(record, "ratio"), _scaled(record, "participation number")
    if not ratios or not participation:
        return "Logits times c: the same decisions, and no ratio"
    return (
        f"Logits times c, the same decisions: the measured ratio spans {min(ratios):.2g} to {max(ratios):.2g}, "
        f"the participation number {min(participation):.0f} to {max(participation):.0f}"
    )


def _scaled(record: dict, what: str) -> list[float]:
    return [r["value"] for r in select(record, quantity="scaled", what=what) if r["value"]]


def scale_table(record: dict) -> list[DataFrame]:
    """A line for each quantity, a column for each factor of the logits."""

    def cell(row: dict) -> str:
        return percent(row) if row["what"] in figures.SHARES else number(row)

    rows = select(record, quantity="scaled")
    return [pivot(rows, lambda r: {"median": r["what"]}, lambda r: f"c = {r['scale']:g}", cell)]


PARTS = {
    "exact": Part(exact_headline, partial(captioned, template=EXACT), figures.exact, exact_table),
    "vulnerabilities": Part(
        vulnerabilities_headline,
        partial(captioned, template=THREE),
        figures.vulnerabilities,
        vulnerabilities_table,
    ),
    "first-order": Part(first_order_headline, partial(captioned, template=THREE), figures.first_order),
    "worst": Part(worst_headline, partial(captioned, template=WORST), figures.worst),
    "sparsity": Part(sparsity_headline, partial(captioned, template=SPARSITY), figures.sparsity, sparsity_table),
    "scale": Part(scale_headline, partial(captioned, template=SCALE), figures.scale, scale_table),
}
