"""What all figures have in common: colours, type, and how they become SVG."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import matplotlib as mpl

from uncollapse.errors import RunError, UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Ten colours that the colour-blind can tell apart (Petroff 2021, "Accessible color sequences").
PALETTE = (
    "#3f90da",
    "#e76300",
    "#832db6",
    "#bd1f01",
    "#ffa90e",
    "#a96b59",
    "#717581",
    "#94a4a2",
    "#b9ac70",
    "#92dadd",
)
# A class beyond the tenth takes the next shape, a run beyond the tenth the next dash pattern;
# the second of each pair is the same sign in running text.
MARKERS = (("o", "●"), ("s", "■"), ("^", "▲"), ("D", "◆"))
LINES: tuple[tuple[Any, str], ...] = (
    ("solid", "━"),
    ((0, (4, 2)), "╍"),
    ((0, (1, 1.5)), "┉"),
)
INK, MUTED, FAINT = "#222222", "#6b6b6b", "#d9d9d9"

_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a label may hold a dollar sign
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "grid.color": "#ededed",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "none",  # text stays text: it can be searched, and any script is displayed
    "svg.hashsalt": "uncollapse",  # the same figure is the same file
}
LAYOUTS = 2  # before one is kept: where an axis keeps its proportions, the first cuts its name off
_NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's settings for as long as a figure is drawn or saved."""
    with mpl.rc_context(cast("Any", _STYLE)), warnings.catch_warnings():
        # the font that matplotlib measures with lacks some scripts; a browser's has them
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def colour(number: int) -> str:
    """Colour of a class or a run."""
    return PALETTE[number % len(PALETTE)]


def shape(number: int, shapes: tuple[tuple[Any, str], ...]) -> tuple[Any, str]:
    """Entry of `MARKERS` or `LINES` for a class or a run."""
    return shapes[number // len(PALETTE) % len(shapes)]


def to_svg(figure: Figure, description: str) -> str:
    """The figure as an ``<svg>`` element that can stand in an HTML page.

    Parameters
    ----------
    figure : Figure
    description : str
        What it shows, for those who do not see it.
    """
    file = io.StringIO()
    with style():
        figure.savefig(file, format="svg", metadata=_NO_METADATA)
    svg = file.getvalue()
    svg = svg[svg.index("<svg ") :]  # prolog and document type belong to files, not to elements
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure to a file whose suffix says the format, e.g. ``.svg``, ``.png``, ``.pdf``.

    Raises
    ------
    UserError
        For a suffix that is no format.
    RunError
        If the file cannot be written.
    """
    path = Path(path)
    formats = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        raise UserError(f"{path}: unknown format {path.suffix!r}; known: {', '.join(formats)}")
    try:
        with style():
            for _ in range(LAYOUTS):
                figure.draw_without_rendering()
            figure.savefig(path, dpi=200)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from None
