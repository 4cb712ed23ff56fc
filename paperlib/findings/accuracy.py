"""Headlines of what is measured in accuracy and in gradients."""

from paperlib.claims import NOISE_FACTOR, select, title


def random(record: dict) -> str:
    """The attack against noise four times larger, where they differ most."""
    gaps = select(record, quantity="mean gap", noise="uniform", factor=NOISE_FACTOR)
    if not gaps:
        return "No noise of four times the attack's size was measured"
    widest = max(gaps, key=lambda row: row["value"])
    at = {"eps_255": widest["eps_255"]}
    (attacked,) = select(record, quantity="mean accuracy", attack=widest["attack"], **at)
    louder = round(widest["eps_255"] * NOISE_FACTOR, 6)
    (noise,) = select(record, quantity="mean accuracy", attack="uniform noise", eps_255=louder)
    return (
        f"{widest['attack']} at ε = {widest['eps_255']:g}/255 leaves {100 * attacked['value']:.0f} % accuracy, "
        f"uniform noise of 4ε leaves {100 * noise['value']:.0f} %"
    )


def ablation(record: dict) -> str:
    """What SR changes, alone and on top of AT, where it changes most."""
    told = []
    for training, against in (("sr", "vanilla"), ("at+sr", "at")):
        rows = [r for r in select(record, quantity="difference", training=training) if r["attack"].startswith("PGD")]
        widest = max(rows, key=lambda row: abs(row["value"]))
        told.append(
            f"{title(training)} against {title(against)}: {100 * widest['value']:+.0f} points "
            f"at {widest['eps_255']:g}/255"
        )
    attack = rows[0]["attack"]
    return f"What SR changes under {attack}, where most: {'; '.join(told)}"


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
    """The λ that validation data choose, and the one in use."""
    (chosen,), (used,) = select(record, quantity="chosen λ"), select(record, quantity="used λ")
    if used["value"] is None:
        return f"Of the λ that were trained here, validation data choose {chosen['value']:g}; SR's own is not known"
    agree = "as this companion uses" if chosen["value"] == used["value"] else f"while {used['value']:g} is in use"
    return f"Validation data choose λ = {chosen['value']:g}, {agree}"
