"""A recipe: one piece per axis, as data. Everything that a system is, is in its recipe.

A recipe is read from YAML, checked here (unknown keys are refused by name), and never
executes code. Each ``kind`` names a class in the table of its axis package.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from uncollapse.errors import UserError, unknown_name

Size = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """Base of every part of a recipe: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# --- data ---------------------------------------------------------------------------------


class DataConfig(Section):
    """How text becomes token ids and batches."""

    tokenizer: Literal["whitespace", "words", "bpe"] = "whitespace"
    vocabulary_size: Annotated[int, Field(ge=5)] | None = 20_000  # counts the four specials
    min_count: Size = 1
    max_length: Size | None = 200  # words; longer sentences are cut, and counted
    unk_token: str = "<unk>"
    text_column: str = "text"
    label_column: str | None = None
    bucket_pool: Size = 100  # batches per length-sorted pool; 1 = mixed lengths


# --- encoder and decoder ------------------------------------------------------------------


class RecurrentEncoderConfig(Section):
    """A recurrent reader of the whole ``<s> … </s>``."""

    kind: Literal["lstm", "gru", "rnn"]
    embedding_dim: Size = 256
    hidden_dim: Size = 256
    bidirectional: bool = False
    embedding_dropout: Rate = 0.0
    init_scale: Positive | None = None  # U(±scale); None keeps PyTorch's initialisation
    embedding_init_scale: Positive | None = None


class RecurrentDecoderConfig(Section):
    """A recurrent language model of the words given z."""

    kind: Literal["lstm", "gru", "rnn"]
    embedding_dim: Size = 256
    hidden_dim: Size = 256
    # `tanh`: c0 = Wz, h0 = tanh(c0); `linear`: h0 = c0 = Wz; `hidden`: h0 = Wz + b, c0 = 0;
    # None: z is not in the state
    initial_state: Literal["tanh", "linear", "hidden"] | None = "tanh"
    every_input: bool = True  # z beside every input embedding
    tied_softmax: bool = False  # output weights are the embeddings; needs equal widths
    embedding_dropout: Rate = 0.0
    output_dropout: Rate = 0.0
    word_dropout: Rate = 0.0  # share of input words replaced by the unknown token
    init_scale: Positive | None = None
    embedding_init_scale: Positive | None = None

    @model_validator(mode="after")
    def _tied_widths(self) -> RecurrentDecoderConfig:
        if self.tied_softmax and self.embedding_dim != self.hidden_dim:
            raise ValueError("tied_softmax needs embedding_dim equal to hidden_dim")
        return self


EncoderConfig = RecurrentEncoderConfig
DecoderConfig = RecurrentDecoderConfig

# --- latents ------------------------------------------------------------------------------


class BatchNormConfig(Section):
    """Batch normalisation of the posterior mean: scale γ frozen, shift learned."""

    scale: Positive = 0.7


class GaussianPosteriorConfig(Section):
    """A diagonal Gaussian; ``floor`` is δ-VAE's committed rate in nats per dimension."""

    kind: Literal["gaussian"]
    bias: bool = False
    batch_norm: BatchNormConfig | None = None
    floor: Positive | None = None

    @model_validator(mode="after")
    def _one_mechanism(self) -> GaussianPosteriorConfig:
        if self.batch_norm and self.floor:
            raise ValueError("batch_norm and floor cannot both constrain one posterior")
        return self


class PointPosteriorConfig(Section):
    """No noise: z is a function of the sentence (an autoencoder); it has no density."""

    kind: Literal["point"]
    bias: bool = False


PosteriorConfig = Annotated[
    GaussianPosteriorConfig | PointPosteriorConfig, Field(discriminator="kind")
]


class StandardNormalConfig(Section):
    """N(0, I)."""

    kind: Literal["standard-normal"] = "standard-normal"


class FreeBitsConfig(Section):
    """A floor under the divergence: below ``nats`` it exerts no pull.

    ``dimension`` shares ``nats`` out evenly over the dimensions; ``total`` looks at the sum.
    """

    per: Literal["dimension", "total"]
    nats: Positive


