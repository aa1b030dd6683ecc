"""Runs in processes of their own: signals, sudden death, and two processes as one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from training_support import at_the_mean, last_payload, same, small_recipe, train

PROGRAM = Path(__file__).with_name("training_support.py")


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(folder), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_signals_and_death_in_a_save(tmp_path: Path) -> None:
    runs = {
        "SIGTERM": start(tmp_path / "SIGTERM", "--signal-at", "10", "SIGTERM"),
        "SIGKILL": start(tmp_path / "SIGKILL", "--kill-in-save", "4"),
    }
    said = {name: run.communicate(timeout=120)[1] for name, run in runs.items()}
    assert {name: run.returncode for name, run in runs.items()} == {"SIGTERM": 143, "SIGKILL": -9}
    assert said["SIGTERM"].startswith("stopped by SIGTERM with a whole checkpoint")
    assert said["SIGTERM"].count("\n") == 1
    assert said["SIGKILL"] == ""
    model, _ = train(tmp_path / "whole")
    for name in runs:
        again, _ = train(tmp_path / name, resume=True)
        assert same(again.state_dict(), model.state_dict())
        assert same(last_payload(tmp_path / name), last_payload(tmp_path / "whole"))


# no noise: every process draws its own
QUIET = [
    "encoder.embedding_dim=6",
    "encoder.hidden_dim=8",
    "latents.z.dim=3",
    "decoder.embedding_dim=6",
    "decoder.hidden_dim=8",
    "decoder.output_dropout=0",
    "decoder.embedding_dropout=0",
    "training.max_epochs=4",
    "training.batch_size=16",
    "training.precision=f32",
    "training.optimizer=adam",
    "training.learning_rate=0.05",
    "training.clip_norm=0.5",
]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def start_two(
    folder: Path, *arguments: str, recipe: str = "autoencoder", settings: Sequence[str] = ()
) -> list[subprocess.Popen[str]]:
    port = free_port()
    return [
        start(
            folder,
            "--recipe",
            recipe,
            *arguments,
            "--set",
            *QUIET,
            *settings,
            WORLD_SIZE="2",
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            LOCAL_WORLD_SIZE="2",
            NODE_RANK="0",
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
        )
        for rank in range(2)
    ]


def finish(runs: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    return [(run.returncode, err) for run in runs for err in [run.communicate(timeout=120)[1]]]


@pytest.mark.slow
def test_two_processes_compute_what_one_does_and_resume(tmp_path: Path) -> None:
    model, history = train(tmp_path / "one", small_recipe(*QUIET, name="autoencoder"))
    # the second process alone is signalled; both stop, at the same batch
    runs = start_two(tmp_path / "two", "--signal-at", "10", "SIGTERM")
    assert [code for code, _ in finish(runs)] == [143, 143]
    assert last_payload(tmp_path / "two")["state"]["batches_seen"] == 10
    results = finish(start_two(tmp_path / "two", "--resume"))
    assert [code for code, _ in results] == [0, 0], results
    weights = torch.load(tmp_path / "two" / "final.pt", weights_only=True)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4)
    rows = last_payload(tmp_path / "two")["state"]["rows"]
    for row, expected in zip(rows, history.rows, strict=True):
        for name in ("train/loss", "validation/reconstruction", "validation/active_units/z"):
            assert row[name] == pytest.approx(expected[name], rel=1e-4)


@pytest.mark.slow
def test_two_processes_pretrain_and_decide_as_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a small step: hundreds of large ones would make much of a rounding error
    settings = ["training.max_epochs=2", "training.batch_size=34", "training.learning_rate=0.01"]
    settings += ["encoder.init_scale=null"]
    settings += ["strategy={kind: pretrained, epochs: 2, then: {kind: aggressive}}"]
    two = start_two(tmp_path / "two", "--at-the-mean", recipe="vae", settings=settings)
    at_the_mean(monkeypatch)
    model, history = train(tmp_path / "one", small_recipe(*QUIET, *settings))
    results = finish(two)
    assert [code for code, _ in results] == [0, 0], results
    weights = torch.load(tmp_path / "two" / "final.pt", weights_only=True)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4)
    for folder, rows in (("two/pretraining", history.pretraining), ("two", history.rows)):
        for row, expected in zip(
            last_payload(tmp_path / folder)["state"]["rows"], rows, strict=True
        ):
            assert row.get("inner_steps") == expected.get("inner_steps")
            assert row["train/loss"] == pytest.approx(expected["train/loss"], rel=1e-4)


@pytest.mark.slow
def test_two_processes_share_the_mutual_information_of_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A term of the whole batch; and at weight 0 neither classifier nor components learn."""
    settings = ["latents.z.groups=2", "decoder.tied_softmax=false", "objective.samples=1"]
    settings += ["training.max_epochs=3", "training.learning_rate=0.02"]
    settings += ["objective.weight={kind: linear, epochs: 1}"]
    two = start_two(tmp_path / "two", "--at-the-mean", recipe="dgm-vae-mi", settings=settings)
    at_the_mean(monkeypatch)
    recipe = small_recipe(*QUIET, *settings, name="dgm-vae-mi")
    model, history = train(tmp_path / "one", recipe)
    results = finish(two)
    assert [code for code, _ in results] == [0, 0], results
    weights = torch.load(tmp_path / "two" / "final.pt", weights_only=True)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4)
    for row, expected in zip(
        last_payload(tmp_path / "two")["state"]["rows"], history.rows, strict=True
    ):
        for name in ("train/loss", "validation/objective", "validation/kl/z"):
            assert row[name] == pytest.approx(expected[name], rel=1e-4)
