"""Headlines of the loss around an image."""

from paperlib.claims import select, title

NONE = "No image is classified correctly by all networks, so none has a landscape to show"


def lines(record: dict) -> str:
    """The median loss at the reach, and where a random direction leads up as far as the attack's."""
    losses = select(record, quantity="loss")
    reach = max(r["t_255"] for r in losses)
    ends = {(r["training"], r["direction"]): r["value"] for r in losses if r["t_255"] == reach}
    if None in ends.values():
        return NONE
    attack, random = (
        {training: value for (training, direction), value in ends.items() if direction == name}
        for name in ("attack", "random")
    )
    told = ", ".join(f"{value:.2g} ({title(training)})" for training, value in attack.items())
    masked = [title(training) for training in attack if attack[training] <= random[training]]
    looks = f"{', '.join(masked)} look{'s' * (len(masked) == 1)} masked" if masked else "no training looks masked"
    return (
        f"{reach:g}/255 along the attack's direction the median loss is {told}, "
        f"along a random one at most {max(random.values()):.2g}: {looks}"
    )


def plane(record: dict) -> str:
    """Whose decision each direction changes within the reach, and how far out."""
    shown = record["arrays"]["plane"]
    if not shown["right"]:
        return NONE
    t = shown["t_255"]
    middle, attack, random = len(t) // 2, [], []
    for training, right in shown["right"].items():
        wrong = [place for place, correct in zip(t, right[middle], strict=True) if place > 0 and not correct]
        attack += [f"{title(training)} (at {place:.3g}/255)" for place in wrong[:1]]
        random += [title(training)] * (not all(row[middle] for row in right))
    return (
        f"One image, within {t[-1]:g}/255: the attack's direction changes the decision of "
        f"{', '.join(attack) or 'no network'}, a random one that of {', '.join(random) or 'no network'}"
    )
