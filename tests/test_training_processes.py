"""Runs in processes of their own: signals, sudden death, and two processes as one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_support import (
    at_the_mean,
    last_payload,
    same,
    small_recipe,
    train,
    without_times,
)

from uncollapse.errors import UserError
from uncollapse.model import Model
from uncollapse.training.history import History

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
    "encoder.embedding_dropout=0",
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


def start_several(
    count: int, folder: Path, *arguments: str, **environment: str
) -> list[subprocess.Popen[str]]:
    port = free_port()
    return [
        start(
            folder,
            *arguments,
            WORLD_SIZE=str(count),
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            LOCAL_WORLD_SIZE=str(count),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
            **environment,
        )
        for rank in range(count)
    ]


def finish(runs: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    return [(run.returncode, err) for run in runs for err in [run.communicate(timeout=120)[1]]]


@pytest.mark.slow
@pytest.mark.parametrize("epoch_batches", ["null", "9"])  # the corpus has seven
def test_two_processes_compute_what_one_does_and_resume(epoch_batches: str, tmp_path: Path) -> None:
    settings = [*QUIET, f"training.epoch_batches={epoch_batches}"]
    model, history = train(tmp_path / "one", small_recipe(*settings, name="autoencoder"))
    arguments = ["--recipe", "autoencoder", "--set", *settings]
    # the second process alone is signalled; both stop, at the same batch
    runs = start_several(2, tmp_path / "two", "--signal-at", "10", "SIGTERM", *arguments)
    assert [code for code, _ in finish(runs)] == [143, 143]
    assert last_payload(tmp_path / "two")["state"]["batches_seen"] == 10
    results = finish(start_several(2, tmp_path / "two", "--resume", *arguments))
    assert [code for code, _ in results] == [0, 0], results
    compare_with_one(tmp_path / "two", model, history)


# in `at_the_mean`, so that there is no noise; small steps, as hundreds of large ones would make
# much of a rounding error
SHORT = ["training.max_epochs=2", "training.batch_size=34", "training.learning_rate=0.01"]
WITHOUT_INIT = ["encoder.init_scale=null"]
MIXTURE = ["latents.z.groups=2", "decoder.tied_softmax=false", "objective.samples=1"]
CASES = {
    "decisions": (
        "vae",
        [
            *WITHOUT_INIT,
            "strategy={kind: pretrained, epochs: 2, then: {kind: aggressive, most_updates: 45}}",
        ],
    ),
    "batch-norm": ("bn-vae", []),
    "batch-norm-of-steps": (
        "twr-vae",
        # a bias that the norm takes out again has no gradient but rounding
        [
            "latents.z.posterior={kind: gaussian, bias: false, batch_norm: {scale: 0.7}}",
            "training.epsilon=1e-8",
        ],
    ),
    # a term of the whole batch; and at weight 0 neither classifier nor components learn
    "mutual-information": (
        "dgm-vae-mi",
        [*MIXTURE, "objective.weight={kind: linear, epochs: 1}"],
    ),
    "labels": (
        "dgm-vae",
        [*MIXTURE, "objective.supervision=[{column: topic, variable: z.component, index: 1}]"],
    ),
    "discrepancy": ("wae-rnf", ["latents.z.divergence.centers=3"]),
    "critic": (
        "vae",
        [
            *WITHOUT_INIT,
            "latents.z.divergence={kind: dual, of: conditional, critic: {steps: 2, "
            "learning_rate: 0.001}}",
            "training.select_on=objective",
        ],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("count", "names"), [(2, list(CASES)), (4, ["batch-norm"])])
def test_several_processes_compute_what_one_does(
    count: int, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = {name: (CASES[name][0], [*QUIET, *SHORT, *CASES[name][1]]) for name in names}
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    arguments = ["--at-the-mean", "--cases", str(tmp_path / "cases.json")]
    several = start_several(count, tmp_path / "several", *arguments)
    at_the_mean(monkeypatch)
    single = {
        name: train(tmp_path / "one" / name, small_recipe(*settings, name=recipe))
        for name, (recipe, settings) in cases.items()
    }
    results = finish(several)
    assert [code for code, _ in results] == [0] * count, results
    for name, (model, history) in single.items():
        compare_with_one(tmp_path / "several" / name, model, history)


def compare_with_one(folder: Path, model: Model, history: History) -> None:
    """Weights, statistics of batch norms and all figures of all epochs are those of one process."""
    weights = torch.load(folder / "final.pt", weights_only=True)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4, msg=name)
    stages = {folder: history.rows}
    if history.pretraining:
        stages[folder / "pretraining"] = history.pretraining
    for place, rows in stages.items():
        found = last_payload(place)["state"]["rows"]
        assert found == [pytest.approx(row, rel=1e-4, abs=1e-5) for row in without_times(rows)]


def test_each_process_can_train_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a language model that measures is; the others are not waited for."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    model, _ = train(tmp_path / "one", small_recipe("training.max_epochs=1"), alone=True)
    assert os.environ["WORLD_SIZE"] == "2"
    monkeypatch.delenv("WORLD_SIZE")
    again, _ = train(tmp_path / "other", small_recipe("training.max_epochs=1"))
    assert same(model.state_dict(), again.state_dict())


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, ["RANK", "torchrun"]),
        ({"RANK": "one"}, ["RANK", "'one'"]),
        ({"RANK": "0"}, ["LOCAL_RANK"]),
        ({"RANK": "2", "LOCAL_RANK": "0"}, ["process 2 of 2"]),
        ({"RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "4"}, ["as many processes"]),
        ({"RANK": "0", "LOCAL_RANK": "0"}, ["cannot meet", "MASTER_ADDR"]),
    ],
)
def test_faulty_environments_are_refused(
    variables: dict[str, str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"WORLD_SIZE": "2", **variables}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as refusal:
        train(tmp_path / "run")
    assert all(word in str(refusal.value) for word in words)
    assert not (tmp_path / "run").exists()
