"""Headlines of the notebooks on event data."""

from paperlib.claims import NOISE_FACTOR, RANDOM_FLIPS, WORST, radius, select, size, title

NOTHING = "No training on event data was asked for"


def random(record: dict) -> str:
    """The widest gap between noise four times larger and the attack, in counts and in whole events."""
    told = []
    for law, noise in (("uniform", "uniform noise of 4ε"), (RANDOM_FLIPS, "four times as many at random")):
        gaps = [
            r for r in select(record, quantity="mean gap", noise=law, factor=NOISE_FACTOR) if r["value"] is not None
        ]
        own = [r for r in gaps if r["training"] == gaps[0]["training"]]
        if own:
            widest = max(own, key=lambda row: row["value"])
            at = {"quantity": "mean accuracy", "training": widest["training"], "attack": widest["attack"]}
            (left,) = select(record, **at, **size(widest))
            after = left["value"] + widest["value"]
            told.append(
                f"{widest['attack']} at {radius(widest)} leaves {100 * left['value']:.0f} %, "
                f"{noise} {100 * after:.0f} %"
            )
    if told:
        return f"{title(own[0]['training'])}: {'; '.join(told)}"
    return "No noise of four times the size was measured" if select(record, quantity="mean accuracy") else NOTHING


def trained(record: dict) -> str:
    """What SR adds in both worst cases."""
    told = []
    for unit in ("eps_counts", "flips"):
        rows = [r for r in select(record, quantity="difference", attack=WORST) if unit in r and r["value"] is not None]
        gains = [f"{title(r['training'])} - {title(r['against'])} {100 * r['value']:+.0f} points" for r in rows]
        if gains:
            told.append(f"{', '.join(gains)} at {radius(rows[0])}")
    return f"What SR adds in the worst case: {'; '.join(told)}" if told else NOTHING
