"""A run that stops and goes on computes what it would have computed without the stop."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from training_support import BATCHES, RULE, SignalAt, last_payload, same, small_recipe, train

from uncollapse.errors import UserError
from uncollapse.model import Model
from uncollapse.training.signals import Interrupted


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model]:
    """The run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    model, _ = train(folder)
    return folder, model


def assert_same_run(folder: Path, model: Model, whole: tuple[Path, Model]) -> None:
    other, reference = whole
    assert same(model.state_dict(), reference.state_dict())
    assert same(last_payload(folder), last_payload(other))
    rows = [
        [{k: v for k, v in json.loads(line).items() if "second" not in k} for line in file]
        for file in ((run / "history.jsonl").read_text().splitlines() for run in (folder, other))
    ]
    assert rows[0] == rows[1]


def test_the_reference_run_exercises_the_stop_rule(whole: tuple[Path, Model]) -> None:
    state = last_payload(whole[0])["state"]
    rates = [row["learning_rate"] for row in state["rows"]]
    assert state["plateau"]["decays"] >= 2
    assert rates[0] > rates[-1]


@pytest.mark.parametrize("epochs", [1, 3, 6])
def test_stop_at_the_end_of_an_epoch(
    epochs: int, tmp_path: Path, whole: tuple[Path, Model]
) -> None:
    train(tmp_path, small_recipe(f"training.max_epochs={epochs}"))
    model, history = train(tmp_path, resume=True)
    assert history.rows[-1]["epoch"] == 7
    assert_same_run(tmp_path, model, whole)


@pytest.mark.parametrize("batch", [1, 2 * BATCHES + 3, 4 * BATCHES + 1, 5 * BATCHES])
def test_stop_within_an_epoch(batch: int, tmp_path: Path, whole: tuple[Path, Model]) -> None:
    with pytest.raises(Interrupted) as stopped:
        train(tmp_path, callbacks=[SignalAt(batch, signal.SIGTERM)])
    assert stopped.value.exit_code == 143
    assert last_payload(tmp_path)["state"]["batches_seen"] == batch
    model, _ = train(tmp_path, resume=True)
    assert_same_run(tmp_path, model, whole)


def test_stop_again_and_again(tmp_path: Path, whole: tuple[Path, Model]) -> None:
    for start, batch in enumerate((3, 5, 17, 33)):
        with pytest.raises(Interrupted):
            train(tmp_path, resume=start > 0, callbacks=[SignalAt(batch, signal.SIGINT)])
    model, _ = train(tmp_path, resume=True)
    assert_same_run(tmp_path, model, whole)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("dgm-vae-mi", ["latents.z.groups=2"]),
        # the temperature falls on; it is in no checkpoint, but a function of the batches seen
        ("discrete-vae", ["latents.c.posterior.relaxation={final: 0.05, epochs: 3}"]),
        ("gamma-mixture-vae", ["latents.z.groups=2"]),
    ],
)
def test_mixtures_and_codes_go_on(name: str, settings: list[str], tmp_path: Path) -> None:
    small = ["encoder.embedding_dim=6", "encoder.hidden_dim=8", "decoder.tied_softmax=false"]
    small += ["objective.weight={kind: linear, epochs: 2}", "objective.samples=2"]
    recipe = small_recipe(*small, *settings, "training.max_epochs=3", name=name)
    reference, _ = train(tmp_path / "whole", recipe)
    with pytest.raises(Interrupted):
        train(tmp_path / "part", recipe, callbacks=[SignalAt(BATCHES + 3, signal.SIGTERM)])
    model, _ = train(tmp_path / "part", recipe, resume=True)
    assert_same_run(tmp_path / "part", model, (tmp_path / "whole", reference))


def test_checkpoints_within_an_epoch_change_nothing(
    tmp_path: Path, whole: tuple[Path, Model]
) -> None:
    model, _ = train(tmp_path, small_recipe("training.checkpoint_every_minutes=1e-9"))
    assert_same_run(tmp_path, model, whole)


def test_signal_handlers_are_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as stopped:
        train(tmp_path, callbacks=[SignalAt(2, signal.SIGINT)])
    assert stopped.value.exit_code == 130
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_finished_run_is_only_read(tmp_path: Path) -> None:
    recipe = small_recipe("training.max_epochs=2")
    model, history = train(tmp_path, recipe)
    again, second = train(tmp_path, recipe, resume=True)
    assert second == history
    assert same(again.state_dict(), model.state_dict())


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    recipe = small_recipe("training.max_epochs=1")
    train(tmp_path, recipe)
    with pytest.raises(UserError, match="holds a run already"):
        train(tmp_path, recipe)


def test_another_run_is_not_resumed(tmp_path: Path) -> None:
    train(tmp_path, small_recipe("training.max_epochs=1"))
    with pytest.raises(UserError, match="batches_per_epoch was 7 and is now 13"):
        train(tmp_path, small_recipe("training.batch_size=8"), resume=True)


def test_early_stopping_keeps_the_best_epoch(tmp_path: Path) -> None:
    rule = RULE.replace("max_decays: 9", "max_decays: 0")
    model, history = train(tmp_path, small_recipe(f"training.plateau={rule}"))
    scores = [-float(row["validation/elbo"] or 0) for row in history.rows]
    assert history.best_score == min(scores)
    assert history.best_epoch == 1 + scores.index(min(scores))
    assert len(scores) == history.best_epoch + 1 < 7  # one worse epoch ends it
    assert not model.training
    assert history.stopped.startswith("no better")


def test_validation_does_not_move_the_noise_of_training(tmp_path: Path) -> None:
    rows = [
        train(
            tmp_path / select, small_recipe(f"training.select_on={select}", "training.plateau=null")
        )[1].rows
        for select in ("elbo", "reconstruction")
    ]
    assert [r["train/loss"] for r in rows[0]] == [r["train/loss"] for r in rows[1]]
    assert torch.initial_seed() != 20_000
