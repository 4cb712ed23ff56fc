"""Records → figures.  One colour per training through the whole work; the title states the finding.

`draw(record)` is the whole door: the notebooks show what it returns and `make` writes the same figure to a file.
"""

import io
import textwrap
from collections.abc import Callable
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from paperlib import records
from paperlib.claims import caption, headline, select, title

COLOURS = {"vanilla": "#4d4d4d", "sr": "#0072b2", "at": "#e69f00", "at+sr": "#009e73"}
OTHER = "#882255"  # of a training that the paper does not have
NOISE = {"uniform": "#56b4e9", "sign": "#cc79a7"}
ATTACK = "#d55e00"
STYLE = {"font.size": 9, "axes.titlesize": 9, "legend.frameon": False, "figure.dpi": 110}
DPI = 160  # of the files


def draw(record: dict) -> Figure:
    """The artifact's figure, titled with its finding, captioned with data, n, seeds and interval."""
    with sns.axes_style("whitegrid", {"grid.color": ".9"}), matplotlib.rc_context(STYLE):
        figure = DRAWINGS[record["artifact"]](record)
        figure.suptitle(
            "\n".join(textwrap.wrap(headline(record), int(9.6 * figure.get_figwidth()))),
            fontsize=11,
            fontweight="bold",
            x=0.02,
            ha="left",
        )
        figure.supxlabel(caption(record), fontsize=8, color=".35", x=0.02, ha="left")
    plt.close(figure)  # a notebook shows what a cell returns; an open figure would be shown twice
    return figure


def save(record: dict, path: Path) -> None:
    """Write the artifact's figure as PNG, without a date or a version, so that equal records give equal bytes."""
    picture = io.BytesIO()
    draw(record).savefig(picture, format="png", dpi=DPI, metadata={"Software": None})
    records.write_atomically(path, picture.getvalue())


def _random(record: dict) -> Figure:
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
            end = _curve(panel, radii, rows, colour, width=widths.get(k, 1.2))
            ends.append((end, f"noise, {k}ε" if k > 1 else "noise, ε", colour))
        end = _curve(panel, [r["eps_255"] for r in attacked], attacked, ATTACK, width=1.8)
        _name_ends(panel, attacked[-1]["eps_255"], [*ends, (end, f"{attacked[0]['attack']}, ε", ATTACK)])
        panel.set(title={"uniform": "Uniform noise", "sign": "Random signs"}[law], xlabel="ε of the attack, in 1/255")
        panel.set_xlim(0, 1.22 * attacked[-1]["eps_255"])
    panels[0].set(ylabel="accuracy, %", ylim=(0, 101))
    panels[0].text(0.4, 100 * clean["value"] + 1, "clean", color=".4", fontsize=8)
    return figure


def _curve(panel: Axes, x: list[float], rows: list[dict], colour: str, *, width: float) -> float:
    """A line of percentages with its interval as a band; returns the height at which it ends."""
    values = np.array([[100 * r["value"], 100 * _or(r, "low"), 100 * _or(r, "high")] for r in rows]).T
    panel.plot(x, values[0], color=colour, linewidth=width, marker="o", markersize=3)
    panel.fill_between(x, values[1], values[2], color=colour, alpha=0.18, linewidth=0)
    return values[0, -1]


def _name_ends(panel: Axes, x: float, ends: list[tuple[float, str, str]], apart: float = 4.5) -> None:
    """Write (height, name, colour) beside the lines' ends at `x`, from the top down, moved apart where too close."""
    below = np.inf
    for height, name, colour in sorted(ends, reverse=True):
        below = min(height, below - apart * (1 + name.count("\n")))
        where = {"textcoords": "offset points", "va": "center", "color": colour, "fontsize": 8}
        panel.annotate(name, (x, below), (4, 0), **where)


