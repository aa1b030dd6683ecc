"""`respond` and responses in contexts from a shell."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cli_support import Call, call_program
from dialogue_models import TURNS, dialogue_model

from uncollapse import TextVAE
from uncollapse.dialogues import read_dialogues
from uncollapse.errors import UserError

Typed = Callable[..., tuple[int, str, str]]

DIALOGUES: list[dict[str, Any]] = [
    {"id": 1, "turns": [{"speaker": "ABA"[i], "text": text} for i, text in enumerate(TURNS[:3])]},
    {"id": 2, "turns": [{"text": "where do we go now ?"}]},
    {"id": 3, "turns": [{"speaker": "A", "text": "hello"}, {"text": " "}]},
]
RESPONSES = [
    {"context": [{"speaker": "A", "text": "hello"}, "how are you ?"], "response": "fine"},
    {"context": [], "response": "hello"},
    {"context": TURNS[:1], "response": " ", "speaker": "B"},
]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    return partial(call_program, capsys)


@pytest.fixture
def typed(call: Call, monkeypatch: pytest.MonkeyPatch) -> Typed:
    """Run the program with these bytes on its standard input."""

    def run(text: bytes, *arguments: object) -> tuple[int, str, str]:
        read, write = os.pipe()
        os.write(write, text)
        os.close(write)
        with os.fdopen(read) as stream:
            monkeypatch.setattr(sys, "stdin", stream)
            return call(*arguments)

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of every kind that matters here, and dialogues."""
    folder = tmp_path_factory.mktemp("data")
    mixture = dialogue_model("mixture")
    mixture.save_pretrained(folder / "plain")
    mixture.name_components({"z.component": {"2-1": "greets"}})
    mixture.save_pretrained(folder / "mixture")
    dialogue_model("gaussian").save_pretrained(folder / "gaussian")
    dialogue_model("no context").save_pretrained(folder / "vae")
    for name, rows in (("turns", DIALOGUES), ("responses", RESPONSES)):
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
    (folder / "texts.txt").write_text("\n".join(TURNS))
    (folder / "texts.jsonl").write_text('{"text": "hello"}\n')
    (folder / "broken.jsonl").write_text('{"turns": [{"txt": "hello"}]}\n')
    return folder


def test_a_conversation_is_answered_line_by_line(typed: Typed, data: Path) -> None:
    lines = b"hello there\n\nhow are you ?\n/new\n where do we go now ? \r\n"
    how = (data / "gaussian", "--seed", 5, "--max-length", 6)
    code, out, err = typed(lines, "respond", *how)
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 3
    assert typed(lines, "respond", *how)[1] == out
    rows = [json.loads(row) for row in typed(lines, "respond", *how, "--json")[1].splitlines()]
    contexts = [[turn["text"] for turn in row["context"]] for row in rows]
    first = rows[0]["responses"][0]["text"]
    assert contexts == [
        ["hello there"],
        ["hello there", first, "how are you ?"],
        ["where do we go now ?"],
    ]
    assert [row["responses"][0]["text"] for row in rows] == out.splitlines()
    assert [turn["speaker"] for turn in rows[1]["context"]] == ["user", "model", "user"]
    # the same words at another time get another answer
    again = typed(b"hello there\n/new\n" * 9, "respond", *how)[1].splitlines()
    assert len(set(again)) > 1


def test_every_answer_shows_its_action_and_name(typed: Typed, data: Path) -> None:
    how = (data / "mixture", "-n", 3, "--seed", 1, "--max-length", 4)
    code, out, err = typed(b"hello\nfine\n", "respond", *how, "--component", "greets")
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 6
    assert all(line.startswith("2-1  greets  ") for line in out.splitlines())
    by_code = typed(b"hello\nfine\n", "respond", *how, "--component", "2-1")[1]
    assert by_code == out
    one = typed(b"hello\n", "respond", *how, "--component", 3, "--index", 1, "--json")[1]
    (row,) = map(json.loads, one.splitlines())
    assert {answer["action"][-2:] for answer in row["responses"]} == {"-3"}
    plain = (data / "plain", *how[1:])
    out = typed(b"hello\n", "respond", *plain, "--component", "2-1")[1]
    assert all(line.startswith("2-1  ") and "greets" not in line for line in out.splitlines())
    greedy = typed(b"hello\n", "respond", data / "gaussian", "--greedy", "--seed", 0)
    assert greedy == typed(b"hello\n", "respond", data / "gaussian", "--greedy", "--seed", 0)


