"""Discrete variables: codes of latents, and the components of mixtures."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from uncollapse.distributions.base import Distribution
from uncollapse.distributions.exponential import Member
from uncollapse.distributions.families import Bernoulli, Categorical


def unit_log_probs(posterior: Distribution) -> Tensor | None:
    """Log-probabilities of the values of every unit, ``(B, U, V)``; None unless discrete."""
    if not isinstance(posterior, Member):
        return None
    natural = posterior.natural  # (B, U, P)
    if isinstance(posterior.family, Categorical):
        return posterior.family.logits(natural).log_softmax(-1)
    if isinstance(posterior.family, Bernoulli):
        return torch.cat([F.logsigmoid(-natural), F.logsigmoid(natural)], -1)
    return None
