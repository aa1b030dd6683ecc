"""Decoders: log p(x|z), word by word."""

from __future__ import annotations

from uncollapse.config import DecoderConfig
from uncollapse.decoders.base import Decoder
from uncollapse.decoders.recurrent import RecurrentDecoder

KINDS = {"lstm": RecurrentDecoder, "gru": RecurrentDecoder, "rnn": RecurrentDecoder}

__all__ = ["KINDS", "Decoder", "RecurrentDecoder", "build_decoder"]


def build_decoder(config: DecoderConfig, vocabulary_size: int, latent_dim: int) -> RecurrentDecoder:
    """Build the decoder that a recipe names; ``latent_dim`` 0 makes it a language model."""
    return KINDS[config.kind](config, vocabulary_size, latent_dim)
