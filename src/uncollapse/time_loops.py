"""The time loops of recurrent networks on a CPU: one recorded operation with a backward pass."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from uncollapse.native import kernels_for
from uncollapse.precision import widened
from uncollapse.tuning import missing_of_multiple

MOST_ROWS, MOST_UNITS = 256, 1024  # of a loop in one call


def runs_whole(weight: Tensor, rows: int = 1) -> bool:
    """Whether the kernels run all steps of so many rows in one call.

    It is faster as long as the recurrent weights ``(G, H)`` fit into the caches and rows are few:
    with 640 rows, or with 2,048 units, a product of PyTorch's for every step is as fast.
    """
    width = weight.shape[1]
    fits = rows <= MOST_ROWS and width <= MOST_UNITS and width % 2 == 0
    return fits and kernels_for(weight) is not None


class WholeLoop(torch.autograd.Function):
    """An LSTM or a GRU, all steps in one call; a GRU's memory is its state.

    Arrays hold the rows of all steps one after the other, n in all, and no step has more rows than
    the one before it: sentences stand longest first, and each leaves after its last word.
    From the inputs' share of the gates ``(n, G)``, which may be overwritten, and the ``sizes``
    ``(T,)`` of the steps to the states ``(n, H)``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        kind: str,
        given: Tensor,
        sizes: Tensor,
        weight: Tensor,
        bias: Tensor,
        hidden: Tensor,
        memory: Tensor,
    ) -> Tensor:
        fused = kernels_for(weight, bias)
        assert fused is not None
        starts, (rows, size) = F.pad(sizes.cumsum(0), (1, 0)), memory.shape
        weight, bias = weight.contiguous(), bias.contiguous()
        gates = widened(given).contiguous()  # f32, and no copy if it was
        inner = memory.new_empty(len(gates), size)
        memories = memory.new_empty(rows + len(gates), size)
        states = weight.new_empty(rows + len(gates), size)
        memories[:rows], states[:rows] = memory, hidden
        fused.loop_forward(kind, gates, weight, bias, inner, memories, states, starts)
        ctx.kind, ctx.sizes = kind, sizes.tolist()
        ctx.save_for_backward(weight, gates, inner, memories, states, starts)
        return states[rows:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, gates, inner, memories, states, starts = ctx.saved_tensors
        fused = kernels_for(weight, gates)
        assert fused is not None
        before = _before(states, ctx.sizes)  # (n and more, H)
        of_given = gates.new_empty(len(before), len(weight))
        of_recurrent = of_given if _alike(ctx.kind, weight) else weight.new_empty(of_given.shape)
        of_recurrent[len(gates) :] = 0
        of_biases = gates.new_zeros(len(ctx.sizes), len(weight))  # (T, G)
        of_memory = memories.new_zeros(ctx.sizes[0], memories.shape[1])
        of_hidden = torch.empty_like(of_memory)
        arrays = (gates, inner, memories, gradient.contiguous(), of_given, of_recurrent)
        of_start = (of_biases, of_hidden, of_memory)
        fused.loop_backward(ctx.kind, weight, *arrays, *of_start, starts)
        of_weight = torch.mm(of_recurrent.t(), before)  # one product for all steps
        of_given = of_given[: len(gates)]
        return None, of_given, None, of_weight, of_biases.sum(0), of_hidden, of_memory


class SteppedLoop(torch.autograd.Function):
    """The same a step at a time, ``(T, B, ·)``, its products PyTorch's."""

    @staticmethod
    def forward(
        ctx: Any,
        kind: str,
        given: Tensor,
        weight: Tensor,
        bias: Tensor,
        hidden: Tensor,
        memory: Tensor,
    ) -> Tensor:
        fused = kernels_for(weight, bias)
        assert fused is not None
        steps, rows, size = len(given), *memory.shape
        weight, bias = weight.contiguous(), bias.contiguous()
        gates = widened(given).contiguous()
        inner = memory.new_empty(steps, rows, size)
        memories = memory.new_empty(steps + 1, rows, size)
        states = weight.new_empty(steps + 1, rows, size)
        memories[0], states[0] = memory, hidden
        recurrent = weight.new_empty(rows, len(weight))  # (B, G)
        across, exact, state = weight.t(), memories.unbind(), states.unbind()
        for step, (own, kept) in enumerate(zip(gates, inner, strict=True)):
            torch.mm(state[step], across, out=recurrent)
            before, after = (bias, exact[step]), (exact[step + 1], state[step + 1])
            fused.gates_forward(kind, own, recurrent, *before, kept, *after)
        ctx.kind = kind
        ctx.save_for_backward(weight, gates, inner, memories, states)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, gates, inner, memories, states = ctx.saved_tensors
        fused = kernels_for(weight, gates)
        assert fused is not None
        gradient = gradient.contiguous()
        of_given = torch.empty_like(gates)
        of_recurrent = of_given if _alike(ctx.kind, weight) else weight.new_empty(gates.shape)
        of_memory, of_hidden = torch.zeros_like(memories[0]), torch.zeros_like(states[0])
        for step in reversed(range(len(gates))):
            arriving = (gradient[step], of_hidden, of_memory)
            before = (gates[step], inner[step], memories[step])
            outer, within = of_given[step], of_recurrent[step]
            fused.gates_backward(ctx.kind, *before, *arriving, outer, within)
            torch.mm(within, weight, out=of_hidden)
        of_bias = of_recurrent.sum((0, 1), dtype=gates.dtype)
        of_weight = _weight_gradient(of_recurrent, states[:-1])
        return None, of_given, of_weight, of_bias, of_hidden.to(memories.dtype), of_memory


class GRULoop(torch.autograd.Function):
    """A GRU in PyTorch alone, ``(T, B, ·)``."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, weight: Tensor, bias: Tensor, hidden: Tensor) -> Tensor:
        steps, rows, width = given.shape
        size = width // 3
        gates = given.to(bias.dtype, copy=True)
        wide = hidden.new_empty(steps + 1, rows, size)
        inner = hidden.new_empty(steps, rows, size)
        states = wide if weight.dtype == wide.dtype else weight.new_empty(wide.shape)
        wide[0], states[0] = hidden, hidden
        across = weight.t()
        for step, own in enumerate(gates.unbind()):
            recurrent = torch.mm(states[step], across) + bias  # (B, 3H)
            own[:, : 2 * size].add_(recurrent[:, : 2 * size]).sigmoid_()
            reset, update, value = own.split(size, 1)
            inner[step] = recurrent[:, 2 * size :]
            value.addcmul_(reset, inner[step]).tanh_()
            torch.lerp(value, wide[step], update, out=wide[step + 1])
            if states is not wide:
                states[step + 1] = wide[step + 1]
        ctx.save_for_backward(weight, gates, inner, wide, states)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        weight, gates, inner, wide, states = ctx.saved_tensors
        reset, update, value = gates.chunk(3, 2)  # (T, B, H)
        bent = (1 - update) * (1 - value.square())
        # what a gradient of the state is multiplied with, for all steps at once
        slopes = torch.stack(
            [
                bent * inner * reset * (1 - reset),
                (wide[:-1] - value) * update * (1 - update),
                bent * reset,
            ],
            2,
        )  # (T, B, 3, H)
        arrivals, of_recurrent = torch.empty_like(bent), torch.empty_like(slopes)
        narrow = of_recurrent if weight.dtype == slopes.dtype else slopes.to(weight.dtype)
        of_state = torch.zeros_like(wide[0])
        for step in reversed(range(len(gates))):
            arriving = torch.add(of_state, gradient[step], out=arrivals[step])  # (B, H)
            torch.mul(slopes[step], arriving[:, None], out=of_recurrent[step])
            if narrow is not of_recurrent:
                narrow[step] = of_recurrent[step]
            of_state = torch.mm(narrow[step].flatten(1), weight) + arriving * update[step]
        of_recurrent = narrow.flatten(2)  # (T, B, 3H)
        of_new = (arrivals * bent).to(of_recurrent.dtype)
        of_given = torch.cat([of_recurrent[..., : 2 * len(weight) // 3], of_new], 2)
        of_bias = of_recurrent.sum((0, 1), dtype=wide.dtype)
        of_weight = _weight_gradient(of_recurrent, states[:-1])
        return of_given, of_weight, of_bias, of_state


def _alike(kind: str, weight: Tensor) -> bool:
    """Whether both shares of the gates have the same gradient, in the same precision."""
    return kind == "lstm" and weight.dtype == torch.float32


def _before(states: Tensor, sizes: list[int]) -> Tensor:
    """What stood before each step, ``(n, H)``, of ``(B + n, H)``.

    Where steps have rows of their own numbers, zeros follow: see `missing_of_multiple`.
    """
    first = sizes[0]
    if sizes[-1] == first:
        return states[: len(states) - first]
    parts = [part[:size] for part, size in zip(states.split([first, *sizes]), sizes, strict=False)]
    missing = missing_of_multiple(len(states) - first)
    return torch.cat([*parts, states.new_zeros(missing, states.shape[1])])


def _weight_gradient(of_gates: Tensor, hidden: Tensor) -> Tensor:
    """Of the recurrent weights ``(G, H)``: one product for all steps ``(T, B, ·)``."""
    return torch.mm(of_gates.flatten(0, 1).t(), hidden.flatten(0, 1))
