"""The paper's claims and the verdict of the records on each, by rules that were fixed before the numbers.

A claim is *supported* where the 95 % interval lies on the claimed side of 0 at every radius that the claim is about,
*not supported* where it lies on the other side at one of them, and *inconclusive* otherwise.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from paperlib import artifacts, labels, words
from paperlib.artifacts.reading import BASELINES, NOISE_FACTOR, clear, known, plain, points, select, under, where
from paperlib.artifacts.thm_ratio import KEPT, within_bounds

SUPPORTED, NOT_SUPPORTED = "supported", "not supported"
INCONCLUSIVE, NOT_MEASURED = "inconclusive at this scale", "not measured"
SIGNS = {SUPPORTED: "✓", NOT_SUPPORTED: "✗", INCONCLUSIVE: "?", NOT_MEASURED: "–"}
HOLDS = {True: "holds", False: "does not hold", None: "undecided"}  # in a box
COST = 0.05  # C1 is judged at radii where the attack costs at least so much accuracy
CAUTION = "An order of lower bounds is no order of robustness; it depends on the scale of the weights, too."
TIMES = f"{NOISE_FACTOR} times"
PAPER = {  # the claims in a sentence each; an entry of `LEDGER` belongs to the one with which its id begins
    "C1": "Spiking networks withstand random noise better than attacks, even when the noise is larger.",
    "C2": "The sparsity of the input gradient bounds the gap between the two.",
    "C3": "Training that regularises this sparsity (SR) makes networks more robust.",
    "C4": "Both hold on event data as well as on images.",
    "C5": "It is the sparsity of the gradient that goes with robustness.",
}


class Claim(NamedTuple):
    """A line of the ledger: a claim or a part of it, decided by one artifact."""

    id: str
    statement: str
    artifact: str
    judge: Callable[[dict], tuple[str, str]]  # record → verdict and reason


class Verdict(NamedTuple):
    """The verdict of a profile's records on a claim."""

    claim: Claim
    verdict: str
    reason: str


def verdicts(records: Mapping[str, dict]) -> list[Verdict]:
    """A verdict for each line of the ledger; `records` maps artifacts to records, and may lack some."""
    return [judged(claim, records.get(claim.artifact)) for claim in LEDGER]


def judged(claim: Claim, record: dict | None) -> Verdict:
    """The verdict of a record, or "not measured" where there is none."""
    if record is None:
        return Verdict(claim, NOT_MEASURED, f"{claim.artifact} has no record in this profile.")
    return Verdict(claim, *claim.judge(record))


def _decide(rows: list[dict], direction: int = 1) -> str:
    """Supported if all intervals lie on the side `direction` of 0, not supported if one lies on the other side."""
    sides = [clear(row) * direction for row in rows]
    if -1 in sides:
        return NOT_SUPPORTED
    return SUPPORTED if sides and 0 not in sides else INCONCLUSIVE


def finding(record: dict) -> str:
    """Markdown: headline and caption, the verdicts on the artifact's claims, the box of statements."""
    blocks = [f"**{artifacts.headline(record)}** ({artifacts.caption(record)})"]
    own = [judged(claim, record) for claim in LEDGER if claim.artifact == record["artifact"]]
    if own:
        lines = [f"* {claim.id}: {claim.statement} **{text.capitalize()}.** {reason}" for claim, text, reason in own]
        blocks.append("\n".join(lines))
    if box := getattr(artifacts.module(record["artifact"]), "box", None):
        lines = [f"| **{HOLDS[holds]}** | {statement} | {numbers} |" for holds, statement, numbers in box(record)]
        blocks.append("\n".join(["| | statement | measured |", "|---|---|---|", *lines]))
    return "\n\n".join(blocks)


# ---- the judges --------------------------------------------------------------------------------------------------


