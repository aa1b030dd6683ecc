"""Divergences of a posterior from its prior, as data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from uncollapse.config.base import NonNegative, Positive, Section, Size


class FreeBitsConfig(Section):
    """A floor under the divergence: below ``nats`` it exerts no pull.

    ``dimension`` shares ``nats`` out evenly over the dimensions; ``total`` looks at the sum.
    """

    per: Literal["dimension", "total"]
    nats: Positive


class KLConfig(Section):
    """KL(q(z|x) ‖ p(z)) of the z that the decoder sees.

    ``anchor`` times KL(p(z|context) ‖ N(0, I)) is charged besides, without a floor (BN-CVAE).
    """

    kind: Literal["kl"] = "kl"
    floor: FreeBitsConfig | None = None
    anchor: NonNegative = 0.0


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


class WassersteinConfig(Section):
    """``weight`` · (E_q D(z, context) − E_p D(z, context)), D a network (WAE-GAN, DialogWAE).

    D learns to raise the difference, less ``penalty`` · (‖∇D‖ − 1)² of every sentence: what it
    can raise it to is then the Wasserstein-1 distance of posterior and prior.
    """

    kind: Literal["wasserstein"]
    weight: Positive = 1.0
    penalty: Positive = 10.0
    hidden_dim: Size = 600
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
    KLConfig
    | TimestepMeanConfig
    | DualConfig
    | WassersteinConfig
    | MMDConfig
    | AggregatedKLConfig
    | DispersedConfig,
    Field(discriminator="kind"),
]


# divergences that draws from posterior and prior are enough for
SAMPLES_SUFFICE = ("dual", "wasserstein", "mmd")
