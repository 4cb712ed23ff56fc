"""The titles, colours and units that readers see in place of labels.

Trainings and attacks declare their titles when they are registered.  A record carries the titles of its trainings and
attacks, so that it can be drawn where they are not registered.
"""

from paperlib import labels

COLOUR = "#661100"  # of a training that declares no colour
UNITS = {  # label of a radius → its unit
    "eps_255": "/255",
    "eps_counts": " counts",
    "flips": " changed events",
    "moves": " moved events",
}

_trainings: dict[str, dict] = {}  # name → {"title", "colour"}, in reading order
_attacks: dict[str, str] = {}  # name → title


def learn(words: dict) -> None:
    """Add the words of a record, {"trainings": {name: {"title", "colour"}}, "attacks": {name: title}}."""
    _trainings.update(words.get("trainings", {}))
    _attacks.update(words.get("attacks", {}))


def known(trainings: set[str], attacks: set[str]) -> dict:
    """The words of these names, in the form that `learn` takes; unknown names are left out."""
    return {
        "trainings": {name: entry for name, entry in _trainings.items() if name in trainings},
        "attacks": {name: entry for name, entry in _attacks.items() if name in attacks},
    }


def title(training: str) -> str:
    """The name of a training in tables and figures."""
    return _trainings.get(training, {}).get("title", training)


def hue(training: str) -> str:
    """The colour of a training, the same in every figure that gives it one."""
    return _trainings.get(training, {}).get("colour", COLOUR)


def attack(row: dict, prefix: str = "") -> str:
    """The title of an attack, from the labels of a row (see `labels.attack`).

    "PGD-20", "APGD-DLR-20", "PGD-10 sigmoid 4", "PGD-10 made on at, conv-8-16, four rules", "worst of all".
    """
    names = labels.attack(row, prefix)
    name = names["attack"]
    if name == labels.PROTOCOL:
        return "whole protocol"
    if name == labels.WORST:
        return "worst of all"
    if name == labels.SO_FAR:
        return f"up to {names['up_to']}"
    if names.get("rules") == labels.WIDTHS:
        return "all widths together"
    hyphenated = [_attacks.get(name, name)]
    if "loss" in names:
        hyphenated.append(names["loss"].upper())
    overwritten = name == labels.OWN_LOOP
    budgets = ("steps", "queries") if overwritten else ("steps", "queries", "draws")
    hyphenated += [str(names[budget]) for budget in budgets if budget in names]
    parts = ["-".join(hyphenated)]
    if "restarts" in names:
        parts.append(f"×{names['restarts']}")
    if "eot" in names:
        parts.append(f"EOT {names['eot']}")
    if overwritten:
        parts.append(f"EOT {names['draws']} overwritten" if "draws" in names else "overwritten")
    if "norm" in names:
        parts.append(f"in {names['norm']}")
    if "rule" in names:
        parts.append(names["rule"])
    parts += [f"{names[width]:g}" for width in ("slope", "gamma", "a") if width in names]
    if "made_on" in names:
        parts.append(f"made on {names['made_on']}, {names['made_on_network']}")
    text = " ".join(parts)
    return f"{text}, four rules" if names.get("rules") == labels.FOUR else text


def size(row: dict) -> dict:
    """The label of a row's radius with its value, for example {"eps_255": 32.0}."""
    return {name: row[name] for name in UNITS if name in row}


def radius(row: dict) -> str:
    """The radius of a row with its unit: "32/255", "0.5 counts", "20 changed events"."""
    (name,) = size(row)
    return f"{row[name]:g}{UNITS[name]}"
