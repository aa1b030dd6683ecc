"""What is written down of a run: its figures, its cost, its history, and why it failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from reproduction_support import metric, record

from uncollapse.jobs.job import figures
from uncollapse.jobs.running import why
from uncollapse.reproduction import worker
from uncollapse.reproduction.worker import best_epoch, cost_of, is_measured, kept_history


def test_which_figures_are_there() -> None:
    found = record(metrics={"reconstruction": metric(1.0), "self_bleu": metric(None)})
    assert is_measured(found, "standard")
    assert is_measured(found, "self_bleu")  # a dash counts
    assert is_measured(found, "generation")  # the group
    assert not is_measured(found, "self_bleu@greedy")
    assert not is_measured(found, "reverse_ppl")
    assert not is_measured(None, "standard")


def test_the_epoch_that_was_kept() -> None:
    rows = [
        {"validation/elbo": -5.0, "validation/objective": 3.0},
        {"validation/elbo": -4.0, "validation/objective": 4.0},
        {"validation/elbo": -6.0, "validation/objective": 5.0},
    ]
    assert best_epoch(rows, "elbo") == 2
    assert best_epoch(rows, "objective") == 1
    assert best_epoch(rows, "last") == 3
    assert best_epoch([], "elbo") == 0


def test_what_a_run_has_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def row(batches: int, elbo: float, **more: float) -> dict[str, float]:
        return {"batches_seen": batches, "seconds": 10.0, "validation/elbo": elbo, **more}

    class Trained:
        history_ = [row(10, -9.0, inner_steps=2.0), row(20, -5.0), row(30, -7.0)]  # noqa: RUF012
        recipe = type("R", (), {"training": type("T", (), {"select_on": "elbo"})})
        model = type("M", (), {"parameters": lambda _: []})()

    (tmp_path / "cost.json").write_text(
        json.dumps({"seconds": 40.0, "cpu_seconds": 55.04, "peak_memory_mb": 99.6})
    )
    found = cost_of(tmp_path, Trained())  # type: ignore[arg-type]
    assert (found["seconds"], found["seconds_to_best"], found["cpu_seconds"]) == (30.0, 20.0, 55.0)
    assert (found["epochs"], found["best_epoch"]) == (3, 2)
    assert (found["updates"], found["updates_to_best"]) == (50, 40)  # 10 × (1 + 2) + 10 + 10
    assert found["peak_memory_mb"] == 100
    earlier = [row(4, -9.0), row(8, -8.0)]  # as an autoencoder, before
    monkeypatch.setattr(worker.saving, "read_history", lambda _: earlier)
    found = cost_of(tmp_path, Trained())  # type: ignore[arg-type]
    assert (found["seconds"], found["seconds_to_best"]) == (50.0, 40.0)
    assert (found["updates"], found["updates_to_best"]) == (58, 48)


def test_the_history_that_is_kept() -> None:
    rows = [
        {
            "epoch": 1,
            "seconds": 2.0,
            "training/kl": 9.0,
            "validation/kl/z": 1.5,
            "validation/kl/c": 0.5,
            "validation/mi": 0.25,
            "validation/mi/z": 7.0,
            "validation/elbo": None,
            "validation/bleu": 3.0,
        }
    ]
    assert kept_history(rows) == [{"epoch": 1, "seconds": 2.0, "kl": 2.0, "mi": 0.25}]


def test_a_run_in_a_line() -> None:
    assert figures(record(figures={"nll": 101.234, "kl": 0.0, "mi": None})) == "NLL 101.23, KL 0.00"
    assert figures(record()) == "measured"


@pytest.mark.parametrize(
    ("code", "written", "said"),
    [
        (1, "warning\nRuntimeError: out of memory\n\n", "RuntimeError: out of memory"),
        (2, "no such file\n", "no such file"),
        (3, "", "exit code 3"),
        (-9, "training\n", "its process was killed, perhaps for want of memory"),
        (137, "training\n", "its process was killed, perhaps for want of memory"),
        (-11, "training\n", "its process died of SIGSEGV"),
        (1, "caf\udce9\n", "caf\ufffd"),
    ],
)
def test_why_a_process_failed(tmp_path: Path, code: int, written: str, said: str) -> None:
    log = tmp_path / "run.log"
    earlier = "what an earlier attempt had to say\n"
    log.write_bytes((earlier + written).encode(errors="surrogateescape"))
    assert why(code, log, len(earlier)) == f"{said}; see {log}"
