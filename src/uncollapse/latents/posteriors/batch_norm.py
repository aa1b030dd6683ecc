"""Batch normalisation of posterior means, over real positions and over all processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uncollapse.latents.processes import over_processes


class MeanBatchNorm(nn.Module):
    """Normalise posterior means so that their variance over the data is scale².

    Hence E[KL] ≥ dim · (scale² + shift²) / 2 in training: the KL cannot vanish.
    The scale γ is frozen, the shift is learned.

    PyTorch's own batch norm knows neither masks nor, on the CPU, several processes.

    References
    ----------
    Zhu et al. 2020, "A Batch Normalized Inference Network Keeps the KL Vanishing Away",
    section 3.2, eq. 6.

    Parameters
    ----------
    dim : int
        Latent dimensions D.
    scale : float
        γ.
    """

    epsilon = 1e-5
    momentum = 0.1
    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, dim: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.shift = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_variance", torch.ones(dim))
        self._sums: Tensor | None = None

    def forward(self, means: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalise ``(..., D)``; where ``mask`` ``(...)`` is False, positions do not count."""
        if self.training:
            mean, variance = self._batch_statistics(means, mask)
        else:
            if self._sums is not None:
                self._sums += _sums(means.double(), mask)
            mean, variance = self.running_mean, self.running_variance
        normal = (means - mean) * torch.rsqrt(variance + self.epsilon)
        return self.scale * normal + self.shift

    def _batch_statistics(self, means: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        sums = over_processes(_sums(means, mask))  # (3, D)
        count = sums[0]
        if count[0] < 2:  # one position has no variance: an epoch's leftover sentence
            return self.running_mean, self.running_variance
        mean = sums[1] / count
        # a second pass over the values: E[x²] - E[x]² cancels when the spread is small
        variance = over_processes(_sums(means - mean, mask))[2] / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_variance.lerp_(variance * count / (count - 1), self.momentum)
        return mean, variance

    def start_recalibration(self) -> None:
        """Begin to gather the statistics of a whole corpus, in evaluation mode."""
        self._sums = torch.zeros(3, self.shift.numel(), dtype=torch.float64).to(self.shift.device)

    def finish_recalibration(self) -> None:
        """Put the statistics gathered by all processes in place of the moving averages."""
        assert self._sums is not None
        count, total, squares = over_processes(self._sums)
        mean = total / count
        self.running_mean.copy_(mean)
        self.running_variance.copy_(squares / count - mean.square())
        self._sums = None


def _sums(values: Tensor, mask: Tensor | None) -> Tensor:
    """Count, sum and sum of squares over all real positions, ``(3, D)``."""
    dim = values.shape[-1]
    if mask is None:
        flat = values.reshape(-1, dim)
        count = values.new_full((dim,), flat.shape[0])
    else:
        flat = values.masked_fill(~mask[..., None], 0).reshape(-1, dim)
        count = mask.sum().to(values.dtype).expand(dim)
    return torch.stack([count, flat.sum(0), flat.square().sum(0)])
