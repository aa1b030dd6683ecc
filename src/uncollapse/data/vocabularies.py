"""Vocabularies of large sources, each learnt once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from uncollapse.data.cache import default_cache
from uncollapse.data.known import LARGE, one_at_a_time
from uncollapse.data.sources import Rows
from uncollapse.data.tokenizer import Tokenizer

_FORMAT = 1  # raise it when the same settings begin to give another vocabulary


def learned_once(rows: Rows, settings: Sequence[Any], learn: Callable[[], Tokenizer]) -> Tokenizer:
    """A vocabulary that is learnt from a source, or has been before.

    It is kept in `default_cache` for large files, and for data sets of the hub.

    Parameters
    ----------
    rows : Rows
    settings : sequence
        Everything beside the content of the source that the result depends on, as JSON.
    learn : callable

    Raises
    ------
    UserError
        For a faulty source.
    """
    if rows.format != "hub" and Path(rows.source).stat().st_size < LARGE:
        return learn()
    cache = default_cache()
    identity = rows.identity(cache)
    name = hashlib.sha256(json.dumps((_FORMAT, identity, *settings)).encode()).hexdigest()[:40]
    path = cache / f"{name}.tokenizer.json"
    found = _checked_tokenizer(path)
    if found is None:
        with one_at_a_time(path):
            found = _checked_tokenizer(path)
            if found is None:
                found = learn()
                if rows.identity(cache) == identity:
                    _keep_tokenizer(path, found)
    return found


def _checked_tokenizer(path: Path) -> Tokenizer | None:
    """A tokenizer that was kept whole; None where there is none."""
    try:
        checksum, text = path.read_text(encoding="utf-8").split("\n", 1)
    except (OSError, ValueError):
        return None
    whole = hashlib.sha256(text.encode()).hexdigest() == checksum
    return Tokenizer.from_json(text, str(path)) if whole else None


def _keep_tokenizer(path: Path, tokenizer: Tokenizer) -> None:
    """Write it whole, or not at all where the folder cannot be written."""
    text = tokenizer.to_json()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}", "utf-8")
        temporary.replace(path)
