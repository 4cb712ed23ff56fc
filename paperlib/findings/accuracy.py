"""Headlines of what is measured in accuracy and in gradients."""

from paperlib.claims import NOISE_FACTOR, radius, select, size, title

UNMEASURED = "No noise of four times the attack's size was measured"


def random(record: dict) -> str:
    """The attack against noise four times larger, where they differ most."""
    if (most := widest(record, "uniform")) is None:
        return UNMEASURED
    attacked, noise = most
    return (
        f"{attacked['attack']} at ε = {radius(attacked)} leaves {100 * attacked['value']:.0f} % accuracy, "
        f"uniform noise of 4ε leaves {100 * noise:.0f} %"
    )


def widest(record: dict, law: str, **of: str) -> tuple[dict, float] | None:
    """The attack's mean accuracy, its row, and what noise four times larger leaves, where the two differ most.

    `of` are labels, where the record has others.  None where no such noise was measured.
    """
    gaps = select(record, quantity="mean gap", noise=law, factor=NOISE_FACTOR, **of)
    if not gaps:
        return None
    gap = max(gaps, key=lambda row: row["value"])
    (attacked,) = select(record, quantity="mean accuracy", attack=gap["attack"], **of, **size(gap))
    return attacked, attacked["value"] + gap["value"]


def maps(record: dict) -> str:
    """The typical participation number of each training."""

    def typical(training: str) -> str:
        rows = select(record, training=training, quantity="participation number")
        own = [r["value"] for r in rows if r.get("lam") == rows[0].get("lam")]  # the profile's λ stands first
        known = sorted(value for value in own if value is not None)
        return f"{known[len(known) // 2]:.0f}" if known else "undefined"

    told = [f"{title(training)} {typical(training)}" for training in record["arrays"]["maps"]]
    return f"Equal pixels that would share the gradient alike (participation number): {', '.join(told)}"


def lambdas(record: dict) -> str:
    """The λ that validation data choose, the one in use and what is between them; where the training broke down."""
    (chosen,), (used,) = select(record, quantity="chosen λ"), select(record, quantity="used λ")
    whose = title(swept(record))
    if used["value"] is None:
        told = (
            f"Of the λ that were trained here, validation data choose {chosen['value']:g}; {whose}'s own is not known"
        )
    elif chosen["value"] == used["value"]:
        told = f"Validation data choose λ = {chosen['value']:g} for {whose}, as this companion uses"
    else:
        told = f"Validation data choose λ = {chosen['value']:g} for {whose}, while {used['value']:g} is in use"
        told += _between(record, chosen["value"], used["value"])
    down = [f"{lam:g} ({networks} of {of})" for lam, (networks, of) in broken(record).items() if networks]
    return told + f"; networks broke down at λ = {', '.join(down)}" * bool(down)


def _between(record: dict, chosen: float, used: float) -> str:
    """What the chosen λ changes against the one in use; nothing where that was not trained."""
    own, others = (_at(record, lam) for lam in (chosen, used))
    told = [f"{attack} {100 * (own[attack] - others[attack]):+z.1f} points" for attack in own if attack in others]
    return f" (chosen minus in use: {', '.join(told)})" if told else ""


def _at(record: dict, lam: float) -> dict[str, float]:
    return {r["attack"]: r["value"] for r in select(record, quantity="mean accuracy") if r.get("lam", 0.0) == lam}


def swept(record: dict) -> str:
    """The training whose λ is swept."""
    return record["provenance"]["parameters"].get("training", "sr")  # older records are SR's and do not say so


def broken(record: dict) -> dict[float, tuple[int, int]]:
    """Of each λ how many networks broke down, of how many: clean accuracy below half of the vanilla networks' mean."""
    level = _at(record, 0.0).get("clean", 0.0) / 2
    found: dict[float, list[bool]] = {}
    for row in select(record, quantity="accuracy", attack="clean"):
        found.setdefault(row.get("lam", 0.0), []).append(row["value"] < level)
    return {lam: (sum(down), len(down)) for lam, down in found.items()}
