"""The gradient-masking checklist, by Athalye et al., arXiv 1802.00420, and Carlini et al., arXiv 1902.06705.

A check that fails shows that the number of the gradient attack overstates robustness (section 7 of the paper notes,
points 1 and 3); one that passes shows only that this symptom is absent.  Each has `PASSED` where its number is at the
limit or on the good side, `FAILED` where the whole 95 % interval lies on the bad side, and else is `UNDECIDED`.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from pandas import DataFrame

from paperlib import labels
from paperlib.artifacts.drawing import ATTACK, NOISE, curve
from paperlib.artifacts.reading import (
    IMAGES,
    Line,
    listed,
    one_network,
    percent,
    points,
    same_attack,
    select,
    trainings,
    where,
    whole,
)
from paperlib.artifacts.tabulating import attack_at, pivot
from paperlib.words import attack, hue, title

PASSED, FAILED, UNDECIDED = VERDICTS = ("passed", "failed", "undecided")
FILLS = {PASSED: "#cdE7dc", UNDECIDED: "#fdeea1", FAILED: ATTACK}
SIGNS = {PASSED: "✓", UNDECIDED: "?", FAILED: "✗"}
COLOURS = {"pgd": ATTACK, "apgd": NOISE["uniform"]}  # of attacks in the scale control
caption = IMAGES


class Check(NamedTuple):
    """One line of the list.  Its number is a share of images, or a `difference` of two shares of the same images."""

    name: str  # the label `check` of rows
    statement: str  # true of a sound evaluation
    otherwise: str  # true where the check fails
    measured: str  # the number that decides
    limit: float = 0.0
    at_most: bool = False  # whether the good side is below the limit
    difference: bool = True


AT_MOST_5 = {"limit": 0.05, "at_most": True}
CHECKS = (
    Check("one step", "One step does not beat many", "one step beats many", "FGSM - PGD"),
    Check(
        "no gradient",
        "Search without gradients does not beat PGD",
        "search without gradients beats PGD",
        "Square - PGD",
    ),
    Check(
        "transfer",
        "Another network's examples do not beat its own",
        "another network's examples beat its own",
        "transfer - PGD",
    ),
    Check(
        "random search",
        "Random draws do not find what gradients miss",
        "random draws find what gradients miss",
        "random search - PGD",
    ),
    Check(
        "strongest",
        "No attack here beats the strongest one",
        "another attack beats the strongest one",
        "any - worst of all",
    ),
    Check(
        "unbounded",
        "Without a bound hardly an image survives",
        "images survive without a bound",
        "left at ε = 255/255",
        difference=False,
        **AT_MOST_5,
    ),
    Check("radius", "A larger ε never helps the defender", "a larger ε helps the defender", "ε - next larger ε"),
    Check("more steps", "More steps never help the defender", "more steps help the defender", "few - many steps"),
    Check("converged", "More steps find little more", "more steps find much more", "few - many steps", **AT_MOST_5),
    Check(
        "zero gradient",
        "Few images have a gradient of exactly 0",
        "many images have a gradient of exactly 0",
        "gradient = 0",
        limit=0.1,
        at_most=True,
        difference=False,
    ),
    Check("scale, CE", "Scaled logits do not fool PGD on CE", "scaled logits fool PGD on CE", "c = 1 - other c"),
    Check("scale, DLR", "Scaled logits do not fool APGD on DLR", "scaled logits fool APGD on DLR", "c = 1 - other c"),
)
BY_NAME = {check.name: check for check in CHECKS}


class Cell(NamedTuple):
    """The result of one check for one training: the row that decides, and its verdict."""

    check: Check
    training: str
    worst: dict
    verdict: str


def verdict(row: dict) -> str:
    """The verdict of one row of a check; undecided where it has no value."""
    if row["value"] is not None and _margin(row, row["value"]) >= 0:
        return PASSED
    beyond = row["low"] is not None and max(_margin(row, row[end]) for end in ("low", "high")) < 0
    return FAILED if beyond else UNDECIDED


def cells(record: dict) -> list[Cell]:
    """A cell for each check and training, in the order of `CHECKS`; the worst of several rows decides."""

    def badness(row: dict) -> tuple[int, float]:
        margin = 1 if row["value"] is None else _margin(row, row["value"])
        return (FAILED, UNDECIDED, PASSED).index(verdict(row)), margin

    decided = []
    for check in CHECKS:
        rows = select(record, quantity="check", check=check.name)
        for training in dict.fromkeys(row["training"] for row in rows):
            worst = min(where(rows, training=training), key=badness)
            decided.append(Cell(check, training, worst, verdict(worst)))
    return decided


def number(row: dict) -> str:
    """A row's value with its interval: in points where it is a difference, else in percent."""
    return points(row) if BY_NAME[row["check"]].difference else percent(row)


def place(row: dict) -> str:
    """What tells a row of a check from its others: "from 8 to 16/255", "c = 100", "FGSM"; else empty."""
    if row["check"] == "strongest":
        return attack(row)
    if "from_255" in row:
        return f"from {row['from_255']:g} to {row['eps_255']:g}/255"
    return f"c = {row['scale']:g}" if "scale" in row else ""


def condition(check: Check) -> str:
    """The condition on the number of a check: "≥ 0 points", "≤ 5 %"."""
    return f"{'≤' if check.at_most else '≥'} {100 * check.limit:g} {'points' if check.difference else '%'}"


