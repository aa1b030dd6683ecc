"""Every table in a box of its own, so that a wide one scrolls and the page does not."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    """Wrap the tables of every page once its references are resolved."""
    app.connect("doctree-resolved", wrap)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def wrap(_app: Sphinx, tree: nodes.document, _page: str) -> None:
    """Put a container around each table."""
    for table in list(tree.findall(nodes.table)):
        box = nodes.container(classes=["table-scroll"])
        table.replace_self(box)
        box += table
