"""Checks of input: each refuses a `given` value in one sentence that names it by `what` and says what is allowed."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class Refused(ValueError):
    """Input cannot be used.  The command line prints the sentence without a traceback and exits with status 2."""


def one_of(what: str, given: object, allowed: Iterable) -> None:
    """Refuse `given` unless it is one of `allowed`, which the sentence lists."""
    allowed = list(allowed)
    if given not in allowed:
        raise Refused(f"There is no {what} {given!r}. Allowed: {', '.join(map(str, allowed))}.")


SINGLE = 3.4e38  # the largest number of 32 bits is a little larger
STEPS = 10_000  # time steps of a network or a recording, at most: more are a slip, and fill any memory


def number(what: str, given: object, *, above: float | None = None, at_least: float | None = None) -> None:
    """Refuse `given` unless it is a finite number of 32 bits, larger than `above`, or at least `at_least`."""
    bound = "" if above is None else f" above {above}"
    if at_least is not None:
        bound = f" of at least {at_least}"
    is_number = isinstance(given, (int, float)) and not isinstance(given, bool)
    if is_number and SINGLE < abs(given) < math.inf:
        raise Refused(f"{what} is {given!r}; it must be a number of 32 bits, {SINGLE:g} at most.")
    finite = is_number and math.isfinite(given)
    if not finite or (above is not None and given <= above) or (at_least is not None and given < at_least):
        raise Refused(f"{what} is {given!r}; it must be a finite number{bound}.")


def count(what: str, given: object, *, at_least: int = 1, at_most: int | None = None) -> None:
    """Refuse `given` unless it is a whole number of at least `at_least`, and not above `at_most`."""
    if not isinstance(given, int) or isinstance(given, bool) or given < at_least:
        raise Refused(f"{what} is {given!r}; it must be a whole number of at least {at_least}.")
    if at_most is not None and given > at_most:
        raise Refused(f"{what} is {given}; it must be {at_most} at most.")


def distinct(what: str, given: Iterable) -> None:
    """Refuse `given` if a value occurs twice."""
    given = list(given)
    if twice := [value for number, value in enumerate(given) if value in given[:number]]:
        raise Refused(f"{what} is {given}; {twice[0]!r} stands there twice.")


def home(what: str, path: str) -> Path:
    """`path` with a leading ~ replaced; refuses the home of a user whom the system does not know."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise Refused(f"{what} is {path!r}; the system knows no such user's home.") from None


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
    """Refuse to register `now` as the `what` called `name` if another function, `before`, has that name.

    A function that is defined again, as when the cell of a notebook runs twice, replaces itself.
    """
    if before is not None and (before.__module__, before.__qualname__) != (now.__module__, now.__qualname__):
        owner = f"{what} {before.__qualname__} of {before.__module__}"
        raise Refused(f"The name {name!r} is taken already by the {owner}; choose another name.")


_planned: list[str] = []  # the notebook that is planned now, if there is one


@contextmanager
def planning(notebook: str) -> Iterator[None]:
    """Inside the block, where a notebook's cell tagged `asks` is executed, `refuse_while_planning` raises."""
    _planned.append(notebook)
    try:
        yield
    finally:
        _planned.pop()


def is_planning() -> bool:
    """Whether this is inside `planning`."""
    return bool(_planned)


def refuse_while_planning(what: str) -> None:
    """Refuse an action inside `planning`.  `what` is the verb: "trains", "attacks", "evaluates"."""
    if is_planning():
        cell = f"notebook {_planned[-1]}: its cell tagged asks"
        raise Refused(f"{cell} {what} by itself; it may only name networks and attacks, by run.ask.")
