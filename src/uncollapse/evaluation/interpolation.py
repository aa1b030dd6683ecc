"""What the decoder writes on the way from one sentence to another, scored by ROUGE.

References
----------
Li et al. 2020, "Improving Variational Autoencoder for Text Modelling with Timestep-Wise
Regularisation", section 4.1 and Figure 2 (the paper leaves pairs and decoding open);
Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries".
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.errors import UserError
from uncollapse.evaluation.metric import Metric
from uncollapse.evaluation.passes import Progress, check_seed, posterior_pass
from uncollapse.evaluation.reconstruction import write_greedily
from uncollapse.model import Model

PAIRS = 200
SHARES = 11  # α in {0, 0.1, …, 1}
UNIT = "F1 (0 to 100)"
ROUGE = {"1": "ROUGE-1", "2": "ROUGE-2", "l": "ROUGE-L"}


@dataclass(frozen=True)
class Interpolation:
    """How near the sentences on the way are to either end.

    Attributes
    ----------
    shares : (A,) float64
        α: how far on the way from the first sentence to the second.
    scores : dict of str to (P, 2, A) float64
        By name in `ROUGE`: F1 (0 to 100) of what is written at α for each pair, against the
        first sentence and against the second.
    longest : int
        Words after which what is written was cut.
    in_context : bool
        Whether all is written in the context of the first sentence.
    """

    shares: np.ndarray
    scores: dict[str, np.ndarray]
    longest: int
    in_context: bool = False

    @property
    def pairs(self) -> int:
        """Pairs of sentences, P."""
        return len(self.scores["1"])

    def curves(self, name: str) -> np.ndarray:
        """Mean F1 against the first and the second sentence, ``(2, A)``."""
        return self.scores[name].mean(0)

    def errors(self, name: str) -> np.ndarray:
        """Standard errors of :meth:`curves` over pairs, ``(2, A)``; NaN for a single pair."""
        if self.pairs < 2:
            return np.full((2, len(self.shares)), np.nan)
        return self.scores[name].std(0, ddof=1) / np.sqrt(self.pairs)


def interpolate_pairs(
    model: Model,
    corpus: Corpus,
    tokenizer: Tokenizer,
    *,
    pairs: int = PAIRS,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Interpolation:
    """Write greedily at z = (1 − α) μ₁ + α μ₂ for random pairs of sentences.

    Parameters
    ----------
    pairs : int
        At most this many; no sentence is in two of them, so that they are independent.
    seed : int
        Of the pairs.

    Raises
    ------
    UserError
        For a model without a latent variable, a single sentence, or a negative seed.
    """
    check_seed(seed)
    count = min(pairs, len(corpus) // 2)
    if count < 1:
        raise UserError("interpolation needs at least one pair of sentences")
    rows = np.random.default_rng(seed).permutation(len(corpus))[: 2 * count]
    ends = corpus.select(rows)
    found = posterior_pass(model, ends, batch_size=batch_size, seed=seed)
    if found is None:
        raise UserError("interpolation needs a latent variable, and this is a language model")
    first, second = found.means.split(count)  # (P, D)
    longest = int(ends.lengths.max())
    starts = ends.head(count)
    texts = [_words(tokenizer, ends.sentence(row)) for row in range(2 * count)]
    shares = np.linspace(0, 1, SHARES)
    scores = {name: np.empty((count, 2, SHARES)) for name in ROUGE}
    for place, share in enumerate(shares):
        z = torch.lerp(first, second, float(share))
        # in the context of the first end, where there is any
        written = write_greedily(model, starts, z, longest)
        for row, ids in enumerate(written):
            words = _words(tokenizer, ids)
            for end in (0, 1):
                reference = texts[row + end * count]
                scores["1"][row, end, place] = 100 * rouge_n(words, reference, 1)
                scores["2"][row, end, place] = 100 * rouge_n(words, reference, 2)
                scores["l"][row, end, place] = 100 * rouge_l(words, reference)
        if progress is not None:
            progress("interpolation", (place + 1) * count, SHARES * count)
    return Interpolation(shares, scores, longest, model.context is not None)


def rouge_metric(found: Interpolation, name: str) -> Metric:
    """Mean F1 against both ends, each weighted by how near it is.

    Parameters
    ----------
    name : str
        One of `ROUGE`.
    """
    weights = np.stack([1 - found.shares, found.shares])  # (2, A)
    values = (found.scores[name] * weights).sum(1).mean(1)  # (P,)
    error = float(values.std(ddof=1)) / math.sqrt(found.pairs) if found.pairs > 1 else None
    estimator = (
        f"greedy, at most {found.longest} words; words split at white space; "
        f"{found.pairs} random pairs, no sentence in two; error over pairs"
    )
    if found.in_context:
        estimator += "; all in the context of the first"
    return Metric(float(values.mean()), UNIT, error, estimator, found.pairs, definition_of(name))


def definition_of(name: str) -> str:
    """What :func:`rouge_metric` estimates."""
    return (
        f"mean over α = 0, 0.1, …, 1 of (1 − α) F(first) + α F(second): {ROUGE[name]} F1 of what "
        "is written at (1 − α) μ₁ + α μ₂ against either sentence"
    )


def rouge_n(words: Sequence[Hashable], reference: Sequence[Hashable], n: int) -> float:
    """F1 of n-gram overlap, 0 to 1; a sentence shorter than n has no n-gram, and scores 0."""
    own, other = _ngrams(words, n), _ngrams(reference, n)
    return _f1((own & other).total(), own.total(), other.total())


def rouge_l(words: Sequence[Hashable], reference: Sequence[Hashable]) -> float:
    """F1 of the longest common subsequence, 0 to 1."""
    return _f1(common_subsequence(words, reference), len(words), len(reference))


def common_subsequence(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence.

    A column of the dynamic programme is one integer, a bit for each word of ``b`` (Hyyrö 2004,
    "Bit-parallel LCS-length computation revisited").
    """
    places: dict[Hashable, int] = {}
    for place, word in enumerate(b):
        places[word] = places.get(word, 0) | 1 << place
    full = (1 << len(b)) - 1
    column = full  # a cleared bit: the length grows by one at this word
    for word in a:
        hits = column & places.get(word, 0)
        column = ((column + hits) | (column - hits)) & full
    return len(b) - column.bit_count()


def _ngrams(words: Sequence[Hashable], n: int) -> Counter[tuple[Hashable, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _f1(common: int, own: int, other: int) -> float:
    return 2 * common / (own + other) if common else 0.0


def _words(tokenizer: Tokenizer, ids: Sequence[int] | np.ndarray) -> list[str]:
    return tokenizer.decode(ids).split()
