"""Sheets: what one rater is given as CSV, and what comes back."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from uncollapse.errors import UserError
from uncollapse.rating.key import Context, Item, Key

COLUMNS = ("item", "context", "response")
NOT_ASKED = "-"  # in the cell of a criterion that is not of such an item
EMPTY = "(empty)"
SEPARATORS = ",;\t"  # spreadsheets write what their language separates by
FORMULA = ("=", "+", "-", "@")  # what spreadsheets take for the start of one


@dataclass(frozen=True)
class Sheet:
    """What one rater has said.

    Attributes
    ----------
    path : Path
    rater : int
        From 0.
    ratings : list of list
        Of every item of the key, a rating for each criterion; None for a hole, and where there
        is nothing to rate.
    holes : int
        Ratings that are missing.
    """

    path: Path
    rater: int
    ratings: list[list[int | None]]
    holes: int


def sheet_name(rater: int, suffix: str) -> str:
    """File name of the sheet of a rater, who is numbered from 0."""
    return f"rater-{rater + 1}{suffix}"


def header(key: Key) -> list[str]:
    """The first row of every sheet."""
    return [*COLUMNS, *key.criteria]


def sheet_rows(key: Key, rater: int) -> Iterator[tuple[str, Item, list[str]]]:
    """Name, item and row, not yet rated, in the order in which a rater gets them."""
    for name, number in key.sheets[rater].items():
        item = key.items[number]
        context = shown_context(key.contexts[item.unit]) if item.kind == "response" else ""
        ratings = ["" if asked else NOT_ASKED for asked in key.asks(item)]
        yield name, item, [name, _cell(context), _cell("\n".join(shown(item))), *ratings]


def shown(item: Item) -> list[str]:
    """The responses as people read them."""
    return [response or EMPTY for response in item.responses]


def shown_context(context: Context) -> str:
    """The turns of a context, a line each, and who is to answer."""
    turns = context.turns
    lines = [f"{turn.speaker}: {turn.text}" if turn.speaker else turn.text for turn in turns]
    return "\n".join([*lines, *([f"{context.answerer}: …"] if context.answerer else [])])


def csv_line(row: Sequence[str]) -> str:
    """A row as CSV, without the end of its line."""
    buffer = io.StringIO()
    # a cell with the end of a line in it is quoted only if the writer knows what ends a line
    csv.writer(buffer, lineterminator="\n").writerow(row)
    return buffer.getvalue().removesuffix("\n")


def sheet_text(key: Key, rater: int) -> str:
    """The whole sheet of a rater."""
    rows = [header(key), *(row for _, _, row in sheet_rows(key, rater))]
    return "".join(csv_line(row) + "\n" for row in rows)


def read_sheet(path: Path, key: Key, *, allow_holes: bool = False) -> Sheet:
    """Read what a rater has filled in.

    Parameters
    ----------
    path : Path
    key : Key
        Of the study that the sheet is of.
    allow_holes : bool
        Take a sheet in which ratings are missing.

    Raises
    ------
    UserError
        For every fault of the sheet, naming its line.
    """
    ratings: dict[int, list[int | None]] = {}
    raters = {name: number for number, sheet in enumerate(key.sheets) for name in sheet}
    rater, holes = -1, 0
    for line, row in _rows(path, header(key)):
        place, name = f"{path}, line {line}", row[0].strip()
        if name not in raters:
            foreign = "" if ratings else ": is this a sheet of another study?"
            raise UserError(f"{place}: the study has no item {name!r}{foreign}")
        if not ratings:
            rater = raters[name]
        if raters[name] != rater:
            whose = f"rater {raters[name] + 1}, but the sheet is rater {rater + 1}'s"
            raise UserError(f"{place}: item {name!r} is of {whose}")
        number = key.sheets[rater][name]
        if number in ratings:
            raise UserError(f"{place}: item {name!r} is there twice")
        asked = key.asks(key.items[number])
        ratings[number] = [
            _rating(cell.strip(), criterion, wanted, key.scale, place)
            for cell, criterion, wanted in zip(row[3:], key.criteria, asked, strict=True)
        ]
        missing = [
            criterion
            for rating, criterion, wanted in zip(ratings[number], key.criteria, asked, strict=True)
            if wanted and rating is None
        ]
        holes += len(missing)
        if missing and not allow_holes:
            hint = "fill the hole, or allow holes (--allow-holes)"
            raise UserError(f"{place}: {missing[0]} of item {name!r} is not rated; {hint}")
    lost = [name for name, number in key.sheets[rater].items() if number not in ratings]
    if lost:
        count = f"{len(lost):,} of {len(key.items):,} items are missing"
        raise UserError(f"{path}: {count}, the first is {lost[0]!r}")
    return Sheet(path, rater, [ratings[number] for number in range(len(key.items))], holes)


def _rows(path: Path, expected: list[str]) -> Iterator[tuple[int, list[str]]]:
    """The line that each row starts at, and its fields; the header has been checked."""
    text = _text(path)
    first = text.partition("\n")[0]
    separator = max(SEPARATORS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    start, found = 1, False
    try:
        for row in reader:
            line, start = start, reader.line_num + 1
            if not found:
                _check_header(path, [name.strip() for name in row], expected)
                found = True
            elif any(map(str.strip, row)):
                if len(row) != len(expected):
                    widths = f"{len(row)} fields, but the header has {len(expected)}"
                    raise UserError(f"{path}, line {line}: {widths}")
                yield line, row
    except csv.Error as error:
        raise UserError(f"{path}, line {start}: not valid CSV ({error})") from None
    if start == 1 or (found and start == 2):
        raise UserError(f"{path}, line {start}: the sheet has no item")


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if content.startswith(b"PK"):
        raise UserError(f"{path}, line 1: a workbook, not CSV; save the sheet as CSV (UTF-8)")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8; save the sheet as CSV (UTF-8)") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{path}, line {line}: not text; save the sheet as CSV (UTF-8)")
    return text


def _check_header(path: Path, found: list[str], expected: list[str]) -> None:
    if found == expected:
        return
    seen = ",".join(found)
    seen = seen if len(seen) <= 80 else f"{seen[:79]}…"
    raise UserError(f"{path}, line 1: the header must be {','.join(expected)}, not {seen!r}")


def _rating(cell: str, criterion: str, asked: bool, scale: int, place: str) -> int | None:
    if not asked:
        if cell in ("", NOT_ASKED):
            return None
        raise UserError(f"{place}: {criterion} is not asked of this item, but is {cell!r}")
    if not cell:
        return None
    # unlike int, no sign, no underscore, no digits of other scripts
    if cell.isascii() and cell.isdecimal() and len(cell) <= 3 and 1 <= int(cell) <= scale:
        return int(cell)
    raise UserError(f"{place}: {criterion} must be a whole number 1 … {scale}, not {cell!r}")


def _cell(text: str) -> str:
    return f" {text}" if text.startswith(FORMULA) else text
