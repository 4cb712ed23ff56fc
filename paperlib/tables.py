"""Records → tables in Markdown, one per artifact or part of it, for notebooks and reports."""

import math
from collections.abc import Callable

import pandas as pd

from paperlib import masking
from paperlib.claims import TRUE, WORST, percent, plain, points, radius, select, title
from paperlib.findings import ablation, key, settings
from paperlib.findings.variants import AXES, word


def markdown(record: dict, part: str = "") -> str:
    """The table of an artifact, or of one of its parts; empty where a part has none."""
    tables = TABLES.get(key(record["artifact"], part), lambda record: [])(record)
    blocks = [table.to_markdown(index=False) for table in tables]
    if any("†" in block for block in blocks):
        blocks += [f"† Unreliable: {'; '.join(doubted(record))}."]
    return "\n\n".join(blocks)


def doubted(record: dict) -> list[str]:
    """What sanity checks say against numbers of the record, each reason once with its remedy."""
    return list(dict.fromkeys(why for row in record["rows"] for why in row.get("doubts", ())))


def _random(record: dict) -> list[pd.DataFrame]:
    lines = []
    for attacked in (r for r in select(record, quantity="mean accuracy") if r["attack"].startswith("PGD")):
        eps = attacked["eps_255"]
        line = {"ε": radius(attacked), attacked["attack"]: percent(attacked)}
        for gap in select(record, quantity="mean gap", eps_255=eps):
            louder = round(eps * gap["factor"], 6)
            (noise,) = select(record, quantity="mean accuracy", attack=f"{gap['noise']} noise", eps_255=louder)
            line[f"{gap['noise']} noise, {gap['factor']}ε"] = percent(noise)
        lines.append(line)
    energy = [
        {"noise": r["attack"], "size": radius(r), "energy left after clamping": percent(r)}
        for r in select(record, quantity="noise energy kept")
    ]
    return [pd.DataFrame(lines), pd.DataFrame(energy)]


def _ablation(record: dict) -> list[pd.DataFrame]:
    """Means and differences, clean and under PGD; then both under noise and FGSM."""

    def head(row: dict) -> dict:
        return {"training": title(row["training"]), "interval over": ablation.over(row)}

    def pair(row: dict) -> dict:
        return {"difference": _against(row), "interval over": ablation.over(row)}

    means = select(record, quantity="mean accuracy", budget=None)
    changes = ablation.differences(record, budget=None)

    def strong(row: dict) -> bool:
        return row["attack"] == "clean" or bool(ablation.under_pgd([row]))

    return [
        _pivot([row for row in rows if strong(row) == first], how, _column, cell)
        for first in (True, False)
        for rows, how, cell in ((means, head, percent), (changes, pair, points))
    ]


def _equal_cost(record: dict) -> list[pd.DataFrame]:
    """A line a training: what it had, clean and in the worst case, under each budget; and SR against it."""
    lines: dict[str, dict] = {}
    for budget in (ablation.EPOCHS, ablation.PASSES):
        for row in ablation.worst(record, budget):
            name = row["training"]
            line = lines.setdefault(name, {"training": title(name)})
            epochs, passes = (ablation.spent(record, what, name, budget) for what in ("epochs", "passes per image"))
            had = "not known" if epochs is None else f"{epochs} epoch{'s' * (epochs != 1)}, {passes} passes an image"
            line[budget] = had
            (clean,) = select(record, quantity="mean accuracy", training=name, attack="clean", budget=budget)
            line |= {f"clean, {budget}": percent(clean), f"{WORST}, {budget}": percent(row)}
            for change in ablation.against_sr(record, name, budget):
                line[f"SR minus it, {budget}"] = points(change)
    return [pd.DataFrame(lines.values()).fillna("")]


