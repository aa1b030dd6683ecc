"""Tables of words whose rows may be behind, and which nobody can read while they are."""

from __future__ import annotations

from collections.abc import ItemsView, ValuesView
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Keeper(Protocol):
    """An optimiser's view of one table: it moves rows only when somebody looks."""

    def rows(self, types: Tensor) -> Tensor:
        """Copies of the rows of ``types`` ``(n,)``, caught up, ``(n, E)``."""
        ...

    def show(self) -> None:
        """Bring the whole table to where it belongs, for anybody to read or to write."""
        ...


class Embedding(nn.Embedding):
    """An embedding that looks up every type once, and whose gradient may have just those rows.

    It is PyTorch's own until an optimiser becomes its keeper (see `keep`). From then on a pass
    in training has the keeper catch up the types of the batch, and their gradient is sparse;
    whoever else asks the module for its table (by name, among the parameters of a model, for a
    state dict, as a copy) is shown the whole table caught up. Only a tensor that was
    asked for before an update and is read after it may be behind.
    """

    def forward(self, words: Tensor) -> Tensor:
        """Embeddings of words ``(...)``, ``(..., E)``."""
        if not self._is_kept():
            return super().forward(words)
        rows, inverse = self.types(words)
        return F.embedding(inverse, rows)

    def types(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """What words ``(...)`` share: rows ``(n, E)`` of their n types, and which is whose.

        Returns
        -------
        rows, inverse : Tensor
            ``rows[inverse]`` are the embeddings of ``words``.
        """
        types, inverse = words.unique(return_inverse=True)
        if not self._is_kept():
            return super().forward(types), inverse
        watched = self._parameters
        assert isinstance(watched, _Watched)
        values = watched.keeper.rows(types)
        rows = _Rows.apply(watched.raw("weight"), values, types, self.padding_idx)
        assert isinstance(rows, Tensor)
        return rows, inverse

    def keep(self, keeper: Keeper) -> None:
        """Let ``keeper``, which has the table already, move rows from now on."""
        assert self.padding_idx in (None, 0), "padding must come first"
        self._parameters = _Watched(dict(dict.items(self._parameters)), keeper)

    def let_go(self) -> None:
        """End that, the whole table caught up."""
        self._parameters = dict(self._parameters.items())

    def _is_kept(self) -> bool:
        return self.training and isinstance(self._parameters, _Watched)


class _Watched(dict[str, nn.Parameter | None]):
    """The parameters of a module, through which whatever PyTorch does with them must pass."""

    def __init__(self, parameters: dict[str, nn.Parameter | None], keeper: Keeper) -> None:
        super().__init__(parameters.items())
        self.keeper = keeper

    def raw(self, name: str) -> nn.Parameter:
        """A parameter as it is."""
        parameter = super().__getitem__(name)
        assert parameter is not None
        return parameter

    def __getitem__(self, name: str) -> nn.Parameter | None:
        self.keeper.show()
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.keeper.show()
        return super().get(name, default)

    def items(self) -> ItemsView[str, nn.Parameter | None]:
        self.keeper.show()
        return super().items()

    def values(self) -> ValuesView[nn.Parameter | None]:
        self.keeper.show()
        return super().values()

    def __reduce__(self) -> tuple[Any, ...]:
        # a copy of a model is nobody's to keep
        return dict, (dict(self.items()),)


class _Rows(torch.autograd.Function):
    """Rows of a table, each of them there once, whose gradient is sparse."""

    @staticmethod
    def forward(
        ctx: Any, table: Tensor, values: Tensor, types: Tensor, padding: int | None
    ) -> Tensor:
        ctx.save_for_backward(types)
        ctx.shape, ctx.padding = table.shape, padding
        return values.view_as(values)  # (n, E)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (types,) = ctx.saved_tensors
        if len(types) and types[0] == ctx.padding:  # it learns nothing
            types, gradient = types[1:], gradient[1:]
        # in order, and none is there twice
        sparse = torch.sparse_coo_tensor(
            types[None], gradient, ctx.shape, is_coalesced=True, check_invariants=False
        )
        return sparse, None, None, None


def gradient_values(parameter: Tensor) -> Tensor:
    """The numbers of a parameter's gradient, to be read or changed in place.

    Of a sparse gradient those of its rows ``(n, E)``, each of them there once.
    """
    gradient = parameter.grad
    assert gradient is not None
    if not gradient.is_sparse:
        return gradient
    places = gradient._indices()[0]
    if not bool((places[1:] > places[:-1]).all()):  # of several passes
        gradient = gradient.coalesce()
    parameter.grad = gradient._coalesced_(True)
    return gradient._values()
