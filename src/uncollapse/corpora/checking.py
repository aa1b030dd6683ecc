"""Whether files are the editions that are known: checksums and line counts, read once a file."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from uncollapse.corpora.registry import Edition
from uncollapse.data.cache import default_cache
from uncollapse.errors import RunError

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Attributes
    ----------
    sha256 : str
    lines : int
    """

    sha256: str
    lines: int


def difference(edition: Edition, files: Mapping[str, Path], *, fresh: bool = False) -> str:
    """In what files are not the edition that is known; empty: they are, as far as is known.

    Parameters
    ----------
    edition : Edition
    files : mapping
        By split.
    fresh : bool
        Read every byte, even of files that were read before and have not changed since.

    Raises
    ------
    RunError
        If a file cannot be read.
    """
    for split, file in files.items():
        known = edition.sha256.get(split)
        count = edition.sizes.get(split)
        if known is None and count is None:
            continue
        content = content_of(file, fresh=fresh)
        if known is not None:
            if content.sha256 not in known:
                return f"{edition.paths[split]} has another content than the edition that is known"
        elif content.lines != count:
            return (
                f"{edition.paths[split]} has {content.lines:,} {edition.unit}, the published "
                f"one {count:,}"
            )
    return ""


def content_of(file: Path, *, fresh: bool = False) -> Content:
    """Checksum and lines of a file, kept in the user's cache by its path, size and date.

    Raises
    ------
    RunError
        If it cannot be read.
    """
    try:
        facts = file.stat()
        identity = [str(file.resolve()), facts.st_size, facts.st_mtime_ns]
        name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:40]
        entry = default_cache() / "checksums" / f"{name}.json"
        known = None if fresh else _recall(entry)
        if known is None:
            known = _read(file)
            _keep(entry, known)
    except OSError as error:
        raise RunError(f"{file}: {error.strerror or error}") from None
    return known


def _read(file: Path) -> Content:
    digest, lines, last = hashlib.sha256(), 0, b"\n"
    with file.open("rb") as source:
        while block := source.read(_BLOCK):
            digest.update(block)
            lines += block.count(b"\n")
            last = block[-1:]
    return Content(digest.hexdigest(), lines + (last != b"\n"))


def _recall(entry: Path) -> Content | None:
    try:
        return Content(**json.loads(entry.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _keep(entry: Path, content: Content) -> None:
    """Write the entry whole; without a cache the file is just read again next time."""
    partial = entry.with_name(f".{entry.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(asdict(content)), encoding="utf-8")
        partial.replace(entry)
    except OSError:
        with suppress(OSError):
            partial.unlink()
