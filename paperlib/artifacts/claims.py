"""The paper's claims and the verdict of the records on each, by written rules.

The rules were fixed before the numbers, but for one: which radii decide "C3, certified" was settled when a first record
of three seeds was known.

A claim is *supported* where the 95 % interval lies on the claimed side of 0 at every radius that the claim is about,
*not supported* where it lies on the other side at one of them, and *inconclusive* otherwise.  Where an interval rests
on one network of each training there is no verdict but the mark *one network*.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from paperlib import artifacts, labels, words
from paperlib.artifacts.fig_gradient_maps import MAGNITUDE, SPARSITY, correlation, told
from paperlib.artifacts.reading import (
    BASELINES,
    NOISE_FACTOR,
    all_above,
    clear,
    known,
    listed,
    of_one_network,
    one_network,
    plain,
    points,
    select,
    under,
    where,
)
from paperlib.artifacts.thm_ratio import within_bounds
from paperlib.labels import KEPT

SUPPORTED, NOT_SUPPORTED = "supported", "not supported"
INCONCLUSIVE, ONE_NETWORK, NOT_MEASURED = "inconclusive at this scale", "one network", "not measured"
SIGNS = {SUPPORTED: "✓", NOT_SUPPORTED: "✗", INCONCLUSIVE: "?", ONE_NETWORK: "①", NOT_MEASURED: "–"}
HOLDS = {True: "holds", False: "does not hold", None: "undecided"}  # in a box
LEVEL = 0.05  # the chance of an error that a verdict is allowed: one of its own, or with Holm's method all together
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
    judge: Callable[[dict], tuple]  # record → verdict and reason; then, where it has them, p-value and main number


class Verdict(NamedTuple):
    """The verdict of a profile's records on a claim."""

    claim: Claim
    verdict: str
    reason: str
    p: float | None = None  # see `p_value`; None: the claim has no p-value
    main: str = ""  # the number at the middle radius, for a table; empty where `reason` is short enough
    holm: float | None = None  # the same adjusted for all claims of the profile that have one

    @property
    def adjusted(self) -> str | None:
        """The verdict after Holm's adjustment; None where there is no adjusted p-value."""
        if self.holm is None:
            return None
        stands = self.holm < LEVEL or self.verdict not in (SUPPORTED, NOT_SUPPORTED)
        return self.verdict if stands else INCONCLUSIVE


def verdicts(records: Mapping[str, dict]) -> list[Verdict]:
    """A verdict for each line of the ledger; `records` maps artifacts to records, and may lack some."""
    found = [judged(claim, records.get(claim.artifact)) for claim in LEDGER]
    adjusted = iter(holm([verdict.p for verdict in found if verdict.p is not None]))
    return [verdict if verdict.p is None else verdict._replace(holm=next(adjusted)) for verdict in found]


def judged(claim: Claim, record: dict | None) -> Verdict:
    """The verdict of a record, or "not measured" where there is none; alone, so without Holm's adjustment."""
    if record is None:
        return Verdict(claim, NOT_MEASURED, f"{claim.artifact} has no record in this profile.")
    return Verdict(claim, *claim.judge(record))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979, Scand. J. Stat. 6:65), in the order of `p`.

    Of m, the smallest is multiplied by m, the next by m - 1 and so on; none is below the one before it or above 1.
    """
    adjusted, least = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        least = max(least, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = least
    return adjusted


def multiplicity(found: Sequence[Verdict]) -> str:
    """What 95 % for each of so many verdicts means, what Holm's adjustment does, and which verdicts have none."""
    family = [verdict for verdict in found if verdict.p is not None]
    unjudged = ONE_NETWORK, NOT_MEASURED
    outside = [verdict.claim.id for verdict in found if verdict.p is None and verdict.verdict not in unjudged]
    without = f"These have no p-value and stand outside: {'; '.join(outside)}." if outside else ""
    if not family:
        return "No verdict has a p-value, so none is adjusted."
    turned = [verdict.claim.id for verdict in family if verdict.adjusted != verdict.verdict]
    text = (
        f"An interval of 95 % misses the truth in {100 * LEVEL:g} % of all runs. Were nothing there, then of "
        f"{len(family)} verdicts that rest on one interval each {LEVEL * len(family):.1f} would be supported or not "
        f"supported by chance, on average; a claim that needs several intervals is supported less often so, and "
        f"more often not supported. Holm's method makes the p-values larger, until the chance of even one such error "
        f"among all {len(family)} is at most {100 * LEVEL:g} %; a verdict stands where its p-value is then below "
        f"{LEVEL:g}. "
    )
    text += f"It takes back: {'; '.join(turned)}. " if turned else "Here it takes back no verdict. "
    return (text + without).strip()


