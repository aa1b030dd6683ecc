"""A table whose rows Adam moves when somebody looks at them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam

from uncollapse.embedding import Embedding
from uncollapse.native.kernels import Parts
from uncollapse.strategies.adam_rows import caught_up, kernels_of, update
from uncollapse.strategies.idle_steps import IdleSteps, note_rate, rates_after

# the first ones, in which idle rows move too unevenly for sums in closed form; to a kernel sums as
# they stand are little work, and it needs but the moments of a first step
DENSE_STEPS, DENSE_STEPS_OF_KERNELS = 700, 1
ROWS = 1024  # that are caught up at once when the whole table is
# steps after which rows are caught up that nobody has looked at: what a row that waits needs
# takes 88 bytes for each
LONGEST = 1 << 15


class LazyTable:
    """One table: its moments, and which step each row has last been moved in.

    It sleeps, and is the optimiser's own, for its first steps, and again when the optimiser has
    been cleared.

    The state of the optimiser has ``step``, ``exp_avg`` and ``exp_avg_sq`` as for every
    parameter, of which the latter two are as they were in step ``since`` ``(V,)`` of each row;
    ``rates``, the learning rates so far; and, while the table is shown, ``behind`` ``(r, E)``,
    the rows without the steps that they had missed, in order.

    Parameters
    ----------
    optimizer : Adam
    module : Embedding
    """

    def __init__(self, optimizer: Adam, module: Embedding) -> None:
        self.optimizer = optimizer
        self.module = module
        self.weight = module.weight
        self._state: dict[str, Any] | None = None  # None: it sleeps
        self._looked_up: tuple[Tensor, Parts] | None = None
        self._written = (0, 0)  # tells whether a shown table was written to
        (self._number,) = (
            number
            for number, group in enumerate(optimizer.param_groups)
            if any(self.weight is parameter for parameter in group["params"])
        )

    # --- what others ask for ----------------------------------------------------------------

    @torch.no_grad()
    def rows(self, types: Tensor) -> Tensor:
        """Some rows as they should stand, ``(n, E)``; nothing is moved by this."""
        self._find_state()
        if self._state is not None and "behind" in self._state and self._written != self._mark():
            self._resume()
        if self._state is None:
            return self.weight.index_select(0, types)
        found = self._caught_up(types)
        self._looked_up = types, found  # their step is likely the next
        return found[0]

    @torch.no_grad()
    def show(self) -> None:
        """Bring the whole table to the present step, its rows put aside as they were."""
        self._find_state()
        state = self._state
        if state is None or "behind" in state:
            return
        rows = self._rows_behind()
        state["behind"] = self.weight.index_select(0, rows)
        self._move(rows)
        self._written = self._mark()

    # --- what the optimiser asks for --------------------------------------------------------

    @torch.no_grad()
    def update(self, gradient: Tensor, factor: float = 1.0) -> None:
        """One step of Adam, of the rows that ``gradient`` has, scaled by ``factor``."""
        if gradient.is_sparse:
            gradient = gradient.coalesce()
            rows, values = gradient._indices()[0], gradient._values()
        else:
            rows, values = torch.arange(len(gradient)), gradient
        self._resume()
        found = self._found(rows)
        state, group, rate = self._state, self._group, float(self._group["lr"])
        assert state is not None
        state["step"] += 1
        note_rate(state["rates"], self._idle.step + 1, rate)
        self._idle.advance(rate, self._oldest)
        step, betas, epsilon = self._idle.step, group["betas"], group["eps"]
        update(found, values, rows, self._parts(), step, rate, betas, epsilon, factor)
        state["since"].index_fill_(0, rows, step)
        if step % LONGEST == 0:
            self._end_waits(step)

    def wakes(self) -> bool:
        """Whether steps of this table are for `update`."""
        self._find_state()
        return self._state is not None

    def adopt(self) -> None:
        """Go on from the state that the optimiser has got, in a step or from a checkpoint.

        Weights are loaded before.
        """
        state = self.optimizer.state.get(self.weight, {})
        self._state = self._looked_up = None
        step = int(state.get("step", 0))
        if "since" not in state:
            native = step > 0 and kernels_of((self.weight, state["exp_avg"], state["exp_avg_sq"]))
            if step < (DENSE_STEPS_OF_KERNELS if native else DENSE_STEPS):
                self.module.let_go()
                return
            state["since"] = torch.full((len(self.weight),), step)
            state["rates"] = []
        self._state = state
        self._written = self._mark()
        self._idle = IdleSteps(self._group["betas"], self._oldest())
        for rate in rates_after(state["rates"], self._idle.step, step):
            self._idle.advance(rate, lambda: self._idle.start)
        self.module.keep(self)

    @torch.no_grad()
    def let_go(self) -> None:
        """Leave table and state as dense Adam would."""
        self._find_state()
        if self._state is not None:
            self.module.let_go()
            make_dense(self._state, self._group["betas"])
            self._state = self._looked_up = None

    # --- inside -----------------------------------------------------------------------------

    @property
    def _group(self) -> dict[str, Any]:
        # not kept: a checkpoint brings its own
        return self.optimizer.param_groups[self._number]

    def _find_state(self) -> None:
        """Notice that the optimiser has dropped its state, or has it in another place."""
        if self._state is None:
            return
        state = self.optimizer.state.get(self.weight)
        if state is not None and state.get("exp_avg") is self._state["exp_avg"]:
            self._state = state
            return
        if "behind" not in self._state:  # it was not shown since
            self._move(self._rows_behind())
        self._state = self._looked_up = None
        self.module.let_go()

    def _resume(self) -> None:
        """Take a shown table back to where its rows stood; what others have written stays."""
        self._find_state()
        if self._state is None or "behind" not in self._state:
            return
        state, rows = self._state, self._rows_behind()
        behind = state.pop("behind")
        if self._written == self._mark():
            self.weight.index_copy_(0, rows, behind)
        else:
            shrink(state, self._group["betas"])
            state["since"][rows] = self._idle.step
            self._looked_up = None

    def _found(self, rows: Tensor) -> Parts:
        """Rows and their moments as they should stand, perhaps from when they were looked up."""
        seen, self._looked_up = self._looked_up, None
        if seen is not None:
            types, found = seen
            first = len(types) - len(rows)  # padding, which comes first, has no gradient
            if first in (0, 1) and torch.equal(types[first:], rows):
                p, m, v = found
                return p[first:], m[first:], v[first:]
        return self._caught_up(rows)

    def _caught_up(self, rows: Tensor) -> Parts:
        """Copies of rows and their moments, ``(n, E)`` each, at the present step."""
        assert self._state is not None
        parts, since = self._parts(), self._state["since"][rows]
        shares = self._idle.shares(since, parts[0].dtype)
        if "behind" in self._state:  # bit for bit what they would be had nobody looked
            p, m, v = (part.index_select(0, rows) for part in parts)
            late = since < self._idle.step
            p[late] = self._state["behind"][torch.searchsorted(self._rows_behind(), rows[late])]
            parts, rows = (p, m, v), torch.arange(len(rows))
        return caught_up(parts, rows, shares, self._group["eps"])

    def _move(self, rows: Tensor) -> None:
        """Bring rows, but not their moments, to the present step."""
        for some in rows.split(ROWS):
            self.weight.index_copy_(0, some, self._caught_up(some)[0])

    def _end_waits(self, step: int) -> None:
        """Bring the rows that have waited longest to ``step``, the present one."""
        assert self._state is not None
        since = self._state["since"]
        for some in (since <= step - LONGEST).nonzero().squeeze(1).split(ROWS):
            for part, moved in zip(self._parts(), self._caught_up(some), strict=True):
                part.index_copy_(0, some, moved)
            since.index_fill_(0, some, step)

    def _parts(self) -> Parts:
        """Weights and moments, ``(V, E)`` each."""
        assert self._state is not None
        return self.weight, self._state["exp_avg"], self._state["exp_avg_sq"]

    def _rows_behind(self) -> Tensor:
        assert self._state is not None
        return (self._state["since"] < self._idle.step).nonzero().squeeze(1)

    def _oldest(self) -> int:
        assert self._state is not None
        return int(self._state["since"].min())

    def _mark(self) -> tuple[int, int]:
        return self.weight._version, self.weight.data_ptr()


def shrink(state: dict[str, Any], betas: tuple[float, float]) -> None:
    """Bring the moments of a table, and these alone, to the present step."""
    age = int(state["step"]) - state["since"]
    for name, beta in zip(("exp_avg", "exp_avg_sq"), betas, strict=True):
        factor = torch.pow(beta, age.double())[:, None]  # (V, 1)
        state[name].mul_(factor.to(state[name]))


def make_dense(state: dict[str, Any], betas: tuple[float, float]) -> None:
    """Turn the state of a kept table into that of dense Adam; the weights are caught up."""
    shrink(state, betas)
    for name in ("since", "rates", "behind"):
        state.pop(name, None)
