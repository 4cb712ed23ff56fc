"""Variants of SR: their accuracy, their difference from the first form, and the size of their gradient.

A form is a choice for each of `FACTORS`; the first form in a record is the one that all other artifacts use.
"""

from collections.abc import Iterable, Iterator

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from paperlib import labels
from paperlib.artifacts.drawing import ATTACK, dots
from paperlib.artifacts.reading import (
    STUDY,
    Line,
    all_above,
    clear,
    known,
    one_network,
    percent,
    points,
    same_attack,
    select,
    turned,
    under,
    whole,
)
from paperlib.artifacts.tabulating import attack_at, number, pivot
from paperlib.words import attack, hue, title

FACTORS = ("confidence", "penalty", "direction", "h")
SYMBOLS = {"square": "q²", "absolute": "|q|", "+": "+d", "-": "-d", "central": "±d"}  # of choices, where not their name
FIRST = "the first"  # the label `against` of differences from the first form
SIZES = {"l1": "‖g‖₁", "participation number": "PN"}  # quantities of the gradient, with heads of columns
STATEMENTS = {
    "l1": "Every variant with a λ lowers the gradient's magnitude, the median of ‖∇ₓ f_y‖₁.",
    "participation number": (
        "Every variant with a λ makes the gradient sparser: it lowers the median participation number."
    ),
}
MARKERS = {labels.CLEAN: ("o", ".55"), labels.WORST: ("D", None)}  # with colours; None: that of the training
caption = STUDY


def headline(record: dict) -> str:
    """The single change of a factor of the first form that matters most."""
    chosen = forms(record)
    if not chosen:
        return "No variant of SR was trained here"
    first = chosen[0]
    if not first["value"]:
        return f"Validation data choose λ = 0 for SR ({name(first)}), which leaves nothing to compare its variants with"
    single = single_changes(record)
    if not single:
        return "No variant differs from SR in one part alone"
    decided = [row for row in single if clear(row)]
    widest = max(decided or single, key=lambda row: abs(row["value"]))
    (factor,) = changed(widest, first)
    part = name(widest, [factor]) if factor == "h" else f"the {factor} {symbol(widest, factor)}"
    change = f"{part}, {whole(widest)} points in the worst case{one_network(single)}"
    if decided:
        return f"What matters most in SR's penalty: {change}"
    return f"No single change of SR's penalty matters clearly, the largest is {change}"


def box(record: dict) -> Iterator[Line]:
    """A line for the first form and one for each factor changed alone; then two for the gradient."""
    gains = select(record, quantity="difference", attack=labels.WORST, against="vanilla")
    for first in forms(record)[:1]:
        for gain in (row for row in gains if form(row) == form(first)):
            statement = f"SR ({_escaped(name(first))}) is more robust than vanilla training in the worst case."
            yield Line(all_above([gain]), statement, points(gain))
    for factor in FACTORS:
        if rows := [row for row in single_changes(record) if changed(row, forms(record)[0]) == [factor]]:
            numbers = ", ".join(f"{_escaped(name(row, [factor]))} {points(row)}" for row in rows)
            subject = factor if factor == "h" else f"the {factor}"
            statement = f"Changing {subject} alone changes accuracy under the {attack(rows[0])}."
            yield Line(True if any(map(clear, rows)) else None, statement, numbers)
    for quantity, statement in STATEMENTS.items():
        rows = known(select(record, quantity=quantity))
        vanilla, variants = [row for row in rows if not form(row)], [row for row in rows if form(row)]
        if vanilla and variants:
            yield _lowered(variants, vanilla[0], statement)


