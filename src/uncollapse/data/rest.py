"""Some sentences of a corpus, and all the others, copied without long lists of places."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from uncollapse.data.encoding import Encoded, LabelColumn
from uncollapse.data.permutation import random_order
from uncollapse.data.tokenizer import UNK
from uncollapse.errors import UserError

_ROWS = 1 << 16  # gone over at a time
_TOKENS = 1 << 23


def chosen_tokens(
    tokens: np.ndarray, offsets: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and offsets of some rows alone, in their order."""
    ends = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(offsets[rows + 1] - offsets[rows], out=ends[1:])
    chosen = np.empty(ends[-1], tokens.dtype)
    for start in range(0, len(rows), _ROWS):
        own = ends[start : start + _ROWS + 1]
        # where each kept token stands in the whole: its row's start, plus its place in the row
        moved = offsets[rows[start : start + _ROWS]] - own[:-1]
        places = np.repeat(moved, np.diff(own)) + np.arange(own[0], own[-1])
        chosen[own[0] : own[-1]] = tokens[places]
    return chosen, ends


def longest_of(offsets: np.ndarray) -> int:
    """Words of the longest sentence, 0 where there is none."""
    starts = range(0, len(offsets) - 1, _ROWS)
    return max((int(np.diff(offsets[i : i + _ROWS + 1]).max()) for i in starts), default=0)


def count_unknown(tokens: np.ndarray) -> int:
    """Tokens that are the unknown word."""
    starts = range(0, len(tokens), _TOKENS)
    return sum(int(np.count_nonzero(tokens[i : i + _TOKENS] == UNK)) for i in starts)


def held_out_rows(
    sentences: int, dialogue: np.ndarray | None, share: float, most: int
) -> np.ndarray:
    """Rows of `Corpus.hold_out`, ascending: of sentences, or of whole dialogues."""
    groups = None if dialogue is None else np.unique(dialogue, return_inverse=True)[1]
    sizes = None if groups is None else np.bincount(groups)
    count = sentences if sizes is None else len(sizes)
    if count < 2:
        what = "sentence" if dialogue is None else "dialogue"
        raise UserError(f"one {what} cannot be split into training and validation")
    size = max(1, min(most, round(share * sentences)))
    order = random_order(count, np.random.SeedSequence(0))
    if groups is None or sizes is None:
        return np.sort(order[: min(size, count - 1)]).astype(np.int64)
    fitting = int(np.searchsorted(np.cumsum(sizes[order[:]]), size, side="right"))
    chosen = np.zeros(count, bool)
    chosen[order[: min(max(fitting, 1), count - 1)]] = True
    return np.flatnonzero(chosen[groups])


def rest_in_memory(encoded: Encoded, rows: np.ndarray) -> Encoded:
    """All but some rows of lone sentences; see `rest_of`."""
    parts = {name: np.concatenate([*part]) for name, part in rest_of(encoded, rows).items()}
    columns = {
        name: LabelColumn(parts[f"labels-{number}"], column.names)
        for number, (name, column) in enumerate(encoded.columns.items())
    }
    return Encoded(parts["tokens"], parts["offsets"], columns, None, encoded.report)


def rest_of(encoded: Encoded, rows: np.ndarray) -> dict[str, Iterator[np.ndarray]]:
    """What is left without some rows, part by part.

    Parameters
    ----------
    encoded : Encoded
    rows : (R,) int64
        What to leave out, ascending.

    Returns
    -------
    dict
        ``tokens``, ``offsets``, and by number of a column its ``labels-0``, ``labels-1``, ….
    """
    begins, ends = [0, *(rows + 1).tolist()], [*rows.tolist(), len(encoded.offsets) - 1]
    runs = [(begin, end) for begin, end in zip(begins, ends, strict=True) if begin < end]
    tokens, offsets = encoded.tokens, encoded.offsets
    parts = {
        "tokens": (tokens[offsets[begin] : offsets[end]] for begin, end in runs),
        "offsets": _offsets(offsets, runs),
    }
    for number, column in enumerate(encoded.columns.values()):
        parts[f"labels-{number}"] = _slices(column.ids, runs)
    return parts


def _slices(values: np.ndarray, runs: list[tuple[int, int]]) -> Iterator[np.ndarray]:
    return (values[begin:end] for begin, end in runs)


def _offsets(offsets: np.ndarray, runs: list[tuple[int, int]]) -> Iterator[np.ndarray]:
    """Where each sentence begins and ends when the tokens of others are gone."""
    place = np.zeros(1, np.int64)
    yield place
    for begin, end in runs:
        moved = offsets[begin + 1 : end + 1] - offsets[begin] + place
        place = moved[-1:]
        yield moved
