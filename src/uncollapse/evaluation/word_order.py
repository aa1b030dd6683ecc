"""What the order of words is worth to inference: the likelihood with a shuffled encoder input.

References
----------
Long et al. 2019, "Preventing Posterior Collapse in Sequence VAEs with Pooling", Table 4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from uncollapse.data.corpus import Corpus
from uncollapse.errors import UserError
from uncollapse.evaluation.likelihood import SentenceScores, score_sentences
from uncollapse.evaluation.likelihood_figures import (
    NATS,
    NO_DENSITY,
    NO_LATENT,
    NO_PRIOR_DENSITY,
    nll,
)
from uncollapse.evaluation.metric import Metric, mean_over_sentences
from uncollapse.evaluation.passes import Progress, check_seed, prior_has_density
from uncollapse.model import Model

SHUFFLED = (
    "−log p(x), with q(z|·) read from the words of x in random order; </s> counted and <s> not"
)


@dataclass(frozen=True)
class ShuffledLikelihood:
    """What the decoder says of sentences whose words the encoder reads in place, and shuffled."""

    of_original: SentenceScores
    of_shuffled: SentenceScores

    @property
    def original(self) -> np.ndarray:
        """Upper bounds on −log p(x) with the words in place, ``(N,)``, nats."""
        return _nats(self.of_original)

    @property
    def shuffled(self) -> np.ndarray:
        """Upper bounds on −log p(x) with the words shuffled, ``(N,)``, nats."""
        return _nats(self.of_shuffled)


def shuffle_words(corpus: Corpus, seed: int = 0) -> Corpus:
    """The same sentences with the words of each in random order."""
    check_seed(seed)
    keys = np.random.default_rng(seed).random(len(corpus.tokens))
    sentence = np.repeat(np.arange(len(corpus)), corpus.lengths)
    order = np.lexsort((keys, sentence))
    return Corpus(
        np.asarray(corpus.tokens)[order],
        corpus.offsets,
        corpus.columns,
        corpus.report,
    )


def shuffled_likelihood(
    model: Model,
    corpus: Corpus,
    *,
    samples: int = 500,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> ShuffledLikelihood:
    """Score every sentence under posteriors of its words in place and in random order.

    Either is the importance-weighted bound of `score_sentences`: the posterior of a shuffled
    sentence is as legitimate a proposal as any.

    Raises
    ------
    UserError
        For a model without a likelihood or without a latent, or sizes as in `score_sentences`.
    """
    reason = obstacle(model)
    if reason is not None:
        raise UserError(f"no likelihood: {reason.removeprefix('none: ')}")
    scores = [
        score_sentences(
            model,
            corpus,
            encoded=encoded,
            samples=samples,
            seed=seed,
            batch_size=batch_size,
            progress=progress,
        )
        for encoded in (None, shuffle_words(corpus, seed))
    ]
    return ShuffledLikelihood(*scores)


def nll_shuffled(found: ShuffledLikelihood) -> Metric:
    """Negative log-likelihood if the encoder reads the words in random order.

    The estimator also says what it is with the words in place, and the difference, whose error
    is that of pairs: much smaller than that of either. The difference shrinks as S grows, for
    either bound then nears −log p(x): compare systems at the same S.
    """
    metric = nll(found.of_shuffled)
    more = mean_over_sentences(found.shuffled - found.original, NATS, "", "")
    error = "" if more.standard_error is None else f" ± {more.standard_error:.2g}"
    estimator = (
        f"{metric.estimator}; with the words in place {found.original.mean():.4f}, so shuffling "
        f"costs {more.value:.2g}{error} at this S"
    )
    return replace(metric, estimator=estimator, definition=SHUFFLED)


def obstacle(model: Model) -> str | None:
    """Why a model has no such figure, or None."""
    if model.latent_dim == 0:
        return NO_LATENT
    if not model.has_likelihood:
        return NO_DENSITY
    # its bound draws from the prior, which has not read the sentence
    return None if prior_has_density(model) else NO_PRIOR_DENSITY


def _nats(scores: SentenceScores) -> np.ndarray:
    assert scores.log_likelihood is not None
    return -scores.log_likelihood
