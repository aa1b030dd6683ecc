"""Who learns when. A strategy owns the optimisers; a recipe names it under ``strategy.kind``."""

from __future__ import annotations

from uncollapse.config import Recipe
from uncollapse.strategies.base import Strategy
from uncollapse.strategies.joint import Joint

STRATEGIES: dict[str, type[Joint]] = {"joint": Joint}


def build_strategy(recipe: Recipe) -> Strategy:
    """The strategy that a recipe names, with the recipe's optimisation settings."""
    return STRATEGIES[recipe.strategy.kind](recipe.training)
