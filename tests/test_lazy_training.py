"""Runs whose embeddings are moved when somebody looks: the same as others, and resumable."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from training_support import BATCHES, SignalAt, last_payload, same, small_recipe, train

from uncollapse.embedding import Embedding
from uncollapse.errors import RunError
from uncollapse.model import Model
from uncollapse.strategies import lazy_adam, lazy_table
from uncollapse.strategies.lazy_table import LazyTable
from uncollapse.training.history import History
from uncollapse.training.signals import Interrupted

AGGRESSIVE = ["strategy={kind: aggressive, most_updates: 16}", "training.max_epochs=2"]


@pytest.fixture(autouse=True)
def small_tables_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_adam, "SMALLEST", 0)
    monkeypatch.setattr(lazy_table, "DENSE_STEPS", 1)


class Tables(Callback):
    """Counts the tables that are kept, and how often one is shown during training batches."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.kept = self.shown = 0
        self.training = False
        show = LazyTable.show

        def counted(table: LazyTable) -> None:
            self.shown += self.training
            show(table)

        patch.setattr(LazyTable, "show", counted)

    def on_train_start(self, _trainer: Trainer, module: Any) -> None:
        self.kept = sum(len(o.tables) for o in module.optimizer_of.values())

    def on_train_batch_start(self, *_: Any) -> None:
        self.training = True

    def on_train_batch_end(self, *_: Any) -> None:
        self.training = False


def whole(folder: Path, *settings: str) -> tuple[Model, History]:
    return train(folder, small_recipe(*settings))


@pytest.mark.parametrize("settings", [[], AGGRESSIVE], ids=["joint", "aggressive"])
def test_a_run_is_that_of_dense_adam(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gentle = [*settings, "training.learning_rate=1e-2"]
    tables = Tables(monkeypatch)
    model, history = train(tmp_path / "lazy", small_recipe(*gentle), callbacks=[tables])
    assert tables.kept == 2
    assert tables.shown == 0  # no step reads more than its own words
    monkeypatch.setattr(lazy_adam, "SMALLEST", 1 << 20)
    other, dense = whole(tmp_path / "dense", *gentle)
    for row, expected in zip(history.rows, dense.rows, strict=True):
        assert row["train/loss"] == pytest.approx(expected["train/loss"], rel=1e-5)
        assert row["validation/elbo"] == pytest.approx(expected["validation/elbo"], rel=1e-5)
    for part, reference in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(part, reference, rtol=1e-3, atol=1e-4)


def test_sgd_moves_the_rows_that_have_a_gradient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["training.optimizer=sgd", "training.learning_rate=0.5", "training.clip_norm=0.5"]
    model, history = whole(tmp_path / "rows", *settings)
    kept = [part for part in model.modules() if isinstance(part, Embedding)]
    assert all(type(table._parameters) is dict for table in kept)
    with monkeypatch.context() as patch:
        patch.setattr(lazy_adam, "SMALLEST", 1 << 20)
        other, dense = whole(tmp_path / "dense", *settings)
    for row, expected in zip(history.rows, dense.rows, strict=True):
        assert row["train/loss"] == pytest.approx(expected["train/loss"], rel=1e-5)
    for part, reference in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(part, reference, rtol=1e-4, atol=1e-5)
    recipe = small_recipe(*settings)
    with pytest.raises(Interrupted):
        train(tmp_path / "part", recipe, callbacks=[SignalAt(BATCHES + 2, signal.SIGTERM)])
    again, _ = train(tmp_path / "part", recipe, resume=True)
    assert same(again.state_dict(), model.state_dict())


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize(
    ("settings", "batch"),
    [([], 3), ([], 3 * BATCHES + 4), (AGGRESSIVE, BATCHES + 2)],
)
def test_stopping_within_an_epoch_changes_no_bit(
    settings: list[str], batch: int, tmp_path: Path
) -> None:
    """Rows that are behind stay so in a checkpoint; plateau decays clear the optimiser."""
    reference, _ = whole(tmp_path / "whole", *settings)
    recipe = small_recipe(*settings)
    with pytest.raises(Interrupted):
        train(tmp_path / "part", recipe, callbacks=[SignalAt(batch, signal.SIGTERM)])
    model, _ = train(tmp_path / "part", recipe, resume=True)
    assert same(model.state_dict(), reference.state_dict())
    assert same(last_payload(tmp_path / "part"), last_payload(tmp_path / "whole"))


def test_checkpoints_and_snapshots_change_no_bit(tmp_path: Path) -> None:
    reference, _ = whole(tmp_path / "whole")
    for number, setting in enumerate(
        ["training.checkpoint_every_minutes=1e-9", "training.snapshots=[0, 3, 11]"]
    ):
        model, _ = whole(tmp_path / str(number), setting)
        assert same(model.state_dict(), reference.state_dict())
        assert same(last_payload(tmp_path / str(number)), last_payload(tmp_path / "whole"))


def test_a_checkpoint_has_the_weights_that_were_read(tmp_path: Path) -> None:
    """Weights of a checkpoint within an epoch are those of dense Adam, for any reader."""
    with pytest.raises(Interrupted):
        train(tmp_path, callbacks=[SignalAt(12, signal.SIGTERM)])
    payload = last_payload(tmp_path)
    states = payload["optimizers"]["joint"]["state"].values()
    behind = [state["behind"] for state in states if "behind" in state]
    assert len(behind) == 2
    assert any(len(rows) for rows in behind)


def test_after_a_run_nobody_keeps_a_table(tmp_path: Path) -> None:
    model, _ = whole(tmp_path, "training.max_epochs=1")
    tables = [part for part in model.modules() if isinstance(part, Embedding)]
    assert len(tables) == 2
    assert all(type(table._parameters) is dict for table in tables)


def test_a_nonfinite_sparse_gradient_is_named_and_not_taken(tmp_path: Path) -> None:
    class Spoil(Callback):
        def on_train_batch_start(
            self, _trainer: Trainer, module: Any, _batch: Any, number: int
        ) -> None:
            if number == 3:
                self.model = module.model
                self.before = {n: p.detach().clone() for n, p in self.model.named_parameters()}
                table = module.model.encoder.embedding
                table.weight.register_hook(lambda gradient: gradient * torch.inf)

    spoil = Spoil()
    with pytest.raises(RunError, match=r"gradient of parameter encoder\.embedding\.weight"):
        train(tmp_path, callbacks=[spoil])
    for name, parameter in spoil.model.named_parameters():
        torch.testing.assert_close(parameter, spoil.before[name], rtol=0, atol=1e-7)


def test_gradients_of_tables_are_clipped_with_the_others(tmp_path: Path) -> None:
    tight = ["training.clip_norm=1e-3", "training.max_epochs=2", "training.epsilon=1e-3"]
    model, _ = whole(tmp_path / "lazy", *tight)
    patch = pytest.MonkeyPatch()
    patch.setattr(lazy_adam, "SMALLEST", 1 << 20)
    other, _ = whole(tmp_path / "dense", *tight)
    patch.undo()
    for part, reference in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(part, reference, rtol=1e-3, atol=1e-4)
