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
KEPT = 0.95  # C2 about networks is judged by whether at least this share of samples keeps to the bound

REGIMES = SMOOTH, TRUE = ("surrogate-smooth", "true forward")  # of the forward pass, as records name them
ALL_WIDTHS = "all widths together"  # how records name PGD by rules of every width, one after another
RANDOM_FLIPS = "random_flips"  # how records name the law by which events are changed at random
WORST = "worst of all"  # how records name everything that a notebook attacks with, together
BASELINES = {"sr": "vanilla", "at+sr": "at"}  # what SR is added to
TITLES = {
    "vanilla": "vanilla",
    "sr": "SR",
    "at": "AT",
    "at+sr": "AT+SR",
    "rat": "RAT",
    "trades": "TRADES",
    "trades+sr": "TRADES+SR",
    "l2": "exact l2",
    "loss-l1": "loss l1",
    "exact-l1": "exact l1",
}


class Claim(NamedTuple):
    """A line of the ledger: one claim or a part of it, decided by one artifact."""

    id: str
    statement: str
    artifact: str
    judge: Callable[[dict], tuple[str, str]]  # record → verdict and its reason


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
    if record is None:
        return Verdict(claim, NOT_MEASURED, f"{claim.artifact} has no record in this profile.")
    return Verdict(claim, *claim.judge(record))


def title(training: str) -> str:
    """A training's name in tables and figures; one that the paper does not have keeps its own."""
    return TITLES.get(training, training)


def select(record: dict, **labels) -> list[dict]:
    """The rows that carry all of `labels`."""
    return [row for row in record["rows"] if all(row.get(key) == value for key, value in labels.items())]


UNITS = {"eps_255": "/255", "eps_counts": " counts", "flips": " changed events"}  # of a row's radius, by its label


def size(row: dict) -> dict:
    """The label that holds a row's radius, with its value: what rows of the same radius share."""
    return {name: row[name] for name in UNITS if name in row}


def radius(row: dict) -> str:
    """A row's radius with its unit: "32/255", "0.5 counts", "20 changed events"."""
    (name,) = size(row)
    return f"{row[name]:g}{UNITS[name]}"


def percent(row: dict) -> str:
    """A share with its interval: "47.1 % [44.0, 50.2]"; † where a sanity check speaks against it."""
    return "undefined" if row["value"] is None else f"{100 * row['value']:.1f} %" + _bounds(row) + _doubted(row)


def points(row: dict) -> str:
    """A difference of shares in percentage points, signed, with its interval."""
    if row["value"] is None:
        return "undefined"
    return f"{100 * row['value']:+z.1f} points" + _bounds(row, "+z") + _doubted(row)  # z: no minus before nothing


def _doubted(row: dict) -> str:
    return " †" if row.get("doubts") else ""


def _bounds(row: dict, sign: str = "") -> str:
    return "" if row["low"] is None else f" [{100 * row['low']:{sign}.1f}, {100 * row['high']:{sign}.1f}]"


def _decide(rows: list[dict], direction: int = 1) -> str:
    """All intervals clear of 0 in `direction`: supported; one clear the other way: not supported."""
    sides = [clear(row) * direction for row in rows]
    if -1 in sides:
        return NOT_SUPPORTED
    return SUPPORTED if sides and 0 not in sides else INCONCLUSIVE


def clear(row: dict) -> int:
    """On which side of 0 the whole interval lies, 1 or -1; 0 where it holds 0 or tells nothing."""
    if row["low"] is None or row["low"] == row["high"] or row["low"] <= 0 <= row["high"]:
        return 0  # an interval without width says that seeds happen to agree, not that the mean is known
    return 1 if row["low"] > 0 else -1


# ---- the judges --------------------------------------------------------------------------------------------------


def _random_against_adversarial(law: str, attack: str = "PGD", **of: str) -> Callable[[dict], tuple[str, str]]:
    """By noise of that `law` against the attack whose name starts so; `of` are labels, where a record has others."""

    def judge(record: dict) -> tuple[str, str]:
        means = select(record, quantity="mean accuracy", **of)
        if not means:
            return NOT_MEASURED, "No network of this training was asked for."
        (clean,) = (r["value"] for r in means if r["attack"] == "clean")
        attacked = [r for r in means if r["attack"].startswith(attack)]
        costly = [size(r) for r in attacked if round(clean - r["value"], 9) >= COST]
        gaps = select(record, quantity="mean gap", noise=law, factor=NOISE_FACTOR, **of)
        rows = [row for row in gaps if size(row) in costly]
        if not costly:
            return INCONCLUSIVE, f"No radius costs {100 * COST:g} points or more."
        if not rows:
            return NOT_MEASURED, f"No noise was {NOISE_FACTOR} times larger than an attack that costs anything."
        told = ", ".join(f"{points(row)} at {radius(row)}" for row in rows)
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


