"""How much responses repeat: themselves, one another, and what is said most often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from uncollapse.evaluation.metric import (
    Metric,
    no_figure,
    ratio_over_sentences,
)
from uncollapse.evaluation.responses.sets import (
    NO_CONTEXT,
    ResponseSets,
    Words,
    mean_over_contexts,
)

GENERIC = 20  # responses that count as generic
ORDERS = (1, 2)


def response_diversity(
    sets: ResponseSets, frequent: Sequence[Sequence[str]] | None = None
) -> dict[str, Metric]:
    """Figures of the samples alone; the references do not matter.

    Parameters
    ----------
    frequent : sequence of sequence of str, optional
        What counts as generic: the most frequent training responses, see
        `frequent_responses`. Without it there is no ``generic_share``.

    Returns
    -------
    dict of str to Metric
        ``distinct_1_intra``, ``distinct_2_intra`` (different n-grams / n-grams of one response,
        mean over responses that have any), ``distinct_1_inter``, ``distinct_2_inter`` (of all
        samples of a context together, mean over contexts that have any), ``unique_share``
        (different samples of a context / its samples), ``response_length`` (words),
        ``generic_share``. The figures of one context (``inter``, ``unique_share``) fall with its
        number of samples.

    References
    ----------
    Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models";
    Gu et al. 2019, "DialogWAE", section 4.2 (within and between responses).
    """
    result: dict[str, Metric] = {}
    for order in ORDERS:
        result[f"distinct_{order}_intra"] = _within(sets, order)
        result[f"distinct_{order}_inter"] = _between(sets, order)
    shares = [len({tuple(words) for words in group}) / len(group) for group in sets.hypotheses]
    definition = "different responses / responses to one context"
    result["unique_share"] = mean_over_contexts(
        np.array(shares), "share", "exact", definition, sets
    )
    lengths = [[len(words) for words in group] for group in sets.hypotheses]
    definition = "words of a response"
    result["response_length"] = _over_responses(lengths, "words", "exact", definition, sets)
    if frequent is not None:
        result["generic_share"] = _generic(sets, frequent)
    return result


def frequent_responses(responses: Iterable[Sequence[str]], count: int = GENERIC) -> list[Words]:
    """The most frequent of some responses, case and punctuation aside; ties by spelling.

    Parameters
    ----------
    responses : iterable of sequence of str
        Of the training data, as words. Those of punctuation alone do not count.
    count : int

    Returns
    -------
    list of list of str
        Lower-case words, without punctuation; the most frequent response first.
    """
    counts = Counter(_plain(words) for words in responses)
    counts.pop((), None)
    ranked = sorted(counts, key=lambda words: (-counts[words], words))
    return [list(words) for words in ranked[:count]]


# --- inside -----------------------------------------------------------------------------------


def _within(sets: ResponseSets, order: int) -> Metric:
    shares = [
        [len(set(grams)) / len(grams) for words in group if (grams := _ngrams(words, order))]
        for group in sets.hypotheses
    ]
    definition = f"different {order}-grams / {order}-grams of one response"
    how = f"responses without any {order}-gram left out"
    return _over_responses(shares, "share", how, definition, sets)


def _between(sets: ResponseSets, order: int) -> Metric:
    shares = np.full(len(sets), np.nan)
    for row, group in enumerate(sets.hypotheses):
        found = [gram for words in group for gram in _ngrams(words, order)]
        if found:
            shares[row] = len(set(found)) / len(found)
    definition = f"different {order}-grams / {order}-grams of all samples of one context"
    return mean_over_contexts(shares, "share", "exact", definition, sets)


def _generic(sets: ResponseSets, frequent: Sequence[Sequence[str]]) -> Metric:
    known = {_plain(words) for words in frequent} - {()}
    hits = [[float(_plain(words) in known) for words in group] for group in sets.hypotheses]
    definition = "share of responses that are among the most frequent of training"
    how = f"the {len(known):,} most frequent, case and punctuation aside"
    return _over_responses(hits, "share", how, definition, sets)


def _over_responses(
    groups: Sequence[Sequence[float]], unit: str, how: str, definition: str, sets: ResponseSets
) -> Metric:
    """Mean over responses of one number each, by context; its error is over contexts."""
    sums, counts = np.array([sum(group) for group in groups]), np.array([*map(len, groups)])
    if not counts.any():
        return no_figure(unit, f"{NO_CONTEXT}; {how}", definition)
    value, error = ratio_over_sentences(sums, counts)
    responses = f"mean over {int(counts.sum()):,} responses to {len(sets):,} contexts"
    estimator = f"{how}; {responses}; error over contexts by the delta method"
    return Metric(value, unit, error, estimator, len(sets), definition)


def _ngrams(words: Words, order: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[start:] for start in range(order)), strict=False))


def _plain(words: Sequence[str]) -> tuple[str, ...]:
    """Lower-case, and nothing but letters and digits."""
    kept = ("".join(filter(str.isalnum, word)) for word in words)
    return tuple(word.lower() for word in kept if word)
