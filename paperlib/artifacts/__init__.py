"""Records → figures, tables and findings.  Each artifact has a module, found by its name; nothing imports torch.

The module of `tab-whitebox` is `tab_whitebox`.  It has three functions of a record: `headline` (the finding in a
sentence), `figure` (a Matplotlib figure) and `table` (a list of data frames), and `caption`, a template for
`reading.captioned`.  It may have `box`, which yields `reading.Line`s, and, for further figures, `PARTS`, which maps
names to `reading.Part`s.
"""

import importlib
import io
import textwrap
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

from paperlib import files, paths
from paperlib.artifacts import reading, tabulating
from paperlib.artifacts.reading import Part
from paperlib.errors import Refused

STYLE = {"font.size": 9, "axes.titlesize": 9, "legend.frameon": False, "figure.dpi": 110}
STYLE |= {"grid.color": ".9", "font.sans-serif": ["DejaVu Sans"]}  # the font that comes with Matplotlib
DPI = 160  # of the files
NEEDED = ("headline", "caption", "figure", "table")


def source(artifact: str) -> Path | None:
    """The file of an artifact's module, in this package or beside a notebook; None for a notebook without an artifact.

    The module of "tab-mine" is tab_mine.py.
    """
    name = f"{artifact.replace('-', '_')}.py"
    folders = [Path(__file__).parent, *paths.notebook_folders()]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def module(artifact: str) -> ModuleType:
    """The module of an artifact; refuses an artifact without one, and a module that lacks one of `NEEDED`."""
    path = source(artifact)
    if path is None:
        raise Refused(
            f"There is no artifact {artifact!r}: neither paperlib/artifacts nor a folder of notebooks has "
            f"{artifact.replace('-', '_')}.py."
        )
    if path.parent == Path(__file__).parent:
        loaded = importlib.import_module(f"{__name__}.{path.stem}")
    else:
        hashed = files.sha256(str(path.resolve()).encode())[:8]  # two folders may have files of one name
        loaded = files.module(path, f"{__name__}.{hashed}_{path.stem}")
    if missing := [name for name in NEEDED if not hasattr(loaded, name)]:
        raise Refused(f"{paths.shown(path)} lacks {', '.join(missing)}; it needs {', '.join(NEEDED)}.")
    if not isinstance(loaded.caption, str):
        raise Refused(f"{paths.shown(path)}: caption is a {type(loaded.caption).__name__}; it must be text.")
    return loaded


def parts(artifact: str) -> dict[str, Part]:
    """An artifact's figures by name, in reading order; the name of the first is ""."""
    functions = module(artifact)
    first = Part(functions.headline, functions.caption, functions.figure, functions.table)
    return {"": first} | getattr(functions, "PARTS", {})


def headline(record: dict, part: str = "") -> str:
    """The title of a figure: the finding with its numbers."""
    return parts(record["artifact"])[part].headline(record)


def caption(record: dict, part: str = "") -> str:
    """The line below a figure: data, sample sizes, seeds, intervals, profile."""
    return reading.captioned(record, parts(record["artifact"])[part].caption)


def table(record: dict, part: str = "") -> str:
    """The tables of a part as Markdown; empty where there are none."""
    return tabulating.markdown(record, parts(record["artifact"])[part].table(record))


def tables(record: dict) -> str:
    """The tables of all parts as Markdown."""
    return "\n\n".join(filter(None, (table(record, part) for part in parts(record["artifact"]))))


def draw(record: dict, part: str = "") -> Figure:
    """The figure of a part, with its headline as the title and its caption below."""
    with _style():
        figure = parts(record["artifact"])[part].figure(record)
        title = headline(record, part).replace(" %", "\u00a0%").replace(" - ", "\u00a0-\u00a0")  # no line breaks there
        figure.suptitle(
            "\n".join(textwrap.wrap(title, int(9.6 * figure.get_figwidth()))),
            fontsize=11,
            fontweight="bold",
            x=0.02,
            ha="left",
        )
        figure.supxlabel(caption(record, part), fontsize=8, color=".35", x=0.02, ha="left")
    plt.close(figure)  # a notebook shows what a cell returns; an open figure would be shown twice
    return figure


def save(record: dict, path: Path, part: str = "") -> None:
    """Write the figure of a part as PNG, without date and version: equal records give equal bytes."""
    picture = io.BytesIO()
    with _style():
        draw(record, part).savefig(picture, format="png", dpi=DPI, metadata={"Software": None})
    files.write_atomically(path, picture.getvalue())


def _style() -> AbstractContextManager:
    """A context with the settings of all figures, and none of the reader's own."""
    return plt.style.context(["default", sns.axes_style("whitegrid"), STYLE])
