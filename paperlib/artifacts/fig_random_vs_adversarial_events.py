"""Random noise against an attack of the same or a smaller size, on event data: in counts and in whole events."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from pandas import DataFrame

from paperlib import labels
from paperlib.artifacts.drawing import shares
from paperlib.artifacts.events import NOTHING, UNITS, nothing
from paperlib.artifacts.noise import LAWS, UNMEASURED, clean_line, noise_panel, widest
from paperlib.artifacts.reading import one_network, percent, points, same_attack, select, trainings, under, where
from paperlib.artifacts.tabulating import pivot
from paperlib.words import attack, hue, radius, size, title

caption = "{data}, {samples} test recordings, {seeds}, one draw of noise a recording"


def headline(record: dict) -> str:
    """Accuracy under the attack on counts and under uniform noise four times larger, where they differ most."""
    means = select(record, quantity="mean accuracy")
    if not means:
        return NOTHING
    training = means[0]["training"]
    gaps = select(record, quantity="mean gap", noise="uniform", training=training)
    widest_gap = widest(where(means, training=training), gaps)
    if widest_gap is None:
        return UNMEASURED
    attacked, noise = widest_gap
    return (
        f"On event data {attack(attacked)} leaves {title(training)} networks {100 * attacked['value']:.0f} %, uniform "
        f"noise four times larger {100 * noise:.0f} %{one_network([attacked])}"
    )


def figure(record: dict) -> Figure:
    """A row of panels for each training: two laws of noise and PGD in counts, random and chosen flips of events."""
    names = trainings(record)
    if not names:
        return nothing()
    shape = {"figsize": (11, 0.8 + 2.7 * len(names)), "sharey": True, "squeeze": False, "layout": "constrained"}
    fig, axes = plt.subplots(len(names), len(LAWS), **shape)
    shares(axes[0, 0], select(record, quantity="mean accuracy"))
    for row, training in zip(axes, names, strict=True):
        means = select(record, quantity="mean accuracy", training=training)
        (clean,) = under(means, labels.CLEAN)
        for ax, law in zip(row, LAWS, strict=True):
            gaps = select(record, quantity="mean gap", noise=law, training=training)
            noise_panel(means, gaps, ax)
            (unit,) = size(gaps[0])
            ax.set_xlabel(f"{UNITS[unit]}, of the attack")
            clean_line(clean, ax, named=ax is row[0])
        row[0].set_ylabel(f"{title(training)}\naccuracy, %", color=hue(training))
    for ax, name in zip(axes[0], LAWS.values(), strict=True):
        ax.set_title(name)
    return fig


def table(record: dict) -> list[DataFrame]:
    """A line for each training, law and radius: accuracy under the attack, and under the noise minus that."""
    means = select(record, quantity="mean accuracy")

    def head(gap: dict) -> dict:
        (attacked,) = where(same_attack(means, gap), training=gap["training"])
        return {
            "training": title(gap["training"]),
            "attack": attack(gap),
            "radius": radius(gap),
            "accuracy": percent(attacked),
            "noise": gap["noise"].replace("_", " "),
        }

    gaps = select(record, quantity="mean gap")
    return [pivot(gaps, head, lambda gap: f"noise of {gap['factor']} times the size, minus it", points)]