def _against_noise(law: str, attack: str = "pgd", **wanted: str) -> Callable[[dict], tuple[str, str]]:
    """A judge of noise of that law against that attack, by the rows that have the labels `wanted`."""

    def judge(record: dict) -> tuple[str, str]:
        means = select(record, quantity="mean accuracy", **wanted)
        if not means:
            return NOT_MEASURED, "No network of this training was asked for."
        (clean,) = (r["value"] for r in under(means, labels.CLEAN))
        costly = [words.size(r) for r in under(means, attack) if round(clean - r["value"], 9) >= COST]
        gaps = select(record, quantity="mean gap", noise=law, factor=NOISE_FACTOR, **wanted)
        rows = [row for row in gaps if words.size(row) in costly]
        if not costly:
            return INCONCLUSIVE, f"No radius costs {100 * COST:g} points or more."
        if not rows:
            return NOT_MEASURED, f"No noise was {NOISE_FACTOR} times larger than an attack that costs anything."
        numbers = ", ".join(f"{points(row)} at {words.radius(row)}" for row in rows)
        return _decide(rows), f"Accuracy under the noise minus accuracy under the attack: {numbers}."

    return judge


def _within_bounds(record: dict) -> tuple[str, str]:
    """By the count of gradients whose linear ratio lies within both bounds."""
    holds, reason = within_bounds(record)
    return {True: SUPPORTED, False: NOT_SUPPORTED, None: INCONCLUSIVE}[holds], reason


def _on_networks(record: dict) -> tuple[str, str]:
    """By the share of samples at most at the bound, of each network and radius: its interval against `KEPT`."""
    rows = [r for r in select(record, quantity="at most 3‖g‖₀", regime=labels.TRUE) if r["low"] is not None]
    if not rows:
        return INCONCLUSIVE, "No sample has a ratio with the true forward pass."
    verdict = _decide([row | {end: row[end] - KEPT for end in ("low", "high")} for row in rows])
    ranges = []
    for eps in dict.fromkeys(row["eps_255"] for row in rows):
        networks = where(rows, eps_255=eps)
        tighter = known(select(record, quantity="at most 3·PN", regime=labels.TRUE, eps_255=eps))
        ranges.append(f"{_range(networks)} ({_range(tighter)}) at {eps:g}/255")
    return verdict, (
        f"Share of images at most at the bound, from the lowest to the highest of {len(networks)} networks, in "
        f"brackets at most at the tighter 3·PN: {', '.join(ranges)}. The mark is {100 * KEPT:g} %."
    )


def _range(rows: list[dict]) -> str:
    shares = [100 * row["value"] for row in rows]
    return f"{min(shares):.0f} to {max(shares):.0f} %"


def _robust_difference(training: str, unit: str = "eps_255") -> Callable[[dict], tuple[str, str]]:
    """A judge of a training against its baseline, by the worst case of all attacks whose radius has that unit."""

    def judge(record: dict) -> tuple[str, str]:
        rows = select(record, quantity="difference", training=training, against=BASELINES[training])
        strongest = [row for row in under(rows, labels.WORST) if unit in row]
        if not strongest:
            pair = f"{words.title(training)} and {words.title(BASELINES[training])}"
            return NOT_MEASURED, f"{pair} were not compared."
        (clean,) = under(rows, labels.CLEAN)
        numbers = ", ".join(f"{points(row)} at {words.radius(row)}" for row in strongest)
        return _decide(strongest), f"Under the worst case of all attacks: {numbers}; clean accuracy: {points(clean)}."

    return judge


def _certified_difference(training: str) -> Callable[[dict], tuple[str, str]]:
    """A judge of a training against its baseline by what is proved, at radii where either has `COST` or more of it."""

    def judge(record: dict) -> tuple[str, str]:
        rows = select(record, quantity="certified difference", training=training, against=BASELINES[training])
        if not rows:
            pair = f"{words.title(training)} and {words.title(BASELINES[training])}"
            return NOT_MEASURED, f"{pair} were not compared."
        shares = [
            row
            for name in (training, BASELINES[training])
            for row in select(record, quantity="mean certified accuracy", training=name)
        ]
        some = [words.size(row) for row in shares if row["value"] >= COST]
        rows = [row for row in rows if words.size(row) in some]
        if not rows:
            return INCONCLUSIVE, f"At no radius are {100 * COST:g} % of the images certified."
        numbers = ", ".join(f"{points(row)} at {words.radius(row)}" for row in rows)
        return _decide(rows), f"Certified accuracy: {numbers}. {CAUTION}"

    return judge


