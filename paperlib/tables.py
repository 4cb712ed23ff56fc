"""Records → tables in Markdown, one per artifact, for notebooks and reports."""

import math
from collections.abc import Callable

import pandas as pd

from paperlib.claims import percent, points, select, title


def markdown(record: dict) -> str:
    """The artifact's table."""
    return "\n\n".join(table.to_markdown(index=False) for table in TABLES[record["artifact"]](record))


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


def _ratio(record: dict) -> list[pd.DataFrame]:
    lines: dict[tuple, dict] = {}
    for row in record["rows"]:
        who = row["training"], row["seeds"][0]
        line = lines.setdefault(who, {"training": title(row["training"]), "seed": row["seeds"][0]})
        share = row["quantity"] in ("within both bounds", "zero gradient")
        line[row["quantity"]] = percent(row) if share else _number(row)
    return [pd.DataFrame(lines.values())]


def _quotient(record: dict) -> list[pd.DataFrame]:
    lines: dict[tuple, dict] = {}
    for row in record["rows"]:
        line = lines.setdefault((row["training"], row["h"]), {"training": title(row["training"]), "h": f"{row['h']:g}"})
        line[row["quantity"]] = percent(row) if row["quantity"] == "probability moved" else _number(row)
    return [pd.DataFrame(lines.values())]


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
    "thm-ratio": _ratio,
    "prop-finite-difference": _quotient,
}
