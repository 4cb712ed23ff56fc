"""What the paper's own white-box protocol leaves of each training."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from paperlib import labels
from paperlib.artifacts.drawing import whiskers
from paperlib.artifacts.reading import captioned, select, trainings, under
from paperlib.artifacts.tabulating import by_attack
from paperlib.words import attack, hue, title


def headline(record: dict) -> str:
    """The worst of the whole protocol at the largest radius, and the most that four rules add to one."""
    means = select(record, quantity="mean accuracy")
    eps = max(row["eps_255"] for row in under(means, labels.WORST))
    left = [f"{title(r['training'])} {100 * r['value']:.0f} %" for r in under(means, labels.WORST, eps_255=eps)]
    alone = {_identity(row): row["value"] for row in means}
    added = [
        alone[_identity(row | {"rules": None})] - row["value"] for row in means if row.get("rules") == labels.FOUR
    ]
    return (
        f"The whole protocol at {eps:g}/255 leaves {', '.join(left)}; "
        f"three more backward rules take at most {100 * max(added):.0f} points"
    )


def caption(record: dict) -> str:
    """Data, images and seeds."""
    return captioned(record)


def figure(record: dict) -> Figure:
    """A panel for each radius."""
    means = select(record, quantity="mean accuracy")
    radii = list(dict.fromkeys(row["eps_255"] for row in means if row["eps_255"]))
    fig, axes = plt.subplots(
        len(radii), 1, figsize=(9, 1 + 2.5 * len(radii)), sharex=True, squeeze=False, layout="constrained"
    )
    for ax, eps in zip(axes[:, 0], radii, strict=True):
        bars([row for row in means if row["eps_255"] == eps], trainings(record), ax)
        ax.set_title(f"ε = {eps:g}/255", loc="left")
    axes[0, 0].legend(ncols=4, loc="lower right", bbox_to_anchor=(1, 1), fontsize=8)
    axes[-1, 0].set_xlabel(
        "full bars: the worst of four backward rules; pale: the network's own rule alone", fontsize=8
    )
    return fig


def table(record: dict) -> list[DataFrame]:
    """Accuracy under each attack, and what SR changes."""
    return by_attack(record)


def bars(rows: list[dict], names: list[str], ax: Axes) -> Axes:
    """A group of bars for each attack that was made by four backward rules, and one for the worst of all.

    `rows` are mean accuracies of the trainings `names` at one radius.  Full bars are of four rules, pale ones of the
    network's own rule.
    """
    width = 0.8 / len(names)
    four = under_four(rows)
    groups = list(dict.fromkeys(attack(row | {"rules": None}) for row in four))
    for i, training in enumerate(names):
        own = [row for row in rows if row["training"] == training]
        worst = under(own, labels.WORST)
        pairs = [(_alone(own, row), row) for row in under_four(own)] + [(row, row) for row in worst]
        for x, (alone, strongest) in enumerate(pairs):
            at = x + (i - (len(names) - 1) / 2) * width
            ax.bar(at, 100 * alone["value"], 0.92 * width, color=hue(training), alpha=0.3)
            label = title(training) if x == 0 else None
            ax.bar(at, 100 * strongest["value"], 0.92 * width, color=hue(training), label=label)
            reach = 100 * whiskers([strongest])
            ax.errorbar(at, 100 * strongest["value"], yerr=reach, fmt="none", ecolor=".15", elinewidth=0.8)
    last = [attack(row).replace(" of", "\nof") for row in worst]
    ax.set_xticks(range(len(groups) + len(last)), [*groups, *last])
    ax.set(ylabel="accuracy, %", ylim=(0, 101))
    ax.grid(axis="x", visible=False)
    return ax


def under_four(rows: list[dict]) -> list[dict]:
    """Those of the worst of four backward rules."""
    return [row for row in rows if row.get("rules") == labels.FOUR]


def _alone(rows: list[dict], four: dict) -> dict:
    """Of `rows` the one of the same attack by the network's own rule."""
    wanted = _identity(four | {"rules": None})
    return next(row for row in rows if _identity(row) == wanted)


def _identity(row: dict) -> tuple:
    return row["training"], row["eps_255"], *((name, row[name]) for name in labels.ATTACK if row.get(name) is not None)