def _ablation(record: dict) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), width_ratios=(3, 2), layout="constrained")
    rows = [r for r in select(record, quantity="mean accuracy") if not r["attack"].endswith("noise")]
    columns = list(dict.fromkeys((r["attack"], r["eps_255"]) for r in rows))
    columns.sort(key=lambda c: (("clean", "FGSM").index(c[0]) if c[0] in ("clean", "FGSM") else 2, c[1]))
    trainings = _trainings(record)
    width = 0.8 / len(trainings)
    for i, training in enumerate(trainings):
        own = {(r["attack"], r["eps_255"]): r for r in rows if r["training"] == training}
        x = np.arange(len(columns)) + (i - (len(trainings) - 1) / 2) * width
        values = [100 * own[c]["value"] for c in columns]
        errors = [[100 * (own[c]["value"] - max(0, _or(own[c], "low"))) for c in columns]]
        errors += [[100 * (min(1, _or(own[c], "high")) - own[c]["value"]) for c in columns]]
        left.bar(x, values, width * 0.92, color=COLOURS.get(training, OTHER), label=title(training))
        left.errorbar(x, values, np.maximum(errors, 0), fmt="none", ecolor=".15", elinewidth=0.8)
    names = [a if a == "clean" else f"{a}\n{e:g}/255" for a, e in columns]
    left.set_xticks(range(len(columns)), names, fontsize=8)
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
        _dots(right, own, y, COLOURS.get(training, OTHER), f"{title(training)} - {title(against)}")
    right.axvline(0, color=".4", linewidth=0.8)
    right.set_yticks(range(len(own)), [r["attack"] if r["attack"] == "clean" else f"{r['eps_255']:g}/255" for r in own])
    attack = next(r["attack"] for r in own if r["attack"] != "clean")
    right.set(title=f"What SR changes, clean and under {attack}", xlabel="percentage points, paired by seed")
    right.invert_yaxis()
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8, ncols=2)
    return figure


def _dots(panel: Axes, rows: list[dict], y: np.ndarray, colour: str, label: str) -> None:
    values = np.array([100 * r["value"] for r in rows])
    errors = [[100 * (r["value"] - _or(r, "low")) for r in rows], [100 * (_or(r, "high") - r["value"]) for r in rows]]
    panel.errorbar(values, y, xerr=errors, fmt="o", color=colour, markersize=5, elinewidth=1.4, label=label)


