"""The papers' figures: computed once from finished runs, drawn from stored numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, cast

from uncollapse.errors import unknown_name
from uncollapse.reproduction.figures.drawn import Drawn
from uncollapse.reproduction.figures.runs import Runs

if TYPE_CHECKING:
    from uncollapse.reproduction.figures.drawn import FigureCode

__all__ = ["FIGURES", "Drawn", "Runs", "needs_models"]

# of each figure: the module that makes it, and whether that needs trained models
_MODULES = {
    "dem-figure3": ("dispersion", False),
    "dem-figure4": ("mode_collapse", True),
    "dem-figure5": ("generation", False),
    "bn-figure1": ("lagging", True),
    "bn-figure2": ("batch_norm_scale", True),
    "bn-figure3": ("information", False),
    "twr-figure2": ("interpolation", True),
    "twr-table4": ("examples", True),
    "pool-figure2": ("features", True),
    "pool-figure3": ("cosines", False),
}


class _Figures(Mapping[str, "FigureCode"]):
    """The modules, each imported when it is asked for: PyTorch and matplotlib are heavy."""

    def __getitem__(self, name: str) -> FigureCode:
        if name not in _MODULES:
            raise KeyError(name)
        return cast("FigureCode", import_module(f"{__name__}.{_MODULES[name][0]}"))

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


FIGURES: Mapping[str, FigureCode] = _Figures()


def needs_models(name: str) -> bool:
    """Whether a figure needs trained models or their snapshots, or records or nothing suffice.

    Raises
    ------
    UserError
        For an unknown figure.
    """
    if name not in _MODULES:
        raise unknown_name("figure", name, _MODULES)
    return _MODULES[name][1]
