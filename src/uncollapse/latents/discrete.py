"""Discrete variables: the units of latents whose family has finitely many values."""

from __future__ import annotations

from torch import Tensor

from uncollapse.distributions.base import Distribution
from uncollapse.distributions.exponential import FiniteFamily, Member


def unit_log_probs(posterior: Distribution) -> Tensor | None:
    """Log-probabilities of the values of every unit, ``(B, U, V)``; None unless discrete."""
    if isinstance(posterior, Member) and isinstance(posterior.family, FiniteFamily):
        return posterior.family.log_probs(posterior.natural)
    return None
