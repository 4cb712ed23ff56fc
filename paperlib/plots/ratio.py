"""The ratio theorem: exact cases, three regimes, where first order ends, what predicts and what scales the ratio."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paperlib.claims import REGIMES, select, title
from paperlib.plots.core import ATTACK, LOG, OTHER, hue, line, logarithmic, trainings, whiskers

FATE = {
    "no gradient": "#8c8c8c",
    "nothing moved": "#d9d9d9",
    "below 3": "#882255",
    "inside": "#9ecae1",
    "above 3‖g‖₀": ATTACK,
    "only the attack moved": "#f5b78a",
}
MARKS = {"measured": ("o", "#0072b2"), "closed form": ("|", ".2"), "first order": ("|", ".2"), "3‖g‖₀": (">", ATTACK)}


def exact(record: dict) -> Figure:
    """Monte Carlo against the closed form; for the logistic functions against what first order says."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), width_ratios=(3, 2), layout="constrained", subplot_kw=LOG)
    cases = list(dict.fromkeys((r["case"], r["law"]) for r in record["rows"] if "case" in r))
    for panel, logistic in zip(panels, (False, True), strict=True):
        own = [c for c in cases if c[0].startswith("logistic") == logistic]
        for y, (case, law) in enumerate(own):
            for quantity, (mark, colour) in MARKS.items():
                for r in select(record, quantity=quantity, case=case, law=law):
                    size = 14 if mark == "|" else 5
                    panel.errorbar(
                        r["value"], y, xerr=whiskers([r]), fmt=mark, color=colour, markersize=size, elinewidth=1.6
                    )
        names = [
            case.removeprefix("logistic, ").replace(", ", "\n") if logistic else f"{case}, {law}" for case, law in own
        ]
        panel.set_yticks(range(len(own)), names)
        panel.set(ylim=(len(own) - 0.5, -0.5), xlabel="ρ_adv/ρ_rand")
    panels[0].set_title("f linear: gradient, law of the noise")
    panels[1].set_title("f logistic")
    panels[1].axvline(3, color=ATTACK, linewidth=1, linestyle="--")
    shown = {"measured": ("o", "#0072b2"), "first order": ("|", ".2"), "bounds 3 and 3‖g‖₀": (">", ATTACK)}
    handles = [Line2D([], [], marker=m, color=c, linestyle="", label=name) for name, (m, c) in shown.items()]
    panels[0].legend(handles=handles, loc="lower left", fontsize=8)
    return figure


def regimes(record: dict) -> Figure:
    """Above: the ratio against ε, median and quartiles over samples.  Below: where the samples lie."""
    figure, panels = plt.subplots(2, 2, figsize=(9.6, 6), height_ratios=(3, 2.3), layout="constrained")
    names, radii = trainings(record), _radii(record)
    for above, below, regime in zip(*panels, REGIMES, strict=True):
        above.set_xscale("log")
        for training in names:
            quartiles = np.array(record["arrays"]["quartiles"][regime][training], dtype=float).T
            above.plot(radii, quartiles[1], "o-", color=hue(training), markersize=3, label=title(training))
            above.fill_between(radii, quartiles[0], quartiles[2], color=hue(training), alpha=0.15, linewidth=0)
            linear = [r["value"] for r in select(record, quantity="linear ratio", training=training)]
            known = [value for value in linear if value is not None]
            if known:
                above.axhline(np.mean(known), color=hue(training), linewidth=0.8, linestyle=":")
        pixels = record["arrays"]["pixels"]
        for height, text in ((3, "3"), (3 * pixels, "3·pixels")):
            above.axhline(height, color=ATTACK, linewidth=1, linestyle="--")
            above.text(radii[0], height * 1.1, text, color=ATTACK, fontsize=8)
        above.set(title=regime, xlabel="ε, in 1/255")
        logarithmic(above)
        _fates(below, record, regime, names, radii)
    panels[0, 0].sharey(panels[0, 1])
    panels[0, 0].set_ylabel("ρ_adv/ρ_rand\n(dotted: the linear ratio)")
    panels[1, 0].set_ylabel("share of images")
    handles = [Line2D([], [], color=hue(t), marker="o", markersize=3, label=title(t)) for t in names]
    handles += [Line2D([], [], linestyle="", label=" ")]
    handles += [plt.Rectangle((0, 0), 1, 1, facecolor=colour, label=name) for name, colour in FATE.items()]
    figure.legend(handles=handles, fontsize=8, loc="outside right center")
    return figure


