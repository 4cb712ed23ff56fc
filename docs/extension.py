"""What Sphinx lacks: formulas as MathML, which a browser draws by itself, and this project's docstrings as pages.

Docstrings here are plain text: `code` in single backticks, lists, and indented examples.
"""

import ast
import inspect
import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx import addnodes
from sphinx.util import logging

logger = logging.getLogger(__name__)


def setup(app):
    """Register all of it with Sphinx."""
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    app.connect("autodoc-process-docstring", _process_docstring)
    app.connect("doctree-read", _shorten_types)
    app.connect("autodoc-skip-member", _skip_field)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


# ---- formulas ----------------------------------------------------------------------------------------------------


def _visit_inline(translator, node):
    _write(translator, node, as_block=False)


def _visit_block(translator, node):
    _write(translator, node, as_block=True)


def _write(translator, node, as_block):
    try:
        translator.body.append(tex2mathml(node.astext(), as_block=as_block))
    except MathError as problem:
        logger.warning("This formula cannot be written as MathML: %s", problem, location=node)
    raise nodes.SkipNode


# ---- docstrings --------------------------------------------------------------------------------------------------


def as_rst(text: str) -> str:
    """A plain docstring as reStructuredText: nothing in it is markup but backticks, lists and indented examples."""
    blocks = re.split(r"\n{2,}", text.strip("\n"))
    return "\n\n".join(_block(block) for block in blocks) + "\n"


def _block(block: str) -> str:
    lines = block.split("\n")
    if all(line.startswith("    ") for line in lines if line):
        return "::\n\n" + block
    items = re.split(r"^(?=\s*[*-] )", block, flags=re.MULTILINE)
    return "\n\n".join(_item(item.rstrip("\n")) for item in items if item.strip())


def _item(item: str) -> str:
    mark = re.match(r"\s*[*-] ", item)
    start = mark[0] if mark else ""
    return start + "".join(
        _literal(part) if i % 2 else _escaped(part) for i, part in enumerate(item[len(start) :].split("`"))
    )


def _literal(code: str) -> str:
    return f"\\ ``{' '.join(code.split())}``\\ " if code.strip() else "``"


def _escaped(text: str) -> str:
    return re.sub(r"([\\*_|`])", r"\\\1", text)


def _process_docstring(app, what, name, subject, options, lines):
    text = as_rst("\n".join(lines))
    if what == "class":
        text += _fields(subject)
    lines[:] = text.split("\n")


def _shorten_types(app, doctree):
    """Types by their last name.  autodoc marks them with a tilde, which stays where Sphinx cannot parse a parameter."""
    for parameter in doctree.findall(addnodes.desc_parameter):
        for text in [node for node in parameter.findall(nodes.Text) if "~" in node]:
            text.parent.replace(text, nodes.Text(re.sub(r"~(?:\w+\.)*(\w+)", r"\1", text)))


def _fields(subject) -> str:
    """The fields of a dataclass or a named tuple with the comments behind them, as a list."""
    try:
        source = inspect.cleandoc("\n" + inspect.getsource(subject))
        body = ast.parse(source).body[0].body
    except (OSError, TypeError, SyntaxError, IndexError):
        return ""
    lines, found = source.split("\n"), []
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and not node.target.id.startswith("_"):
            _, _, comment = lines[node.end_lineno - 1].partition("  # ")
            given = f": {ast.unparse(node.annotation)}" + (f" = {ast.unparse(node.value)}" if node.value else "")
            found.append(f"* ``{node.target.id}{given}``" + (f": {_item(comment)}" if comment else ""))
    return "\n" + "\n".join(found) + "\n" if found else ""


def _skip_field(app, what, name, subject, skip, options):
    """Leave out the fields of named tuples, which the list of their class has."""
    return True if (inspect.getdoc(subject) or "").startswith("Alias for field number") else None
