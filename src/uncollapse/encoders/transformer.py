"""A transformer encoder, blind to padding."""

from __future__ import annotations

from torch import Tensor, nn

from uncollapse.config import TransformerEncoderConfig
from uncollapse.data.batches import Batch
from uncollapse.data.tokenizer import PAD
from uncollapse.dropout import Dropout
from uncollapse.embedding import Embedding
from uncollapse.encoders.attention import Transformer, Turn, initialise_embedding, look
from uncollapse.encoders.base import Encoded, Encoder, last_state
from uncollapse.initialisation import initialise


class TransformerEncoder(Encoder):
    """Pre-norm blocks of attention over ``<s> w1 … wn </s>``; the summary stands at ``</s>``.

    In both directions a state knows the whole sentence, else only the words up to its own.
    There is no longest sentence.
    """

    def __init__(self, config: TransformerEncoderConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.bidirectional = config.bidirectional
        self.embedding = Embedding(vocabulary_size, config.embedding_dim, padding_idx=PAD)
        initialise_embedding(self.embedding)
        self.dropout = Dropout(config.embedding_dropout)
        self.input = nn.Linear(config.embedding_dim, config.hidden_dim)
        self.blocks = Transformer(config.hidden_dim, config.layers, config.heads, config.dropout)
        self.output_dim = config.hidden_dim
        initialise(self, config.init_scale, config.embedding_init_scale)

    def forward(self, batch: Batch) -> Encoded:
        """Read a batch of sentences."""
        # the same scale as in the decoder
        embedded = self.embedding(batch.tokens) * self.embedding.embedding_dim**0.5
        visible = batch.mask if self.bidirectional else None  # (B, T)

        def attend(_layer: int, parts: Tensor, turn: Turn) -> Tensor:
            return look(parts, turn, visible)

        states = self.blocks(self.input(self.dropout(embedded)), attend)  # (B, T, H)
        return Encoded(states, last_state(states, batch.lengths), batch.mask)
