"""A causal transformer decoder, with a cache of keys and values for sampling."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uncollapse.config import TransformerDecoderConfig
from uncollapse.decoders.base import Decoder, replace_rows
from uncollapse.decoders.token_loss import as_autocast
from uncollapse.encoders.attention import (
    Transformer,
    Turn,
    initialise_embedding,
    look,
    split_heads,
)
from uncollapse.encoders.context import Condition
from uncollapse.initialisation import initialise
from uncollapse.native import kernels_for

FIRST_CAPACITY = 16  # positions that a cache has room for once it has any


@dataclass
class TransformerState:
    """Keys and values of what was read, what predicts, and z's share of the inputs."""

    features: Tensor  # (N, H)
    cache: Cache
    lengths: Tensor  # (N,): positions read, the prefix included
    longest: int  # no row has read more
    steps: int  # since the start
    beside: Tensor | None  # (N, H)
    rows: Tensor  # (N,): those of the cache

    def select(self, rows: Tensor) -> TransformerState:
        """Keep some rows, by index or mask."""
        if rows.dtype == torch.bool:
            rows = rows.nonzero().squeeze(1)
        beside = None if self.beside is None else self.beside[rows]
        own, lengths = self.rows[rows], self.lengths[rows]
        cache, longest = self.cache, _longest(lengths)
        # keys and values are large: they are not copied before half of them are of no use
        if 2 * len(own) < cache.rows or not bool((own[1:] > own[:-1]).all()):
            cache, own = cache.select(own), torch.arange(len(own), device=own.device)
        features, steps = self.features[rows], self.steps
        return TransformerState(features, cache, lengths, longest, steps, beside, own)

    def replace(self, places: Tensor, other: TransformerState, rows: Tensor) -> None:
        """Have rows ``places`` go on as ``rows`` of another state; in place."""
        pairs = [(self.features, other.features), (self.lengths, other.lengths)]
        replace_rows([*pairs, (self.beside, other.beside)], places, rows)
        self.longest = _longest(self.lengths)
        self.cache = self.cache.with_room(self.longest)
        self.cache.write(self.rows[places], other.cache, other.rows[rows], other.longest)


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
        own = torch.arange(rows, device=features.device)
        beside = self.project_beside(z, rows, condition)
        state = TransformerState(features, cache, torch.zeros_like(own), 0, 0, beside, own)
        return state if self.prefix is None else self._advance(self.prefix(z), state)

    def step(self, words: Tensor, state: TransformerState) -> TransformerState:
        """Read one projected word per row, ``(N, H)``."""
        return self._advance(words if state.beside is None else words + state.beside, state)

    def _advance(self, inputs: Tensor, state: TransformerState) -> TransformerState:
        cache = state.cache.after(state.steps, state.longest)
        attend = partial(cache.attend, state.rows, state.lengths, state.longest)
        features = self.blocks(inputs[:, None], attend, state.lengths[:, None]).squeeze(1)  # (N, H)
        cache.steps = state.steps + 1
        return TransformerState(
            features,
            cache,
            state.lengths + 1,
            state.longest + 1,
            cache.steps,
            state.beside,
            state.rows,
        )


def _longest(lengths: Tensor) -> int:
    return int(lengths.max()) if len(lengths) else 0


def _attend_back(_layer: int, parts: Tensor, turn: Turn) -> Tensor:
    return look(parts, turn)


class Cache:
    """Keys and values of every layer, in buffers that grow by doubling.

    States that follow one another share the buffers; one that would overwrite what another has
    written works on a copy, so that any state can be gone on from more than once.

    Parameters
    ----------
    buffer : Tensor
        Keys and values, ``(2, layers, N, heads, capacity, head width)``, finite throughout.
    steps : int
        Of the newest state.
    """

    def __init__(self, buffer: Tensor, steps: int = 0) -> None:
        self.buffer = buffer
        self.steps = steps

    @property
    def rows(self) -> int:
        """N."""
        return self.buffer.shape[2]

    def after(self, steps: int, longest: int) -> Cache:
        """A cache that a state can write to, after so many steps and positions."""
        if self.steps == steps:
            return self.with_room(longest + 1)
        return Cache(self._copy(longest, max(longest + 1, self.buffer.shape[4])), steps)

    def with_room(self, positions: int) -> Cache:
        """The same, or a larger copy, so that so many positions fit."""
        capacity = self.buffer.shape[4]
        if positions <= capacity:
            return self
        # before its first word, a sentence may wait for long
        wanted = max(FIRST_CAPACITY, 2 * capacity, positions) if capacity else positions
        return Cache(self._copy(capacity, wanted), self.steps)

    def _copy(self, positions: int, capacity: int) -> Tensor:
        *outer, _, width = self.buffer.shape
        buffer = self.buffer.new_zeros(*outer, capacity, width)
        buffer[..., :positions, :] = self.buffer[..., :positions, :]
        return buffer

    def select(self, rows: Tensor) -> Cache:
        """Keep some rows."""
        return Cache(self.buffer[:, :, rows], self.steps)

    def write(self, places: Tensor, other: Cache, rows: Tensor, positions: int) -> None:
        """Copy so many positions of rows of another cache to rows of this one."""
        self.buffer[:, :, places, :, :positions] = other.buffer[:, :, rows, :, :positions]

    def attend(
        self, rows: Tensor, lengths: Tensor, longest: int, layer: int, parts: Tensor, turn: Turn
    ) -> Tensor:
        """Write one position of some rows, ``(n, 1, 3, heads, width)``, and read all up to it."""
        kept = self.buffer[:, layer]
        fused = None if torch.is_grad_enabled() else kernels_for(parts, kept, *turn)
        if fused is not None and parts.dtype == kept.dtype and turn[0].dtype == torch.float32:
            angles = turn[0].flatten(0, 2), turn[1].flatten(0, 2)  # (n, width / 2)
            new = parts.squeeze(1)
            return fused.attend(new, angles, kept[0], kept[1], rows, lengths)[:, None]
        queries, *new = split_heads(parts, turn)
        for own, wanted in zip(kept, new, strict=True):
            own[rows, :, lengths] = wanted.squeeze(2).to(own.dtype)
        some = len(rows) < self.rows
        if some:  # fewer queries are copied than keys and values would be
            part, queries = queries, queries.new_zeros(self.rows, *queries.shape[1:])
            own, lengths = lengths, lengths.new_zeros(self.rows)
            queries[rows], lengths[rows] = part, own
        mask = torch.arange(longest + 1, device=rows.device) <= lengths[:, None]  # (N, longest + 1)
        keys, values = kept[..., : longest + 1, :]
        found = F.scaled_dot_product_attention(queries, keys, values, mask[:, None, None])
        return (found[rows] if some else found).transpose(1, 2)
