"""How the site is built: `make docs`. Nothing is fetched, neither to build it nor to read it."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from uncollapse import __version__

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "uncollapse"
author = "the authors of uncollapse"
project_copyright = "Apache 2.0"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "offline_math",  # MathML, which browsers draw by themselves: no script, no network
    "scrolling_tables",
    "generated_pages",  # what recipes, the program and the configuration say of themselves
]
exclude_patterns = ["_build", "examples"]

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
# pages that are made from results are listed by pattern: the site builds before they exist
logging.getLogger("sphinx.sphinx.directives.other").addFilter(
    lambda record: "glob pattern" not in str(record.msg)
)

default_role = "py:obj"  # `name` in a docstring is a link where the name is documented
suppress_warnings = ["ref.python"]  # and to one of several of that name
autodoc_typehints = "none"  # docstrings say types and shapes
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

html_math_renderer = "mathml"
html_theme = "alabaster"
html_title = f"uncollapse {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_sidebars = {"**": ["about.html", "searchfield.html", "navigation.html"]}
html_theme_options = {
    "description": "Variational autoencoders of text whose latent variables stay alive",
    "fixed_sidebar": True,
    "page_width": "1160px",
    "sidebar_width": "240px",
    "sidebar_collapse": True,
    "show_relbars": False,
    "font_family": "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', sans-serif",
    "head_font_family": "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', sans-serif",
    "code_font_family": "ui-monospace, 'SFMono-Regular', Menlo, Consolas, monospace",
}
