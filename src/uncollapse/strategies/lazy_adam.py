"""Adam that moves a row of a table when somebody looks at it, by as much as Adam would have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from uncollapse.embedding import Embedding
from uncollapse.strategies.lazy_table import LazyTable, make_dense
from uncollapse.strategies.row_sgd import RowSGD

SMALLEST = 1 << 20  # numbers in a table below which moving all of them costs less


class LazyAdam(Adam):
    """PyTorch's Adam; of the tables that it keeps, a step touches the rows of the batch alone.

    A table that is kept (see `keep_tables`) has the values that dense Adam would give it, up
    to rounding, whenever it is read. Its rows that have no gradient are left behind with their
    moments, and the step of each row is noted; when a row is next looked up, `catch_up`
    does what it missed at once. Reading the whole table changes nothing: where it
    stood is put aside, so that a run which is looked at goes on bit for bit as one which is not.

    Without such tables this is Adam.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.tables: list[LazyTable] = []

    def keep(self, module: Embedding) -> None:
        """Keep the table of ``module``, which is among the parameters."""
        self.tables.append(LazyTable(self, module))

    def let_go(self) -> None:
        """Keep no table any longer; all are caught up."""
        for table in self.tables:
            table.let_go()
        self.tables = []

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, against gradients of which those of kept tables may be sparse."""
        assert closure is None
        aside: list[tuple[LazyTable, Tensor]] = []
        scale = getattr(self, "grad_scale", None)
        # reading it would make a GPU wait
        factor = 1 / float(scale) if self.tables and scale is not None else 1.0
        for table in self.tables:
            gradient = table.weight.grad
            if gradient is None:
                continue
            if table.wakes():
                table.update(gradient, factor)
                aside.append((table, gradient))
                table.weight.grad = None  # nothing is left to PyTorch
            elif gradient.is_sparse:  # it fell asleep after the pass
                table.weight.grad = gradient.to_dense()
        super().step()
        for table, gradient in aside:
            table.weight.grad = gradient
        for table in self.tables:
            if not table.wakes():
                table.adopt()

    def state_dict(self) -> dict[str, Any]:
        """Of kept tables too: where rows stand, and the steps that they miss."""
        for table in self.tables:
            table.show()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`, whichever tables were kept then.

        Weights are loaded before.
        """
        super().load_state_dict(state_dict)
        kept = {id(table.weight) for table in self.tables}
        for weight, state in self.state.items():
            if "since" in state:
                state["since"] = state["since"].long()  # PyTorch has made it float
                if id(weight) not in kept:
                    make_dense(state, self.defaults["betas"])
        for table in self.tables:
            table.adopt()


def keep_tables(model: nn.Module, optimizers: Iterable[Optimizer]) -> None:
    """Have optimisers keep the tables of a model for which that is exact and pays.

    Those of `Embedding` modules on a CPU that no other module shares, under a `LazyAdam` or a
    `RowSGD` without weight decay.
    """
    modules = list(model.modules())
    for module in modules:
        if isinstance(module, Embedding):
            module.let_go()
    owners = Counter(id(p) for part in modules for p in part.parameters(recurse=False))
    for optimizer in optimizers:
        if not isinstance(optimizer, LazyAdam | RowSGD):
            continue
        own = {
            id(p)
            for group in optimizer.param_groups
            for p in group["params"]
            if not group["weight_decay"]
        }
        for module in modules:
            if isinstance(module, Embedding):
                table = module.weight
                large = table.numel() >= SMALLEST and table.device.type == "cpu"
                if large and id(table) in own and owners[id(table)] == 1:
                    optimizer.keep(module)


def let_go_of_tables(optimizers: Iterable[Optimizer]) -> None:
    """Have optimisers keep no table any longer."""
    for optimizer in optimizers:
        if isinstance(optimizer, LazyAdam | RowSGD):
            optimizer.let_go()
