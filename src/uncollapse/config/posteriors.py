"""Posteriors, as data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from uncollapse.config.base import Positive, Rate, Section, Size

# nats a dimension; beyond, the variance that has this KL by itself underflows in float32
MAX_FLOOR = 40.0
# beyond, a cosine in float32 no longer says κ · cosine to a tenth of a nat
MAX_KAPPA = 1e6


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
        if self.floor and self.floor > MAX_FLOOR:
            raise ValueError(f"no variance reaches a floor above {MAX_FLOOR:g} nats a dimension")
        return self


class PointPosteriorConfig(Section):
    """No noise: z is a function of the sentence (an autoencoder); it has no density."""

    kind: Literal["point"]
    bias: bool = False


class VonMisesFisherConfig(Section):
    """A von Mises–Fisher distribution on the unit sphere, of fixed concentration κ."""

    kind: Literal["von-mises-fisher"]
    kappa: Annotated[Positive, Field(le=MAX_KAPPA)] = 13.0
    bias: bool = False


class FlowPosteriorConfig(Section):
    """A Gaussian pushed through ``length`` planar layers, the same for all sentences."""

    kind: Literal["flow"]
    base: GaussianPosteriorConfig = GaussianPosteriorConfig(kind="gaussian")
    length: Size = 3


class GeneratorConfig(Section):
    """Two networks of two hidden layers: what the noise is like, and what is made of it."""

    hidden_dim: Annotated[Size, Field(ge=2)] = 200


class ImplicitPosteriorConfig(Section):
    """z = W·[features; ε] + b, ε ~ N(0, I): samples without a density of their own (iVAE).

    ``hidden_dim`` puts one hidden layer between the two; without it z is Gaussian in fact,
    with the same covariance for every sentence, as in the official code. With a ``generator``
    z = G(ε), ε ~ N(μ(features), diag σ²(features)) instead (DialogWAE).
    """

    kind: Literal["implicit"]
    noise_dim: Size | None = None  # None: as many as z has
    hidden_dim: Size | None = None
    generator: GeneratorConfig | None = None

    @model_validator(mode="after")
    def _one_network(self) -> ImplicitPosteriorConfig:
        if self.hidden_dim is not None and self.generator is not None:
            raise ValueError("hidden_dim is not for a posterior with a generator")
        return self


class RefinedPosteriorConfig(Section):
    """A Gaussian posterior whose parameters are refined by gradient descent on −ELBO (SA-VAE).

    Each sentence descends by itself: the papers' step 1 is on the mean over 32 sentences.
    """

    kind: Literal["refined"]
    base: GaussianPosteriorConfig = GaussianPosteriorConfig(kind="gaussian")
    steps: Size = 20
    learning_rate: Positive = 1 / 32
    momentum: Rate = 0.5
    clip_norm: Positive | None = 30.0  # of a sentence's gradient


class RelaxationConfig(Section):
    """How a sample of a discrete variable gets a gradient: the Gumbel-softmax, in training only.

    The temperature stays, or falls geometrically to ``final`` over ``epochs``. With
    ``straight_through`` the decoder sees a code, and the gradient is that of the relaxed one.
    """

    temperature: Positive = 1.0
    final: Positive | None = None
    epochs: Positive = 10
    straight_through: bool = False


class CategoricalPosteriorConfig(Section):
    """Every unit is one of ``categories`` values, which the decoder sees one-hot."""

    kind: Literal["categorical"]
    categories: Annotated[Size, Field(ge=2)] = 5
    hidden: Literal["relu", "tanh"] | None = None  # a layer before the logits
    relaxation: RelaxationConfig = RelaxationConfig()


class BernoulliPosteriorConfig(Section):
    """Every unit is 0 or 1."""

    kind: Literal["bernoulli"]
    hidden: Literal["relu", "tanh"] | None = None
    relaxation: RelaxationConfig = RelaxationConfig()


class DirichletPosteriorConfig(Section):
    """Every unit is a point of the simplex of ``categories`` corners."""

    kind: Literal["dirichlet"]
    categories: Annotated[Size, Field(ge=2)] = 5
    hidden: Literal["relu", "tanh"] | None = None


class KnownVariancePosteriorConfig(Section):
    """A Gaussian whose mean is read from the sentence, and whose variance is given."""

    kind: Literal["known-variance-gaussian"]
    deviation: Positive = 1.0
    hidden: Literal["relu", "tanh"] | None = None


class FamilyPosteriorConfig(Section):
    """Another exponential family: all of its natural parameters are read from the sentence."""

    kind: Literal["gamma", "beta", "exponential", "poisson"]
    hidden: Literal["relu", "tanh"] | None = None


PosteriorConfig = Annotated[
    GaussianPosteriorConfig
    | PointPosteriorConfig
    | VonMisesFisherConfig
    | FlowPosteriorConfig
    | ImplicitPosteriorConfig
    | RefinedPosteriorConfig
    | CategoricalPosteriorConfig
    | BernoulliPosteriorConfig
    | DirichletPosteriorConfig
    | KnownVariancePosteriorConfig
    | FamilyPosteriorConfig,
    Field(discriminator="kind"),
]
DISCRETE = ("categorical", "bernoulli")
# posteriors that a mixture of their own family can be the prior of
FAMILIES = (
    "gaussian",
    "von-mises-fisher",
    "dirichlet",
    "known-variance-gaussian",
    "gamma",
    "beta",
    "exponential",
    "poisson",
    *DISCRETE,
)
