"""Gradients by pixel, and their sizes against robustness."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from paperlib.claims import select, title
from paperlib.plots.core import hue, trainings


def maps(record: dict) -> Figure:
    """∇f by pixel for each training, and the gradient's sizes against accuracy under attack."""
    images = np.array(record["arrays"]["images"])  # (N, C, H, W)
    maps = {training: np.array(m) for training, m in record["arrays"]["maps"].items()}
    figure = plt.figure(figsize=(9.6, 6.4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(3, 2.1))
    panels = left.subplots(len(images), 1 + len(maps), squeeze=False)
    for row, image in zip(panels, images, strict=True):
        row[0].imshow(image.transpose(1, 2, 0).squeeze(), cmap="gray_r", vmin=0, vmax=1)
    panels[0, 0].set_title("image", fontsize=8)
    for column, (training, gradients) in enumerate(maps.items(), start=1):
        panels[0, column].set_title(title(training), color=hue(training), fontsize=8, fontweight="bold")
        for row, gradient in zip(panels, gradients, strict=True):
            shown = gradient.sum(0)  # channels added; each map on its own scale, since l1 differs by orders
            limit = np.abs(shown).max() or 1
            row[column].imshow(shown, cmap="RdBu_r", vmin=-limit, vmax=limit)
            l1, l2 = np.abs(gradient).sum(), np.sqrt((gradient**2).sum())
            number = f"{(l1 / l2) ** 2:.0f}" if l2 else "undefined"
            row[column].set_xlabel(f"l1 {l1:.2g}, l2 {l2:.1g}\nPN {number}", fontsize=6)
    for panel in panels.flat:
        panel.set(xticks=[], yticks=[])
        sns.despine(ax=panel, left=True, bottom=True)
    left.supxlabel("∇f by pixel, each on its own scale; red: brighter makes the true class likelier", fontsize=7)
    scatters = right.subplots(2, 1, sharey=True)
    robust = {r["experiments"][0]: r for r in select(record, quantity="accuracy")}
    for panel, name in zip(scatters, ("participation number", "l1"), strict=True):
        for training in trainings(record):
            rows = [r for r in select(record, quantity=name, training=training) if r["value"] is not None]
            accuracy = [100 * robust[r["experiments"][0]]["value"] for r in rows]
            panel.plot([r["value"] for r in rows], accuracy, "o", color=hue(training), markersize=4, alpha=0.8)
        (correlation,) = select(record, quantity="rank correlation", sparsity=name)
        known = "undefined" if correlation["value"] is None else f"{correlation['value']:.2f}"
        panel.set_title(f"rank correlation {known}", fontsize=8, loc="right")
        panel.set_xlabel(f"median {'‖g‖₁' if name == 'l1' else name}")
        if any(r["value"] for r in select(record, quantity=name)):
            panel.set_xscale("log")
            panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.xaxis.set_major_formatter("{x:g}")
            panel.xaxis.set_minor_locator(NullLocator())
    scatters[0].set_ylabel(f"accuracy under {correlation['attack']}\nat {correlation['eps_255']:g}/255, %", y=0)
    return figure
