"""Objectives: the one place that weighs, reduces and adds."""

from __future__ import annotations

from uncollapse.objectives.objective import Loss, Objective
from uncollapse.objectives.schedules import Progress

__all__ = ["Loss", "Objective", "Progress"]
