"""Who learns when. A strategy owns the optimisers; a recipe names it under ``strategy.kind``."""

from __future__ import annotations

from uncollapse.strategies.base import Learner, Pass, Strategy
from uncollapse.strategies.stages import STAGES, Stage, build_stages

__all__ = ["STAGES", "Learner", "Pass", "Stage", "Strategy", "build_stages"]
