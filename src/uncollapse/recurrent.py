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
    """The same from the inputs' share of the gates, with its bias, ``(T, B, G)``."""
    _, weight, _, bias = cell.all_weights[0]
    # autocast does not see into the loops
    weight, bias = as_autocast(weight), widened(bias)
    if state is None:
        zeros = bias.new_zeros(given.shape[1], cell.hidden_size)
        state = zeros, zeros
    hidden, memory = widened(state[0]), widened(state[1])
    if isinstance(cell, nn.LSTM):
        states = _LSTMLoop.apply(given, weight, bias, hidden, memory)
    else:
        loop = _FusedGRULoop if kernels_for(weight, bias) else _GRULoop
        states = loop.apply(given, weight, bias, hidden)
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
            before, memory = memory, torch.empty_like(memory)
            hidden = torch.empty_like(memory, dtype=product.dtype)
            if isinstance(cell, nn.LSTM):
                fused.lstm_forward(given.add_(bias), product, before, memory, hidden)
            else:
                inner = torch.empty_like(memory)
                fused.gru_forward(given, product, bias, before, memory, hidden, inner)
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


def _weight_gradient(of_gates: Tensor, hidden: Tensor) -> Tensor:
    """Of the recurrent weights ``(G, H)``: one product for all steps ``(T, B, ·)``."""
    return torch.mm(of_gates.flatten(0, 1).t(), hidden.flatten(0, 1))


class _LSTMLoop(torch.autograd.Function):
    """An LSTM whose gates are computed by the optional kernels."""

    @staticmethod
    def forward(
        ctx: Any, given: Tensor, weight: Tensor, bias: Tensor, hidden: Tensor, memory: Tensor
    ) -> Tensor:
        fused = kernels_for(weight, bias)
        assert fused is not None
        steps, rows, _ = given.shape
        gates = torch.add(given, bias)  # f32; a copy, too
        cells = memory.new_empty(steps + 1, *memory.shape)
        states = weight.new_empty(steps + 1, *hidden.shape)
        cells[0], states[0] = memory, hidden
        recurrent = weight.new_empty(rows, len(weight))  # (B, 4H)
        across, cell, state = weight.t(), cells.unbind(), states.unbind()
        for step, own in enumerate(gates.unbind()):
            torch.mm(state[step], across, out=recurrent)
            fused.lstm_forward(own, recurrent, cell[step], cell[step + 1], state[step + 1])
        ctx.save_for_backward(weight, gates, cells, states)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        weight, gates, cells, states = ctx.saved_tensors
        fused = kernels_for(weight, gates)
        assert fused is not None
        of_gates = states.new_empty(gates.shape)
        of_cell, of_hidden = torch.zeros_like(cells[0]), torch.zeros_like(states[0])
        cell, of_output = cells.unbind(), gradient.contiguous().unbind()
        own, of_own = gates.unbind(), of_gates.unbind()
        for step in reversed(range(len(gates))):
            fused.lstm_backward(
                own[step],
                cell[step],
                cell[step + 1],
                of_output[step],
                of_hidden,
                of_cell,
                of_own[step],
            )
            torch.mm(of_own[step], weight, out=of_hidden)
        of_bias = of_gates.sum((0, 1), dtype=gates.dtype)
        of_weight = _weight_gradient(of_gates, states[:-1])
        return of_gates, of_weight, of_bias, of_hidden.to(cells.dtype), of_cell


class _FusedGRULoop(torch.autograd.Function):
    """A GRU whose gates are computed by the optional kernels."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, weight: Tensor, bias: Tensor, hidden: Tensor) -> Tensor:
        fused = kernels_for(weight, bias)
        assert fused is not None
        steps, rows, width = given.shape
        gates = given.to(bias.dtype, copy=True)
        bias = bias.contiguous()
        wide = hidden.new_empty(steps + 1, *hidden.shape)
        states = weight.new_empty(steps + 1, *hidden.shape)
        wide[0], states[0] = hidden, hidden
        inner = hidden.new_empty(steps, *hidden.shape)
        recurrent = weight.new_empty(rows, width)  # (B, 3H)
        across, exact, state, kept = weight.t(), wide.unbind(), states.unbind(), inner.unbind()
        for step, own in enumerate(gates.unbind()):
            torch.mm(state[step], across, out=recurrent)
            fused.gru_forward(
                own,
                recurrent,
                bias,
                exact[step],
                exact[step + 1],
                state[step + 1],
                kept[step],
            )
        ctx.save_for_backward(weight, gates, inner, wide, states)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        weight, gates, inner, wide, states = ctx.saved_tensors
        fused = kernels_for(weight, gates)
        assert fused is not None
        of_given = states.new_empty(gates.shape)
        of_recurrent = states.new_empty(gates.shape)
        of_state, of_hidden = torch.zeros_like(wide[0]), torch.zeros_like(states[0])
        own, kept, exact = gates.unbind(), inner.unbind(), wide.unbind()
        of_output = gradient.contiguous().unbind()
        outer, within = of_given.unbind(), of_recurrent.unbind()
        for step in reversed(range(len(gates))):
            fused.gru_backward(
                own[step],
                kept[step],
                exact[step],
                of_output[step],
                of_hidden,
                of_state,
                outer[step],
                within[step],
            )
            torch.mm(within[step], weight, out=of_hidden)
        of_bias = of_recurrent.sum((0, 1), dtype=gates.dtype)
        of_weight = _weight_gradient(of_recurrent, states[:-1])
        return of_given, of_weight, of_bias, of_state + of_hidden


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
