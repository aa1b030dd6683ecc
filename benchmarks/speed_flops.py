"""Arithmetic that a model needs when computed naively, for rates in FLOP/s.

Products of weights with activations are counted, two operations a multiply-add: gates, linear
layers of transformers and the softmax. Small parts (posteriors, priors, attention scores, the
optimiser) are not. Backward passes cost twice a forward pass. What an implementation saves,
say by projecting every word type once, does not count: rates are of the naive arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uncollapse.config import DecoderConfig, EncoderConfig, Recipe

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
TRAINING = 3  # passes: one forward, two backward


@dataclass(frozen=True)
class Context:
    """How much context there is to every predicted token of a dialogue's responses."""

    tokens: float = 0.0
    turns: float = 0.0


def training_flops(recipe: Recipe, vocabulary_size: int, context: Context = Context()) -> float:
    """Operations of training, forward and backward, for every predicted token."""
    weights = decoder_weights(recipe, vocabulary_size) * recipe.objective.samples
    if recipe.encoder is not None:
        weights += encoder_weights(recipe.encoder)
    weights += _context_weights(recipe, context)
    return 2 * TRAINING * weights


def scoring_flops(recipe: Recipe, vocabulary_size: int, samples: int) -> float:
    """Operations of the likelihood at so many samples, for every predicted token."""
    return 2 * samples * decoder_weights(recipe, vocabulary_size)


def encoder_weights(config: EncoderConfig) -> int:
    """Weights that the encoder multiplies a token with."""
    wide, hidden = config.embedding_dim, config.hidden_dim
    if config.kind == "transformer":
        return wide * hidden + config.layers * 12 * hidden**2
    return GATES[config.kind] * hidden * (wide + hidden) * (2 if config.bidirectional else 1)


def decoder_weights(recipe: Recipe, vocabulary_size: int) -> int:
    """Weights that the decoder, with its softmax, multiplies a token with."""
    config: DecoderConfig = recipe.decoder
    latent_dim = sum(latent.groups * latent.dim for latent in recipe.latents.values())
    wide = config.embedding_dim + (latent_dim if config.z_beside_words else 0)
    hidden = config.hidden_dim
    softmax = hidden * vocabulary_size
    if config.kind == "transformer":
        return wide * hidden + config.layers * 12 * hidden**2 + softmax
    if config.kind == "dilated-cnn":
        inner = hidden // 2
        block = 2 * hidden * inner + config.filter_width * inner**2
        return wide * hidden + len(config.dilations) * block + softmax
    return GATES[config.kind] * hidden * (wide + hidden) + softmax


def _context_weights(recipe: Recipe, context: Context) -> float:
    if recipe.condition is None:
        return 0.0
    reader = recipe.condition.encoder or recipe.encoder
    assert reader is not None
    turn_dim = reader.hidden_dim * (2 if reader.bidirectional else 1)
    hidden = recipe.condition.hidden_dim
    above = GATES[recipe.condition.kind] * hidden * (turn_dim + hidden)
    return context.tokens * encoder_weights(reader) + context.turns * above
