"""What was found, as README's first screen says it: verdicts of the committed profiles, and what SR gains and costs."""

from paperlib import artifacts, paths, records
from paperlib.artifacts import claims

PROFILES = {"laptop": "MNIST digits", "cifar": "CIFAR-10"}  # the committed ones, and the data of each
GAINS = {"C3, alone": "SR against vanilla training", "C3, with AT": "AT+SR against AT"}


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
    gains = [
        f"* {GAINS[v.claim.id]} on {PROFILES[profile]}, {_networks(kept[profile][v.claim.artifact])}: "
        f"{v.reason[0].lower()}{v.reason[1:]}"
        for profile, found in verdicts.items()
        for v in found
        if v.claim.id in GAINS
    ]
    ablation = artifacts.headline(kept["laptop"]["tab-ablation"])
    return "\n".join([*lines, "", f"{legend}.", "", *gains, f"* {ablation} ({PROFILES['laptop']}).", ""])


def _networks(record: dict) -> str:
    """How many networks of each training a record rests on."""
    seeds = {seed for row in record["rows"] for seed in row["seeds"]}
    return f"{len(seeds)} networks each" if len(seeds) > 1 else "one network each"


def _sign(verdict: claims.Verdict) -> str:
    part = verdict.claim.id.partition(", ")[2]
    return f"{claims.SIGNS[verdict.verdict]} {part}".strip()


def _records(profile: str) -> dict[str, dict]:
    """The committed records that decide a claim or are named above, by artifact; some may be missing."""
    names = {claim.artifact for claim in claims.LEDGER} | {"tab-ablation"}
    found = {name: paths.RESULTS / profile / f"{name}.json" for name in names}
    return {name: records.load(path) for name, path in found.items() if path.exists()}