def _cost(record: dict) -> list[pd.DataFrame]:
    """What a step and an epoch of each training take, and a step relative to a vanilla one; then equal cost."""
    units = {  # per step and per epoch
        "multiply-adds": ((1e6, "M"), (1e9, "G")),
        "bytes kept": ((1e6, "MB"), (1e6, "MB")),
        "seconds": ((1e-3, "ms"), (1, "s")),
    }

    def cell(row: dict) -> str:
        if row["quantity"] == "relative cost" or row["what"] not in units:
            return _number(row)
        size, unit = units[row["what"]][row["quantity"] == "cost of an epoch"]
        return f"{_number({end: row[end] and row[end] / size for end in ('value', 'low', 'high')})} {unit}"

    def column(row: dict) -> str:
        of = "relative to vanilla" if row["quantity"] == "relative cost" else row["quantity"].removeprefix("cost of ")
        return f"{row['what']}, {of}"

    kinds = ("cost of a step", "relative cost", "cost of an epoch")
    rows = [row for kind in kinds for row in select(record, quantity=kind)]
    table = _pivot(rows, lambda r: {"training": title(r["training"])}, column, cell)
    for of in ("a step", "an epoch"):
        place = table.columns.get_loc(f"forward passes, {of}")
        forward, backward = (table.pop(f"{way} passes, {of}") for way in ("forward", "backward"))
        table.insert(place, f"passes forward + backward, {of}", forward + " + " + backward)
    return [table, *(_equal_cost(record) if select(record, attack=WORST) else [])]


def _attacks(record: dict) -> list[pd.DataFrame]:
    def head(row: dict) -> dict:
        return {"": _column(row)}

    means, differences = select(record, quantity="mean accuracy"), select(record, quantity="difference")
    return [
        _pivot(means, head, lambda r: title(r["training"]), percent),
        _pivot(differences, head, _against, points),
    ]


def _ladder(record: dict) -> list[pd.DataFrame]:
    differences = select(record, quantity="difference")
    return [_with_passes(record), _pivot(differences, lambda r: {"": r["attack"]}, _against, points)]


def _with_passes(record: dict) -> pd.DataFrame:
    passes = {(r["training"], r["attack"]): r["value"] for r in select(record, quantity="mean passes")}

    def cell(row: dict) -> str:
        spent = passes[row["training"], row["attack"]]
        return f"{percent(row)}, {spent:.0f} pass{'es' * (round(spent) != 1)}"

    means = select(record, quantity="mean accuracy")
    return _pivot(means, lambda r: {"": r["attack"]}, lambda r: title(r["training"]), cell)


def _contrasted(record: dict) -> list[pd.DataFrame]:
    contrasts = select(record, quantity="mean contrast")
    changes = _pivot(contrasts, lambda r: {"": _contrast(r)}, lambda r: title(r["training"]), points)
    return [_with_passes(record), changes]


def _expectations(record: dict) -> list[pd.DataFrame]:
    cells = {"mean over draws": percent, "spread over draws": percent, "undecided": percent, "contrast": points}
    names = {"mean over draws": "clean, mean over draws", "spread over draws": "clean, standard deviation over draws"}

    def column(row: dict) -> str:
        return _contrast(row) if row["quantity"] == "contrast" else names.get(row["quantity"], row["quantity"])

    networks = [r for quantity in cells for r in select(record, quantity=quantity)]
    return [*_contrasted(record), _pivot(networks, _network, column, lambda r: cells[r["quantity"]](r))]


def _contrast(row: dict) -> str:
    return f"{row['attack']} - {row['reference']}"


def _against(row: dict) -> str:
    return f"{title(row['training'])} - {title(row['against'])}"


def _maps(record: dict) -> list[pd.DataFrame]:
    lines = {}
    for row in record["rows"]:
        if row["quantity"] in ("l1", "l2", "participation number", "zero gradient", "accuracy"):
            name = title(row["training"]) + (f", λ = {row['lam']:g}" if "lam" in row else "")
            lines.setdefault(name, {}).setdefault(_title(row), []).append(row["value"])
    table = [
        {"training": name, "networks": len(next(iter(columns.values())))}
        | {quantity: _mean(values, quantity) for quantity, values in columns.items()}
        for name, columns in lines.items()
    ]
    return [pd.DataFrame(table)]


