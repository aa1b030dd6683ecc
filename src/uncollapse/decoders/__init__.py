"""Decoders: log p(x|z), word by word."""

from __future__ import annotations

from collections.abc import Callable

from uncollapse.config import DecoderConfig
from uncollapse.decoders.base import Decoder, State
from uncollapse.decoders.dilated_cnn import DilatedCNNDecoder
from uncollapse.decoders.recurrent import RecurrentDecoder
from uncollapse.decoders.transformer import TransformerDecoder

KINDS: dict[str, Callable[..., Decoder]] = {
    "lstm": RecurrentDecoder,
    "gru": RecurrentDecoder,
    "rnn": RecurrentDecoder,
    "dilated-cnn": DilatedCNNDecoder,
    "transformer": TransformerDecoder,
}

__all__ = [
    "KINDS",
    "Decoder",
    "DilatedCNNDecoder",
    "RecurrentDecoder",
    "State",
    "TransformerDecoder",
    "build_decoder",
]


def build_decoder(
    config: DecoderConfig,
    vocabulary_size: int,
    latent_dim: int,
    context_dims: tuple[int, int] = (0, 0),
) -> Decoder:
    """Build the decoder that a recipe names; ``latent_dim`` 0 makes it a language model.

    ``context_dims`` are the widths of a context's vector and memory, 0 without contexts.
    """
    return KINDS[config.kind](config, vocabulary_size, latent_dim, context_dims)
