"""What is said in one group of sentences and not in the others: words, and names from them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

NOTABLE = 0.5  # of its own error, that a log-odds must exceed: chance alone gives as much
DOMINANT = 0.8  # of a group's labels, that one must have to name the group
FEWEST, MOST = 2, 4  # words of a name
_EDGES = '.,!?;:"()[]{}“”„«»…'
_LETTER = re.compile(r"[^\W\d_]")


def distinctive_words(
    texts: Sequence[str], groups: np.ndarray, count: int, *, unknown: str = "<unk>"
) -> list[list[str]]:
    """The words of every group that are more frequent in it than elsewhere, best first.

    Words are ranked by the log-odds of the group against all other sentences over its standard
    error, under a Dirichlet prior of the whole corpus's own counts. That prior pulls what
    everybody says, and what somebody said once, towards no difference.

    Parameters
    ----------
    texts : sequence of str
        N. Words are what stands between spaces, in lower case and without punctuation.
    groups : ndarray
        ``(N,)`` int: 0 … G − 1.
    count : int
        Words a group at most.
    unknown : str
        The unknown word, which tells nothing.

    Returns
    -------
    list of list of str
        Of G groups; empty where nothing sets a group apart.

    References
    ----------
    Monroe et al. 2008, "Fightin' Words: Lexical Feature Selection and Evaluation for
    Identifying the Content of Political Conflict", section 3.5.
    """
    result: list[list[str]] = [[] for _ in range(int(groups.max()) + 1)]
    spoken = [_words(text, unknown.lower()) for text in texts]
    vocabulary = sorted({word for words in spoken for word in words})
    if len(vocabulary) < 2:  # the odds of the only word are infinite everywhere
        return result
    number = {word: place for place, word in enumerate(vocabulary)}
    word = np.array([number[word] for words in spoken for word in words], np.int64)
    group = np.repeat(groups, [len(words) for words in spoken])
    # only pairs that occur: groups times words can be many
    pairs, here = np.unique(group * len(vocabulary) + word, return_counts=True)
    group, word = np.divmod(pairs, len(vocabulary))
    everywhere = np.bincount(word, here)[word]
    size = np.bincount(group, here)[group]
    total = int(here.sum())
    own, others = here + everywhere, 2 * everywhere - here  # counts with those of the prior
    odds = np.log(own / (size + total - own))
    odds -= np.log(others / (2 * total - size - others))
    score = odds / np.sqrt(1 / own + 1 / others)
    for place in np.lexsort((word, -score, group)):  # ties go by spelling
        words = result[group[place]]
        if score[place] > NOTABLE and len(words) < count:
            words.append(vocabulary[word[place]])
    return result


def suggest_names(
    words: Sequence[Sequence[str]], labels: Sequence[Mapping[str, int]], codes: Sequence[str]
) -> list[str]:
    """A name for every group, no two the same; earlier groups get the shorter ones.

    Parameters
    ----------
    words : sequence of sequence of str
        Distinctive words of every group.
    labels : sequence of mapping
        How many of its sentences have which label.
    codes : sequence of str
        What sets groups apart if nothing else does.

    Returns
    -------
    list of str
        The label that four in five labelled sentences of the group have, or else its first two
        words; both with as many more words as it takes.
    """
    taken: set[tuple[str, ...]] = set()
    names = []
    for own, counts, code in zip(words, labels, codes, strict=True):
        for name in _candidates(own, counts, code):
            key = tuple(sorted(name.split()))  # the same words in another order are no other name
            if key not in taken:
                break
        taken.add(key)
        names.append(name)
    return names


def _candidates(words: Sequence[str], labels: Mapping[str, int], code: str) -> list[str]:
    best = max(labels, key=lambda label: labels[label], default=None)
    if best is not None and labels[best] >= DOMINANT * sum(labels.values()):
        longer = [f"{best}: {' '.join(words[:count])}" for count in range(1, MOST + 1) if words]
        return [best, *longer, f"{best} ({code})"]
    if not words:
        return [f"cluster {code}"]
    found = [" ".join(words[:count]) for count in range(FEWEST, MOST + 1)]
    return [*found, f"{found[0]} ({code})"]


def _words(text: str, unknown: str) -> list[str]:
    stripped = (word.strip(_EDGES) for word in text.lower().split())
    return [word for word in stripped if word != unknown and _LETTER.search(word)]
