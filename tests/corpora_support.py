"""Small archives in the form of the real ones, a server that misbehaves, a registry to match."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from uncollapse.corpora import registry

# of each split: dialogues, each a topic's number and turns of text, act's and emotion's number
DIALOGUES = {
    "train": [
        (1, [("Hi , Jim ’ s here .", 1, 0), ("Good . Let ' s go .", 3, 4)]),
        (10, [("How much is it ?", 2, 0), ("Ten dollars .", 1, 0), ("Fine , I take it .", 4, 4)]),
        (6, [("Where are you going ?", 2, 6), ("To the sea !", 1, 4)]),
    ],
    "validation": [(7, [("I am ill .", 1, 5), ("Go to bed .", 3, 0)])],
    "test": [(8, [("Any work for me ?", 2, 0), ("None .", 1, 1)])],
}
PARLAI_TOPICS = {
    1: "ordinary_life", 10: "finance", 6: "tourism", 7: "health", 8: "work",
}  # fmt: skip
ACTS = ["no_act", "inform", "question", "directive", "commissive"]
EMOTIONS = ["no_emotion", "anger", "disgust", "fear", "happiness", "sadness", "surprise"]


def text_archive(path: Path) -> Path:
    """In the form of the release: zip files in a zip file."""
    whole = "ijcnlp_dailydialog"
    with zipfile.ZipFile(path, "w") as archive:
        every = [dialogue for split in DIALOGUES.values() for dialogue in split]
        archive.writestr(f"{whole}/dialogues_text.txt", "".join(_text(t) for _, t in every))
        archive.writestr(f"{whole}/dialogues_topic.txt", "".join(f"{n}\n" for n, _ in every))
        archive.writestr("__MACOSX/train.zip", b"not a zip file")
        archive.writestr("../../outside.txt", "must not be written")
        for split, dialogues in DIALOGUES.items():
            part = io.BytesIO()
            with zipfile.ZipFile(part, "w") as inner:
                columns = {
                    "": [_text(turns) for _, turns in dialogues],
                    "act_": ["".join(f"{a} " for _, a, _ in t) + "\n" for _, t in dialogues],
                    "emotion_": ["".join(f"{e} " for _, _, e in t) + "\n" for _, t in dialogues],
                }
                for kind, lines in columns.items():
                    inner.writestr(f"{split}/dialogues_{kind}{split}.txt", "".join(lines))
            archive.writestr(f"{whole}/{split}.zip", part.getvalue())
    return path


def _text(turns: list[tuple[str, int, int]]) -> str:
    return "".join(f"{text} __eou__ " for text, _, _ in turns).rstrip() + "\n"


def json_archive(path: Path) -> Path:
    """In the form of ParlAI's copy: JSON lines in a tar file."""
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo("../outside")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        for split, dialogues in DIALOGUES.items():
            lines = [
                {
                    "fold": split,
                    "topic": PARLAI_TOPICS[topic],
                    "dialogue": [
                        {"emotion": EMOTIONS[e], "act": ACTS[a], "text": text.replace("’", "'")}
                        for text, a, e in turns
                    ],
                }
                for topic, turns in dialogues
            ]
            content = "".join(json.dumps(line) + "\n" for line in lines).encode()
            member = tarfile.TarInfo(f"{'valid' if split == 'validation' else split}.json")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def use_registry(patch: pytest.MonkeyPatch, changes: dict[str, dict[str, object]]) -> None:
    """The registry with other values for keys of editions, until the test ends."""
    values = copy.deepcopy(registry._registry())
    for edition, keys in changes.items():
        values["editions"][edition].update(keys)
    patch.setattr(registry, "_registry", lambda: values)


def archive_facts(path: Path, address: str | None) -> dict[str, object]:
    """What the registry says of an archive."""
    content = path.read_bytes()
    return {
        "name": path.name,
        "format": "dailydialog-text" if path.suffix == ".zip" else "dailydialog-json",
        "address": address,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "source": "this test",
    }


class Server(ThreadingHTTPServer):
    """Serves one content at every path, as its behaviour says; keeps the ranges asked for."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.behaviour = "ranges"
        self.asked: list[str | None] = []
        self.released = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/archive"


class _Handler(BaseHTTPRequestHandler):
    server: Server  # type: ignore[assignment]

    def log_message(self, *_arguments: object) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        content, behaviour = self.server.content, self.server.behaviour
        if behaviour == "redirect" and self.path == "/archive":
            self.send_response(302)
            self.send_header("Location", "/moved")
            self.end_headers()
            return
        if behaviour.isdecimal():
            self.send_error(int(behaviour))
            return
        if behaviour == "silent":
            self.server.released.wait(10)
            return
        start = 0
        if asked is not None and behaviour != "no ranges":
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        if start:
            end = len(content) - 1
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        rest = content[start:]
        if behaviour != "no length":
            self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if behaviour in ("cut", "no ranges") and len(self.server.asked) == 1:
            rest = rest[: len(rest) // 2]
        if behaviour == "always cut":
            rest = rest[:10]
        if behaviour == "cut for good" and len(self.server.asked) > 1:
            rest = b""
        if behaviour == "stalls" and len(self.server.asked) == 1:
            self.wfile.write(rest[:100])
            self.server.released.wait(10)
            return
        self.wfile.write(rest[:200] if behaviour == "cut for good" else rest)
        self.close_connection = True


@contextmanager
def serving(content: bytes) -> Iterator[Server]:
    """A server on this machine, for as long as the block lasts."""
    server = Server(content)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
