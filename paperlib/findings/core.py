"""A line of the box that ends a notebook on theory."""

from typing import NamedTuple


class Line(NamedTuple):
    """One line of the box: whether a statement holds (None: neither yes nor no), and the numbers that say so."""

    holds: bool | None
    statement: str
    numbers: str
