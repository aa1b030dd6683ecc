"""A corpus fetched from where it may be copied, as files of the layout that is expected."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from uncollapse.corpora.dailydialog import read_dailydialog
from uncollapse.corpora.downloading import checksum, download
from uncollapse.corpora.finding import VARIABLE, FoundCorpus, found
from uncollapse.corpora.registry import (
    Archive,
    Choice,
    Edition,
    KnownCorpus,
    load_corpus,
    load_edition,
)
from uncollapse.data.cache import default_cache
from uncollapse.errors import RunError, UserError


def fetch(
    name: str,
    folder: Path | None = None,
    *,
    archive: Path | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> FoundCorpus:
    """Put an edition of a corpus into the folder of corpora.

    Parameters
    ----------
    name : str
    folder : Path, optional
        Made if it does not exist; default: the environment variable ``UNCOLLAPSE_CORPORA``.
    archive : Path, optional
        A copy of the published archive, in place of the network.
    say : callable
        Takes a line on what is going on.

    Raises
    ------
    UserError
        If the licence does not allow it, the edition is there, or the archive is not known.
    RunError
        If it cannot be downloaded or written. What had arrived is kept for the next call;
        nothing half-made is in the folder.
    """
    corpus = load_corpus(name)
    choice, known = _source(corpus, archive)
    edition = load_edition(choice.edition)
    target = _target(edition, folder)
    if archive is None:
        if known.address is None:
            raise RunError(f"{known.name} has no address")
        say(f"{known.address}, {known.bytes / 1e6:.1f} MB")
        kept = default_cache() / "downloads" / known.sha256
        file = download(known.address, kept, sha256=known.sha256, size=known.bytes)
        install(edition, file, target)
        kept.unlink(missing_ok=True)
    else:
        install(edition, archive, target)
    return found(corpus, choice, target.parent)


def _source(corpus: KnownCorpus, file: Path | None) -> tuple[Choice, Archive]:
    """Which edition it will be, and of what."""
    sources = [
        (choice, edition.archive)
        for choice in corpus.editions
        if (edition := load_edition(choice.edition)).archive is not None
    ]
    if not corpus.permission or not sources:
        raise UserError(
            f"{corpus.name} cannot be fetched (licence: {corpus.licence}); it is published at "
            f"{corpus.published}: {corpus.by_hand}"
        )
    if file is None:
        return next(source for source in sources if source[1].address is not None)
    if not file.is_file():
        raise UserError(f"the archive {file} does not exist")
    digest = checksum(file)
    for source in sources:
        if source[1].sha256 == digest:
            return source
    names = " or ".join(source[1].name for source in sources)
    raise UserError(f"{file} is not {names} as published: its checksum is another")


def _target(edition: Edition, folder: Path | None) -> Path:
    """Where the edition goes, where there is nothing yet."""
    if folder is None:
        named = os.environ.get(VARIABLE)
        if not named:
            raise UserError(f"where to put it is not known: give --corpora or set {VARIABLE}")
        folder = Path(named)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"the folder of corpora {folder} is no folder")
    target = folder / edition.folder
    if target.exists():
        raise UserError(f"{target} exists already; nothing was fetched")
    return target


def install(edition: Edition, archive: Path, target: Path) -> None:
    """Write the files of an edition in a folder beside its place, then move it there whole.

    Parameters
    ----------
    edition : Edition
    archive : Path
        Of the edition, checked.
    target : Path

    Raises
    ------
    UserError
        If something else has come to its place.
    RunError
        If the archive is not of its form, or nothing can be written there.
    """
    assert edition.archive is not None
    splits = read_dailydialog(archive, edition.archive)
    for split, count in edition.sizes.items():
        if len(splits[split]) != count:
            raise RunError(
                f"{archive} has {len(splits[split]):,} {edition.unit} in {split}, not {count:,}"
            )
    building = target.with_name(f".fetching-{target.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        building.mkdir(parents=True)
        for split, file in edition.files.items():
            _write_lines(building / file, splits[split])
        if target.exists():
            raise UserError(f"{target} exists already; nothing was written")
        building.rename(target)
    except OSError as error:
        raise RunError(f"cannot write {target}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    with file.open("w", encoding="utf-8", newline="\n") as lines:
        for row in rows:
            lines.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
        lines.flush()
        os.fsync(lines.fileno())
