"""LSTM, GRU and RNN over whole sentences, with time loops of our own where those are faster.

PyTorch's LSTM is fast on a CPU; its GRU takes a slow path there, several times slower than
the arithmetic, because every small operation of every step is recorded for the backward pass. Here
a loop is one recorded operation with a backward pass of its own: all that does not depend on the
recursion is computed for all steps at once, and products with the recurrent weights are
gathered into one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from uncollapse.native import kernels_for
from uncollapse.precision import as_autocast, widened
from uncollapse.tuning import in_multiples

Cell = nn.LSTM | nn.GRU | nn.RNN
MOST_ROWS, MOST_UNITS = 256, 1024  # in the kernels' loops


def run(cell: Cell, inputs: Tensor, state: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """States of a one-layer recurrent network after each of its inputs, ``(B, T, H)``.

    Parameters
    ----------
    cell : nn.LSTM, nn.GRU or nn.RNN
        In one direction, batch first; its parameters are used whatever way is taken.
    inputs : Tensor
        ``(B, T, E)``.
    state : tuple of Tensor, optional
        Hidden and cell state before the first step, ``(B, H)``; zeros by default. A GRU and an
        RNN have no cell state and ignore it.
    """
    if has_loop(cell) and inputs.shape[1] > 0:
        weight, _, bias, _ = cell.all_weights[0]
        rows, steps, width = inputs.shape
        # two-dimensional: PyTorch would multiply step by step where weights need no gradient
        flat = inputs.transpose(0, 1).reshape(steps * rows, width)
        given = F.linear(flat, weight, bias).view(steps, rows, len(bias))  # (T, B, G)
        return run_given(cell, given, state)
    # cuDNN keeps what a gradient needs in training mode alone, and a frozen network passes
    # gradients on; nothing else depends on it
    cell.train(torch.is_grad_enabled())
    first = None
    if state is not None:
        hidden, memory = state[0][None], state[1][None]
        first = (hidden, memory) if isinstance(cell, nn.LSTM) else hidden
    return cell(inputs, first)[0]


def run_words(
    cell: Cell,
    rows: Tensor,
    words: Tensor,
    state: tuple[Tensor, Tensor] | None = None,
    beside: Tensor | None = None,
) -> Tensor:
    """The same over words, each type of which is projected once; only where there `has_loop`.

    Parameters
    ----------
    rows, words : Tensor
        ``(n, E)`` and ``(B, T)``: ``rows[words]`` are the inputs.
    state : tuple of Tensor, optional
        See `run`.
    beside : Tensor, optional
        ``(B, D)``: what stands beside all words of a sentence.
    """
    weight, _, bias, _ = cell.all_weights[0]
    width = rows.shape[1]
    # f32, as the gradients of many words are added up
    projected = widened(F.linear(in_multiples(rows), weight[:, :width], bias))  # (n and more, G)
    given = F.embedding(words.t(), projected)  # (T, B, G)
    if beside is not None:
        given = given + F.linear(beside, weight[:, width:])
    return run_given(cell, given, state)


def has_loop(cell: Cell) -> bool:
    """Whether there is a loop here that is faster than PyTorch's."""
    weights = cell.all_weights[0]
    if weights[0].device.type != "cpu":
        return False
    if isinstance(cell, nn.LSTM):
        return kernels_for(*weights) is not None
    return isinstance(cell, nn.GRU)


