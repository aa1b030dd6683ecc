"""Free bits: a floor below which a divergence exerts no pull."""

from __future__ import annotations

from torch import Tensor

from uncollapse.config import FreeBitsConfig


def with_floor(divergence: Tensor, floor: FreeBitsConfig | None) -> Tensor:
    """Sum a divergence ``(B, D)`` to ``(B,)``, with a floor per dimension or in total.

    max(λ, KL) has the gradient of the masks KL·1[KL > λ] in the code of Li et al. 2019, and
    is continuous. Each sentence has its own floor; batch means have none.

    References
    ----------
    Kingma et al. 2016, "Improved Variational Inference with Inverse Autoregressive Flow",
    eq. 13; Li et al. 2019, "A Surprisingly Effective Fix for Deep Latent Variable Modeling
    of Text".
    """
    if floor is None:
        return divergence.sum(-1)
    if floor.per == "dimension":
        return divergence.clamp(min=floor.nats / divergence.shape[-1]).sum(-1)
    return divergence.sum(-1).clamp(min=floor.nats)
