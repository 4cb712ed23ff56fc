"""The ratio theorem: headlines, and what holds of it."""

from collections.abc import Iterable

from paperlib.claims import KEPT, LEDGER, SMOOTH, SUPPORTED, TRUE, judged, plain, select, title
from paperlib.findings.core import Line

ABOVE = ("above 3‖g‖₀", "only the attack moved")


def box(record: dict) -> Iterable[Line]:
    """What holds of the theorem, line by line."""
    (statement,) = (claim for claim in LEDGER if claim.artifact == "thm-ratio" and claim.id.endswith("statement"))
    _, verdict, reason = judged(statement, record)
    yield Line(verdict == SUPPORTED, "To first order the ratio lies between 3 and 3‖g‖₀.", reason)
    covered, of = _covered(record)
    yield Line(
        covered == of,
        "Monte Carlo agrees with the closed form; the 3 is the uniform law's.",
        f"{covered} of {of} cases.",
    )
    for regime, forward in ((SMOOTH, "of the smoothed network"), (TRUE, "of the spiking network")):
        for outcomes, limit in ((ABOVE, "upper bound 3‖g‖₀"), (("below 3",), "lower bound 3")):
            broken: dict[float, dict[str, float]] = {}  # by radius and training
            for row in (r for name in outcomes for r in select(record, quantity=name, regime=regime)):
                at = broken.setdefault(row["eps_255"], {})
                at[row["training"]] = at.get(row["training"], 0) + (row["value"] or 0)
            most = {eps: max(shares.values()) for eps, shares in broken.items()}
            told = ", ".join(f"{100 * share:.0f} % at {eps:g}/255" for eps, share in most.items())
            kept = all(share <= 1 - KEPT for share in most.values())
            yield Line(
                kept, f"The ratio {forward} keeps to the {limit}.", f"Images beyond, in the worst training: {told}."
            )
    first = [r for r in select(record, quantity="ρ_rand over first order", regime=TRUE) if r["value"]]
    if first:
        far, near = max(first, key=lambda r: r["value"]), min(first, key=lambda r: abs(r["value"] - 1))
        yield Line(
            far["value"] <= 2 and min(r["value"] for r in first) >= 0.5,
            "First order predicts ρ_rand of the spiking network within a factor of 2.",
            f"Measured over predicted: up to {far['value']:.3g} ({title(far['training'])}, {far['eps_255']:g}/255), "
            f"at best {near['value']:.3g} ({title(near['training'])}, {near['eps_255']:g}/255).",
        )
    for over, where in (("samples", "within a network"), ("networks", "from network to network")):
        by_name = {r["sparsity"]: r for r in _pgd_correlations(record) if r["over"] == over}
        number, size = by_name["participation number"], by_name["l1"]
        clear = None if number["high"] is None or number["low"] <= 0 <= number["high"] else number["high"] < 0
        numbers = f"Rank correlation with {number['target']}: participation number {plain(number)}, l1 {plain(size)}."
        yield Line(clear, f"Sparser gradients go with more robustness {where}.", numbers)
    moved = _scaled(record, "ratio")
    yield Line(
        max(moved) < 2 * min(moved) if moved else None,
        "The ratio does not depend on the logits' scale.",
        f"Median {min(moved):.3g} to {max(moved):.3g} over the scales, with the same decisions."
        if moved
        else "Undefined.",
    )


def regimes(record: dict) -> str:
    """At which radii the bounds are kept, and where most images lie above the upper one."""
    shares = [r for r in select(record, quantity="above 3‖g‖₀", regime=TRUE) if r["value"] is not None]
    if not shares:
        return "No ratio was measured with the true forward pass"
    most = max(shares, key=lambda r: r["value"])
    kept = [eps for eps in dict.fromkeys(r["eps_255"] for r in shares) if _all_within(record, eps)]
    where = f"at ε = {', '.join(f'{eps:g}' for eps in kept)}/255" if kept else "at no ε"
    beyond = f"{100 * most['value']:.0f} % of {title(most['training'])}'s, at {most['eps_255']:g}/255"
    return (
        f"With the true forward pass every training keeps to both bounds {where}; "
        f"the largest share of images above the upper one: {beyond}"
    )


def _all_within(record: dict, eps_255: float) -> bool:
    rows = select(record, quantity="inside", regime=TRUE, eps_255=eps_255)
    return all(r["value"] is not None and r["value"] >= KEPT for r in rows)


