"""What sentences look like: their words, how much they repeat one another, what they copy."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import UNK
from uncollapse.evaluation.metric import (
    Metric,
    mean_over_sentences,
    no_figure,
    ratio_over_sentences,
)

Sentences = list[list[int]]  # token ids, without <s> and </s>

# these figures depend on how many sentences are looked at together
DISTINCT_SENTENCES = 1000
SELF_BLEU_SENTENCES = 500
NO_MATCH = 0.1  # Chen and Cherry 2014, method 1, as in Texygen
RESAMPLES = 200
COUNTED_AT_ONCE = 1 << 20  # tokens; NumPy widens them to 8 bytes to count them
NO_WORDS = "none: every sentence is empty"

WORD_KL = "Σ_w f(w) ln(f(w) / f_train(w)) over the words of the training text, f of these sentences"
UNKNOWN = "share of words that are the unknown word"
SELF_BLEU = (
    "mean BLEU-4 (0 to 100) of a sentence against the others of its block; high: they are alike"
)
COPIED = "share of sentences that are, word by word, a training sentence"


def count_words(corpus: Corpus, vocabulary_size: int) -> np.ndarray:
    """How often every word occurs in a corpus, ``(V,)`` int64."""
    counts = np.zeros(vocabulary_size, np.int64)
    for first in range(0, len(corpus.tokens), COUNTED_AT_ONCE):
        part = corpus.tokens[first : first + COUNTED_AT_ONCE]
        counts += np.bincount(part, minlength=vocabulary_size)
    return counts


def word_kl(sentences: Sentences, training_counts: np.ndarray) -> Metric:
    """How far the word frequencies of sentences are from those of the training text.

    Parameters
    ----------
    sentences : list of list of int
    training_counts : ndarray
        ``(V,)``: see `count_words`.

    Returns
    -------
    Metric
        Nats; the error is a bootstrap over sentences. Words that the training text lacks
        have no ratio and are left out of the sum, but not of the frequencies.
    """
    sentences = [sentence for sentence in sentences if sentence]
    count = len(sentences)
    words, rows = _flat(sentences)
    absent = training_counts[words] == 0
    if absent.all():
        reason = "none: no word of the training text among them" if count else NO_WORDS
        return no_figure("nats", reason, WORD_KL)

    def value(times: np.ndarray) -> float:
        counts = np.bincount(words, times[rows], minlength=len(training_counts))  # (V,)
        share, training = counts / counts.sum(), training_counts / training_counts.sum()
        kept = (counts > 0) & (training > 0)
        return float(np.sum(share[kept] * np.log(share[kept] / training[kept])))

    error = None
    if count > 1:
        random = np.random.default_rng(0)
        draws = [random.integers(0, count, count) for _ in range(RESAMPLES)]
        resampled = [value(np.bincount(draw, minlength=count)) for draw in draws]
        error = float(np.std(resampled, ddof=1))
    estimator = (
        f"unsmoothed, too high for few words; {len(words):,} words, "
        f"{absent.mean():.2%} of them not in training; bootstrap error over sentences"
    )
    return Metric(value(np.ones(count)), "nats", error, estimator, count, WORD_KL)


def distinct(sentences: Sentences, order: int, size: int = DISTINCT_SENTENCES) -> Metric:
    """Share of n-grams that are different ones, in blocks of ``size`` sentences.

    The share falls with the number of n-grams. Hence it is that of a fixed number of
    sentences, and the mean over as many disjoint blocks of them as there are.

    References
    ----------
    Li et al. 2016, "A Diversity-Promoting Objective Function", section 5.
    """
    definition = (
        f"different {order}-grams / {order}-grams of {size:,} sentences; "
        "depends on how many they are"
    )
    shares = []
    for block in _blocks(sentences, size):
        found = [gram for sentence in block for gram in _ngrams(sentence, order)]
        if found:
            shares.append(len(set(found)) / len(found))
    return _mean_over_blocks(shares, len(sentences), size, "share", "exact", definition)


def self_bleu(sentences: Sentences, size: int = SELF_BLEU_SENTENCES) -> Metric:
    """Mean BLEU-4 of a sentence, all others of its block of ``size`` being its references.

    References
    ----------
    Zhu et al. 2018, "Texygen", whose smoothing this has; n-gram orders that are longer than
    the sentence are left out, and so are empty sentences.
    """
    scores = []
    for block in _blocks(sentences, size):
        written = [sentence for sentence in block if sentence]
        if len(written) > 1:
            scores.append(float(_bleu_against_others(written).mean()))
    how = f"of tokens; an order without a match counts {NO_MATCH:g} matches"
    return _mean_over_blocks(scores, len(sentences), size, "BLEU", how, SELF_BLEU)


def unknown_share(sentences: Sentences) -> Metric:
    """Share of words that are the unknown word."""
    lengths = np.array([len(sentence) for sentence in sentences])
    if not lengths.any():
        return no_figure("share", NO_WORDS, UNKNOWN)
    unknown = np.array([sentence.count(UNK) for sentence in sentences])
    value, error = ratio_over_sentences(unknown, lengths)
    estimator = f"{int(lengths.sum()):,} words"
    return Metric(value, "share", error, estimator, len(sentences), UNKNOWN)


def copied(sentences: Sentences, train: Corpus) -> Metric:
    """Share of sentences that are training sentences; short ones can be so by chance."""
    keys = [np.array(sentence, train.tokens.dtype).tobytes() for sentence in sentences]
    wanted = set(keys)  # so that memory does not grow with the training text
    rows = (train.sentence(i).tobytes() for i in range(len(train)))
    found = {row for row in rows if row in wanted}
    hits = np.array([key in found for key in keys], float)
    estimator = f"looked up among {len(train):,} training sentences"
    return mean_over_sentences(hits, "share", estimator, COPIED)


# --- inside -----------------------------------------------------------------------------------


def _flat(sentences: Sentences) -> tuple[np.ndarray, np.ndarray]:
    """All words, one after the other, and the sentence of each."""
    lengths = np.array([len(sentence) for sentence in sentences], np.int64)
    words = np.array([word for sentence in sentences for word in sentence], np.int64)
    return words, np.repeat(np.arange(len(sentences)), lengths)


def _blocks(sentences: Sentences, size: int) -> list[Sentences]:
    """Disjoint blocks of equal size; what is left over is not used."""
    return [sentences[i : i + size] for i in range(0, len(sentences) - size + 1, size)]


def _mean_over_blocks(
    values: list[float], sentences: int, size: int, unit: str, how: str, definition: str
) -> Metric:
    if not values:
        reason = f"none: no block of {size:,} among {sentences:,} sentences has anything to count"
        return no_figure(unit, reason, definition)
    count = len(values)
    error = float(np.std(values, ddof=1)) / math.sqrt(count) if count > 1 else None
    blocks = f"{count} disjoint blocks of {size:,} sentences" if count > 1 else "one block"
    estimator = f"{how}; mean over {blocks}" + ("" if count > 1 else f" of {size:,}, no error")
    return Metric(float(np.mean(values)), unit, error, estimator, count * size, definition)


def _ngrams(sentence: list[int], order: int) -> list[tuple[int, ...]]:
    return list(zip(*(sentence[start:] for start in range(order)), strict=False))


def _bleu_against_others(sentences: Sentences) -> np.ndarray:
    """BLEU-4 of each sentence with all others as references, ``(N,)``, 0 to 100.

    A reference count is the most that any *other* sentence holds of an n-gram: the highest
    count of all, or the second highest for the sentence that holds the highest.
    """
    lengths = np.array([len(sentence) for sentence in sentences])  # (N,)
    logs = np.zeros((len(sentences), 4))
    for order in range(1, 5):
        counted = [Counter(_ngrams(sentence, order)) for sentence in sentences]
        highest: Counter[tuple[int, ...]] = Counter()
        second: Counter[tuple[int, ...]] = Counter()
        for counts in counted:
            for gram, times in counts.items():
                if times > highest[gram]:
                    second[gram], highest[gram] = highest[gram], times
                elif times > second[gram]:
                    second[gram] = times
        for row, counts in enumerate(counted):
            if not counts:
                continue  # no n-gram of this order: it leaves no trace in the mean below
            matches = sum(
                times if times < highest[gram] else second[gram] for gram, times in counts.items()
            )
            if matches or order > 1:
                logs[row, order - 1] = math.log((matches or NO_MATCH) / counts.total())
            else:
                logs[row, 0] = -math.inf  # nothing in common with the others: 0
    mean = logs.sum(1) / np.minimum(lengths, 4)
    gaps = np.abs(lengths[:, None] - lengths)  # (N, N)
    np.fill_diagonal(gaps, lengths.max() + 1)
    # the closest reference, the shorter one of two that are equally close
    longer = lengths > lengths[:, None]
    closest = lengths[(2 * gaps + longer).argmin(1)]
    return 100 * np.exp(mean + np.minimum(0, 1 - closest / lengths))
