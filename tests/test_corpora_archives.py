"""Archives of corpora that a user has: recognised, read and never unpacked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from corpora_support import DIALOGUES, archive_facts, json_archive, text_archive, use_registry

from uncollapse.corpora import fetch
from uncollapse.errors import RunError, UserError

SMALL = {split: len(dialogues) for split, dialogues in DIALOGUES.items()}


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The release and the copy of it, which the registry knows."""
    files = text_archive(tmp_path / "release.zip"), json_archive(tmp_path / "copy.tar.gz")
    editions = ("dailydialog-original", "dailydialog-parlai")
    use_registry(
        monkeypatch,
        {
            edition: {"sizes": SMALL, "archive": archive_facts(file, None)}
            for edition, file in zip(editions, files, strict=True)
        },
    )
    return files


def lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


def test_release_and_copy(archives: tuple[Path, Path], tmp_path: Path) -> None:
    release = fetch("dailydialog", tmp_path / "corpora", archive=archives[0])
    copy = fetch("dailydialog", tmp_path / "corpora", archive=archives[1])
    assert (release.edition, copy.edition) == ("dailydialog-original", "dailydialog-parlai")
    assert release.comparable
    assert not copy.comparable
    for split, file in release.files.items():
        theirs = lines(copy.files[split])
        assert [line.replace("’", "'") for line in lines(file)] == theirs
        assert len(theirs) == SMALL[split]
    first = json.loads(lines(release.files["train"])[0])
    assert (first["topic"], first["turns"][0]["text"]) == ("Ordinary Life", "Hi , Jim ’ s here .")
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ["copy.tar.gz", "corpora", "release.zip"]
    assert not list(tmp_path.parent.glob("outside*"))


@pytest.mark.usefixtures("archives")
def test_something_else(tmp_path: Path) -> None:
    other = tmp_path / "other.zip"
    with pytest.raises(UserError, match="does not exist"):
        fetch("dailydialog", tmp_path / "corpora", archive=other)
    other.write_bytes(b"anything")
    with pytest.raises(UserError, match=r"is not release\.zip or copy\.tar\.gz as published"):
        fetch("dailydialog", tmp_path / "corpora", archive=other)
    assert not (tmp_path / "corpora").exists()


@pytest.mark.parametrize("file", ["a.zip", "a.tar.gz"])
@pytest.mark.parametrize(
    ("turns", "says"),
    [
        (None, "is damaged"),
        ([("Yes .", 9, 0)], "has not the form of a"),
        ([("Yes .", 1, 7)], "has not the form of a"),
    ],
)
def test_another_form(
    file: str,
    turns: list[tuple[str, int, int]] | None,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The checksum fits, so the registry is wrong: still a line, and nothing half-written."""
    path = tmp_path / file
    release = path.suffix == ".zip"
    if turns is None:
        path.write_bytes(b"no archive")
    elif release:
        monkeypatch.setitem(DIALOGUES, "test", [(8, turns)])
        text_archive(path)
    else:
        monkeypatch.setitem(DIALOGUES, "test", [(8, [("Yes .", 1, 1)])])
        monkeypatch.setattr("corpora_support.PARLAI_TOPICS", dict.fromkeys(range(11), "none"))
        json_archive(path)
    edition = "dailydialog-original" if release else "dailydialog-parlai"
    use_registry(monkeypatch, {edition: {"archive": archive_facts(path, None)}})
    with pytest.raises(RunError, match=says) as error:
        fetch("dailydialog", tmp_path / "corpora", archive=path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "corpora").exists()


def test_utterances_without_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DIALOGUES, "test", [(8, [("Any work ? __eou__ None .", 2, 0)])])
    path = text_archive(tmp_path / "a.zip")
    use_registry(monkeypatch, {"dailydialog-original": {"archive": archive_facts(path, None)}})
    with pytest.raises(RunError, match="dialogue 1 of test has 2 utterances and 1 labels"):
        fetch("dailydialog", tmp_path / "corpora", archive=path)


def test_another_number_of_dialogues(
    archives: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_registry(monkeypatch, {"dailydialog-original": {"sizes": {**SMALL, "train": 4}}})
    with pytest.raises(RunError, match="has 3 dialogues in train, not 4"):
        fetch("dailydialog", tmp_path / "corpora", archive=archives[0])
    assert not (tmp_path / "corpora").exists()