def test_nothing_typed_is_nothing_answered(typed: Typed, data: Path) -> None:
    for text in (b"", b"\n \n", b"/new\n"):
        assert typed(text, "respond", data / "gaussian") == (0, "", "")
    code, out, err = typed(b"hello\nhell\xff\n", "respond", data / "gaussian")
    assert (code, len(out.splitlines())) == (2, 1)
    assert err == "uncollapse: standard input, line 2: not valid UTF-8\n"


def test_who_types_sees_a_prompt(typed: Typed, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uncollapse.cli.responding._is_typed", lambda: True)
    code, out, err = typed(b"hello\n", "respond", data / "gaussian")
    assert (code, err) == (0, "> > \n")
    assert len(out.splitlines()) == 1


def test_dialogues_of_a_file_are_answered(call: Call, data: Path) -> None:
    how = ("--seed", 3, "-n", 2, "--max-length", 5)
    code, out, err = call("respond", data / "mixture", "--data", data / "turns.jsonl", *how)
    assert (code, err) == (0, "")
    blocks = out.rstrip("\n").split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == [
        "A: hello there",
        "where do we go now ?",
        "A: hello",
    ]
    lines = blocks[0].splitlines()
    assert lines[1:3] == ["B: how are you ?", "A: fine thanks and you"]
    assert [line.startswith("  ") for line in lines[3:]] == [True, True]
    rows = [
        json.loads(row)
        for row in call(
            "respond", data / "mixture", "--data", data / "turns.jsonl", *how, "--json"
        )[1].splitlines()
    ]
    assert rows[0]["context"] == DIALOGUES[0]["turns"]
    assert rows[1]["context"] == ["where do we go now ?"]
    assert rows[2]["context"] == [{"speaker": "A", "text": "hello"}]
    shown = [line.strip().split("  ") for line in lines[3:]]
    found = [[r["action"], *filter(None, [r["name"], r["text"]])] for r in rows[0]["responses"]]
    assert shown == found
    answers = TextVAE.from_pretrained(data / "mixture").respond(
        [row["context"] for row in rows], n=2, seed=3, max_length=5
    )
    assert [[vars(response) for response in own] for own in answers] == [
        row["responses"] for row in rows
    ]
    limited = ("--limit", 2, "--json")
    first = call("respond", data / "mixture", "--data", data / "turns.jsonl", *how, *limited)[1]
    assert [json.loads(row) for row in first.splitlines()] == rows[:2]


def test_rows_of_context_and_response_are_answered(call: Call, data: Path, tmp_path: Path) -> None:
    how = (data / "gaussian", "--seed", 3, "--json")
    code, out, err = call("respond", *how, "--data", data / "responses.jsonl")
    assert (code, err) == (0, "")
    found = [json.loads(row) for row in out.splitlines()]
    assert [row["context"] for row in found] == [row["context"] for row in RESPONSES]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["context", "response", "speaker"], ["hello __eou__ how are you ?", "fine", ""]]
        )
    out = call("respond", *how, "--data", tmp_path / "a.csv")[1]
    assert json.loads(out)["context"] == ["hello", "how are you ?"]


