"""Corpora from the network: checked, resumed, whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import call_program
from corpora_support import (
    DIALOGUES,
    Server,
    archive_facts,
    json_archive,
    serving,
    use_registry,
)

from uncollapse.corpora import downloading, fetch, fetching, find, load_corpus
from uncollapse.errors import RunError

SMALL = {split: len(dialogues) for split, dialogues in DIALOGUES.items()}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serves the archive that the registry then names."""
    copy = json_archive(tmp_path / "copy.tar.gz")
    monkeypatch.setenv("UNCOLLAPSE_CACHE", str(tmp_path / "cache"))
    with serving(copy.read_bytes()) as running:
        changes: dict[str, dict[str, object]] = {
            "dailydialog-parlai": {
                "sizes": SMALL,
                "archive": archive_facts(copy, running.address),
            },
        }
        use_registry(monkeypatch, changes)
        yield running


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def rest(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*")) if folder.exists() else []


@pytest.mark.parametrize("behaviour", ["ranges", "no length", "redirect"])
def test_fetched_and_found(server: Server, tmp_path: Path, behaviour: str) -> None:
    server.behaviour = behaviour
    folder = tmp_path / "corpora"
    fetched = fetch("dailydialog", folder)
    assert fetched == find("dailydialog", folder)
    assert fetched.edition == "dailydialog-parlai"
    assert rest(folder) == ["dailydialog_parlai", "test.jsonl", "train.jsonl", "validation.jsonl"]
    assert not rest(tmp_path / "cache" / "downloads")
    first = lines(fetched.files["train"])[0]
    assert first == {
        "id": "dailydialog-train-0",
        "topic": "Ordinary Life",
        "turns": [
            {"speaker": "A", "text": "Hi , Jim ' s here .", "act": "inform",
             "emotion": "no emotion"},
            {"speaker": "B", "text": "Good . Let ' s go .", "act": "directive",
             "emotion": "happiness"},
        ],
    }  # fmt: skip
    assert {split: len(lines(file)) for split, file in fetched.files.items()} == SMALL


@pytest.mark.parametrize(("behaviour", "asked"), [("cut", "bytes={}-"), ("no ranges", "bytes={}-")])
def test_goes_on_after_a_cut(server: Server, tmp_path: Path, behaviour: str, asked: str) -> None:
    server.behaviour = behaviour
    fetch("dailydialog", tmp_path / "corpora")
    assert server.asked == [None, asked.format(len(server.content) // 2)]


def test_goes_on_in_a_later_call(server: Server, tmp_path: Path) -> None:
    server.behaviour = "cut for good"
    with pytest.raises(RunError, match=r"broke off after 200 of .* run again") as error:
        fetch("dailydialog", tmp_path / "corpora")
    assert "\n" not in str(error.value)
    assert not rest(tmp_path / "corpora")
    server.behaviour, server.asked = "ranges", []
    fetch("dailydialog", tmp_path / "corpora")
    assert server.asked == ["bytes=200-"]


def test_gives_up_on_endless_cuts(server: Server, tmp_path: Path) -> None:
    server.behaviour = "always cut"
    with pytest.raises(RunError, match="broke off after 40 of"):
        fetch("dailydialog", tmp_path / "corpora")
    assert len(server.asked) == downloading.ATTEMPTS


def test_goes_on_when_nothing_more_comes(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "TIMEOUT", 0.2)
    server.behaviour = "stalls"
    fetch("dailydialog", tmp_path / "corpora")
    assert server.asked == [None, "bytes=100-"]


def partial_of(server: Server, tmp_path: Path) -> Path:
    """Where a download is kept until it is whole."""
    name = hashlib.sha256(server.content).hexdigest()
    partial = tmp_path / "cache" / "downloads" / f"{name}.partial"
    partial.parent.mkdir(parents=True)
    return partial


def test_whole_download_of_an_earlier_call(server: Server, tmp_path: Path) -> None:
    partial_of(server, tmp_path).write_bytes(server.content)
    fetch("dailydialog", tmp_path / "corpora")
    assert server.asked == []


def test_damaged_download_of_an_earlier_call(server: Server, tmp_path: Path) -> None:
    partial = partial_of(server, tmp_path)
    partial.write_bytes(b"x" * 50)
    with pytest.raises(RunError, match="has another checksum than is known"):
        fetch("dailydialog", tmp_path / "corpora")
    assert not partial.exists()
    partial.write_bytes(server.content + b"more")
    fetch("dailydialog", tmp_path / "corpora")
    assert server.asked == ["bytes=50-", None]


def test_rest_that_the_server_has_not(server: Server, tmp_path: Path) -> None:
    partial = partial_of(server, tmp_path)
    partial.write_bytes(b"x" * 50)
    server.behaviour = "416"
    with pytest.raises(RunError, match="answers 416"):
        fetch("dailydialog", tmp_path / "corpora")
    assert not partial.exists()


def test_wrong_checksum(server: Server, tmp_path: Path) -> None:
    right = server.content
    server.content = b"x" + right[1:]
    with pytest.raises(RunError, match="has another checksum than is known"):
        fetch("dailydialog", tmp_path / "corpora")
    assert not rest(tmp_path / "corpora")
    assert not rest(tmp_path / "cache" / "downloads")
    server.content = right
    fetch("dailydialog", tmp_path / "corpora")


@pytest.mark.parametrize("behaviour", ["ranges", "no length"])
def test_another_file(server: Server, tmp_path: Path, behaviour: str) -> None:
    server.behaviour, server.content = behaviour, server.content + b"and more"
    with pytest.raises(RunError, match=r"is another file than is known|sends more than"):
        fetch("dailydialog", tmp_path / "corpora")
    assert not rest(tmp_path / "corpora")


@pytest.mark.parametrize(("behaviour", "says"), [("404", "404 Not Found"), ("403", "403")])
def test_refused(
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    behaviour: str,
    says: str,
) -> None:
    server.behaviour = behaviour
    folder = tmp_path / "corpora"
    code, out, err = call_program(capsys, "data", "fetch", "dailydialog", "--corpora", folder)
    assert (code, out) == (1, "")
    assert says in err.splitlines()[-1]
    assert not folder.exists()


def test_timeout_and_nobody_there(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "TIMEOUT", 0.2)
    server.behaviour = "silent"
    with pytest.raises(RunError, match=r"no answer within 0\.2 seconds"):
        fetch("dailydialog", tmp_path / "corpora")
    with pytest.raises(RunError, match="cannot be reached: Connection refused"):
        downloading.download("http://127.0.0.1:9/x", tmp_path / "x", sha256="0", size=1)


def test_disk_full(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(fetching.os, "fsync", full)
        with pytest.raises(RunError, match=r"cannot write .*: No space left on device"):
            fetch("dailydialog", tmp_path / "corpora")
    assert not rest(tmp_path / "corpora")
    server.behaviour = "404"  # the archive had arrived
    fetch("dailydialog", tmp_path / "corpora")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_disk_full_while_downloading(server: Server, tmp_path: Path) -> None:
    kept = tmp_path / "cache" / "x"
    kept.parent.mkdir(exist_ok=True)
    kept.with_name("x.partial").symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"cannot write .*x\.partial: No space left on device"):
        downloading.download(server.address, kept, sha256="0", size=len(server.content))


def test_nothing_is_overwritten(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "corpora" / "dailydialog_parlai"
    mine.mkdir(parents=True)
    (mine / "notes.txt").write_text("mine")
    call = ("data", "fetch", "dailydialog", "--corpora", mine.parent)
    code, _, err = call_program(capsys, *call)
    assert code == 2
    assert err == f"uncollapse: {mine} exists already; nothing was fetched\n"
    assert rest(mine.parent) == ["dailydialog_parlai", "notes.txt"]
    assert server.asked == []


@pytest.mark.usefixtures("server")
def test_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "corpora"
    code, out, err = call_program(capsys, "data", "fetch", "dailydialog", "--corpora", folder)
    assert (code, out) == (0, "")
    assert f"{folder}/dailydialog_parlai: 3 / 1 / 1 dialogues\n" in err
    assert "CC BY-NC-SA 4.0; please cite Li et al., IJCNLP 2017" in err


@pytest.mark.parametrize("name", ["ptb", "yahoo", "yelp15", "short-yelp", "smd", "switchboard"])
def test_without_permission(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call_program(capsys, "data", "fetch", name, "--corpora", tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{name} cannot be fetched (licence: " in err
    assert load_corpus(name).published in err
    assert not rest(tmp_path)
