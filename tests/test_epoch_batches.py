"""Runs whose epochs are so many batches: all goes by these, and a stop changes nothing."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from cli_support import call_program
from lightning.pytorch import Callback, Trainer
from training_support import (
    BATCHES,
    SignalAt,
    corpora,
    last_payload,
    same,
    small_recipe,
    train,
    without_times,
)

from uncollapse.data.batches import Batch, BucketedBatches
from uncollapse.errors import UserError
from uncollapse.model import Model
from uncollapse.training.checkpoint import CheckpointStore
from uncollapse.training.history import History
from uncollapse.training.signals import Interrupted

SEED = 3  # of all runs of these tests
SHORTER, LONGER = 5, 2 * BATCHES + 3
RATE = 0.8  # overshoots, so that the stop rule has something to do
EPOCHS = {SHORTER: 6, LONGER: 2}
Whole = dict[int, tuple[Path, Model, History]]


def recipe_of(epoch_batches: int | None, *overrides: str) -> Any:
    value = "null" if epoch_batches is None else epoch_batches
    epochs = EPOCHS.get(epoch_batches or 0, 3)
    settings = [f"training.epoch_batches={value}", f"training.max_epochs={epochs}"]
    return small_recipe(*settings, f"training.learning_rate={RATE}", *overrides)


class Read(Callback):
    """Notes which sentences each batch has."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []

    def on_train_batch_end(self, _t: Trainer, _m: Any, _o: Any, batch: Batch, *_: Any) -> None:
        self.rows.append(batch.index.tolist())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Runs that nothing interrupted, by the length of their epochs."""
    runs: Whole = {}
    for epoch_batches in EPOCHS:
        folder = tmp_path_factory.mktemp("whole")
        reads = Read()
        model, history = train(folder, recipe_of(epoch_batches), callbacks=[reads])
        (folder / "rows.json").write_text(json.dumps(reads.rows))
        runs[epoch_batches] = folder, model, history
    return runs


every_length = pytest.mark.parametrize("epoch_batches", list(EPOCHS))


@every_length
def test_a_run_reads_pass_after_pass(epoch_batches: int, whole: Whole) -> None:
    folder, _, history = whole[epoch_batches]
    steps = EPOCHS[epoch_batches] * epoch_batches
    batches = BucketedBatches(corpora()[0], 16, seed=SEED)
    expected = [batch.index.tolist() for number in range(6) for batch in batches.epoch(number)]
    assert json.loads((folder / "rows.json").read_text()) == expected[:steps]
    # everything that goes by epochs has gone by these
    seen = [row["batches_seen"] for row in history.rows]
    assert seen == list(range(epoch_batches, steps + 1, epoch_batches))
    assert [row["epoch"] for row in history.rows] == list(range(1, len(seen) + 1))
    assert history.stopped == f"max_epochs ({len(seen)}) reached"
    assert all("validation/elbo" in row for row in history.rows)


def test_the_plateau_goes_by_these_epochs(whole: Whole) -> None:
    rates = [row["learning_rate"] for row in whole[SHORTER][2].rows]
    assert len(set(rates)) > 1


@every_length
@pytest.mark.parametrize(
    "stops",
    [
        [2],  # within the first epoch of any length
        [SHORTER],  # at the end of an epoch
        [BATCHES],  # at the end of a pass, and not of an epoch
        [BATCHES + 2],  # in the second pass
        [2 * BATCHES, LONGER, 4 * BATCHES, 4 * BATCHES + 1],
    ],
)
def test_stopping_anywhere_changes_nothing(
    stops: list[int], epoch_batches: int, tmp_path: Path, whole: Whole
) -> None:
    folder, reference, expected = whole[epoch_batches]
    recipe, reads = recipe_of(epoch_batches), Read()
    for number, stop in enumerate(stops):
        callbacks = [reads, SignalAt(stop, signal.SIGTERM)]
        with pytest.raises(Interrupted):
            train(tmp_path, recipe, resume=number > 0, callbacks=callbacks)
        assert last_payload(tmp_path)["state"]["batches_seen"] == stop
    model, history = train(tmp_path, recipe, resume=True, callbacks=[reads])
    assert reads.rows == json.loads((folder / "rows.json").read_text())
    assert same(model.state_dict(), reference.state_dict())
    assert same(last_payload(tmp_path), last_payload(folder))
    assert without_times(history.rows) == without_times(expected.rows)


def test_a_run_that_has_ended_can_be_longer(tmp_path: Path, whole: Whole) -> None:
    folder, reference, _ = whole[SHORTER]
    train(tmp_path, recipe_of(SHORTER, "training.max_epochs=3"))
    model, _ = train(tmp_path, recipe_of(SHORTER), resume=True)
    assert same(model.state_dict(), reference.state_dict())
    assert same(last_payload(tmp_path), last_payload(folder))


def test_of_the_length_of_the_corpus_they_are_ordinary_epochs(tmp_path: Path) -> None:
    aggressive = "strategy={kind: aggressive, most_updates: 16}"  # draws random batches, too
    runs = {}
    for name, epoch_batches in (("null", None), ("pass", BATCHES)):
        model, _ = train(tmp_path / name, recipe_of(epoch_batches, aggressive))
        runs[name] = model.state_dict(), last_payload(tmp_path / name)
    assert same(runs["null"], runs["pass"])


def test_random_batches_are_of_the_pass_that_is_read(tmp_path: Path) -> None:
    class Draws(Callback):
        def __init__(self) -> None:
            self.rows: list[list[int]] = []

        def on_train_batch_start(self, _trainer: Trainer, module: Any, *_: Any) -> None:
            self.rows.append(module.random_batch(2).index.tolist())

    drawn = {}
    for epoch_batches in (SHORTER, LONGER):
        draws = Draws()
        recipe = recipe_of(epoch_batches, "training.max_epochs=2", "training.plateau=null")
        train(tmp_path / str(epoch_batches), recipe, callbacks=[draws])
        drawn[epoch_batches] = draws.rows
    batches = BucketedBatches(corpora()[0], 16, seed=SEED)
    expected = [
        batches.random_batch(number, (place, 2)).index.tolist()
        for number, place in (divmod(step, BATCHES) for step in range(2 * LONGER))
    ]
    assert drawn[LONGER] == expected
    assert drawn[SHORTER] == expected[: 2 * SHORTER]


def test_weights_and_steps_follow_the_epochs(tmp_path: Path) -> None:
    schedule = "objective.weight={kind: linear, start: 0.2, epochs: 2.5}"
    cosine = ["training.cosine_period_epochs=4", "training.plateau=null"]
    _, history = train(tmp_path, recipe_of(4, schedule, "training.max_epochs=4", *cosine))
    # of the last of 4 batches: 3, 7, 11 and 15 of the 10 that make 2.5 epochs lie behind
    expected = [0.2 + 0.8 * min(1, share) for share in (0.3, 0.7, 1.1, 1.5)]
    assert [row["kl_weight"] for row in history.rows] == pytest.approx(expected)
    rates = [float(row["learning_rate"] or 0) / RATE for row in history.rows]
    assert rates == pytest.approx([1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5])


# --- what another run is --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("training.epoch_batches=4", "batches_per_epoch was 5 and is now 4"),
        ("training.epoch_batches=null", "batches_per_epoch was 5 and is now 7"),
        ("training.batch_size=8", "batches_per_pass was 7 and is now 13"),
    ],
)
def test_another_run_is_not_resumed(change: str, said: str, tmp_path: Path) -> None:
    train(tmp_path, recipe_of(SHORTER, "training.max_epochs=1"))
    with pytest.raises(UserError, match=said):
        train(tmp_path, recipe_of(SHORTER, change), resume=True)


def test_a_checkpoint_from_before_there_were_such_epochs(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "old" / "training")
    with pytest.raises(Interrupted):
        train(tmp_path / "old", recipe_of(None), callbacks=[SignalAt(10, signal.SIGTERM)])
    payload = store.load()
    assert payload is not None
    assert payload["state"].pop("batches_per_pass") == BATCHES
    for folder in store.existing():
        shutil.rmtree(folder)
    store.save(payload, 10)
    model, _ = train(tmp_path / "old", recipe_of(None), resume=True)
    reference, _ = train(tmp_path / "new", recipe_of(None))
    assert same(model.state_dict(), reference.state_dict())
    assert same(last_payload(tmp_path / "old"), last_payload(tmp_path / "new"))


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["one", "two", "three", "four", "five"]
    text = tmp_path / "train.txt"
    text.write_text("".join(f"{a} {b} {c}\n" for a in words for b in words for c in words))
    small = ["encoder.hidden_dim=6", "decoder.hidden_dim=6", "training.batch_size=10"]
    small += ["training.max_epochs=3", "data.tokenizer=whitespace", "training.precision=f32"]
    run = tmp_path / "run"
    arguments = ["train", "vae", "--train", text, "--validation", text, "--out", run]

    def call(change: str) -> tuple[int, str]:
        sets = [part for value in (*small, change) for part in ("--set", value)]
        code, _, said = call_program(capsys, *arguments, *sets)
        return code, said

    code, said = call("training.epoch_batches=0")
    assert (code, said.count("\n")) == (2, 1)
    assert "training.epoch_batches: input should be greater than or equal to 1, not 0" in said
    assert not run.exists()
    assert call("training.epoch_batches=4")[0] == 0
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [row["batches_seen"] for row in rows] == [4, 8, 12]
