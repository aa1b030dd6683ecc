"""Divergences: what the objective penalises of a posterior, per sentence and dimension."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from uncollapse.config import DivergenceConfig
from uncollapse.latents.divergences.aggregated_kl import AggregatedKL
from uncollapse.latents.divergences.base import Divergence
from uncollapse.latents.divergences.dispersed import Dispersed
from uncollapse.latents.divergences.dual import DualDivergence
from uncollapse.latents.divergences.kl import KLDivergence
from uncollapse.latents.divergences.mmd import MMD
from uncollapse.latents.divergences.timestep_mean import TimestepMean

# each takes its configuration, the width H of the features and the dimensions D
KINDS: dict[str, Callable[[Any, int, int], Divergence]] = {
    "kl": lambda config, _features, _dim: KLDivergence(config),
    "timestep-mean": lambda config, _features, _dim: TimestepMean(config),
    "dual": DualDivergence,
    "mmd": lambda config, _features, dim: MMD(config, dim),
    "aggregated-kl": lambda _config, _features, _dim: AggregatedKL(),
    "dispersed": lambda config, _features, _dim: Dispersed(config),
}

__all__ = [
    "KINDS",
    "MMD",
    "AggregatedKL",
    "Dispersed",
    "Divergence",
    "DualDivergence",
    "KLDivergence",
    "TimestepMean",
    "build_divergence",
]


def build_divergence(config: DivergenceConfig, feature_dim: int, dim: int) -> Divergence:
    """Build the divergence that a recipe names."""
    return KINDS[config.kind](config, feature_dim, dim)
