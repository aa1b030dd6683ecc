"""The registry of corpora, what is found of them in a folder, and what the program says of it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from cli_support import call_program
from corpora_support import use_registry

from uncollapse.corpora import (
    checking,
    corpus_names,
    find,
    load_corpus,
    load_edition,
    page_table,
    status,
    tables_of,
)
from uncollapse.corpora.registry import SPLITS, edition_names
from uncollapse.errors import RunError, UserError

NAMES = ["ptb", "yahoo", "yelp15", "short-yelp", "dailydialog", "smd", "switchboard"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNCOLLAPSE_CACHE", str(tmp_path / "cache"))


def make(folder: Path, edition: str, *, leave_out: str = "") -> None:
    """Files of an edition's layout; their content is none that is known."""
    for split, path in load_edition(edition).paths.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if split != leave_out:
            file.write_text('{"text": "a text"}\n' if path.endswith("jsonl") else "a text\n")


def as_known(patch: pytest.MonkeyPatch, folder: Path, *editions: str) -> None:
    """Let the files that are there be the known ones."""
    changes: dict[str, dict[str, object]] = {}
    for name in editions:
        paths = load_edition(name).paths
        sums = {split: [checking._read(folder / path).sha256] for split, path in paths.items()}
        changes[name] = {"sha256": sums}
    use_registry(patch, changes)


def test_registry_is_complete() -> None:
    assert corpus_names() == NAMES
    used = set()
    for name in corpus_names():
        corpus = load_corpus(name)
        assert corpus.published.startswith(("http://", "https://"))
        assert corpus.used_by
        assert corpus.licence
        assert corpus.paper
        used |= {choice.edition for choice in corpus.editions}
    assert used == set(edition_names())
    for name in edition_names():
        edition = load_edition(name)
        assert tuple(edition.files) == SPLITS
        assert set(edition.sizes) in (set(), set(SPLITS))
        assert set(edition.sha256) in (set(), set(SPLITS))
        sums = [digest for known in edition.sha256.values() for digest in known]
        sums += [edition.archive.sha256] if edition.archive is not None else []
        assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in sums)
        assert len({*sums}) == len(sums)
    # a folder is of one edition, or what is found in it would depend on what is asked for
    folders = [load_edition(name).folder for name in edition_names()]
    assert len({*folders}) == len(folders)


def test_corpora_of_the_tables_are_known() -> None:
    from uncollapse.reproduction.published import load_published, published_names

    for table in published_names():
        for name in load_published(table).corpora:
            assert name in {*NAMES, "grammar"}, table
            assert name == "grammar" or table in tables_of(name)


def test_names() -> None:
    with pytest.raises(
        UserError, match="unknown corpus 'dailydialogue'; did you mean 'dailydialog'"
    ):
        find("dailydialogue", Path())
    with pytest.raises(
        UserError, match="unknown edition 'yahoo-split'; did you mean 'yahoo-resplit'"
    ):
        load_edition("yahoo-split")


def test_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNCOLLAPSE_CORPORA", raising=False)
    with pytest.raises(UserError, match="give --corpora or set UNCOLLAPSE_CORPORA"):
        find("ptb")
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        find("ptb", tmp_path / "nowhere")
    monkeypatch.setenv("UNCOLLAPSE_CORPORA", str(tmp_path))
    make(tmp_path, "ptb")
    assert find("ptb").files["validation"] == tmp_path / "ptb" / "valid.txt"


def test_the_known_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "ptb")
    make(tmp_path, "dailydialog")
    as_known(monkeypatch, tmp_path, "ptb", "dailydialog")
    found = find("ptb", tmp_path)
    assert (found.edition, found.comparable, found.reason) == ("ptb", True, "")
    assert found.tokenised
    assert not found.dialogues
    found = find("dailydialog", tmp_path)
    assert found.dialogues
    assert not found.tokenised
    assert not found.comparable
    assert found.label_columns == ("act", "emotion", "topic")
    assert found.reason == "its text is detokenised, so that its tokens are not the published ones"


def test_another_content(tmp_path: Path) -> None:
    make(tmp_path, "ptb")
    found = find("ptb", tmp_path)
    assert not found.comparable
    assert found.reason == "ptb/train.txt has another content than the edition that is known"
    states = [row.state for row in status(tmp_path)]
    assert states == ["other content", *["missing"] * (len(NAMES) - 1)]


def test_content_without_known_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "yahoo")
    assert find("yahoo", tmp_path).reason == (
        "yahoo/train.txt has 1 documents, the published one 100,000"
    )
    use_registry(monkeypatch, {"yahoo": {"sizes": dict.fromkeys(SPLITS, 1)}})
    assert find("yahoo", tmp_path).comparable
    make(tmp_path, "short-yelp")  # of which neither is known
    assert find("short-yelp", tmp_path).comparable


def test_originals_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "short-yelp-resplit")
    make(tmp_path, "yahoo-resplit")
    as_known(monkeypatch, tmp_path, "short-yelp-resplit", "yahoo-resplit")
    for name, edition, state in (
        ("yelp15", "short-yelp-resplit", "stand-in"),
        ("short-yelp", "short-yelp-resplit", "re-split"),
        ("yahoo", "yahoo-resplit", "re-split"),
    ):
        row = next(row for row in status(tmp_path) if row.name == name)
        assert (row.edition, row.state, row.comparable) == (edition, state, False)
    assert "at most 15 words" in find("yelp15", tmp_path).reason
    assert "re-split" in find("short-yelp", tmp_path).reason
    make(tmp_path, "yahoo", leave_out="test")
    assert find("yahoo", tmp_path).edition == "yahoo-resplit"
    make(tmp_path, "yahoo")
    make(tmp_path, "yelp15")
    assert find("yahoo", tmp_path).edition == "yahoo"
    assert find("yelp15", tmp_path).edition == "yelp15"


