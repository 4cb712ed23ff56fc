"""A line of the box that ends a notebook on theory."""

from typing import NamedTuple


class Line(NamedTuple):
    """One line of the box: whether a statement holds (None: the numbers do not tell), and the numbers that say so."""

    holds: bool | None
    statement: str
    numbers: str
