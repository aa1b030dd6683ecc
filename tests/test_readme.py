"""The README's commands run as written, in its order, and its lists are the program's."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from uncollapse import cli
from uncollapse.data.grammar import write_grammar
from uncollapse.recipes import load_recipe, recipe_names

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


@pytest.fixture
def reviews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_grammar(tmp_path / "reviews.txt", 200, 0)
    write_grammar(tmp_path / "reviews.test.txt", 40, 1)
    return tmp_path


@pytest.mark.slow
def test_shell(reviews: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (script,) = blocks("bash")
    commands = [shlex.split(line) for line in script.splitlines()]
    ours = [command for command in commands if command[0] == "uncollapse"]
    assert len(ours) == len(commands) - 1  # the other one is the installation
    for command in ours:
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert not stopped.value.code, command
    assert (reviews / "runs/compared/index.html").is_file()


@pytest.mark.slow
def test_python(reviews: Path) -> None:
    (script,) = blocks("python")
    exec(compile(script, "README.md", "exec"), {})
    assert (reviews / "models/reviews/model.safetensors").is_file()


def test_the_table_of_recipes_is_the_program_s() -> None:
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \| (.*?) \|", README, re.M))
    assert rows == {name: load_recipe(name).summary for name in recipe_names()}


def test_local_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target
