"""Checks of input.  Each refuses bad input in one sentence that says what was given and what is allowed.

In all checks `what` names the input in that sentence and `given` is its value.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


class Refused(ValueError):
    """Input cannot be used.  The command line prints the sentence without a traceback and exits with status 2."""


def one_of(what: str, given: object, allowed: Iterable) -> None:
    """Refuse `given` unless it is one of `allowed`, which the sentence lists."""
    allowed = list(allowed)
    if given not in allowed:
        raise Refused(f"There is no {what} {given!r}. Allowed: {', '.join(map(str, allowed))}.")


def number(what: str, given: object, *, above: float | None = None, at_least: float | None = None) -> None:
    """Refuse `given` unless it is a finite number that is larger than `above`, or at least `at_least`."""
    bound = ""
    if above is not None:
        bound = f" above {above}"
    if at_least is not None:
        bound = f" of at least {at_least}"
    finite = isinstance(given, (int, float)) and not isinstance(given, bool) and math.isfinite(given)
    if not finite or (above is not None and given <= above) or (at_least is not None and given < at_least):
        raise Refused(f"{what} is {given!r}; it must be a finite number{bound}.")


def count(what: str, given: object, *, at_least: int = 1) -> None:
    """Refuse `given` unless it is a whole number of at least `at_least`."""
    if not isinstance(given, int) or isinstance(given, bool) or given < at_least:
        raise Refused(f"{what} is {given!r}; it must be a whole number of at least {at_least}.")


def unit(what: str, given: object) -> None:
    """Refuse `given` unless it is a number in [0, 1]."""
    number(what, given, at_least=0)
    if given > 1:
        raise Refused(f"{what} is {given!r}; it must lie in [0, 1].")


def takes(what: str, function: Callable, options: dict) -> None:
    """Refuse `options` unless `function` can be called with them as keyword arguments."""
    signature = inspect.signature(function)
    try:
        signature.bind(**options)
    except TypeError as problem:
        raise Refused(f"{what} cannot take {options}: {problem}. It takes {signature}.") from None


def registered_once(what: str, name: str, before: Callable | None, now: Callable) -> None:
    """Refuse to register the function `now` as the `what` called `name` if another function has that name.

    `before` is the function that has the name so far, or None.  A function that is defined again, as when the cell of a
    notebook runs twice, replaces itself.
    """
    if before is not None and (before.__module__, before.__qualname__) != (now.__module__, now.__qualname__):
        raise Refused(
            f"The name {name!r} is taken already by the {what} {before.__qualname__} of {before.__module__}; "
            "choose another name."
        )


_planned: list[str] = []  # the notebook that is planned now, if there is one


@contextmanager
def planning(notebook: str) -> Iterator[None]:
    """Make `refuse_while_planning` raise inside the block.

    To plan a notebook, its cell tagged `asks` is executed; meanwhile nothing may be trained, attacked or evaluated.
    """
    _planned.append(notebook)
    try:
        yield
    finally:
        _planned.pop()


def refuse_while_planning(what: str) -> None:
    """Refuse an action inside `planning`.  `what` is the verb: "trains", "attacks", "evaluates"."""
    if _planned:
        raise Refused(
            f"notebook {_planned[-1]}: its cell tagged asks {what} by itself; it may only name networks and attacks, "
            "by run.ask."
        )
