"""The finite-difference proposition: the quotient over h, its error, the gradient of the penalty."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paperlib.claims import REGIMES, select, title
from paperlib.plots.core import ATTACK, LOG, hue, line, logarithmic, trainings, whiskers

SMOOTH, TRUE = REGIMES
SCHEMES = {"forward": "#0072b2", "backward": "#cc79a7", "central": "#009e73"}
LAYERS = 8  # as many can be named one by one


def followed(record: dict) -> Figure:
    """How the forward quotient of the spiking network follows ‖g‖₁ of its surrogate gradient."""
    figure, panels = plt.subplots(1, 3, figsize=(9.6, 3.6), layout="constrained", subplot_kw=_steps(record))
    shown = {
        "rank correlation": "rank correlation with ‖g‖₁",
        "quotient over l1": "mean quotient over mean ‖g‖₁",
        "probability moved": "share of images that moved",
    }
    correlated, factor = (record["arrays"]["window"][name] for name in ("correlation", "factor"))
    for panel, (quantity, heading) in zip(panels, shown.items(), strict=True):
        for training in trainings(record):
            own = {"quantity": quantity, "training": training, "regime": TRUE, "precision": "float32"}
            line(panel, "h", select(record, scheme="forward", **own), hue(training), title(training))
        panel.axvline(record["arrays"]["used_h"], color=".5", linestyle=":", linewidth=1)
        xlabel = f"h (dotted: SR's, {record['arrays']['used_h']:g})"
        panel.set(xlabel=xlabel, title=heading)
    panels[0].axhspan(correlated, 1, color="#009e73", alpha=0.08, linewidth=0)
    panels[0].set_ylim(-0.5, 1.03)
    panels[1].axhspan(1 / factor, factor, color="#009e73", alpha=0.08, linewidth=0)
    panels[1].axhline(1, color=".6", linewidth=0.8)
    panels[1].set_ylim(-1, 4)
    panels[2].set_ylim(0, 1.03)
    panels[0].legend(fontsize=8, loc="lower right")
    return figure


def window(record: dict) -> Figure:
    """The h at which the quotient is a proxy, a line a network."""
    rows = [r for r in select(record, quantity="window from") if r["precision"] == "float32"]
    figure, panel = plt.subplots(figsize=(7.2, 0.9 + 0.27 * len(rows)), layout="constrained", subplot_kw=_steps(record))
    for y, low in enumerate(rows):
        same = {"training": low["training"], "seeds": low["seeds"], "precision": low["precision"]}
        (high,) = select(record, quantity="window to", **same)
        (used,) = select(record, quantity="correlation at SR's h", **same)
        if low["value"] is not None:
            panel.plot([low["value"], high["value"]], [y, y], color=hue(low["training"]), linewidth=6, alpha=0.6)
            panel.plot([low["value"], high["value"]], [y, y], "|", color=hue(low["training"]), markersize=10)
        text = "undefined" if used["value"] is None else f"{used['value']:.2f}"
        panel.text(1.02, y, text, transform=panel.get_yaxis_transform(), va="center", fontsize=8)
    panel.axvline(record["arrays"]["used_h"], color=".3", linestyle=":", linewidth=1.2)
    panel.text(1.02, -1, "r at SR's h", transform=panel.get_yaxis_transform(), va="center", fontsize=8)
    panel.set_yticks(range(len(rows)), [f"{title(r['training'])}, seed {r['seeds'][0]}" for r in rows])
    panel.set(xlabel="h (dotted: SR's)", ylim=(len(rows) - 0.5, -0.7))
    return figure


def schemes(record: dict) -> Figure:
    """Error of the three schemes against h, smooth and spiking, in two precisions."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained", subplot_kw=_steps(record))
    training = trainings(record)[0]
    for panel, regime in zip(panels, REGIMES, strict=True):
        for scheme, colour in SCHEMES.items():
            for precision, style in (("float64", "-"), ("float32", ":")):
                own = {"regime": regime, "scheme": scheme, "precision": precision, "training": training}
                rows = [r for r in select(record, quantity="relative error", **own) if r["value"]]
                line(panel, "h", rows, colour, scheme if style == "-" else None, linestyle=style)
        logarithmic(panel)
        panel.axvline(record["arrays"]["used_h"], color=".5", linestyle=":", linewidth=1)
        panel.set(title=f"{title(training)}, {regime}", xlabel="h")
    panels[0].set_ylabel("median of |quotient/‖g‖₁ - 1|")
    panels[0].legend(fontsize=8, title="solid: 64 bits, dotted: 32 bits", title_fontsize=8)
    return figure


