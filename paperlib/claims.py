"""The paper's claims and what the records say of each, by rules that were fixed before the numbers.

A claim is `supported` where the 95 % interval is clear of 0 in the claimed direction at every radius it speaks of,
`not supported` where it is clear in the other direction at one of them, and inconclusive otherwise.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

SUPPORTED, NOT_SUPPORTED = "supported", "not supported"
INCONCLUSIVE, NOT_MEASURED = "inconclusive at this scale", "not measured"

COST = 0.05  # C1 is judged at radii where the attack costs at least this much accuracy
NOISE_FACTOR = 4  # and noise this many times larger

TITLES = {"vanilla": "vanilla", "sr": "SR", "at": "AT", "at+sr": "AT+SR"}


class Claim(NamedTuple):
    """A line of the ledger: one claim or a part of it, decided by one artifact."""

    id: str
    statement: str
    artifact: str
    judge: (
        Callable[[dict], tuple[str, str]] | None
    )  # record → verdict and its reason; None: no artifact measures it yet


class Verdict(NamedTuple):
    """What a run says of a claim."""

    claim: Claim
    verdict: str
    reason: str


def verdicts(records: Mapping[str, dict]) -> list[Verdict]:
    """One verdict per line of the ledger; `records` maps artifacts to their records, missing ones are not measured."""
    return [judged(claim, records.get(claim.artifact)) for claim in LEDGER]


def judged(claim: Claim, record: dict | None) -> Verdict:
    """The verdict of one record, or that there is none."""
    if claim.judge is None:
        return Verdict(claim, NOT_MEASURED, "No notebook measures this yet.")
    if record is None:
        return Verdict(claim, NOT_MEASURED, f"{claim.artifact} has no record in this profile.")
    return Verdict(claim, *claim.judge(record))


def finding(record: dict) -> str:
    """Markdown: the artifact's finding in a sentence, what was run, and the verdicts it decides."""
    lines = [f"**{headline(record)}** ({caption(record)})"]
    for claim in LEDGER:
        if claim.artifact == record["artifact"] and claim.judge:
            _, verdict, reason = judged(claim, record)
            lines.append(f"* {claim.id}: {claim.statement} **{verdict.capitalize()}.** {reason}")
    return "\n\n".join([lines[0], "\n".join(lines[1:])]) if lines[1:] else lines[0]


def headline(record: dict) -> str:
    """What a figure's title says: the finding with its numbers."""
    return HEADLINES[record["artifact"]](record)


def caption(record: dict) -> str:
    """Data, sample sizes, seeds, what the interval is, profile."""
    provenance, rows = record["provenance"], record["rows"]
    n = provenance["parameters"].get("samples")
    split = "validation" if record["artifact"] == "fig-lambda" else "test"
    seeds = len({seed for row in rows for seed in row["seeds"]})
    return (
        f"{provenance['data']['title']}, {n} {split} images, {seeds} seed{'s' * (seeds != 1)}, "
        f"95 % intervals, profile {provenance['profile']}"
    )


def title(training: str) -> str:
    """A training's name in tables and figures; one that the paper does not have keeps its own."""
    return TITLES.get(training, training)


def select(record: dict, **labels) -> list[dict]:
    """The rows that carry all of `labels`."""
    return [row for row in record["rows"] if all(row.get(key) == value for key, value in labels.items())]


def percent(row: dict) -> str:
    """A share with its interval: "47.1 % [44.0, 50.2]"."""
    return "undefined" if row["value"] is None else f"{100 * row['value']:.1f} %" + _bounds(row)


def points(row: dict) -> str:
    """A difference of shares in percentage points, signed, with its interval."""
    return "undefined" if row["value"] is None else f"{100 * row['value']:+.1f} points" + _bounds(row, "+")


def _bounds(row: dict, sign: str = "") -> str:
    return "" if row["low"] is None else f" [{100 * row['low']:{sign}.1f}, {100 * row['high']:{sign}.1f}]"


def _decide(rows: list[dict], direction: int = 1) -> str:
    """All intervals clear of 0 in `direction`: supported; one clear the other way: not supported."""
    clear = [_clear(row) * direction for row in rows]
    if -1 in clear:
        return NOT_SUPPORTED
    return SUPPORTED if clear and 0 not in clear else INCONCLUSIVE