def _fates(panel: Axes, record: dict, regime: str, names: list[str], radii: list[float]) -> None:
    width = 0.86 / len(names)
    for i, training in enumerate(names):
        x, height = np.arange(len(radii)) + (i - (len(names) - 1) / 2) * width, np.zeros(len(radii))
        for name, colour in FATE.items():
            rows = select(record, quantity=name, regime=regime, training=training)
            values = np.array([r["value"] or 0 for r in rows])
            panel.bar(x, values, width * 0.9, height, color=colour, linewidth=0)
            height = height + values
        for place in x:
            panel.plot([place - width * 0.45, place + width * 0.45], [-0.03] * 2, color=hue(training), linewidth=3)
    panel.set_xticks(range(len(radii)), [f"{eps:.2g}" for eps in radii])
    panel.set(ylim=(-0.05, 1), xlabel="ε, in 1/255")
    panel.grid(visible=False)


def vulnerabilities(record: dict) -> Figure:
    """ρ_adv and ρ_rand themselves, so that a ratio that shrinks because both do is seen as such."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained", subplot_kw=LOG)
    for panel, regime in zip(panels, REGIMES, strict=True):
        for training in trainings(record):
            for quantity, style in (("ρ_adv", "-"), ("ρ_rand", "--")):
                rows = select(record, quantity=quantity, regime=regime, training=training)
                label = title(training) if quantity == "ρ_adv" else None
                positive = [r for r in rows if r["value"]]  # a logarithm has no place for 0
                line(panel, "eps_255", positive, hue(training), label, linestyle=style)
        panel.set(title=regime, xlabel="ε, in 1/255", ylim=(1e-14, 3))
        logarithmic(panel)
    panels[0].set_ylabel("median squared change of f_y")
    panels[0].legend(fontsize=8, title="solid: ρ_adv, dashed: ρ_rand", title_fontsize=8)
    return figure


def first_order(record: dict) -> Figure:
    """Where the first-order picture ends, and why: roughness below, saturation above."""
    figure, panels = plt.subplots(1, 4, figsize=(12, 3.6), layout="constrained")
    for panel in panels[:3]:
        panel.set(**LOG)
    for panel, quantity in zip(panels, ("ρ_rand over first order", "ρ_adv over first order"), strict=False):
        for training in trainings(record):
            for regime, style in zip(REGIMES, (":", "-"), strict=True):
                rows = select(record, quantity=quantity, regime=regime, training=training)
                positive = [r for r in rows if r["value"]]
                line(panel, "eps_255", positive, hue(training), linestyle=style)
        panel.axhline(1, color=".4", linewidth=0.8)
        symbol = quantity.partition(" ")[0]
        panel.set(title=f"{symbol}, measured/first order", xlabel="ε, in 1/255")
        logarithmic(panel)
        panel.set_ylim(0.2, 2e3)
    for training in trainings(record):
        rows = select(record, quantity="draws that moved f_y", regime=REGIMES[1], training=training)
        line(panels[2], "eps_255", rows, hue(training), title(training))
        there = record["arrays"]["saturation"].get(training)
        if there and any(e for e in there["excess"] if e):
            margin, excess = (np.array(there[name], dtype=float) for name in ("margin", "excess"))
            panels[3].plot(margin, excess, ".", color=hue(training), markersize=4, alpha=0.6)
    panels[2].legend(fontsize=8, loc="lower right", title="solid: spiking\ndotted: smooth", title_fontsize=8)
    panels[2].set(ylim=(0, 1.03), title="draws that move f_y (spiking)", xlabel="ε, in 1/255")
    panels[3].axhline(1, color=ATTACK, linestyle="--", linewidth=1)
    panels[3].set(xlabel="log-odds of the true class", title=f"ratio/3‖g‖₀ at {_radii(record)[-1]:g}/255")
    logarithmic(panels[3])
    return figure


def worst(record: dict) -> Figure:
    """The image that breaks each bound most, with the ratio over that bound against ε."""
    figure, panels = plt.subplots(1, 4, figsize=(9.6, 3.4), width_ratios=(1, 3, 1, 3), layout="constrained")
    for i, (side, name) in enumerate((("upper", "3‖g‖₀"), ("lower", "3"))):
        picture, panel = panels[2 * i : 2 * i + 2]
        panel.set_xscale("log")
        rows = [r for r in select(record, quantity="ratio over bound", bound=side) if r["value"]]
        panel.axhline(1, color=ATTACK, linestyle="--", linewidth=1)
        panel.set(xlabel="ε, in 1/255", ylabel=f"ratio over the {side} bound {name}")
        if not rows:
            panel.text(0.5, 0.5, "no ratio is defined", transform=panel.transAxes, ha="center")
            picture.axis("off")
            continue
        line(panel, "eps_255", rows, hue(rows[0]["training"]))
        logarithmic(panel)
        image = np.array(record["arrays"]["worst"][side])
        picture.imshow(image.transpose(1, 2, 0).squeeze(), cmap="gray_r", vmin=0, vmax=1)
        picture.set(xticks=[], yticks=[], title=f"{title(rows[0]['training'])}, seed {rows[0]['seeds'][0]}")
        picture.set_xlabel(f"log-odds of the\ntrue class {rows[0]['log_odds']:.1f}", fontsize=8)
    return figure


def sparsity(record: dict) -> Figure:
    """Rank correlation of each size and sparsity with what was measured, over samples and over networks."""
    rows = select(record, quantity="rank correlation")
    targets = list(dict.fromkeys(r["target"] for r in rows))
    names = list(dict.fromkeys(r["sparsity"] for r in rows))
    figure, panels = plt.subplots(
        1, len(targets), figsize=(2 + 1.7 * len(targets), 4), sharey=True, layout="constrained"
    )
    colours = {"samples": "#0072b2", "networks": OTHER}
    for panel, target in zip(np.atleast_1d(panels), targets, strict=True):
        panel.axvline(0, color=".4", linewidth=0.8)
        for shift, (over, colour) in zip((-0.15, 0.15), colours.items(), strict=True):
            own = [r for r in rows if r["target"] == target and r["over"] == over and r["value"] is not None]
            y = [names.index(r["sparsity"]) + shift for r in own]
            values = np.array([r["value"] for r in own])
            panel.errorbar(values, y, xerr=whiskers(own), fmt="o", color=colour, markersize=4, elinewidth=1.2)
        panel.set(xlim=(-1.05, 1.05), xticks=(-1, 0, 1), title=target)
    figure.axes[0].set_yticks(range(len(names)), names)
    figure.axes[0].invert_yaxis()
    handles = [Line2D([], [], marker="o", color=c, linestyle="", label=f"over {o}") for o, c in colours.items()]
    figure.legend(handles=handles, loc="outside right upper", fontsize=8)
    return figure


def scale(record: dict) -> Figure:
    """What moves when logits are multiplied by c, although no decision does."""
    figure, panels = plt.subplots(1, 2, figsize=(9.6, 3.9), layout="constrained", subplot_kw=LOG)
    rows = select(record, quantity="scaled")
    moving = {"l1": "#0072b2", "l2": "#56b4e9", "ρ_rand": "#cc79a7", "ρ_adv": ATTACK, "ratio": "#000000"}
    kept = {
        "participation number": "#0072b2",
        "participation number, two classes": "#56b4e9",
        "Hoyer": "#009e73",
        "Gini": "#e69f00",
        "same decisions": ".2",
        "no gradient in 32 bits": ATTACK,
    }
    for panel, names in zip(panels, (moving, kept), strict=True):
        for name, colour in names.items():
            own = [r for r in rows if r["what"] == name]
            (unit,) = (r["value"] for r in own if r["scale"] == 1)
            unit = 1 if name in ("same decisions", "no gradient in 32 bits") else unit
            known = [r for r in own if r["value"] is not None and unit and (r["value"] > 0 or panel is panels[1])]
            x, y = [r["scale"] for r in known], [r["value"] / unit for r in known]
            panel.plot(x, y, "o-", color=colour, markersize=3, label=name)
        panel.set(xlabel="c, the factor of the logits")
        panel.legend(fontsize=7.5, loc="lower left" if panel is panels[0] else "upper left")
    panels[0].set(
        ylim=(1e-40, 1e30), ylabel="median, relative to c = 1", title="Sizes, vulnerabilities and their ratio"
    )
    logarithmic(panels[0])
    panels[1].set(ylim=(-0.05, 1.9), title="Sparsities, decisions, vanished gradients")
    return figure


def _radii(record: dict) -> list[float]:
    return list(dict.fromkeys(r["eps_255"] for r in select(record, quantity="ρ_adv")))
