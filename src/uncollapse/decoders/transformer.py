"""A causal transformer decoder, with a cache of keys and values for sampling."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uncollapse.config import TransformerDecoderConfig
from uncollapse.decoders.base import Decoder
from uncollapse.decoders.token_loss import as_autocast
from uncollapse.encoders.attention import Transformer, initialise_embedding
from uncollapse.encoders.context import Condition
from uncollapse.initialisation import initialise

FIRST_CAPACITY = 16  # positions that a cache has room for once it has any


@dataclass
class TransformerState:
    """Keys and values of what was read, what predicts, and z's share of the inputs."""

    features: Tensor  # (N, H)
    cache: Cache
    length: int  # positions read, the prefix included
    beside: Tensor | None  # (N, H)
    rows: Tensor | None = None  # (N,): those of the cache; None: all of them

    def select(self, rows: Tensor) -> TransformerState:
        """Keep some rows, by index or mask."""
        if rows.dtype == torch.bool:
            rows = rows.nonzero().squeeze(1)
        beside = None if self.beside is None else self.beside[rows]
        own = rows if self.rows is None else self.rows[rows]
        cache = self.cache
        # keys and values are large: they are not copied before half of them are of no use
        if 2 * len(own) < cache.rows or not bool((own[1:] > own[:-1]).all()):
            cache, own = cache.select(own, self.length), None
        return TransformerState(self.features[rows], cache, self.length, beside, own)


class TransformerDecoder(Decoder[TransformerState]):
    """Pre-norm blocks of causal attention; positions turn queries and keys.

    z can enter as a position of its own before ``<s>``, and beside every word. There is no
    longest sentence.

    Parameters
    ----------
    config : TransformerDecoderConfig
        The options.
    vocabulary_size : int
        V.
    latent_dim : int
        D, all latents together; 0 for a language model.
    context_dims : tuple of int
        C and M; the context's vector stands beside every word.
    """

    def __init__(
        self,
        config: TransformerDecoderConfig,
        vocabulary_size: int,
        latent_dim: int,
        context_dims: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__(config, vocabulary_size, latent_dim, context_dims)
        initialise_embedding(self.embedding)
        self.input = nn.Linear(self.input_dim, config.hidden_dim)
        self.prefix = (
            nn.Linear(latent_dim, config.hidden_dim) if config.prefix and latent_dim > 0 else None
        )
        self.blocks = Transformer(config.hidden_dim, config.layers, config.heads, config.dropout)
        self.output = self.make_output(config)
        initialise(self, config.init_scale, config.embedding_init_scale)

    def embed(self, words: Tensor) -> Tensor:
        """Embeddings of words ``(...)``, ``(..., E)``, scaled up: those of the table are small."""
        return self.embedding(words) * self.embedding.embedding_dim**0.5

    def states(
        self, z: Tensor | None, inputs: Tensor, condition: Condition | None = None
    ) -> Tensor:
        """What predicts the word after each of ``inputs`` ``(B, T)``, ``(B, T, H)``."""
        states = self.input(self.read(z, inputs, condition))  # (B, T, H)
        if self.prefix is None:
            return self.blocks(states, _attend_back)
        states = torch.cat([self.prefix(z)[:, None].to(states.dtype), states], 1)  # (B, 1 + T, H)
        return self.blocks(states, _attend_back)[:, 1:]

    @property
    def input_layer(self) -> tuple[Tensor, Tensor]:
        """The layer below the first block, ``(H, E)`` or ``(H, E + D + C)``, and its bias."""
        return self.input.weight, self.input.bias

    def start(
        self, z: Tensor | None, rows: int, condition: Condition | None = None
    ) -> TransformerState:
        """The state before ``<s>``, for ``rows`` sentences in their contexts."""
        features = self.output.weight.new_zeros(rows, self.hidden_dim)
        layers, heads, width = self.blocks.shape
        cache = Cache(as_autocast(features.new_empty(2, layers, rows, heads, 0, width)))
        state = TransformerState(features, cache, 0, self.project_beside(z, rows, condition))
        return state if self.prefix is None else self._advance(self.prefix(z), state)

    def step(self, words: Tensor, state: TransformerState) -> TransformerState:
        """Read one projected word per row, ``(N, H)``."""
        return self._advance(words if state.beside is None else words + state.beside, state)

    def _advance(self, inputs: Tensor, state: TransformerState) -> TransformerState:
        cache = state.cache.with_room_at(state.length)
        attend = partial(cache.attend, state.rows)
        features = self.blocks(inputs[:, None], attend, state.length).squeeze(1)  # (N, H)
        cache.filled += 1
        return TransformerState(features, cache, state.length + 1, state.beside, state.rows)


def _attend_back(_layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(queries, keys, values, is_causal=True)


class Cache:
    """Keys and values of every layer, in buffers that grow by doubling.

    States that follow one another share the buffers, each knowing how much of them is its
    own. One that would overwrite what another has written works on a copy, so that any state
    can be gone on from more than once.

    Parameters
    ----------
    buffer : Tensor
        Keys and values, ``(2, layers, N, heads, capacity, head width)``.
    filled : int
        Positions written.
    """

    def __init__(self, buffer: Tensor, filled: int = 0) -> None:
        self.buffer = buffer
        self.filled = filled

    @property
    def rows(self) -> int:
        """N."""
        return self.buffer.shape[2]

    def with_room_at(self, length: int) -> Cache:
        """A cache of the same first ``length`` positions that the next one can be written to."""
        capacity = self.buffer.shape[4]
        if self.filled == length < capacity:
            return self
        if length == capacity:
            capacity = max(FIRST_CAPACITY, 2 * capacity)
        *outer, _, width = self.buffer.shape
        buffer = self.buffer.new_empty(*outer, capacity, width)
        buffer[..., :length, :] = self.buffer[..., :length, :]
        return Cache(buffer, length)

    def select(self, rows: Tensor, length: int) -> Cache:
        """Keep some rows, and their first ``length`` positions."""
        return Cache(self.buffer[:, :, rows], length)

    def attend(
        self, rows: Tensor | None, layer: int, queries: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """Write one position, ``(n, heads, 1, width)``, of some rows, and read all up to it."""
        if rows is not None:
            parts = queries.new_zeros(3, self.rows, *queries.shape[1:])
            for part, own in zip(parts, (queries, keys, values), strict=True):
                part[rows] = own.to(part.dtype)
            queries, keys, values = parts
        for kind, new in enumerate((keys, values)):
            self.buffer[kind, layer, ..., self.filled, :] = new.squeeze(2)
        seen = self.buffer[:, layer, ..., : self.filled + 1, :]
        found = F.scaled_dot_product_attention(queries, seen[0], seen[1])
        return found if rows is None else found[rows]
