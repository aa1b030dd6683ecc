"""Latent variables, as data: a posterior, a prior and a divergence."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from uncollapse.config.base import Section, Size
from uncollapse.config.divergences import (
    SAMPLES_SUFFICE,
    DivergenceConfig,
    KLConfig,
    MMDConfig,
)
from uncollapse.config.posteriors import (
    DISCRETE,
    FAMILIES,
    GaussianPosteriorConfig,
    PosteriorConfig,
)
from uncollapse.config.priors import PriorConfig, StandardNormalConfig


class LatentConfig(Section):
    """One latent variable: what it reads, its posterior, prior and divergence.

    It has ``groups`` times ``dim`` units. Groups matter to a mixture prior, of which each has
    its own; elsewhere they are a way to count.
    """

    groups: Size = 1
    dim: Size = 32  # units of a group
    # `every` word, or, given a context, after every of its `turns`: a posterior a step
    readout: Literal["last", "mean", "max", "abs", "every", "turns"] = "last"
    # how one z is made of a posterior at every step
    combine: Literal["last", "mean", "sum"] = "last"
    posterior: PosteriorConfig = GaussianPosteriorConfig(kind="gaussian")
    prior: PriorConfig = StandardNormalConfig()
    divergence: DivergenceConfig = KLConfig()

    @model_validator(mode="after")
    def _steps(self) -> LatentConfig:
        divergence, posterior = self.divergence.kind, self.posterior.kind
        stepwise = self.readout in ("every", "turns")
        if divergence == "timestep-mean" and not stepwise:
            raise ValueError("divergence timestep-mean needs readout: every or turns")
        if self.combine != "last" and self.readout != "every":
            raise ValueError(f"combine {self.combine} needs readout: every")
        if self.combine != "last" and posterior not in ("gaussian", "point"):
            raise ValueError(f"combine {self.combine} needs a Gaussian posterior")
        if stepwise and posterior not in ("gaussian", "point", "von-mises-fisher"):
            raise ValueError(
                f"posterior {posterior} is one a sentence, not for readout: {self.readout}"
            )
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
        if posterior == "implicit" and divergence not in SAMPLES_SUFFICE:
            raise ValueError(f"posterior implicit has no density for divergence {divergence}")
        if posterior == "point" and divergence == "timestep-mean":
            raise ValueError(f"posterior point has no density for divergence {divergence}")
        charged = self.divergence.kl if isinstance(self.divergence, MMDConfig) else 0
        if posterior in ("implicit", "point") and charged > 0:
            raise ValueError(f"posterior {posterior} has no density for divergence.kl")
        return self

    @model_validator(mode="after")
    def _prior_by_samples(self) -> LatentConfig:
        divergence, posterior, prior = self.divergence.kind, self.posterior.kind, self.prior.kind
        if prior == "conditional-implicit":
            if divergence not in SAMPLES_SUFFICE:
                raise ValueError(f"prior {prior} has no density for divergence {divergence}")
            if isinstance(self.divergence, MMDConfig) and self.divergence.kl > 0:
                raise ValueError(f"prior {prior} has no density for divergence.kl")
            if posterior == "refined":
                raise ValueError(f"prior {prior} has no density for the descent of {posterior}")
        if divergence in SAMPLES_SUFFICE and getattr(self.prior, "policy", None) is not None:
            # a drawn code passes on no gradient
            raise ValueError(f"prior.policy learns nothing from divergence {divergence}")
        return self

    @property
    def has_density(self) -> bool:
        """Whether posterior and prior have one: without, there is neither a KL nor an ELBO."""
        return (
            self.posterior.kind not in ("point", "implicit")
            and self.prior.kind != "conditional-implicit"
        )

    @property
    def conditional(self) -> str | None:
        """The key by which the latent asks for a context, if it does."""
        if self.readout == "turns":
            return "readout turns"
        if self.prior.kind in ("conditional-gaussian", "conditional-implicit"):
            return f"prior {self.prior.kind}"
        return "prior.policy" if self.has_policy else None

    @property
    def has_policy(self) -> bool:
        """Whether a context says how probable the prior's values or components are."""
        return getattr(self.prior, "policy", None) is not None

    @model_validator(mode="after")
    def _anchored(self) -> LatentConfig:
        anchored = isinstance(self.divergence, KLConfig) and self.divergence.anchor > 0
        if anchored and self.prior.kind != "conditional-gaussian":
            raise ValueError("divergence.anchor needs prior conditional-gaussian")
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
        if self.readout in ("every", "turns"):
            raise ValueError(
                f"prior mixture needs one posterior a sentence, not readout: {self.readout}"
            )
        return self
