"""Cluster centres of a stream of codes, and how near a code is to them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uncollapse.latents.processes import rows_of_all_processes

DECAY = 0.99  # centres remember about a hundred batches: codes move while the encoder learns
EMPTY = 0.1  # a centre with less than this share of its due is put somewhere else


class RunningClusters(nn.Module):
    """k-means over batches: every centre is the fading mean of the codes that it was nearest to.

    A centre that has lost its codes, as all have before the first batch, one a batch, restarts
    at the code that is farthest from all others. Centres are buffers, part of a checkpoint.

    Parameters
    ----------
    count, dim : int
        K centres of D dimensions.

    References
    ----------
    van den Oord et al. 2017, "Neural Discrete Representation Learning", appendix A.1 (fading
    means); Dhariwal et al. 2020, "Jukebox", section 3.1 (restarts).
    """

    centers: Tensor
    sizes: Tensor

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("centers", torch.zeros(count, dim))
        self.register_buffer("sizes", torch.zeros(count))  # codes a batch; 0: not placed yet

    def distance(self, z: Tensor) -> Tensor:
        """Squared distance of ``(B, D)`` to the nearest centre, ``(B,)``; infinite without any."""
        return self._distances(z).amin(1)

    @torch.no_grad()
    def update(self, z: Tensor) -> None:
        """Take in a batch of codes ``(B, D)``; of several processes, each takes in those of all."""
        z = rows_of_all_processes(z)
        share = len(z) / len(self.sizes)
        weakest = self.sizes.argmin(keepdim=True)  # (1,)
        empty = self.sizes[weakest] < EMPTY * share
        farthest = z[self.distance(z).argmax(0, keepdim=True)].to(self.centers)  # (1, D)
        self.centers[weakest] = torch.where(empty[:, None], farthest, self.centers[weakest])
        # so light that it soon stands amid its codes, and is moved again if it has none
        self.sizes[weakest] = self.sizes[weakest].masked_fill(empty, EMPTY * share)

        nearest = F.one_hot(self._distances(z).argmin(1), len(self.sizes)).to(self.centers)
        kept, new = DECAY * self.sizes, (1 - DECAY) * nearest.sum(0)  # (K,)
        total = (1 - DECAY) * nearest.t() @ z.to(self.centers) + kept[:, None] * self.centers
        self.sizes.copy_(kept + new)
        # a centre that is not placed has no size to divide by
        self.centers.copy_(total / self.sizes[:, None].clamp(min=torch.finfo(total.dtype).tiny))

    def _distances(self, z: Tensor) -> Tensor:
        """``(B, K)``; infinite for a centre that is not placed."""
        between = z[:, None] - self.centers.to(z)  # (B, K, D)
        return between.square().sum(-1).masked_fill(self.sizes == 0, torch.inf)
