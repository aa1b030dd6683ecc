"""Latent variables, as data: posterior, prior and divergence."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from uncollapse.config.base import NonNegative, Positive, Rate, Section, Size

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


class ImplicitPosteriorConfig(Section):
    """z = W·[features; ε] + b, ε ~ N(0, I): samples without a density of their own (iVAE).

    ``hidden_dim`` puts one hidden layer between the two; without it z is Gaussian in fact,
    with the same covariance for every sentence, as in the official code.
    """

    kind: Literal["implicit"]
    noise_dim: Size | None = None  # None: as many as z has
    hidden_dim: Size | None = None


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


PosteriorConfig = Annotated[
    GaussianPosteriorConfig
    | PointPosteriorConfig
    | VonMisesFisherConfig
    | FlowPosteriorConfig
    | ImplicitPosteriorConfig
    | RefinedPosteriorConfig,
    Field(discriminator="kind"),
]


class StandardNormalConfig(Section):
    """N(0, I)."""

    kind: Literal["standard-normal"] = "standard-normal"


class UniformSphereConfig(Section):
    """The uniform distribution on the unit sphere."""

    kind: Literal["uniform-sphere"]


PriorConfig = Annotated[StandardNormalConfig | UniformSphereConfig, Field(discriminator="kind")]


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


class CriticConfig(Section):
    """How the network of a divergence learns, before every step of the others."""

    steps: Size = 5
    learning_rate: Positive = 1e-5


class DualConfig(Section):
    """KL(q ‖ p) in its dual form, sup_ν E_q ν − E_p exp ν + 1, ν a network (iVAE).

    ``of``: the posterior of every sentence (``conditional``) or the aggregate posterior
    (``aggregate``, iVAE_MI).
    """

    kind: Literal["dual"]
    of: Literal["conditional", "aggregate"] = "conditional"
    hidden_dim: Size = 512
    critic: CriticConfig = CriticConfig()


class MMDConfig(Section):
    """Maximum mean discrepancy between the aggregate posterior and the prior (WAE).

    ``weight`` is its own, ``kl`` that of every sentence's KL beside it (0 in a WAE), and
    ``curvature`` that of RNF's regulariser: codes pay for being near one of the ``centers`` of
    their clusters.
    """

    kind: Literal["mmd"]
    kernel: Literal["inverse-multiquadratic", "gaussian"] = "inverse-multiquadratic"
    weight: Positive = 10.0
    kl: NonNegative = 0.0
    curvature: NonNegative = 0.0
    centers: Size = 20


DivergenceConfig = Annotated[
    KLConfig | TimestepMeanConfig | DualConfig | MMDConfig, Field(discriminator="kind")
]


class LatentConfig(Section):
    """One latent variable: what it reads, its posterior, prior and divergence."""

    dim: Size = 32
    readout: Literal["last", "mean", "max", "abs", "every"] = "last"
    # how one z is made of a posterior at every step
    combine: Literal["last", "mean", "sum"] = "last"
    posterior: PosteriorConfig = GaussianPosteriorConfig(kind="gaussian")
    prior: PriorConfig = StandardNormalConfig()
    divergence: DivergenceConfig = KLConfig()

    @model_validator(mode="after")
    def _steps(self) -> LatentConfig:
        divergence, posterior = self.divergence.kind, self.posterior.kind
        if divergence == "timestep-mean" and self.readout != "every":
            raise ValueError("divergence timestep-mean needs readout: every")
        if self.combine != "last" and self.readout != "every":
            raise ValueError(f"combine {self.combine} needs readout: every")
        if self.combine != "last" and posterior not in ("gaussian", "point"):
            raise ValueError(f"combine {self.combine} needs a Gaussian posterior")
        if self.readout == "every" and posterior in ("refined", "implicit", "flow"):
            raise ValueError(f"posterior {posterior} cannot have one at every step")
        return self

    @model_validator(mode="after")
    def _supports(self) -> LatentConfig:
        divergence, posterior, prior = self.divergence.kind, self.posterior.kind, self.prior.kind
        if (posterior == "von-mises-fisher") != (prior == "uniform-sphere"):
            raise ValueError("von-mises-fisher and uniform-sphere live on the sphere together")
        if prior == "uniform-sphere" and self.dim < 2:
            raise ValueError("a sphere needs dim 2 or more")
        floor = getattr(self.divergence, "floor", None)
        if floor is not None and posterior in ("flow", "von-mises-fisher"):
            why = "is a constant" if posterior == "von-mises-fisher" else "is known by a draw alone"
            raise ValueError(f"divergence.floor: the KL of a {posterior} posterior {why}")
        if posterior == "implicit" and divergence not in ("dual", "mmd"):
            raise ValueError(f"posterior implicit has no density for divergence {divergence}")
        if posterior == "point" and divergence == "timestep-mean":
            raise ValueError(f"posterior point has no density for divergence {divergence}")
        charged = self.divergence.kl if isinstance(self.divergence, MMDConfig) else 0
        if posterior in ("implicit", "point") and charged > 0:
            raise ValueError(f"posterior {posterior} has no density for divergence.kl")
        return self