def _clear(row: dict) -> int:
    if row["low"] is None or row["low"] == row["high"] or row["low"] <= 0 <= row["high"]:
        return 0  # an interval without width says that seeds happen to agree, not that the mean is known
    return 1 if row["low"] > 0 else -1


# ---- the judges --------------------------------------------------------------------------------------------------


def _costly_radii(record: dict) -> list[float]:
    clean = select(record, quantity="mean accuracy", attack="clean")[0]["value"]
    attacked = [r for r in select(record, quantity="mean accuracy") if r["attack"].startswith("PGD")]
    return [r["eps_255"] for r in attacked if round(clean - r["value"], 9) >= COST]


def _random_against_adversarial(law: str) -> Callable[[dict], tuple[str, str]]:
    def judge(record: dict) -> tuple[str, str]:
        radii = _costly_radii(record)
        gaps = select(record, quantity="mean gap", noise=law, factor=NOISE_FACTOR)
        rows = [row for row in gaps if row["eps_255"] in radii]
        if not radii:
            return INCONCLUSIVE, f"No radius costs {100 * COST:g} points or more."
        if not rows:
            return NOT_MEASURED, f"No noise was {NOISE_FACTOR} times larger than an attack that costs anything."
        told = ", ".join(f"{points(row)} at {row['eps_255']:g}/255" for row in rows)
        return _decide(rows), f"Accuracy under the noise minus accuracy under the attack: {told}."

    return judge


def _within_bounds(record: dict) -> tuple[str, str]:
    rows, zero = select(record, quantity="within both bounds"), select(record, quantity="zero gradient")
    inside, total = sum(round((r["value"] or 0) * r["n"]) for r in rows), sum(r["n"] for r in rows)
    vanished = sum(round(r["value"] * r["n"]) for r in zero)
    verdict = INCONCLUSIVE if not total else SUPPORTED if inside == total else NOT_SUPPORTED
    return verdict, (
        f"{inside:,} of {total:,} gradients of {len(rows)} networks lie within both bounds; "
        f"{vanished:,} more are exactly 0 and have no ratio."
    )


def _robust_difference(training: str, against: str) -> Callable[[dict], tuple[str, str]]:
    def judge(record: dict) -> tuple[str, str]:
        rows = select(record, quantity="difference", training=training, against=against)
        attacked = [row for row in rows if row["attack"].startswith("PGD")]
        (clean,) = (row for row in rows if row["attack"] == "clean")
        told = ", ".join(f"{points(row)} at {row['eps_255']:g}/255" for row in attacked)
        return _decide(attacked), f"{attacked[0]['attack']}: {told}; clean accuracy: {points(clean)}."

    return judge


def _sparsity_matters(record: dict) -> tuple[str, str]:
    by_name = {r["sparsity"]: r for r in select(record, quantity="rank correlation")}
    number, size = by_name["participation number"], by_name["l1"]
    verdict = _decide([number], direction=-1)
    told = f"Rank correlation with accuracy under {number['attack']} at {number['eps_255']:g}/255 over "
    told += f"{number['n']} networks: participation number {_plain(number)}, l1 {_plain(size)}."
    if verdict != SUPPORTED and _clear(size) < 0:
        told += " Only the second holds: it is magnitude and not sparsity that goes with robustness here."
    return verdict, told + " A correlation over networks of four trainings; it does not say what causes what."


def _plain(row: dict) -> str:
    bounds = "" if row["low"] is None else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return "undefined" if row["value"] is None else f"{row['value']:.2f}{bounds}"


LEDGER = (
    Claim(
        "C1, uniform noise",
        f"Uniform noise {NOISE_FACTOR} times larger costs less accuracy than the attack.",
        "fig-random-vs-adversarial",
        _random_against_adversarial("uniform"),
    ),
    Claim(
        "C1, random signs",
        f"Random signs {NOISE_FACTOR} times larger cost less accuracy than the attack.",
        "fig-random-vs-adversarial",
        _random_against_adversarial("sign"),
    ),
    Claim(
        "C2, the statement",
        "In the linear regime every ratio lies between 3 and 3‖g‖₀.",
        "thm-ratio",
        _within_bounds,
    ),
    Claim("C2, the networks", "With the true forward pass, too, the ratio stays below 3‖g‖₀.", "thm-ratio-true", None),
    Claim("C3, alone", "SR is more robust than vanilla training.", "tab-ablation", _robust_difference("sr", "vanilla")),
    Claim("C3, with AT", "AT+SR is more robust than AT.", "tab-ablation", _robust_difference("at+sr", "at")),
    Claim("C4", "C1 and C3 hold on event data as well.", "tab-events", None),
    Claim(
        "C5",
        "The sparser a network's gradient (the smaller its participation number), the more robust it is.",
        "fig-gradient-maps",
        _sparsity_matters,
    ),
)


