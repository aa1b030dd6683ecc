"""Decoders: log p(x|z), word by word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from uncollapse.config import DecoderConfig
from uncollapse.decoders.base import Decoder, State
from uncollapse.decoders.dilated_cnn import DilatedCNNDecoder
from uncollapse.decoders.recurrent import RecurrentDecoder
from uncollapse.decoders.transformer import TransformerDecoder

KINDS: dict[str, Callable[[Any, int, int], Decoder]] = {
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


def build_decoder(config: DecoderConfig, vocabulary_size: int, latent_dim: int) -> Decoder:
    """Build the decoder that a recipe names; ``latent_dim`` 0 makes it a language model."""
    return KINDS[config.kind](config, vocabulary_size, latent_dim)
