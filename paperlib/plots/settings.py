"""SR's gain over steps, leak and reset of the neurons: a row a setting, or for a whole grid lines against T."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paperlib.claims import WORST, clear, select
from paperlib.findings.settings import ANN, WORDS, against, apart, gains, name, word
from paperlib.plots.core import bound, dots, hue, whiskers

CLEAN = "clean"
OPEN = {"markerfacecolor": "white"}
FORMS = {WORST: (0.14, {}), CLEAN: (-0.14, OPEN)}  # place within a setting's row, and style
SHIFT = 0.1  # between the points of one T
GAP = 0.5  # between what varies T, τ, reset and neuron
DECIDED, UNDECIDED = "black", ".65"  # of differences clear of 0, and of others


def settings(record: dict) -> Figure:
    """Vanilla → SR, the gain, and the gain minus the own setting's; of a grid the gain against T."""
    found = gains(record)
    if not found:
        return _nothing()
    return _grid(record) if any(len(apart(r, found[0])) > 1 for r in found) else _rows(record)


def _nothing() -> Figure:
    figure, panel = plt.subplots(figsize=(7, 1.6), layout="constrained")
    panel.text(0, 0.5, "`lambdas` is empty: give some, and networks are trained for this figure.", va="center")
    panel.set_axis_off()
    return figure


# ---- one thing at a time ---------------------------------------------------------------------------------------------


def _rows(record: dict) -> Figure:
    places, ticks = _places(record)
    size = (10.4, 1.9 + 0.33 * ticks[-1][0])
    figure, panels = plt.subplots(1, 3, figsize=size, sharey=True, width_ratios=(4, 3, 3), layout="constrained")
    left, middle, right = panels
    for panel in panels:
        panel.grid(axis="y", visible=False)
        for y in places[name(gains(record)[0], gains(record)[0])]:
            panel.axhspan(y - 0.5, y + 0.5, color=".94", zorder=0)
    _accuracies(left, record, places)
    _gains(middle, record, places)
    _differences(right, record, places)
    left.set_yticks([y for y, _, _ in ticks], [text for _, text, _ in ticks])
    for label, (_, _, own) in zip(left.get_yticklabels(), ticks, strict=True):
        label.set(fontweight="bold" if own else "normal")
    left.set_ylim(ticks[-1][0] + 0.6, -0.6)
    return figure


def _places(record: dict) -> tuple[dict[str, list[float]], list[tuple[float, str, bool]]]:
    """The heights of each setting by name (the own stands in every group), and each height's label, own or not."""
    found, places, ticks, y = gains(record), {}, [], 0.0
    chosen = {name(r, found[0]): r["value"] for r in select(record, quantity="chosen λ")}
    for axis in WORDS:
        group = sorted((r for r in found if set(apart(r, found[0])) <= {axis}), key=lambda r: r[axis])
        for r in group if len(group) > 1 else []:
            label = name(r, found[0])
            places.setdefault(label, []).append(y)
            star = "" if chosen[label] else "*"
            ticks.append((y, f"{word(r, axis)},  λ = {r['lam']:g}{star}", r is found[0]))
            y += 1
        y += GAP * (len(group) > 1)
    return places, ticks


def _accuracies(panel: Axes, record: dict, places: dict[str, list[float]]) -> None:
    own = gains(record)[0]
    for attack, (shift, style) in FORMS.items():
        for gain in gains(record, attack):
            of = {key: gain[key] for key in WORDS if key in gain} | {"quantity": "mean accuracy", "attack": attack}
            (vanilla,) = select(record, training="vanilla", **of)
            (sr,) = select(record, training="sr", lam=gain["lam"], **of)
            for y in places[name(gain, own)]:
                ends = [100 * r["value"] for r in (vanilla, sr)]
                panel.plot(ends, [y + shift] * 2, color=hue("sr"), linewidth=2.5, alpha=0.35)
                for x, training in zip(ends, ("vanilla", "sr"), strict=True):
                    panel.plot(x, y + shift, "o", color=hue(training), markersize=5, **style)
    panel.set(title="Accuracy, %: from vanilla (grey) to SR (blue)", xlim=(0, 101))
    starred = not all(r["value"] for r in select(record, quantity="chosen λ"))
    told = "bold and shaded: the profile's own" + "; * no λ was chosen, the smallest is shown" * starred
    panel.set_xlabel(told, fontsize=8)
    marks = [Line2D([], [], marker="o", color=hue("sr"), linestyle="none", **style) for _, style in FORMS.values()]
    names = [f"{WORST}, {own['eps_255']:g}/255", CLEAN]
    panel.legend(marks, names, loc="upper right", bbox_to_anchor=(0, -0.01), fontsize=8)


