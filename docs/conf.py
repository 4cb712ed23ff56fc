"""Sphinx's configuration of the site, which `make site` builds (paperlib/site writes the pages that are not here)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # extension.py
import paperlib  # noqa: E402, F401  before torch, which autodoc imports: it settles the arithmetic

project = "Sparse gradients, checked"
author = "the companion's authors"
copyright = author
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_design", "sphinx_copybutton", "extension"]
exclude_patterns = ["_parts", "_extra"]
templates_path = ["_templates"]

# notebooks are shown with the outputs that are committed
nb_execution_mode = "off"
nb_mime_priority_overrides = [("html", "text/markdown", 0)]
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4

# docstrings
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
add_module_names = False
toc_object_entries_show_parents = "hide"
viewcode_follow_imported_members = False  # else its links back lead to modules that only import a name
modindex_common_prefix = ["paperlib."]

# pages; everything that they load lies beside them
html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = [("sortable.js", {"defer": "defer"})]
html_extra_path = ["_extra"]
html_domain_indices = False  # the general index has all names
html_math_renderer = "mathml"  # of the browser: no script, no fonts
html_copy_source = False
html_theme_options = {
    "navbar_persistent": [],  # no second header above the theme's own
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "max_navbar_depth": 1,  # the theme's nested lists have buttons without a name, and take long to write
    "use_download_button": False,
    "use_fullscreen_button": False,
    "article_header_start": ["toggle-primary-sidebar.html", "site-links.html"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
SIDEBAR = ["navbar-logo.html", "search-button-field.html"]
html_sidebars = {"[!_]**": [*SIDEBAR, "sbt-sidebar-nav.html"], "_modules/**": SIDEBAR}  # the list takes long to write
html_context = {"default_mode": "auto", "explorer": (Path(__file__).parent / "_extra" / "explorer.html").exists()}
