from __future__ import annotations

import json
from pathlib import Path

import pytest

from uncollapse.data.check import check
from uncollapse.errors import UserError


@pytest.fixture
def splits(tmp_path: Path) -> tuple[Path, Path]:
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    texts = ["a b", "", "a b", "c", " a b ", "a a a a a", " "]
    labels = [1, 1, 0, None, 1, 0, 0]
    rows = zip(texts, labels, strict=True)
    train.write_text("\n".join(json.dumps({"text": t, "label": x}) for t, x in rows))
    test.write_text('{"text": "c"}\n{"text": "d a"}\n{"text": "c"}\n')
    return train, test


def test_check(splits: tuple[Path, Path]) -> None:
    train, test = splits
    report = check(train, label_column="label", max_length=4, against=[test])
    assert report.to_dict() == {
        "source": str(train),
        "format": "jsonl",
        "columns": ["text", "label"],
        "sentences": 5,
        "tokens": 12,
        "vocabulary_size": 7,
        "distinct_tokens": 3,
        "vocabulary_from": str(train),
        "unknown_rate": 0.0,
        "length": {"min": 1, "mean": 2.4, "median": 2, "p95": 5, "max": 5},
        "empty": 2,
        "empty_lines": [2, 7],
        "too_long": 1,
        "too_long_lines": [6],
        "duplicates": 2,
        "shared": {str(test): 1},
        "labels": {"0": 2, "1": 2},
        "missing_labels": 1,
    }
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()
    text = report.to_text()
    assert "empty rows" in text
    assert "2 (line 2, 7)" in text
    assert f"also in {test.name}" in text


def test_unknown_words_under_the_training_vocabulary(splits: tuple[Path, Path]) -> None:
    train, test = splits
    report = check(test, train=train, against=[train])
    assert report.unknown_rate == 0.25
    assert report.vocabulary_from == str(train)
    assert report.shared == {str(train): 2}
    assert check(train, vocabulary_size=5).unknown_rate == 4 / 12


def test_only_the_first_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a\n" + "\n" * 10)
    report = check(path)
    assert report.empty == 10
    assert report.empty_lines == [2, 3, 4, 5, 6]
    assert "10 (line 2, 3, 4, 5, 6, …)" in report.to_text()


def test_a_bad_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a\n\xff\n")
    with pytest.raises(UserError, match="line 2"):
        check(tmp_path / "a.txt")