def exact(record: dict) -> str:
    """How many of the cases with a closed form agree, and how many logistic ones break a bound."""
    covered, of = _covered(record)
    logistic, outside = select(record, quantity="3‖g‖₀"), 0
    for upper in logistic:
        (row,) = select(record, quantity="measured", case=upper["case"])
        outside += row["high"] < 3 or row["low"] > upper["value"]
    return (
        f"Monte Carlo agrees with the closed form in {covered} of {of} linear cases; "
        f"{outside} of {len(logistic)} logistic ones lie outside the bounds"
    )


def _covered(record: dict) -> tuple[int, int]:
    """How many of the linear cases have the closed form within their interval, rounding allowed for."""
    known, covered = select(record, quantity="closed form"), 0
    for closed in known:
        (row,) = select(record, quantity="measured", case=closed["case"], law=closed["law"])
        covered += row["low"] * (1 - 1e-9) <= closed["value"] <= row["high"] * (1 + 1e-9)
    return covered, len(known)


def vulnerabilities(record: dict) -> str:
    """SR's two vulnerabilities over those of vanilla training, at the largest radius."""

    def of(training: str, quantity: str) -> float | None:
        rows = select(record, quantity=quantity, regime=TRUE, training=training)
        return rows[-1]["value"]

    rand, adv = (of("sr", q) and of("vanilla", q) and of("sr", q) / of("vanilla", q) for q in ("ρ_rand", "ρ_adv"))
    if not rand or not adv:
        return "Both vulnerabilities, which the ratio alone does not show"
    radius = select(record, quantity="ρ_adv", regime=TRUE)[-1]["eps_255"]
    return (
        f"At ε = {radius:g}/255 SR's median ρ_adv is {adv:.2g} times that of vanilla training, "
        f"its ρ_rand {rand:.2g} times: the ratio alone would not tell"
    )


def first_order(record: dict) -> str:
    """How far noise is from first order at its worst, and whether confidence goes with the ratio."""
    rows = [r for r in select(record, quantity="ρ_rand over first order", regime=TRUE) if r["value"]]
    if not rows:
        return "No noise moved any output"
    most = max(rows, key=lambda r: r["value"])
    return (
        f"A spiking network is rough: at {most['eps_255']:g}/255 ρ_rand is {_times(most['value'])} times what first "
        f"order says ({title(most['training'])}){_confident(record)}"
    )


def _confident(record: dict) -> str:
    rows = select(record, quantity="ratio against confidence", regime=TRUE)
    known = [r for r in rows if r["eps_255"] == rows[-1]["eps_255"] and r["value"] is not None]
    if not known:
        return ""
    low, high = (end(r["value"] for r in known) for end in (min, max))
    return f"; at {known[0]['eps_255']:g}/255 the ratio's rank correlation with confidence is {low:.2f} to {high:.2f}"


def worst(record: dict) -> str:
    """How far a search got beyond either bound."""
    rows = [r for r in select(record, quantity="ratio over bound") if r["value"]]
    upper = max((r["value"] for r in rows if r["bound"] == "upper"), default=None)
    lower = min((r["value"] for r in rows if r["bound"] == "lower"), default=None)
    told = [] if upper is None else [f"a ratio {_times(upper)} times the upper bound"]
    told += [] if lower is None else [f"one {lower:.2g} times the lower"]
    return f"The worst that a search found: {', '.join(told) or 'nothing'}"


def _times(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def sparsity(record: dict) -> str:
    """Which measure goes best with surviving the attack."""

    def best(over: str) -> str:
        known = [r for r in _pgd_correlations(record) if r["over"] == over and r["value"] is not None]
        most = max(known, key=lambda r: abs(r["value"]), default=None)
        return f"{most['sparsity']} (r = {most['value']:.2f})" if most else "nothing"

    return (
        f"What goes best with robustness: {best('networks')} from network to network, "
        f"{best('samples')} from image to image"
    )


def _pgd_correlations(record: dict) -> list[dict]:
    return [r for r in select(record, quantity="rank correlation") if not r["target"].startswith("ratio")]


def scale(record: dict) -> str:
    """What moves and what stays when the logits are scaled."""
    moved, number = _scaled(record, "ratio"), _scaled(record, "participation number")
    if not moved or not number:
        return "Logits times c: the same decisions, and no ratio"
    return (
        f"Logits times c, the same decisions: the measured ratio spans {min(moved):.2g} to {max(moved):.2g}, "
        f"the participation number {min(number):.0f} to {max(number):.0f}"
    )


def _scaled(record: dict, quantity: str) -> list[float]:
    return [r["value"] for r in select(record, quantity="scaled", what=quantity) if r["value"]]
