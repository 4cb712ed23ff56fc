"""Accuracy against the width of the attacker's backward rule."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from paperlib.claims import ALL_WIDTHS, select, title
from paperlib.findings.width import own_rule
from paperlib.plots.core import LOG, bound, hue

MARKERS = {"triangle": "^", "rectangle": "s", "exponential": "o"}
NAMES = {"straight-through": "straight", "assg": "ASSG", "pdsg": "PDSG"}  # where not the rule's own


def widths(record: dict) -> Figure:
    """A panel for each training: a curve a family of rules, rules without a width beside them, own and worst across."""
    pairs = own_rule(record)
    figure, panels = plt.subplots(
        1, len(pairs), figsize=(10.4, 4.4), sharey=True, squeeze=False, subplot_kw=LOG, layout="constrained"
    )
    for panel, (own, longer) in zip(panels[0], pairs, strict=True):
        means = select(record, quantity="mean accuracy", training=own["training"])
        _across(panel, own, longer, next(r for r in means if r["attack"] == ALL_WIDTHS))
        swept = [r for r in means if "gamma" in r]
        others = [r for r in means if r.get("rule", "own") != "own" and r not in swept]
        _curves(panel, swept)
        _beside(panel, swept, others)
        panel.set_title(title(own["training"]), color=hue(own["training"]), fontweight="bold", fontsize=11)
    lowest = min(r["value"] for r in select(record, quantity="mean accuracy"))
    panels[0, 0].set(ylabel="accuracy, %", ylim=(max(0, 10 * int(10 * lowest)) - 2, 102))
    panels[0, -1].legend(loc="best", fontsize=8, frameon=True)
    return figure


def _across(panel: Axes, own: dict, longer: dict, together: dict) -> None:
    colour = hue(own["training"])
    panel.axhspan(100 * bound(own, "low"), 100 * bound(own, "high"), color=colour, alpha=0.1, linewidth=0)
    panel.axhline(100 * own["value"], color=colour, linewidth=1, label="own rule, with its interval")
    panel.axhline(100 * together["value"], color="black", linewidth=1.2, linestyle="--", label=ALL_WIDTHS)
    panel.axhline(100 * longer["value"], color="black", linewidth=1.2, linestyle=":", label="own rule at their cost")


def _curves(panel: Axes, rows: list[dict]) -> None:
    style = {"color": hue(rows[0]["training"]), "markersize": 5, "linewidth": 1.4}
    for family, marker in MARKERS.items():
        own = sorted((r for r in rows if r["rule"] == family), key=lambda r: r["gamma"])
        fill = {} if family == "triangle" else {"markerfacecolor": "white"}  # the training's own family stands out
        gammas, values = [r["gamma"] for r in own], [100 * r["value"] for r in own]
        panel.plot(gammas, values, marker=marker, label=family, **style, **fill)


def _beside(panel: Axes, swept: list[dict], others: list[dict]) -> None:
    gammas = sorted({r["gamma"] for r in swept})
    places = [1.9 ** (i + 1) * gammas[-1] for i in range(len(others))]
    panel.plot(places, [100 * r["value"] for r in others], "D", color=hue(swept[0]["training"]), markersize=4)
    panel.axvline(1.4 * gammas[-1], color=".6", linewidth=0.8)
    names = [NAMES.get(r["rule"], r["rule"]) for r in others]
    panel.set_xticks([*gammas, *places], [*(f"{gamma:g}" for gamma in gammas), *names], rotation=90, fontsize=8)
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set(xlim=(0.7 * gammas[0], 1.4 * max(places, default=gammas[-1])))
    panel.set_xlabel("width γ of the rule | rules without", fontsize=8)