class KLConfig(Section):
    """KL(q(z|x) ‖ p(z)) of the z that the decoder sees."""

    kind: Literal["kl"] = "kl"
    floor: FreeBitsConfig | None = None


class TimestepMeanConfig(Section):
    """Mean over the last share of time steps of KL(q(z_t|x_≤t) ‖ p(z)) (TWR-VAE)."""

    kind: Literal["timestep-mean"]
    last: Annotated[float, Field(gt=0, le=1)] = 1.0
    floor: FreeBitsConfig | None = None


DivergenceConfig = Annotated[KLConfig | TimestepMeanConfig, Field(discriminator="kind")]


class LatentConfig(Section):
    """One latent variable: what it reads, its posterior, prior and divergence."""

    dim: Size = 32
    readout: Literal["last", "mean", "max", "abs", "every"] = "last"
    # how one z is made of a posterior at every step
    combine: Literal["last", "mean", "sum"] = "last"
    posterior: PosteriorConfig = GaussianPosteriorConfig(kind="gaussian")
    prior: StandardNormalConfig = StandardNormalConfig()
    divergence: DivergenceConfig = KLConfig()

    @model_validator(mode="after")
    def _steps_need_every(self) -> LatentConfig:
        if self.divergence.kind == "timestep-mean" and self.readout != "every":
            raise ValueError("divergence timestep-mean needs readout: every")
        if self.combine != "last" and self.readout != "every":
            raise ValueError(f"combine {self.combine} needs readout: every")
        return self


# --- objective ----------------------------------------------------------------------------


class ConstantScheduleConfig(Section):
    """The same weight throughout."""

    kind: Literal["constant"] = "constant"
    value: NonNegative = 1.0


class LinearScheduleConfig(Section):
    """From ``start`` to 1 over ``epochs``, a step a batch."""

    kind: Literal["linear"]
    start: Annotated[float, Field(ge=0, le=1)] = 0.0
    epochs: Positive = 10


class LogisticScheduleConfig(Section):
    """1 / (1 + exp(-slope (batch - midpoint)))."""

    kind: Literal["logistic"]
    slope: Positive = 0.0025
    midpoint: NonNegative = 2500


class CyclicalScheduleConfig(Section):
    """Rises from ``start`` to 1 over the first ``rising`` share of every period, then holds."""

    kind: Literal["cyclical"]
    period_epochs: Positive = 10
    rising: Annotated[float, Field(gt=0, le=1)] = 0.5
    start: Annotated[float, Field(ge=0, le=1)] = 0.0


ScheduleConfig = Annotated[
    ConstantScheduleConfig | LinearScheduleConfig | LogisticScheduleConfig | CyclicalScheduleConfig,
    Field(discriminator="kind"),
]


class ObjectiveConfig(Section):
    """How the divergence is weighed over the course of training."""

    weight: ScheduleConfig = ConstantScheduleConfig()


# --- strategy and training ----------------------------------------------------------------


class JointStrategyConfig(Section):
    """Every parameter learns in every step."""

    kind: Literal["joint"] = "joint"


class PlateauConfig(Section):
    """What happens when validation stops improving.

    After ``patience`` epochs worse than the reference, from ``start_epoch`` on: reload the
    best weights, multiply the learning rate by ``factor``, reset the optimiser. After
    ``max_decays`` of these, stop; 0 is plain early stopping.
    """

    patience: Size = 5
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    max_decays: Annotated[int, Field(ge=0)] = 5
    start_epoch: Annotated[int, Field(ge=0)] = 15


class TrainingConfig(Section):
    """Optimisation and when it ends."""

    max_epochs: Size = 100
    batch_size: Size = 32
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: Positive = 1e-3
    cosine_period_epochs: Size | None = None  # cosine restarts of the learning rate
    weight_decay: NonNegative = 0.0
    epsilon: Positive = 1e-8
    clip_norm: Positive | None = 5.0
    precision: Literal["f32", "bf16"] = "bf16"
    select_on: Literal["elbo", "objective", "reconstruction"] = "elbo"
    plateau: PlateauConfig | None = PlateauConfig()
    checkpoint_every_minutes: Positive = 10.0
    tensorboard: bool = False  # the history also for TensorBoard; needs the extra


