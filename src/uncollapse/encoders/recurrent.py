"""Recurrent encoders, in one or both directions, blind to padding."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from uncollapse.config import RecurrentEncoderConfig
from uncollapse.data.batches import Batch
from uncollapse.data.tokenizer import PAD
from uncollapse.dropout import Dropout
from uncollapse.embedding import Embedding
from uncollapse.encoders.base import Encoded, Encoder, last_state
from uncollapse.initialisation import initialise
from uncollapse.recurrent import Cell, has_loop, run, run_words, skips_padding

# the states of a cell over a sentence in an order of its words; None: as it is
StatesOf = Callable[[Cell, Callable[[Tensor], Tensor] | None], Tensor]

CELLS: dict[str, type[nn.LSTM] | type[nn.GRU] | type[nn.RNN]] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn": nn.RNN,
}


class RecurrentEncoder(Encoder):
    """LSTM, GRU or RNN over ``<s> w1 … wn </s>``.

    Sentences are padded on the right and the state of the last real step is gathered: a
    packed sequence would leave PyTorch's fast kernels. The backward direction reads
    each sentence reversed within its own length, so that it never starts on padding.
    """

    def __init__(self, config: RecurrentEncoderConfig, vocabulary_size: int) -> None:
        super().__init__()
        cell = CELLS[config.kind]
        self.embedding = Embedding(vocabulary_size, config.embedding_dim, padding_idx=PAD)
        self.dropout = Dropout(config.embedding_dropout)
        self.forward_cell = cell(config.embedding_dim, config.hidden_dim, batch_first=True)
        self.backward_cell = (
            cell(config.embedding_dim, config.hidden_dim, batch_first=True)
            if config.bidirectional
            else None
        )
        self.output_dim = config.hidden_dim * (2 if config.bidirectional else 1)
        initialise(self, config.init_scale, config.embedding_init_scale)

    def forward(self, batch: Batch) -> Encoded:
        """Read a batch of sentences."""
        if not self.dropout.is_idle or not has_loop(self.forward_cell):
            embedded = self.dropout(self.embedding(batch.tokens))  # (B, T, E)
            return self.read(embedded, batch.lengths, batch.mask)
        rows, words = self.embedding.types(batch.tokens)
        lengths = batch.lengths
        return self._read(
            lambda cell, order: run_words(
                cell, rows, words if order is None else order(words), lengths=lengths
            ),
            lengths,
            batch.mask,
        )

    @property
    def skips_padding(self) -> bool:
        """Whether its loops do."""
        return skips_padding(self.forward_cell)

    def read(self, embedded: Tensor, lengths: Tensor, mask: Tensor) -> Encoded:
        """Read embeddings ``(B, T, E)`` of sentences.

        Parameters
        ----------
        embedded : Tensor
            ``(B, T, E)``, of ``<s>`` and ``</s>`` too.
        lengths : Tensor
            ``(B,)``: how many of them are real.
        mask : Tensor
            ``(B, T)``: which.
        """
        return self._read(
            lambda cell, order: run(
                cell, embedded if order is None else order(embedded), lengths=lengths
            ),
            lengths,
            mask,
        )

    def _read(self, states_of: StatesOf, lengths: Tensor, mask: Tensor) -> Encoded:
        states = states_of(self.forward_cell, None)  # (B, T, H)
        summary = last_state(states, lengths)  # (B, H)
        if self.backward_cell is not None:
            places = _mirror(lengths, mask)  # (B, T)

            def mirrored(values: Tensor) -> Tensor:
                if values.dim() == 2:
                    return values.gather(1, places)
                return values.gather(1, places[:, :, None].expand_as(values))

            reverse = states_of(self.backward_cell, mirrored)
            summary = torch.cat([summary, last_state(reverse, lengths)], -1)  # (B, 2H)
            states = torch.cat([states, mirrored(reverse)], -1)  # (B, T, 2H)
        return Encoded(states, summary, mask)


def _mirror(lengths: Tensor, mask: Tensor) -> Tensor:
    """Positions that reverse each sentence within its length; padding stays in place."""
    steps = torch.arange(mask.shape[1], device=mask.device)  # (T,)
    mirrored = lengths[:, None] - 1 - steps  # (B, T)
    return torch.where(mirrored >= 0, mirrored, steps)
