"""Priors over z, as data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from uncollapse.config.base import Section, Size
from uncollapse.config.condition import PolicyConfig


class StandardNormalConfig(Section):
    """N(0, I)."""

    kind: Literal["standard-normal"] = "standard-normal"


class UniformSphereConfig(Section):
    """The uniform distribution on the unit sphere."""

    kind: Literal["uniform-sphere"]


class ConditionalGaussianConfig(Section):
    """A Gaussian that a network with one hidden layer reads from the context; else N(0, I)."""

    kind: Literal["conditional-gaussian"]
    hidden_dim: Size = 400


class ConditionalImplicitConfig(Section):
    """z = G(ε), ε a Gaussian read from the context, else N(0, I): draws without a density.

    Both networks have two hidden layers. With ``components`` ε is a mixture of so many
    Gaussians, their weights read from the context too (DialogWAE and DialogWAE-GMP).
    """

    kind: Literal["conditional-implicit"]
    hidden_dim: Annotated[Size, Field(ge=2)] = 200
    noise_dim: Size | None = None  # None: as many as z has
    components: Size = 1


class UniformCategoricalConfig(Section):
    """Every code of a discrete latent is as likely; with a ``policy``, without a context only."""

    kind: Literal["uniform-categorical"]
    policy: PolicyConfig | None = None


class MixtureConfig(Section):
    """``groups`` independent mixtures of ``components`` members of the posterior's family.

    Which component, c, is uniform, or has a ``policy`` given a context; a classifier of the
    sentence, ``hidden`` its activation, is its posterior q(c|x). Parameters of the components
    are learned.
    """

    kind: Literal["mixture"]
    components: Annotated[Size, Field(ge=2)] = 5
    hidden: Literal["relu", "tanh"] = "relu"
    policy: PolicyConfig | None = None


PriorConfig = Annotated[
    StandardNormalConfig
    | UniformSphereConfig
    | UniformCategoricalConfig
    | MixtureConfig
    | ConditionalGaussianConfig
    | ConditionalImplicitConfig,
    Field(discriminator="kind"),
]