def curvature(record: dict) -> Figure:
    """The error of the smooth networks' quotient against its predicted leading term."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    left.set(**_steps(record))
    for training in trainings(record):
        for scheme, style in (("forward", "-"), ("backward", "--")):
            own = {"training": training, "scheme": scheme, "precision": "float64"}
            rows = select(record, quantity="error over prediction", **own)
            line(left, "h", rows, hue(training), title(training) if style == "-" else None, linestyle=style)
        predicted, error = record["arrays"]["curvature"].get(training, ([], []))
        right.plot(predicted, error, ".", color=hue(training), markersize=5, alpha=0.6)
    left.axhline(1, color=".4", linewidth=0.8)
    left.axvline(record["arrays"]["used_h"], color=".5", linestyle=":", linewidth=1)
    left.set(xlabel="h")
    left.set(title="error over ±(h/2)·dᵀ∇²f d (solid: forward, dashed: backward)", ylim=(0, 1.5))
    left.legend(fontsize=8, loc="lower left")
    reach = [value for pair in record["arrays"]["curvature"].values() for values in pair for value in values] or [0]
    ends = [min(reach), max(reach)]
    right.plot(ends, ends, color=".5", linewidth=0.8)
    right.set(xlabel="predicted: (h/2)·dᵀ∇²f d", ylabel="quotient - ‖g‖₁")
    right.set_title(f"at h = {record['arrays']['used_h']:g}, first seed, an image a dot")
    return figure


def weights(record: dict) -> Figure:
    """The penalty's gradient by either way: direction, length, cost."""
    figure, panels = plt.subplots(1, 3, figsize=(10.4, 3.8), width_ratios=(3, 3, 2.2), layout="constrained")
    names = trainings(record)
    for panel, quantity in zip(panels, ("cosine", "norm ratio"), strict=False):
        layers = list(dict.fromkeys(r["layer"] for r in select(record, quantity=quantity)))
        for i, training in enumerate(names):
            for regime, mark in zip(REGIMES, ("o", "D"), strict=True):
                rows = select(record, quantity=quantity, training=training, regime=regime)
                rows = [r for r in rows if r["value"] is not None]
                x = [layers.index(r["layer"]) + (i - (len(names) - 1) / 2) * 0.17 for r in rows]
                fill = hue(training) if regime == TRUE else "white"
                style = {"color": hue(training), "markerfacecolor": fill, "markersize": 5, "elinewidth": 0.9}
                panel.errorbar(x, [r["value"] for r in rows], yerr=whiskers(rows), fmt=mark, **style)
        panel.axhline(1, color=".5", linewidth=0.8)
        last = max(layers, default=1)
        texts = [f"layer {n}" if n < last else "readout" for n in layers] if len(layers) <= LAYERS else layers
        panel.set_xticks(range(len(layers)), texts)
        panel.grid(axis="x", visible=False)
    panels[0].set(ylim=(-1.05, 1.05), title="cosine: finite difference and exact")
    panels[1].set(ylim=(0, None), title="norm: finite difference over exact")
    handles = [Line2D([], [], marker="o", color=hue(t), linestyle="", label=title(t)) for t in names]
    handles += [Line2D([], [], marker="o", color=".3", markerfacecolor="white", linestyle="", label="smooth")]
    handles += [Line2D([], [], marker="D", color=".3", linestyle="", label="spiking")]
    panels[0].legend(handles=handles, loc="lower left", ncols=2, fontsize=8)
    rows = [r for r in record["rows"] if "penalty" in r]
    for i, r in enumerate(rows):
        panels[2].barh(i, r["value"], color=ATTACK if r["penalty"].startswith("double") else "#56b4e9")
        panels[2].text(r["value"], i, f" {r['value']:.1f}", va="center", fontsize=8)
    panels[2].set_yticks(
        range(len(rows)), [f"{r['quantity']},\n{r['penalty'].replace(' back', chr(10) + 'back')}" for r in rows]
    )
    panels[2].set(title="cost, cross-entropy alone = 1", xlim=(0, 1.2 * max((r["value"] for r in rows), default=1)))
    panels[2].invert_yaxis()
    panels[2].grid(axis="y", visible=False)
    return figure


def _steps(record: dict) -> dict:
    """Properties of axes whose x is h."""
    steps = [r["h"] for r in record["rows"] if "h" in r]
    return LOG | {"xlim": (min(steps) / 2, max(steps) * 2)}
