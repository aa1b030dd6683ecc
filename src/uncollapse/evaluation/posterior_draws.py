"""Draws from the posterior of every sentence, each from a stream of its own."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from uncollapse.distributions.base import Distribution
from uncollapse.distributions.multivariate import MultivariateGaussian
from uncollapse.distributions.product import Product

DRAWS = 50  # samples that a sentence's stream gives at once
FITTED = 20  # samples a dimension, to which a Gaussian is fitted where there is no density
FITTING_SEED = 1_000_003


class SentenceDraws:
    """Posterior samples of every sentence of a batch, from a stream of its own.

    A stream depends on (seed, corpus row) alone. Hence no figure depends on batching or on
    the global random state, and fewer samples are the first ones of more.

    Parameters
    ----------
    posterior : Distribution
        ``(B, D)``.
    seed : int
    index : Tensor
        ``(B,)``: rows in the corpus.
    """

    def __init__(self, posterior: Distribution, seed: int, index: Tensor) -> None:
        self._posterior = posterior
        self._streams = streams(seed, index)
        self._ahead: Tensor | None = None  # drawn and not yet asked for

    def draw(self, samples: int) -> Tensor:
        """The next samples of every sentence, ``(B, S, D)`` float64."""
        pieces = [] if self._ahead is None else [self._ahead]
        # always as many at once: rejection takes more of a stream than it returns
        while sum(piece.shape[1] for piece in pieces) < samples:
            pieces.append(self._posterior.draw(self._streams, DRAWS))
        z = torch.cat(pieces, 1)
        self._ahead = z[:, samples:]
        return z[:, :samples]


def streams(seed: int, index: Tensor) -> list[np.random.Generator]:
    """A random stream for every row ``(B,)`` of a corpus."""
    return [np.random.default_rng((seed, row)) for row in index.tolist()]


def with_density(posterior: Distribution, seed: int, index: Tensor) -> Distribution:
    """The posterior if it has a density, else the Gaussian fitted to its samples.

    Importance sampling asks of its proposal a density and nothing else, so the bound that it
    gives is as valid; KL and mutual information are then those of the fitted Gaussian.
    """
    if posterior.has_density:
        return posterior
    if isinstance(posterior, Product):
        return Product([with_density(part, seed, index) for part in posterior.parts])
    samples = FITTED * posterior.mean.shape[-1]
    # another stream than the draws from the fitted Gaussian
    drawn = posterior.draw(streams(seed + FITTING_SEED, index), samples)
    return MultivariateGaussian.fit(drawn)
