"""Streaming rows of text and labels from a text, CSV, JSON-lines or Parquet file, or the hub."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import repeat
from pathlib import Path

from uncollapse.data.known import known
from uncollapse.data.records import Fields, Records
from uncollapse.data.rows import Row
from uncollapse.errors import RunError, UncollapseError, UserError

FORMATS = (".txt", ".csv", ".jsonl", ".parquet")
MAX_LINE_BYTES = 1_000_000
_PARQUET_ROWS = 4096
_HUB_NAME = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<split>[\w.\[\]%:+-]+))?")


def read_rows(
    source: str | Path, text_column: str = "text", label_columns: Sequence[str] = ()
) -> Iterator[Row]:
    """Stream the rows of a source; see :class:`Rows`."""
    return iter(Rows(source, text_column, label_columns))


class Rows(Records):
    """The rows of one source, read as a stream; see :class:`Records` for dialogues.

    An empty line is a row with an empty text, so that it can be counted.

    Parameters
    ----------
    source : str or Path
        A ``.txt`` file (a sentence a line), a ``.csv``, ``.jsonl`` or ``.parquet`` file with
        named columns, or the name of a Hugging Face dataset (``owner/name`` or ``name``, a split
        other than train after a colon: ``imdb:test``).
    text_column : str
        Where the text is; a ``.txt`` file has no columns and ignores it.
    label_columns : sequence of str
        Where the class labels are, as far as they are wanted: all are read in the same pass,
        and each row has them in this order. Numbers become names (``"0"``, ``"1"``); null and
        empty labels become None.

    Attributes
    ----------
    format : str
        ``"txt"``, ``"csv"``, ``"jsonl"``, ``"parquet"`` or ``"hub"``.
    columns : list of str
        The columns met so far: all of them from the first row on, but for ``jsonl``, whose
        lines may have different ones.
    line : int
        Line (parquet, hub: row) of the record that was read last, from 1.

    Raises
    ------
    UserError
        For every fault of the source, naming file and line. On construction for a source that
        does not exist, while iterating for its content.
    """

    def __init__(
        self, source: str | Path, text_column: str = "text", label_columns: Sequence[str] = ()
    ) -> None:
        super().__init__(str(source), text_column, label_columns)
        self.format = _find_format(self.source)
        if self.format == "txt" and self.label_columns:
            column = self.label_columns[0]
            raise UserError(
                f"{self.source} has no label column {column!r}: a .txt file has no columns"
            )

    def _read(self) -> Iterator[Fields]:
        self.line = 0
        readers = {
            "txt": self._read_text,
            "csv": self._read_csv,
            "jsonl": self._read_jsonl,
            "parquet": self._read_parquet,
            "hub": self._read_hub,
        }
        rows = readers[self.format]()
        for row in rows:
            yield row
            if row[0] and not row[0].isspace():
                break
        else:
            raise UserError(f"{self.source} is empty: it has no sentence")
        yield from rows  # the test above is needed once, not per row

    def identity(self, cache: Path | None = None) -> str:
        """What the content is known by: the SHA-256 of a file, the revision of a hub dataset.

        With a `cache`, a large file that has not changed is not read again; see `known`.
        """
        if self.format == "hub":
            return f"hub:{self.source}:{_hub_revision(self.source)}"
        try:
            return f"{self.format}:{known(Path(self.source), 'sha256', _sha256, cache)}"
        except OSError as error:
            raise self._unreadable(error) from None

    # -- text formats -------------------------------------------------------------------------

    def _lines(self) -> Iterator[str]:
        """Lines without their ends, by hand so that every fault names its line."""
        try:
            with Path(self.source).open("rb") as file:
                while raw := file.readline(MAX_LINE_BYTES + 1):
                    self.line += 1
                    if len(raw) > MAX_LINE_BYTES:
                        limit = f"{MAX_LINE_BYTES // 1_000_000} MB"
                        raise self._fault(f"the line is longer than the limit of {limit}")
                    line = raw.decode().rstrip("\r\n")
                    yield line.removeprefix("\ufeff") if self.line == 1 else line
        except UnicodeDecodeError as error:
            raise self._fault(f"not valid UTF-8 (byte {error.start + 1} of the line)") from None
        except OSError as error:
            raise self._unreadable(error) from None

    def _read_text(self) -> Iterator[Fields]:
        self.columns = ["text"]
        return zip(self._lines(), repeat(()), strict=False)

    def _read_csv(self) -> Iterator[Fields]:
        csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
        reader = csv.reader((line + "\n" for line in self._lines()), strict=True)
        try:
            header = next(reader, [])
            if not header:
                return
            dialogues = self._open_table(header)
            text_at = self._position(self.text_column)
            labels_at = [(self._position(name), name) for name in self.label_columns]
            for fields in reader:
                if not fields:
                    yield self._blank
                    continue
                if len(fields) != len(header):
                    raise self._fault(f"{len(fields)} fields, but the header has {len(header)}")
                if dialogues:
                    yield from self._meet(dict(zip(header, fields, strict=True)))
                    continue
                labels = tuple(self._label(fields[i], name) for i, name in labels_at)
                yield fields[text_at], labels
        except csv.Error as error:
            raise self._fault(f"not valid CSV ({error})") from None

    def _read_jsonl(self) -> Iterator[Fields]:
        for line in self._lines():
            if not line or line.isspace():
                yield self._blank
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise self._fault(f"not valid JSON ({error})") from None
            if not isinstance(record, dict):
                raise self._fault(f"not a JSON object but {type(record).__name__}")
            yield from self._meet(record)
        if self.columns:
            self._require_labels()

    # -- tables -------------------------------------------------------------------------------

    def _read_parquet(self) -> Iterator[Fields]:
        import pyarrow
        from pyarrow import parquet

        try:
            file = parquet.ParquetFile(self.source)
        except OSError as error:
            raise self._unreadable(error) from None
        except pyarrow.ArrowException as error:
            raise UserError(f"{self.source}: not a valid parquet file ({_line(error)})") from None
        with file:
            dialogues = self._open_table(file.schema_arrow.names)
            wanted = list(dict.fromkeys([self.text_column, *self.label_columns]))
            columns = None if dialogues else wanted
            try:
                for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=columns):
                    for record in batch.to_pylist():
                        self.line += 1
                        if dialogues:
                            yield from self._meet(record)
                        else:
                            yield self._row(record)
            except (OSError, pyarrow.ArrowException) as error:
                raise UserError(f"{self.source}: damaged parquet file ({_line(error)})") from None
        self._require_labels()

    def _read_hub(self) -> Iterator[Fields]:
        import datasets

        name, split = _hub_name(self.source)
        try:
            dataset = datasets.load_dataset(name, split=split, streaming=True)
            dialogues = False
            for record in dataset:
                self.line += 1
                if self.line == 1:
                    dialogues = self._open_table(list(record))
                if dialogues:
                    yield from self._meet(record)
                else:
                    yield self._row(record)
            if self.columns:
                self._require_labels()
        except UncollapseError:
            raise
        except (FileNotFoundError, ValueError) as error:  # no such dataset, no such split
            raise _no_dataset(self.source, error) from None
        except Exception as error:  # the network's errors are of whatever library is below
            raise RunError(f"cannot read the dataset {self.source}: {_line(error)}") from None

    # -- errors -------------------------------------------------------------------------------

    def _place(self) -> str:
        place = "row" if self.format in ("parquet", "hub") else "line"
        return f"{self.source}, {place} {self.line}"

    def _unreadable(self, error: OSError) -> UserError:
        return UserError(f"cannot read {self.source}: {error.strerror or _line(error)}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find_format(source: str) -> str:
    """Format of a source that exists; a name that is no file may be a dataset on the hub."""
    path = Path(source)
    suffix = path.suffix.lower()
    if "\0" in source:
        raise UserError(f"{source!r} is no file name")
    if path.is_dir():
        raise UserError(f"{source} is a directory; name a file in it")
    if path.is_file():
        if suffix not in FORMATS:
            raise UserError(f"{source}: unknown format {suffix!r}; known: {', '.join(FORMATS)}")
        return suffix[1:]
    if path.exists():
        raise UserError(f"{source} is not a regular file")
    in_local_folder = path.parent != Path() and path.parent.is_dir()
    if _HUB_NAME.fullmatch(source) and suffix not in FORMATS and not in_local_folder:
        return "hub"
    raise UserError(f"{source} does not exist{_nearest_file(path)}")


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f": there is no folder {path.parent}"
    close = get_close_matches(
        path.name, (file.name for file in path.parent.iterdir()), n=1, cutoff=0.5
    )
    return f"; did you mean {path.parent / close[0]}?" if close else ""


def _hub_name(source: str) -> tuple[str, str]:
    match = _HUB_NAME.fullmatch(source)
    assert match is not None  # _find_format has matched it
    return match["name"], match["split"] or "train"


def _hub_revision(source: str) -> str:
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return str(huggingface_hub.dataset_info(_hub_name(source)[0]).sha)
    except (RepositoryNotFoundError, ValueError) as error:
        raise _no_dataset(source, error) from None
    except Exception as error:  # the network's errors are of whatever library is below
        raise RunError(f"cannot reach the hub for dataset {source}: {_line(error)}") from None


def _no_dataset(source: str, error: Exception) -> UserError:
    hint = _nearest_file(Path(source))
    return UserError(f"no file and no dataset on the hub: {source}{hint} ({_line(error)})")


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
