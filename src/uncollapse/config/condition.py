"""What a model is conditioned on: the turns of a dialogue before the response, as data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from uncollapse.config.base import Rate, Section, Size
from uncollapse.config.pieces import RecurrentEncoderConfig


class FeatureConfig(Section):
    """A column of labels of the response or its dialogue, embedded: its topic, a profile.

    ``values`` is the most classes that it can have; a missing label adds nothing.
    """

    column: Annotated[str, Field(min_length=1)]
    values: Size
    dim: Size = 30


class ConditionConfig(Section):
    """A hierarchical encoder: each turn to a vector, and these, in their order, to one.

    ``encoder`` reads the turns; null: the encoder of the responses reads them too. ``kind`` and
    ``hidden_dim`` are of the network above it. ``floor`` tells it which turns are of the speaker
    who responds. ``posterior`` false: posteriors read the response alone.
    """

    encoder: RecurrentEncoderConfig | None = None
    readout: Literal["last", "mean", "attention"] = "last"
    kind: Literal["lstm", "gru", "rnn"] = "gru"
    hidden_dim: Size = 512
    floor: bool = True
    features: tuple[FeatureConfig, ...] = ()
    dropout: Rate = 0.0  # of the vectors of turns
    posterior: bool = True


class PolicyConfig(Section):
    """p(c|context), a network with one hidden layer, in place of uniform probabilities."""

    hidden_dim: Size = 400