def _lambda(record: dict) -> list[pd.DataFrame]:
    def head(row: dict) -> dict:
        lam = row.get("lam", 0.0)
        return {"λ": f"{lam:g}" + " (vanilla)" * (lam == 0)}

    return [_pivot(select(record, quantity="mean accuracy"), head, _column, percent)]


def _variants(record: dict) -> list[pd.DataFrame]:
    """A line a variant at the λ chosen for it, vanilla first; then a line a λ: what chose, and what judged it."""

    def head(row: dict) -> dict:
        form = [word(row, axis) for axis in AXES] if "h" in row else [row["training"], "", "", ""]
        return {axis: text.removeprefix("h = ").replace("|", r"\|") for axis, text in zip(AXES, form, strict=True)}

    def column(row: dict) -> str:
        name = _column(row) if "attack" in row else row["quantity"]
        return f"{name}, against {row['against']}" if "against" in row else name

    def cell(row: dict) -> str:
        if row["quantity"] == "difference":
            return points(row)
        return percent(row) if "attack" in row else _number(row)

    def swept(row: dict) -> str:
        return _column(row) + (", validation" if "split" in row else "")

    judged = [r for r in record["rows"] if "split" not in r and r["quantity"] != "mean accuracy at another λ"]
    lines = [r for r in judged if r.get("attack", WORST) == WORST or r["quantity"] == "mean accuracy"]
    every = [r for r in record["rows"] if r["quantity"].startswith("mean accuracy") and "lam" in r]
    return [
        _pivot(lines, head, column, cell).fillna(""),
        _pivot(every, lambda r: head(r) | {"λ": f"{r['lam']:g}"}, swept, percent).fillna(""),
    ]


def _settings(record: dict) -> list[pd.DataFrame]:
    """A line a setting: SR's gain, and that minus the own setting's; then a line a network of each setting."""
    found = settings.gains(record)

    def setting(row: dict) -> dict:
        own = {label: found[0].get(label) for label in settings.WORDS}
        return {"neurons": settings.name(row, own)}

    def shown(row: dict) -> dict:
        (choice,) = (r for r in select(record, quantity="chosen λ") if setting(r) == setting(row))
        return setting(row) | {"λ": f"{row['lam']:g}" + " (none chosen)" * (not choice["value"])}

    def network(row: dict) -> dict:
        lam = f", λ = {row['lam']:g}" if "lam" in row else ""
        return setting(row) | {"training": title(row["training"]) + lam}

    gains = [r for quantity in ("gain", "gain minus the own") for r in select(record, quantity=quantity)]
    means = select(record, quantity="mean accuracy") if found else []
    return [
        _pivot(gains, shown, lambda r: f"{r['quantity']}, {_column(r)}", points).fillna(""),
        _pivot(means, network, _column, percent),
    ]


def _regimes(record: dict) -> list[pd.DataFrame]:
    """The linear ratios, then per regime, training and radius the ratio and where the images lie."""
    shares = "within both bounds", "zero gradient"
    linear = [r for r in record["rows"] if r["quantity"] in ("linear ratio", "upper bound", *shares)]
    shown = ("ratio", "inside", "above 3‖g‖₀", "below 3", "only the attack moved", "nothing moved")
    return [
        _pivot(linear, _network, _quantity, lambda r: percent(r) if r["quantity"] in shares else _number(r)),
        _by_regime(record, shown),
    ]


def _by_regime(record: dict, shown: tuple[str, ...]) -> pd.DataFrame:
    def head(row: dict) -> dict:
        return {"regime": row["regime"], "training": title(row["training"]), "ε": radius(row)}

    def cell(row: dict) -> str:
        size = row["quantity"].startswith("ρ") or row["quantity"] == "ratio"
        return _number(row) if size else percent(row)

    rows = [r for r in record["rows"] if r["quantity"] in shown and "regime" in r]
    table = _pivot(rows, head, _quantity, cell)
    return table.reindex(columns=["regime", "training", "ε", *shown])


