"""Headlines of the notebooks on event data."""

from paperlib.claims import RANDOM_FLIPS, WORST, radius, select, title
from paperlib.findings.accuracy import UNMEASURED, widest

NOTHING = "No training on event data was asked for"


def random(record: dict) -> str:
    """The widest gap between noise four times larger and the attack, in counts and in whole events."""
    means = select(record, quantity="mean accuracy")
    if not means:
        return NOTHING
    first, told = means[0]["training"], []
    for law, noise in (("uniform", "uniform noise of 4ε"), (RANDOM_FLIPS, "four times as many at random")):
        if (most := widest(record, law, training=first)) is not None:
            attacked, after = most
            told.append(
                f"{attacked['attack']} at {radius(attacked)} leaves {100 * attacked['value']:.0f} %, "
                f"{noise} {100 * after:.0f} %"
            )
    return f"{title(first)}: {'; '.join(told)}" if told else UNMEASURED


def trained(record: dict) -> str:
    """What SR adds in both worst cases."""
    told = []
    for unit in ("eps_counts", "flips"):
        rows = [r for r in select(record, quantity="difference", attack=WORST) if unit in r and r["value"] is not None]
        gains = [f"{title(r['training'])} - {title(r['against'])} {100 * r['value']:+z.0f} points" for r in rows]
        if gains:
            told.append(f"{', '.join(gains)} at {radius(rows[0])}")
    return f"What SR adds in the worst case: {'; '.join(told)}" if told else NOTHING
