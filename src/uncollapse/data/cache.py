"""Encoded corpora on disk: each is written once, whole, and then memory-mapped."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from uncollapse.data.encoding import CHUNK, CorpusReport, Encoded, Encoder, LabelColumn
from uncollapse.data.known import known, one_at_a_time
from uncollapse.data.places import Turns
from uncollapse.data.rest import rest_of
from uncollapse.data.sources import Rows
from uncollapse.errors import RunError

_FORMAT = 3  # raise it when what is on disk changes: old entries are then built anew
_TURNS = {"turn": "<i4", "speaker": "<i4", "response": "u1"}  # of dialogues alone
_RENUMBERED = 1 << 20  # labels at a time


def default_cache() -> Path:
    """Folder of the encoded corpora: ``UNCOLLAPSE_CACHE``, or else ``~/.cache/uncollapse``."""
    return Path(os.environ.get("UNCOLLAPSE_CACHE") or Path.home() / ".cache" / "uncollapse")


def encoded_once(rows: Rows, encoder: Encoder, key: Sequence[Any], cache: Path | None) -> Encoded:
    """Encode a source, or open what an earlier call has encoded.

    Of processes that ask for the same at once, one encodes.

    Parameters
    ----------
    rows : Rows
    encoder : Encoder
    key : sequence
        Everything beside the content of the source that the result depends on, as JSON.
    cache : Path or None
        None: `default_cache`.

    Raises
    ------
    UserError
        For a faulty source.
    RunError
        When the cache cannot be written, for example because the disk is full.
    """
    cache = Path(cache) if cache is not None else default_cache()
    identity = rows.identity(cache)
    name = hashlib.sha256(json.dumps((_FORMAT, identity, *key)).encode()).hexdigest()[:40]

    def write(folder: Path) -> None:
        _write(folder, encoder, rows)
        if rows.identity(cache) != identity:
            raise RunError(f"{rows.source} changed while it was read; run again")

    return _opened(cache / name, write)


def without_once(encoded: Encoded, rows: np.ndarray, report: CorpusReport) -> Encoded:
    """Leave some rows of an entry of lone sentences out, in another entry.

    Parameters
    ----------
    encoded : Encoded
        As opened from the cache.
    rows : (R,) int64
        What to leave out, ascending.
    report : CorpusReport
        Of the rest.

    Raises
    ------
    RunError
        When the cache cannot be written.
    """
    assert encoded.entry is not None
    content = f"{_FORMAT} {encoded.entry.name} without ".encode() + rows.astype("<i8").tobytes()
    name = hashlib.sha256(content).hexdigest()[:40]

    def write(folder: Path) -> None:
        with _Arrays(folder) as arrays:
            for key, parts in rest_of(encoded, rows).items():
                for part in parts:
                    arrays.add(key, part)
        names = {column: found.names for column, found in encoded.columns.items()}
        _write_manifest(folder, arrays.dtypes, names, report)

    return _opened(encoded.entry.with_name(name), write)


def _opened(entry: Path, write: Callable[[Path], None]) -> Encoded:
    """Map an entry, after it has been written if it is not there yet."""
    found = _open(entry)
    if found is not None:
        return found
    with one_at_a_time(entry):
        found = _open(entry)
        return found if found is not None else _build(entry, write)


def _build(entry: Path, write: Callable[[Path], None]) -> Encoded:
    """Write the entry in a temporary folder beside it, then move it into place whole."""
    folder = entry.with_name(f".building-{entry.name[:8]}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        folder.mkdir(parents=True)
        write(folder)
        return _install(folder, entry)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"cannot write the corpus cache {entry.parent}: {reason}") from None
    finally:
        _remove(folder)


class _Arrays:
    """Arrays that grow on disk, a file each.

    Attributes
    ----------
    dtypes : dict of str to str
        By name, the type of what was added.
    """

    def __init__(self, folder: Path) -> None:
        self.dtypes: dict[str, str] = {}
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}

    def add(self, name: str, values: np.ndarray) -> None:
        """Append to an array; it is there from the first time on."""
        if name not in self._files:
            self._files[name] = (self._folder / f"{name}.bin").open("wb")
            self.dtypes[name] = values.dtype.str
        self._files[name].write(values.tobytes())

    def __enter__(self) -> _Arrays:
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as stack:
            for file in self._files.values():
                stack.enter_context(file)
                _sync(file)


def _write(folder: Path, encoder: Encoder, rows: Rows) -> None:
    with _Arrays(folder) as arrays:
        end = np.zeros(1, "<i8")
        arrays.add("offsets", end)
        for piece in encoder.encode(rows.chunks(CHUNK)):
            arrays.add("tokens", piece.tokens)
            ends = end + np.cumsum(piece.lengths, dtype="<i8")
            arrays.add("offsets", ends)
            end = ends[-1:] if len(ends) else end
            for number, ids in enumerate(piece.labels.values()):  # names may be no file names
                arrays.add(f"labels-{number}", ids.astype("<i4"))
            if piece.turns is not None:  # lone sentences have nothing to keep
                for name, dtype in _TURNS.items():
                    arrays.add(name, getattr(piece.turns, name).astype(dtype))
        encoder.require_sentences()
    columns: dict[str, list[str]] = {}
    for number, (column, (names, places)) in enumerate(encoder.classes().items()):
        columns[column] = names
        ids = np.memmap(folder / f"labels-{number}.bin", "<i4", "r+")
        for first in range(0, len(ids), _RENUMBERED):
            ids[first : first + _RENUMBERED] = places[ids[first : first + _RENUMBERED]]
        ids.flush()
    _write_manifest(folder, arrays.dtypes, columns, encoder.report)


def _write_manifest(
    folder: Path,
    dtypes: Mapping[str, str],
    columns: Mapping[str, list[str]],
    report: CorpusReport,
) -> None:
    arrays = {
        name: {"dtype": dtype, **_measure(folder / f"{name}.bin")} for name, dtype in dtypes.items()
    }
    manifest = {"arrays": arrays, "columns": list(columns.items()), "report": asdict(report)}
    with (folder / "manifest.json").open("wb") as file:
        file.write(json.dumps(manifest).encode())
        _sync(file)


def _install(folder: Path, entry: Path) -> Encoded:
    """Move a finished folder to its place; who comes second takes what is there already."""
    for _ in range(3):
        try:
            folder.rename(entry)
            _sync_folder(entry.parent)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        winner = _open(entry)
        if winner is not None:
            return winner
        aside = folder.with_name(f"{folder.name}-damaged")
        with suppress(FileNotFoundError):  # another process removed it first
            entry.rename(aside)
        _remove(aside)
    found = _open(entry)
    if found is None:
        raise RunError(f"cannot read back the corpus cache {entry}")
    return found


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()


def _open(entry: Path) -> Encoded | None:
    """Map an entry; None when it is absent or damaged."""
    try:
        manifest = json.loads((entry / "manifest.json").read_bytes())
        arrays: dict[str, np.ndarray] = {}
        for name, expected in manifest["arrays"].items():
            path = entry / f"{name}.bin"
            dtype = expected["dtype"]
            if {"dtype": dtype, **known(path, "crc32", _measure, entry)} != expected:
                return None
            arrays[name] = np.memmap(path, dtype=dtype, mode="r").view(np.ndarray)
        report = CorpusReport(**manifest["report"])
        columns = {
            name: LabelColumn(arrays[f"labels-{number}"], names)
            for number, (name, names) in enumerate(manifest["columns"])
        }
        turns = Turns(*(arrays[name] for name in _TURNS)) if "turn" in arrays else None
        return Encoded(arrays["tokens"], arrays["offsets"], columns, turns, report, entry)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _measure(path: Path) -> dict[str, int]:
    """Size and checksum, read as a stream so that no page stays mapped."""
    size = checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            size += len(block)
            checksum = zlib.crc32(block, checksum)
    return {"bytes": size, "crc32": checksum}


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