def p_value(rows: Sequence[dict], direction: int = 1) -> float | None:
    """The two-sided p-value of a claim that needs all `rows` on the side `direction` of 0; None where a row has none.

    It is the largest of its rows' (the intersection-union test).  A claim is not supported already where one row lies
    on the other side: it is then the smallest p-value of such rows times the number of rows (Bonferroni).
    """
    if not rows or any(row.get("p") is None or of_one_network(row) for row in rows):
        return None
    against = [row["p"] for row in rows if clear(row) == -direction]
    return min(1.0, len(rows) * min(against)) if against else max(row["p"] for row in rows)


def _decide(rows: list[dict], direction: int = 1) -> str:
    """Supported if all intervals lie on the side `direction` of 0, not supported if one lies on the other side."""
    sides = [clear(row) * direction for row in rows]
    if -1 in sides:
        return NOT_SUPPORTED
    if any(map(of_one_network, rows)):
        return ONE_NETWORK
    return SUPPORTED if sides and 0 not in sides else INCONCLUSIVE


def finding(record: dict) -> str:
    """Markdown: headline and caption, the verdicts on the artifact's claims, the box of statements."""
    blocks = [f"**{artifacts.headline(record)}** ({artifacts.caption(record)})"]
    if own := [judged(claim, record) for claim in LEDGER if claim.artifact == record["artifact"]]:
        lines = [f"* {v.claim.id}: {v.claim.statement} **{v.verdict.capitalize()}.** {v.reason}" for v in own]
        blocks.append("\n".join(lines))
    if hasattr(artifacts.module(record["artifact"]), "box"):
        lines = [f"| **{word}** | {statement} | {numbers} |" for word, statement, numbers in statements(record)]
        blocks.append("\n".join(["| | statement | measured |", "|---|---|---|", *lines]))
    return "\n\n".join(blocks)


def statements(record: dict) -> Iterable[tuple[str, str, str]]:
    """The box of an artifact, line by line: a word of `HOLDS`, the statement, its numbers; nothing without a box.

    Where the record has one network of each training, a line about networks has the word `ONE_NETWORK` instead.
    """
    single = bool(one_network(record["rows"]))
    for line in getattr(artifacts.module(record["artifact"]), "box", lambda record: ())(record):
        word = ONE_NETWORK if single and line.of_networks else HOLDS[line.holds]
        yield word, line.statement, line.numbers


# ---- the judges --------------------------------------------------------------------------------------------------


def _against_noise(law: str, attack: str = "pgd", **wanted: str) -> Callable[[dict], tuple]:
    """A judge of noise of that law against that attack, by the rows that have the labels `wanted`."""

    def judge(record: dict) -> tuple:
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
        reason = f"Accuracy under the noise minus accuracy under the attack: {numbers}."
        at_same_radii = [
            row for row in select(record, quantity="mean gap", noise=law, **wanted) if words.size(row) in costly
        ]
        return _decide(rows), f"{reason} {_turn(at_same_radii)}".strip(), p_value(rows), _main(rows)

    return judge


def _main(rows: list[dict]) -> str:
    """The difference at the middle radius, of an even number the lower one."""
    (middle,) = _middle(rows, 1)
    return f"{points(middle)} at {words.radius(middle)}"


def _middle(rows: list[dict], count: int) -> list[dict]:
    """The `count` rows in the middle, or all if there are fewer; the lower ones where there are two middles."""
    first = max(len(rows) - count, 0) // 2
    return rows[first : first + count]


def _turn(gaps: list[dict]) -> str:
    """At which multiples of the attack's size the noise is clearly the milder at every radius, and where that ends."""
    if any(map(of_one_network, gaps)):
        return ""
    factors = sorted({row["factor"] for row in gaps})
    end = next((k for k in factors if not all_above(where(gaps, factor=k))), None)
    milder = [f"{k:g}" for k in factors if end is None or k < end]
    if not milder:
        return f"Already at {end:g} times the attack's size the noise is not clearly the milder at each of these radii."
    text = f"At each of these radii the noise is clearly the milder at {listed(milder)} times the attack's size"
    return f"{text}, no longer at {end:g} times." if end else f"{text}, the largest that was measured."


def _within_bounds(record: dict) -> tuple[str, str]:
    """By the count of gradients whose linear ratio lies within both bounds."""
    holds, reason = within_bounds(record)
    return {True: SUPPORTED, False: NOT_SUPPORTED, None: INCONCLUSIVE}[holds], reason


