"""The Kullback–Leibler divergence of the ELBO."""

from __future__ import annotations

from torch import Tensor

from uncollapse.config import KLConfig
from uncollapse.latents.divergences.base import Divergence
from uncollapse.latents.divergences.free_bits import with_floor
from uncollapse.latents.inference import Inference
from uncollapse.latents.priors import ConditionalGaussian


class KLDivergence(Divergence):
    """KL(q(z|x) ‖ p(z)), with an optional floor (free bits).

    With an anchor, KL(p(z|context) ‖ N(0, I)) besides: so the prior cannot follow a posterior
    that has lost z, which is what keeps the KL of a conditional model up.

    References
    ----------
    Zhu et al. 2020, "A Batch Normalized Inference Network Keeps the KL Vanishing Away",
    section 3.4. Eq. 12 prints the sum of both with −1 where two KLs give −2 a dimension.
    """

    def __init__(self, config: KLConfig) -> None:
        super().__init__()
        self.floor = config.floor
        self.anchor = config.anchor

    def forward(self, inference: Inference) -> Tensor:
        """Nats per sentence, ``(B,)``."""
        kl = with_floor(kl_per_dimension(inference), self.floor)
        if not self.anchor:
            return kl
        assert isinstance(inference.prior, ConditionalGaussian)
        return kl + self.anchor * inference.prior.anchor()


def kl_per_dimension(inference: Inference) -> Tensor:
    """KL(q ‖ p), ``(B, D)``, or ``(B, 1)`` where it does not split over dimensions; nats.

    Under a mixture prior it is that of z and of the component, ``(B, M · U + M)``. Where the two
    have no closed form it is log q(z|x) − log p(z) at the z that the decoder sees: unbiased, and
    it may be negative.
    """
    if inference.log_weights is not None:
        return inference.mixture_kl().per_dimension
    closed = inference.prior.kl(inference.posterior)
    if closed is not None:
        return closed
    z = inference.draw()
    assert inference.log_prob is not None
    return (inference.log_prob - inference.prior.log_prob(z))[:, None]
