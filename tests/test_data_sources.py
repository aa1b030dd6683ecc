from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uncollapse.data.records import Row
from uncollapse.data.sources import MAX_LINE_BYTES, Rows, read_rows
from uncollapse.errors import RunError, UserError


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def fails(path: Path | str, message: str, **columns) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        list(read_rows(path, **columns))
    assert "\n" not in str(caught.value)


def pairs(rows: Iterable[Row]) -> list:
    """Text and labels of rows of lone sentences."""
    rows = list(rows)
    assert all(row[2:] == (0, None, True) for row in rows)
    return [row[:2] for row in rows]


def parquet(folder: Path, columns: dict) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), folder / "a.parquet")
    return folder / "a.parquet"


def test_text(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "\ufeffone two\r\n\nthr\0ee é\n last")
    expected = [("one two", ()), ("", ()), ("thr\0ee é", ()), (" last", ())]
    assert pairs(read_rows(path)) == expected
    assert pairs(read_rows(str(path))) == expected


def test_csv(tmp_path: Path) -> None:
    content = '\ufefftext,n,label\r\n"a, ""b""\nc",1,pos\r\nd,2,\r\n\r\n"",3,neg\n'
    rows = Rows(write(tmp_path, "a.csv", content), "text", ["label"])
    assert pairs(rows) == [
        ('a, "b"\nc', ("pos",)),
        ("d", (None,)),
        ("", (None,)),
        ("", ("neg",)),
    ]
    assert rows.columns == ["text", "n", "label"]
    assert pairs(read_rows(tmp_path / "a.csv", "n"))[0] == ("1", ())


def test_a_long_csv_field(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text\n" + 200_000 * "a " + "\n")
    assert len(next(read_rows(path))[0]) == 400_000


@pytest.mark.parametrize(
    ("value", "name"),
    [(0, "0"), (1.0, "1"), (0.5, "0.5"), ("pos", "pos"), (" ", None), (None, None), (True, "true")],
)
def test_labels_become_names(value, name: str | None, tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", json.dumps({"text": "a", "label": value}))
    assert pairs(read_rows(path, label_columns=["label"])) == [("a", (name,))]


def test_jsonl_labels_may_have_gaps(tmp_path: Path) -> None:
    lines = ['{"text": "a"}', '{"text": "b", "label": 1}', '{"text": "c", "label": NaN}', ""]
    path = write(tmp_path, "a.jsonl", "\n".join(lines) + "\n\n")
    rows = Rows(path, label_columns=["label"])
    labels = {"a": None, "b": "1", "c": None}
    expected = [*((text, (label,)) for text, label in labels.items()), ("", (None,)), ("", (None,))]
    assert pairs(rows) == expected
    assert rows.columns == ["text", "label"]


def test_parquet(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"text": ["a", "b", ""], "label": [0.0, float("nan"), None]})
    expected = [("a", ("0",)), ("b", (None,)), ("", (None,))]
    assert pairs(read_rows(path, label_columns=["label"])) == expected
    fails(path, "no column 'txt'; did you mean 'text'? (columns: text, label)", text_column="txt")


def test_bad_parquet(tmp_path: Path) -> None:
    fails(parquet(tmp_path, {"text": ["a", None]}), "row 2: column 'text' must be a string")
    fails(parquet(tmp_path, {"text": [1]}), "row 1: column 'text' must be a string, not int")
    fails(write(tmp_path, "b.parquet", b"PAR1 not really"), "not a valid parquet file")


lines_of_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"))


@given(st.lists(lines_of_text.filter(lambda line: not line.startswith("\ufeff")), min_size=1))
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    lines = [*lines, "end"]
    folder = tmp_path_factory.mktemp("any")
    expected = [(line, ()) for line in lines]
    assert pairs(read_rows(write(folder, "a.txt", "\n".join(lines)))) == expected
    objects = "\n".join(json.dumps({"text": line}) for line in lines)
    assert pairs(read_rows(write(folder, "a.jsonl", objects))) == expected


def test_missing_files(tmp_path: Path) -> None:
    write(tmp_path, "train.txt", "a")
    fails(tmp_path / "trian.txt", f"does not exist; did you mean {tmp_path / 'train.txt'}?")
    fails(tmp_path / "train", f"does not exist; did you mean {tmp_path / 'train.txt'}?")
    fails(tmp_path / "no" / "train.txt", f"there is no folder {tmp_path / 'no'}")
    fails(tmp_path, "is a directory")
    fails("a\0b", "no file name")
    fails("/dev/null", "not a regular file")
    fails(write(tmp_path, "a.tsv", "a"), "unknown format '.tsv'; known: .txt, .csv")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (name, content)
        for name in ("a.txt", "a.jsonl")
        for content in ("", "\n", "\ufeff", " \r\n\n")
    ]
    + [("a.csv", content) for content in ("", "text\n", "text,n\n\n,1\n")],
)
def test_files_without_a_sentence(name: str, content: str, tmp_path: Path) -> None:
    fails(write(tmp_path, name, content), "is empty")


