"""Figures made of sentences' likelihoods: what each is, and how it was estimated."""

from __future__ import annotations

import math

import numpy as np

from uncollapse.evaluation.likelihood import SentenceScores
from uncollapse.evaluation.metric import (
    Metric,
    mean_over_sentences,
    no_figure,
    ratio_over_sentences,
)
from uncollapse.evaluation.passes import PosteriorPass

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
        return no_figure(NATS, _no_elbo(scores), ELBO)
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
        return no_figure("per token", _no_elbo(scores), definition)
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


def _no_elbo(scores: SentenceScores) -> str:
    return NO_PRIOR_DENSITY if scores.from_prior else NO_DENSITY


def _importance(scores: SentenceScores) -> str:
    if not scores.samples:
        return _exact(scores)
    if scores.from_prior:
        return _rounded(
            scores, f"upper bound, loose: S = {scores.samples} prior samples a sentence"
        )
    text = f"upper bound by importance weighting, S = {scores.samples} posterior samples a sentence"
    return _rounded(scores, f"{text} {FITTED}" if scores.fitted else text)


def _monte_carlo(scores: SentenceScores) -> str:
    if scores.log_likelihood is None:
        return _rounded(scores, "z is a function of x")
    if not scores.reconstruction_samples:
        return _exact(scores)
    text = f"{scores.reconstruction_samples} posterior samples a sentence"
    return _rounded(scores, f"{text} {FITTED}" if scores.fitted else text)


def _exact(scores: SentenceScores) -> str:
    text = f"{EXACT}, a sum over all {scores.codes} values of z" if scores.codes else EXACT
    return _rounded(scores, text)


def _rounded(scores: SentenceScores, text: str) -> str:
    """An estimator, which says so if the decoder was not computed in full precision."""
    return text if scores.precision == "f32" else f"{text}, {scores.precision} decoder"


def _bound(scores: SentenceScores, kl_samples: int) -> str:
    """The estimator of a reconstruction less a KL."""
    text = _monte_carlo(scores)
    if scores.reconstruction_samples and not kl_samples:
        return f"{text}, closed-form KL"
    if kl_samples and not scores.reconstruction_samples:
        return f"{text}; KL by {kl_samples} posterior samples a sentence"
    return text