def _maps(record: dict) -> Figure:
    images = np.array(record["arrays"]["images"])  # (N, C, H, W)
    maps = {training: np.array(m) for training, m in record["arrays"]["maps"].items()}
    figure = plt.figure(figsize=(9.6, 6.4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(3, 2.1))
    panels = left.subplots(len(images), 1 + len(maps), squeeze=False)
    for row, image in zip(panels, images, strict=True):
        row[0].imshow(image.transpose(1, 2, 0).squeeze(), cmap="gray_r", vmin=0, vmax=1)
    panels[0, 0].set_title("image", fontsize=8)
    for column, (training, gradients) in enumerate(maps.items(), start=1):
        panels[0, column].set_title(title(training), color=COLOURS.get(training, OTHER), fontsize=8, fontweight="bold")
        for row, gradient in zip(panels, gradients, strict=True):
            shown = gradient.sum(0)  # channels added; each map on its own scale, since l1 differs by orders
            limit = np.abs(shown).max() or 1
            row[column].imshow(shown, cmap="RdBu_r", vmin=-limit, vmax=limit)
            l1, l2 = np.abs(gradient).sum(), np.sqrt((gradient**2).sum())
            number = f"{(l1 / l2) ** 2:.0f}" if l2 else "undefined"
            row[column].set_xlabel(f"l1 {l1:.2g}, l2 {l2:.1g}\nPN {number}", fontsize=6)
    for panel in panels.flat:
        panel.set(xticks=[], yticks=[])
        sns.despine(ax=panel, left=True, bottom=True)
    left.supxlabel("∇f by pixel, each on its own scale; red: brighter makes the true class likelier", fontsize=7)
    scatters = right.subplots(2, 1, sharey=True)
    robust = {r["experiments"][0]: r for r in select(record, quantity="accuracy")}
    for panel, name in zip(scatters, ("participation number", "l1"), strict=True):
        for training in _trainings(record):
            rows = [r for r in select(record, quantity=name, training=training) if r["value"] is not None]
            accuracy = [100 * robust[r["experiments"][0]]["value"] for r in rows]
            panel.plot(
                [r["value"] for r in rows], accuracy, "o", color=COLOURS.get(training, OTHER), markersize=4, alpha=0.8
            )
        (correlation,) = select(record, quantity="rank correlation", sparsity=name)
        known = "undefined" if correlation["value"] is None else f"{correlation['value']:.2f}"
        panel.set_title(f"rank correlation {known}", fontsize=8, loc="right")
        panel.set_xlabel(f"median {'‖g‖₁' if name == 'l1' else name}")
        if any(r["value"] for r in select(record, quantity=name)):
            panel.set_xscale("log")
            panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.xaxis.set_major_formatter("{x:g}")
            panel.xaxis.set_minor_locator(NullLocator())
    scatters[0].set_ylabel(f"accuracy under {correlation['attack']}\nat {correlation['eps_255']:g}/255, %", y=0)
    return figure


def _lambda(record: dict) -> Figure:
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
        end = _curve(panel, [places[r.get("lam", 0.0)] for r in rows], rows, colour, width=1.8)
        ends.append((end, name, colour))
        for row in select(record, quantity="accuracy", attack=attack):
            panel.plot(places[row.get("lam", 0.0)], 100 * row["value"], ".", color=colour, markersize=4, alpha=0.6)
    _name_ends(panel, len(lambdas) - 1, ends)
    panel.axvline(places[chosen["value"]], color=COLOURS["sr"], linestyle="--", linewidth=1)
    panel.text(places[chosen["value"]], 2, " chosen", color=COLOURS["sr"], fontsize=8)
    panel.set_xticks(range(len(lambdas)), [f"{lam:g}" if lam else "0\n(vanilla)" for lam in lambdas])
    panel.set(xlabel="λ", ylabel="validation accuracy, %", ylim=(0, 101), xlim=(-0.3, len(lambdas) - 0.3))
    return figure


def _ratio(record: dict) -> Figure:
    figure, panel = plt.subplots(figsize=(7.2, 4), layout="constrained")
    bounds = 3.0, 3.0 * record["arrays"]["pixels"]
    bins = np.geomspace(2.5, 1.3 * bounds[1], 80)
    for training in _trainings(record):
        colour = COLOURS.get(training, OTHER)
        ratios = [r for r in record["arrays"][training] if r is not None]
        if not ratios:
            continue
        panel.hist(ratios, bins, histtype="stepfilled", color=colour, alpha=0.25)
        counts, _, _ = panel.hist(ratios, bins, histtype="step", color=colour, linewidth=1.4)
        panel.text(np.median(ratios), counts.max() + 2, title(training), color=colour, ha="center", fontweight="bold")
    panel.margins(y=0.2)  # room for what is written at the bounds
    panel.axvline(bounds[0], color=ATTACK, linestyle="--", linewidth=1)
    panel.axvline(bounds[1], color=ATTACK, linestyle="--", linewidth=1)
    text = {"y": 0.98, "transform": panel.get_xaxis_transform(), "color": ATTACK, "fontsize": 8, "va": "top"}
    panel.text(bounds[0], s=" 3, the lower bound", ha="left", **text)
    panel.text(bounds[1], s="3·pixels, above every upper bound ", ha="right", **text)
    panel.set(xscale="log", xlabel="linear ratio 3‖g‖₁²/‖g‖₂² of one test image (first seed)", ylabel="images")
    return figure


def _quotient(record: dict) -> Figure:
    figure, panels = plt.subplots(1, 3, figsize=(9.6, 3.6), layout="constrained")
    shown = (("rank correlation", "rank correlation with ‖g‖₁"), ("quotient over l1", "mean quotient over mean ‖g‖₁"))
    shown = (*shown, ("probability moved", "share of images that moved"))
    used = record["arrays"]["used_h"]
    for panel, (quantity, heading) in zip(panels, shown, strict=True):
        for training in dict.fromkeys(r["training"] for r in record["rows"]):
            rows = [r for r in select(record, quantity=quantity, training=training) if r["value"] is not None]
            h = [r["h"] for r in rows]
            panel.plot(
                h,
                [r["value"] for r in rows],
                "o-",
                color=COLOURS.get(training, OTHER),
                markersize=3,
                label=title(training),
            )
            panel.fill_between(
                h,
                [_or(r, "low") for r in rows],
                [_or(r, "high") for r in rows],
                color=COLOURS.get(training, OTHER),
                alpha=0.18,
            )
        panel.axvline(used, color=".5", linestyle=":", linewidth=1)
        panel.set(xscale="log", xlabel=f"h (dotted: SR's, {used:g})", title=heading)
    panels[1].axhline(1, color=".6", linewidth=0.8)
    panels[0].legend(fontsize=8)
    return figure


def _trainings(record: dict) -> list[str]:
    """The trainings in `record`: the paper's in their order, then any others."""
    found = dict.fromkeys(row["training"] for row in record["rows"] if "training" in row)
    return sorted(found, key=lambda t: list(COLOURS).index(t) if t in COLOURS else len(COLOURS))


def _or(row: dict, bound: str) -> float:
    """The bound, or the value itself where one seed has no interval."""
    return row["value"] if row[bound] is None else row[bound]


DRAWINGS: dict[str, Callable[[dict], Figure]] = {
    "fig-random-vs-adversarial": _random,
    "tab-ablation": _ablation,
    "fig-gradient-maps": _maps,
    "fig-lambda": _lambda,
    "thm-ratio": _ratio,
    "prop-finite-difference": _quotient,
}
