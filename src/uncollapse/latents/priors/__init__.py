"""Priors over z."""

from __future__ import annotations

from uncollapse.config import StandardNormalConfig
from uncollapse.latents.priors.base import Prior
from uncollapse.latents.priors.standard_normal import StandardNormal

KINDS = {"standard-normal": StandardNormal}

__all__ = ["KINDS", "Prior", "StandardNormal", "build_prior"]


def build_prior(config: StandardNormalConfig, dim: int) -> Prior:
    """Build the prior that a recipe names."""
    return KINDS[config.kind](dim)
