"""One latent variable of a model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uncollapse.config import LatentConfig
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.encoders import Encoded
from uncollapse.latents.divergences import build_divergence
from uncollapse.latents.inference import Inference
from uncollapse.latents.posteriors import build_posterior
from uncollapse.latents.priors import build_prior
from uncollapse.readouts import KINDS as READOUTS


class Latent(nn.Module):
    """z: read from the encoder, drawn, and held against its prior.

    Parameters
    ----------
    config : LatentConfig
        The pieces.
    feature_dim : int
        Width of the encoder's states, H.
    """

    def __init__(self, config: LatentConfig, feature_dim: int) -> None:
        super().__init__()
        self.dim = config.dim
        self.readout = READOUTS[config.readout]
        self.combine = COMBINE[config.combine]
        self.posterior = build_posterior(config.posterior, feature_dim, config.dim)
        self.prior = build_prior(config.prior, config.dim)
        self.divergence = build_divergence(config.divergence)

    @property
    def has_density(self) -> bool:
        """Whether q(z|x) has one: without, there is no KL and no likelihood."""
        return self.posterior.has_density

    def infer(self, encoded: Encoded) -> Inference:
        """The posterior of every sentence of a batch."""
        # under automatic mixed precision the states are bf16; densities are not
        with torch.autocast(encoded.states.device.type, enabled=False):
            features = self.readout(encoded).float()
            if features.dim() == 2:  # (B, H)
                return Inference(self.posterior(features))
            steps = self.posterior(features, encoded.mask)  # (B, T, D)
            return Inference(self.combine(steps, encoded.mask), steps, encoded.mask)

    def penalty(self, inference: Inference) -> Tensor:
        """What the objective charges, nats per sentence, ``(B,)``."""
        return self.divergence(inference, self.prior)

    def kl(self, inference: Inference) -> Tensor:
        """KL(q ‖ p) of the z that the decoder sees, per dimension, ``(B, D)``."""
        return self.prior.kl(inference.posterior)


def _last(steps: DiagonalGaussian, mask: Tensor) -> DiagonalGaussian:
    rows = torch.arange(mask.shape[0], device=mask.device)
    last = mask.sum(1) - 1  # (B,)
    return DiagonalGaussian(steps.mean[rows, last], steps.log_variance[rows, last])


def _sum(steps: DiagonalGaussian, mask: Tensor) -> DiagonalGaussian:
    """The sum of independent Gaussians is one: means and variances add."""
    padding = ~mask[:, :, None]
    mean = steps.mean.masked_fill(padding, 0).sum(1)  # (B, D)
    log_variance = steps.log_variance.masked_fill(padding, -torch.inf).logsumexp(1)
    return DiagonalGaussian(mean, log_variance)


def _mean(steps: DiagonalGaussian, mask: Tensor) -> DiagonalGaussian:
    total = _sum(steps, mask)
    length = mask.sum(1, keepdim=True).to(total.mean.dtype)  # (B, 1)
    return DiagonalGaussian(total.mean / length, total.log_variance - 2 * length.log())


COMBINE = {"last": _last, "mean": _mean, "sum": _sum}
