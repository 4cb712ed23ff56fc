"""Headlines of the tables of attacks."""

from paperlib.claims import BASELINES, WORST, select, title

FOUR = ", four rules"  # how the title of an ensemble of backward rules ends
MADE = " made on "  # between the attack and the network that its examples come from


def rungs(record: dict) -> list[str]:
    """The rungs of the ladder, the weakest first."""
    rows = select(record, quantity="mean accuracy")
    return list(dict.fromkeys(r["attack"] for r in rows if r["attack"] != "clean"))


def made_on(attack: str) -> tuple[str, str]:
    """Training and architecture of the network that an attack's examples come from; empty where it is the target."""
    training, _, network = attack.removesuffix(FOUR).partition(MADE)[2].partition(", ")
    return training, network


def ladder(record: dict) -> str:
    """What is left on the last rung, and what SR still gains there."""
    left = [f"{title(r['training'])} {100 * r['value']:.0f} %" for r in _means(record, WORST)]
    gained = [
        f"{title(training)} - {title(against)} {100 * r['value']:+z.0f} points"
        for training, against in BASELINES.items()
        for r in select(record, quantity="difference", training=training, attack=WORST)
    ]
    return f"Under everything together: {', '.join(left)}" + (f"; {', '.join(gained)}" if gained else "")


def whitebox(record: dict) -> str:
    """The worst of the whole protocol at the largest radius, and the most that four rules add to one."""
    eps = max(r["eps_255"] for r in _means(record, WORST))
    left = [f"{title(r['training'])} {100 * r['value']:.0f} %" for r in _means(record, WORST) if r["eps_255"] == eps]
    alone = {_place(r): r["value"] for r in select(record, quantity="mean accuracy")}
    added = [
        alone[_place(r | {"attack": r["attack"].removesuffix(FOUR)})] - r["value"]
        for r in select(record, quantity="mean accuracy")
        if r["attack"].endswith(FOUR)
    ]
    return (
        f"The whole protocol at {eps:g}/255 leaves {', '.join(left)}; "
        f"three more backward rules take at most {100 * max(added):.0f} points"
    )


def blackbox(record: dict) -> str:
    """The strongest attack from outside against the white box, training by training."""
    told = []
    for clean in _means(record, "clean"):
        rows = [r for r in select(record, quantity="mean accuracy", training=clean["training"]) if r is not clean]
        white, *outside = (r for r in rows if r["attack"] != "clean")
        strongest = min(outside, key=lambda r: r["value"])
        told.append(
            f"{title(clean['training'])} {100 * strongest['value']:.0f} % (white box {100 * white['value']:.0f} %)"
        )
    return f"What the strongest black-box attack leaves: {', '.join(told)}"


def _means(record: dict, attack: str) -> list[dict]:
    return select(record, quantity="mean accuracy", attack=attack)


def _place(row: dict) -> tuple:
    return row["training"], row["attack"], row["eps_255"]
