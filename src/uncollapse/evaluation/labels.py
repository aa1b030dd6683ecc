"""Labelled sentences: which there are, draws of some, and a held-out part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uncollapse.data.corpus import Corpus
from uncollapse.errors import UserError

MOST_LABELS = 10_000  # that a neural classifier learns from


@dataclass(frozen=True)
class Labelled:
    """The labelled sentences of a corpus, n of N.

    Attributes
    ----------
    rows : ndarray
        ``(n,)`` int64: where they are in the corpus.
    labels : ndarray
        ``(n,)`` int64: their classes.
    names : list of str
        Name of each class.
    """

    rows: np.ndarray
    labels: np.ndarray
    names: list[str]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: np.ndarray) -> Labelled:
        return Labelled(self.rows[chosen], self.labels[chosen], self.names)

    @property
    def most_frequent(self) -> float:
        """Share of the most frequent class: what guessing alone gets right."""
        return float(np.bincount(self.labels).max() / len(self))

    def sample(self, most: int, seed: int) -> Labelled:
        """At most so many of them, drawn at random."""
        return self[np.random.default_rng(seed).permutation(len(self))[:most]]

    def numbered_as(self, names: list[str]) -> Labelled:
        """The same with the numbers that another corpus gives to the same class names.

        A class that is not among ``names`` gets the number ``len(names)``.
        """
        place = {name: number for number, name in enumerate(names)}
        numbers = np.array([place.get(name, len(names)) for name in self.names], np.int64)
        return Labelled(self.rows, numbers[self.labels], names)


def labelled_sentences(corpus: Corpus, what: str) -> Labelled:
    """Find the labelled sentences of a corpus.

    Parameters
    ----------
    corpus : Corpus
    what : str
        What an error calls it, e.g. ``"the test data"``.

    Raises
    ------
    UserError
        If there are none.
    """
    labels = corpus.labels
    if labels is None:
        raise UserError(f"{what} has no labels; name their column with --label-column")
    rows = np.flatnonzero(labels >= 0)
    if not len(rows):
        raise UserError(f"no sentence of {what} has a label; is --label-column the right column?")
    return Labelled(rows, labels[rows], corpus.label_names)


def several_classes(corpus: Corpus, what: str) -> Labelled:
    """Find the labelled sentences of a corpus, as `labelled_sentences` does.

    Raises
    ------
    UserError
        Also if there is only one class.
    """
    found = labelled_sentences(corpus, what)
    if (found.labels == found.labels[0]).all():
        name = found.names[found.labels[0]]
        raise UserError(f"{what} has labels of one class only, {name!r}; two are needed")
    return found


def balanced_order(labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A random order of ``(n,)`` labels whose every beginning is as balanced as can be.

    The classes take turns until one is used up, then the others go on.
    """
    order = random.permutation(len(labels))
    grouped = np.argsort(labels[order], kind="stable")
    counts = np.bincount(labels)
    turn = np.empty(len(labels), np.int64)  # how many of its class come before
    turn[grouped] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return order[np.argsort(turn, kind="stable")]


def held_out(labels: np.ndarray, every: int) -> np.ndarray:
    """Mark one in ``every`` of ``(n,)`` labels, in each class alike; ``(n,)`` bool.

    Counting starts in the middle: so a lone first or last class is not held out whole.
    """
    marked = np.zeros(len(labels), bool)
    marked[np.argsort(labels, kind="stable")[every // 2 :: every]] = True
    return marked
