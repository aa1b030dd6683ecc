"""Which verbs run where torchrun has started several processes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import typer
from cli_support import Call, call_program

from uncollapse.cli import app


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("WORLD_SIZE", "2")
    return partial(call_program, capsys)


def test_all_verbs_but_two_refuse_several_processes(call: Call) -> None:
    verbs = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for verb in verbs - {"train", "evaluate"}:
        assert call(verb) == (
            2,
            "",
            f"uncollapse: {verb} is for one process, and WORLD_SIZE is 2; "
            "under torchrun, train and evaluate alone may run\n",
        )


def test_nothing_is_written(call: Call, tmp_path: Path) -> None:
    data = ("--train", __file__, "--test", __file__, "--out", tmp_path / "out")
    assert call("compare", "vae", *data)[0] == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("world", ["1", "0", "", "two"])
def test_one_process_may_do_everything(
    call: Call, monkeypatch: pytest.MonkeyPatch, world: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", world)
    assert call("recipes")[0] == 0


def test_the_two_are_let_through(call: Call, tmp_path: Path) -> None:
    assert call("train", "vae", "--train", "F", "--out", tmp_path, "--dry-run")[0] == 0
    assert "for one process" not in call("evaluate", tmp_path, "--data", "F")[2]
    assert "for one process" not in call("--help")[2]
