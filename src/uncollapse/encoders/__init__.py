"""Encoders: from token ids to a state per step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from uncollapse.config import EncoderConfig
from uncollapse.encoders.base import Encoded, Encoder
from uncollapse.encoders.recurrent import RecurrentEncoder
from uncollapse.encoders.transformer import TransformerEncoder

KINDS: dict[str, Callable[[Any, int], Encoder]] = {
    "lstm": RecurrentEncoder,
    "gru": RecurrentEncoder,
    "rnn": RecurrentEncoder,
    "transformer": TransformerEncoder,
}

__all__ = [
    "KINDS",
    "Encoded",
    "Encoder",
    "RecurrentEncoder",
    "TransformerEncoder",
    "build_encoder",
]


def build_encoder(config: EncoderConfig, vocabulary_size: int) -> Encoder:
    """Build the encoder that a recipe names."""
    return KINDS[config.kind](config, vocabulary_size)
