"""The parameters of a notebook: read from its cell tagged `parameters`, and checked wherever values are given.

The cell is the only declaration, with a line `name: type = default  # help` for each parameter.  papermill shows the
same lines (`--help-notebook`) but accepts any name and any value.  Therefore the values are checked here, before
papermill runs a notebook and again in the next cell of the notebook.
"""

import ast
import copy
import inspect
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from paperlib.errors import Refused, distinct, one_of

TYPES = ("int", "float", "str", "bool", "list[int]", "list[float]", "list[str]", "dict")
FORM = "name: type = value  # what it means"
CHECKED = "_parameters_checked"  # a variable of the notebook: its parameters have been checked once


class Parameter(NamedTuple):
    """One line of a parameters cell; `type` is the annotation as written, one of `TYPES`."""

    name: str
    type: str
    default: Any
    help: str


def cells(text: str) -> Iterator[tuple[list[str], str]]:
    """The cells of a text in jupytext's percent format, in order: the tags and the text with its `# %%` line.

    Refuses tags that are no list of texts.
    """
    for cell in re.split(r"^(?=# %%)", text, flags=re.MULTILINE)[1:]:
        line = cell.partition("\n")[0]
        tags = re.search(r"tags=(\[.*?\])", line)
        try:
            names = ast.literal_eval(tags[1]) if tags or "tags=" in line else []
        except (TypeError, SyntaxError, ValueError):
            raise Refused(f"The line {line!r} of a notebook has tags that are no list of texts.") from None
        yield names, cell


def declared(source: Path) -> dict[str, Parameter]:
    """The parameters of the notebook with this source, a .py file in percent format, by name in the order of the cell.

    Refuses a notebook that does not exist or does not have exactly one cell tagged `parameters`, and a cell with a line
    that is not an assignment of a literal with a type and a comment.
    """
    one_of("notebook", source.stem, sorted(path.stem for path in source.parent.glob("*.py")))
    tagged = [cell for tags, cell in cells(source.read_text(encoding="utf-8")) if "parameters" in tags]
    if len(tagged) != 1:
        raise Refused(f"notebook {source.stem}: {len(tagged)} cells are tagged parameters; there must be one.")
    try:
        body = ast.parse(tagged[0]).body
    except SyntaxError as error:
        raise Refused(f"notebook {source.stem}: its parameters cell is not Python: {error}.") from None
    parameters = [_parameter(source.stem, node, tagged[0].splitlines()) for node in body]
    return {parameter.name: parameter for parameter in parameters}


def _parameter(notebook: str, node: ast.stmt, lines: list[str]) -> Parameter:
    """The parameter in one statement of the cell with these lines."""
    try:
        comment = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode().strip()  # columns count bytes
        kind, default, text = ast.unparse(node.annotation), ast.literal_eval(node.value), comment.lstrip("# ")
        if not comment.startswith("#") or not text:
            raise ValueError
        return Parameter(node.target.id, kind, _converted(kind, default), text)
    except (AttributeError, ValueError, TypeError):
        raise Refused(
            f"notebook {notebook}: its parameters cell has the line {lines[node.lineno - 1]!r}; each must read "
            f"{FORM!r} with a literal of one of the types {', '.join(TYPES)}."
        ) from None


def check(notebook: str, declared: dict[str, Parameter], given: dict[str, Any], *, origin: str = "") -> dict[str, Any]:
    """The value of every declared parameter: that in `given`, otherwise its default.

    Refuses a name that is not declared, and a value of another type.  An int for a float is converted; a bool is not an
    int; a float must be finite.  `origin` says where the values come from, such as a file; the message begins with it.
    """
    prefix = f"{origin}: " if origin else ""
    unknown = [name for name in given if name not in declared]
    if unknown:
        names = ", ".join(map(repr, unknown))
        takes = ", ".join(declared) or "none"
        raise Refused(f"{prefix}notebook {notebook} has no parameter {names}. It takes: {takes}.")
    values = {}
    for name, kind, default, text in declared.values():
        value = given.get(name, default)
        try:
            values[name] = _converted(kind, value)
            if name == "seeds" and isinstance(value, list):
                distinct(f"{prefix}notebook {notebook}: seeds", value)
        except (TypeError, OverflowError):
            message = f"{prefix}notebook {notebook} takes {name}: {kind} ({text}), not {value!r}."
            raise Refused(message) from None
    return values


def _converted(kind: str, value: Any) -> Any:
    """A copy of `value` in the type `kind`; raises TypeError for a value of another type."""
    if kind in TYPES[4:7] and type(value) is list:
        return [_converted(kind[5:-1], item) for item in value]
    if kind == "float" and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if kind in ("int", "str", "bool", "dict") and type(value).__name__ == kind:
        return copy.deepcopy(value)
    raise TypeError


def from_namespace(notebook: str, declared: dict[str, Parameter], namespace: dict[str, Any]) -> dict[str, Any]:
    """The current values of the parameters, for the cell after them; `namespace` is `globals()` of the notebook.

    papermill turns a misspelt name into a new variable.  Therefore the first call refuses every public variable that is
    neither declared nor IPython's own.  When the cell is run again in an open notebook, the variables of later cells
    are there as well, so later calls check the declared names alone.
    """
    missing = [name for name in declared if name not in namespace]
    if missing:
        raise Refused(f"notebook {notebook}: {', '.join(missing)} not set; run its parameters cell first.")
    given = {name: namespace[name] for name in declared}
    if not namespace.get(CHECKED):
        given |= {name: namespace[name] for name in namespace if _is_variable(name, namespace)}
    values = check(notebook, declared, given)
    namespace[CHECKED] = True
    return values


def _is_variable(name: str, namespace: dict[str, Any]) -> bool:
    """Whether `name` is a public variable: not a module, function or class, and not a name of IPython's own."""
    value = namespace[name]
    shell = namespace["get_ipython"]() if "get_ipython" in namespace else None
    initial = getattr(shell, "user_ns_hidden", {})
    code = inspect.ismodule(value) or inspect.isroutine(value) or inspect.isclass(value)
    return not (name.startswith("_") or code or (name in initial and initial[name] is value))
