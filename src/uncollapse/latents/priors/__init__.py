"""Priors over z."""

from __future__ import annotations

from collections.abc import Callable

from uncollapse.config import PriorConfig
from uncollapse.latents.priors.base import Prior
from uncollapse.latents.priors.standard_normal import StandardNormal
from uncollapse.latents.priors.uniform_sphere import UniformSphere

KINDS: dict[str, Callable[[int], Prior]] = {
    "standard-normal": StandardNormal,
    "uniform-sphere": UniformSphere,
}

__all__ = ["KINDS", "Prior", "StandardNormal", "UniformSphere", "build_prior"]


def build_prior(config: PriorConfig, dim: int) -> Prior:
    """Build the prior that a recipe names."""
    return KINDS[config.kind](dim)