def _exact(record: dict) -> list[pd.DataFrame]:
    rows = [r for r in record["rows"] if "case" in r]
    return [_pivot(rows, lambda r: {"f": r["case"], "noise": r["law"]}, _quantity, _number).fillna("")]


def _vulnerabilities(record: dict) -> list[pd.DataFrame]:
    shown = ("ρ_rand", "ρ_adv", "ρ_rand over first order", "ρ_adv over first order", "draws that moved f_y")
    return [_by_regime(record, shown)]


def _sparsity(record: dict) -> list[pd.DataFrame]:
    sizes, correlations = select(record, quantity="sparsity"), select(record, quantity="rank correlation")
    whose = {"rank correlation of": "sparsity", "over": "over"}
    return [
        _pivot(sizes, lambda r: {"median": r["sparsity"]}, lambda r: title(r["training"]), _number),
        _pivot(correlations, lambda r: {name: r[label] for name, label in whose.items()}, lambda r: r["target"], plain),
    ]


def _scale(record: dict) -> list[pd.DataFrame]:
    def cell(row: dict) -> str:
        return percent(row) if row["what"] in ("no gradient in 32 bits", "same decisions") else _number(row)

    rows = select(record, quantity="scaled")
    return [_pivot(rows, lambda r: {"median": r["what"]}, lambda r: f"c = {r['scale']:g}", cell)]


def _quotient(record: dict) -> list[pd.DataFrame]:
    def cell(row: dict) -> str:
        return percent(row) if row["quantity"] == "probability moved" else _number(row)

    rows = select(record, regime=TRUE, precision="float32", scheme="forward")
    return [_pivot(rows, lambda r: {"training": title(r["training"]), "h": f"{r['h']:g}"}, _quantity, cell)]


def _smoothed(record: dict) -> list[pd.DataFrame]:
    rows = select(record, quantity="accuracy")
    return [_pivot(rows, _network, lambda r: f"accuracy, {r['regime']}", percent)]


def _weights(record: dict) -> list[pd.DataFrame]:
    def head(row: dict) -> dict:
        return {"network": row["regime"], "training": title(row["training"]), "layer": row["layer"]}

    layers, costs = ([r for r in record["rows"] if label in r] for label in ("layer", "penalty"))
    return [
        _pivot(layers, head, _quantity, _number),
        _pivot(costs, lambda r: {"penalty by": r["penalty"]}, _quantity, _number),
    ]


def _landscape(record: dict) -> list[pd.DataFrame]:
    losses = select(record, quantity="loss")
    reach = max(r["t_255"] for r in losses)
    ends = [r for r in record["rows"] if r.get("t_255") == reach]
    shown = [r for r in losses if r["t_255"] == 0 and r["direction"] == "attack"]  # both directions start there
    shown += (
        sorted(ends, key=_quantity) + select(record, quantity="roughness") + select(record, quantity="zero gradient")
    )

    def column(row: dict) -> str:
        at = f", t = {row['t_255']:g}/255" if "t_255" in row else ""
        return row["quantity"] + (f"{at}, {row['direction']}" if at != ", t = 0/255" and "direction" in row else at)

    def cell(row: dict) -> str:
        return _number(row) if row["quantity"] == "loss" else percent(row)

    return [_pivot(shown, lambda r: {"training": title(r["training"]), "seed": r["seeds"][0]}, column, cell)]


def _checklist(record: dict) -> list[pd.DataFrame]:
    """A line a check; then what the scale control is made of."""
    lines = {
        check.name: {"check": check.statement, "number": check.measured, "passes": masking.condition(check)}
        for check in masking.CHECKS
    }
    for cell in masking.cells(record):
        at = masking.place(cell.worst)
        told = f"{cell.verdict}: {masking.number(cell.worst)}{', ' * bool(at)}{at}"
        lines[cell.check.name][title(cell.training)] = told
    scaled = select(record, quantity="scaled accuracy")
    return [
        pd.DataFrame(lines.values()).fillna(""),
        _pivot(scaled, lambda r: {"logits times": f"{r['scale']:g}"}, _column, percent),
    ]


