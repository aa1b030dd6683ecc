"""A checkpoint is whole or absent, and a damaged one is refused."""

from __future__ import annotations

import pickle
import resource
from pathlib import Path

import pytest
import torch
from torch import nn
from training_support import small_recipe, train

from uncollapse.errors import RunError, UserError
from uncollapse.training import checkpoint
from uncollapse.training.checkpoint import CheckpointStore


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    """Three saves of a small payload, of which two are kept."""
    store = CheckpointStore(tmp_path / "training")
    store.save_best(nn.Linear(2, 2))
    for number in (10, 20, 30):
        store.save({"number": number, "weights": torch.full((500,), float(number))}, number)
    return store


def number_of(payload: dict | None) -> int:
    assert payload is not None
    return payload["number"]


def test_the_last_two_are_kept_and_the_newest_is_read(store: CheckpointStore) -> None:
    assert [path.name[-2:] for path in store.existing()] == ["30", "20"]
    assert number_of(store.load()) == 30


def test_nothing_saved_is_nothing_loaded(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "none").load() is None


@pytest.mark.parametrize("file", ["state.pt", "best.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "alter", "remove"])
def test_damage_is_seen_and_the_one_before_is_used(
    file: str, damage: str, store: CheckpointStore, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = store.existing()[0]
    path = newest / file
    content = path.read_bytes()
    path.unlink()  # best.safetensors is a hard link
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "alter":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    assert number_of(store.load()) == 20
    said = capsys.readouterr().err
    assert str(newest) in said
    assert "going on from" in said
    assert not newest.exists()
    assert (newest.parent / f"damaged-{newest.name}").exists()
    store.save({"number": 30}, 30)  # the same place in training is reached again
    assert number_of(store.load()) == 30


def test_all_damaged_is_one_line(store: CheckpointStore) -> None:
    for path in store.existing():
        (path / "state.pt").write_bytes(b"")
    with pytest.raises(
        RunError, match=r"0000000030/state\.pt does not match its manifest"
    ) as error:
        store.load()
    assert "\n" not in str(error.value)


def test_no_code_is_executed(store: CheckpointStore, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "executed",))

    newest = store.existing()[0]
    with (newest / "state.pt").open("wb") as file:
        pickle.dump(Evil(), file, protocol=2)
    (newest / "manifest.json").unlink()
    (newest / "manifest.json").write_text(checkpoint._manifest(newest))  # the hashes match
    assert number_of(store.load()) == 20
    assert not (tmp_path / "executed").exists()


def test_a_newer_format_is_not_called_damage(store: CheckpointStore) -> None:
    path = store.existing()[0] / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 3'))
    with pytest.raises(UserError, match="format 3"):
        store.load()


def test_the_best_weights_of_a_checkpoint_come_back_with_it(store: CheckpointStore) -> None:
    older = nn.Linear(2, 2)
    store.load_best(older)
    newer = nn.Linear(2, 2)
    store.save_best(newer)  # after the last checkpoint: resuming goes back to before it
    assert store.load() is not None
    model = nn.Linear(2, 2)
    store.load_best(model)
    assert torch.equal(model.weight, older.weight)


def test_a_full_disk_is_one_line_and_keeps_what_was(store: CheckpointStore) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(RunError, match="cannot write checkpoint") as error:
            store.save({"number": 40, "weights": torch.zeros(100_000)}, 40)
        with pytest.raises(RunError, match=r"cannot write .*model\.safetensors"):
            store.save_best(nn.Linear(300, 300))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert number_of(store.load()) == 30
    assert not list(store.folder.glob(".writing*"))
    store.load_best(nn.Linear(2, 2))


def test_resume_falls_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path, small_recipe("training.max_epochs=3"))
    newest = CheckpointStore(tmp_path / "training").existing()[0]
    (newest / "state.pt").write_bytes(b"cut")
    model, history = train(tmp_path, small_recipe("training.max_epochs=4"), resume=True)
    expected, reference = train(tmp_path / "whole", small_recipe("training.max_epochs=4"))
    assert "damaged" in capsys.readouterr().err
    assert [row["train/loss"] for row in history.rows] == [
        row["train/loss"] for row in reference.rows
    ]
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True)
    )
