"""The context encoder: the turns of a dialogue before a response, as a vector and a memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from uncollapse.config import ConditionConfig
from uncollapse.data.batches import Batch
from uncollapse.dropout import Dropout
from uncollapse.encoders.base import Encoded, Encoder, last_state
from uncollapse.encoders.recurrent import CELLS
from uncollapse.recurrent import run
from uncollapse.time_loops import MOST_ROWS


@dataclass
class Condition:
    """What the pieces of a model are told of the contexts of B responses.

    Where a response has no context, all of it is exactly 0, so that nothing is added to what
    the model would compute without.

    Parameters
    ----------
    vector : Tensor
        ``(B, C)``: the whole context, and the features of the response.
    memory : Tensor
        ``(B, U, M)``: the state after each turn, oldest first; 0 where there is no turn.
    mask : Tensor
        ``(B, U)``: which turns there are.
    present : Tensor
        ``(B,)``: whether there is any context or feature at all.
    """

    vector: Tensor
    memory: Tensor
    mask: Tensor
    present: Tensor

    def select(self, rows: Tensor) -> Condition:
        """Keep some rows, by index or mask."""
        return self.map(lambda part: part[rows])

    def repeat(self, times: int) -> Condition:
        """All rows so many times, one after the other; see `Batch.repeat`."""
        return self.map(lambda part: part.repeat(times, *[1] * (part.dim() - 1)))

    def turns(self) -> tuple[Tensor, Tensor]:
        """The context after each turn, ``(B, max(U, 1), C)``, and which of them are real.

        Where there is no turn, what stands first is the context as it is.
        """
        size = self.memory.shape[-1]
        memory, mask = self.memory, self.mask
        if not mask.shape[1]:
            memory, mask = memory.new_zeros(len(memory), 1, size), mask.new_zeros(len(mask), 1)
        features = self.vector[:, None, size:].expand(-1, memory.shape[1], -1)
        first = torch.arange(mask.shape[1], device=mask.device) == 0  # (U,)
        return torch.cat([memory, features], -1), mask | (first & ~mask.any(1, keepdim=True))

    def map(self, change: Callable[[Tensor], Tensor]) -> Condition:
        """The same with ``change`` applied to all parts."""
        return Condition(*map(change, (self.vector, self.memory, self.mask, self.present)))


TOGETHER = 64  # turns that are read at once by an encoder that pays for padding


class ContextEncoder(nn.Module):
    """Turns to vectors, and these, in their order, to one (a hierarchical encoder).

    References
    ----------
    Serban et al. 2017, "A Hierarchical Latent Variable Encoder-Decoder Model for Generating
    Dialogues"; Zhao et al. 2017, "Learning Discourse-level Diversity for Neural Dialog Models
    using Conditional Variational Autoencoders" (floor, topic and profile features).

    Parameters
    ----------
    config : ConditionConfig
    encoder : Encoder or None
        Reads the turns, if it is the context's own.
    turn_dim : int
        Width of the states of whatever reads the turns.

    Attributes
    ----------
    output_dim, memory_dim : int
        C and M.
    """

    def __init__(self, config: ConditionConfig, encoder: Encoder | None, turn_dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.read_turn = READOUTS[config.readout](turn_dim)
        self.dropout = Dropout(config.dropout)
        self.floor = config.floor
        width = turn_dim + (2 if config.floor else 0)
        self.cell = CELLS[config.kind](width, config.hidden_dim, batch_first=True)
        self.columns = [feature.column for feature in config.features]
        self.features = nn.ModuleList(
            nn.Embedding(feature.values, feature.dim) for feature in config.features
        )
        self.memory_dim = config.hidden_dim
        self.output_dim = config.hidden_dim + sum(feature.dim for feature in config.features)

    def forward(self, batch: Batch, encoder: Encoder | None) -> Condition:
        """Read the contexts of a batch; ``encoder`` reads turns where none is the context's own."""
        memory, mask = self._memory(batch, self.encoder or encoder)  # (B, U, M), (B, U)
        present = mask.any(1)
        vector = memory.new_zeros(batch.size, self.memory_dim)
        if memory.shape[1]:
            last = last_state(memory, mask.sum(1).clamp(min=1))  # (B, M)
            vector = last * present[:, None]
        parts = [vector]
        for column, table in zip(self.columns, self.features, strict=True):
            labels = batch.labels.get(column)
            if labels is None:
                labels = torch.full_like(batch.lengths, -1)
            known = labels >= 0
            parts.append(table(labels.clamp(min=0)) * known[:, None])
            present = present | known
        return Condition(torch.cat(parts, -1), memory, mask, present)

    def _memory(self, batch: Batch, encoder: Encoder | None) -> tuple[Tensor, Tensor]:
        """The state after each turn ``(B, U, M)``, 0 where there is none, and which there are."""
        context = batch.context
        if context is None or not len(context.lengths):
            mask = torch.zeros(batch.size, 0, dtype=torch.bool, device=batch.tokens.device)
            like = next(self.cell.parameters())
            return like.new_zeros(batch.size, 0, self.memory_dim), mask
        assert encoder is not None
        read = self.dropout(self._read_turns(context.tokens, context.lengths, encoder))  # (N, H)
        mask = context.mask
        inputs = read[context.rows.clamp(min=0)]  # (B, U, H)
        if self.floor:
            same = context.same_speaker[:, :, None]
            floor = torch.cat([same == 1, same == 0], -1) & mask[:, :, None]  # (B, U, 2)
            inputs = torch.cat([inputs, floor.to(inputs)], -1)
        # no turn at all is read as one
        states = run(self.cell, inputs, lengths=mask.sum(1).clamp(min=1))  # (B, U, M)
        # what stands at padding may be anything; 0 times it need not be 0
        return states.masked_fill(~mask[:, :, None], 0), mask

    def _read_turns(self, tokens: Tensor, lengths: Tensor, encoder: Encoder) -> Tensor:
        """What is read of turns ``(N, T)``, ``(N, H)``.

        Those of like length together: most turns are much shorter than the longest, and
        a CPU pays for every step of padding, unless the encoder skips it.
        """
        order = lengths.argsort(stable=True)
        together = len(order)
        if tokens.device.type == "cpu":
            together = MOST_ROWS if encoder.skips_padding else TOGETHER
        pieces = []
        for rows in order.split(together):
            own = lengths[rows]
            part = tokens[rows, : int(own.max())]
            pieces.append(self.read_turn(encoder(Batch(part, own, rows, {}, len(rows)))))
        return torch.cat(pieces)[order.argsort()]


