"""The parameters cell: what it may hold, and what may be given for it."""

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from paperlib.errors import Refused
from paperlib.profiles import parameters

CELL = """\
# %% [markdown]
# # A title

# %% tags=["parameters"]
profile: str = "laptop"  # which file under params/
eps_255: list[int] = [4, 8]  # radii in units of 1/255 — "ε"
decay: float = -0.5  # per step
bold: bool = True  # draw thick
models: dict = {  # not this one
    "a": 1,
}  # by name

# %%
other = 3
"""


@pytest.fixture
def source(tmp_path):
    def write(text=CELL):
        (tmp_path / "fig-x.py").write_text(text, encoding="utf-8")
        return tmp_path / "fig-x.py"

    return write


@pytest.fixture
def cell(source):
    return parameters.declared(source())


def test_the_cell_is_read_with_types_defaults_and_comments(cell):
    assert {name: tuple(p) for name, p in cell.items()} == {
        "profile": ("profile", "str", "laptop", "which file under params/"),
        "eps_255": ("eps_255", "list[int]", [4, 8], 'radii in units of 1/255 — "ε"'),
        "decay": ("decay", "float", -0.5, "per step"),
        "bold": ("bold", "bool", True, "draw thick"),
        "models": ("models", "dict", {"a": 1}, "by name"),
    }
    assert list(cell) == ["profile", "eps_255", "decay", "bold", "models"]


@pytest.mark.parametrize(
    "line",
    [
        "samples = 500  # not annotated",
        "samples: int = 500",
        "samples: int = 500  #",
        "samples: int  # no value",
        "samples: int = 5; seeds: int = 3  # two",
        "samples: int = abs(5)  # not a literal",
        "samples: int = '500'  # of another type",
        "samples: int = True  # of another type",
        "samples: tuple = (1,)  # a type that YAML cannot say",
        "samples: list[dict] = []  # neither this",
        "print('hello')  # not an assignment",
    ],
)
def test_a_line_of_another_form_is_refused(source, line):
    with pytest.raises(Refused, match="notebook fig-x: .*parameters cell has the line") as refusal:
        parameters.declared(source(CELL.replace('profile: str = "laptop"  # which file under params/', line)))
    assert line in str(refusal.value) or repr(line) in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (CELL.replace(' tags=["parameters"]', ""), "0 cells are tagged parameters"),
        (CELL + CELL, "2 cells are tagged parameters"),
        (CELL.replace("[4, 8]", "[4, 8"), "not Python"),
    ],
)
def test_a_missing_doubled_or_broken_cell_and_an_unknown_notebook_are_refused(source, text, words):
    with pytest.raises(Refused, match=f"notebook fig-x: .*{words}"):
        parameters.declared(source(text))
    with pytest.raises(Refused, match="no notebook 'fig-y'. Allowed: fig-x"):
        parameters.declared(source().with_stem("fig-y"))


def test_given_values_override_defaults_as_copies_and_ints_become_floats(cell):
    given = {"decay": 2, "eps_255": [1]}
    values = parameters.check("fig-x", cell, given)
    assert values == {"profile": "laptop", "eps_255": [1], "decay": 2.0, "bold": True, "models": {"a": 1}}
    assert type(values["decay"]) is float
    values["eps_255"].append(2)
    values["models"].clear()
    assert given["eps_255"] == [1] and cell["models"].default == {"a": 1}


def test_an_unknown_name_is_refused_with_what_the_notebook_takes(cell):
    with pytest.raises(Refused) as refusal:
        parameters.check("fig-x", cell, {"epsilon": 3, "bold": False}, origin="params/laptop.yml")
    assert str(refusal.value) == (
        "params/laptop.yml: notebook fig-x has no parameter 'epsilon'. It takes: profile, eps_255, decay, bold, models."
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("eps_255", value) for value in ("abc", 4, [4, 8.0], [True], (4, 8))),
        *(("decay", value) for value in ("1e-3", True, math.nan, math.inf, 10**400)),
        ("bold", 1),
        ("profile", None),
        ("models", [("a", 1)]),
    ],
)
def test_an_ill_typed_value_is_refused(cell, name, value):
    with pytest.raises(Refused) as refusal:
        parameters.check("fig-x", cell, {name: value}, origin="-p")
    words = f"-p: notebook fig-x takes {name}: {cell[name].type} ({cell[name].help}), not {value!r}."
    assert str(refusal.value) == words


# ---- inside a notebook -------------------------------------------------------------------------------------------


@pytest.fixture
def namespace(cell):
    history = [""]
    initial = {"In": history, "Out": {}, "exit": object(), "startup": 3}
    shell = SimpleNamespace(user_ns_hidden=dict(initial))  # the names that IPython itself put there
    values = {p.name: p.default for p in cell.values()}
    imported = {"sys": sys, "Path": Path, "ceil": math.ceil}
    return {"get_ipython": lambda: shell, "__name__": "__main__", "_i1": "", **initial, **imported, **values}


def test_current_values_are_taken_and_checked(cell, namespace):
    namespace["decay"] = 3
    values = parameters.from_namespace("fig-x", cell, namespace)
    assert values == {p.name: p.default for p in cell.values()} | {"decay": 3.0}


@pytest.mark.parametrize("name", ["epsilon", "exit", "startup"])
def test_a_stray_variable_is_refused_even_under_a_name_of_ipython(cell, namespace, name):
    namespace[name] = 8
    for _ in range(2):  # a refusal does not make the next call lenient
        with pytest.raises(Refused, match=f"notebook fig-x has no parameter '{name}'. It takes: profile"):
            parameters.from_namespace("fig-x", cell, namespace)


def test_an_ill_typed_or_missing_variable_is_refused(cell, namespace):
    namespace["bold"] = "yes"
    with pytest.raises(Refused, match="takes bold: bool"):
        parameters.from_namespace("fig-x", cell, namespace)
    del namespace["bold"]
    with pytest.raises(Refused, match="bold not set; run its parameters cell first"):
        parameters.from_namespace("fig-x", cell, namespace)


def test_the_cell_can_be_run_again_in_an_open_notebook(cell, namespace):
    parameters.from_namespace("fig-x", cell, namespace)
    namespace |= {"records": [1, 2], "eps_255": [16]}
    assert parameters.from_namespace("fig-x", cell, namespace)["eps_255"] == [16]
    namespace["eps_255"] = 16
    with pytest.raises(Refused, match=r"takes eps_255: list\[int\]"):
        parameters.from_namespace("fig-x", cell, namespace)


def test_tags_that_are_no_list_are_refused():
    for tags in ('["parameters', "[parameters]", "3"):
        with pytest.raises(Refused, match="has tags that are no list of texts"):
            list(parameters.cells(f"# %% tags={tags}\nx: int = 3  # a number\n"))
