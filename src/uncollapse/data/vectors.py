"""Word vectors: read from a GloVe or word2vec text file, or trained on a corpus."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from uncollapse.errors import UserError

SMOOTHING = 0.75  # of the context distribution; Levy, Goldberg and Dagan 2015


@dataclass(frozen=True)
class Vectors:
    """Vectors of words.

    Attributes
    ----------
    words : dict of str to int
        Word to row of ``matrix``; several words may share one.
    matrix : ndarray
        ``(W, D)`` float32.
    source : str
        Where they are from.
    """

    words: dict[str, int]
    matrix: np.ndarray
    source: str


def read_vectors(
    path: str | Path, words: Collection[str] | None = None, dim: int | None = None
) -> Vectors:
    """Read a text file of a word and its numbers a line, plain or ``.gz``.

    Parameters
    ----------
    path : str or Path
        GloVe's format, or word2vec's, which has a first line ``words dimensions``.
    words : collection of str, optional
        Only these. One that the file lacks gets the vector of its lower-case form, if there.
        Without it: every word of the file.
    dim : int, optional
        The width that the vectors must have.

    Raises
    ------
    UserError
        For a file that cannot be read or has no vectors, and, naming the line, for a line of
        another width or, among wanted words, with what is no finite number.
    """
    path = Path(path)
    wanted = None if words is None else set(words)
    kept = None if wanted is None else {form.encode() for w in wanted for form in (w, w.lower())}
    width = None
    rows: dict[bytes, np.ndarray] = {}
    for number, line in enumerate(_lines(path), 1):
        word, _, rest = line.rstrip().partition(b" ")
        if not word:
            continue
        found = rest.count(b" ") + 1 if rest else 0
        if number == 1 and found == 1 and word.isdigit() and rest.isdigit():
            width = int(rest)
            _check_width(path, width, dim)
            continue
        if width is None:
            if not found:
                raise UserError(f"{path}, line {number}: a word without numbers")
            width = found
            _check_width(path, width, dim)
        if found != width:
            if found > width and _has_words(rest, found - width):
                continue  # GloVe has a few "words" of several words, such as ". . ."
            raise UserError(f"{path}, line {number}: {found} numbers, expected {width}")
        if (kept is None or word in kept) and word not in rows:
            rows[word] = _numbers(rest, path, number)
    if width is None:
        raise UserError(f"{path} is empty; expected a word and its numbers a line")
    places = {word.decode(errors="replace"): row for row, word in enumerate(rows)}
    matrix = np.array([*rows.values()], np.float32).reshape(len(rows), width)
    if wanted is None:
        return Vectors(places, matrix, path.name)
    forms = {word: word if word in places else word.lower() for word in sorted(wanted)}
    chosen = {word: places[form] for word, form in forms.items() if form in places}
    used = sorted(set(chosen.values()))  # not the lower-case forms that nothing fell back on
    new_row = {row: new for new, row in enumerate(used)}
    words_found = {word: new_row[row] for word, row in chosen.items()}
    return Vectors(words_found, matrix[used], path.name)


def corpus_vectors(
    sentences: Sequence[Sequence[str]], dim: int = 100, window: int = 5, seed: int = 0
) -> Vectors:
    """Vectors from the company that words keep: positive PMI, reduced by an SVD.

    Parameters
    ----------
    sentences : sequence of sequence of str
    dim : int
        At most as many as there are words.
    window : int
        Words to the left and to the right that are company, all alike.
    seed : int
        Of the randomised SVD; the result depends on nothing else.

    Returns
    -------
    Vectors
        Left singular vectors times the square root of the singular values. A word that
        occurs with no other word more often than by chance has no vector.

    Raises
    ------
    UserError
        For sentences in which no two words stand together more often than by chance, and for
        settings below 1.

    References
    ----------
    Levy, Goldberg and Dagan 2015, "Improving Distributional Similarity with Lessons Learned
    from Word Embeddings".
    """
    from sklearn.utils.extmath import randomized_svd

    for name, value in (("dim", dim), ("window", window)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")
    ids: dict[str, int] = {}
    flat = np.array([ids.setdefault(word, len(ids)) for word in chain(*sentences)], np.int64)
    sentence = np.repeat(np.arange(len(sentences)), [len(words) for words in sentences])
    association = _positive_pmi(flat, sentence, len(ids), window)
    if association is None or not association.nnz:
        raise UserError(
            "no vectors can be trained: no two words of the corpus stand together more often "
            "than by chance"
        )
    left, values, _ = randomized_svd(association, min(dim, len(ids)), random_state=seed)
    matrix = (left * np.sqrt(values)).astype(np.float32)
    known = np.flatnonzero(association.getnnz(axis=1))
    names = list(ids)
    words = {names[row]: new for new, row in enumerate(known)}
    source = f"trained on the corpus (PPMI, SVD), window {window}, {matrix.shape[1]} dimensions"
    return Vectors(words, matrix[known], source)


# --- inside -----------------------------------------------------------------------------------


def _lines(path: Path) -> Iterator[bytes]:
    """Lines as bytes: words may hold what Python takes for the end of a line of text."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            yield from file
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise UserError(f"{path} is damaged or no gzip file") from None
    except OSError as error:
        raise UserError(f"cannot read the vectors {path}: {error.strerror}") from None


def _check_width(path: Path, width: int, dim: int | None) -> None:
    if dim is not None and width != dim:
        raise UserError(f"vectors of {path} have {width} numbers, but the embedding has {dim}")


def _has_words(rest: bytes, extra: int) -> bool:
    """Whether the fields that are too many are not all numbers."""
    return not all(_is_number(field) for field in rest.split(b" ")[:extra])


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _numbers(rest: bytes, path: Path, number: int) -> np.ndarray:
    fields = rest.split(b" ")
    try:
        values = np.array([float(field) for field in fields], np.float32)
        finite = np.isfinite(values)
    except ValueError:
        values, finite = np.empty(0), np.array([_is_number(field) for field in fields])
    if not finite.all():
        shown = fields[int(finite.argmin())].decode(errors="replace")
        raise UserError(f"{path}, line {number}: {shown!r} is not a number")
    return values


def _positive_pmi(flat: np.ndarray, sentence: np.ndarray, size: int, window: int):
    """PPMI of words and the words around them, sparse ``(W, W)``; None if there are none."""
    from scipy.sparse import csr_matrix

    left, right = [], []
    for distance in range(1, window + 1):
        together = np.flatnonzero(sentence[distance:] == sentence[:-distance])
        left.append(flat[together])
        right.append(flat[together + distance])
    one, other = np.concatenate(left), np.concatenate(right)
    if not len(one):
        return None
    pairs, counts = np.unique(one * size + other, return_counts=True)
    above = csr_matrix((counts.astype(float), (pairs // size, pairs % size)), (size, size))
    joint = (above + above.T).tocsr()
    word = np.asarray(joint.sum(1)).ravel()
    context = word**SMOOTHING
    rows = np.repeat(np.arange(size), np.diff(joint.indptr))
    # ln p(w, c) / (p(w) p_α(c)), p_α the smoothed distribution of contexts
    ratio = joint.data * context.sum() / (word[rows] * context[joint.indices])
    joint.data = np.maximum(np.log(ratio), 0)
    joint.eliminate_zeros()
    return joint
