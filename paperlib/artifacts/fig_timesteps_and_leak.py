"""SR's gain with other steps, leak and reset of the neurons, and without spikes: one at a time, or on a whole grid.

A setting is a choice for each of `FACTORS`.  The default is the profile's, the first among the gains of a record.
"""

from collections.abc import Iterator

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pandas import DataFrame

from paperlib import labels
from paperlib.artifacts.drawing import bound, dots, whiskers
from paperlib.artifacts.reading import STUDY, Line, all_above, clear, one_network, percent, points, select, where, whole
from paperlib.artifacts.tabulating import attack_at, pivot
from paperlib.words import attack, hue, title

FACTORS = {"T": "T = {:g}", "tau": "τ = {:g}", "reset": "{} reset", "neuron": "{}"}  # with templates of their text
ANN = "ANN (ReLU)"
FEW = 4  # up to so many settings are named one by one
STATEMENTS = {
    "T": "SR helps with other numbers of steps as well.",
    "tau": "SR helps neurons of another leak as well.",
    "reset": "SR helps with a detached reset as well.",
    "neuron": "SR helps the ANN of the same architecture as well.",
}
HEADS = {"gain": "gain", "gain minus the own": "gain minus that of the profile's neurons"}  # of the table, by quantity
OPEN = {"markerfacecolor": "white"}
SHIFTS = {labels.WORST: 0.14, labels.CLEAN: -0.14}  # of dots, from the height of their setting
STYLES = {labels.WORST: {}, labels.CLEAN: OPEN}
caption = STUDY


def headline(record: dict) -> str:
    """SR's gain in the ANN beside that in the default setting."""
    rows, differences = gains(record), from_default(record)
    if not rows:
        return "No network was trained here to vary T, τ and reset"
    (ann,) = filter(without_spikes, rows)
    verdict = ("no clear difference to", "clearly more than", "clearly less than")[
        clear(same_setting(differences, ann))
    ]
    return (
        f"SR gains {whole(ann)} points in an ANN, {verdict} its {whole(rows[0])} in the spiking network"
        f"{one_network(rows)}"
    )


def figure(record: dict) -> Figure:
    """Accuracies, gains and gains minus the default's; for a whole grid the gain against T."""
    rows = gains(record)
    if rows:
        return _grid(record) if any(len(changed(row, rows[0])) > 1 for row in rows) else _one_at_a_time(record)
    fig, ax = plt.subplots(figsize=(7, 1.6), layout="constrained")
    ax.text(0, 0.5, "`lambdas` is empty: give some, and networks are trained for this figure.", va="center")
    ax.set_axis_off()
    return fig


def table(record: dict) -> list[DataFrame]:
    """A line for each setting: SR's gain, and that minus the default's; then a line for each training in it."""
    if not gains(record):
        return []
    default, choices = gains(record)[0], select(record, quantity="chosen λ")

    def chosen(row: dict) -> dict:
        note = "" if same_setting(choices, row)["value"] else " (none chosen)"
        return {"neurons": name(row, default), "λ": f"{row['lam']:g}{note}"}

    def network(row: dict) -> dict:
        lam = f", λ = {row['lam']:g}" if "lam" in row else ""
        return {"neurons": name(row, default), "training": title(row["training"]) + lam}

    changes = [*select(record, quantity="gain"), *select(record, quantity="gain minus the own")]
    gained = pivot(changes, chosen, lambda row: f"{HEADS[row['quantity']]}, {attack_at(row)}", points)
    return [gained.fillna(""), pivot(select(record, quantity="mean accuracy"), network, attack_at, percent)]


def box(record: dict) -> Iterator[Line]:
    """A line for the default setting and one for each factor: whether SR's gain is above 0 in all of its settings."""
    rows, differences = gains(record), from_default(record)
    if not rows:
        yield Line(None, "SR helps with other steps, leaks and resets, and in an ANN.", "Nothing was trained here.")
        return
    default = rows[0]
    yield Line(all_above([default]), f"SR helps at {name(default, default)}.", points(default))
    for factor, statement in STATEMENTS.items():
        if others := [row for row in rows if factor in changed(row, default)]:
            yield Line(all_above(others), statement, _numbers(others, differences, default))


def _numbers(rows: list[dict], differences: list[dict], default: dict) -> str:
    """The gain in each setting; of many settings the lowest and the highest."""
    pairs = [(row, same_setting(differences, row)) for row in rows]
    if len(rows) <= FEW:
        return "; ".join(
            f"{name(row, default)} {points(row)}, {points(other)} against the profile's" for row, other in pairs
        )
    sides, (low, *_, high) = [clear(other) for _, other in pairs], sorted(rows, key=lambda row: row["value"])
    ends = f"from {name(low, default)} {points(low)} to {name(high, default)} {points(high)}"
    return f"{len(rows)} settings {ends}; {sides.count(-1)} clearly below the profile's, {sides.count(1)} above"


