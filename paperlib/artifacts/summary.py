"""What was found, in all committed profiles together: README's first screen, and the report's page side by side."""

from collections.abc import Mapping
from contextlib import suppress

from paperlib import artifacts, errors, paths, records
from paperlib.artifacts import claims
from paperlib.artifacts.reading import listed

PROFILES = {  # the committed ones, and the data of each; one without records yet is "not measured"
    "laptop": "MNIST digits",
    "fashion": "Fashion-MNIST",
    "cifar": "CIFAR-10",
}
GAINS = {"C3, alone": "SR against vanilla training", "C3, with AT": "AT+SR against AT"}
WHY = {  # what may part our verdicts on a claim from the paper's; printed where one of them is not "supported"
    "C1": (
        "The abstract says that the random perturbations may be larger, and names neither their law nor how much "
        f"larger; here it is {claims.TIMES}. At equal radius random signs carry three times the energy of uniform "
        "noise, so one law may keep the claim where the other does not."
    ),
    "C2": (
        "The proof is to first order. Where a network is so confident that its output is flat around an image, and "
        "falls within the ball, the gradient at the image bounds nothing: a ratio above the bound there speaks against "
        "carrying the bound over to networks, and not against the proof."
    ),
    "C3": (
        "The released code trains larger networks for longer (VGG-11 and WRN-16, eight time steps, 200 epochs). Here "
        "the worst case of several attacks decides, which is never above the accuracy under one of them; and a "
        "difference may be smaller than these numbers of images and networks can show."
    ),
    "C4": (
        "The recordings here are simulated from still images, those of the released code (CIFAR10-DVS) are not; and a "
        "difference may be smaller than these numbers of recordings and networks can show."
    ),
    "C5": (
        "The participation number and the magnitude of the gradient move together from one training to the next, so a "
        "correlation over trainings cannot tell them apart; and no correlation says what causes what."
    ),
}


def found() -> str:
    """A Markdown table of verdicts by claim and profile, its legend, and a list of gains with their intervals."""
    kept = {profile: _records(profile) for profile in PROFILES}
    verdicts = {profile: claims.verdicts(found) for profile, found in kept.items()}
    titles = [f"{data} (`{profile}`)" for profile, data in PROFILES.items()]
    lines = [f"| the paper says | {' | '.join(titles)} |", "|---|" + "---|" * len(PROFILES)]
    for claim, text in claims.PAPER.items():
        cells = ["<br>".join(_sign(v) for v in found if v.claim.id.startswith(claim)) for found in verdicts.values()]
        lines.append(f"| **{claim}** {text} | {' | '.join(cells)} |")
    legend = ", ".join(f"{sign} {verdict}" for verdict, sign in claims.SIGNS.items())
    legend += "; in brackets, where it differs, what Holm's adjustment for so many verdicts leaves"
    gains = [
        f"* {GAINS[v.claim.id]} on {PROFILES[profile]}, {_networks(kept[profile][v.claim.artifact])}: "
        f"{v.reason[0].lower()}{v.reason[1:]}"
        for profile, found in verdicts.items()
        for v in found
        if v.claim.id in GAINS and v.claim.artifact in kept[profile]
    ]
    ablations = {profile: own["tab-ablation"] for profile, own in kept.items() if "tab-ablation" in own}
    gains += [f"* {artifacts.headline(record)} ({PROFILES[profile]})." for profile, record in ablations.items()][:1]
    return "\n".join([*lines, "", f"{legend}.", "", *gains, ""])


def side_by_side() -> str:
    """Markdown: verdict and main number of each statement by profile, then a paragraph on each claim of the paper."""
    verdicts = {profile: claims.verdicts(_records(profile)) for profile in PROFILES}
    titles = [f"{data} (`{profile}`)" for profile, data in PROFILES.items()]
    lines = [f"| claim | {' | '.join(titles)} |", "|---|" + "---|" * len(PROFILES)]
    for statement in zip(*verdicts.values(), strict=True):
        cells = [_cell(verdict) for verdict in statement]
        lines.append(f"| {statement[0].claim.id}: {statement[0].claim.statement} | {' | '.join(cells)} |")
    return "\n\n".join(["\n".join(lines), *(_beside_the_paper(claim, verdicts) for claim in claims.PAPER)])


def _beside_the_paper(claim: str, verdicts: Mapping[str, list[claims.Verdict]]) -> str:
    """A paragraph: where our verdicts agree with a claim of the paper, where not, and why that may be."""
    by_word: dict[str, list[str]] = {}  # verdict → the data of each profile that has it, with the parts of the claim
    for profile, found in verdicts.items():
        own = [verdict for verdict in found if verdict.claim.id.startswith(claim)]
        for word in dict.fromkeys(verdict.verdict for verdict in own):
            parts = [v.claim.id.partition(", ")[2].replace(", ", " ") for v in own if v.verdict == word]
            which = f" ({listed(parts)})" if len(parts) < len(own) else ""
            by_word.setdefault(word, []).append(PROFILES[profile] + which)
    openings = {
        claims.SUPPORTED: "Agrees with the paper",
        claims.NOT_SUPPORTED: "Does not agree",
        claims.INCONCLUSIVE: "Undecided",
        claims.ONE_NETWORK: "Of one network each, and so without a verdict",
        claims.NOT_MEASURED: "Not measured",
    }
    sentences = [f"{text}: {'; '.join(by_word[word])}." for word, text in openings.items() if word in by_word]
    if set(by_word) & {claims.NOT_SUPPORTED, claims.INCONCLUSIVE}:
        sentences.append(f"Why that may be: {WHY[claim][0].lower()}{WHY[claim][1:]}")
    return f"**{claim}.** {claims.PAPER[claim]} {' '.join(sentences)}"


def _cell(verdict: claims.Verdict) -> str:
    if verdict.verdict == claims.NOT_MEASURED:
        return verdict.verdict
    return f"**{verdict.verdict}**<br>{verdict.main or verdict.reason}"


def _networks(record: dict) -> str:
    """How many networks of each training a record rests on."""
    seeds = {seed for row in record["rows"] for seed in row["seeds"]}
    return f"{len(seeds)} networks each" if len(seeds) > 1 else "one network each"


def _sign(verdict: claims.Verdict) -> str:
    part = verdict.claim.id.partition(", ")[2]
    changed = verdict.adjusted not in (None, verdict.verdict)
    after = f" ({claims.SIGNS[verdict.adjusted]})" if changed else ""
    return f"{claims.SIGNS[verdict.verdict]} {part}".strip() + after


def _records(profile: str) -> dict[str, dict]:
    """The records that decide a claim or are named above, by artifact, without those that are missing or damaged."""
    found = {}
    for name in dict.fromkeys([*(claim.artifact for claim in claims.LEDGER), "tab-ablation"]):
        with suppress(errors.Refused):
            found[name] = records.load(paths.RESULTS / profile / f"{name}.json")
    return found
