"""Likelihood: one estimator for every system."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uncollapse.data.batches import Batch, sequential_batches
from uncollapse.data.corpus import Corpus
from uncollapse.errors import RunError, UserError
from uncollapse.evaluation.passes import (
    Precision,
    Progress,
    check_precision,
    check_seed,
    decoder_scores,
    evaluating,
    prior_has_density,
)
from uncollapse.evaluation.posterior_draws import SentenceDraws, with_density
from uncollapse.evaluation.prior_draws import prior_scores
from uncollapse.model import Model

# rows that are drawn, weighed and handed to the decoder at once: B sentences times a chunk of
# their samples
ROWS = 4096
# posterior samples behind reconstruction and ELBO: the first of those behind the NLL, so that
# these figures do not depend on how many more are drawn
ELBO_SAMPLES = 10
# values of z over which the marginal is summed instead, where z is a code and has no more
ENUMERATED = 512


@dataclass(frozen=True)
class SentenceScores:
    """What the decoder says of every sentence of a corpus, in its order, nats.

    Attributes
    ----------
    log_likelihood : (N,) float64 or None
        A lower bound on log p(x) in expectation, exact for a language model; None for an
        autoencoder.
    reconstruction : (N,) float64
        Mean of log p(x|z) over the first ``reconstruction_samples`` posterior samples.
    fitted : bool
        Whether a Gaussian fitted to its samples stands in for a posterior without a density.
    samples, reconstruction_samples : int
        Draws of z behind the two; 0: nothing is random, or all is summed over.
    tokens : (N,) int64
        Predicted tokens: words and ``</s>``.
    codes : int
        Values of z that are summed over, where they are few; then both figures are exact.
    from_prior : bool
        Whether the draws behind the first are from a prior without a density. Those behind the
        second are always from the posterior.
    precision : {"f32", "bf16"}
        Of the decoder's matrix products.
    """

    log_likelihood: np.ndarray | None
    reconstruction: np.ndarray
    samples: int
    reconstruction_samples: int
    tokens: np.ndarray
    fitted: bool = False
    codes: int = 0
    from_prior: bool = False
    precision: Precision = "f32"


def score_sentences(
    model: Model,
    corpus: Corpus,
    *,
    samples: int = 500,
    seed: int = 0,
    batch_size: int = 32,
    encoded: Corpus | None = None,
    precision: Precision = "f32",
    progress: Progress | None = None,
) -> SentenceScores:
    """Importance-weighted log-likelihood and reconstruction of every sentence.

    log p(x) ≥ E log 1/S Σ_s p(x|z_s) p(z_s) / q(z_s|x), z_s ~ q (Burda et al. 2016, eq. 8),
    with q the density of the z that the decoder saw. Weights are float64, the networks f32.
    Components of a mixture are marginalised exactly; where z is one of at most `ENUMERATED`
    codes, so is z itself, and nothing is drawn.

    A prior that has no density leaves no ratio to weigh with: then z_s ~ p, and
    log p(x) ≥ E log 1/S Σ_s p(x|z_s), which is as valid and, as few draws from the prior fit a
    sentence, much looser.

    Parameters
    ----------
    samples : int
        S.
    seed : int
        With a sentence's row in the corpus it determines the sentence's noise: neither batch
        size nor neighbours matter beyond rounding.
    batch_size : int
        Sentences encoded together. Samples are cut into chunks of ``ROWS`` rows, so memory
        does not grow with S.
    encoded : Corpus, optional
        What the encoder reads in place of the corpus, row for row and of the same lengths: q
        is a legitimate proposal whatever it was read from.
    precision : {"f32", "bf16"}
        Of the decoder's matrix products. bf16 is twice as fast where the processor has it, and
        errs by some hundredths of a nat a sentence: for a first look, not for publication.

    Raises
    ------
    UserError
        If ``samples`` is below 1, the seed negative, or the precision unknown.
    RunError
        If a sentence's score is not finite.
    """
    if samples < 1:
        raise UserError(f"samples must be at least 1, not {samples}")
    check_seed(seed)
    check_precision(precision)
    dense = model.has_likelihood
    if not dense:
        samples = 1  # z is a function of x
    points = model.every_point(ENUMERATED) if dense and model.latent_dim else None
    log_likelihood = np.empty(len(corpus))
    reconstruction = np.empty(len(corpus))
    done = 0
    with evaluating(model) as device:
        # equal lengths give equal batches
        read = sequential_batches(corpus if encoded is None else encoded, batch_size)
        for batch, source in zip(sequential_batches(corpus, batch_size), read, strict=True):
            batch, source = batch.to(device), source.to(device)
            if points is not None:
                bound, expected = _enumerated(model, batch, source, points, precision)
            else:
                bound, expected = _sampled(model, batch, source, samples, seed, precision)
            rows = batch.index.cpu().numpy()
            reconstruction[rows] = expected.cpu().numpy()
            log_likelihood[rows] = bound.cpu().numpy()
            done += batch.size
            if progress is not None:
                progress("likelihood", done, len(corpus))
    _require_finite(log_likelihood if dense else reconstruction)
    drawn = dense and model.latent_dim > 0 and points is None
    from_prior = dense and not prior_has_density(model)
    fitted = dense and not from_prior and not model.has_density
    return SentenceScores(
        log_likelihood if dense else None,
        reconstruction,
        samples if drawn else 0,
        min(samples, ELBO_SAMPLES) if drawn else 0,
        corpus.lengths + 1,
        fitted,
        0 if points is None else len(points),
        from_prior,
        precision,
    )


def _sampled(
    model: Model, batch: Batch, source: Batch, samples: int, seed: int, precision: Precision
) -> tuple[Tensor, Tensor]:
    """The bound on log p(x), and the mean reconstruction of the first samples; ``(B,)`` each."""
    if model.has_likelihood and not prior_has_density(model):
        few = min(samples, ELBO_SAMPLES)
        scores, _ = _sample_scores(model, batch, source, few, seed, precision, weighed=False)
        by_prior = prior_scores(model, batch, samples, seed, ROWS, precision)  # (B, S)
        return by_prior.logsumexp(1) - math.log(samples), scores.mean(1)
    scores, log_ratios = _sample_scores(model, batch, source, samples, seed, precision)  # (B, S)
    log_weights = scores + log_ratios
    bound = log_weights.logsumexp(1) - math.log(log_weights.shape[1])
    return bound, scores[:, :ELBO_SAMPLES].mean(1)


def _enumerated(
    model: Model, batch: Batch, source: Batch, points: Tensor, precision: Precision
) -> tuple[Tensor, Tensor]:
    """log p(x) = ln Σ_z p(z) p(x|z) and E_q log p(x|z), both exact, ``(B,)`` float64."""
    condition = model.read(batch)
    posterior = model.posterior(source, condition)
    assert posterior is not None
    device = batch.tokens.device
    points = points.to(device).double()  # (C, D)
    wide = posterior.map(Tensor.double)
    chunk = max(1, ROWS // batch.size)
    scores, shares = [], []
    for part in points.split(chunk):
        z = part.expand(batch.size, -1, -1)  # (B, c, D)
        scores.append(decoder_scores(model, z, batch, condition, precision))
        shares.append(wide.log_prob(z).exp())
    found = torch.cat(scores, 1)  # (B, C)
    prior = model.log_prior(points.expand(batch.size, -1, -1), condition)  # (B, C)
    bound = (found + prior).logsumexp(1)
    return bound, (torch.cat(shares, 1) * found).sum(1)


def _sample_scores(
    model: Model,
    batch: Batch,
    source: Batch,
    samples: int,
    seed: int,
    precision: Precision,
    *,
    weighed: bool = True,
) -> tuple[Tensor, Tensor | float]:
    """log p(x|z_s) and, ``weighed``, log p(z_s)/q(z_s|x), ``(B, S)`` float64; z_s ~ q."""
    weighed = weighed and model.has_likelihood
    condition = model.read(batch)
    posterior = model.posterior(source, condition)
    if posterior is None:
        return decoder_scores(model, None, batch, condition, precision), 0.0
    if weighed:
        posterior = with_density(posterior, seed, batch.index)
    draws = SentenceDraws(posterior, seed, batch.index)
    wide = posterior.map(Tensor.double)
    chunk = max(1, ROWS // batch.size)
    scores, log_ratios = [], []
    for first in range(0, samples, chunk):
        z = draws.draw(min(chunk, samples - first))  # (B, S, D)
        scores.append(decoder_scores(model, z, batch, condition, precision))
        if weighed:
            log_ratios.append(model.log_prior(z, condition) - wide.log_prob(z))
    return torch.cat(scores, 1), torch.cat(log_ratios, 1) if log_ratios else 0.0


def _require_finite(values: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise RunError(f"log-probability of sentence {bad[0] + 1} is {values[bad[0]]}")
