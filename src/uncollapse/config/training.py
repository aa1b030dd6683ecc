"""Objective, strategy and optimisation, as data."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from uncollapse.config.adversarial import AdversarialConfig
from uncollapse.config.base import NonNegative, Positive, Section, Size

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


class SupervisionConfig(Section):
    """A column of labels that a discrete variable is to tell, charged −log q(label|x).

    ``variable`` is the name of a latent of codes, or ``NAME.component`` of the components of a
    mixture; ``index`` says which of its variables. Sentences without a label cost nothing.
    """

    column: Annotated[str, Field(min_length=1)]
    variable: Annotated[str, Field(min_length=1)]
    index: Annotated[int, Field(ge=0)] = 0
    weight: Positive = 1.0


class BagOfWordsConfig(Section):
    """−Σ_t log p(w_t|z, context) of a network that knows no order, added to the loss."""

    weight: Positive = 1.0
    hidden_dim: Size = 400


class ObjectiveConfig(Section):
    """How the divergence is weighed over the course of training, and what is added.

    ``supervision`` by labels, the ``bag_of_words`` loss, and the weights of two losses of codes c
    in dialogues: ``policy``, −log p(c|context) of the most probable code of the response, and
    ``attribute_forcing``, by which the response that the decoder expects must have this code too.
    """

    weight: ScheduleConfig = ConstantScheduleConfig()
    samples: Size = 1  # of z a sentence, over which training averages the reconstruction
    supervision: tuple[SupervisionConfig, ...] = ()
    bag_of_words: BagOfWordsConfig | None = None
    policy: NonNegative = 0.0
    attribute_forcing: NonNegative = 0.0
    adversarial: AdversarialConfig | None = None

    @model_validator(mode="after")
    def _each_once(self) -> ObjectiveConfig:
        columns = [part.column for part in self.supervision]
        targets = [f"index {part.index} of {part.variable}" for part in self.supervision]
        for what, names in (("supervision by column", columns), ("supervision of", targets)):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"{what} {twice} is there twice")
        return self


# --- strategy and training ----------------------------------------------------------------


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


class JointStrategyConfig(Section):
    """Every parameter learns in every step."""

    needs_latent: ClassVar[bool] = False
    needs_density: ClassVar[bool] = False

    kind: Literal["joint"] = "joint"


class AggressiveStrategyConfig(Section):
    """Many updates of the encoder for one of the decoder, until it stops lagging behind.

    That is when the mutual information, which only a posterior with a density has, falls.
    ``most_updates`` of the encoder are made for one of the decoder, however much it still gains.
    """

    needs_latent: ClassVar[bool] = True
    needs_density: ClassVar[bool] = True

    kind: Literal["aggressive"]
    most_updates: Size = 99


class PretrainedStrategyConfig(Section):
    """First an autoencoder; then its decoder starts anew, and the whole model is trained.

    ``epochs``, ``learning_rate`` (None: that of ``training``) and ``plateau`` are those of the
    autoencoder; ``then`` says how the training goes on.
    """

    needs_latent: ClassVar[bool] = True

    kind: Literal["pretrained"]
    epochs: Size = 100
    learning_rate: Positive | None = None
    plateau: PlateauConfig | None = PlateauConfig()
    then: Annotated[JointStrategyConfig | AggressiveStrategyConfig, Field(discriminator="kind")] = (
        JointStrategyConfig()
    )

    @property
    def needs_density(self) -> bool:
        """Whether all posteriors must have a density."""
        return self.then.needs_density


class AdversarialStrategyConfig(Section):
    """First by maximum likelihood alone; then a discriminator learns, and rewards too.

    ``epochs``, ``learning_rate`` (None: that of ``training``) and ``plateau`` are those of the
    first stage.
    """

    needs_latent: ClassVar[bool] = False
    needs_density: ClassVar[bool] = False

    kind: Literal["adversarial"]
    epochs: Size = 60
    learning_rate: Positive | None = None
    plateau: PlateauConfig | None = PlateauConfig()


class TwoStageStrategyConfig(Section):
    """First a VAE of responses alone; then its inference is frozen, and a dialogue model learns.

    ``epochs``, ``learning_rate`` (None: that of ``training``) and ``plateau`` are those of the
    first stage, which is told of no context. In the second no divergence is charged.
    """

    needs_latent: ClassVar[bool] = True
    needs_density: ClassVar[bool] = False

    kind: Literal["two-stage"]
    epochs: Size = 20
    learning_rate: Positive | None = None
    plateau: PlateauConfig | None = None


StrategyConfig = Annotated[
    JointStrategyConfig
    | AggressiveStrategyConfig
    | PretrainedStrategyConfig
    | TwoStageStrategyConfig
    | AdversarialStrategyConfig,
    Field(discriminator="kind"),
]


class TrainingConfig(Section):
    """Optimisation and when it ends.

    Validation, best weights, plateau, schedules, ``max_epochs`` and history go by epochs. An epoch
    is the whole corpus or, of one too large to wait for its end, ``epoch_batches`` batches: then
    the next epoch goes on in the corpus where the last one stopped, and the corpus begins again,
    in another order, whenever it is used up. So it is in every stage of a strategy.
    """

    max_epochs: Size = 100
    epoch_batches: Size | None = None
    batch_size: Size = 32
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: Positive = 1e-3
    cosine_period_epochs: Size | None = None  # cosine restarts of the learning rate
    weight_decay: NonNegative = 0.0
    epsilon: Positive = 1e-8
    clip_norm: Positive | None = 5.0
    precision: Literal["f32", "bf16"] = "bf16"
    select_on: Literal["elbo", "objective", "reconstruction", "last"] = "elbo"
    plateau: PlateauConfig | None = PlateauConfig()
    checkpoint_every_minutes: Positive = 10.0
    tensorboard: bool = False  # the history also for TensorBoard; needs the extra
    # batches after which the latent space is kept, where there is one; 0 is before training
    snapshots: tuple[Annotated[int, Field(ge=0, strict=True)], ...] = ()

    @field_validator("snapshots")
    @classmethod
    def _in_order(cls, snapshots: tuple[int, ...]) -> tuple[int, ...]:
        twice = next((step for step in snapshots if snapshots.count(step) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} is there twice")
        return tuple(sorted(snapshots))

    @model_validator(mode="after")
    def _last_is_best(self) -> TrainingConfig:
        if self.select_on == "last" and self.plateau is not None:
            raise ValueError("select_on last needs plateau: null; the newest epoch is the best")
        return self