def figure(record: dict) -> Figure:
    """A line for each form, vanilla first: its factors, accuracies, differences from the first form, its gradient."""
    chosen, widths = forms(record), (3.9, 4.2, 3.1, 1.1)
    size = (sum(widths), 1.6 + 0.34 * (len(chosen) + 1))
    fig, axes = plt.subplots(1, 4, figsize=size, width_ratios=widths, sharey=True, layout="constrained")
    write_forms(chosen, axes[0])
    means = select(record, quantity="mean accuracy", split=None)
    other_lambdas = select(record, quantity="mean accuracy at another λ", attack=labels.WORST)
    accuracies(placed(means, chosen), placed(other_lambdas, chosen), axes[1])
    gains = [(y, row) for y, row in placed(select(record, quantity="difference", against="vanilla"), chosen) if y == 1]
    if gains:
        vanilla = [(0, turned(row)) for _, row in gains]
        changes(vanilla + placed(select(record, quantity="difference", against=FIRST), chosen), axes[2])
    else:  # nothing to compare with
        axes[2].set_axis_off()
    write_sizes(placed([row for quantity in SIZES for row in select(record, quantity=quantity)], chosen), axes[3])
    axes[1].set_ylim(len(chosen) + 0.6, -1)  # downwards, with room for the columns' names
    axes[1].tick_params(labelleft=False)
    for ax in axes[1:3]:
        ax.grid(axis="y", visible=False)
        ax.axhline(0.5, color=".75", linewidth=0.8)
    return fig


def table(record: dict) -> list[DataFrame]:
    """A line for each form at its chosen λ, vanilla first; then a line for each λ: validation and test accuracy."""

    def head(row: dict) -> dict:
        cells = [symbol(row, factor) for factor in FACTORS] if form(row) else [title(row["training"]), "", "", ""]
        return dict(zip(FACTORS, map(_escaped, cells), strict=True))

    def column(row: dict) -> str:
        text = attack_at(row) if "attack" in row else row["quantity"]
        return f"{text}, against {row['against']}" if "against" in row else text

    def cell(row: dict) -> str:
        if row["quantity"] == "difference":
            return points(row)
        return percent(row) if "attack" in row else number(row)

    def sample(row: dict) -> str:
        return f"{attack_at(row)}, validation" if "split" in row else attack_at(row)

    chosen, others = "mean accuracy", "mean accuracy at another λ"
    lines = [row for row in record["rows"] if "split" not in row and row["quantity"] != others]
    lines = [row for row in lines if row["quantity"] == chosen or row.get("attack", labels.WORST) == labels.WORST]
    swept = [row for row in record["rows"] if row["quantity"] in (chosen, others) and "lam" in row]
    by_lambda = pivot(swept, lambda row: head(row) | {"λ": f"{row['lam']:g}"}, sample, percent)
    return [pivot(lines, head, column, cell).fillna(""), by_lambda.fillna("")]


def forms(record: dict) -> list[dict]:
    """The chosen λ of each form, the first form first."""
    return select(record, quantity="chosen λ")


def form(row: dict) -> dict:
    """The form of a row's networks; empty for vanilla networks."""
    return {factor: row[factor] for factor in FACTORS if factor in row}


def changed(row: dict, first: dict) -> list[str]:
    """The factors in which a row's networks differ from the first form."""
    return [factor for factor in FACTORS if row[factor] != first[factor]]


def single_changes(record: dict) -> list[dict]:
    """The differences from the first form in the worst case, of the forms that differ from it in one factor."""
    rows = select(record, quantity="difference", attack=labels.WORST, against=FIRST)
    return [row for row in rows if len(changed(row, forms(record)[0])) == 1]


def symbol(row: dict, factor: str) -> str:
    """The text for one factor of a row's form: "margin", "q²", "0.01"."""
    return f"{row['h']:g}" if factor == "h" else SYMBOLS.get(row[factor], row[factor])


def name(row: dict, factors: Iterable[str] = FACTORS) -> str:
    """The text for some factors of a row's form: "margin, q², +d, h = 0.01"."""
    symbols = {factor: symbol(row, factor) for factor in factors}
    return ", ".join(f"h = {text}" if factor == "h" else text for factor, text in symbols.items())


def placed(rows: list[dict], chosen: list[dict]) -> list[tuple[int, dict]]:
    """Each of `rows` with the height of its form in the figure: vanilla at 0, then the forms of `chosen`."""
    heights = [{}, *map(form, chosen)]
    return [(heights.index(form(row)), row) for row in rows]


