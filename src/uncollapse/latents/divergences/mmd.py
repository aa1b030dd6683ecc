"""Maximum mean discrepancy between aggregate posterior and prior (WAE), with RNF's regulariser."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from uncollapse.config import MMDConfig
from uncollapse.distributions.transformed import Transformed
from uncollapse.latents.divergences.base import Divergence
from uncollapse.latents.divergences.clusters import RunningClusters
from uncollapse.latents.divergences.kl import kl_per_dimension
from uncollapse.latents.inference import Inference
from uncollapse.latents.processes import rows_of_all_processes

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

Kernel = Callable[[Tensor, int], Tensor]


class MMD(Divergence):
    """weight · MMD²(q(z), p(z)) + kl · KL(q(z|x) ‖ p(z)) + curvature · log β(z).

    The first term is the batch's, the same for each of its sentences: an unbiased estimate of
    what q(z) = E_x q(z|x) and the prior differ by, whatever the size of the batch, hence at
    times negative. A sentence alone has no estimate, and gets 0. It is no bound on a KL: an
    objective with it is no bound either.

    The last is the Riemannian regulariser. The latent space has a metric β, large near the
    centres of the codes' clusters, and a code pays the logarithm of the metric where it stands,
    so codes spread. A flow pays at the input of every layer.

    Parameters
    ----------
    config : MMDConfig
        Kernel, weights, and the number of centres.
    dim : int
        D.

    References
    ----------
    Tolstikhin et al. 2018, "Wasserstein Auto-Encoders", Algorithm 2 and section 4 (MMD and
    kernel); Wang & Wang 2019, "Riemannian Normalizing Flow on Variational Wasserstein
    Autoencoder for Text Modeling" (weights and regulariser, as in the official code).
    """

    needs_density = False

    def __init__(self, config: MMDConfig, dim: int) -> None:
        super().__init__()
        self.weight = config.weight
        self.kl = config.kl
        self.curvature = config.curvature
        self.kernel = KERNELS[config.kernel]
        self.clusters = RunningClusters(config.centers, dim) if config.curvature else None

    def forward(self, inference: Inference) -> Tensor:
        """Nats per sentence, ``(B,)``; only its mean over the batch means something."""
        z = inference.draw()  # (B, D)
        with torch.autocast(z.device.type, enabled=False):
            total = torch.zeros_like(z[:, 0])
            points = rows_of_all_processes(z)
            if len(points) > 1:
                other = rows_of_all_processes(inference.prior.rsample(len(z)).to(z))
                total = total + self.weight * squared_mmd(points, other, self.kernel)
            if self.kl:
                total = total + self.kl * kl_per_dimension(inference).sum(-1)
            if self.clusters is not None:
                total = total + self.curvature * self._log_metric(inference, self.clusters)
        return total

    def _log_metric(self, inference: Inference, clusters: RunningClusters) -> Tensor:
        """log β, summed over the layers of a flow, ``(B,)``."""
        z, posterior = inference.draw(), inference.posterior
        points = posterior.flow.inputs(z) if isinstance(posterior, Transformed) else [z]
        if self.training:
            clusters.update(points[0].detach())
        total = torch.zeros_like(z[:, 0])
        for point in points:
            distance = clusters.distance(point)
            known = distance.isfinite()  # not before the first training batch
            metric = inverse_multiquadratic(distance.masked_fill(~known, 0), z.shape[1])
            total = total + metric.log().masked_fill(~known, 0)
        return total


def squared_mmd(x: Tensor, y: Tensor, kernel: Kernel) -> Tensor:
    """Unbiased MMD² between the distributions of two samples, scalar.

    Parameters
    ----------
    x, y : Tensor
        ``(N, D)`` each, N ≥ 2, independent of one another.
    kernel : callable
        Of squared distances and D.

    References
    ----------
    Gretton et al. 2012, "A Kernel Two-Sample Test", eq. 3.
    """
    count, dim = x.shape

    def within(points: Tensor) -> Tensor:
        similarity = kernel(_squared_distances(points, points), dim)
        return (similarity.sum() - similarity.trace()) / (count * (count - 1))

    return within(x) + within(y) - 2 * kernel(_squared_distances(x, y), dim).mean()


def inverse_multiquadratic(squared: Tensor, dim: int) -> Tensor:
    """Σ_s C_s / (C_s + ‖x − y‖²), C_s = 2Ds: 2D is what the prior's draws are apart."""
    return torch.stack([1 / (1 + squared / (2 * dim * scale)) for scale in SCALES]).sum(0)


def gaussian(squared: Tensor, dim: int) -> Tensor:
    """exp(−10 ‖x − y‖² / D²), the width of the official code: narrower in few dimensions."""
    return torch.exp(-10 * squared / dim**2)


KERNELS: dict[str, Kernel] = {
    "inverse-multiquadratic": inverse_multiquadratic,
    "gaussian": gaussian,
}


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """``(N, M)`` between the rows of two samples, by a matrix product."""
    squares = x.square().sum(1)[:, None] + y.square().sum(1)
    return (squares - 2 * x @ y.t()).clamp(min=0)
