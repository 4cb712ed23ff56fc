"""Random noise against an attack of the same or a smaller size, on images."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from pandas import DataFrame

from paperlib import labels
from paperlib.artifacts.drawing import shares
from paperlib.artifacts.noise import LAWS, UNMEASURED, clean_line, noise_panel, noise_row, widest
from paperlib.artifacts.reading import IMAGES, one_network, percent, same_attack, select, under
from paperlib.artifacts.tabulating import pivot
from paperlib.words import attack, radius

caption = f"{IMAGES}, one draw of noise an image"


def headline(record: dict) -> str:
    """Accuracy under the attack and under noise four times larger, where they differ most."""
    means = select(record, quantity="mean accuracy")
    widest_gap = widest(means, select(record, quantity="mean gap", noise="uniform"))
    if widest_gap is None:
        return UNMEASURED
    attacked, noise = widest_gap
    return (
        f"{attack(attacked)} leaves {100 * attacked['value']:.0f} % accuracy where uniform noise four times larger "
        f"leaves {100 * noise:.0f} %{one_network([attacked])}"
    )


def figure(record: dict) -> Figure:
    """A panel for each law of noise."""
    means = select(record, quantity="mean accuracy")
    (clean,) = under(means, labels.CLEAN)
    fig, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    shares(axes[0], means)
    for ax, law in zip(axes, ("uniform", "sign"), strict=True):
        noise_panel(means, select(record, quantity="mean gap", noise=law), ax)
        clean_line(clean, ax, named=ax is axes[0])
        ax.set(title=LAWS[law], xlabel="ε of the attack, in 1/255")
    return fig


def table(record: dict) -> list[DataFrame]:
    """A line for each radius: accuracy under the attack and under noise; then the noise's energy after clamping."""
    means = select(record, quantity="mean accuracy")

    def head(gap: dict) -> dict:
        (attacked,) = same_attack(means, gap)
        return {"ε": radius(gap), attack(gap): percent(attacked)}

    def column(gap: dict) -> str:
        return f"{attack({'attack': gap['noise']})}, {gap['factor']}ε"

    gaps = pivot(select(record, quantity="mean gap"), head, column, lambda gap: percent(noise_row(means, gap)))
    energy = [
        {"noise": attack(row), "size": radius(row), "energy left after clamping": percent(row)}
        for row in select(record, quantity="noise energy kept")
    ]
    return [gaps, DataFrame(energy)]