def _on_networks(record: dict) -> tuple:
    """By the share of images at most at the bound, of each training and radius: its interval against `KEPT`."""
    of_true = select(record, regime=labels.TRUE)
    rows = [row for row in where(of_true, quantity="at most 3‖g‖₀") if row["low"] is not None]
    if not rows:
        return INCONCLUSIVE, "No sample has a ratio with the true forward pass."
    ranges = []
    for eps in dict.fromkeys(row["eps_255"] for row in rows):
        tighter = known(where(of_true, quantity="at most 3·PN", eps_255=eps))
        ranges.append(f"{_range(where(rows, eps_255=eps))} ({_range(tighter)}) at {eps:g}/255")
    reason = (
        f"Share of images at most at the bound, from the lowest to the highest training, in brackets at most at the "
        f"tighter 3·PN: {', '.join(ranges)}. The mark is {100 * KEPT:g} %."
    )
    if left_out := [row for row in known(where(of_true, quantity="undetermined")) if row["value"]]:
        most = max(left_out, key=lambda row: row["value"])
        reason += (
            f" Undetermined, because no draw of noise changed the output, and left out: up to "
            f"{100 * most['value']:.0f} % of the images ({words.title(most['training'])}, {words.radius(most)})."
        )
    above = [row | {end: row[end] - KEPT for end in ("low", "high")} for row in rows]
    return _decide(above), reason, p_value(above), ranges[(len(ranges) - 1) // 2]


def _range(rows: list[dict]) -> str:
    shares = [100 * row["value"] for row in rows]
    return f"{min(shares):.0f} to {max(shares):.0f} %"


def _robust_difference(training: str, unit: str = "eps_255") -> Callable[[dict], tuple]:
    """A judge of a training against its baseline, by the worst case of all attacks whose radius has that unit."""

    def judge(record: dict) -> tuple:
        rows = select(record, quantity="difference", training=training, against=BASELINES[training])
        strongest = sorted((row for row in under(rows, labels.WORST) if unit in row), key=lambda row: row[unit])
        if not strongest:
            pair = f"{words.title(training)} and {words.title(BASELINES[training])}"
            return NOT_MEASURED, f"{pair} were not compared."
        (clean,) = under(rows, labels.CLEAN)
        numbers = ", ".join(f"{points(row)} at {words.radius(row)}" for row in strongest)
        reason = f"Under the worst case of all attacks: {numbers}; clean accuracy: {points(clean)}."
        return _decide(strongest), reason, p_value(strongest), _main(strongest)

    return judge


def _certified_difference(training: str) -> Callable[[dict], tuple]:
    """A judge of a training against its baseline by what is proved, at the middle three of the radii."""

    def judge(record: dict) -> tuple:
        rows = select(record, quantity="certified difference", training=training, against=BASELINES[training])
        if not rows:
            pair = f"{words.title(training)} and {words.title(BASELINES[training])}"
            return NOT_MEASURED, f"{pair} were not compared."
        rows = _middle(sorted(rows, key=lambda row: row["eps_255"]), 3)
        numbers = ", ".join(f"{points(row)} at {words.radius(row)}" for row in rows)
        return _decide(rows), f"Certified accuracy: {numbers}. {CAUTION}", p_value(rows), _main(rows)

    return judge


def _sparsity_matters(record: dict) -> tuple[str, str, float | None, str]:
    """By the participation number's rank correlation with robustness: across networks, within trainings, given l1.

    Supported if all three are below 0, not supported if one is above 0, else inconclusive; the intervention stands
    beside.
    """
    number = {
        "across networks": correlation(record, SPARSITY, labels.NETWORKS),
        "within trainings": correlation(record, SPARSITY, labels.WITHIN_TRAININGS),
        "at a given l1": correlation(record, SPARSITY, labels.NETWORKS, given=True),
    }
    l1 = {
        "across networks": correlation(record, MAGNITUDE, labels.NETWORKS),
        "within trainings": correlation(record, MAGNITUDE, labels.WITHIN_TRAININGS),
        "at a given participation number": correlation(record, MAGNITUDE, labels.NETWORKS, given=True),
    }
    verdict = _decide([*number.values()], direction=-1)
    first = number["across networks"]
    reason = f"Rank correlation with accuracy under {words.attack(first)} at {words.radius(first)} over {first['n']} "
    reason += f"networks: of the participation number {_each(number)}; of l1 {_each(l1)}."
    for side, text in ((0, "Undecided"), (1, "Against the claim")):
        names = [name for name, row in number.items() if clear(row) == side]
        reason += f" {text}: {listed(names)}." if names else ""
    if verdict != SUPPORTED and all(clear(row) < 0 for row in l1.values()):
        reason += " All three hold for l1: it is magnitude and not sparsity that goes with robustness here."
    intervention = told(record)
    reason += f" An experiment at equal magnitude: {intervention}." if intervention else ""
    return verdict, reason, p_value([*number.values()], direction=-1), f"{plain(first)} across networks"


def _each(rows: dict[str, dict]) -> str:
    return ", ".join(f"{plain(row)} {name}" for name, row in rows.items())


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
