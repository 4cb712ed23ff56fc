"""What is committed → build/site: pages of notebooks, records, docstrings and README, which open without a network.

`sources` writes the source pages, for which the other modules make parts; Sphinx renders them by docs/conf.py.  Nothing
is executed and nothing here needs torch; Sphinx imports it for the docstrings.
"""

import shutil

from paperlib import paths
from paperlib.errors import Refused
from paperlib.site import sources

SITE = paths.BUILD / "site"
SOURCES = paths.BUILD / "site-sources"


def build(profiles: list[str]) -> None:
    """Write the site of these profiles to build/site; a warning of Sphinx is an error."""
    try:
        from sphinx.cmd.build import build_main
    except ImportError:
        raise Refused(
            "make site needs Sphinx and its extensions: pip install -c requirements.lock -e '.[site]'."
        ) from None
    for folder in (SOURCES, SITE):
        shutil.rmtree(folder, ignore_errors=True)
    sources.write(SOURCES, profiles)
    if build_main(["--quiet", "--fail-on-warning", "--keep-going", "--jobs", "auto", str(SOURCES), str(SITE)]):
        raise Refused("The site is not complete; the warnings above say where.")
    shutil.rmtree(SITE / ".doctrees")
