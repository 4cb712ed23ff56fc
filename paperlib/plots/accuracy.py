"""Accuracy against radius and against λ."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paperlib.claims import RANDOM_FLIPS, select, title
from paperlib.findings.accuracy import broken, swept
from paperlib.plots.core import ATTACK, NOISE, curve, hue, name_dots, name_ends, whiskers

LAWS = {"uniform": "Uniform noise", "sign": "Random signs", RANDOM_FLIPS: "Random flips"}
TITLES = {RANDOM_FLIPS: "random flips"}  # of an attack, where it does not end in "noise"
SIGNS = {"eps_255": "ε", "eps_counts": "ε", "flips": "k"}  # of a radius


def random(record: dict) -> Figure:
    """Accuracy against the attack's ε; noise is drawn at the ε whose multiple it is."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    for panel, law in zip(panels, ("uniform", "sign"), strict=True):
        noise_panel(panel, record, law, "eps_255")
        panel.set(title=LAWS[law], xlabel="ε of the attack, in 1/255")
    panels[0].set(ylabel="accuracy, %", ylim=(0, 101))
    name_clean(panels[0], record)
    return figure


def noise_panel(panel: Axes, record: dict, law: str, unit: str, **of: str) -> None:
    """An attack's line against its radius in `unit`, and one for each multiple of it at which noise was drawn.

    `of` are labels, where the record has others.
    """
    gaps = select(record, quantity="mean gap", noise=law, **of)
    means = {(r["attack"], r.get(unit)): r for r in select(record, quantity="mean accuracy", **of)}
    (attack,) = {gap["attack"] for gap in gaps}
    attacked = [row for (name, radius), row in means.items() if name == attack]
    noise = TITLES.get(law, f"{law} noise")
    widths, ends = {1: 0.9, 2: 1.6, 4: 2.6}, []
    for k in dict.fromkeys(gap["factor"] for gap in gaps):
        radii = [gap[unit] for gap in gaps if gap["factor"] == k]
        end = curve(panel, radii, [means[noise, round(k * r, 6)] for r in radii], NOISE[law], width=widths.get(k, 1.2))
        ends.append((end, f"noise, {str(k) * (k > 1)}{SIGNS[unit]}", NOISE[law]))
    end = curve(panel, [r[unit] for r in attacked], attacked, ATTACK, width=1.8)
    name_ends(panel, attacked[-1][unit], [*ends, (end, f"{attack}, {SIGNS[unit]}", ATTACK)])
    panel.axhline(100 * _clean(record, **of)["value"], color=".6", linestyle=":", linewidth=1)
    panel.set_xlim(0, 1.22 * attacked[-1][unit])


def name_clean(panel: Axes, record: dict, **of: str) -> None:
    """Write "clean" above the dotted line of accuracy without a perturbation."""
    x = panel.get_xlim()[1] / 150
    panel.text(x, 100 * _clean(record, **of)["value"] + 1, "clean", color=".4", fontsize=8)


def _clean(record: dict, **of: str) -> dict:
    return select(record, quantity="mean accuracy", attack="clean", **of)[0]


def lambdas(record: dict) -> Figure:
    """Validation accuracy, clean and attacked: left against λ, right against each other; the chosen λ marked."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.4, 4.2), width_ratios=(5, 4), layout="constrained")
    (chosen,), (used,) = select(record, quantity="chosen λ"), select(record, quantity="used λ")
    means: dict[str, dict[float, dict]] = {}  # attack → λ → row
    for row in sorted(select(record, quantity="mean accuracy"), key=lambda r: r.get("lam", 0.0)):
        means.setdefault(row["attack"], {})[row.get("lam", 0.0)] = row
    colour = hue(swept(record))
    marks = {chosen["value"]: "chosen"} | ({} if used["value"] == chosen["value"] else {used["value"]: "in use"})
    _against_lambda(left, record, means, colour, marks)
    _trade_off(right, record, means, colour, marks)
    return figure


def _against_lambda(panel: Axes, record: dict, means: dict, colour: str, marks: dict) -> None:
    places = {lam: i for i, lam in enumerate(means["clean"])}  # equal steps: 0 has no place on a logarithmic axis
    ends = []
    for attack, rows in means.items():
        own = "#4d4d4d" if attack == "clean" else ATTACK
        end = curve(panel, list(places.values()), list(rows.values()), own, width=1.8)
        ends.append((end, attack if attack == "clean" else f"{attack}\n{rows[0.0]['eps_255']:g}/255", own))
        for row in select(record, quantity="accuracy", attack=attack):
            panel.plot(places[row.get("lam", 0.0)], 100 * row["value"], ".", color=own, markersize=4, alpha=0.6)
    name_ends(panel, len(places) - 1, ends)
    for lam, mark in marks.items():
        if lam in places:
            panel.axvline(places[lam], color=colour, linestyle="--" if mark == "chosen" else ":", linewidth=1)
            panel.text(places[lam], 2, f" {mark}", color=colour, fontsize=8)
    panel.set_xticks(range(len(places)), [f"{lam:g}" if lam else "0\n(vanilla)" for lam in places])
    panel.set(xlabel=f"λ of {title(swept(record))}", ylabel="validation accuracy, %")
    panel.set(ylim=(0, 101), xlim=(-0.3, len(places) - 0.1))


def _trade_off(panel: Axes, record: dict, means: dict, colour: str, marks: dict) -> None:
    """A dot a λ; those where a network broke down are told, not shown: they would leave no room for the others."""
    clean, (attack, attacked) = means["clean"], next(item for item in means.items() if item[0] != "clean")
    down = [lam for lam, (networks, _) in broken(record).items() if networks]
    shown = [lam for lam in clean if lam not in down]
    x, y = ([100 * rows[lam]["value"] for lam in shown] for rows in (clean, attacked))
    panel.plot(x, y, color=colour, linewidth=1, alpha=0.6, zorder=1)
    colours = [colour if lam else hue("vanilla") for lam in shown]
    for lam, own, *place in zip(shown, colours, x, y, strict=True):
        reach = {axis: 100 * whiskers([rows[lam]]) for axis, rows in (("xerr", clean), ("yerr", attacked))}
        panel.errorbar(*[[v] for v in place], **reach, fmt="none", ecolor=own, elinewidth=0.7, alpha=0.35, zorder=1)
        panel.plot(*place, "o", color=own, markersize=5)
        if lam in marks:
            style = {"markersize": 12, "markerfacecolor": "none", "markeredgewidth": 1.4, "color": own}
            panel.plot(*place, "o" if marks[lam] == "chosen" else "s", label=marks[lam], **style)
    panel.set(xlim=_around(x), ylim=_around(y))
    name_dots(panel, list(zip(x, y, strict=True)), [f"{lam:g}" for lam in shown], colours)
    if down:
        told = [f"{lam:g} ({100 * clean[lam]['value']:.0f} %, {100 * attacked[lam]['value']:.0f} %)" for lam in down]
        panel.set_title(f"not shown, networks broke down: λ = {', '.join(told)}", fontsize=8, color=".35")
    panel.set(xlabel="clean, %", ylabel=f"under {attack} at {attacked[0.0]['eps_255']:g}/255, %")
    if panel.get_legend_handles_labels()[1]:
        panel.legend(loc="best", fontsize=8)


def _around(values: list[float]) -> tuple[float, float]:
    """Limits with room around dots; intervals may reach beyond."""
    low, high = min(values), max(values)
    room = max(0.25 * (high - low), 1)
    return low - room, high + room
