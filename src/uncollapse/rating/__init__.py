"""Human evaluation: sheets on which people rate responses blind, and what their ratings say."""

from __future__ import annotations

from uncollapse.rating.exporting import export
from uncollapse.rating.scoring import Scores, score

__all__ = ["Scores", "export", "score"]
