"""Spikes on clean, noisy and attacked samples: what the artifacts on images and on events say and table.

Rows tell the three inputs by their label `attack`; here an input goes by its role: "clean", "noise" or "attack".
"""

from collections.abc import Iterable

from pandas import DataFrame

from paperlib import labels
from paperlib.artifacts.events import NOTHING
from paperlib.artifacts.reading import Line, all_above, percent, plain, select, trainings, turned
from paperlib.artifacts.tabulating import number, pivot
from paperlib.words import attack, title

ROLES = ("clean", "noise", "attack")
RATIO = "moved by the attack over the noise"
RELATIVE = {"relative firing rate": "firing rate", "relative energy": "energy estimate"}  # of SR, with their names
ENDS = ("value", "low", "high")
SHARES = ("still correct", "firing rate", "spikes moved")


# ---- rows --------------------------------------------------------------------------------------------------------


def inputs(record: dict) -> dict[str, dict]:
    """By role, a row of that input; empty where no network was measured."""
    by_attack = {row["attack"]: row for row in select(record, quantity="firing rate")}
    return dict(zip(ROLES, by_attack.values(), strict=bool(by_attack)))  # in the order in which they were measured


def names(record: dict) -> dict[str, str]:
    """By role, the name of the input: "clean", "sign noise", "PGD-20"."""
    return {role: "clean" if role == "clean" else attack(row) for role, row in inputs(record).items()}


def layers(record: dict) -> list[int]:
    """The numbers of the layers of neurons."""
    return sorted({row["layer"] for row in select(record, quantity="firing rate") if "layer" in row})


def one(record: dict, quantity: str, training: str, role: str, layer: int | None = None) -> dict:
    """The row of a quantity for one training, input and layer; None: of all layers."""
    name = inputs(record)[role]["attack"]
    (row,) = select(record, quantity=quantity, training=training, attack=name, layer=layer)
    return row


# ---- headlines and statements ------------------------------------------------------------------------------------


def headline(record: dict) -> str:
    """How many times as many spikes the attack moves as the noise does, and how much more accuracy it takes."""
    if not trainings(record):
        return NOTHING
    training = trainings(record)[0]
    (ratio,) = select(record, quantity=RATIO, training=training, layer=None)
    if ratio["value"] is None:
        return f"{title(training)}: the noise moves no spike, so the attack cannot be compared with it"
    noise, attacked = (one(record, "still correct", training, role)["value"] for role in ("noise", "attack"))
    return (
        f"{title(training)}: {attack(ratio)} moves {ratio['value']:.2f} times as many spikes as "
        f"{attack(ratio, labels.REFERENCE)} of the same radius, and takes {100 * (noise - attacked):.0f} points more "
        "accuracy"
    )


def membranes_headline(record: dict) -> str:
    """The rule of the neuron, with its threshold."""
    if not trainings(record):
        return NOTHING
    threshold = next(iter(record["arrays"]["shown"].values()))["threshold"]
    return (
        f"A neuron adds up its input, spikes where its membrane reaches {threshold:g}, and starts again from 0: "
        "a small push moves a spike to another step"
    )


def rates_headline(record: dict) -> str:
    """The firing rate and the energy estimate of SR in units of the training without it."""
    if not trainings(record):
        return NOTHING
    if not select(record, quantity="relative energy"):
        return "No training with SR was asked for beside the one without"
    rate, energy = (select(record, quantity=quantity)[0] for quantity in RELATIVE)
    training, baseline = title(rate["training"]), title(rate["against"])
    if rate["value"] is None or energy["value"] is None:
        return f"{baseline} has no spike with which {training} could be compared"
    return (
        f"{training} spikes {rate['value']:.2f} times as often as {baseline}, and takes {energy['value']:.2f} times "
        "the energy by the estimate"
    )


def box(record: dict) -> Iterable[Line]:
    """Whether the attack moves more spikes than the noise, in which layers, and what SR does to rate and energy."""
    if not trainings(record):
        return
    statements = {None: "The attack moves more spikes than noise of the same radius, in every training."}
    statements |= {
        i: f"In layer {i} the attack moves more spikes than the noise, in every training." for i in layers(record)
    }
    for layer, statement in statements.items():
        rows = select(record, quantity=RATIO, layer=layer)
        numbers = ", ".join(f"{title(row['training'])} {plain(row)}" for row in rows)
        yield Line(all_above(map(_beyond_one, rows)), statement, f"Times as many: {numbers}.")
    for quantity, name in RELATIVE.items():
        rows = select(record, quantity=quantity)
        numbers = ", ".join(f"{title(row['training'])} over {title(row['against'])} {plain(row)}" for row in rows)
        lowers = all_above(turned(_beyond_one(row)) for row in rows)
        yield Line(lowers, f"SR lowers the {name} on clean inputs, alone and with AT.", f"Times as much: {numbers}.")


def _beyond_one(row: dict) -> dict:
    """A ratio as its difference from 1, whose sign decides."""
    return row | {end: None if row[end] is None else row[end] - 1 for end in ENDS}


# ---- tables ------------------------------------------------------------------------------------------------------


def table(record: dict) -> list[DataFrame]:
    """A line for each training and input, from accuracy to moved spikes; then the attack over the noise."""
    ratios = select(record, quantity=RATIO)
    return [
        _by_input(record, "still correct", "margin", "perturbation", "firing rate", "spikes moved"),
        pivot(ratios, lambda row: {"": title(row["training"])}, lambda row: _column(row, "times as many"), number),
    ]


def rates_table(record: dict) -> list[DataFrame]:
    """A line for each training and input, operations and energy; then what SR changes on clean inputs."""
    relative = [row for quantity in RELATIVE for row in select(record, quantity=quantity)]

    def head(row: dict) -> dict:
        return {"clean inputs": f"{title(row['training'])} over {title(row['against'])}"}

    return [
        _by_input(record, "MACs", "SynOps", "energy"),
        pivot(relative, head, lambda row: RELATIVE[row["quantity"]], number),
    ]


def _by_input(record: dict, *quantities: str) -> DataFrame:
    """A line for each training and input, a column for each quantity and layer."""
    titles = {row["attack"]: names(record)[role] for role, row in inputs(record).items()}
    rows = [row for quantity in quantities for row in select(record, quantity=quantity)]
    return pivot(
        rows,
        lambda row: {"training": title(row["training"]), "input": titles[row["attack"]]},
        lambda row: _column(row, row["quantity"]),
        lambda row: percent(row) if row["quantity"] in SHARES else _amount(row),
    ).fillna("")


def _amount(row: dict) -> str:
    """A number with its interval, without digits behind the point from 100 on."""
    texts = [f"{row[end]:,.0f}" if row[end] >= 100 else f"{row[end]:.3g}" for end in ENDS if row[end] is not None]
    return texts[0] + (f" [{texts[1]}, {texts[2]}]" if len(texts) == 3 else "")


def _column(row: dict, name: str) -> str:
    unit = f", {row['unit']}" if "unit" in row else ""
    return f"{name}, layer {row['layer']}" if "layer" in row else name + unit
