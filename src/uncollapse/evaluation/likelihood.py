"""Likelihood: one estimator for every system, and the bound that training maximises."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uncollapse.data.batches import Batch, sequential_batches
from uncollapse.data.corpus import Corpus
from uncollapse.errors import RunError, UserError
from uncollapse.evaluation.metric import (
    Metric,
    mean_over_sentences,
    no_figure,
    ratio_over_sentences,
)
from uncollapse.evaluation.passes import (
    PosteriorPass,
    Progress,
    SentenceDraws,
    check_seed,
    evaluating,
    prior_has_density,
    with_density,
)
from uncollapse.evaluation.prior_draws import prior_scores
from uncollapse.model import Model

# rows that the decoder advances at once: B sentences times a chunk of their samples
ROWS = 2048
# posterior samples behind reconstruction and ELBO: the first of those behind the NLL, so that
# these figures do not depend on how many more are drawn
ELBO_SAMPLES = 10
# values of z over which the marginal is summed instead, where z is a code and has no more
ENUMERATED = 512

NATS = "nats/sentence"
NLL = "−log p(x), </s> counted and <s> not"
RECONSTRUCTION = "E_q log p(x|z), </s> counted and <s> not"
KL = "KL(q(z|x) ‖ p(z)) of the z that the decoder sees, summed over dimensions"
ELBO = "E_q log p(x|z) − KL(q(z|x) ‖ p(z)) ≤ log p(x)"
NO_DENSITY = "none: an autoencoder has no density"
NO_PRIOR_DENSITY = "none: the prior has no density"
NO_LATENT = "none: the model has no latent variable"
EXACT = "exact"
FITTED = "of the Gaussian fitted to samples of the implicit posterior"


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
    """

    log_likelihood: np.ndarray | None
    reconstruction: np.ndarray
    samples: int
    reconstruction_samples: int
    tokens: np.ndarray
    fitted: bool = False
    codes: int = 0
    from_prior: bool = False

    @property
    def no_kl(self) -> str:
        """Why there is no KL, and hence no ELBO."""
        return NO_PRIOR_DENSITY if self.from_prior else NO_DENSITY