def gains(record: dict, attack: str = labels.WORST) -> list[dict]:
    """SR's gain in each setting, the default first."""
    return select(record, quantity="gain", attack=attack)


def from_default(record: dict, attack: str = labels.WORST) -> list[dict]:
    """The gain of each setting but the default, minus that of the default."""
    return select(record, quantity="gain minus the own", attack=attack)


def setting(row: dict) -> dict:
    """The setting of a row's networks."""
    return {factor: row[factor] for factor in FACTORS if factor in row}


def same_setting(rows: list[dict], row: dict) -> dict:
    """The only one of `rows` that has the setting of `row`."""
    (match,) = (other for other in rows if setting(other) == setting(row))
    return match


def without_spikes(row: dict) -> bool:
    """Whether the networks of a row are ANNs."""
    return row["neuron"] == "ReLU"


def changed(row: dict, default: dict) -> list[str]:
    """The factors in which a row's setting differs from the default."""
    return [factor for factor, value in setting(row).items() if value != default[factor]]


def name(row: dict, default: dict) -> str:
    """The factors in which a row's setting differs from the default, "T = 2, τ = 0.5"; for the default all of them."""
    if without_spikes(row):
        return ANN
    factors = changed(row, default) or [factor for factor in FACTORS if factor != "neuron"]
    return ", ".join(symbol(row, factor) for factor in factors)


def symbol(row: dict, factor: str) -> str:
    """The text for one factor of a row's setting: "T = 4", "detached reset"."""
    return ANN if row[factor] == "ReLU" else FACTORS[factor].format(row[factor])


def _one_at_a_time(record: dict) -> Figure:
    default, choices, lines = gains(record)[0], select(record, quantity="chosen λ"), grouped(gains(record))
    both = [(y, row) for kind in SHIFTS for row in gains(record, kind) for y in heights(row, lines)]
    differences = [(y, row) for row in from_default(record) for y in heights(row, lines)]
    size = (10.4, 1.9 + 0.33 * lines[-1][0])
    fig, axes = plt.subplots(1, 3, figsize=size, sharey=True, width_ratios=(4, 3, 3), layout="constrained")
    for ax in axes:
        ax.grid(axis="y", visible=False)
        for y in heights(default, lines):
            ax.axhspan(y - 0.5, y + 0.5, color=".94", zorder=0)
    accuracies([(y, *_vanilla_and_sr(record, gain)) for y, gain in both], axes[0])
    note = "" if all(row["value"] for row in choices) else "; * λ = 0 was chosen, the smallest λ is shown"
    axes[0].set_xlabel(f"bold and shaded: the profile's neurons{note}", fontsize=8)
    marks = [Line2D([], [], marker="o", color=hue("sr"), linestyle="none", **style) for style in STYLES.values()]
    legend = {"loc": "upper right", "bbox_to_anchor": (0, -0.01), "fontsize": 8}
    axes[0].legend(marks, [attack_at(gains(record, kind)[0]) for kind in STYLES], **legend)
    gained(both, axes[1])
    compared(differences, axes[2])
    axes[2].set_xlabel("points; black: the interval excludes 0", fontsize=8)
    stars = ["" if same_setting(choices, row)["value"] else "*" for _, _, row in lines]
    names = [f"{symbol(r, factor)},  λ = {r['lam']:g}{star}" for (_, factor, r), star in zip(lines, stars, strict=True)]
    axes[0].set_yticks([y for y, _, _ in lines], names)
    for label, (_, _, row) in zip(axes[0].get_yticklabels(), lines, strict=True):
        label.set(fontweight="bold" if row is default else "normal")
    axes[0].set_ylim(lines[-1][0] + 0.6, -0.6)
    return fig


def grouped(rows: list[dict]) -> list[tuple[float, str, dict]]:
    """Height, factor and gain of each line: of `rows`, the default's first, a group for each factor that varies."""
    lines, y = [], 0.0
    for factor in FACTORS:
        group = sorted((row for row in rows if set(changed(row, rows[0])) <= {factor}), key=lambda row: row[factor])
        if len(group) > 1:
            lines += [(y + i, factor, row) for i, row in enumerate(group)]
            y += len(group) + 0.5
    return lines


def heights(row: dict, lines: list[tuple[float, str, dict]]) -> list[float]:
    """The heights of those `lines` that are of a row's setting."""
    return [y for y, _, gain in lines if setting(gain) == setting(row)]


