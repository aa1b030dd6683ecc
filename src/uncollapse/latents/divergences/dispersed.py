"""The divergence of DEM-VAE: the KL to a mixture, with its dispersion charged in part."""

from __future__ import annotations

from torch import Tensor

from uncollapse.config import DispersedConfig
from uncollapse.latents.divergences.aggregated_kl import aggregated_kl
from uncollapse.latents.divergences.base import Divergence
from uncollapse.latents.inference import Inference


class Dispersed(Divergence):
    """KL(q(c|x) ‖ p(c)) + KL(q(z|x) ‖ averaged prior) + (1 − β) L_d.

    With β = 0 this is the KL of the ELBO. L_d is what pulls components together; β is how much
    of it is not charged, and the objective with β > 0 is no bound. With ``mutual_information``
    the first term is that of the batch's mean posterior: L_mi is added to the objective, which
    is no bound either.

    References
    ----------
    Shi et al. 2020, "Dispersed Exponential Family Mixture VAEs for Interpretable Text
    Generation", eqs. 9 and 10. The official code multiplies L_d by its own β, 1 − β here.

    Parameters
    ----------
    config : DispersedConfig
        A ``floor`` is for the whole KL of z of a group, and for that of its component.
    """

    def __init__(self, config: DispersedConfig) -> None:
        super().__init__()
        self.charged = 1 - config.beta
        self.mutual_information = config.mutual_information
        self.floor = config.floor

    def forward(self, inference: Inference) -> Tensor:
        """Nats per sentence, ``(B,)``."""
        parts = inference.mixture_kl()
        component = parts.component  # (B, M)
        if self.mutual_information:
            assert inference.log_weights is not None
            component = aggregated_kl(inference.log_weights).expand_as(component)
        z = (parts.average + self.charged * parts.dispersion).sum(-1)  # (B, M)
        if self.floor is not None:
            groups = component.shape[1]
            z = z.clamp(min=self.floor.z / groups)
            component = component.clamp(min=self.floor.component / groups)
        return (component + z).sum(1)
