"""Encoders: from token ids to a state per step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from uncollapse.config import ConditionConfig, EncoderConfig
from uncollapse.encoders.base import Encoded, Encoder
from uncollapse.encoders.context import Condition, ContextEncoder
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
    "Condition",
    "ContextEncoder",
    "Encoded",
    "Encoder",
    "RecurrentEncoder",
    "TransformerEncoder",
    "build_context",
    "build_encoder",
]


def build_encoder(config: EncoderConfig, vocabulary_size: int) -> Encoder:
    """Build the encoder that a recipe names."""
    return KINDS[config.kind](config, vocabulary_size)


def build_context(
    config: ConditionConfig, vocabulary_size: int, shared: Encoder | None
) -> ContextEncoder:
    """Build the encoder of contexts; ``shared`` reads turns where it has no reader of its own."""
    own = None if config.encoder is None else build_encoder(config.encoder, vocabulary_size)
    reader = own or shared
    assert reader is not None
    return ContextEncoder(config, own, reader.output_dim)
