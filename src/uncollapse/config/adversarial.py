"""A discriminator of responses and the reward that it gives, as data."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from uncollapse.config.base import Positive, Section, Size
from uncollapse.config.divergences import CriticConfig
from uncollapse.config.pieces import EncoderConfig


class DiscriminatorCriticConfig(CriticConfig):
    """How a discriminator learns, before every step of the generator."""

    steps: Size = 1
    learning_rate: Positive = 1e-4


class DiscriminatorConfig(Section):
    """D(context, response), the probability that a response is a real one.

    ``encoder`` reads the response; a network with one hidden layer joins what it says with the
    vector of the context.
    """

    encoder: EncoderConfig
    hidden_dim: Size = 200
    critic: DiscriminatorCriticConfig = DiscriminatorCriticConfig()


class AdversarialConfig(Section):
    """−Σ_t (Q_t − b_t) log p(w_t|w_<t, context) of sampled responses, added to the loss.

    Q_t is what the discriminator says of a response that starts with w_1 … w_t: a mean over
    ``rollouts`` samples of its rest. During the first ``warmup_batches`` of the adversarial
    stage the discriminator learns and the generator does not listen to it.
    """

    weight: Positive = 1.0
    rollouts: Size = 4
    max_length: Size = 40  # words of a sampled response
    warmup_batches: Annotated[int, Field(ge=0)] = 200