def test_features_of_a_context_are_read_too() -> None:
    topics = {"column": "topic", "values": 3, "dim": 4}
    recipe = dialogue_model("gaussian", condition={"hidden_dim": 10, "features": [topics]}).recipe
    turns = [{"text": "a"}, {"text": "b", "topic": "x"}]
    rows = [{"topic": "sport", "turns": turns[:1] * 2}, {"topic": "sport", "turns": turns}]
    found = [row["topic"] for row in read_dialogues(rows, recipe)]
    assert found == ["sport", None]
    (row,) = read_dialogues([RESPONSES[0] | {"topic": "travel"}], recipe)
    assert row["topic"] == "travel"
    assert "topic" not in next(read_dialogues(DIALOGUES, recipe))
    with pytest.raises(UserError, match="sentences and no dialogues"):
        list(read_dialogues(["hello"], recipe))


def test_interpolation_has_a_context(call: Call, data: Path) -> None:
    context = ("--context", "hello there", "--context", "how are you ?")
    how = ("interpolate", data / "gaussian", "fine thanks", "home i think", "--steps", 3)
    code, out, err = call(*how, *context, "--json", "--max-length", 6)
    assert (code, err) == (0, "")
    vae = TextVAE.from_pretrained(data / "gaussian")
    turns = ["hello there", "how are you ?"]
    path = vae.interpolate("fine thanks", "home i think", 3, context=turns, max_length=6)
    assert json.loads(out) == path
    assert path != vae.interpolate("fine thanks", "home i think", 3, max_length=6)


def test_dialogues_are_data_of_the_other_verbs(call: Call, data: Path) -> None:
    (data / "whole.jsonl").write_text(f"{json.dumps(DIALOGUES[0])}\n" * 9)
    file = ("--data", data / "whole.jsonl")
    assert len(call("encode", data / "gaussian", *file)[1].splitlines()) == 27
    assert len(call("predict", data / "mixture", *file)[1].splitlines()) == 27
    assert len(json.loads(call("reconstruct", data / "mixture", *file, "--json")[1])) == 27
    assert json.loads(call("clusters", data / "mixture", *file, "--json")[1])["sentences"] == 27
    assert "verdict" in call("diagnose", data / "mixture", *file)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MIX", "-n", "0"], "n must be at least 1, not 0"),
        (["MIX", "--component", "grets"], "did you mean 'greets'"),
        (["MIX", "--component", "9-9"], "'9'"),
        (["MIX", "--component", "1"], "one index of 2"),
        (["MIX", "--component", "1-1", "--variable", "z.compnent"], "'z.component'"),
        (["MIX", "--index", "1"], "with a component"),
        (["MIX", "--temperature", "0"], "temperature"),
        (["MIX", "--top-p", "7"], "top_p"),
        (["MIX", "--seed", "-1"], "seed"),
        (["MIX", "--max-length", "0"], "max_length"),
        (["MIX", "--device", "gpu"], "unknown device"),
        (["MIX", "--limit", "2"], "--limit is of use with --data"),
        (["MIX", "--data", "turns.jsonl", "--limit", "0"], "at least 1, not 0"),
        (["MIX", "--data", "turns.jsonl", "-n", "0"], "n must be at least 1"),
        (["MIX", "--data", "-"], "lines of stdin are turns"),
        (["MIX", "--data", "turn.jsonl"], "did you mean turns.jsonl"),
        (["MIX", "--data", "texts.txt"], "lacks 'turns', or 'context' and 'response'"),
        (["MIX", "--data", "texts.jsonl"], "lacks 'turns', or 'context' and 'response'"),
        (["MIX", "--data", "broken.jsonl"], "broken.jsonl, line 1, turn 1: no column 'text'"),
        (["MIX", "--dta", "turns.jsonl"], "--data"),
        (["vae"], "is told of no context"),
        (["vae", "--data", "turns.jsonl"], "use sample"),
        (["nowhere"], "nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(
    typed: Typed, data: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    names = {"MIX": "mixture"}
    code, out, err = typed(b"hello\n", "respond", *(names.get(a, a) for a in arguments))
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1, err
    assert message in err


def test_a_context_for_a_model_without_one_is_refused(call: Call, data: Path) -> None:
    code, out, err = call("interpolate", data / "vae", "hello", "home", "--context", "fine")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "is told of no context" in err
