"""Encoders: from token ids to a state per step."""

from __future__ import annotations

from uncollapse.config import EncoderConfig
from uncollapse.encoders.base import Encoded, Encoder
from uncollapse.encoders.recurrent import RecurrentEncoder

KINDS = {"lstm": RecurrentEncoder, "gru": RecurrentEncoder, "rnn": RecurrentEncoder}

__all__ = ["KINDS", "Encoded", "Encoder", "RecurrentEncoder", "build_encoder"]


def build_encoder(config: EncoderConfig, vocabulary_size: int) -> Encoder:
    """Build the encoder that a recipe names."""
    return KINDS[config.kind](config, vocabulary_size)
