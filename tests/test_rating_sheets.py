"""Sheets that come back: what they may hold, and what is said of a fault."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rating_support import fill, make, rows_of, write_rows

from uncollapse.errors import UserError
from uncollapse.rating import score
from uncollapse.rating.key import read_key
from uncollapse.rating.sheet import read_sheet


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return make(tmp_path / "study")


def test_spreadsheets_may_write_csv_their_way(study: Path) -> None:
    key = read_key(study)
    plain = read_sheet(fill(study, 1, lambda *_: 2), key)
    other = fill(study, 1, lambda *_: 2, delimiter=";")
    text = other.read_text(encoding="utf-8").replace("\n", "\r\n")
    other.write_bytes(b"\xef\xbb\xbf" + text.encode() + b";;;;;\r\n\r\n")
    assert read_sheet(other, key).ratings == plain.ratings == [[2, 2, 2]] * 12


def faulty(study: Path, change: Callable[[list[list[str]]], Any]) -> Path:
    rows = rows_of(fill(study, 1, lambda *_: 2))
    return write_rows(study / "faulty.csv", change(rows) or rows)


def put(place: int, column: int, value: str) -> Callable[[list[list[str]]], None]:
    def change(rows: list[list[str]]) -> None:
        rows[place][column] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put(1, 3, "4"), "line 2: fluency must be a whole number 1 … 3, not '4'"),
        (put(1, 4, "0"), "line 2: relevance must be a whole number 1 … 3, not '0'"),
        (put(1, 4, "-1"), "line 2: relevance must be a whole number 1 … 3, not '-1'"),
        (put(1, 4, "2.0"), "line 2: relevance must be a whole number 1 … 3, not '2.0'"),
        (put(1, 4, "good"), "not 'good'"),
        (put(1, 4, "٢"), "not '٢'"),
        (put(1, 4, "9" * 5000), "must be a whole number"),
        (put(1, 3, " "), "line 2: fluency of item '.*' is not rated; fill the hole"),
        (put(1, 0, "other123"), "line 2: the study has no item 'other123': is this a sheet of"),
        (put(0, 3, "fluent"), "line 1: the header must be item,context,response,fluency"),
        (lambda rows: [row[:-1] for row in rows], "line 1: the header must be"),
        (lambda rows: [*rows[:3], rows[3][:-1], *rows[4:]], "5 fields, but the header has 6"),
        (lambda rows: [*rows, rows[4]], "item '.*' is there twice"),
        (lambda rows: rows[:-2], "2 of 12 items are missing, the first is"),
        (lambda rows: rows[:1], "the sheet has no item"),
    ],
)
def test_faults_of_sheets_have_a_line(study: Path, change: Any, message: str) -> None:
    path = faulty(study, change)
    with pytest.raises(UserError, match=message) as found:
        score(study, [path])
    assert str(found.value).startswith(str(path))
    assert "\n" not in str(found.value)


def test_line_of_a_fault_counts_lines_within_cells(study: Path) -> None:
    path = faulty(study, lambda rows: rows[12].__setitem__(5, "x"))
    rows = path.read_text(encoding="utf-8").splitlines()
    line = next(n for n, row in enumerate(rows, 1) if row.startswith(rows_of(path)[12][0]))
    with pytest.raises(UserError, match=f"line {line}: informativeness must be"):
        score(study, [path])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: the sheet has no item"),
        (b"PK\x03\x04rest", "line 1: a workbook, not CSV"),
        (b"item,context\n\xff\xfe", "line 2: not UTF-8"),
        (b"item\0", "line 1: not text"),
        (b"<!DOCTYPE html>\n<html>", "line 1: the header must be"),
        (b'"item', "line 1: not valid CSV"),
        (b'item,context,response,fluency,relevance,informativeness\n"a"b', "line 2: not valid"),
    ],
)
def test_what_is_no_sheet_at_all(study: Path, content: bytes, message: str) -> None:
    path = study / "strange.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as found:
        score(study, [path])
    assert str(path) in str(found.value)


def test_sheets_of_others(study: Path, tmp_path: Path) -> None:
    one, two = (fill(study, rater, lambda *_: 2) for rater in (1, 2))
    copy = Path(shutil.copy(one, tmp_path / "rater-3.csv"))
    with pytest.raises(UserError, match="are both sheets of rater 1"):
        score(study, [one, copy])
    rows = rows_of(one)
    mixed = write_rows(tmp_path / "mixed.csv", [*rows[:5], *rows_of(two)[5:]])
    with pytest.raises(UserError, match="is of rater 2, but the sheet is rater 1's"):
        score(study, [mixed])
    foreign = make(tmp_path / "other")
    with pytest.raises(UserError, match="is this a sheet of another study"):
        score(foreign, [one])
    with pytest.raises(UserError, match="there is no sheet"):
        score(study, [])
    with pytest.raises(UserError, match="cannot read"):
        score(study, [tmp_path / "none.csv"])


def test_keys_with_faults(study: Path, tmp_path: Path) -> None:
    sheet = fill(study, 1, lambda *_: 2)
    with pytest.raises(UserError, match="cannot read"):
        score(tmp_path, [sheet])
    path = tmp_path / "key.json"
    for damage in ("{", "[]", "{}", '{"format_version": 2}'):
        path.write_text(damage)
        with pytest.raises(UserError, match=re.escape(f"{path} is not the key of a study")):
            score(tmp_path, [sheet])
    known = json.loads((study / "key.json").read_text(encoding="utf-8"))
    known["sheets"][0].popitem()
    path.write_text(json.dumps(known))
    with pytest.raises(UserError, match="a sheet lacks items"):
        score(path, [sheet])
