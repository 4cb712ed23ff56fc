"""Which networks of a profile a study looks at: plain functions from a profile to experiments."""

from typing import NamedTuple

VARIED = ("variants", "hs", "square_lambdas", "absolute_lambdas", "seeds", "epochs", "network")  # of fig-sr-variants


class Setting(NamedTuple):
    """How a network's neurons treat time: steps, leak and reset; or that they are ReLUs, which know none of it."""

    T: int
    tau: float
    detach_reset: bool = False
    ann: bool = False
