"""Records of runs: whole or refused, and the same bytes for the same runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reproduction_support import metric, record

from uncollapse.errors import RunError
from uncollapse.reproduction.records import (
    RECORD,
    Record,
    environment,
    read_results,
    read_sealed,
    write_results,
    write_sealed,
)


def changed_values(values: Any) -> list[Any]:
    """Every way to change one value, or one name, somewhere inside."""
    if isinstance(values, dict):
        found = [
            {**values, key: other}
            for key, value in values.items()
            for other in changed_values(value)
        ]
        return found + [
            {("x" + k if k == key else k): v for k, v in values.items()} for key in values
        ]
    if isinstance(values, list):
        found = [
            [*values[:place], other, *values[place + 1 :]]
            for place, value in enumerate(values)
            for other in changed_values(value)
        ]
        return [*found, values[::-1]] if len(values) > 1 else found
    if isinstance(values, str):
        return [values + "x", values[1:]] if values else ["x"]
    if values is None:
        return [0]
    return [values + 1, None, str(values)]


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    before = record(
        figures={"nll": 101.25, "mi": None}, history=[{"epoch": 1, "kl": 0.5}], changes=["a=b"]
    )
    before.save(tmp_path)
    assert Record.load(tmp_path) == before
    assert Record.load(tmp_path / "elsewhere") is None
    assert [p.name for p in tmp_path.iterdir()] == [RECORD]
    assert (before.value("nll"), before.value("mi"), before.value("bleu")) == (101.25, None, None)
    assert before.value("parameters") == 1000


def test_every_edit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "sealed.json"
    write_sealed(path, {"nll": 101.25, "rows": [{"name": "é", "kl": None}, 3], "alike": True})
    whole = json.loads(path.read_text())
    edits = changed_values(whole)
    assert len(edits) > 20
    for edited in edits:
        if edited == whole:
            continue
        path.write_text(json.dumps(edited))
        with pytest.raises(RunError, match=r"edited by hand|is damaged|format version"):
            read_sealed(path)


def test_every_digit_counts(tmp_path: Path) -> None:
    record(figures={"nll": 101.25}).save(tmp_path)
    path = tmp_path / RECORD
    text = path.read_text()
    for place in range(len(text)):
        if text[place].isdigit():
            other = str((int(text[place]) + 1) % 10)
            path.write_text(text[:place] + other + text[place + 1 :])
            with pytest.raises(RunError):
                Record.load(tmp_path)


@pytest.mark.parametrize("indent", [None, 0, 4])
def test_other_white_space_is_no_edit(tmp_path: Path, indent: int | None) -> None:
    before = record(figures={"nll": 101.25}, recipe="vä")
    before.save(tmp_path)
    path = tmp_path / RECORD
    again = json.loads(path.read_text())
    again = dict(reversed(again.items()))  # nor is another order of names
    path.write_text(json.dumps(again, indent=indent, ensure_ascii=False) + "\n\n")
    assert Record.load(tmp_path) == before


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"[1]", b"3", b'"text"', b"null", b"{}", b"\xff\xfe", b'{"digest": 1}'],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / RECORD).write_bytes(content)
    with pytest.raises(RunError, match=r"measured\.json is damaged") as error:
        Record.load(tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_a_truncated_file_is_damaged(tmp_path: Path) -> None:
    record(figures={"nll": 1.0}).save(tmp_path)
    text = (tmp_path / RECORD).read_text()
    for kept in range(0, len(text) - 2, 37):
        (tmp_path / RECORD).write_text(text[:kept])
        with pytest.raises(RunError, match="is damaged"):
            Record.load(tmp_path)


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    record().save(tmp_path)
    values = json.loads((tmp_path / RECORD).read_text())
    (tmp_path / RECORD).write_text(json.dumps({**values, "format_version": 2}))
    with pytest.raises(RunError, match="has format version 2, this program reads 1"):
        Record.load(tmp_path)


def test_a_sealed_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    write_sealed(tmp_path / RECORD, {"preset": "small"})
    with pytest.raises(RunError, match="its content is not a measured run"):
        Record.load(tmp_path)
    with pytest.raises(RunError, match="holds no records"):
        read_results(tmp_path / RECORD)


def test_nothing_is_left_of_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    record(figures={"nll": 1.0}).save(tmp_path)
    before = (tmp_path / RECORD).read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        record(figures={"nll": float("nan")}).save(tmp_path)
    assert (tmp_path / RECORD).read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [RECORD]


def test_the_environment_says_what_a_figure_was_made_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = environment()
    assert found.keys() == {"uncollapse", "commit", "torch", "hardware", "threads", "date"}
    monkeypatch.setenv("PATH", "")  # no git
    assert environment()["commit"] is None


# --- many records in a file ---------------------------------------------------------------------

numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)
names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8)
metrics = st.dictionaries(
    names,
    st.builds(
        metric,
        numbers,
        numbers,
        estimator=st.sampled_from(["exact", "50 samples"]),
        definition=st.sampled_from(["one", "other"]),
    ),
    max_size=4,
)
epochs = st.lists(st.dictionaries(names, numbers, max_size=3), max_size=3)
records = st.builds(record, system=names, metrics=metrics, history=epochs)


def rounded(value: float | None) -> Any:
    """What six digits of a number are."""
    return value if value is None else pytest.approx(value, rel=5.1e-6, abs=1e-320)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(records, max_size=4, unique_by=lambda r: r.system), st.randoms())
def test_results_come_back_to_six_digits(tmp_path: Path, given: list[Record], mix: Any) -> None:
    path = tmp_path / "ptb.json"
    write_results(path, given, "command")
    text = path.read_bytes()
    found = {one.system: one for one in read_results(path)}
    assert found.keys() == {one.system for one in given}
    for one in given:
        back = asdict(found[one.system])
        for name, figure in one.metrics.items():
            own = back["metrics"].pop(name)
            assert own["value"] == rounded(figure["value"])
            assert own["standard_error"] == rounded(figure["standard_error"])
            facts = ("unit", "estimator", "samples", "definition")
            assert [own[fact] for fact in facts] == [figure[fact] for fact in facts]
        assert back.pop("metrics") == {}
        assert back.pop("history") == [
            {key: rounded(value) for key, value in epoch.items()} for epoch in one.history
        ]
        rest = asdict(one)
        assert back == {key: rest[key] for key in back}
    # the same runs in any order, and what was read again, give the same bytes
    mix.shuffle(given)
    write_results(path, given, "command")
    assert path.read_bytes() == text
    write_results(path, read_results(path), "command")
    assert path.read_bytes() == text


def test_results_are_a_record_a_line(tmp_path: Path) -> None:
    runs = [record(system, seed, {"nll": 100.0 + seed}) for system in "ba" for seed in (1, 0)]
    write_results(tmp_path / "ptb.json", runs, "make it so")
    found = read_results(tmp_path / "ptb.json")
    assert [(r.system, r.seed) for r in found] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    before = (tmp_path / "ptb.json").read_text().splitlines()
    assert sum('"system"' in line for line in before) == 4
    assert sum("a number" in line for line in before) == 1  # the definition, once
    write_results(tmp_path / "ptb.json", [*runs[:3], record("a", 0, {"nll": 7.0})], "make it so")
    after = (tmp_path / "ptb.json").read_text().splitlines()
    changed = [line for line, old in zip(after, before, strict=True) if line != old]
    assert len(changed) == 2  # its own line, and the digest


def test_an_edited_file_of_results_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ptb.json"
    write_results(path, [record(figures={"nll": 101.25})], "command")
    path.write_text(path.read_text().replace("101.25", "101.24"))
    with pytest.raises(RunError, match="edited by hand"):
        read_results(path)
