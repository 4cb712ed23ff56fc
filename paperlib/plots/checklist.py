"""The gradient-masking checklist as a matrix of verdicts, and the scale control beside it."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from paperlib.claims import select, title
from paperlib.masking import CHECKS, FAILED, PASSED, UNDECIDED, Cell, cells, condition
from paperlib.plots.core import ATTACK, NOISE, curve, hue, trainings

FILLS = {PASSED: "#cdE7dc", UNDECIDED: "#fdeea1", FAILED: ATTACK}
SIGNS = {PASSED: "✓", UNDECIDED: "?", FAILED: "✗"}
LINES = {"PGD": ATTACK, "APGD": NOISE["uniform"]}


def checks(record: dict) -> Figure:
    """Left, a row a check and a column a training, with the number that decides; right, accuracy against the scale."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5.2), width_ratios=(3, 1), layout="constrained")
    _matrix(left, record)
    _scale(right, record)
    return figure


def _matrix(panel: Axes, record: dict) -> None:
    names, found = trainings(record), cells(record)
    for cell in found:
        x, y = names.index(cell.training), CHECKS.index(cell.check)
        panel.add_patch(Rectangle((x, y), 1, 1, facecolor=FILLS[cell.verdict], edgecolor="white", linewidth=2))
        strong = {"color": "white", "fontweight": "bold"} if cell.verdict == FAILED else {"color": ".15"}
        panel.text(x + 0.5, y + 0.5, f"{SIGNS[cell.verdict]}  {_short(cell)}", ha="center", va="center", **strong)
    for y, check in enumerate(CHECKS):
        asked = [names.index(cell.training) for cell in found if cell.check is check]
        if len(asked) == 1 and len(names) > 1:
            others = "of one network: what is tried is the attack"
            panel.text((asked[0] + 1.06), y + 0.5, others, va="center", color=".5", fontsize=8, style="italic")
    panel.set(xlim=(0, len(names)), ylim=(len(CHECKS), 0))
    panel.xaxis.tick_top()
    panel.set_xticks([i + 0.5 for i in range(len(names))], [title(name) for name in names], fontsize=11)
    for label, name in zip(panel.get_xticklabels(), names, strict=True):
        label.set(color=hue(name), fontweight="bold")
    told = [f"{check.statement}\n{check.measured}: {condition(check)}" for check in CHECKS]
    panel.set_yticks([i + 0.5 for i in range(len(CHECKS))], told, fontsize=8)
    panel.tick_params(length=0)
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)
    legend = [Patch(facecolor=FILLS[verdict], label=f"{sign} {verdict}") for verdict, sign in SIGNS.items()]
    legend.append(Patch(alpha=0, label="signed: points of accuracy"))
    panel.legend(handles=legend, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.01), fontsize=8)


def _short(cell: Cell) -> str:
    value = cell.worst["value"]
    if value is None:
        return "–"
    if not cell.check.difference:
        return f"{100 * value:.0f} %"
    return f"{100 * value:+z.0f}" + (f"  (c = {cell.worst['scale']:g})" if "scale" in cell.worst else "")


def _scale(panel: Axes, record: dict) -> None:
    rows = select(record, quantity="scaled accuracy")
    for attack in dict.fromkeys(row["attack"] for row in rows):
        own = [row for row in rows if row["attack"] == attack]
        scales = [row["scale"] for row in own]
        colour = LINES.get(attack.partition("-")[0], ".35")
        if attack == "clean":
            panel.plot(scales, [100 * row["value"] for row in own], "--", color=colour, label="no attack")
        else:
            curve(panel, scales, own, colour, width=1.8)
            panel.lines[-1].set_label(f"{attack}, {own[0]['eps_255']:g}/255")
    panel.set_xscale("log")
    whose = title(rows[0]["training"])
    panel.set(ylim=(0, 101), xlabel="c", ylabel="accuracy, %", title=f"Scale control: {whose},\nlogits times c")
    panel.legend(fontsize=8)