def test_bad_text(tmp_path: Path) -> None:
    fails(write(tmp_path, "a.txt", b"fine\nb\xffd\n"), "a.txt, line 2: not valid UTF-8")
    long = "a\n" + (MAX_LINE_BYTES + 1) * "x"
    fails(
        write(tmp_path, "a.txt", long), "a.txt, line 2: the line is longer than the limit of 1 MB"
    )
    assert len(list(read_rows(write(tmp_path, "a.txt", (MAX_LINE_BYTES - 1) * "x" + "\n")))) == 1
    fails(tmp_path / "a.txt", "a .txt file has no columns", label_columns=["label"])


def test_bad_csv(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "sentence,label\na,b\n")
    fails(path, "no column 'text' (columns: sentence, label)")
    hint = "no column 'lable'; did you mean 'label'?"
    fails(path, hint, text_column="sentence", label_columns=["lable"])
    fails(
        write(tmp_path, "a.csv", "text,label\na,b\nc\n"), "line 3: 1 fields, but the header has 2"
    )
    fails(write(tmp_path, "a.csv", 'text\n"a\nb\n'), "line 3: not valid CSV")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"', "line 2: not valid JSON"),
        ("[" * 100_000, "line 2: not valid JSON"),
        ('["a"]', "line 2: not a JSON object but list"),
        ('{"txt": "a"}', "line 2: no column 'text'; did you mean 'txt'? (columns: txt)"),
        ('{"text": null}', "line 2: column 'text' must be a string, not null"),
        ('{"text": ["a"]}', "line 2: column 'text' must be a string, not list"),
        ('{"text": "\\ud800"}', "line 2: the text has a lone surrogate"),
        ('{"text": "a", "label": []}', "line 2: label 'label' must be a string or a number"),
    ],
)
def test_bad_jsonl(line: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"text": "a", "label": 1}\n' + line + "\n")
    fails(path, message, label_columns=["label"])


def test_a_jsonl_label_that_is_nowhere(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"text": "a", "label": 1}\n')
    fails(path, "no column 'lable'; did you mean 'label'?", label_columns=["lable"])


def test_errors_come_late_and_rows_stream(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path, "a.txt", b"one\ntwo\n\xff\n"))
    assert [next(rows)[0], next(rows)[0]] == ["one", "two"]
    with pytest.raises(UserError, match="line 3"):
        next(rows)


def fake_hub(monkeypatch: pytest.MonkeyPatch, load) -> None:
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load))


def test_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(name: str, *, split: str, streaming: bool):
        asked.append((name, split, streaming))
        return iter([{"text": "a", "label": 1}, {"text": "b", "label": None}])

    fake_hub(monkeypatch, load)
    rows = Rows("owner/some-data:test", label_columns=["label"])
    assert rows.format == "hub"
    assert pairs(rows) == [("a", ("1",)), ("b", (None,))]
    list(read_rows("some_data"))
    assert asked == [("owner/some-data", "test", True), ("some_data", "train", True)]
    fails("some_data", "no column 'txt'; did you mean 'text'?", text_column="txt")


@pytest.mark.parametrize(
    ("error", "kind"), [(FileNotFoundError("gone"), UserError), (RuntimeError("off"), RunError)]
)
def test_a_hub_that_fails(
    error: Exception, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_name: str, **_options):
        raise error

    fake_hub(monkeypatch, load)
    with pytest.raises(kind, match="some_data"):
        list(read_rows("some_data"))


@pytest.mark.parametrize("error", [None, RuntimeError("unreachable"), ValueError("no such")])
def test_a_hub_dataset_is_known_by_its_revision(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def dataset_info(name: str) -> SimpleNamespace:
        if error is not None:
            raise error
        return SimpleNamespace(sha=f"revision of {name}")

    monkeypatch.setattr(huggingface_hub, "dataset_info", dataset_info)
    rows = Rows("owner/some-data:test")
    if error is None:
        assert rows.identity() == "hub:owner/some-data:test:revision of owner/some-data"
        return
    with pytest.raises(UserError if isinstance(error, ValueError) else RunError, match="some-data"):
        rows.identity()
