"""The README's commands run as written, in its order, and its lists are the program's."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from uncollapse import cli
from uncollapse.data.grammar import write_grammar
from uncollapse.evaluation.suite import PROBES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


@pytest.fixture
def reviews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_grammar(tmp_path / "reviews.txt", 200, 0)
    write_grammar(tmp_path / "reviews.test.txt", 40, 1)
    for name, seed, count in (("talk.jsonl", 2, 40), ("talk.test.jsonl", 3, 12)):
        write_grammar(tmp_path / f"{seed}.txt", 5 * count, seed)
        turns = (tmp_path / f"{seed}.txt").read_text(encoding="utf-8").splitlines()
        dialogues = [turns[start : start + 5] for start in range(0, 5 * count, 5)]
        lines = [
            json.dumps({"turns": [{"speaker": "AB"[i % 2], "text": t} for i, t in enumerate(d)]})
            for d in dialogues
        ]
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


@pytest.mark.slow
def test_shell(reviews: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = [shlex.split(line) for script in blocks("bash") for line in script.splitlines()]
    ours = [command for command in commands if command[0] == "uncollapse"]
    assert len(ours) == len(commands) - 1  # the other one is the installation
    for command in ours:
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert not stopped.value.code, command
    assert (reviews / "runs/compared/index.html").is_file()
    assert (reviews / "components.svg").is_file()
    assert (reviews / "study/rater-1.html").is_file()


@pytest.mark.slow
def test_python(reviews: Path) -> None:
    (script,) = blocks("python")
    exec(compile(script, "README.md", "exec"), {})
    assert (reviews / "models/reviews/model.safetensors").is_file()


def test_its_tables_are_made_from_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    tables = importlib.import_module("readme_tables")
    for page in tables.TABLES:
        assert tables.filled(page) == page.read_text(encoding="utf-8"), page


def test_the_reproduction_report_is_made_from_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    pages = importlib.import_module("reproduction_pages").pages()
    assert {page.stem for page in pages} >= {"index", "leaderboard"}
    for page, text in pages.items():
        assert text == page.read_text(encoding="utf-8"), page
    written = {
        *(ROOT / "docs/reproduction").rglob("*.md"),
        *(ROOT / "docs").glob("leaderboard*.md"),
    }
    assert written == {*pages}


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
def test_local_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        path = target.partition("#")[0]  # headings are checked where the site is built
        if path and "://" not in target:
            assert (page.parent / path).exists(), target


def test_probes_page_names_every_figure() -> None:
    page = (ROOT / "docs" / "probes.md").read_text(encoding="utf-8")
    for members in PROBES.values():
        for name in members:
            assert f"`{name}`" in page, name