def test_incomplete(tmp_path: Path) -> None:
    make(tmp_path, "smd", leave_out="test")
    with pytest.raises(
        UserError, match=r"smd in .* lacks smd/test.jsonl; it comes from https://nlp"
    ):
        find("smd", tmp_path)
    row = next(row for row in status(tmp_path) if row.name == "smd")
    assert row.state == "incomplete: lacks smd/test.jsonl"
    (tmp_path / "smd" / "test.jsonl").touch()  # an empty file is none
    with pytest.raises(UserError, match=r"lacks smd/test.jsonl"):
        find("smd", tmp_path)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^ptb is not in .* \(no ptb\); it comes from https://cat"):
        find("ptb", tmp_path)
    with pytest.raises(UserError, match=r"\(none of yahoo, yahoo_20k\); it comes from"):
        find("yahoo", tmp_path)
    with pytest.raises(UserError, match=r"it comes from uncollapse data fetch dailydialog$"):
        find("dailydialog", tmp_path)


def test_files_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    original = checking._read
    monkeypatch.setattr(checking, "_read", lambda file: read.append(file) or original(file))
    file = tmp_path / "text.txt"
    file.write_text("one\ntwo")
    content = checking.content_of(file)
    assert content.lines == 2
    assert checking.content_of(file) == content
    assert len(read) == 1
    checking.content_of(file, fresh=True)
    file.write_text("one\nthree")
    assert checking.content_of(file) != content
    assert len(read) == 3
    with pytest.raises(RunError, match=r"none.txt: No such file"):
        checking.content_of(tmp_path / "none.txt")


def test_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("UNCOLLAPSE_CACHE", str(tmp_path / "file"))
    make(tmp_path, "ptb")
    assert find("ptb", tmp_path).edition == "ptb"
    monkeypatch.setenv("UNCOLLAPSE_CACHE", str(tmp_path / "cache"))
    status(tmp_path)
    for entry in (tmp_path / "cache" / "checksums").iterdir():
        entry.write_text("damaged")
    assert find("ptb", tmp_path).edition == "ptb"


def test_program_lists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "yahoo-resplit")
    code, out, _ = call_program(capsys, "data", "corpora", "--corpora", tmp_path, "--verify")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["CORPUS", "STATE", "COMPARABLE", "LICENCE", "PUBLISHED"]
    assert [line.split()[0] for line in lines[1:8]] == NAMES
    assert re.match(r"yahoo +other content +no ", lines[2])
    code, out, _ = call_program(capsys, "data", "corpora", "--corpora", tmp_path, "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["name"] for row in rows] == NAMES
    assert [row["name"] for row in rows if row["fetchable"]] == ["dailydialog"]
    monkeypatch.delenv("UNCOLLAPSE_CORPORA", raising=False)
    code, out, _ = call_program(capsys, "data", "corpora", "--json")
    assert code == 0
    assert {row["state"] for row in json.loads(out)} == {"missing"}
    code, _, err = call_program(capsys, "data", "corpora", "--corpora", tmp_path / "nowhere")
    assert (code, err.count("\n")) == (2, 1)


@pytest.mark.parametrize("name", NAMES)
def test_program_describes(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call_program(capsys, "data", "corpora", name, "--corpora", tmp_path)
    assert code == 0
    for choice in load_corpus(name).editions:
        edition = load_edition(choice.edition)
        for path in edition.paths.values():
            assert f"  {path}  " in out
        assert all(digest in out for known in edition.sha256.values() for digest in known)
    code, out, _ = call_program(capsys, "data", "corpora", name, "--corpora", tmp_path, "--json")
    values = json.loads(out)
    assert (code, values["state"]) == (0, "missing")


def test_page_has_everything() -> None:
    page = page_table()
    for name in corpus_names():
        assert f"| `{name}`: " in page
    for name in edition_names():
        assert f"`{name}`, " in page
    docs = Path(__file__).parents[1] / "docs" / "corpora.md"
    assert f"\n{page}\n" in docs.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "edition"),
    [
        ("ptb", "ptb"),
        ("yahoo", "yahoo-resplit"),
        ("short-yelp", "short-yelp-resplit"),
        ("dailydialog", "dailydialog"),
        ("smd", "smd"),
        ("switchboard", "switchboard"),
    ],
)
def test_real_corpora(corpora: Path, name: str, edition: str) -> None:
    known = load_edition(edition)
    files = {split: corpora / path for split, path in known.paths.items()}
    for file in files.values():
        if not file.is_file():
            pytest.skip(f"no corpus {file}")
    assert checking.difference(known, files, fresh=True) == ""
    assert known.sizes == {split: checking.content_of(file).lines for split, file in files.items()}
    found = find(name, corpora)
    if found.edition == edition:
        assert found.comparable == (name in ("ptb", "smd"))
        assert found.reason == load_edition(edition).reason


def test_treebank_as_published(corpora: Path) -> None:
    """The same sentences with the spaces that the published files have around each."""
    known = load_edition("ptb")
    for split, path in known.paths.items():
        file = corpora / path
        if not file.is_file():
            pytest.skip(f"no corpus {file}")
        lines = [f" {' '.join(line.split())} \n" for line in file.read_text().splitlines()]
        digest = hashlib.sha256("".join(lines).encode()).hexdigest()
        assert digest in known.sha256[split]