def run_given(cell: Cell, given: Tensor, state: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """The same from the inputs' share of the gates, with its bias, ``(T, B, G)``.

    It may be overwritten.
    """
    _, weight, _, bias = cell.all_weights[0]
    # autocast does not see into the loops
    weight, bias = as_autocast(weight), widened(bias)
    if state is None:
        zeros = bias.new_zeros(given.shape[1], cell.hidden_size)
        state = zeros, zeros
    hidden, memory = widened(state[0]), widened(state[1])
    if kernels_for(weight, bias):
        kind, memory = ("lstm", memory) if isinstance(cell, nn.LSTM) else ("gru", hidden)
        states = _FusedLoop.apply(kind, given, weight, bias, hidden, memory)
    else:
        states = _GRULoop.apply(given, weight, bias, hidden)
    assert isinstance(states, Tensor)
    return states.transpose(0, 1)  # (B, T, H)


def advance(cell: Cell, given: Tensor, hidden: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """One step of many rows: hidden state and memory after it, ``(N, H)`` each.

    Under autocast the recurrent product is in its precision, and so may the hidden state be; the
    memory, of a GRU and an RNN the state itself, stays f32.

    Parameters
    ----------
    cell : nn.LSTM, nn.GRU or nn.RNN
    given : Tensor
        ``(N, G)``: the input's share of the gates, with its bias; it may be overwritten.
    hidden, memory : Tensor
        ``(N, H)`` each.
    """
    _, weight, _, bias = cell.all_weights[0]
    if not torch.is_grad_enabled() and not isinstance(cell, nn.RNN):
        product = F.linear(hidden, weight)  # (N, G)
        fused = kernels_for(product, memory)
        if fused is not None and given.dtype == torch.float32:
            kind = "lstm" if isinstance(cell, nn.LSTM) else "gru"
            before, memory, inner = memory, torch.empty_like(memory), torch.empty_like(memory)
            hidden = torch.empty_like(memory, dtype=product.dtype)
            fused.gates_forward(kind, given, product, bias, before, inner, memory, hidden)
            return hidden, memory
    recurrent = F.linear(hidden, weight, bias)
    if isinstance(cell, nn.LSTM):
        take, forget, value, give = (given + recurrent).chunk(4, -1)
        memory = forget.sigmoid() * memory + take.sigmoid() * value.tanh()
        return give.sigmoid() * memory.tanh(), memory
    if isinstance(cell, nn.GRU):
        reset_in, update_in, new_in = given.chunk(3, -1)
        reset_hidden, update_hidden, new_hidden = recurrent.chunk(3, -1)
        reset = (reset_in + reset_hidden).sigmoid()
        update = (update_in + update_hidden).sigmoid()
        new = (new_in + reset * new_hidden).tanh()
        memory = torch.lerp(new, memory, update)
    else:
        memory = (given + recurrent).tanh()
    return memory, memory


def _whole(weight: Tensor, rows: int) -> bool:
    """Whether the kernels run all steps in one call.

    It is faster as long as the weights fit into the caches and rows are few: with 640 rows, or
    with 2,048 units, a product of PyTorch's for every step is as fast.
    """
    width = weight.shape[1]
    return rows <= MOST_ROWS and width <= MOST_UNITS and width % 2 == 0


def _weight_gradient(of_gates: Tensor, hidden: Tensor) -> Tensor:
    """Of the recurrent weights ``(G, H)``: one product for all steps ``(T, B, ·)``."""
    return torch.mm(of_gates.flatten(0, 1).t(), hidden.flatten(0, 1))


class _FusedLoop(torch.autograd.Function):
    """An LSTM or a GRU, by the optional kernels; a GRU's memory is its state."""

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
        gates = widened(given).contiguous()  # f32, and no copy if it was
        inner = memory.new_empty(steps, rows, size)
        memories = memory.new_empty(steps + 1, rows, size)
        states = weight.new_empty(steps + 1, rows, size)
        memories[0], states[0] = memory, hidden
        if _whole(weight, rows):
            fused.loop_forward(kind, gates, weight, bias, inner, memories, states)
        else:
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
        alike = ctx.kind == "lstm" and weight.dtype == gates.dtype
        of_recurrent = of_given if alike else weight.new_empty(gates.shape)
        of_memory = torch.zeros_like(memories[0])
        if _whole(weight, len(of_memory)):
            of_biases = gates.new_zeros(len(gates), len(weight))  # (T, G)
            of_hidden = torch.empty_like(of_memory)
            arrays = (gates, inner, memories, gradient, of_given, of_recurrent)
            fused.loop_backward(ctx.kind, weight, *arrays, of_biases, of_hidden, of_memory)
            of_bias = of_biases.sum(0)
        else:
            of_hidden = torch.zeros_like(states[0])
            for step in reversed(range(len(gates))):
                arriving = (gradient[step], of_hidden, of_memory)
                before = (gates[step], inner[step], memories[step])
                outer, within = of_given[step], of_recurrent[step]
                fused.gates_backward(ctx.kind, *before, *arriving, outer, within)
                torch.mm(within, weight, out=of_hidden)
            of_bias = of_recurrent.sum((0, 1), dtype=gates.dtype)
        of_weight = _weight_gradient(of_recurrent, states[:-1])
        return None, of_given, of_weight, of_bias, of_hidden.to(memories.dtype), of_memory


class _GRULoop(torch.autograd.Function):
    """A GRU in PyTorch alone."""

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
        return of_given, _weight_gradient(of_recurrent, states[:-1]), of_bias, of_state
