"""The papers' figures: computed once from finished runs, drawn from stored numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, cast

from uncollapse.reproduction.figures.drawn import Drawn
from uncollapse.reproduction.figures.runs import Runs

if TYPE_CHECKING:
    from uncollapse.reproduction.figures.drawn import FigureCode

__all__ = ["FIGURES", "Drawn", "Runs"]

# the module that makes each figure
_MODULES = {
    "dem-figure3": "dispersion",
    "dem-figure4": "mode_collapse",
    "dem-figure5": "generation",
    "bn-figure1": "lagging",
    "bn-figure2": "batch_norm_scale",
    "bn-figure3": "information",
    "twr-figure2": "interpolation",
    "twr-table4": "examples",
    "pool-figure2": "features",
    "pool-figure3": "cosines",
}


class _Figures(Mapping[str, "FigureCode"]):
    """The modules, each imported when it is asked for: PyTorch and matplotlib are heavy."""

    def __getitem__(self, name: str) -> FigureCode:
        if name not in _MODULES:
            raise KeyError(name)
        return cast("FigureCode", import_module(f"{__name__}.{_MODULES[name]}"))

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


FIGURES: Mapping[str, FigureCode] = _Figures()
