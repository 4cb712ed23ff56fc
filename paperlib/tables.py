"""Records → tables in Markdown, one per artifact or part of it, for notebooks and reports."""

import math
from collections.abc import Callable

import pandas as pd

from paperlib.claims import TRUE, percent, plain, points, select, title
from paperlib.findings import key


def markdown(record: dict, part: str = "") -> str:
    """The table of an artifact, or of one of its parts; empty where a part has none."""
    tables = TABLES.get(key(record["artifact"], part), lambda record: [])(record)
    return "\n\n".join(table.to_markdown(index=False) for table in tables)


def _random(record: dict) -> list[pd.DataFrame]:
    lines = []
    for attacked in (r for r in select(record, quantity="mean accuracy") if r["attack"].startswith("PGD")):
        eps = attacked["eps_255"]
        line = {"ε": f"{eps:g}/255", attacked["attack"]: percent(attacked)}
        for gap in select(record, quantity="mean gap", eps_255=eps):
            radius = round(eps * gap["factor"], 6)
            (noise,) = select(record, quantity="mean accuracy", attack=f"{gap['noise']} noise", eps_255=radius)
            line[f"{gap['noise']} noise, {gap['factor']}ε"] = percent(noise)
        lines.append(line)
    energy = [
        {"noise": r["attack"], "size": f"{r['eps_255']:g}/255", "energy left after clamping": percent(r)}
        for r in select(record, quantity="noise energy kept")
    ]
    return [pd.DataFrame(lines), pd.DataFrame(energy)]


def _ablation(record: dict) -> list[pd.DataFrame]:
    means, differences = {}, {}
    for row in select(record, quantity="mean accuracy"):
        means.setdefault(_column(row), {"": _column(row)})[title(row["training"])] = percent(row)
    for row in select(record, quantity="difference"):
        name = f"{title(row['training'])} - {title(row['against'])}"
        differences.setdefault(_column(row), {"": _column(row)})[name] = points(row)
    return [pd.DataFrame(means.values()), pd.DataFrame(differences.values())]


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
    lines: dict[float, dict] = {}
    for row in select(record, quantity="mean accuracy"):
        lam = row.get("lam", 0.0)
        lines.setdefault(lam, {"λ": f"{lam:g}" + " (vanilla)" * (lam == 0)})[_column(row)] = percent(row)
    return [pd.DataFrame(lines.values())]


def _regimes(record: dict) -> list[pd.DataFrame]:
    """The linear ratios, then per regime, training and radius the ratio and where the images lie."""
    lines: dict[tuple, dict] = {}
    for row in record["rows"]:
        if row["quantity"] in ("linear ratio", "upper bound", "within both bounds", "zero gradient"):
            line = lines.setdefault((row["training"], row["seeds"][0]), {"training": title(row["training"])})
            line["seed"] = row["seeds"][0]
            share = row["quantity"] in ("within both bounds", "zero gradient")
            line[row["quantity"]] = percent(row) if share else _number(row)
    shown = ("ratio", "inside", "above 3‖g‖₀", "below 3", "only the attack moved", "nothing moved")
    return [pd.DataFrame(lines.values()), _by_regime(record, shown)]


def _by_regime(record: dict, shown: tuple[str, ...]) -> pd.DataFrame:
    lines: dict[tuple, dict] = {}
    for row in record["rows"]:
        if row["quantity"] in shown and "regime" in row:
            where = row["regime"], row["training"], row["eps_255"]
            first = {"regime": where[0], "training": title(where[1]), "ε": f"{where[2]:g}/255"}
            size = row["quantity"].startswith("ρ") or row["quantity"] == "ratio"
            line = lines.setdefault(where, first | dict.fromkeys(shown, ""))
            line[row["quantity"]] = _number(row) if size else percent(row)
    return pd.DataFrame(lines.values())


def _exact(record: dict) -> list[pd.DataFrame]:
    lines: dict[tuple, dict] = {}
    for row in record["rows"]:
        if "case" in row:
            line = lines.setdefault((row["case"], row["law"]), {"f": row["case"], "noise": row["law"]})
            line[row["quantity"]] = _number(row)
    return [pd.DataFrame(lines.values()).fillna("")]


def _vulnerabilities(record: dict) -> list[pd.DataFrame]:
    shown = ("ρ_rand", "ρ_adv", "ρ_rand over first order", "ρ_adv over first order", "draws that moved f_y")
    return [_by_regime(record, shown)]


def _sparsity(record: dict) -> list[pd.DataFrame]:
    sizes: dict[str, dict] = {}
    for row in select(record, quantity="sparsity"):
        sizes.setdefault(row["sparsity"], {"median": row["sparsity"]})[title(row["training"])] = _number(row)
    lines: dict[tuple, dict] = {}
    for row in select(record, quantity="rank correlation"):
        first = {"rank correlation of": row["sparsity"], "over": row["over"]}
        lines.setdefault((row["over"], row["sparsity"]), first)[row["target"]] = plain(row)
    return [pd.DataFrame(sizes.values()), pd.DataFrame(lines.values())]


def _scale(record: dict) -> list[pd.DataFrame]:
    lines: dict[str, dict] = {}
    for row in select(record, quantity="scaled"):
        share = row["what"] in ("no gradient in 32 bits", "same decisions")
        name = f"c = {row['scale']:g}"
        lines.setdefault(row["what"], {"median": row["what"]})[name] = percent(row) if share else _number(row)
    return [pd.DataFrame(lines.values())]


def _quotient(record: dict) -> list[pd.DataFrame]:
    lines: dict[tuple, dict] = {}
    for row in select(record, regime=TRUE, precision="float32", scheme="forward"):
        line = lines.setdefault((row["training"], row["h"]), {"training": title(row["training"]), "h": f"{row['h']:g}"})
        line[row["quantity"]] = percent(row) if row["quantity"] == "probability moved" else _number(row)
    return [pd.DataFrame(lines.values())]


def _smoothed(record: dict) -> list[pd.DataFrame]:
    lines: dict[tuple, dict] = {}
    for row in select(record, quantity="accuracy"):
        who = row["training"], row["seeds"][0]
        line = lines.setdefault(who, {"training": title(who[0]), "seed": who[1]})
        line[f"accuracy, {row['regime']}"] = percent(row)
    return [pd.DataFrame(lines.values())]


def _weights(record: dict) -> list[pd.DataFrame]:
    lines: dict[tuple, dict] = {}
    for row in (r for r in record["rows"] if "layer" in r):
        where = row["regime"], row["training"], row["layer"]
        first = {"network": where[0], "training": title(where[1]), "layer": where[2]}
        lines.setdefault(where, first)[row["quantity"]] = _number(row)
    costs: dict[str, dict] = {}
    for row in (r for r in record["rows"] if "penalty" in r):
        costs.setdefault(row["penalty"], {"penalty by": row["penalty"]})[row["quantity"]] = _number(row)
    return [pd.DataFrame(lines.values()), pd.DataFrame(costs.values())]


def _column(row: dict) -> str:
    return row["attack"] if row["attack"] == "clean" else f"{row['attack']}, {row['eps_255']:g}/255"


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
    "fig-gradient-maps": _maps,
    "fig-lambda": _lambda,
    "thm-ratio": _regimes,
    "thm-ratio/exact": _exact,
    "thm-ratio/vulnerabilities": _vulnerabilities,
    "thm-ratio/sparsity": _sparsity,
    "thm-ratio/scale": _scale,
    "prop-finite-difference": _quotient,
    "prop-finite-difference/curvature": _smoothed,
    "prop-finite-difference/weights": _weights,
}
