"""Similarity of two sentences by the vectors of their words, for many sentences at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import numpy as np

from uncollapse.data.tokenizer import EOS, SPECIAL_TOKENS
from uncollapse.data.vectors import Vectors
from uncollapse.evaluation.responses.sets import ResponseSets, Words

UNKNOWN_SCALE = 0.1  # of the random vectors of words that have none


@dataclass(frozen=True)
class Lexicon:
    """Words by number, their vectors ``(W, D)``, and those of unit length."""

    ids: dict[str, int]
    matrix: np.ndarray
    unit: np.ndarray  # zeros stay zeros
    missing: str  # how many words have no vector

    @classmethod
    def known(cls, sets: ResponseSets, vectors: Vectors) -> Lexicon:
        """The words that have a vector; one of zeros points nowhere, and counts as none."""
        rows = {word: vectors.words[word] for word in _words(sets) if word in vectors.words}
        matrix = vectors.matrix[list(rows.values())].astype(np.float64)
        pointing = np.linalg.norm(matrix, axis=1) > 0
        kept = [word for word, points in zip(rows, pointing, strict=True) if points]
        return cls._of(sets, kept, matrix[pointing], set(kept))

    @classmethod
    def complete(cls, sets: ResponseSets, vectors: Vectors) -> Lexicon:
        """All words and ``</s>``, with random vectors for those that have none."""
        words = list(dict.fromkeys([SPECIAL_TOKENS[EOS], *_words(sets)]))
        dim = vectors.matrix.shape[1]
        rows = [
            vectors.matrix[vectors.words[word]] if word in vectors.words else _random(word, dim)
            for word in words
        ]
        return cls._of(sets, words, np.array(rows, np.float64), set(vectors.words))

    @classmethod
    def _of(
        cls, sets: ResponseSets, words: list[str], matrix: np.ndarray, known: set[str]
    ) -> Lexicon:
        every = list(chain(*chain(*sets.hypotheses), *chain(*sets.references)))
        absent = sum(word not in known for word in every)
        missing = f"{absent / max(len(every), 1):.2%} of words, which have no vector,"
        return cls(
            {word: i for i, word in enumerate(words)}, matrix, np.nan_to_num(_unit(matrix)), missing
        )

    def words_of(self, words: Words) -> np.ndarray:
        """Numbers of the words of a sentence that are in the lexicon."""
        return np.array([self.ids[word] for word in words if word in self.ids], np.int64)


class Side:
    """The sentences of one side of a context that have words, and their vectors.

    Attributes
    ----------
    lengths : ndarray
        ``(S,)``, of all sentences; the other attributes are of the N that are not empty.
    written : ndarray
        ``(N,)``: which these are.
    vectors, unit : ndarray
        ``(words, D)``: one sentence after the other.
    starts : ndarray
        ``(N,)``: where each begins.
    """

    def __init__(self, lexicon: Lexicon, sentences: list[np.ndarray]) -> None:
        self.lengths = np.array([len(ids) for ids in sentences])
        self.written = np.flatnonzero(self.lengths)
        ids = np.concatenate(sentences)
        self.vectors, self.unit = lexicon.matrix[ids], lexicon.unit[ids]
        lengths = self.lengths[self.written]
        self.starts = np.cumsum(lengths) - lengths

    def average(self) -> np.ndarray:
        """Mean vector of each sentence, ``(S, D)``; zeros without words."""
        sums = self._reduce(np.add, 0.0)
        return sums / np.maximum(self.lengths, 1)[:, None]

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Greatest and smallest value in each dimension, ``(S, D)``; ∓infinity without words."""
        return self._reduce(np.maximum, -np.inf), self._reduce(np.minimum, np.inf)

    def extrema(self) -> np.ndarray:
        """In each dimension the value of greatest magnitude, ``(S, D)``; zeros without words."""
        values = farther(*self.bounds())
        values[self.lengths == 0] = 0
        return values

    def _reduce(self, function: np.ufunc, empty: float) -> np.ndarray:
        result = np.full((len(self.lengths), self.vectors.shape[1]), empty)
        if len(self.written):
            result[self.written] = function.reduceat(self.vectors, self.starts)
        return result


def farther(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Of two values the one of greater magnitude."""
    return np.where(high >= np.abs(low), high, low)


Similarity = Callable[[Side, Side], np.ndarray]


def by_cosine(summary: Callable[[Side], np.ndarray]) -> Similarity:
    """Cosines of one vector a sentence, ``(S, R)``; NaN for a vector of zeros."""

    def similarity(hypotheses: Side, references: Side) -> np.ndarray:
        return _unit(summary(hypotheses)) @ _unit(summary(references)).T

    return similarity


def greedy(hypotheses: Side, references: Side) -> np.ndarray:
    """Symmetric greedy matching, ``(S, R)``; NaN where a side has no words.

    A word whose vector is zeros has cosine 0 with all others.
    """
    result = np.full((len(hypotheses.lengths), len(references.lengths)), np.nan)
    if not (len(hypotheses.written) and len(references.written)):
        return result
    cosines = hypotheses.unit @ references.unit.T  # (words, words)
    best_reference = np.maximum.reduceat(cosines, references.starts, axis=1)
    best_hypothesis = np.maximum.reduceat(cosines, hypotheses.starts, axis=0)
    ours = np.add.reduceat(best_reference, hypotheses.starts, axis=0)
    theirs = np.add.reduceat(best_hypothesis, references.starts, axis=1)
    ours /= hypotheses.lengths[hypotheses.written][:, None]
    theirs /= references.lengths[references.written]
    result[np.ix_(hypotheses.written, references.written)] = (ours + theirs) / 2
    return result


SIMILARITIES: dict[str, Similarity] = {
    "average": by_cosine(Side.average),
    "extrema": by_cosine(Side.extrema),
    "greedy": greedy,
}


def compare(
    sets: ResponseSets,
    lexicon: Lexicon,
    read_hypothesis: Callable[[Words], np.ndarray],
    read_reference: Callable[[Words], np.ndarray],
    similarities: dict[str, Similarity],
) -> dict[str, np.ndarray]:
    """Each similarity of all pairs, ``(P,)``, in the order of `ResponseSets.pairs`."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in similarities}
    for group, references in zip(sets.hypotheses, sets.references, strict=True):
        ours = Side(lexicon, [read_hypothesis(words) for words in group])
        theirs = Side(lexicon, [read_reference(words) for words in references])
        for name, similarity in similarities.items():
            parts[name].append(similarity(ours, theirs).ravel())
    return {name: np.concatenate(values) for name, values in parts.items()}


# --- inside -----------------------------------------------------------------------------------


def _words(sets: ResponseSets) -> dict[str, None]:
    """The different words, in the order in which they are met."""
    return dict.fromkeys(chain(*chain(*sets.hypotheses), *chain(*sets.references)))


def _random(word: str, dim: int) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).normal(0, UNKNOWN_SCALE, dim)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; NaN in place of zeros."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.full(rows.shape, np.nan), where=lengths > 0)
