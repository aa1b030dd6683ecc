"""Studies with people: what is exported, and what raters are shown."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_support import Call, call_program
from rating_support import DIALOGUES, EVIL, SEED, Fake, fill, make, rows_of

from uncollapse.errors import UserError
from uncollapse.rating import export
from uncollapse.rating.key import Key, read_key
from uncollapse.rating.sheet import NOT_ASKED, sheet_text


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return make(tmp_path / "study")


def test_every_system_answers_the_same_contexts(tmp_path: Path) -> None:
    one, two = Fake(turns=2), Fake(turns=1, columns=["topic"])
    make(tmp_path / "study", {"one": one, "two": two}, contexts=21, n=2, method="greedy")
    assert one.asked == two.asked
    [(contexts, how)] = one.asked
    assert (len(contexts), how["n"], how["method"]) == (21, 2, "greedy")
    assert len({json.dumps(context) for context in contexts}) == 21
    # the longest window of the runs
    assert {len(context["turns"]) for context in contexts} == {1, 2}
    assert {context["speaker"] for context in contexts} == {"A", "B", None}
    assert {context["topic"] for context in contexts} == {"health"}
    turns = [turn for context in contexts for turn in context["turns"]]
    assert f"fine, and {EVIL}" in turns  # a turn without a speaker, and without a line break
    assert {"speaker": "B", "text": "how are you, really?"} in turns
    key = read_key(tmp_path / "study")
    assert len(key.items) == 2 * 21 * 2
    assert sorted((item.system, item.unit) for item in key.items)[:3] == [
        ("one", 0),
        ("one", 0),
        ("one", 1),
    ]


def test_files_of_a_study(tmp_path: Path) -> None:
    study = make(tmp_path / "a" / "study", raters=2)
    assert sorted(path.name for path in study.iterdir()) == [
        "instructions.md",
        "key.json",
        "rater-1.csv",
        "rater-1.html",
        "rater-2.csv",
        "rater-2.html",
    ]
    assert sorted(path.name for path in study.parent.iterdir()) == ["study"]
    head, *rows = rows_of(study / "rater-1.csv")
    assert head == ["item", "context", "response", "fluency", "relevance", "informativeness"]
    assert len(rows) == 12
    assert all(row[3:] == ["", "", ""] for row in rows)
    assert not any(row[2].startswith(("=", "+", "-", "@")) for row in rows)
    assert "" not in {row[2] for row in rows}
    instructions = (study / "instructions.md").read_text(encoding="utf-8")
    assert "1 = not at all, 3 = entirely" in instructions
    assert all(f"**{name}**" in instructions for name in head[3:])


def test_nothing_that_raters_get_tells_systems_apart(tmp_path: Path) -> None:
    study = make(tmp_path / "study-of-systems", criteria=["quality", "consistency"], raters=2)
    for path in study.iterdir():
        text = path.read_text(encoding="utf-8")
        if path.name == "key.json":
            assert "bn-cvae" in text
            continue
        for secret in ("cvae", "study-of-systems", str(tmp_path), str(SEED), "component"):
            assert secret not in text
    key = read_key(study)
    names = [name for sheet in key.sheets for name in sheet]
    assert len(set(names)) == len(names) == 2 * len(key.items)
    assert {len(name) for name in names} == {8}
    orders = [list(sheet.values()) for sheet in key.sheets]
    assert orders[0] != orders[1]


def test_seed_fixes_what_is_said_and_never_the_order(tmp_path: Path) -> None:
    first, second = (read_key(make(tmp_path / name, raters=1)) for name in "ab")
    other = read_key(make(tmp_path / "c", raters=1, seed=SEED + 1))
    assert (first.contexts, first.items) == (second.contexts, second.items)
    assert first.contexts != other.contexts
    # who knows the seed must not be able to find out which item is whose
    assert list(first.sheets[0].values()) != list(second.sheets[0].values())
    assert not set(first.sheets[0]) & set(second.sheets[0])


def test_consistency_is_of_responses_that_share_an_action(tmp_path: Path) -> None:
    many, few = Fake(), Fake(actions=2)
    lines: list[str] = []
    study = make(
        tmp_path / "study",
        {"many": many, "few": few},
        criteria=["quality", "consistency"],
        actions=3,
        say=lines.append,
    )
    key = read_key(study)
    groups = [item for item in key.items if item.kind == "group"]
    assert [item.system for item in groups] == ["many"] * 3 + ["few"] * 2
    assert lines == ["few: 2 actions in use, fewer than 3"]
    assert len({item.action for item in groups[:3]}) == 3
    assert all(len(item.responses) == 5 for item in groups)
    # group by group, systems answer the same contexts with the same noise
    assert [(given, how["seed"]) for given, how in many.asked[:3]] == [
        (given, how["seed"]) for given, how in few.asked
    ]
    assert [how["component"] for _, how in many.asked[1:]] == [i.action for i in groups[:3]]
    head, *rows = rows_of(study / "rater-1.csv")
    assert head[3:] == ["quality", "consistency"]
    assert sorted(row[3:] for row in rows) == [["", NOT_ASKED]] * 12 + [[NOT_ASKED, ""]] * 5
    assert all((row[1] == "") == (row[3] == NOT_ASKED) for row in rows)
    assert all(row[2].count("\n") == 4 for row in rows if row[1] == "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"criteria": ["fluencey"]}, "unknown criterion 'fluencey'; did you mean 'fluency'?"),
        ({"criteria": ["fluency", "fluency"]}, "criterion 'fluency' is there twice"),
        ({"criteria": []}, "there is no criterion"),
        ({"scale": 1}, "a scale ends at 2 to 10, not at 1"),
        ({"scale": 11}, "a scale ends at 2 to 10, not at 11"),
        ({"contexts": 0}, "contexts must be at least 1, not 0"),
        ({"contexts": 31}, "the data has 21 different contexts, but 31 are to be picked"),
        ({"raters": 0}, "raters must be at least 1, not 0"),
        ({"n": 0}, "n must be at least 1, not 0"),
        ({"seed": -1}, "the seed must not be negative"),
        ({"criteria": ["consistency"], "contexts": 4}, "consistency needs at least 5 contexts"),
        ({"systems": {"a": Fake(), "plain": Fake(0)}, "criteria": ["consistency"]}, "^plain: "),
        ({"systems": {"a": Fake(turns=0)}}, "none of the runs reads a context"),
        ({"systems": {"a": Fake(), "b": Fake(fails="no words")}}, "^b: no words$"),
    ],
)
def test_bad_requests_write_nothing(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(tmp_path / "study", **change)
    assert list(tmp_path.iterdir()) == []


def test_bad_places_and_data(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="file exists already"):
        make(tmp_path / "file")
    with pytest.raises(UserError, match="file is not a folder"):
        make(tmp_path / "file" / "study")
    with pytest.raises(UserError, match="no run"):
        export([], DIALOGUES, tmp_path / "study")
    with pytest.raises(UserError, match="is there twice"):
        export([tmp_path, tmp_path / "." / ""], DIALOGUES, tmp_path / "study")
    with pytest.raises(UserError, match="no turn with a context"):
        export({"a": Fake()}, ["one sentence", "another"], tmp_path / "study")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# --- the program ----------------------------------------------------------------------------------


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    return partial(call_program, capsys)


def test_study_from_a_shell(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from uncollapse import TextVAE

    opened: list[Path] = []

    class Loaded(Fake):
        def to(self, _device: str) -> Loaded:
            return self

    def open_run(folder: Path) -> Loaded:
        opened.append(folder)
        return Loaded()

    monkeypatch.setattr(TextVAE, "from_pretrained", open_run)
    data = tmp_path / "test.jsonl"
    data.write_text("".join(json.dumps(dialogue) + "\n" for dialogue in DIALOGUES))
    runs = [tmp_path / "runs" / name for name in ("new", "old")]
    study = tmp_path / "study"
    request = ("--data", data, "--out", study, "--contexts", 5, "--criteria", "fluency, quality")
    code, out, err = call("rate", "export", *runs, *request, "--raters", 2, "--greedy")
    assert (code, out) == (0, f"{study}\n")
    assert "key.json" in err
    assert opened == runs
    key = read_key(study)
    assert key.systems == {"new": str(runs[0]), "old": str(runs[1])}
    assert key.settings["method"] == "greedy"
    assert key.settings["data"] == str(data)
    code, out, err = call("rate", "export", *runs, *request)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "exists already" in err
    sheets = [fill(study, r, lambda item, _: 3 if item.system == "new" else 1) for r in (1, 2)]
    code, out, err = call("rate", "score", study, *sheets, "--baseline", runs[1], "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert [figure["mean"] for figure in found["figures"]] == [3, 1, 3, 1]
    assert {test["baseline"] for test in found["tests"]} == {"old"}
    code, out, err = call("rate", "score", study / "key.json", *sheets)
    assert (code, err) == (0, "")
    assert "2 of 2 raters; ratings 1 … 3, 0 holes" in out
    code, out, err = call("rate", "score", study, study / "rater-1.csv")
    assert (code, out, err.count("\n")) == (2, "", 1)
    code, out, err = call("rate", "export", *runs, *request[:-1], "fluency,,quality")
    assert code == 2
    assert "lacks a name" in err


def test_runs_of_the_same_name_keep_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from uncollapse import TextVAE

    loaded = SimpleNamespace(to=lambda _device: Fake())
    monkeypatch.setattr(TextVAE, "from_pretrained", lambda _folder: loaded)
    runs = [tmp_path / "a" / "run", tmp_path / "b" / "run"]
    study = export(runs, DIALOGUES, tmp_path / "study", contexts=2)
    assert list(read_key(study).systems) == list(map(str, runs))


def test_scoring_needs_no_network_library() -> None:
    code = "import sys, uncollapse.rating; print('torch' in sys.modules, 'scipy' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]


def test_key_is_read_as_it_was_written(study: Path) -> None:
    text = (study / "key.json").read_text(encoding="utf-8")
    key = Key.model_validate_json(text)
    assert key.to_json() == text
    assert sheet_text(key, 0) == (study / "rater-1.csv").read_text(encoding="utf-8")
    assert list(csv.reader(io.StringIO(sheet_text(key, 1)))) == rows_of(study / "rater-2.csv")


def test_a_system_that_reads_no_context_is_left_out(tmp_path: Path) -> None:
    one, two = Fake(), Fake()
    two.recipe.condition = None
    with pytest.raises(
        UserError, match=r"^two answers nobody: its recipe has no condition"
    ) as found:
        make(tmp_path / "study", {"one": one, "two": two}, contexts=3)
    assert "\n" not in str(found.value)
    assert not (tmp_path / "study").exists()
