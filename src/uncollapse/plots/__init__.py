"""Figures as functions: each takes arrays and gives back a matplotlib figure."""

from uncollapse.plots.latent_space import LatentPanel, collapse_pair, common_limit, latent_space
from uncollapse.plots.style import save_figure, to_svg
from uncollapse.plots.training import kl_per_dimension, training_curves

__all__ = [
    "LatentPanel",
    "collapse_pair",
    "common_limit",
    "kl_per_dimension",
    "latent_space",
    "save_figure",
    "to_svg",
    "training_curves",
]