def _networks_within(record: dict) -> tuple[str, str]:
    """Per network and radius: is the share's interval clear of `KEPT`, above or below?"""
    rows = [r for r in select(record, quantity="at most 3‖g‖₀", regime=TRUE) if r["low"] is not None]
    if not rows:
        return INCONCLUSIVE, "No sample has a ratio with the true forward pass."
    verdict = _decide([row | {end: row[end] - KEPT for end in ("low", "high")} for row in rows])
    told = []
    for eps in dict.fromkeys(row["eps_255"] for row in rows):
        at = [row for row in rows if row["eps_255"] == eps]
        tighter = [
            r for r in select(record, quantity="at most 3·PN", regime=TRUE, eps_255=eps) if r["value"] is not None
        ]
        told.append(f"{_range(at)} ({_range(tighter)}) at {eps:g}/255")
    return verdict, (
        f"Share of images at most at the bound, from the lowest to the highest of {len(at)} networks, in brackets at "
        f"most at the tighter 3·PN: {', '.join(told)}. The mark is {100 * KEPT:g} %."
    )


def _range(rows: list[dict]) -> str:
    shares = [100 * row["value"] for row in rows]
    return f"{min(shares):.0f} to {max(shares):.0f} %"


def _robust_difference(training: str, unit: str = "eps_255") -> Callable[[dict], tuple[str, str]]:
    """By the worst case of all attacks whose radius has that unit."""

    def judge(record: dict) -> tuple[str, str]:
        rows = select(record, quantity="difference", training=training, against=BASELINES[training])
        strongest = [row for row in rows if row["attack"] == WORST and unit in row]
        if not strongest:
            return NOT_MEASURED, f"No network of {title(training)} met one of {title(BASELINES[training])}."
        (clean,) = (row for row in rows if row["attack"] == "clean")
        told = ", ".join(f"{points(row)} at {radius(row)}" for row in strongest)
        return _decide(strongest), f"Under the worst case of all attacks: {told}; clean accuracy: {points(clean)}."

    return judge


def _sparsity_matters(record: dict) -> tuple[str, str]:
    by_name = {r["sparsity"]: r for r in select(record, quantity="rank correlation")}
    number, l1 = by_name["participation number"], by_name["l1"]
    verdict = _decide([number], direction=-1)
    told = f"Rank correlation with accuracy under {number['attack']} at {radius(number)} over "
    told += f"{number['n']} networks: participation number {plain(number)}, l1 {plain(l1)}."
    if verdict != SUPPORTED and clear(l1) < 0:
        told += " Only the second holds: it is magnitude and not sparsity that goes with robustness here."
    return verdict, told + " A correlation over networks of four trainings; it does not say what causes what."


def plain(row: dict) -> str:
    """A number with its interval, two digits after the point."""
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
    Claim(
        "C2, the networks",
        "With the true forward pass, too, the ratio stays below 3‖g‖₀.",
        "thm-ratio",
        _networks_within,
    ),
    Claim("C3, alone", "SR is more robust than vanilla training.", "fig-attack-ladder", _robust_difference("sr")),
    Claim("C3, with AT", "AT+SR is more robust than AT.", "fig-attack-ladder", _robust_difference("at+sr")),
    *(
        Claim(
            f"C4, {name}",
            f"On event data, too, {statement}.",
            "fig-random-vs-adversarial-events",
            _random_against_adversarial(law, attack, training="vanilla"),
        )
        for name, law, attack, statement in (
            (
                "uniform noise",
                "uniform",
                "PGD",
                f"uniform noise {NOISE_FACTOR} times larger costs less than the attack",
            ),
            ("random signs", "sign", "PGD", f"random signs {NOISE_FACTOR} times larger cost less than the attack"),
            (
                "random flips",
                RANDOM_FLIPS,
                "sparse",
                f"{NOISE_FACTOR} times as many events changed at random cost less",
            ),
        )
    ),
    *(
        Claim(
            f"C4, {title(training)}, {by}",
            f"On event data, too, {title(training)} is more robust than {title(BASELINES[training])}, {against}.",
            "tab-events",
            _robust_difference(training, unit),
        )
        for training in BASELINES
        for by, unit, against in (
            ("counts", "eps_counts", "each count attacked within ε"),
            ("flips", "flips", "whole events added and removed"),
        )
    ),
    Claim(
        "C5",
        "The sparser a network's gradient (the smaller its participation number), the more robust it is.",
        "fig-gradient-maps",
        _sparsity_matters,
    ),
)
