"""Links of README and of notebooks, which lead to files, made into links that lead to pages of the site."""

import os
import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from paperlib import environment, paths

BRANCH = "main"
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")


def blob(path: str, revision: str = BRANCH) -> str:
    """The address of a file in the public repository."""
    return f"{environment.repository()}/blob/{revision}/{path}"


def rewritten(markdown: str, *, source: str, page: str, pages: Mapping[str, str]) -> str:
    """`markdown` of the file `source` of the project for `page` of the site.

    `pages` maps files and headings ("README.md#profiles") of the project to pages of the site; images of the project
    are copied under the same path.  What has no page is linked in the public repository.
    """

    def replace(match: re.Match) -> str:
        image, text, target = match.groups()
        path, _, anchor = target.partition("#")
        if ":" in path:
            return match[0]
        path = _inside(source, path) if path else source
        hash_ = f"#{anchor}" if anchor else ""
        if image:
            found, hash_ = path, ""
        elif path + hash_ in pages:
            found, hash_ = pages[path + hash_], ""
        else:
            found = pages.get(path)
        if found is None:
            return f"[{text}]({blob(path)}{hash_})"
        return f"{image}[{text}]({os.path.relpath(found, PurePosixPath(page).parent)}{hash_})"

    return LINK.sub(replace, markdown)


def images(markdown: str, source: str) -> list[str]:
    """The pictures that `markdown` of the file `source` shows, as paths inside the project."""
    found = [_inside(source, target) for image, _, target in LINK.findall(markdown) if image and ":" not in target]
    return [path for path in found if (paths.ROOT / path).is_file()]


def _inside(source: str, target: str) -> str:
    return os.path.normpath(PurePosixPath(source).parent / target)
