"""The page as one file: page.html with its style, its scripts and its content inside it."""

import json
import re
from pathlib import Path

HERE = Path(__file__).parent


def page(content: dict) -> bytes:
    """The HTML of the explorer that holds `content` (see `content.of`)."""
    html = _source("page.html")
    html = re.sub(r'<link rel="stylesheet" href="(.+?)">', lambda m: f"<style>\n{_source(m[1])}</style>", html)
    html = re.sub(r'<script src="(.+?)"></script>', lambda m: f"<script>\n{_source(m[1])}</script>", html)
    text = json.dumps(content, ensure_ascii=False, sort_keys=True, indent=1).replace("<", "\\u003c")  # no </script>
    empty = '<script id="content" type="application/json"></script>'
    return html.replace(empty, empty.replace("></", f">\n{text}\n</")).encode()


def _source(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
