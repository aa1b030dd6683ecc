"""Latent variables, as data: a posterior, a prior and a divergence."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from uncollapse.config.base import NonNegative, Positive, Section, Size
from uncollapse.config.posteriors import (
    DISCRETE,
    FAMILIES,
    GaussianPosteriorConfig,
    PosteriorConfig,
)


class StandardNormalConfig(Section):
    """N(0, I)."""

    kind: Literal["standard-normal"] = "standard-normal"


class UniformSphereConfig(Section):
    """The uniform distribution on the unit sphere."""

    kind: Literal["uniform-sphere"]


class UniformCategoricalConfig(Section):
    """Every code of a discrete latent is as likely."""

    kind: Literal["uniform-categorical"]


class MixtureConfig(Section):
    """``groups`` independent mixtures of ``components`` members of the posterior's family.

    Which component, c, is uniform; a classifier of the sentence, ``hidden`` its activation,
    is its posterior q(c|x). Parameters of the components are learned.
    """

    kind: Literal["mixture"]
    components: Annotated[Size, Field(ge=2)] = 5
    hidden: Literal["relu", "tanh"] = "relu"


PriorConfig = Annotated[
    StandardNormalConfig | UniformSphereConfig | UniformCategoricalConfig | MixtureConfig,
    Field(discriminator="kind"),
]


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


class AggregatedKLConfig(Section):
    """KL(q̄(c) ‖ p(c)) of the mean q̄ of a batch's posteriors of a discrete latent (DI-VAE)."""

    kind: Literal["aggregated-kl"]


class MixtureFloorConfig(Section):
    """Free bits of a mixture, nats, shared out evenly over the groups: of z and of c."""

    z: Positive
    component: Positive


class DispersedConfig(Section):
    """KL(q(c|x) ‖ p(c)) + KL(q(z|x) ‖ averaged prior) + (1 − beta) · dispersion (DEM-VAE).

    ``beta`` 0 is the plain mixture. ``mutual_information`` adds L_mi: of c only the KL of the
    batch's mean posterior is charged.
    """

    kind: Literal["dispersed"]
    beta: Annotated[NonNegative, Field(le=1)] = 0.0
    mutual_information: bool = False
    floor: MixtureFloorConfig | None = None


DivergenceConfig = Annotated[
    KLConfig | TimestepMeanConfig | DualConfig | MMDConfig | AggregatedKLConfig | DispersedConfig,
    Field(discriminator="kind"),
]


class LatentConfig(Section):
    """One latent variable: what it reads, its posterior, prior and divergence.

    It has ``groups`` times ``dim`` units. Groups matter to a mixture prior, of which each has
    its own; elsewhere they are a way to count.
    """

    groups: Size = 1
    dim: Size = 32  # units of a group
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
        if self.readout == "every" and posterior not in ("gaussian", "point", "von-mises-fisher"):
            raise ValueError(f"posterior {posterior} is one a sentence, not for readout: every")
        return self

    @model_validator(mode="after")
    def _supports(self) -> LatentConfig:
        divergence, posterior, prior = self.divergence.kind, self.posterior.kind, self.prior.kind
        if (posterior == "von-mises-fisher") != (prior == "uniform-sphere") and prior != "mixture":
            raise ValueError("von-mises-fisher and uniform-sphere live on the sphere together")
        if posterior == "von-mises-fisher" and self.groups * self.dim < 2:
            raise ValueError("a sphere needs dim 2 or more")
        floor = getattr(self.divergence, "floor", None)
        if floor is not None and posterior in ("flow", "von-mises-fisher") and prior != "mixture":
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

    @model_validator(mode="after")
    def _discrete(self) -> LatentConfig:
        divergence, posterior, prior = self.divergence.kind, self.posterior.kind, self.prior.kind
        if (posterior in DISCRETE) != (prior == "uniform-categorical") and prior != "mixture":
            if posterior in DISCRETE:
                raise ValueError(
                    f"posterior {posterior} needs prior uniform-categorical or mixture, not {prior}"
                )
            if prior == "uniform-categorical":
                raise ValueError(f"prior uniform-categorical is for codes, not for {posterior}")
        if divergence == "aggregated-kl" and prior != "uniform-categorical":
            raise ValueError("divergence aggregated-kl needs prior uniform-categorical")
        return self

    @model_validator(mode="after")
    def _mixture(self) -> LatentConfig:
        divergence, posterior, prior = self.divergence.kind, self.posterior.kind, self.prior.kind
        if divergence == "dispersed" and prior != "mixture":
            raise ValueError("divergence dispersed needs prior mixture")
        if prior != "mixture":
            if posterior in set(FAMILIES) - {"gaussian", "von-mises-fisher", *DISCRETE}:
                raise ValueError(f"posterior {posterior} needs prior mixture")
            return self
        if posterior not in FAMILIES:
            raise ValueError(f"prior mixture is no prior for a {posterior} posterior")
        if divergence not in ("kl", "dispersed"):
            raise ValueError(f"prior mixture needs divergence kl or dispersed, not {divergence}")
        if isinstance(self.divergence, KLConfig) and self.divergence.floor is not None:
            raise ValueError("the floor of a mixture is that of divergence dispersed")
        if posterior == "von-mises-fisher" and self.groups > 1:
            raise ValueError("a von-mises-fisher latent has one sphere: groups must be 1")
        if self.readout == "every":
            raise ValueError("prior mixture needs one posterior a sentence, not readout: every")
        return self
