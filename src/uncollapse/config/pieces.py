"""Data, encoders and decoders, as data."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from uncollapse.config.base import Positive, Rate, Section, Size


class DataConfig(Section):
    """How text becomes token ids and batches."""

    tokenizer: Literal["whitespace", "words", "bpe"] = "whitespace"
    vocabulary_size: Annotated[int, Field(ge=5)] | None = 20_000  # counts the four specials
    min_count: Size = 1
    max_length: Size | None = 200  # words; longer sentences are cut, and counted
    unk_token: str = "<unk>"
    text_column: str = "text"
    label_column: str | None = None
    context_turns: Annotated[int, Field(ge=0)] = 0  # of a dialogue, before each turn; 0: none
    vectors: str | None = None  # a file of word vectors from which embeddings start
    bucket_pool: Size = 100  # batches per length-sorted pool; 1 = mixed lengths


# --- encoders -----------------------------------------------------------------------------


class RecurrentEncoderConfig(Section):
    """A recurrent reader of the whole ``<s> … </s>``."""

    kind: Literal["lstm", "gru", "rnn"]
    embedding_dim: Size = 256
    hidden_dim: Size = 256
    bidirectional: bool = False
    embedding_dropout: Rate = 0.0
    init_scale: Positive | None = None  # U(±scale); None keeps PyTorch's initialisation
    embedding_init_scale: Positive | None = None


class TransformerEncoderConfig(Section):
    """A transformer over the whole ``<s> … </s>``."""

    kind: Literal["transformer"]
    embedding_dim: Size = 256
    hidden_dim: Size = 256  # of all heads together
    layers: Size = 2
    heads: Size = 4
    bidirectional: bool = True  # False: a state knows only the words up to its own
    embedding_dropout: Rate = 0.0
    dropout: Rate = 0.0  # of what each layer adds
    init_scale: Positive | None = None  # U(±scale); None is N(0, 0.02)
    embedding_init_scale: Positive | None = None


# --- decoders -----------------------------------------------------------------------------


class DecoderSection(Section):
    """What every decoder can be told."""

    kind: str
    embedding_dim: Size = 256
    hidden_dim: Size = 256  # of the states that predict words
    every_input: bool = True  # z beside every input embedding
    tied_softmax: bool = False  # output weights are the embeddings; needs equal widths
    embedding_dropout: Rate = 0.0
    output_dropout: Rate = 0.0
    word_dropout: Rate = 0.0  # share of input words replaced by the unknown token
    init_scale: Positive | None = None
    embedding_init_scale: Positive | None = None

    @model_validator(mode="after")
    def _tied_widths(self) -> Self:
        if self.tied_softmax and self.embedding_dim != self.hidden_dim:
            raise ValueError("tied_softmax needs embedding_dim equal to hidden_dim")
        return self

    @property
    def z_beside_words(self) -> bool:
        """Whether z stands beside every input embedding."""
        return self.every_input

    @property
    def sees_z(self) -> bool:
        """Whether z reaches the decoder at all."""
        return self.z_beside_words


class RecurrentDecoderConfig(DecoderSection):
    """A recurrent language model of the words given z."""

    kind: Literal["lstm", "gru", "rnn"]
    # `tanh`: c0 = Wz, h0 = tanh(c0); `linear`: h0 = c0 = Wz; `hidden`: h0 = Wz + b, c0 = 0;
    # None: z is not in the state
    initial_state: Literal["tanh", "linear", "hidden"] | None = "tanh"
    skip: bool = False  # z beside every input and beside every state that predicts
    attention: bool = False  # over the turns of the context, by every state that predicts

    @property
    def z_beside_words(self) -> bool:
        """Whether z stands beside every input embedding."""
        return self.every_input or self.skip

    @property
    def sees_z(self) -> bool:
        """Whether z reaches the decoder at all."""
        return self.z_beside_words or self.initial_state is not None


class DilatedCNNDecoderConfig(DecoderSection):
    """Causal dilated convolutions in residual blocks, a block a dilation."""

    kind: Literal["dilated-cnn"]
    dilations: Annotated[tuple[Size, ...], Field(min_length=1)] = (1, 2, 4)
    filter_width: Annotated[int, Field(ge=2)] = 3  # words that one convolution combines


class TransformerDecoderConfig(DecoderSection):
    """A causal transformer."""

    kind: Literal["transformer"]
    layers: Size = 2
    heads: Size = 4
    prefix: bool = True  # z as a position of its own, before ``<s>``
    dropout: Rate = 0.0  # of what each layer adds

    @property
    def sees_z(self) -> bool:
        """Whether z reaches the decoder at all."""
        return self.z_beside_words or self.prefix


EncoderConfig = Annotated[
    RecurrentEncoderConfig | TransformerEncoderConfig, Field(discriminator="kind")
]
DecoderConfig = Annotated[
    RecurrentDecoderConfig | DilatedCNNDecoderConfig | TransformerDecoderConfig,
    Field(discriminator="kind"),
]
