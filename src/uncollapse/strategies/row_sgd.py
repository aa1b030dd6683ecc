"""SGD that touches those rows of a table alone which have a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD

from uncollapse.embedding import Embedding


class RowSGD(SGD):
    """PyTorch's SGD without momentum; of the tables that it keeps, rows that are idle stay unread.

    Such a row does not move, so nothing has to be caught up (see `LazyAdam`, where it does).
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.tables: list[Embedding] = []

    def keep(self, module: Embedding) -> None:
        """Keep the table of ``module``, which is among the parameters."""
        module.keep(_Rows(module))
        self.tables.append(module)

    def let_go(self) -> None:
        """Keep no table any longer."""
        for module in self.tables:
            module.let_go()
        self.tables = []

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, against gradients of which those of kept tables may be sparse."""
        assert closure is None
        scale = getattr(self, "grad_scale", None)
        # reading it would make a GPU wait
        factor = 1 / float(scale) if self.tables and scale is not None else 1.0
        aside: list[tuple[Tensor, Tensor]] = []
        for group in self.param_groups:
            for weight in group["params"]:
                gradient = weight.grad
                if gradient is None or not gradient.is_sparse:
                    continue
                gradient = gradient.coalesce()
                values = gradient._values() * (-factor * float(group["lr"]))
                weight.index_add_(0, gradient._indices()[0], values)
                aside.append((weight, gradient))
                weight.grad = None  # nothing is left to PyTorch
        super().step()
        for weight, gradient in aside:
            weight.grad = gradient


class _Rows:
    """The keeper of a table that is always as it should be."""

    def __init__(self, module: Embedding) -> None:
        self._weight = module.weight

    def rows(self, types: Tensor) -> Tensor:
        """Copies of the rows of ``types`` ``(n,)``, ``(n, E)``."""
        with torch.no_grad():
            return self._weight.index_select(0, types)

    def show(self) -> None:
        """Nothing is behind."""