def _sparsity_matters(record: dict) -> tuple[str, str]:
    """By the rank correlation of the participation number with accuracy under attack, over networks."""
    by_name = {r["sparsity"]: r for r in select(record, quantity="rank correlation")}
    number, l1 = by_name["participation number"], by_name["l1"]
    verdict = _decide([number], direction=-1)
    reason = f"Rank correlation with accuracy under {words.attack(number)} at {words.radius(number)} over "
    reason += f"{number['n']} networks: participation number {plain(number)}, l1 {plain(l1)}."
    if verdict != SUPPORTED and clear(l1) < 0:
        reason += " Only the second holds: it is magnitude and not sparsity that goes with robustness here."
    return verdict, reason + " A correlation over networks of four trainings; it does not say what causes what."


EVENT_NOISE = (  # name, what C4 says of it, law of the noise, attack
    ("uniform noise", f"uniform noise {TIMES} larger costs less than the attack", "uniform", "pgd"),
    ("random signs", f"random signs {TIMES} larger cost less than the attack", "sign", "pgd"),
    ("random flips", f"{TIMES} as many events changed at random cost less", labels.RANDOM_FLIPS, "sparse_flips"),
)
LEDGER = (
    *(
        Claim(f"C1, {name}", f"{text} less accuracy than the attack.", "fig-random-vs-adversarial", _against_noise(law))
        for name, text, law in (
            ("uniform noise", f"Uniform noise {TIMES} larger costs", "uniform"),
            ("random signs", f"Random signs {TIMES} larger cost", "sign"),
        )
    ),
    Claim(
        "C2, the statement", "In the linear regime every ratio lies between 3 and 3‖g‖₀.", "thm-ratio", _within_bounds
    ),
    Claim(
        "C2, the networks", "With the true forward pass, too, the ratio stays below 3‖g‖₀.", "thm-ratio", _on_networks
    ),
    Claim("C3, alone", "SR is more robust than vanilla training.", "fig-attack-ladder", _robust_difference("sr")),
    Claim("C3, with AT", "AT+SR is more robust than AT.", "fig-attack-ladder", _robust_difference("at+sr")),
    *(
        Claim(
            f"C3, certified, {kind}",
            f"{name} can be proved robust on more images than {other}.",
            "fig-certified",
            _certified_difference(training),
        )
        for kind, training, name, other in (
            ("alone", "sr", "SR", "vanilla training"),
            ("with AT", "at+sr", "AT+SR", "AT"),
        )
    ),
    *(
        Claim(
            f"C4, {name}",
            f"On event data, too, {text}.",
            "fig-random-vs-adversarial-events",
            _against_noise(law, attack, training="vanilla"),
        )
        for name, text, law, attack in EVENT_NOISE
    ),
    *(
        Claim(
            f"C4, {name}, {by}",
            f"On event data, too, {name} is more robust than {other}, {against}.",
            "tab-events",
            _robust_difference(training, unit),
        )
        for training, name, other in (("sr", "SR", "vanilla"), ("at+sr", "AT+SR", "AT"))
        for by, unit, against in (
            ("counts", "eps_counts", "each count attacked within ε"),
            ("flips", "flips", "whole events added and removed"),
            ("in time", "moves", "events moved to other times"),
        )
    ),
    Claim(
        "C5",
        "The sparser a network's gradient (the smaller its participation number), the more robust it is.",
        "fig-gradient-maps",
        _sparsity_matters,
    ),
)
