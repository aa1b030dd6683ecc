"""The KL of what a batch's posteriors of a discrete variable are on average."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from uncollapse.latents.discrete import unit_log_probs
from uncollapse.latents.divergences.base import Divergence
from uncollapse.latents.inference import Inference
from uncollapse.latents.processes import over_processes


class AggregatedKL(Divergence):
    """KL(q̄(c) ‖ p(c)) summed over units, q̄ the mean of q(c|x) over the batch.

    It is the mean KL of the batch less the mutual information of sentence and code, L_mi: what
    c says of the sentence costs nothing. The same number for each sentence, and no bound.

    References
    ----------
    Zhao et al. 2018, "Unsupervised Discrete Sentence Representation Learning for Interpretable
    Neural Dialog Generation", eq. 6 (DI-VAE).
    """

    def forward(self, inference: Inference) -> Tensor:
        """Nats per sentence, ``(B,)``."""
        log_probs = unit_log_probs(inference.posterior)
        assert log_probs is not None
        return aggregated_kl(log_probs).sum().expand(len(log_probs))


def aggregated_kl(log_probs: Tensor) -> Tensor:
    """KL of the batch mean of ``(B, M, K)`` log-probabilities from uniform, ``(M,)``, nats.

    The batch is that of all processes; gradients reach the sentences of this one.
    """
    total = over_processes(log_probs.exp().sum(0))  # (M, K)
    mean = total / over_processes(total.new_full((), len(log_probs)))
    # values that nobody uses: 0 · ln 0 is 0, and must have no infinite gradient
    log_mean = mean.clamp(min=torch.finfo(mean.dtype).tiny).log()
    return (mean * (log_mean + math.log(mean.shape[-1]))).sum(-1)
