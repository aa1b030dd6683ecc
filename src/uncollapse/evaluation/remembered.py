"""What is learned of training sentences, kept for the next model that is measured on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from typing import TypeVar

import numpy as np

from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import Tokenizer

T = TypeVar("T")

_kept: dict[str, tuple[Hashable, object]] = {}


def once(what: str, key: Hashable, make: Callable[[], T]) -> T:
    """What ``make`` gives, or has given for the same key; only the last one is kept.

    Parameters
    ----------
    what : str
        Things of one name replace one another.
    key : hashable
        All that the result depends on.
    make : callable
    """
    kept = _kept.get(what)
    if kept is None or kept[0] != key:
        kept = _kept[what] = (key, make())
    return kept[1]  # type: ignore[return-value]


def fingerprint(corpus: Corpus, tokenizer: Tokenizer) -> str:
    """SHA-256 (hex) of the words of a corpus and of its first column of labels."""
    digest = hashlib.sha256(tokenizer.fingerprint.encode())
    parts = [corpus.tokens, corpus.offsets]
    if corpus.label_ids is not None:
        parts.append(corpus.label_ids)
        digest.update("\n".join(corpus.label_names).encode())
    for part in parts:
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()
