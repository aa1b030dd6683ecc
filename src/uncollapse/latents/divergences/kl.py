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
        self.floor = config.floor

    def __call__(self, inference: Inference, prior: Prior) -> Tensor:
        """Nats per sentence, ``(B,)``."""
        return with_floor(prior.kl(inference.posterior), self.floor)
