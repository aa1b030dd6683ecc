"""Encoded corpora on disk: each is written once, whole, and then memory-mapped."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from uncollapse.data.encoding import CHUNK, CorpusReport, Encoded, Encoder, LabelColumn
from uncollapse.data.places import Turns
from uncollapse.data.sources import Rows
from uncollapse.errors import RunError

_FORMAT = 3  # raise it when what is on disk changes: old entries are then built anew
_TURNS = {"turn": "<i4", "speaker": "<i4", "response": "u1"}  # of dialogues alone


def default_cache() -> Path:
    """Folder of the encoded corpora: ``UNCOLLAPSE_CACHE``, or else ``~/.cache/uncollapse``."""
    return Path(os.environ.get("UNCOLLAPSE_CACHE") or Path.home() / ".cache" / "uncollapse")


def encoded_once(rows: Rows, encoder: Encoder, key: Sequence[Any], cache: Path | None) -> Encoded:
    """Encode a source, or open what an earlier call has encoded.

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
    identity = rows.identity()
    name = hashlib.sha256(json.dumps((_FORMAT, identity, *key)).encode()).hexdigest()[:40]
    entry = (Path(cache) if cache is not None else default_cache()) / name
    found = _open(entry)
    return found if found is not None else _build(entry, encoder, rows, identity)


def _build(entry: Path, encoder: Encoder, rows: Rows, identity: str) -> Encoded:
    """Write the entry in a temporary folder beside it, then move it into place whole."""
    folder = entry.with_name(f".building-{entry.name[:8]}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        folder.mkdir(parents=True)
        _write(folder, encoder, rows)
        if rows.identity() != identity:
            raise RunError(f"{rows.source} changed while it was read; run again")
        return _install(folder, entry)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"cannot write the corpus cache {entry.parent}: {reason}") from None
    finally:
        _remove(folder)


def _write(folder: Path, encoder: Encoder, rows: Rows) -> None:
    with (
        (folder / "tokens.bin").open("wb") as tokens,
        (folder / "offsets.bin").open("wb") as offsets,
    ):
        end = np.zeros(1, np.int64)
        offsets.write(end.tobytes())
        dtype = np.dtype("<u2")
        for ids, lengths in encoder.encode(rows.chunks(CHUNK)):
            dtype = ids.dtype
            tokens.write(ids.tobytes())
            ends = end + np.cumsum(lengths, dtype="<i8")
            offsets.write(ends.tobytes())
            end = ends[-1:] if len(ends) else end
        encoder.require_sentences()
        _sync(tokens)
        _sync(offsets)
    dtypes = {"tokens": dtype.str, "offsets": "<i8"}
    columns = encoder.columns()
    for number, column in enumerate(columns.values()):  # their names may be no file names
        dtypes[f"labels-{number}"] = "<i4"
        _write_array(folder / f"labels-{number}.bin", column.ids.astype("<i4"))
    turns = encoder.turns()
    if turns is not None:  # lone sentences have nothing to keep
        for name, dtype in _TURNS.items():
            dtypes[name] = dtype
            _write_array(folder / f"{name}.bin", getattr(turns, name).astype(dtype))
    arrays = {
        name: {"dtype": dtype, **_measure(folder / f"{name}.bin")} for name, dtype in dtypes.items()
    }
    classes = [(name, column.names) for name, column in columns.items()]
    manifest = {"arrays": arrays, "columns": classes, "report": asdict(encoder.report)}
    with (folder / "manifest.json").open("wb") as file:
        file.write(json.dumps(manifest).encode())
        _sync(file)


def _write_array(path: Path, values: np.ndarray) -> None:
    with path.open("wb") as file:
        file.write(values.tobytes())
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
            if {"dtype": dtype, **_measure(path)} != expected:
                return None
            arrays[name] = np.memmap(path, dtype=dtype, mode="r").view(np.ndarray)
        report = CorpusReport(**manifest["report"])
        columns = {
            name: LabelColumn(arrays[f"labels-{number}"], names)
            for number, (name, names) in enumerate(manifest["columns"])
        }
        turns = Turns(*(arrays[name] for name in _TURNS)) if "turn" in arrays else None
        return Encoded(arrays["tokens"], arrays["offsets"], columns, turns, report)
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