def score_sentences(
    model: Model,
    corpus: Corpus,
    *,
    samples: int = 500,
    seed: int = 0,
    batch_size: int = 32,
    encoded: Corpus | None = None,
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

    Raises
    ------
    UserError
        If ``samples`` is below 1 or the seed negative.
    RunError
        If a sentence's score is not finite.
    """
    if samples < 1:
        raise UserError(f"samples must be at least 1, not {samples}")
    check_seed(seed)
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
                bound, expected = _enumerated(model, batch, source, points)
            else:
                bound, expected = _sampled(model, batch, source, samples, seed)
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
    )


def _sampled(
    model: Model, batch: Batch, source: Batch, samples: int, seed: int
) -> tuple[Tensor, Tensor]:
    """The bound on log p(x), and the mean reconstruction of the first samples; ``(B,)`` each."""
    if model.has_likelihood and not prior_has_density(model):
        few = min(samples, ELBO_SAMPLES)
        scores, _ = _sample_scores(model, batch, source, few, seed, weighed=False)
        by_prior = prior_scores(model, batch, samples, seed, ROWS)  # (B, S)
        return by_prior.logsumexp(1) - math.log(samples), scores.mean(1)
    scores, log_ratios = _sample_scores(model, batch, source, samples, seed)  # (B, S)
    log_weights = scores + log_ratios
    bound = log_weights.logsumexp(1) - math.log(log_weights.shape[1])
    return bound, scores[:, :ELBO_SAMPLES].mean(1)


def _enumerated(model: Model, batch: Batch, source: Batch, points: Tensor) -> tuple[Tensor, Tensor]:
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
        precision = model.decoder.output.weight.dtype
        score = model.decoder.log_prob_samples(z.to(precision), batch, condition)
        scores.append(score.double())
        shares.append(wide.log_prob(z).exp())
    found = torch.cat(scores, 1)  # (B, C)
    prior = model.log_prior(points.expand(batch.size, -1, -1), condition)  # (B, C)
    bound = (found + prior).logsumexp(1)
    return bound, (torch.cat(shares, 1) * found).sum(1)


def _sample_scores(
    model: Model, batch: Batch, source: Batch, samples: int, seed: int, *, weighed: bool = True
) -> tuple[Tensor, Tensor | float]:
    """log p(x|z_s) and, ``weighed``, log p(z_s)/q(z_s|x), ``(B, S)`` float64; z_s ~ q."""
    weighed = weighed and model.has_likelihood
    condition = model.read(batch)
    posterior = model.posterior(source, condition)
    if posterior is None:
        return model.decoder.log_prob_samples(None, batch, condition).double(), 0.0
    if weighed:
        posterior = with_density(posterior, seed, batch.index)
    draws = SentenceDraws(posterior, seed, batch.index)
    wide = posterior.map(Tensor.double)
    chunk = max(1, ROWS // batch.size)
    precision = model.decoder.output.weight.dtype
    scores, log_ratios = [], []
    for first in range(0, samples, chunk):
        z = draws.draw(min(chunk, samples - first))  # (B, S, D)
        score = model.decoder.log_prob_samples(z.to(precision), batch, condition)
        scores.append(score.double())
        if weighed:
            log_ratios.append(model.log_prior(z, condition) - wide.log_prob(z))
    return torch.cat(scores, 1), torch.cat(log_ratios, 1) if log_ratios else 0.0


def _require_finite(values: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise RunError(f"log-probability of sentence {bad[0] + 1} is {values[bad[0]]}")


# --- figures --------------------------------------------------------------------------------


def nll(scores: SentenceScores) -> Metric:
    """Negative log-likelihood."""
    if scores.log_likelihood is None:
        return no_figure(NATS, NO_DENSITY, NLL)
    return mean_over_sentences(
        -scores.log_likelihood, NATS, _importance(scores), NLL, scores.samples
    )


def reconstruction(scores: SentenceScores) -> Metric:
    """Expected log-probability of the sentence given its own z."""
    return mean_over_sentences(
        scores.reconstruction,
        NATS,
        _monte_carlo(scores),
        RECONSTRUCTION,
        scores.reconstruction_samples,
    )


def no_kl(found: PosteriorPass) -> str:
    """Why posteriors have no KL, where they have none."""
    return NO_DENSITY if found.prior_has_density else NO_PRIOR_DENSITY


def kl(
    values: np.ndarray | None, reason: str = NO_DENSITY, samples: int = 0, fitted: bool = False
) -> Metric:
    """Mean KL; ``values`` ``(N,)``, or None and why there are none.

    ``samples`` are the draws behind each, 0 for a closed form.
    """
    if values is None:
        return no_figure(NATS, reason, KL)
    estimator = f"{samples} posterior samples a sentence" if samples else "closed form"
    if fitted:
        estimator += f", {FITTED}"
    return mean_over_sentences(values, NATS, estimator, KL, samples or None)


def elbo(scores: SentenceScores, kl_values: np.ndarray | None, kl_samples: int = 0) -> Metric:
    """Evidence lower bound; ``kl_values`` ``(N,)`` are zeros for a language model.

    ``kl_samples`` are the draws behind each KL, 0 for a closed form.
    """
    if kl_values is None:
        return no_figure(NATS, scores.no_kl, ELBO)
    return mean_over_sentences(
        scores.reconstruction - kl_values,
        NATS,
        _bound(scores, kl_samples),
        ELBO,
        scores.reconstruction_samples or kl_samples,
    )


def ppl(scores: SentenceScores) -> Metric:
    """Perplexity under the importance-weighted bound."""
    definition = "exp(Σ NLL / Σ (words + 1))"
    if scores.log_likelihood is None:
        return no_figure("per token", NO_DENSITY, definition)
    estimator = _importance(scores)
    return perplexity(-scores.log_likelihood, scores.tokens, estimator, definition, scores.samples)


def ppl_elbo(scores: SentenceScores, kl_values: np.ndarray | None, kl_samples: int = 0) -> Metric:
    """Perplexity under the ELBO: an upper bound, looser than :func:`ppl`; see :func:`elbo`."""
    definition = "exp(−Σ ELBO / Σ (words + 1))"
    if kl_values is None:
        return no_figure("per token", scores.no_kl, definition)
    return perplexity(
        kl_values - scores.reconstruction,
        scores.tokens,
        _bound(scores, kl_samples),
        definition,
        scores.reconstruction_samples or kl_samples,
    )


def perplexity(
    nats: np.ndarray, tokens: np.ndarray, estimator: str, definition: str, samples: int
) -> Metric:
    """exp(Σ nats / Σ tokens) of ``(N,)`` each, with a delta-method error over sentences."""
    rate, error = ratio_over_sentences(nats, tokens)
    value = math.exp(min(rate, 700.0))  # the largest that is still a number
    estimator = f"{estimator}; {len(nats):,} sentences, {int(tokens.sum()):,} tokens"
    return Metric(
        value,
        "per token",
        None if error is None else value * error,
        estimator,
        samples or len(nats),
        definition,
    )


def _importance(scores: SentenceScores) -> str:
    if not scores.samples:
        return _exact(scores)
    if scores.from_prior:
        return f"upper bound, loose: S = {scores.samples} prior samples a sentence"
    text = f"upper bound by importance weighting, S = {scores.samples} posterior samples a sentence"
    return f"{text} {FITTED}" if scores.fitted else text


def _monte_carlo(scores: SentenceScores) -> str:
    if scores.log_likelihood is None:
        return "z is a function of x"
    if not scores.reconstruction_samples:
        return _exact(scores)
    text = f"{scores.reconstruction_samples} posterior samples a sentence"
    return f"{text} {FITTED}" if scores.fitted else text


def _exact(scores: SentenceScores) -> str:
    return f"{EXACT}, a sum over all {scores.codes} values of z" if scores.codes else EXACT


def _bound(scores: SentenceScores, kl_samples: int) -> str:
    """The estimator of a reconstruction less a KL."""
    text = _monte_carlo(scores)
    if scores.reconstruction_samples and not kl_samples:
        return f"{text}, closed-form KL"
    if kl_samples and not scores.reconstruction_samples:
        return f"{text}; KL by {kl_samples} posterior samples a sentence"
    return text