class Recipe(Section):
    """A whole system.

    ``latents`` may be empty: a language model is a legal model. ``published`` holds, by
    corpus, the figures that its source prints and that it should approach.
    """

    name: str
    summary: str
    source: str
    published: dict[str, dict[str, float]] = {}
    data: DataConfig = DataConfig()
    encoder: EncoderConfig | None = None
    latents: dict[str, LatentConfig] = {}
    decoder: DecoderConfig
    objective: ObjectiveConfig = ObjectiveConfig()
    strategy: JointStrategyConfig = JointStrategyConfig()
    training: TrainingConfig = TrainingConfig()

    @field_validator("latents", mode="before")
    @classmethod
    def _null_is_none(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("latents")
    @classmethod
    def _plain_names(cls, latents: dict[str, LatentConfig]) -> dict[str, LatentConfig]:
        for name in latents:  # they become parts of parameter names and of metric names
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
                raise ValueError(
                    f"a latent's name is a letter, then letters, digits, _ or -: {name!r}"
                )
        return latents

    @model_validator(mode="after")
    def _encoder_if_latent(self) -> Recipe:
        if self.latents and self.encoder is None:
            raise ValueError("latents need an encoder")
        if not self.latents and self.encoder is not None:
            raise ValueError("an encoder needs a latent to feed")
        if self.latents and self.decoder.initial_state is None and not self.decoder.every_input:
            raise ValueError("the decoder must see z: set initial_state or every_input")
        return self


def parse_recipe(values: Mapping[str, Any]) -> Recipe:
    """Check a mapping and build the recipe.

    Raises
    ------
    UserError
        One line that names the offending key and, for an unknown one, the nearest right one.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise _one_line(error) from None


def keys_of_kind(kind: object) -> set[str]:
    """All keys that a section of this kind may have."""
    sections = [section for section in Section.__subclasses__() if kind in _kinds([section])]
    return {key for section in sections for key in section.model_fields}


def _one_line(error: ValidationError) -> UserError:
    detail = error.errors()[0]
    *parents, last = [str(part) for part in detail["loc"]] or ["recipe"]
    visible, sections = _locate(parents)
    context = detail.get("ctx", {})
    if detail["type"] == "extra_forbidden":
        known = {key for section in sections for key in section.model_fields}
        place = f" in {'.'.join(visible)}" if visible else ""
        return unknown_name(f"key{place}", last, known)
    if detail["type"] == "union_tag_invalid":
        known = re.findall(r"'([^']*)'", context["expected_tags"])
        return unknown_name(f"{'.'.join([*visible, last])}.kind", context["tag"], known)
    if detail["type"] == "literal_error" and isinstance(detail["input"], str):
        known = re.findall(r"'([^']*)'", context["expected"])
        return unknown_name(".".join([*visible, last]), detail["input"], known)
    if last not in _kinds(sections):  # a check of a whole section ends in its kind
        visible.append(last)
    message = detail["msg"].removeprefix("Value error, ")
    given = detail.get("input")
    shown = f", not {given!r}" if isinstance(given, str | int | float | bool) else ""
    return UserError(f"{'.'.join(visible)}: {message[:1].lower()}{message[1:]}{shown}")


def _locate(parents: list[str]) -> tuple[list[str], list[type[Section]]]:
    """Turn pydantic's path, in which chosen kinds also stand, into the user's own."""
    visible: list[str] = []
    sections: list[type[Section]] = [Recipe]
    for part in parents:
        fields = [s.model_fields[part].annotation for s in sections if part in s.model_fields]
        if fields:
            sections = [found for annotation in fields for found in _sections_in(annotation)]
        elif part in _kinds(sections):
            sections = [section for section in sections if part in _kinds([section])]
            continue
        visible.append(part)
    return visible, sections


def _kinds(sections: list[type[Section]]) -> set[str]:
    fields = [
        section.model_fields["kind"] for section in sections if "kind" in section.model_fields
    ]
    return {kind for field in fields for kind in get_args(field.annotation)}


def _sections_in(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for part in get_args(annotation) for found in _sections_in(part)]
