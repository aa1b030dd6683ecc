"""Words and phrases in common with the references: sentence BLEU and corpus BLEU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from uncollapse.data.tokenizer import EOS, SPECIAL_TOKENS
from uncollapse.evaluation.metric import Metric
from uncollapse.evaluation.responses.sets import (
    ResponseSets,
    Words,
    harmonic_mean,
    mean_over_contexts,
)

COUNTED = 5  # method 5 looks at 5-grams, whatever the order of the BLEU
ORDERS = (1, 2, 3, 4)
K = 5  # Chen and Cherry 2014, method 4
CONTEXTS_AT_ONCE = 1000  # bounds the memory of counting
RESAMPLES = 200

UNIT = "sentence BLEU"
SMOOTHING = (
    "brevity penalty, Chen and Cherry's smoothing method 7 as in NLTK 3.10, with which a "
    "response equal to its reference can have more than 1, at most 4/3"
)
RULES = {
    "precision": "mean over samples of the best reference's",
    "recall": "mean over references of the best sample's",
}
F1 = "harmonic mean of mean precision and mean recall over contexts"


def response_bleu(sets: ResponseSets) -> dict[str, Metric]:
    """Sentence BLEU-1 to BLEU-4 of samples against references: precision, recall and F1.

    Orders 1 to 4 are smoothed together, and BLEU-n has weight 1/n on its first n: the
    (n+1)-grams that method 5 averages with the n-grams are then the real ones.

    Returns
    -------
    dict of str to Metric
        ``bleu_1_precision``, ``bleu_1_recall``, ``bleu_1_f1``, … ``bleu_4_f1``. With one
        reference, precision and recall are the mean and the maximum over samples.

    References
    ----------
    Zhao et al. 2017, "Learning Discourse-level Diversity for Neural Dialog Models using
    Conditional Variational Autoencoders", section 5.2; Chen and Cherry 2014, "A Systematic
    Comparison of Smoothing Techniques for Sentence-Level BLEU".
    """
    weights = [_uniform(order) for order in ORDERS]
    result: dict[str, Metric] = {}
    for order, scores in zip(ORDERS, _pair_scores(sets, weights), strict=True):
        what = f"BLEU-{order} (a share, not of 100)"
        result |= _summaries(sets, scores, f"bleu_{order}_{{}}", what, SMOOTHING)
    return result


def response_bleu_wae(sets: ResponseSets) -> dict[str, Metric]:
    """BLEU-3 by the protocol of DialogWAE, which iVAE and TWR-VAE follow.

    ``</s>`` counts as a word on both sides, and only orders 1 to 3 are smoothed together.
    These figures are not comparable with ``bleu_3_…``.

    Returns
    -------
    dict of str to Metric
        ``bleu_precision_wae``, ``bleu_recall_wae``, ``bleu_f1_wae``.

    References
    ----------
    Gu et al. 2019, "DialogWAE: Multimodal Response Generation with Conditional Wasserstein
    Auto-Encoder", section 4.2.
    """
    end = SPECIAL_TOKENS[EOS]
    hypotheses = [[[*words, end] for words in group] for group in sets.hypotheses]
    references = [[[*words, end] for words in group] for group in sets.references]
    scores = _pair_scores(ResponseSets(hypotheses, references), [(1 / 3,) * 3])[0]
    what = f"BLEU-3 (a share, not of 100) with {end} as a word of both sides, as in DialogWAE"
    return _summaries(sets, scores, "bleu_{}_wae", what, SMOOTHING)


def response_bleu_sacre(sets: ResponseSets) -> dict[str, Metric]:
    """Corpus BLEU-4 of the first sample of every context against its references.

    Returns
    -------
    dict of str to Metric
        ``bleu_sacre``, 0 to 100. The estimator holds the signature of sacrebleu, words are
        those given; the error is a bootstrap over contexts.
    """
    from sacrebleu.metrics.bleu import BLEU

    bleu = BLEU(tokenize="none", force=True, effective_order=True)
    rows = []
    for group, references in zip(sets.hypotheses, sets.references, strict=True):
        texts = [" ".join(words) for words in references]
        score = bleu.sentence_score(" ".join(group[0]), texts)
        rows.append([score.sys_len, score.ref_len, *score.counts, *score.totals])
    counts = np.array(rows, np.int64)  # (contexts, 10)

    def value(times: np.ndarray) -> float:
        total = (times @ counts).tolist()
        return BLEU.compute_bleu(
            correct=total[2:6],
            total=total[6:],
            sys_len=total[0],
            ref_len=total[1],
            smooth_method="exp",
        ).score

    count, error = len(sets), None
    if count > 1:
        random = np.random.default_rng(0)
        draws = [random.integers(0, count, count) for _ in range(RESAMPLES)]
        error = float(np.std([value(np.bincount(d, minlength=count)) for d in draws], ddof=1))
    numbers = {len(group) for group in sets.references}
    corpus = BLEU(tokenize="none", force=True)
    corpus.num_refs = numbers.pop() if len(numbers) == 1 else -1
    estimator = (
        f"sacrebleu {corpus.get_signature()}; {count:,} contexts; bootstrap error over contexts"
    )
    definition = "corpus BLEU-4 (0 to 100) of the first sample of each context"
    metric = Metric(value(np.ones(count, np.int64)), "BLEU", error, estimator, count, definition)
    return {"bleu_sacre": metric}


def sentence_bleu(
    hypothesis: Sequence[str], references: Sequence[Sequence[str]], weights: Sequence[float]
) -> float:
    """BLEU of one response against references together, smoothed by method 7.

    Parameters
    ----------
    weights : sequence of float
        Of the orders 1, 2, …, at most 4. All these orders are smoothed, also those of
        weight 0; method 5 takes the 5-grams for the order after the last.

    Returns
    -------
    float
        0 to 4/3, see the module's ``SMOOTHING``; 0 where no word is shared.
    """
    matches, totals = [], []
    for order in range(1, COUNTED + 1):
        counts = Counter(_ngrams(hypothesis, order))
        most: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            most |= Counter(_ngrams(reference, order))
        matches.append((counts & most).total())
        totals.append(counts.total())
    length = len(hypothesis)
    closest = min((abs(len(words) - length), len(words)) for words in references)[1]
    arrays = np.array([matches]), np.array([totals]), np.array([length]), np.array([closest])
    return float(_score(*arrays, [weights])[0][0])


# --- inside -----------------------------------------------------------------------------------


def _uniform(order: int) -> tuple[float, ...]:
    return (1 / order,) * order + (0.0,) * (len(ORDERS) - order)


def _ngrams(words: Sequence[str], order: int) -> Iterator[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(order)), strict=False)


def _summaries(
    sets: ResponseSets, scores: np.ndarray, name: str, what: str, how: str
) -> dict[str, Metric]:
    """Precision, recall and F1 of scores of pairs ``(P,)``."""
    pairs = sets.pairs()
    precision, recall = pairs.precision(scores), pairs.recall(scores)
    result = {
        name.format(rule): mean_over_contexts(values, UNIT, how, f"{RULES[rule]} {what}", sets)
        for rule, values in (("precision", precision), ("recall", recall))
    }
    f1 = harmonic_mean(precision, recall, UNIT, how, f"{F1}; {what}", sets)
    return result | {name.format("f1"): f1}


def _pair_scores(sets: ResponseSets, weights: list[tuple[float, ...]]) -> list[np.ndarray]:
    """BLEU of every pair with one reference, for each of some weights: ``(P,)`` each."""
    parts = []
    for first in range(0, len(sets), CONTEXTS_AT_ONCE):
        block = slice(first, first + CONTEXTS_AT_ONCE)
        some = ResponseSets(sets.hypotheses[block], sets.references[block])
        parts.append(_score(*_pair_counts(some), weights))
    return [np.concatenate(scores) for scores in zip(*parts, strict=True)]


def _pair_counts(sets: ResponseSets) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Shared n-grams and n-grams of the sample, ``(P, 5)``; lengths of both sides, ``(P,)``.

    Each sentence is counted once: rows (sentence, n-gram, count) of samples and references
    are joined where context and n-gram are the same.
    """
    pairs = sets.pairs()
    sentences = [*chain(*sets.hypotheses), *chain(*sets.references)]
    samples = len(pairs.sample_context)
    context = np.concatenate([pairs.sample_context, pairs.reference_context])
    # the pair of sample s and reference r is number offset[s] + r
    _, start = np.unique(pairs.sample, return_index=True)
    offset = start - pairs.reference[start]  # (S,)
    matches = np.zeros((len(pairs.sample), COUNTED))
    for order, (sentence, gram, count) in enumerate(_count_ngrams(sentences)):
        key = context[sentence] * (gram.max(initial=0) + 1) + gram
        ours = sentence < samples
        theirs = np.flatnonzero(~ours)
        theirs = theirs[np.argsort(key[theirs], kind="stable")]
        first = np.searchsorted(key[theirs], key[ours], "left")
        found = np.searchsorted(key[theirs], key[ours], "right") - first
        within = np.arange(found.sum()) - np.repeat(np.cumsum(found) - found, found)
        other = theirs[np.repeat(first, found) + within]
        pair = np.repeat(offset[sentence[ours]], found) + sentence[other] - samples
        shared = np.minimum(np.repeat(count[ours], found), count[other])
        matches[:, order] = np.bincount(pair, shared, len(matches))
    lengths = np.array([len(words) for words in sentences])
    length, reference = lengths[pairs.sample], lengths[samples + pairs.reference]
    totals = np.maximum(length[:, None] - np.arange(COUNTED), 0)  # (P, 5)
    return matches, totals, length, reference


