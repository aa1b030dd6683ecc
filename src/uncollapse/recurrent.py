"""LSTM, GRU and RNN over whole sentences, with time loops of our own where those are faster.

PyTorch's LSTM is fast on a CPU; its GRU takes a slow path there, several times slower than
the arithmetic, because every small operation of every step is recorded for the backward pass. Here
a loop is one recorded operation with a backward pass of its own: all that does not depend on the
recursion is computed for all steps at once, and products with the recurrent weights are
gathered into one. With the kernels no time goes into padding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from uncollapse.native import kernels_for
from uncollapse.precision import as_autocast, widened
from uncollapse.time_loops import GRULoop, SteppedLoop, WholeLoop, runs_whole
from uncollapse.tuning import in_multiples

Cell = nn.LSTM | nn.GRU | nn.RNN
State = tuple[Tensor, Tensor]


def run(
    cell: Cell, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
) -> Tensor:
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
    lengths : Tensor, optional
        ``(B,)``: how many inputs of each sentence are real, all by default; the states of others
        are undefined.
    """
    if has_loop(cell) and inputs.shape[1] > 0:
        weight, _, bias, _ = cell.all_weights[0]
        layout = _Layout(cell, inputs, lengths)
        # two-dimensional: PyTorch would multiply step by step where weights need no gradient
        packed = rows = layout.pack(inputs)  # (n, E)
        if layout.places is not None:
            rows = in_multiples(packed)
        given = F.linear(rows, weight, bias)[: len(packed)]  # (n, G)
        return layout.unpack(_states(cell, given, layout, state))
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
    state: State | None = None,
    beside: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """The same over words, each type of which is projected once; only where there `has_loop`.

    Parameters
    ----------
    rows, words : Tensor
        ``(n, E)`` and ``(B, T)``: ``rows[words]`` are the inputs.
    state : tuple of Tensor, optional
        See `run`.
    beside : Tensor, optional
        ``(B, D)``: what stands beside all words of a sentence, where no ``lengths`` are given.
    lengths : Tensor, optional
        See `run`.
    """
    weight, _, bias, _ = cell.all_weights[0]
    width = rows.shape[1]
    # f32, as the gradients of many words are added up
    projected = widened(F.linear(in_multiples(rows), weight[:, :width], bias))  # (n and more, G)
    layout = _Layout(cell, words, lengths)
    given = F.embedding(layout.pack(words), projected)  # (n, G)
    if beside is not None:
        assert lengths is None
        of_rows = F.linear(beside, weight[:, width:])  # (B, G)
        given = (given.view(-1, *of_rows.shape) + of_rows).flatten(0, 1)
    return layout.unpack(_states(cell, given, layout, state))


def has_loop(cell: Cell) -> bool:
    """Whether there is a loop here that is faster than PyTorch's."""
    weights = cell.all_weights[0]
    if weights[0].device.type != "cpu":
        return False
    if isinstance(cell, nn.LSTM):
        return kernels_for(*weights) is not None
    return isinstance(cell, nn.GRU)


def skips_padding(cell: Cell) -> bool:
    """Whether sentences take no more time beside longer ones, as long as they are few."""
    return has_loop(cell) and runs_whole(as_autocast(cell.all_weights[0][1]))


class _Layout:
    """How the steps of sentences ``(B, T, …)`` follow one another in the loops, n in all.

    Only a loop in one call skips padding: to PyTorch, each number of rows is a product of its own,
    and compiling those costs more than padding does.
    """

    def __init__(self, cell: Cell, values: Tensor, lengths: Tensor | None) -> None:
        self.rows, self.steps = values.shape[:2]
        self.sizes = torch.full((self.steps,), self.rows)  # rows of each step
        # None: all steps of all sentences, as they stand
        self.places = self.order = None
        if lengths is not None and runs_whole(as_autocast(cell.all_weights[0][1]), self.rows):
            places = torch.arange(self.rows * self.steps).view(self.rows, self.steps)
            packed = pack_padded_sequence(places, lengths, batch_first=True, enforce_sorted=False)
            self.places, self.sizes = packed.data, packed.batch_sizes
            self.order = packed.sorted_indices  # longest first

    def pack(self, values: Tensor) -> Tensor:
        """``(B, T, …)`` to ``(n, …)``."""
        if self.places is None:
            return values.transpose(0, 1).flatten(0, 1)
        return values.flatten(0, 1).index_select(0, self.places)

    def unpack(self, states: Tensor) -> Tensor:
        """``(n, H)`` to ``(B, T, H)``."""
        size = states.shape[1]
        if self.places is None:
            return states.view(self.steps, self.rows, size).transpose(0, 1)
        whole = states.new_zeros(self.rows * self.steps, size)
        return whole.index_copy_(0, self.places, states).view(self.rows, self.steps, size)


def _states(cell: Cell, given: Tensor, layout: _Layout, state: State | None) -> Tensor:
    """States ``(n, H)`` from the inputs' share of the gates ``(n, G)``, with its bias."""
    _, weight, _, bias = cell.all_weights[0]
    # autocast does not see into the loops
    weight, bias = as_autocast(weight), widened(bias)
    if state is None:
        zeros = bias.new_zeros(layout.rows, cell.hidden_size)
        state = zeros, zeros
    elif layout.order is not None:
        state = state[0][layout.order], state[1][layout.order]
    hidden, memory = widened(state[0]), widened(state[1])
    kind, memory = ("lstm", memory) if isinstance(cell, nn.LSTM) else ("gru", hidden)
    if runs_whole(weight, layout.rows):
        states = WholeLoop.apply(kind, given, layout.sizes, weight, bias, hidden, memory)
    else:
        given = given.view(layout.steps, layout.rows, len(weight))  # (T, B, G)
        if kernels_for(weight, bias):
            states = SteppedLoop.apply(kind, given, weight, bias, hidden, memory)
        else:
            states = GRULoop.apply(given, weight, bias, hidden)
    assert isinstance(states, Tensor)
    return states.reshape(int(layout.sizes.sum()), cell.hidden_size)


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
