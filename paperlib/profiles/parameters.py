"""A notebook's parameters: read from its one parameters cell, and checked wherever values for them come in.

The cell is the only declaration: `name: type = default  # help`, a line each.  papermill shows the same lines
(`--help-notebook`) but takes any name and any value, so both the runner and the notebook's next cell check here.
"""

import ast
import copy
import inspect
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from paperlib.errors import Refused, one_of

TYPES = ("int", "float", "str", "bool", "list[int]", "list[float]", "list[str]", "dict")
FORM = "name: type = value  # what it means"
CHECKED = "_parameters_checked"  # set in a notebook's namespace once nothing but the declared names was found in it


class Parameter(NamedTuple):
    """One line of a parameters cell; `type` is the annotation as written, one of `TYPES`."""

    name: str
    type: str
    default: Any
    help: str


def cells(text: str) -> Iterator[tuple[list[str], str]]:
    """The cells of a py:percent text in order, each as its tags and its lines, marker included."""
    for cell in re.split(r"^(?=# %%)", text, flags=re.MULTILINE)[1:]:
        tags = re.search(r"tags=(\[.*?\])", cell.partition("\n")[0])
        yield ast.literal_eval(tags[1]) if tags else [], cell


def declared(source: Path) -> dict[str, Parameter]:
    """The parameters of the notebook with this py:percent source, by name, in the cell's order.

    Refuses an unknown notebook, one without exactly one cell tagged parameters, and a cell that holds anything but
    annotated and commented assignments of literals.
    """
    one_of("notebook", source.stem, sorted(path.stem for path in source.parent.glob("*.py")))
    found = [cell for tags, cell in cells(source.read_text(encoding="utf-8")) if "parameters" in tags]
    if len(found) != 1:
        raise Refused(f"notebook {source.stem}: {len(found)} cells are tagged parameters; there must be one.")
    try:
        body = ast.parse(found[0]).body
    except SyntaxError as error:
        raise Refused(f"notebook {source.stem}: its parameters cell is not Python: {error}.") from None
    parameters = [_parameter(source.stem, node, found[0].splitlines()) for node in body]
    return {parameter.name: parameter for parameter in parameters}


def _parameter(notebook: str, node: ast.stmt, lines: list[str]) -> Parameter:
    try:
        comment = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode().strip()  # columns count bytes
        kind, default, words = ast.unparse(node.annotation), ast.literal_eval(node.value), comment.lstrip("# ")
        if not comment.startswith("#") or not words:
            raise ValueError
        return Parameter(node.target.id, kind, _converted(kind, default), words)
    except (AttributeError, ValueError, TypeError):
        raise Refused(
            f"notebook {notebook}: its parameters cell has the line {lines[node.lineno - 1]!r}; each must read "
            f"{FORM!r} with a literal of one of the types {', '.join(TYPES)}."
        ) from None


def check(notebook: str, declared: dict[str, Parameter], given: dict[str, Any], *, origin: str = "") -> dict[str, Any]:
    """The value of every declared parameter: as `given`, else its default.

    Refuses a name that is not declared and a value of another type (an int may stand for a float and becomes one; a
    bool is no int; floats are finite).  `origin` opens the sentence: where the values came from, say a file.
    """
    prefix = f"{origin}: " if origin else ""
    unknown = [name for name in given if name not in declared]
    if unknown:
        names = ", ".join(map(repr, unknown))
        takes = ", ".join(declared) or "none"
        raise Refused(f"{prefix}notebook {notebook} has no parameter {names}. It takes: {takes}.")
    values = {}
    for name, kind, default, words in declared.values():
        value = given.get(name, default)
        try:
            values[name] = _converted(kind, value)
        except (TypeError, OverflowError):
            message = f"{prefix}notebook {notebook} takes {name}: {kind} ({words}), not {value!r}."
            raise Refused(message) from None
    return values


def _converted(kind: str, value: Any) -> Any:
    """`value` as the annotation `kind` has it, a copy; TypeError if it is something else."""
    if kind in TYPES[4:7] and type(value) is list:
        return [_converted(kind[5:-1], item) for item in value]
    if kind == "float" and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if kind in ("int", "str", "bool", "dict") and type(value).__name__ == kind:
        return copy.deepcopy(value)
    raise TypeError


def from_namespace(notebook: str, declared: dict[str, Parameter], namespace: dict[str, Any]) -> dict[str, Any]:
    """The parameters' current values, for the first cell after them; `namespace` is the notebook's `globals()`.

    papermill gives a misspelt name as one more variable, so on the first call any public variable that is neither
    declared nor IPython's own is refused.  Later calls, when the cell is run again in an open notebook, find that
    notebook's own variables there and check the declared ones alone.
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
    """Whether `name` is a public variable: no module, function or class, and not there since IPython started."""
    value = namespace[name]
    shell = namespace["get_ipython"]() if "get_ipython" in namespace else None
    initial = getattr(shell, "user_ns_hidden", {})
    code = inspect.ismodule(value) or inspect.isroutine(value) or inspect.isclass(value)
    return not (name.startswith("_") or code or (name in initial and initial[name] is value))
