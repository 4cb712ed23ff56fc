"""What readers see in place of labels: titles, colours, units.

Trainings and attacks declare their own title where they are written.  A record carries the titles of what it measured,
so that it can be drawn without them.
"""

from paperlib import labels

COLOUR = "#661100"  # of a training that declares none
UNITS = {"eps_255": "/255", "eps_counts": " counts", "flips": " changed events"}  # of a radius, by its label

_trainings: dict[str, dict] = {}  # name → {"title", "colour"}, in reading order
_attacks: dict[str, str] = {}  # name → title


def learn(words: dict) -> None:
    """Take over {"trainings": {name: {"title", "colour"}}, "attacks": {name: title}}, as a record carries them."""
    _trainings.update(words.get("trainings", {}))
    _attacks.update(words.get("attacks", {}))


def known(trainings: set[str], attacks: set[str]) -> dict:
    """The words for these names, for a record; names without any are left out."""
    return {
        "trainings": {name: own for name, own in _trainings.items() if name in trainings},
        "attacks": {name: own for name, own in _attacks.items() if name in attacks},
    }


def title(training: str) -> str:
    """A training's name in tables and figures."""
    return _trainings.get(training, {}).get("title", training)


def hue(training: str) -> str:
    """A training's colour, the same in every figure."""
    return _trainings.get(training, {}).get("colour", COLOUR)


def in_order(trainings: list[str]) -> list[str]:
    """The same trainings in reading order, unknown ones last."""
    order = list(_trainings)
    return sorted(trainings, key=lambda name: order.index(name) if name in order else len(order))


def attack(row: dict, prefix: str = "") -> str:
    """An attack's title, from the labels of a row (see `labels.attack`).

    "PGD-20", "APGD-DLR-20", "PGD-10 sigmoid 4", "PGD-10 made on at, conv-8-16, four rules", "worst of all".
    """
    of = labels.attack(row, prefix)
    name = of["attack"]
    if name == labels.WORST:
        return "worst of all"
    if name == labels.SO_FAR:
        return f"up to {of['up_to']}"
    if of.get("rules") == labels.WIDTHS:
        return "all widths together"
    parts = [str(of["loss"]).upper()] if "loss" in of else []
    parts += [str(of[budget]) for budget in ("steps", "queries") if budget in of]
    loop = name == labels.OWN_LOOP
    parts += [str(of["draws"])] if "draws" in of and not loop else []
    found = ["-".join([_attacks.get(name, name), *parts])]
    found += [f"×{of['restarts']}"] if "restarts" in of else []
    found += [f"EOT {of['eot']}"] if "eot" in of else []
    found += [f"EOT {of['draws']} overwritten"] if loop else []
    found += [f"in {of['norm']}"] if "norm" in of else []
    found += [of["rule"]] if "rule" in of else []
    found += [f"{of[width]:g}" for width in ("slope", "gamma", "a") if width in of]
    text = " ".join(found)
    text += f" made on {of['made_on']}, {of['made_on_network']}" if "made_on" in of else ""
    return text + (", four rules" if of.get("rules") == labels.FOUR else "")


def size(row: dict) -> dict:
    """The label that holds a row's radius, with its value: what rows of the same radius share."""
    return {name: row[name] for name in UNITS if name in row}


def radius(row: dict) -> str:
    """A row's radius with its unit: "32/255", "0.5 counts", "20 changed events"."""
    (name,) = size(row)
    return f"{row[name]:g}{UNITS[name]}"
