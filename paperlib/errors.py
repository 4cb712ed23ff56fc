"""Bad input, refused where it enters: one sentence with what was given and what is allowed."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


class Refused(ValueError):
    """Input that cannot be used.  The command line prints its sentence without a traceback and exits with 2."""


def one_of(what: str, given: object, allowed: Iterable) -> None:
    """Refuse `given` unless it is one of `allowed`, which the sentence lists."""
    allowed = list(allowed)
    if given not in allowed:
        raise Refused(f"There is no {what} {given!r}. Allowed: {', '.join(map(str, allowed))}.")


def number(what: str, given: object, *, above: float | None = None, at_least: float | None = None) -> None:
    """Refuse `given` unless it is a finite number, `above` or `at_least` the bound that is set."""
    bound = (
        ""
        if above is None and at_least is None
        else f" above {above}"
        if at_least is None
        else f" of at least {at_least}"
    )
    real = isinstance(given, (int, float)) and not isinstance(given, bool) and math.isfinite(given)
    if not real or (above is not None and given <= above) or (at_least is not None and given < at_least):
        raise Refused(f"{what} is {given!r}; it must be a finite number{bound}.")


def count(what: str, given: object, *, at_least: int = 1) -> None:
    """Refuse `given` unless it is a whole number of at least that many."""
    if not isinstance(given, int) or isinstance(given, bool) or given < at_least:
        raise Refused(f"{what} is {given!r}; it must be a whole number of at least {at_least}.")


def unit(what: str, given: object) -> None:
    """Refuse `given` unless it is a number in [0, 1]."""
    number(what, given, at_least=0)
    if given > 1:
        raise Refused(f"{what} is {given!r}; it must lie in [0, 1].")


def takes(what: str, function: Callable, options: dict) -> None:
    """Refuse `options` unless `function` can be called with them as keywords."""
    signature = inspect.signature(function)
    try:
        signature.bind(**options)
    except TypeError as problem:
        raise Refused(f"{what} cannot take {options}: {problem}. It takes {signature}.") from None


def registered_once(what: str, name: str, before: Callable | None, now: Callable) -> None:
    """Refuse to register `now` under a name that another function has.

    The same function defined anew, as when a notebook's cell runs again, takes its own place.
    """
    if before is not None and (before.__module__, before.__qualname__) != (now.__module__, now.__qualname__):
        raise Refused(
            f"There is a {what} {name!r} already, {before.__qualname__} of {before.__module__}; choose another name."
        )


_planned: list[str] = []  # the notebook whose cell `asks` is executed to plan it, if one is


@contextmanager
def planning(notebook: str) -> Iterator[None]:
    """Inside the block nothing is trained or attacked: `refuse_while_planning` raises."""
    _planned.append(notebook)
    try:
        yield
    finally:
        _planned.pop()


def refuse_while_planning(what: str) -> None:
    """Refuse to train or attack while the cell `asks` of a notebook is executed to plan it."""
    if _planned:
        raise Refused(
            f"notebook {_planned[-1]}: its cell tagged asks {what} by itself; it may only name networks and attacks, "
            "by run.ask."
        )
