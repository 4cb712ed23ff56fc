"""The paper's claims and what the records say of each, by rules that were fixed before the numbers.

A claim is `supported` where the 95 % interval is clear of 0 in the claimed direction at every radius it speaks of,
`not supported` where it is clear in the other direction at one of them, and inconclusive otherwise.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from paperlib import artifacts, labels, words
from paperlib.artifacts.reading import BASELINES, NOISE_FACTOR, clear, plain, points, select, under
from paperlib.artifacts.thm_ratio import KEPT, within_bounds

SUPPORTED, NOT_SUPPORTED = "supported", "not supported"
INCONCLUSIVE, NOT_MEASURED = "inconclusive at this scale", "not measured"

COST = 0.05  # C1 is judged at radii where the attack costs at least this much accuracy


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


def _decide(rows: list[dict], direction: int = 1) -> str:
    """All intervals clear of 0 in `direction`: supported; one clear the other way: not supported."""
    sides = [clear(row) * direction for row in rows]
    if -1 in sides:
        return NOT_SUPPORTED
    return SUPPORTED if sides and 0 not in sides else INCONCLUSIVE


HOLDS = {True: "holds", False: "does not hold", None: "undecided"}


def finding(record: dict) -> str:
    """Markdown: the finding in a sentence, what was run, the verdicts that it decides, what holds and what does not."""
    lines = []
    for claim in LEDGER:
        if claim.artifact == record["artifact"]:
            _, verdict, reason = judged(claim, record)
            lines.append(f"* {claim.id}: {claim.statement} **{verdict.capitalize()}.** {reason}")
    blocks = [f"**{artifacts.headline(record)}** ({artifacts.caption(record)})", "\n".join(lines), _box(record)]
    return "\n\n".join(block for block in blocks if block)


def _box(record: dict) -> str:
    """Markdown: what holds, what does not, at which scale; empty for an artifact that has no `box`."""
    found = artifacts.module(record["artifact"])
    if not hasattr(found, "box"):
        return ""
    lines = ["| | statement | measured |", "|---|---|---|"]
    lines += [f"| **{HOLDS[holds]}** | {statement} | {numbers} |" for holds, statement, numbers in found.box(record)]
    return "\n".join(lines)


# ---- the judges --------------------------------------------------------------------------------------------------


def _random_against_adversarial(law: str, attack: str = "pgd", **wanted: str) -> Callable[[dict], tuple[str, str]]:
    """By noise of that `law` against that attack; `wanted` are labels, where a record has others."""

    def judge(record: dict) -> tuple[str, str]:
        means = select(record, quantity="mean accuracy", **wanted)
        if not means:
            return NOT_MEASURED, "No network of this training was asked for."
        (clean,) = (r["value"] for r in under(means, labels.CLEAN))
        attacked = under(means, attack)
        costly = [words.size(r) for r in attacked if round(clean - r["value"], 9) >= COST]
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
    holds, reason = within_bounds(record)
    return {True: SUPPORTED, False: NOT_SUPPORTED, None: INCONCLUSIVE}[holds], reason


def _networks_within(record: dict) -> tuple[str, str]:
    """Per network and radius: is the share's interval clear of `KEPT`, above or below?"""
    rows = [r for r in select(record, quantity="at most 3‖g‖₀", regime=labels.TRUE) if r["low"] is not None]
    if not rows:
        return INCONCLUSIVE, "No sample has a ratio with the true forward pass."
    verdict = _decide([row | {end: row[end] - KEPT for end in ("low", "high")} for row in rows])
    found = []
    for eps in dict.fromkeys(row["eps_255"] for row in rows):
        at = [row for row in rows if row["eps_255"] == eps]
        tighter = select(record, quantity="at most 3·PN", regime=labels.TRUE, eps_255=eps)
        found.append(f"{_range(at)} ({_range([r for r in tighter if r['value'] is not None])}) at {eps:g}/255")
    return verdict, (
        f"Share of images at most at the bound, from the lowest to the highest of {len(at)} networks, in brackets at "
        f"most at the tighter 3·PN: {', '.join(found)}. The mark is {100 * KEPT:g} %."
    )


def _range(rows: list[dict]) -> str:
    shares = [100 * row["value"] for row in rows]
    return f"{min(shares):.0f} to {max(shares):.0f} %"


def _robust_difference(training: str, unit: str = "eps_255") -> Callable[[dict], tuple[str, str]]:
    """By the worst case of all attacks whose radius has that unit."""

    def judge(record: dict) -> tuple[str, str]:
        rows = select(record, quantity="difference", training=training, against=BASELINES[training])
        strongest = [row for row in under(rows, labels.WORST) if unit in row]
        if not strongest:
            names = words.title(training), words.title(BASELINES[training])
            return NOT_MEASURED, "No network of {} met one of {}.".format(*names)
        (clean,) = under(rows, labels.CLEAN)
        numbers = ", ".join(f"{points(row)} at {words.radius(row)}" for row in strongest)
        return _decide(strongest), f"Under the worst case of all attacks: {numbers}; clean accuracy: {points(clean)}."

    return judge


def _sparsity_matters(record: dict) -> tuple[str, str]:
    by_name = {r["sparsity"]: r for r in select(record, quantity="rank correlation")}
    number, l1 = by_name["participation number"], by_name["l1"]
    verdict = _decide([number], direction=-1)
    reason = f"Rank correlation with accuracy under {words.attack(number)} at {words.radius(number)} over "
    reason += f"{number['n']} networks: participation number {plain(number)}, l1 {plain(l1)}."
    if verdict != SUPPORTED and clear(l1) < 0:
        reason += " Only the second holds: it is magnitude and not sparsity that goes with robustness here."
    return verdict, reason + " A correlation over networks of four trainings; it does not say what causes what."


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
                "pgd",
                f"uniform noise {NOISE_FACTOR} times larger costs less than the attack",
            ),
            ("random signs", "sign", "pgd", f"random signs {NOISE_FACTOR} times larger cost less than the attack"),
            (
                "random flips",
                labels.RANDOM_FLIPS,
                "sparse_flips",
                f"{NOISE_FACTOR} times as many events changed at random cost less",
            ),
        )
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
        )
    ),
    Claim(
        "C5",
        "The sparser a network's gradient (the smaller its participation number), the more robust it is.",
        "fig-gradient-maps",
        _sparsity_matters,
    ),
)