def _lowered(rows: list[dict], vanilla: dict, statement: str) -> Line:
    """A line that holds where all intervals lie below vanilla's, and does not hold where one lies above."""
    decidable = all(row["low"] is not None for row in [vanilla, *rows])
    below = decidable and all(row["high"] < vanilla["low"] for row in rows)
    above = decidable and any(row["low"] > vanilla["high"] for row in rows)
    values = [row["value"] for row in rows]
    numbers = f"vanilla {vanilla['value']:.3g}, variants {min(values):.3g} to {max(values):.3g}"
    return Line(True if below else False if above else None, statement, numbers)


def _escaped(text: str) -> str:
    return text.replace("|", r"\|")  # for a cell of a Markdown table


def write_forms(chosen: list[dict], ax: Axes) -> Axes:
    """The factors of each form, bold where they differ from the first form's, and its λ."""
    ax.set_axis_off()
    places = dict(zip((*FACTORS, "λ"), (0.05, 0.29, 0.47, 0.66, 0.82), strict=True))
    for head, x in places.items():
        ax.text(x, -0.75, head, color=".45", va="center")
    ax.text(places["confidence"], 0, title("vanilla"), color=hue("vanilla"), va="center", fontweight="bold")
    for y, row in enumerate(chosen, 1):
        for factor in FACTORS:
            plain = {"color": "black" if y == 1 else ".35"}
            style = {"fontweight": "bold"} if factor in changed(row, chosen[0]) else plain
            ax.text(places[factor], y, symbol(row, factor), va="center", **style)
        ax.text(places["λ"], y, f"{row['value']:g}" if row["value"] else "none", va="center")
    return ax


def accuracies(pairs: list[tuple[int, dict]], other_lambdas: list[tuple[int, dict]], ax: Axes) -> Axes:
    """Mean accuracies, `pairs` of heights and rows, a marker for each attack; `other_lambdas` likewise, but hollow."""
    for y, row in other_lambdas:
        style = {"markersize": 4, "markerfacecolor": "none", "color": hue(row["training"]), "alpha": 0.55}
        ax.plot(100 * row["value"], y + 0.3, "D", **style)
    rows = [row for _, row in pairs]
    for i, same in enumerate({attack(row): same_attack(rows, row) for row in rows}.values()):
        for y, row in [(y, row) for y, row in pairs if row in same]:
            marker, colour = MARKERS.get(row["attack"], ("s", ATTACK))
            label = attack_at(row) if row is same[-1] else None
            dots(ax, [row], y + 0.13 * (i - 1), colour or hue(row["training"]), fmt=marker, label=label)
    for row in under(rows, labels.WORST, training="vanilla"):
        ax.axvline(100 * row["value"], color=hue("vanilla"), linestyle=":", linewidth=1)
    ax.set_xlabel("accuracy, %; hollow: worst of all at another λ", fontsize=8)
    if rows:
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, fontsize=8, handletextpad=0.2)
    return ax


def changes(pairs: list[tuple[int, dict]], ax: Axes) -> Axes:
    """Differences from the first form, clean and in the worst case; `pairs` holds heights and rows."""
    ax.axvline(0, color=".4", linewidth=0.8)
    for kind, shift in ((labels.CLEAN, -0.14), (labels.WORST, 0.14)):
        marker, colour = MARKERS[kind]
        for y, row in pairs:
            if row["attack"] == kind:
                dots(ax, [row], y + shift, colour or hue(row["training"]), fmt=marker)
    ax.set_xlabel("points against the first form (SR),\nclean and worst of all", fontsize=8)
    return ax


def write_sizes(pairs: list[tuple[int, dict]], ax: Axes) -> Axes:
    """A column of numbers for each of `SIZES`; `pairs` holds heights and rows."""
    ax.set_axis_off()
    for i, (quantity, head) in enumerate(SIZES.items()):
        ax.text(0.55 * i, -0.75, head, color=".45", va="center")
        for y, row in pairs:
            if row["quantity"] == quantity:
                ax.text(0.55 * i, y, "–" if row["value"] is None else f"{row['value']:.3g}", va="center")
    return ax
