"""Words of like meaning: cosines between word vectors of responses and of references."""

from __future__ import annotations

import numpy as np

from uncollapse.data.tokenizer import EOS, SPECIAL_TOKENS
from uncollapse.data.vectors import Vectors
from uncollapse.evaluation.metric import Metric
from uncollapse.evaluation.responses.sets import ResponseSets, Words, mean_over_contexts
from uncollapse.evaluation.responses.similarity import (
    SIMILARITIES,
    Lexicon,
    Side,
    by_cosine,
    compare,
    farther,
    greedy,
)

POSITIONS = 40  # what DialogWAE's decoder writes, and where it cuts a reference

COSINES = {
    "average": "cosine of mean word vectors",
    "extrema": "cosine of the word vectors' extrema, in each dimension the value of greatest "
    "magnitude with its sign",
    "greedy": "greedy similarity, the mean over the words of one side of the greatest cosine with "
    "a word of the other, averaged over both sides",
}
PRECISION = "mean over samples of the best reference's"
RECALL = "mean over references of the best sample's"

WAE = {
    "average": f"{COSINES['average']}; the words alone, as in DialogWAE",
    "extrema": f"{COSINES['extrema']}, as in DialogWAE's code: 0 joins the maximum and the "
    f"vector of {SPECIAL_TOKENS[EOS]} plus 1 the minimum, for references and for responses of "
    f"fewer than {POSITIONS} words",
    "greedy": f"{COSINES['greedy']}; unmasked as in DialogWAE's code: all {POSITIONS} positions "
    f"of the decoder, here with {SPECIAL_TOKENS[EOS]} at each after the response, against the "
    f"reference and its one {SPECIAL_TOKENS[EOS]}",
}


def response_embeddings(sets: ResponseSets, vectors: Vectors) -> dict[str, Metric]:
    """Similarity of samples and references by word vectors, in three ways.

    Words without a vector are left out. A pair of which one side has no word left has no
    figure; it is left out as well, and the estimators say how many are.

    Returns
    -------
    dict of str to Metric
        ``embedding_average``, ``…_extrema``, ``…greedy`` (cosines; mean over samples of the
        best reference), the same with ``_recall`` (mean over references of the best sample),
        and ``embedding_average_cvae_precision``, ``…_recall``, ``embedding_extrema_cvae_…``,
        which are (1 + cosine) / 2 by the same two rules.

    References
    ----------
    Rus and Lintean 2012 (greedy, symmetric); Forgues et al. 2014 (extrema); Liu et al. 2016,
    "How NOT To Evaluate Your Dialogue System"; Zhao et al. 2017, section 5.2 (cvae).
    """
    lexicon = Lexicon.known(sets, vectors)
    cosines = compare(sets, lexicon, lexicon.words_of, lexicon.words_of, SIMILARITIES)
    pairs = sets.pairs()

    def summarise(name: str, what: str, values: np.ndarray, unit: str) -> list[Metric]:
        without = int(np.isnan(values).sum())
        how = (
            f"vectors: {vectors.source}; {lexicon.missing} left out; {without:,} of "
            f"{len(values):,} pairs without a figure, as a side has no word with a vector"
        )
        rules = ((PRECISION, pairs.precision), (RECALL, pairs.recall))
        return [
            mean_over_contexts(take(values), unit, how, f"{rule} {what}{COSINES[name]}", sets)
            for rule, take in rules
        ]

    result: dict[str, Metric] = {}
    for name, values in cosines.items():
        precision, recall = summarise(name, "", values, "cosine")
        result |= {f"embedding_{name}": precision, f"embedding_{name}_recall": recall}
    for name in ("average", "extrema"):
        unit = "(1 + cosine) / 2"
        precision, recall = summarise(name, "(1 + c) / 2, c the ", (1 + cosines[name]) / 2, unit)
        result[f"embedding_{name}_cvae_precision"] = precision
        result[f"embedding_{name}_cvae_recall"] = recall
    return result


def response_embeddings_wae(sets: ResponseSets, vectors: Vectors) -> dict[str, Metric]:
    """The three similarities by the protocol of DialogWAE, which iVAE and TWR-VAE follow.

    The best sample counts. Words without a vector get one from N(0, 0.1²), always the same
    for a word; the mean vector of no words is 0, and so are its cosines. Both sides are cut at
    40 positions. The original decoder goes on after ``</s>``, and greedy compares what it
    writes there as well; as that is no part of a response, ``</s>`` stands for each such word.

    Returns
    -------
    dict of str to Metric
        ``embedding_average_wae``, ``embedding_extrema_wae``, ``embeddinggreedy_wae``.

    References
    ----------
    Gu et al. 2019, "DialogWAE: Multimodal Response Generation with Conditional Wasserstein
    Auto-Encoder", section 4.2, and the code published with it.
    """
    lexicon = Lexicon.complete(sets, vectors)

    def response(words: Words) -> np.ndarray:
        return lexicon.words_of(words[:POSITIONS])

    def reference(words: Words) -> np.ndarray:
        return lexicon.words_of(words[: POSITIONS - 1])

    end = lexicon.ids[SPECIAL_TOKENS[EOS]]

    def decoded(words: Words) -> np.ndarray:
        ids = response(words)
        return np.concatenate([ids, np.full(POSITIONS - len(ids), end)])

    def ended(words: Words) -> np.ndarray:
        return np.append(reference(words), end)

    def extrema(side: Side) -> np.ndarray:
        high, low = side.bounds()
        masked = side.lengths < POSITIONS  # only a response of all 40 words has no such place
        high[masked] = np.maximum(high[masked], 0)
        low[masked] = np.minimum(low[masked], lexicon.matrix[end] + 1)
        return farther(high, low)

    similarities = {"average": by_cosine(Side.average), "extrema": by_cosine(extrema)}
    cosines = compare(sets, lexicon, response, reference, similarities)
    cosines = {name: np.nan_to_num(values) for name, values in cosines.items()}
    cosines |= compare(sets, lexicon, decoded, ended, {"greedy": greedy})
    how = f"vectors: {vectors.source}; {lexicon.missing} drawn from N(0, 0.1²), fixed by the word"
    recall = sets.pairs().recall
    return {
        f"embedding_{name}_wae": mean_over_contexts(
            recall(values), "cosine", how, f"{RECALL} {WAE[name]}", sets
        )
        for name, values in cosines.items()
    }
