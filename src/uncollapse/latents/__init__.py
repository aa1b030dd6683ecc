"""Latent variables: a posterior, a prior and a divergence, bound together."""

from __future__ import annotations

from uncollapse.latents.inference import Inference
from uncollapse.latents.latent import COMPONENT, Latent

__all__ = ["COMPONENT", "Inference", "Latent"]