def accuracies(lines: list[tuple[float, dict, dict]], ax: Axes) -> Axes:
    """A line from vanilla's accuracy to SR's; `lines` holds heights, rows of vanilla and rows of SR."""
    for y, *rows in lines:
        height, ends = y + SHIFTS[rows[0]["attack"]], [100 * row["value"] for row in rows]
        ax.plot(ends, [height, height], color=hue("sr"), linewidth=2.5, alpha=0.35)
        for x, row in zip(ends, rows, strict=True):
            ax.plot(x, height, "o", color=hue(row["training"]), markersize=5, **STYLES[row["attack"]])
    ax.set(title="Accuracy, %: from vanilla (grey) to SR (blue)", xlim=(0, 101))
    return ax


def gained(pairs: list[tuple[float, dict]], ax: Axes) -> Axes:
    """SR's gains, clean and in the worst case; `pairs` holds heights and rows."""
    for y, row in pairs:
        dots(ax, [row], y + SHIFTS[row["attack"]], hue("sr"), **STYLES[row["attack"]])
    ax.axvline(0, color=".4", linewidth=0.8)
    ax.set(title="What SR gains, points")
    return ax


def compared(pairs: list[tuple[float, dict]], ax: Axes) -> Axes:
    """Gains minus the default's, black where the interval excludes 0; `pairs` holds heights and rows."""
    for y, row in pairs:
        dots(ax, [row], y, "black" if clear(row) else ".65")
    ax.axvline(0, color=".4", linewidth=0.8)
    ax.set(title="Minus the gain of the profile's neurons")
    return ax


def _vanilla_and_sr(record: dict, gain: dict) -> tuple[dict, dict]:
    """The mean accuracies whose difference is `gain`."""
    means = select(record, quantity="mean accuracy", attack=gain["attack"])
    vanilla, sr = where(means, training="vanilla"), where(means, training="sr", lam=gain["lam"])
    return same_setting(vanilla, gain), same_setting(sr, gain)


def _grid(record: dict) -> Figure:
    options = {"height_ratios": (3, 2), "sharex": True, "sharey": "row", "layout": "constrained"}
    fig, axes = plt.subplots(2, 2, figsize=(10, 6.4), **options)
    for reset, column in zip(("attached", "detached"), axes.T, strict=True):
        for ax, kind in zip(column, (labels.WORST, labels.CLEAN), strict=True):
            against_steps(gains(record, kind), from_default(record, kind), reset, ax)
        column[0].set_title(f"{reset} reset", fontweight="bold")
    axes[0, 0].set_ylabel(f"SR's gain, {attack(gains(record)[0])}, points")
    axes[1, 0].set_ylabel("clean, points")
    axes[0, 1].legend(fontsize=8, frameon=True)
    axes[1, 0].set_xlabel(
        "ringed: the profile's neurons; full dots: the interval of the difference to them excludes 0", fontsize=8
    )
    return fig


def against_steps(rows: list[dict], differences: list[dict], reset: str, ax: Axes) -> Axes:
    """Gains against T, `rows` with the default's first: a line for each τ with that `reset`, one across for the ANN."""
    default, spiking = rows[0], [row for row in rows if not without_spikes(row)]
    steps, taus = (sorted({row[factor] for row in spiking}) for factor in ("T", "tau"))
    for i, tau in enumerate(taus):
        colour = to_hex(plt.get_cmap("Blues")(0.4 + 0.6 * (i + 1) / len(taus)))
        line = [row for row in spiking if row["T"] == 1 or (row["tau"], row["reset"]) == (tau, reset)]
        line.sort(key=lambda row: row["T"])
        shift = 0.1 * (i - (len(taus) - 1) / 2)  # not of T = 1, where τ and reset change nothing
        places = [steps.index(row["T"]) + (shift if row["T"] > 1 else 0) for row in line]
        ax.plot(places, [100 * row["value"] for row in line], color=colour, label=FACTORS["tau"].format(tau))
        for x, row in zip(places, line, strict=True):
            differs = row is not default and clear(same_setting(differences, row))
            style = {"markersize": 5, "elinewidth": 1.2} | ({} if differs else OPEN)
            ax.errorbar(x, 100 * row["value"], 100 * whiskers([row]), fmt="o", color=colour, **style)
            if row is default:
                ax.plot(x, 100 * row["value"], "o", color="black", markersize=12, markerfacecolor="none")
    (ann,) = filter(without_spikes, rows)
    ax.axhspan(100 * bound(ann, "low"), 100 * bound(ann, "high"), color=".5", alpha=0.12, linewidth=0)
    ax.axhline(100 * ann["value"], color="black", linestyle="--", linewidth=1, label=ANN)
    ax.axhline(0, color=".4", linewidth=0.8)
    ax.set_xticks(range(len(steps)), [f"T = {step}" for step in steps])
    return ax
