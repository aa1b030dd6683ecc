"""Moments of q(z|x) as features of sentences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uncollapse.data.batches import sequential_batches
from uncollapse.data.corpus import Corpus
from uncollapse.distributions.base import Distribution
from uncollapse.distributions.product import Product
from uncollapse.errors import RunError
from uncollapse.evaluation.passes import Progress, evaluating
from uncollapse.model import Model

BATCH = 128


@dataclass(frozen=True)
class Features:
    """Moments of q(z|x) of N sentences.

    Attributes
    ----------
    mean : ndarray
        ``(N, D)`` float64.
    variance : ndarray or None
        ``(N, D)`` float64; None where the posterior has none for every dimension.
    """

    mean: np.ndarray
    variance: np.ndarray | None

    @property
    def joined(self) -> np.ndarray:
        """Mean and variance side by side, ``(N, 2D)``, or the mean alone."""
        return self.mean if self.variance is None else np.hstack([self.mean, self.variance])


def posterior_features(
    model: Model, corpus: Corpus, what: str = "features", progress: Progress | None = None
) -> Features:
    """Encode every sentence in evaluation mode; the model has latents and is left as it was.

    Raises
    ------
    RunError
        If a mean or variance is not finite.
    """
    mean = np.empty((len(corpus), model.latent_dim))
    variance: np.ndarray | None = np.empty_like(mean)
    done = 0
    with evaluating(model) as device:
        for batch in sequential_batches(corpus, BATCH):
            posterior = model.posterior(batch.to(device))
            assert posterior is not None
            rows = batch.index.numpy()
            mean[rows] = posterior.mean.double().cpu().numpy()
            spread = _variance(posterior)
            if spread is None or variance is None:
                variance = None
            else:
                variance[rows] = spread.double().cpu().numpy()
            done += batch.size
            if progress is not None:
                progress(what, done, len(corpus))
    found = Features(mean, variance)
    bad = int(np.count_nonzero(~np.isfinite(found.joined).all(1)))
    if bad:
        raise RunError(f"mean or variance of q(z|x) is not finite for {bad:,} of {len(mean):,}")
    return found


def _variance(posterior: Distribution) -> Tensor | None:
    """Of every dimension, ``(B, D)``; None where a part has none."""
    if isinstance(posterior, Product):
        parts = [_variance(part) for part in posterior.parts]
        found = [part for part in parts if part is not None]
        return torch.cat(found, -1) if len(found) == len(parts) else None
    return getattr(posterior, "variance", None)