# ---- the headlines -----------------------------------------------------------------------------------------------


def _random_headline(record: dict) -> str:
    gaps = select(record, quantity="mean gap", noise="uniform", factor=NOISE_FACTOR)
    if not gaps:
        return "No noise of four times the attack's size was measured"
    widest = max(gaps, key=lambda row: row["value"])
    at = {"eps_255": widest["eps_255"]}
    (attacked,) = select(record, quantity="mean accuracy", attack=widest["attack"], **at)
    louder = round(widest["eps_255"] * NOISE_FACTOR, 6)
    (noise,) = select(record, quantity="mean accuracy", attack="uniform noise", eps_255=louder)
    return (
        f"{widest['attack']} at ε = {widest['eps_255']:g}/255 leaves {100 * attacked['value']:.0f} % accuracy, "
        f"uniform noise of 4ε leaves {100 * noise['value']:.0f} %"
    )


def _ablation_headline(record: dict) -> str:
    told = []
    for training, against in (("sr", "vanilla"), ("at+sr", "at")):
        rows = [r for r in select(record, quantity="difference", training=training) if r["attack"].startswith("PGD")]
        widest = max(rows, key=lambda row: abs(row["value"]))
        told.append(
            f"{title(training)} against {title(against)}: {100 * widest['value']:+.0f} points "
            f"at {widest['eps_255']:g}/255"
        )
    attack = rows[0]["attack"]
    return f"What SR changes under {attack}, where most: {'; '.join(told)}"


def _maps_headline(record: dict) -> str:
    def typical(training: str) -> str:
        rows = select(record, training=training, quantity="participation number")
        own = [r["value"] for r in rows if r.get("lam") == rows[0].get("lam")]  # the profile's λ stands first
        known = sorted(value for value in own if value is not None)
        return f"{known[len(known) // 2]:.0f}" if known else "undefined"

    told = [f"{title(training)} {typical(training)}" for training in record["arrays"]["maps"]]
    return f"Equal pixels that would share the gradient alike (participation number): {', '.join(told)}"


def _lambda_headline(record: dict) -> str:
    (chosen,), (used,) = select(record, quantity="chosen λ"), select(record, quantity="used λ")
    if used["value"] is None:
        return f"Of the λ that were trained here, validation data choose {chosen['value']:g}; SR's own is not known"
    agree = "as this companion uses" if chosen["value"] == used["value"] else f"while {used['value']:g} is in use"
    return f"Validation data choose λ = {chosen['value']:g}, {agree}"


def _ratio_headline(record: dict) -> str:
    medians, bounds = (
        [r["value"] for r in select(record, quantity=quantity) if r["value"] is not None]
        for quantity in ("linear ratio", "upper bound")
    )
    if not medians:
        return "Every gradient is exactly 0, so no ratio is defined"
    return (
        f"The linear ratio lies between its bounds: its median is {min(medians):.0f} to {max(medians):.0f} from "
        f"network to network, that of the upper bound 3‖g‖₀ is {min(bounds):.0f} to {max(bounds):.0f}"
    )


def _quotient_headline(record: dict) -> str:
    rows = select(record, quantity="rank correlation", training="vanilla") or select(
        record, quantity="rank correlation"
    )
    known = [row for row in rows if row["value"] is not None]
    if not known:
        return "The quotient follows ‖∇f‖₁ at no h: nothing varies from image to image"
    best = max(known, key=lambda row: row["value"])
    return f"The quotient follows ‖∇f‖₁ best at h = {best['h']:g}, with a rank correlation of {best['value']:.2f}"


HEADLINES: dict[str, Callable[[dict], str]] = {
    "fig-random-vs-adversarial": _random_headline,
    "tab-ablation": _ablation_headline,
    "fig-gradient-maps": _maps_headline,
    "fig-lambda": _lambda_headline,
    "thm-ratio": _ratio_headline,
    "prop-finite-difference": _quotient_headline,
}
