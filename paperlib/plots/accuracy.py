"""Accuracy against radius, training and λ."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from paperlib.claims import select, title
from paperlib.plots.core import ATTACK, COLOURS, NOISE, bound, curve, dots, hue, name_ends, trainings


def random(record: dict) -> Figure:
    """Accuracy against the attack's ε; noise is drawn at the ε whose multiple it is."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    attacked = [r for r in select(record, quantity="mean accuracy") if r["attack"].startswith("PGD")]
    (clean,) = select(record, quantity="mean accuracy", attack="clean")
    widths = {1: 0.9, 2: 1.6, 4: 2.6}
    for panel, (law, colour) in zip(panels, NOISE.items(), strict=True):
        panel.axhline(100 * clean["value"], color=".6", linestyle=":", linewidth=1)
        gaps, ends = select(record, quantity="mean gap", noise=law), []
        for k in dict.fromkeys(gap["factor"] for gap in gaps):
            radii = [gap["eps_255"] for gap in gaps if gap["factor"] == k]
            rows = [
                select(record, quantity="mean accuracy", attack=f"{law} noise", eps_255=round(k * eps, 6))[0]
                for eps in radii
            ]
            end = curve(panel, radii, rows, colour, width=widths.get(k, 1.2))
            ends.append((end, f"noise, {k}ε" if k > 1 else "noise, ε", colour))
        end = curve(panel, [r["eps_255"] for r in attacked], attacked, ATTACK, width=1.8)
        name_ends(panel, attacked[-1]["eps_255"], [*ends, (end, f"{attacked[0]['attack']}, ε", ATTACK)])
        panel.set(title={"uniform": "Uniform noise", "sign": "Random signs"}[law], xlabel="ε of the attack, in 1/255")
        panel.set_xlim(0, 1.22 * attacked[-1]["eps_255"])
    panels[0].set(ylabel="accuracy, %", ylim=(0, 101))
    panels[0].text(0.4, 100 * clean["value"] + 1, "clean", color=".4", fontsize=8)
    return figure


def ablation(record: dict) -> Figure:
    """Accuracy of each training under each attack, and what SR changes of it."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), width_ratios=(3, 2), layout="constrained")
    rows = [r for r in select(record, quantity="mean accuracy") if not r["attack"].endswith("noise")]
    columns = list(dict.fromkeys((r["attack"], r["eps_255"]) for r in rows))
    columns.sort(key=lambda c: (("clean", "FGSM").index(c[0]) if c[0] in ("clean", "FGSM") else 2, c[1]))
    names = trainings(record)
    width = 0.8 / len(names)
    for i, training in enumerate(names):
        own = {(r["attack"], r["eps_255"]): r for r in rows if r["training"] == training}
        x = np.arange(len(columns)) + (i - (len(names) - 1) / 2) * width
        values = [100 * own[c]["value"] for c in columns]
        errors = [[100 * (own[c]["value"] - max(0, bound(own[c], "low"))) for c in columns]]
        errors += [[100 * (min(1, bound(own[c], "high")) - own[c]["value"]) for c in columns]]
        left.bar(x, values, width * 0.92, color=hue(training), label=title(training))
        left.errorbar(x, values, np.maximum(errors, 0), fmt="none", ecolor=".15", elinewidth=0.8)
    ticks = [a if a == "clean" else f"{a}\n{e:g}/255" for a, e in columns]
    left.set_xticks(range(len(columns)), ticks, fontsize=8)
    left.set(ylabel="accuracy, %", ylim=(0, 101), title="Accuracy, mean over seeds")
    left.grid(axis="x", visible=False)
    left.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8)

    pairs = {"sr": "vanilla", "at+sr": "at"}
    for i, (training, against) in enumerate(pairs.items()):
        own = [
            r
            for r in select(record, quantity="difference", training=training)
            if r["attack"] == "clean" or r["attack"].startswith("PGD")
        ]
        y = np.arange(len(own)) + (0.12 if i else -0.12)
        dots(right, own, y, hue(training), label=f"{title(training)} - {title(against)}")
    right.axvline(0, color=".4", linewidth=0.8)
    right.set_yticks(range(len(own)), [r["attack"] if r["attack"] == "clean" else f"{r['eps_255']:g}/255" for r in own])
    attack = next(r["attack"] for r in own if r["attack"] != "clean")
    right.set(title=f"What SR changes, clean and under {attack}", xlabel="percentage points, paired by seed")
    right.invert_yaxis()
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8, ncols=2)
    return figure


def lambdas(record: dict) -> Figure:
    """Validation accuracy, clean and attacked, against λ; the chosen one marked."""
    figure, panel = plt.subplots(figsize=(6.4, 4), layout="constrained")
    (chosen,) = select(record, quantity="chosen λ")
    means = select(record, quantity="mean accuracy")
    lambdas = sorted({r.get("lam", 0.0) for r in means})
    ends, places = (
        [],
        {lam: i for i, lam in enumerate(lambdas)},
    )  # equal steps: λ = 0 has no place on a logarithmic axis
    for attack, colour in dict.fromkeys((r["attack"], "#4d4d4d" if r["attack"] == "clean" else ATTACK) for r in means):
        rows = sorted((r for r in means if r["attack"] == attack), key=lambda r: r.get("lam", 0.0))
        name = attack if attack == "clean" else f"{attack}\n{rows[0]['eps_255']:g}/255"
        end = curve(panel, [places[r.get("lam", 0.0)] for r in rows], rows, colour, width=1.8)
        ends.append((end, name, colour))
        for row in select(record, quantity="accuracy", attack=attack):
            panel.plot(places[row.get("lam", 0.0)], 100 * row["value"], ".", color=colour, markersize=4, alpha=0.6)
    name_ends(panel, len(lambdas) - 1, ends)
    panel.axvline(places[chosen["value"]], color=COLOURS["sr"], linestyle="--", linewidth=1)
    panel.text(places[chosen["value"]], 2, " chosen", color=COLOURS["sr"], fontsize=8)
    panel.set_xticks(range(len(lambdas)), [f"{lam:g}" if lam else "0\n(vanilla)" for lam in lambdas])
    panel.set(xlabel="λ", ylabel="validation accuracy, %", ylim=(0, 101), xlim=(-0.3, len(lambdas) - 0.3))
    return figure
