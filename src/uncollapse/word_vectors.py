"""Embeddings that start from word vectors which others have trained."""

from __future__ import annotations

import torch

from uncollapse.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from uncollapse.data.vectors import read_vectors
from uncollapse.errors import UserError
from uncollapse.model import Model


@torch.no_grad()
def start_from_vectors(model: Model, tokenizer: Tokenizer, path: str) -> int:
    """Give every table of words of a model the vectors of the words that a file knows.

    All other words, and the special tokens, keep the start that they have.

    Parameters
    ----------
    path : str
        A file of `read_vectors`.

    Returns
    -------
    int
        Words that the file knows.

    Raises
    ------
    UserError
        For a file that cannot be read, or whose vectors have another width than a table.
    """
    widths = {table.embedding_dim for table in model.embeddings()}
    if len(widths) > 1:
        listed = ", ".join(map(str, sorted(widths)))
        raise UserError(f"data.vectors needs embeddings of one width, but they have {listed}")
    words = tokenizer.tokens[len(SPECIAL_TOKENS) :]
    found = read_vectors(path, set(words), widths.pop())
    rows = [row for row, word in enumerate(words, len(SPECIAL_TOKENS)) if word in found.words]
    if not rows:
        raise UserError(f"{path} has no vector for any of the {len(words):,} words")
    places = [found.words[tokenizer.tokens[row]] for row in rows]
    vectors = torch.from_numpy(found.matrix[places])
    model.start = rows, vectors
    model.take_vectors(model.start)
    return len(rows)
