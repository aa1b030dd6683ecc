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
from uncollapse.latents.divergences.wasserstein import Wasserstein

# each takes its configuration, the width H of the features, the dimensions D, and the width C
# of a context's vector
KINDS: dict[str, Callable[[Any, int, int, int], Divergence]] = {
    "kl": lambda config, *_: KLDivergence(config),
    "timestep-mean": lambda config, *_: TimestepMean(config),
    "dual": DualDivergence,
    "wasserstein": lambda config, _, dim, condition: Wasserstein(config, dim, condition),
    "mmd": lambda config, _, dim, _condition: MMD(config, dim),
    "aggregated-kl": lambda *_: AggregatedKL(),
    "dispersed": lambda config, *_: Dispersed(config),
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
    "Wasserstein",
    "build_divergence",
]


def build_divergence(
    config: DivergenceConfig, feature_dim: int, dim: int, condition_dim: int = 0
) -> Divergence:
    """Build the divergence that a recipe names; ``condition_dim`` is C, 0 without contexts."""
    return KINDS[config.kind](config, feature_dim, dim, condition_dim)