def _gains(panel: Axes, record: dict, places: dict[str, list[float]]) -> None:
    own = gains(record)[0]
    for attack, (shift, style) in FORMS.items():
        for gain in gains(record, attack):
            for y in places[name(gain, own)]:
                dots(panel, [gain], y + shift, hue("sr"), **style)
    panel.axvline(0, color=".4", linewidth=0.8)
    panel.set(title="What SR gains, points")


def _differences(panel: Axes, record: dict, places: dict[str, list[float]]) -> None:
    for label, row in against(record).items():
        for y in places[label]:
            dots(panel, [row], y, DECIDED if clear(row) else UNDECIDED)
    panel.axvline(0, color=".4", linewidth=0.8)
    panel.set(title="That gain minus the own setting's")
    panel.set_xlabel(f"points, {WORST}; black: clear of 0", fontsize=8)


# ---- every T with every τ and reset ----------------------------------------------------------------------------------


def _grid(record: dict) -> Figure:
    figure, panels = plt.subplots(
        2, 2, figsize=(10, 6.4), sharex=True, sharey="row", height_ratios=(3, 2), layout="constrained"
    )
    for line, attack in zip(panels, (WORST, CLEAN), strict=True):
        for panel, reset in zip(line, ("attached", "detached"), strict=True):
            _lines(panel, record, attack, reset)
    for panel, reset in zip(panels[0], ("attached", "detached"), strict=True):
        panel.set_title(f"{reset} reset", fontweight="bold")
    for panel, what in zip(panels[:, 0], (f"SR's gain, {WORST}, points", "clean, points"), strict=True):
        panel.set_ylabel(what)
    panels[0, 1].legend(fontsize=8, frameon=True)
    panels[1, 0].set_xlabel("ringed: the profile's own; full dots: clearly another gain than that", fontsize=8)
    return figure


def _lines(panel: Axes, record: dict, attack: str, reset: str) -> None:
    found, beside = gains(record, attack), against(record, attack)
    own, spiking = found[0], [r for r in found if r["neuron"] == "LIF"]
    T, taus = (sorted({r[axis] for r in spiking}) for axis in ("T", "tau"))
    for i, tau in enumerate(taus):
        colour = to_hex(plt.get_cmap("Blues")(0.4 + 0.6 * (i + 1) / len(taus)))
        rows = [r for r in spiking if r["T"] == 1 or (r["tau"], r["reset"]) == (tau, reset)]  # one step: whatever τ
        rows.sort(key=lambda r: r["T"])
        places = [T.index(r["T"]) + SHIFT * (i - (len(taus) - 1) / 2) * (r["T"] > 1) for r in rows]
        panel.plot(places, [100 * r["value"] for r in rows], color=colour, label=WORDS["tau"].format(tau))
        for x, row in zip(places, rows, strict=True):
            fill = {} if row is not own and clear(beside[name(row, own)]) else OPEN
            reach = 100 * whiskers([row])
            panel.errorbar(x, 100 * row["value"], reach, fmt="o", color=colour, markersize=5, elinewidth=1.2, **fill)
            if row is own:
                panel.plot(x, 100 * row["value"], "o", color="black", markersize=12, markerfacecolor="none")
    (ann,) = (r for r in found if r["neuron"] == "ReLU")
    panel.axhspan(100 * bound(ann, "low"), 100 * bound(ann, "high"), color=".5", alpha=0.12, linewidth=0)
    panel.axhline(100 * ann["value"], color="black", linestyle="--", linewidth=1, label=ANN)
    panel.axhline(0, color=".4", linewidth=0.8)
    panel.set_xticks(range(len(T)), [f"T = {steps}" for steps in T])
