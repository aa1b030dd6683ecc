"""Divergences: what the objective penalises of a posterior, per sentence and dimension."""

from __future__ import annotations

from uncollapse.config import DivergenceConfig
from uncollapse.latents.divergences.base import Divergence
from uncollapse.latents.divergences.kl import KLDivergence
from uncollapse.latents.divergences.timestep_mean import TimestepMean

KINDS = {"kl": KLDivergence, "timestep-mean": TimestepMean}

__all__ = ["KINDS", "Divergence", "KLDivergence", "TimestepMean", "build_divergence"]


def build_divergence(config: DivergenceConfig) -> Divergence:
    """Build the divergence that a recipe names."""
    return KINDS[config.kind](config)  # type: ignore[arg-type]
