"""`reproduce` and `leaderboard` from a shell: every mistake is one line and writes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_support import call_program
from reproduction_support import TABLE, metric, record, shrink, table, use_table, write_corpora

from uncollapse.cli.app import options_of
from uncollapse.errors import UserError
from uncollapse.jobs.job import Outcome
from uncollapse.reproduction import all_systems, reproduce
from uncollapse.reproduction.published import published_names


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with corpora that have PTB."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNCOLLAPSE_CORPORA", raising=False)
    write_corpora(tmp_path / "corpora")
    return tmp_path


@pytest.fixture
def no_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny table, whose VAE is done at once, and whose language model fails."""

    def run_all(tasks: Any, *_: Any) -> list[Outcome]:
        found = []
        for task in tasks:
            done = record(
                task.system, task.seed, edition=task.edition,
                metrics={"nll": metric(60.0), "kl": metric(0.25)},
            )  # fmt: skip
            failed = task.system == "lstm-lm"
            found.append(Outcome(task, None if failed else done, "no memory" if failed else ""))
        return found

    shrink(monkeypatch)
    use_table(monkeypatch, table())
    monkeypatch.setattr(reproduce, "run_all", run_all)
    monkeypatch.setattr(all_systems, "run_all", run_all)


def files(folder: Path) -> set[str]:
    """All that is in a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# --- the list -----------------------------------------------------------------------------------


def test_without_a_name_all_tables_and_figures_are_listed(
    capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    before = files(here)
    code, out, err = call_program(capsys, "reproduce")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 27
    assert [line.split()[0] for line in lines] == published_names()
    assert all(len(line.split()) > 2 for line in lines)
    code, out, err = call_program(capsys, "reproduce", "--json")
    found = json.loads(out)
    assert [one["name"] for one in found] == published_names()
    assert all(one["title"] and one["source"] for one in found)
    assert files(here) == before


# --- mistakes -----------------------------------------------------------------------------------

TABLES = [
    (["bn-tabel1"], "unknown table or figure 'bn-tabel1'; did you mean 'bn-table1'?"),
    (["BN-Table1"], "did you mean 'bn-table1'?"),
    (["dem-table1", "--preset", "papr"], "unknown preset 'papr'; did you mean 'paper'?"),
    (["dem-table1", "--seeds", "0"], "the number of seeds must be at least 1, not 0"),
    (["dem-table1", "--seeds", "two"], "Invalid value for '--seeds'"),
    (["dem-table1", "--jobs", "0"], "the number of jobs must be at least 1, not 0"),
    (["dem-table1", "--jobs", "-1"], "the number of jobs must be at least 1, not -1"),
    (["dem-table1", "--device", "gpu"], "unknown device 'gpu'; known: auto, cpu, cuda"),
    (["dem-table1", "--device", "cuda:77"], "device 'cuda:77' is not there"),
    (["dem-table1", "--cluster", "slrum"], "unknown cluster 'slrum'; did you mean 'slurm'?"),
    (["dem-table1", "--cluster-option", "timeout_min=5"], "options of a cluster need --cluster"),
    (
        ["dem-table1", "--cluster", "local", "--cluster-option", "timeout_min"],
        "cannot read --cluster-option 'timeout_min'; write KEY=VALUE",
    ),
    (["dem-table1", "--cluster", "local", "--cluster-option", "time=5"], "Use 'slurm_time'"),
    (["dem-table1", "--job", "2"], "--job"),
    (["dem-table1", "dem-table2"], "dem-table2"),
    (["dem-table1"], "is not known: give --corpora or set UNCOLLAPSE_CORPORA"),
    (["dem-table1", "--corpora", "nowhere"], "the folder of corpora nowhere does not exist"),
    (["dem-table1", "--corpora", "corpora/ptb/train.txt"], "train.txt is no folder"),
    (["bn-table1", "--corpora", "corpora"], "yahoo is not in corpora (none of yahoo, yahoo_20k)"),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "said"), TABLES, ids=[" ".join(asked) for asked, _ in TABLES])
def test_a_mistake_in_reproduce(
    capsys: pytest.CaptureFixture[str], here: Path, asked: list[str], said: str
) -> None:
    before = files(here)
    code, out, err = call_program(capsys, "reproduce", *asked)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert said in err
    assert files(here) == before


BOARDS = [
    (["--on", "gramar"], "unknown corpus 'gramar'; did you mean 'grammar'?"),
    (["--on", "grammar,"], "--on 'grammar,' lacks a name"),
    (["--systems", "vea"], "unknown recipe 'vea'; did you mean 'vae'?"),
    (["--systems", "vae,,lstm-lm"], "lacks a name"),
    (["--on", "grammar", "--systems", "cvae"], "none of these systems can be trained"),
    (["--on", "ptb"], "where the corpora are is not known"),
    (["--on", "yahoo", "--corpora", "corpora"], "yahoo is not in corpora"),
    (["--preset", "papr"], "unknown preset 'papr'; did you mean 'paper'?"),
    (["--on", "grammar", "--jobs", "0"], "the number of jobs must be at least 1, not 0"),
    (["--on", "grammar", "--seeds", "-3"], "the number of seeds must be at least 1, not -3"),
    (["--on", "grammar", "--device", "cdua"], "unknown device 'cdua'"),
    (["--on", "grammar", "--cluster", "loca"], "unknown cluster 'loca'; did you mean 'local'?"),
    (["grammar"], "grammar"),
]


@pytest.mark.parametrize(("asked", "said"), BOARDS, ids=[" ".join(asked) for asked, _ in BOARDS])
def test_a_mistake_in_leaderboard(
    capsys: pytest.CaptureFixture[str], here: Path, asked: list[str], said: str
) -> None:
    before = files(here)
    code, out, err = call_program(capsys, "leaderboard", *asked)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert said in err
    assert files(here) == before


def test_a_corpus_that_lacks_a_file_says_which_and_where_it_comes_from(
    capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    (here / "corpora" / "ptb" / "valid.txt").unlink()
    (here / "corpora" / "ptb" / "test.txt").write_text("")  # as good as none
    for verb in (["reproduce", "dem-table1"], ["leaderboard", "--on", "ptb"]):
        code, _, err = call_program(capsys, *verb, "--corpora", "corpora")
        assert code == 2
        assert len(err.splitlines()) == 1
        assert "ptb in corpora lacks ptb/valid.txt, ptb/test.txt; it comes from https://" in err


@pytest.mark.usefixtures("no_runs")
def test_a_folder_that_is_something_else_is_not_written_to(
    capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    (here / "notes").mkdir()
    (here / "notes" / "mine.txt").write_text("mine")
    before = files(here)
    cases = [
        ("notes", 2, "notes exists already and holds no reproductions; choose another folder"),
        ("notes/mine.txt", 2, "mine.txt exists already and holds no reproductions"),
        ("notes/mine.txt/below", 1, "cannot make notes/mine.txt/below: "),
        ("/proc/nowhere", 1, "cannot make /proc/nowhere: "),
    ]
    for out, expected, said in cases:
        for verb in (["reproduce", TABLE], ["leaderboard", "--on", "grammar"]):
            code, printed, err = call_program(capsys, *verb, "--corpora", "corpora", "--out", out)
            assert (code, printed) == (expected, "")
            assert said in err.splitlines()[-1]
            assert len([line for line in err.splitlines() if "left out" not in line]) == 1
    assert files(here) == before
    (here / "empty").mkdir()
    code, _, _ = call_program(capsys, "reproduce", TABLE, "--corpora", "corpora", "--out", "empty")
    assert code == 1  # the language model failed, and all is written
    assert (here / "empty" / f"{TABLE}-small.json").is_file()


# --- what is printed ----------------------------------------------------------------------------


@pytest.mark.usefixtures("no_runs")
def test_results_are_printed_although_a_run_failed(
    capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    asked = ["reproduce", TABLE, "--corpora", "corpora"]
    code, out, err = call_program(capsys, *asked)
    assert code == 1
    assert err.splitlines()[-1] == "uncollapse: ptb, lstm-lm, seed 0 failed: no memory"
    assert out.startswith(f"# {TABLE}: ")
    assert "- ptb, lstm-lm, seed 0: no memory" in out
    assert out == (here / "reproductions" / f"{TABLE}-small.md").read_text()
    code, out, err = call_program(capsys, *asked, "--json")
    assert code == 1
    found = json.loads(out)
    assert found["failures"] == [["ptb, lstm-lm, seed 0", "no memory"]]
    assert list(found["missing"]) == ["yahoo"]
    assert [cell["ours"] for cell in found["cells"]] == [60.0, 0.25, None, None]
    stored = json.loads((here / "reproductions" / f"{TABLE}-small.json").read_text())
    assert {key: stored[key] for key in found} == found


@pytest.mark.usefixtures("no_runs")
def test_the_leaderboard_is_printed(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    asked = ["leaderboard", "--on", "grammar,ptb", "--systems", "vae,bn-vae,cvae"]
    code, out, err = call_program(capsys, *asked)
    assert code == 0
    assert "cvae is left out: it cannot be trained on these corpora" in err
    assert "ptb is left out: where the corpora are is not known" in err
    assert out == (here / "reproductions" / "leaderboard-small.md").read_text()
    assert "| `bn-vae` |" in out
    code, out, _ = call_program(capsys, *asked, "--json")
    assert code == 0
    assert {entry["system"] for entry in json.loads(out)["entries"]} == {"vae", "bn-vae"}
    path = here / "reproductions" / "leaderboard-small.json"
    path.write_text(path.read_text().replace('"bn-vae"', '"bn-vea"'))
    code, out, err = call_program(capsys, *asked)
    assert (code, out) == (1, "")
    assert "leaderboard-small.json was edited by hand" in err.splitlines()[-1]


def test_options_of_a_cluster() -> None:
    given = [
        "timeout_min=600",
        "slurm_partition=gpu",
        "mem_gb=1.5",
        "slurm_time=24:00:00",
        "a=b=c",
        "stderr_to_stdout=true",
    ]
    assert options_of(given) == {
        "timeout_min": 600, "slurm_partition": "gpu", "mem_gb": 1.5,
        "slurm_time": "24:00:00", "a": "b=c",
        "stderr_to_stdout": True,
    }  # fmt: skip
    assert options_of(None) == {}
    with pytest.raises(UserError, match="write KEY=VALUE"):
        options_of(["=3"])
