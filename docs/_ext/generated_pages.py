"""What pages say of recipes, verbs and keys is written when the site is built, from the program.

A page says where by a comment of its own, ``<!-- recipes: vae, beta-vae -->``. What stands in
``<!-- with leaderboard: text -->`` is shown once there is such a page.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import command_line
import recipe_keys
import recipe_settings
from sphinx.application import Sphinx

MARKER = re.compile(r"^<!-- (recipes|recipe-index|command-line|recipe-keys)(?:: (.*?))? -->$", re.M)
OPTIONAL = re.compile(r"^<!-- with (\S+): (.*?) -->$", re.M | re.S)
REPORTS = re.compile(r"reproduction/(\w+/)?index")
CONTENTS = "\n```{toctree}\n:hidden:\n:glob:\n\n*\n*/index\n```\n"


def setup(app: Sphinx) -> dict[str, Any]:
    """Have every page filled when it is read."""
    app.connect("source-read", fill)
    app.connect("env-get-outdated", outdated)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def fill(app: Sphinx, page: str, source: list[str]) -> None:
    """Replace the markers of a page by what they stand for; list reports below their index."""

    def text(found: re.Match[str]) -> str:
        kind, names = found.groups()
        if kind == "recipes":
            return recipe_settings.settings(recipe_settings.listed(names))
        if kind == "recipe-index":
            folder = Path(app.srcdir) / "families"
            return recipe_settings.index(recipe_settings.families(folder))
        return command_line.reference() if kind == "command-line" else recipe_keys.reference()

    def shown(found: re.Match[str]) -> str:
        return found[2] if found[1] in app.env.found_docs else ""

    source[0] = OPTIONAL.sub(shown, MARKER.sub(text, source[0]))
    if REPORTS.fullmatch(page):
        source[0] += CONTENTS


def outdated(app: Sphinx, *_: Any) -> list[str]:
    """Pages with markers, always: what they are made from is no file that Sphinx watches."""
    folder = Path(app.srcdir)
    pages = [page for page in app.env.found_docs if (folder / f"{page}.md").is_file()]
    texts = {page: (folder / f"{page}.md").read_text(encoding="utf-8") for page in pages}
    return [page for page, text in texts.items() if MARKER.search(text) or OPTIONAL.search(text)]
