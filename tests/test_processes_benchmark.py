"""The benchmark of processes measures, adds up its rounds, and fills its table."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import processes  # noqa: E402
import processes_parity  # noqa: E402
import processes_table  # noqa: E402
from processes_launch import launch  # noqa: E402
from processes_table import Row  # noqa: E402


@pytest.mark.slow
def test_two_processes_are_close_to_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    results, threads = tmp_path / "results.json", torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    processes_parity.main(["--tiny", "--json", str(results)])
    printed = capsys.readouterr().out
    found = json.loads(results.read_text("utf-8"))
    assert set(found["differences"]) == {"2"}
    assert all(0 <= value < 1e-3 for value in found["differences"]["2"].values())
    assert printed.strip() in processes_parity.page(found)


def test_the_greatest_difference_counts() -> None:
    one = {
        "rows": [{"seconds": 1.0, "epoch": 1, "train/loss": 2.0, "validation/kl": -4.0}] * 2,
        "weights": {"a": torch.tensor([1.0, -10.0]), "n.running_mean": torch.ones(2)},
    }
    rows = [{**one["rows"][0], "seconds": 9.0}, {**one["rows"][0], "train/loss": 3.0}]
    other = {"a": torch.tensor([2.0, -10.0]), "n.running_mean": torch.tensor([1.0, 1.25])}
    found = processes_parity.differences({"rows": rows, "weights": other}, one)
    assert found == {
        "losses": 0.5, "validation": 0.0, "batch norm": 0.25, "weights": pytest.approx(0.1)
    }  # fmt: skip
    assert processes_parity.table({"2": found}).endswith("| 2 | 5e-01 | 0e+00 | 2e-01 | 1e-01 |")


@pytest.mark.slow
def test_it_runs_and_its_links_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.json"
    processes.main(["--tiny", "--only", "2-10G-bf16", "--json", str(results)])
    printed = capsys.readouterr().out
    assert "| 2 | 10 | bf16 | " in printed
    found = json.loads(results.read_text("utf-8"))
    (rates,) = found["rounds"]
    assert rates.keys() == {"2-10G-bf16"}
    assert rates["2-10G-bf16"] > 0
    assert printed.strip() in processes_table.page(found)


def test_rates_of_processes_add_up_where_they_are_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together, each of them tells the rate of all."""
    monkeypatch.setattr(processes, "launch", lambda *_: ["30.0", "12.0"])
    settings = processes.Settings(tmp_path)
    rows = {row.name: row for row in processes_table.all_rows()}
    assert processes.measure(settings, rows["2-apart"], 8, 1, 2) == 42
    assert processes.measure(settings, rows["2"], 8, 1, 2) == 30


def test_a_process_that_fails_is_told(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import os, sys; print(os.environ['RANK']); sys.exit(sys.argv[-1] == 'x')")
    assert launch(str(program), "y", 2) == ["0", "1"]
    with pytest.raises(SystemExit, match="one of 2 processes failed"):
        launch(str(program), "x", 2)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Rows that were measured; the n-th of them at 100 n words a second."""
    names: list[str] = []

    def measure(_settings: Any, row: Row, *_: Any) -> float:
        names.append(row.name)
        return 100.0 * len(names)

    monkeypatch.setattr(processes, "measure", measure)
    return names


def test_calls_add_up(
    tmp_path: Path, counted: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.json"
    call = ["--tiny", "--json", str(results), "--only"]
    processes.main([*call, "2", "2-apart"])
    processes.main([*call, "2-apart", "2-1G"])
    processes.main([*call, "2-apart", "2"])
    assert counted == ["2-apart", "2", "2-apart", "2-1G", "2-apart", "2"]
    found = json.loads(results.read_text("utf-8"))
    assert found["rounds"] == [
        {"2-apart": 100, "2": 200}, {"2-apart": 300, "2-1G": 400}, {"2-apart": 500, "2": 600}
    ]  # fmt: skip
    assert len(found["commits"]) == len(found["dates"]) == 1
    assert (
        capsys.readouterr()
        .out.strip()
        .endswith(
            "| 2 | this machine | not summed | 300 | 100% |\n"
            "| 2 | this machine | f32 | 400 | 160% (120% to 200%) |\n"  # each of its own round
            "| 2 | 1 | f32 | 400 | 133% |"
        )
    )
    assert "one thread a process" in processes_table.page(found)

    found["ring"] = 4
    results.write_text(json.dumps(found))
    with pytest.raises(SystemExit, match="holds results of another ring"):
        processes.main([*call, "2"])
    assert len(counted) == 6


def test_a_row_without_its_like_apart_has_no_share() -> None:
    assert processes_table.table([{"4": 5.0}]).endswith("| 4 | this machine | f32 | 5 | – |")
    assert processes_table.table([{"1": 5.0}]).endswith("| 1 | – | – | 5 | 100% |")


def test_a_link_takes_its_time() -> None:
    slow = processes.Link(1.0, 8, compressed=False)
    assert slow.seconds_a_byte == pytest.approx(8e-9)
    assert slow.turns == 14
    assert processes.Link(None, 8, compressed=True).seconds_a_byte == 0
