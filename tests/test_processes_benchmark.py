"""The benchmark of processes measures, adds up its rounds, and fills its table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import processes  # noqa: E402
import processes_table  # noqa: E402
from processes_table import Row  # noqa: E402


@pytest.mark.slow
def test_it_runs_and_its_links_are_there(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    rows = ("2-apart", "2-10G-bf16")
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "processes.py", "--tiny", "--only", *rows, "--json", results],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "| 2 | 10 | bf16 | " in done.stdout
    found = json.loads(results.read_text("utf-8"))
    (rates,) = found["rounds"]
    assert set(rates) == set(rows)
    assert all(rate > 0 for rate in rates.values())
    assert done.stdout.strip() in processes_table.page(found)


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
