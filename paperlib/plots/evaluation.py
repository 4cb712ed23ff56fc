"""Accuracy under ever stronger attacks, by the paper's protocol, and from outside the network."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from paperlib.claims import WORST, select, title
from paperlib.findings.evaluation import FOUR, made_on, rungs
from paperlib.plots.core import curve, dots, gains, hue, name_ends, trainings, whiskers


def ladder(record: dict) -> Figure:
    """The worst case so far on every rung, and what SR changes of it."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.4, 4.8), width_ratios=(5, 2), layout="constrained")
    climbed = rungs(record)
    places, ends = np.arange(len(climbed)), []
    for training in trainings(record):
        rows = [select(record, quantity="mean accuracy", training=training, attack=rung)[0] for rung in climbed]
        end = curve(left, places, rows, hue(training), width=1.8)
        ends.append((end, title(training), hue(training)))
    name_ends(left, places[-1], ends)
    left.set_xticks(places, [_rung(record, rung) for rung in climbed], fontsize=7)
    left.set(ylabel="accuracy, worst case so far, %", ylim=(0, 101), xlim=(-0.3, len(climbed) - 0.2))
    left.set_xlabel("each rung with all before it; forward and backward passes per image up to there", fontsize=8)
    gains(right, {_short(r): select(record, quantity="difference", attack=r) for r in climbed}, below=0.07)
    return figure


def _short(rung: str) -> str:
    return "transfer: all" if rung == WORST else rung.removeprefix("up to ")


def _rung(record: dict, rung: str) -> str:
    """The name of a rung and its passes, from the training that needs least to the one that needs most."""
    spent = [r["value"] for r in select(record, quantity="mean passes", attack=rung)]
    low, high = round(min(spent)), round(max(spent))
    name = _short(rung).replace(" ", "\n", 1)
    return f"{name}\n{low}" if low == high else f"{name}\n{low}-{high}"


def whitebox(record: dict) -> Figure:
    """What each attack leaves by the network's own rule (pale) and by four rules (full), at each radius."""
    radii = list(dict.fromkeys(r["eps_255"] for r in select(record, quantity="mean accuracy") if r["eps_255"]))
    figure, panels = plt.subplots(
        len(radii), 1, figsize=(9, 1 + 2.5 * len(radii)), sharex=True, squeeze=False, layout="constrained"
    )
    names = trainings(record)
    width = 0.8 / len(names)
    for panel, eps in zip(panels[:, 0], radii, strict=True):
        rows = {(r["training"], r["attack"]): r for r in select(record, quantity="mean accuracy", eps_255=eps)}
        attacks = list(dict.fromkeys(a for _, a in rows if f"{a}{FOUR}" in {other for _, other in rows}))
        worst = [a for _, a in rows if a not in attacks and not a.endswith(FOUR)][:1]
        for i, training in enumerate(names):
            shift = (i - (len(names) - 1) / 2) * width
            for x, attack in enumerate([*attacks, *worst]):
                alone, four = rows[training, attack], rows.get((training, f"{attack}{FOUR}"), rows[training, attack])
                at = x + shift
                panel.bar(at, 100 * alone["value"], 0.92 * width, color=hue(training), alpha=0.3)
                panel.bar(
                    at,
                    100 * four["value"],
                    0.92 * width,
                    color=hue(training),
                    label=title(training) if x == 0 else None,
                )
                reach = 100 * whiskers([four])
                panel.errorbar(at, 100 * four["value"], yerr=reach, fmt="none", ecolor=".15", elinewidth=0.8)
        panel.set_xticks(range(len(attacks) + len(worst)), [*attacks, *(a.replace(" of", "\nof") for a in worst)])
        panel.set(ylabel="accuracy, %", ylim=(0, 101))
        panel.set_title(f"ε = {eps:g}/255", loc="left")
        panel.grid(axis="x", visible=False)
    panels[0, 0].legend(ncols=4, loc="lower right", bbox_to_anchor=(1, 1), fontsize=8)
    panels[-1, 0].set_xlabel(
        "full bars: the worst of four backward rules; pale: the network's own rule alone", fontsize=8
    )
    return figure


def blackbox(record: dict) -> Figure:
    """One panel a training: what each attack from outside leaves, beside the white box."""
    names = trainings(record)
    figure, panels = plt.subplots(
        1, len(names), figsize=(10, 4.2), sharey=True, sharex=True, squeeze=False, layout="constrained"
    )
    for panel, training in zip(panels[0], names, strict=True):
        rows = [r for r in select(record, quantity="mean accuracy", training=training) if r["attack"] != "clean"]
        (clean,) = select(record, quantity="mean accuracy", training=training, attack="clean")
        white, *others = rows
        lines = [r for r in others if not r["attack"].endswith(FOUR)]
        places = np.arange(len(lines) + 1)
        panel.axvline(100 * clean["value"], color=".6", linestyle=":", linewidth=1)
        panel.axvline(100 * white["value"], color=hue(training), linewidth=1, alpha=0.5)
        for y, row in zip(places, [white, *lines], strict=True):
            four = [r for r in rows if r["attack"] == f"{row['attack']}{FOUR}"]
            open_ = {"markerfacecolor": "white"} if four else {}
            dots(panel, [row], y - 0.14 * len(four), hue(training), elinewidth=1, **open_)
            dots(panel, four, [y + 0.14] * len(four), hue(training), elinewidth=1)
        panel.set_yticks(
            places, [f"white box:\n{white['attack']}", *(_outside(r["attack"]) for r in lines)], fontsize=7
        )
        panel.set_title(title(training), color=hue(training), fontweight="bold")
        panel.set(xlim=(0, 102), ylim=(len(lines) + 0.5, -0.8))
    panels[0, 0].text(100 * clean["value"], -0.55, "clean", fontsize=7, color=".4", ha="center")
    panels[0, -1].set_xlabel("accuracy, %")
    panels[0, 0].set_xlabel("made on a substitute: open, by its own rule;\nfull, the worst of four rules", fontsize=8)
    return figure


def _outside(attack: str) -> str:
    training, network = made_on(attack)
    return f"made on {title(training)},\n{network}" if training else attack
