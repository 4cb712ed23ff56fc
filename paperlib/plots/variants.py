"""SR's variants, a row each: the form in words, what it leaves, what it changes, the size of its gradient."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paperlib.claims import WORST, select
from paperlib.findings.variants import AXES, axes, changed, forms, word
from paperlib.plots.core import ATTACK, bound, dots, hue

MARKERS = {"clean": ("o", ".55"), WORST: ("D", None)}  # None: the training's own colour; any other attack: a square
WIDTHS = (3.9, 4.2, 3.1, 1.1)  # of the four columns of panels


def variants(record: dict) -> Figure:
    """The changed words of each form are bold; hollow dots are networks at a λ that was not chosen."""
    found = forms(record)
    size = (sum(WIDTHS), 1.6 + 0.34 * (len(found) + 1))
    figure, panels = plt.subplots(1, 4, figsize=size, width_ratios=WIDTHS, sharey=True, layout="constrained")
    words, left, right, sizes = panels
    vanilla = [r for r in record["rows"] if r.get("training") == "vanilla" and "h" not in r and "split" not in r]
    _words(words, found)
    _left(left, record, vanilla)
    _right(right, record)
    _sizes(sizes, record, vanilla)
    left.set_ylim(len(found) + 0.6, -1)  # downwards, with room for the columns' names
    left.tick_params(labelleft=False)
    for panel in (left, right):
        panel.grid(axis="y", visible=False)
        panel.axhline(0.5, color=".75", linewidth=0.8)
    return figure


def _words(panel: Axes, found: list[dict]) -> None:
    panel.set_axis_off()
    places = dict(zip((*AXES, "λ"), (0.05, 0.29, 0.47, 0.66, 0.82), strict=True))
    for axis, x in places.items():
        panel.text(x, -0.75, axis, color=".45", va="center")
    panel.text(places["confidence"], 0, "vanilla", color=hue("vanilla"), va="center", fontweight="bold")
    for y, form in enumerate(found, 1):
        bold = changed(form, found[0])
        for axis in AXES:
            text = word(form, axis).removeprefix("h = ")
            strong = {"fontweight": "bold"} if axis in bold else {"color": ".35" if y > 1 else "black"}
            panel.text(places[axis], y, text, va="center", **strong)
        panel.text(places["λ"], y, f"{form['value']:g}" if form["value"] else "none", va="center")


def _left(panel: Axes, record: dict, vanilla: list[dict]) -> None:
    means = [r for r in select(record, quantity="mean accuracy") if "split" not in r]
    for place, row in _placed(record, select(record, quantity="mean accuracy at another λ", attack=WORST)):
        style = {"markersize": 4, "markerfacecolor": "none", "color": hue("sr"), "alpha": 0.55}
        panel.plot(100 * row["value"], place + 0.3, "D", **style)
    reference = [r for r in vanilla if r["quantity"] == "mean accuracy"]
    for i, attack in enumerate(dict.fromkeys(r["attack"] for r in means)):
        rows = [(0, r) for r in reference if r["attack"] == attack]
        rows += [(place, r) for place, r in _placed(record, means) if r["attack"] == attack]
        marker, colour = MARKERS.get(attack, ("s", ATTACK))
        for place, row in rows:
            own = colour or hue("sr" if place else "vanilla")
            dots(
                panel, [row], place + 0.13 * (i - 1), own, fmt=marker, label=_label(row) if row is rows[-1][1] else None
            )
    for row in (r for r in reference if r["attack"] == WORST):
        panel.axvline(100 * row["value"], color=hue("vanilla"), linestyle=":", linewidth=1)
    panel.set_xlabel("accuracy, %; hollow: worst of all at another λ", fontsize=8)
    _legend(panel)


def _right(panel: Axes, record: dict) -> None:
    differences = select(record, quantity="difference", against="the first")
    first = forms(record)[:1]
    for form in first:  # vanilla against it is it against vanilla, turned round
        gains = select(record, quantity="difference", against="vanilla", **axes(form))
        turned = [r | {"value": -r["value"], "low": -bound(r, "high"), "high": -bound(r, "low")} for r in gains]
    rows = [(0, r) for r in turned] if first else []
    if not rows:  # nothing to compare with
        panel.set_axis_off()
        return
    panel.axvline(0, color=".4", linewidth=0.8)
    for attack, shift in (("clean", -0.14), (WORST, 0.14)):
        marker, colour = MARKERS[attack]
        for place, row in rows + _placed(record, differences):
            if row["attack"] == attack:
                own = colour or hue("sr" if place else "vanilla")
                dots(panel, [row], place + shift, own, fmt=marker)
    panel.set_xlabel("points against the first form,\nclean and worst of all", fontsize=8)


def _sizes(panel: Axes, record: dict, vanilla: list[dict]) -> None:
    panel.set_axis_off()
    for x, (size, name) in enumerate((("l1", "‖g‖₁"), ("participation number", "PN"))):
        panel.text(0.55 * x, -0.75, name, color=".45", va="center")
        own = [(0, r) for r in vanilla if r["quantity"] == size] + _placed(record, select(record, quantity=size))
        for place, row in own:
            panel.text(0.55 * x, place, "–" if row["value"] is None else f"{row['value']:.3g}", va="center")


def _placed(record: dict, rows: list[dict]) -> list[tuple[int, dict]]:
    """Each row of a form with the height at which that form stands."""
    heights = {tuple(axes(form).values()): y for y, form in enumerate(forms(record), 1)}
    return [(heights[tuple(axes(row).values())], row) for row in rows if "h" in row]


def _label(row: dict) -> str:
    return row["attack"] if row["attack"] == "clean" else f"{row['attack']}, {row['eps_255']:g}/255"


def _legend(panel: Axes) -> None:
    if panel.get_legend_handles_labels()[1]:
        panel.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, fontsize=8, handletextpad=0.2)