def _random_on_events(record: dict) -> list[pd.DataFrame]:
    """A line a training, law and radius of the attack: what it leaves, and what the noise leaves minus that."""
    means = {(r["training"], r["attack"], radius(r)): r for r in select(record, quantity="mean accuracy")}

    def head(row: dict) -> dict:
        left = means[row["training"], row["attack"], radius(row)]
        return {
            "training": title(row["training"]),
            "attack": row["attack"],
            "radius": radius(row),
            "accuracy": percent(left),
            "noise": row["noise"].replace("_", " "),
        }

    gaps = select(record, quantity="mean gap")
    return [_pivot(gaps, head, lambda r: f"noise of {r['factor']} times the size, minus it", points)]


def _events(record: dict) -> list[pd.DataFrame]:
    """Accuracy under each attack, what SR changes, and what cutting counts to [0, 1] does without any attack."""
    cut = select(record, quantity="mean accuracy, counts cut to [0, 1]")
    clean = select(record, quantity="mean accuracy", attack="clean")
    whole = _pivot(clean, lambda r: {"": "counts as they are"}, lambda r: title(r["training"]), percent)
    one = _pivot(cut, lambda r: {"": "counts cut to [0, 1]"}, lambda r: title(r["training"]), percent)
    return [*_attacks(record), pd.concat([whole, one])]


def _pivot(
    rows: list[dict],
    head: Callable[[dict], dict],
    column: Callable[[dict], str],
    cell: Callable[[dict], str],
) -> pd.DataFrame:
    """A line for each distinct `head`, a row's first cells by column; each row fills the cell `column` of its line."""
    lines: dict[tuple, dict] = {}
    for row in rows:
        first = head(row)
        lines.setdefault(tuple(first.values()), first)[column(row)] = cell(row)
    return pd.DataFrame(lines.values())


def _network(row: dict) -> dict:
    return {"training": title(row["training"]), "seed": row["seeds"][0]}


def _quantity(row: dict) -> str:
    return row["quantity"]


def _column(row: dict) -> str:
    return row["attack"] if row["attack"] == "clean" else f"{row['attack']}, {radius(row)}"


def _title(row: dict) -> str:
    return _column(row) if row["quantity"] == "accuracy" else row["quantity"]


def _mean(values: list[float | None], quantity: str) -> str:
    known = [v for v in values if v is not None]
    mean = math.fsum(known) / len(known) if known else math.nan
    share = quantity == "zero gradient" or "/255" in quantity
    return f"{100 * mean:.1f} %" if share else f"{mean:.3g}"


def _number(row: dict) -> str:
    if row["value"] is None:
        return "undefined"
    bounds = "" if row["low"] is None else f" [{row['low']:.3g}, {row['high']:.3g}]"
    return f"{row['value']:.3g}{bounds}"


TABLES: dict[str, Callable[[dict], list[pd.DataFrame]]] = {
    "fig-random-vs-adversarial": _random,
    "tab-ablation": _ablation,
    "tab-ablation/equal-cost": _equal_cost,
    "tab-cost": _cost,
    "fig-attack-ladder": _ladder,
    "tab-masking-checklist": _checklist,
    "tab-whitebox": _attacks,
    "tab-blackbox": _attacks,
    "fig-surrogate-width": _contrasted,
    "tab-poisson-eot": _expectations,
    "fig-gradient-maps": _maps,
    "fig-lambda": _lambda,
    "fig-sr-variants": _variants,
    "fig-timesteps-and-leak": _settings,
    "thm-ratio": _regimes,
    "thm-ratio/exact": _exact,
    "thm-ratio/vulnerabilities": _vulnerabilities,
    "thm-ratio/sparsity": _sparsity,
    "thm-ratio/scale": _scale,
    "prop-finite-difference": _quotient,
    "prop-finite-difference/curvature": _smoothed,
    "prop-finite-difference/weights": _weights,
    "fig-landscape": _landscape,
    "tab-events": _events,
    "fig-random-vs-adversarial-events": _random_on_events,
}
