"""What tab-events and fig-random-vs-adversarial-events share."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

NOTHING = "No training on event data was asked for"
UNITS = {"eps_counts": "ε in counts", "flips": "changed events, k", "moves": "moved events, k"}  # of a radius


def nothing() -> Figure:
    """An empty figure, for a profile that asks for no training on event data."""
    fig, ax = plt.subplots(figsize=(9, 1.2), layout="constrained")
    ax.axis("off")
    return fig
