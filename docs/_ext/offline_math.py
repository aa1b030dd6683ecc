"""Formulas as MathML, by the converter that docutils has.

MathJax would come from a server, and imgmath needs LaTeX.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

# the thin space of "log x", which browsers leave out before what is no bracket
FUNCTION = re.compile(r"(<mo>&ApplyFunction;</mo>)(?=\s*<m(?!o))")

LOG = logging.getLogger(__name__)


def setup(app: Sphinx) -> dict[str, Any]:
    """Tell Sphinx of the renderer."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def inline(writer: Any, node: nodes.math) -> None:
    """Write a formula within a line."""
    writer.body.append(mathml(node, as_block=False))
    raise nodes.SkipNode


def block(writer: Any, node: nodes.math_block) -> None:
    """Write a formula of its own."""
    writer.body.append(f'<div class="math">{mathml(node, as_block=True)}</div>\n')
    raise nodes.SkipNode


def mathml(node: nodes.Element, *, as_block: bool) -> str:
    """A formula as MathML; its source, and a warning, where it cannot be read."""
    source = node.astext()
    try:
        found = latex2mathml.tex2mathml(source, as_block=as_block)
    except MathError as error:
        LOG.warning("formula %r: %s", source, error, location=node)
        return f"<code>{nodes.unescape(source)}</code>"
    found = found.replace("\u02c9", "\u00af")  # a bar that fonts draw above the letter
    return FUNCTION.sub(r'\1<mspace width="0.17em"></mspace>', found)