def _margin(row: dict, value: float) -> float:
    """The distance of `value` from the limit, positive on the good side."""
    check = BY_NAME[row["check"]]
    return check.limit - value if check.at_most else value - check.limit


def headline(record: dict) -> str:
    """The count of checks that passed, and what failed; without a failure, what is undecided."""
    by_verdict = {name: [cell for cell in cells(record) if cell.verdict == name] for name in VERDICTS}
    text = f"{len(by_verdict[PASSED])} of {len(cells(record))} checks passed"
    for name, but in ((FAILED, "but"), (UNDECIDED, "but it is undecided whether")):
        if groups := _by_check(by_verdict[name]):
            text += f", {but} {listed(check.otherwise for check, _ in groups)}"
            break
    return text + one_network(select(record, quantity="check"))


def figure(record: dict) -> Figure:
    """The matrix of verdicts, and the scale control beside it."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 5.2), width_ratios=(3, 1), layout="constrained")
    matrix(cells(record), trainings(record), left)
    scale_control(select(record, quantity="scaled accuracy"), right)
    return fig


def table(record: dict) -> list[DataFrame]:
    """A line for each check; then a line for each scale of the logits."""
    lines = {c.name: {"check": c.statement, "number": c.measured, "passes": condition(c)} for c in CHECKS}
    for cell in cells(record):
        parts = [number(cell.worst), place(cell.worst)]
        lines[cell.check.name][title(cell.training)] = f"{cell.verdict}: {', '.join(filter(None, parts))}"
    scaled = select(record, quantity="scaled accuracy")
    scales = pivot(scaled, lambda row: {"logits times": f"{row['scale']:g}"}, attack_at, percent)
    return [DataFrame(lines.values()).fillna(""), scales]


def box(record: dict) -> Iterator[Line]:
    """A line for each check, which holds where all trainings passed and does not hold where one failed."""
    for check, group in _by_check(cells(record)):
        verdicts = {cell.verdict for cell in group}
        holds = False if FAILED in verdicts else True if verdicts == {PASSED} else None
        yield Line(holds, f"{check.statement}.", f"{', '.join(map(_with_place, group))}.")


def _by_check(decided: Iterable[Cell]) -> list[tuple[Check, list[Cell]]]:
    return [(check, list(group)) for check, group in groupby(decided, key=lambda cell: cell.check)]


def _with_place(cell: Cell) -> str:
    text = f"{title(cell.training)} {number(cell.worst)}"
    return f"{text} ({place(cell.worst)})" if place(cell.worst) else text


def matrix(decided: list[Cell], names: list[str], ax: Axes) -> Axes:
    """A line for each check, a column for each of the trainings `names`: verdicts and the numbers that decide."""
    for check, group in _by_check(decided):
        y = CHECKS.index(check)
        for cell in group:
            x = names.index(cell.training)
            ax.add_patch(Rectangle((x, y), 1, 1, facecolor=FILLS[cell.verdict], edgecolor="white", linewidth=2))
            style = {"color": "white", "fontweight": "bold"} if cell.verdict == FAILED else {"color": ".15"}
            ax.text(x + 0.5, y + 0.5, f"{SIGNS[cell.verdict]}  {_short(cell)}", ha="center", va="center", **style)
        if len(group) == 1 and len(names) > 1:
            note = "one network only: this check tests the attack, not the training"
            ax.text(x + 1.06, y + 0.5, note, va="center", color=".5", fontsize=8, style="italic")
    ax.set(xlim=(0, len(names)), ylim=(len(CHECKS), 0))
    ax.xaxis.tick_top()
    ax.set_xticks([i + 0.5 for i in range(len(names))], [title(name) for name in names], fontsize=11)
    for label, name in zip(ax.get_xticklabels(), names, strict=True):
        label.set(color=hue(name), fontweight="bold")
    statements = [f"{check.statement}\n{check.measured}: {condition(check)}" for check in CHECKS]
    ax.set_yticks([i + 0.5 for i in range(len(CHECKS))], statements, fontsize=8)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    handles = [Patch(facecolor=FILLS[name], label=f"{sign} {name}") for name, sign in SIGNS.items()]
    ax.legend(handles=handles, ncols=3, loc="upper left", bbox_to_anchor=(0, 0.01), fontsize=8)
    ax.text(len(names), len(CHECKS) + 0.3, "signed numbers: points of accuracy", fontsize=8, color=".4", ha="right")
    return ax


def scale_control(rows: list[dict], ax: Axes) -> Axes:
    """The accuracy of one network against the scale of its logits, a line for each attack."""
    for line in {attack(row): same_attack(rows, row) for row in rows}.values():
        scales, colour = [row["scale"] for row in line], COLOURS.get(line[0]["attack"], ".35")
        if line[0]["attack"] == labels.CLEAN:
            ax.plot(scales, [100 * row["value"] for row in line], "--", color=colour, label="no attack")
        else:
            curve(ax, scales, line, colour, width=1.8)
            ax.lines[-1].set_label(attack_at(line[0]))
    ax.set_xscale("log")
    ax.set(ylim=(0, 101), xlabel="c", ylabel="accuracy, %")
    ax.set_title(f"Scale control: {title(rows[0]['training'])},\nlogits times c")
    ax.legend(fontsize=8)
    return ax


def _short(cell: Cell) -> str:
    if cell.worst["value"] is None:
        return "–"
    if not cell.check.difference:
        return f"{100 * cell.worst['value']:.0f} %"
    return whole(cell.worst) + (f"  ({place(cell.worst)})" if "scale" in cell.worst else "")
