"""README's sections as pages, and other Markdown files of the project."""

import re
from collections.abc import Mapping

from paperlib import paths
from paperlib.site import links

ELSEWHERE = ("The notebooks", "Glossary")  # sections that have a page of their own kind
MERMAID = re.compile(r"```mermaid\n(.*?)```", re.DOTALL)
NODE = re.compile(r'(\w+)\["?([^\]"]+)"?\]')


def sections() -> dict[str, str]:
    """README's sections, heading → Markdown below it, without what stands before the first and those `ELSEWHERE`."""
    return {heading: text for heading, text in _all().items() if heading not in ELSEWHERE}


def glossary() -> str:
    """README's section of that name; empty where it has none."""
    return _all().get("Glossary", "")


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading, which is also the name of its page."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def page(heading: str, text: str, place: str, pages: Mapping[str, str], source: str = "README.md") -> str:
    """A page of the site from Markdown of the file `source`: its headings are one level higher, its links rewritten."""
    text = re.sub(r"^#(#{2,} )", r"\1", MERMAID.sub(lambda match: _as_table(match[1]), text), flags=re.MULTILINE)
    return f"# {heading}\n\n{links.rewritten(text, source=source, page=place, pages=pages)}"


def _all() -> dict[str, str]:
    parts = re.split(r"^## (.+)\n", paths.README.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _as_table(diagram: str) -> str:
    """A Mermaid flowchart as a table: each box, its text, and the boxes that its arrows lead to."""
    boxes, arrows = {}, {}
    for line in diagram.splitlines():
        boxes |= {name: text.split("<br>", 1) for name, text in NODE.findall(line)}
        if "-->" in line:
            start, ends = NODE.sub(r"\1", line).split("-->")
            arrows[start.strip()] = [end.strip() for end in ends.split("&")]
    lines = ["| part | what it holds | imports |", "|---|---|---|"]
    for name, (title, *text) in boxes.items():
        holds = ", ".join(([] if title.strip("/") == name else [title]) + text).replace("<br>", ", ")
        lines.append(f"| {name} | {holds} | {', '.join(arrows.get(name, []))} |")
    return "\n".join(lines) + "\n"
