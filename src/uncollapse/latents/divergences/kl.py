"""The Kullback–Leibler divergence of the ELBO."""

from __future__ import annotations

from torch import Tensor

from uncollapse.config import KLConfig
from uncollapse.latents.divergences.base import Divergence
from uncollapse.latents.divergences.free_bits import with_floor
from uncollapse.latents.inference import Inference
from uncollapse.latents.priors import Prior


class KLDivergence(Divergence):
    """KL(q(z|x) ‖ p(z)), with an optional floor (free bits)."""

    def __init__(self, config: KLConfig) -> None:
        super().__init__()
        self.floor = config.floor

    def forward(self, inference: Inference, prior: Prior) -> Tensor:
        """Nats per sentence, ``(B,)``."""
        return with_floor(kl_per_dimension(inference, prior), self.floor)


def kl_per_dimension(inference: Inference, prior: Prior) -> Tensor:
    """KL(q ‖ p), ``(B, D)``, or ``(B, 1)`` where it does not split over dimensions; nats.

    Under a mixture prior it is that of z and of the component, ``(B, M · U + M)``. Where the two
    have no closed form it is log q(z|x) − log p(z) at the z that the decoder sees: unbiased, and
    it may be negative.
    """
    if inference.log_weights is not None:
        return inference.mixture_kl(prior).per_dimension
    closed = prior.kl(inference.posterior)
    if closed is not None:
        return closed
    z = inference.draw()
    assert inference.log_prob is not None
    return (inference.log_prob - prior.log_prob(z))[:, None]
