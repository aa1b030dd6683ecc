"""The aggregate posterior q(z) = E_x q(z|x), held against the prior."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uncollapse.data.corpus import Corpus
from uncollapse.distributions.base import Distribution
from uncollapse.errors import UserError
from uncollapse.evaluation.likelihood_figures import FITTED, NO_DENSITY, NO_LATENT, no_kl
from uncollapse.evaluation.metric import Metric, no_figure
from uncollapse.evaluation.passes import (
    PosteriorPass,
    Progress,
    check_seed,
    context_vectors,
    posterior_pass,
)
from uncollapse.evaluation.posterior_draws import streams
from uncollapse.model import Model

SENTENCES = 10_000  # a mixture of N posteriors costs N²
BLOCK = 256  # rows of the N × N densities alive at once

AGGREGATE = "KL(q(z) ‖ p(z)) of the aggregate posterior q(z) = E_x q(z|x); KL = MI + this"


@dataclass(frozen=True)
class AggregatePosterior:
    """Draws ``(M, D)`` from the aggregate posterior, as many of each sentence, and the prior."""

    samples: np.ndarray
    prior: np.ndarray


def aggregate_posterior(
    model: Model,
    corpus: Corpus,
    *,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> AggregatePosterior:
    """Draw z from q(z|x) of every sentence x (at most `SENTENCES`), and from the prior.

    At least `SENTENCES` draws, however few the sentences. A posterior without a density is
    represented by the Gaussian fitted to its samples.

    Raises
    ------
    UserError
        For a model without a latent that has a prior, or a negative seed.
    """
    check_seed(seed)
    if model.latent_dim == 0 or not model.has_likelihood:
        reason = NO_DENSITY if model.latent_dim else NO_LATENT
        raise UserError(f"no aggregate posterior: {reason.removeprefix('none: ')}")
    chosen = corpus.select(spread(len(corpus)))
    found = posterior_pass(model, chosen, batch_size=batch_size, seed=seed, progress=progress)
    assert found is not None
    each = math.ceil(SENTENCES / len(chosen))
    z = _draw(found.posterior, each, seed).flatten(0, 1)  # (M, D)
    of_row = torch.arange(len(chosen)).repeat_interleave(each)
    contexts = context_vectors(model, chosen, batch_size=batch_size)
    condition = None if contexts is None else contexts.select(of_row)
    prior = model.sample_prior(len(z), torch.Generator().manual_seed(seed), condition=condition)
    assert prior is not None
    return AggregatePosterior(z.cpu().numpy(), prior.detach().double().cpu().numpy())


def aggregate_kl(found: PosteriorPass | None, *, seed: int = 0) -> Metric:
    """KL(q(z) ‖ p(z)) as the KL of the posteriors less the mutual information of their z.

    Parameters
    ----------
    found : PosteriorPass or None
        Of the N sentences that the aggregate is made of.
    seed : int
        Of the draws. With the same seed and sentences it is `kl` − `mi`.

    Returns
    -------
    Metric
        Nats. Too high by as much as the mutual information, which cannot exceed ln N, is too
        low. The error is that of the difference over sentences; how a sentence changes the
        aggregate for the others cancels to first order.

    References
    ----------
    Hoffman & Johnson 2016, "ELBO surgery"; Zhu et al. 2020, Figure 3.
    """
    if found is None or found.kl is None:
        return no_figure("nats", NO_LATENT if found is None else no_kl(found), AGGREGATE)
    z = _draw(found.relative, 1, seed).squeeze(1)  # (N, D), those of the mutual information
    count = len(z)
    gains = []
    for begin in range(0, count, BLOCK):
        log_prob = found.relative.pairwise_log_prob(z[begin : begin + BLOCK])  # (n, N)
        gains.append(log_prob.diagonal(begin) - log_prob.logsumexp(1))
    gain = torch.cat(gains).cpu() + math.log(count)  # (N,) what z tells of its sentence
    values = (found.kl.double().sum(1) - gain).numpy()
    estimator = (
        f"KL − MI of the same N = {count:,} sentences, one z each; the MI is "
        f"{float(gain.mean()):.2f}, and cannot exceed ln N = {math.log(count):.2f}; error over "
        "sentences"
    )
    if found.fitted:
        estimator += f"; {FITTED}"
    error = float(values.std(ddof=1)) / math.sqrt(count) if count > 1 else None
    return Metric(float(values.mean()), "nats", error, estimator, count, AGGREGATE)


def _draw(posterior: Distribution, samples: int, seed: int) -> Tensor:
    """``(N, S, D)`` float64."""
    with torch.no_grad():
        return posterior.draw(streams(seed, torch.arange(len(posterior.mean))), samples)


def spread(count: int) -> np.ndarray:
    """Rows of at most `SENTENCES` sentences, evenly spread: neighbours are often alike."""
    return np.linspace(0, count - 1, min(count, SENTENCES)).round().astype(np.int64)
