"""A corpus as token ids: memory-mapped from a cache on disk, or in memory."""

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
from dataclasses import asdict, replace
from itertools import repeat
from pathlib import Path
from typing import BinaryIO

import numpy as np

from uncollapse.data.encoding import CorpusReport, Encoder
from uncollapse.data.sources import Rows
from uncollapse.data.tokenizer import UNK, Tokenizer
from uncollapse.errors import RunError, UserError

__all__ = ["Corpus", "CorpusReport", "default_cache"]

_FORMAT = 1  # raise it when what is on disk changes: old entries are then built anew


class Corpus:
    """Token ids of N sentences, without ``<s>`` and ``</s>``.

    Use :meth:`build` or :meth:`from_texts`.

    Attributes
    ----------
    tokens : (sum of lengths,) uint16 or uint32
        All sentences, one after the other.
    offsets : (N + 1,) int64
        Sentence i is ``tokens[offsets[i]:offsets[i + 1]]``.
    label_ids : (N,) int32 or None
        Class of each sentence, -1 where missing. None: the corpus has no labels.
    label_names : list of str
        Name of each class.
    report : CorpusReport
    """

    def __init__(
        self,
        tokens: np.ndarray,
        offsets: np.ndarray,
        label_ids: np.ndarray | None,
        label_names: list[str],
        report: CorpusReport,
    ) -> None:
        self.tokens = tokens
        self.offsets = offsets
        self.label_ids = label_ids
        self.label_names = label_names
        self.report = report

    @classmethod
    def build(
        cls,
        source: str | Path,
        tokenizer: Tokenizer,
        *,
        text_column: str = "text",
        label_column: str | None = None,
        label_names: list[str] | None = None,
        max_length: int | None = None,
        cache: Path | None = None,
    ) -> Corpus:
        """Encode a source in one streaming pass, or open what an earlier call has encoded.

        The cache is keyed by the content of the source and everything else that the result
        depends on. Processes that build the same corpus at once do not disturb each other.

        Parameters
        ----------
        source, text_column, label_column
            See :class:`uncollapse.data.sources.Rows`.
        tokenizer : Tokenizer
        label_names : list of str or None
            The classes, in order. None: those that occur, sorted (numbers by value).
        max_length : int or None
            Longer sentences keep their first `max_length` tokens.
        cache : Path or None
            None: environment variable ``UNCOLLAPSE_CACHE``, or else ``~/.cache/uncollapse``.

        Raises
        ------
        UserError
            For a faulty source, or a class that is not in `label_names`.
        RunError
            When the cache cannot be written, for example because the disk is full.
        """
        rows = Rows(source, text_column, label_column)
        encoder = Encoder(tokenizer, label_column is not None, label_names, max_length)
        identity = rows.identity()
        parts = (_FORMAT, identity, tokenizer.fingerprint, text_column, label_column)
        key = json.dumps((*parts, label_names, max_length))
        name = hashlib.sha256(key.encode()).hexdigest()[:40]
        entry = (Path(cache) if cache is not None else default_cache()) / name
        corpus = _open(entry)
        if corpus is None:
            corpus = _build(entry, encoder, rows, identity)
        return corpus

    @classmethod
    def from_texts(
        cls,
        texts: Sequence[str],
        tokenizer: Tokenizer,
        *,
        labels: Sequence[str | int | None] | None = None,
        label_names: list[str] | None = None,
        max_length: int | None = None,
    ) -> Corpus:
        """Encode texts in memory; parameters and errors as for :meth:`build`."""
        if labels is not None and len(labels) != len(texts):
            raise UserError(f"{len(texts)} texts, but {len(labels)} labels")
        encoder = Encoder(tokenizer, labels is not None, label_names, max_length)
        names = repeat(None) if labels is None else (None if x is None else str(x) for x in labels)
        chunks = list(encoder.encode(zip(texts, names, strict=False)))
        encoder.require_sentences("the list of texts")
        tokens = np.concatenate([tokens for tokens, _ in chunks])
        offsets = np.zeros(encoder.report.sentences + 1, np.int64)
        np.cumsum(np.concatenate([lengths for _, lengths in chunks]), out=offsets[1:])
        label_ids, label_names = encoder.labels()
        return cls(tokens, offsets, label_ids, label_names, encoder.report)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64: words of each sentence, without ``<s>`` and ``</s>``."""
        return np.diff(self.offsets)

    @property
    def labels(self) -> np.ndarray | None:
        """(N,) int64: class of each sentence, -1 where missing; a copy of ``label_ids``."""
        return None if self.label_ids is None else self.label_ids.astype(np.int64)

    def sentence(self, i: int) -> np.ndarray:
        """Token ids of sentence i."""
        return self.tokens[self.offsets[i] : self.offsets[i + 1]]

    def select(self, rows: np.ndarray) -> Corpus:
        """The sentences of the given rows, in their order, copied into memory.

        The report counts the selection; ``empty`` and ``cut`` stay those of the whole.
        """
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        # where each kept token stands in the whole: its row's start, plus its place in the row
        places = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        label_ids = None if self.label_ids is None else self.label_ids[rows]
        return self._with(self.tokens[places], offsets, label_ids)

    def hold_out(self, share: float, most: int) -> tuple[Corpus, Corpus]:
        """Split at random into the larger rest and a held-out part; always the same split.

        Parameters
        ----------
        share : float
            Of the sentences to hold out; at least one sentence is.
        most : int
            Sentences to hold out at most.

        Raises
        ------
        UserError
            For fewer than two sentences.
        """
        if len(self) < 2:
            raise UserError("one sentence cannot be split into training and validation")
        size = min(most, max(1, round(share * len(self))))
        order = np.random.default_rng(0).permutation(len(self))
        return self.select(np.sort(order[size:])), self.select(np.sort(order[:size]))

    def head(self, n: int) -> Corpus:
        """The first n sentences (all, if there are fewer), without a copy.

        Its report counts its own sentences; ``empty`` and ``cut`` stay those of the whole.
        """
        n = min(n, len(self))
        label_ids = None if self.label_ids is None else self.label_ids[:n]
        return self._with(self.tokens[: self.offsets[n]], self.offsets[: n + 1], label_ids)

    def _with(
        self, tokens: np.ndarray, offsets: np.ndarray, label_ids: np.ndarray | None
    ) -> Corpus:
        report = replace(
            self.report,
            sentences=len(offsets) - 1,
            tokens=len(tokens),
            unknown=int(np.count_nonzero(tokens == UNK)),
            missing_labels=0 if label_ids is None else int(np.count_nonzero(label_ids < 0)),
        )
        return Corpus(tokens, offsets, label_ids, self.label_names, report)


def default_cache() -> Path:
    """Folder of the encoded corpora: ``UNCOLLAPSE_CACHE``, or else ``~/.cache/uncollapse``."""
    return Path(os.environ.get("UNCOLLAPSE_CACHE") or Path.home() / ".cache" / "uncollapse")


def _build(entry: Path, encoder: Encoder, rows: Rows, identity: str) -> Corpus:
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
        for ids, lengths in encoder.encode(rows):
            dtype = ids.dtype
            tokens.write(ids.tobytes())
            ends = end + np.cumsum(lengths, dtype="<i8")
            offsets.write(ends.tobytes())
            end = ends[-1:] if len(ends) else end
        encoder.require_sentences(rows.source)
        _sync(tokens)
        _sync(offsets)
    dtypes = {"tokens": dtype.str, "offsets": "<i8"}
    label_ids, label_names = encoder.labels()
    if label_ids is not None:
        dtypes["labels"] = "<i4"
        with (folder / "labels.bin").open("wb") as file:
            file.write(label_ids.astype("<i4").tobytes())
            _sync(file)
    arrays = {
        name: {"dtype": dtype, **_measure(folder / f"{name}.bin")} for name, dtype in dtypes.items()
    }
    manifest = {"arrays": arrays, "label_names": label_names, "report": asdict(encoder.report)}
    with (folder / "manifest.json").open("wb") as file:
        file.write(json.dumps(manifest).encode())
        _sync(file)


def _install(folder: Path, entry: Path) -> Corpus:
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
    corpus = _open(entry)
    if corpus is None:
        raise RunError(f"cannot read back the corpus cache {entry}")
    return corpus


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()


def _open(entry: Path) -> Corpus | None:
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
        names = manifest["label_names"]
        return Corpus(arrays["tokens"], arrays["offsets"], arrays.get("labels"), names, report)
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