def _count_ngrams(
    sentences: list[Words],
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For order 1, 2, … 5: sentence, number of the n-gram, and how often it is there."""
    ids: dict[str, int] = {}
    words = np.array([ids.setdefault(word, len(ids)) for word in chain(*sentences)], np.int64)
    lengths = np.array([len(sentence) for sentence in sentences])
    sentence = np.repeat(np.arange(len(sentences)), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(words))  # to the end
    place, gram = np.arange(len(words)), words
    for order in range(1, COUNTED + 1):
        if order > 1:
            kept = left[place] >= order
            place = place[kept]
            _, gram = np.unique(
                gram[kept] * len(ids) + words[place + order - 1], return_inverse=True
            )
        size = int(gram.max(initial=0)) + 1
        keys, count = np.unique(sentence[place] * size + gram, return_counts=True)
        yield keys // size, keys % size, count


def _score(
    matches: np.ndarray,
    totals: np.ndarray,
    length: np.ndarray,
    reference: np.ndarray,
    weights: Sequence[Sequence[float]],
) -> list[np.ndarray]:
    """BLEU of P pairs for each of some weights, ``(P,)`` each.

    Parameters
    ----------
    matches, totals : ndarray
        ``(P, 5)``: shared n-grams, and n-grams of the response.
    length, reference : ndarray
        ``(P,)``: words of the response, and of the reference that is closest in length.
    weights : sequence of sequence of float
        All equally long.
    """
    orders = len(weights[0])
    totals = np.maximum(totals, 1)
    exact = matches / totals
    # method 4: the j-th order without a match has ln(length) / (2^j K) matches, 0 for one word
    missing = matches[:, :orders] == 0
    credit = np.log(np.maximum(length, 1))[:, None] / (2.0 ** missing.cumsum(1) * K)
    filled = np.where(missing, credit / totals[:, :orders], exact[:, :orders])
    # method 5: the mean of the order before (already such a mean), this one, and the next
    following = np.concatenate([filled[:, 1:], exact[:, COUNTED - 1 :]], 1)
    before, smoothed = filled[:, 0] + 1, np.empty_like(filled)
    for order in range(orders):
        before = smoothed[:, order] = (before + filled[:, order] + following[:, order]) / 3
    shorter = np.minimum(0, 1 - reference / np.maximum(length, 1))
    logs = np.log(smoothed)
    shares_a_word = matches[:, 0] > 0  # none: NLTK gives 0 before it smoothes
    return [
        np.where(shares_a_word, np.exp(logs @ w + shorter), 0.0) for w in map(np.array, weights)
    ]