class LastState(nn.Module):
    """The state after the whole turn."""

    def __init__(self, _dim: int) -> None:
        super().__init__()

    def forward(self, encoded: Encoded) -> Tensor:
        """``(N, H)``."""
        return encoded.summary


class MeanState(LastState):
    """The mean of the states of a turn."""

    def forward(self, encoded: Encoded) -> Tensor:
        """``(N, H)``."""
        mask = encoded.mask[:, :, None]  # (N, T, 1)
        return encoded.states.masked_fill(~mask, 0).sum(1) / mask.sum(1)


class AttentionPool(nn.Module):
    """A mean of states whose weights are learned.

    References
    ----------
    Yang et al. 2016, "Hierarchical Attention Networks for Document Classification", eqs. 5–7.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1, bias=False))

    def forward(self, encoded: Encoded) -> Tensor:
        """``(N, H)``."""
        scores = self.score(encoded.states).squeeze(-1)  # (N, T)
        weights = scores.masked_fill(~encoded.mask, -torch.inf).softmax(1)
        states = encoded.states.masked_fill(~encoded.mask[:, :, None], 0)
        return (weights[:, :, None] * states).sum(1)


READOUTS: dict[str, Callable[[int], nn.Module]] = {
    "last": LastState,
    "mean": MeanState,
    "attention": AttentionPool,
}
