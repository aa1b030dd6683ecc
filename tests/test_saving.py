"""What is written is written whole or not at all; extras say how to get them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NoReturn

import pytest

from uncollapse import TextVAE, saving
from uncollapse.data.grammar import assistant_grammar
from uncollapse.errors import RunError, UserError

TEXTS = [sample.text for sample in assistant_grammar().sample(60, seed=5)]
TINY = ["encoder.hidden_dim=8", "decoder.hidden_dim=8", "training.max_epochs=1"]


def full_disk(_descriptor: int) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "metrics.json"
    saving.write_text(file, "old")
    monkeypatch.setattr(saving.os, "fsync", full_disk)
    with pytest.raises(RunError, match=r"cannot write .*metrics\.json: No space left"):
        saving.write_text(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_at_the_end_leaves_a_run_that_is_not_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = TextVAE.from_recipe("vae", overrides=TINY).fit(TEXTS, progress=False)
    monkeypatch.setattr("safetensors.torch.save_model", lambda *_: full_disk(0))
    with pytest.raises(RunError, match="No space left"):
        vae.save_pretrained(tmp_path / "saved")
    monkeypatch.undo()
    with pytest.raises(UserError, match="has not finished"):
        TextVAE.from_pretrained(tmp_path / "saved")


def test_tensorboard_gets_the_history(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    vae = TextVAE.from_recipe("vae", overrides=[*TINY, "training.tensorboard=true"])
    vae.fit(TEXTS, out=tmp_path / "run", progress=False)
    events = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    (point,) = events.Scalars("validation/elbo")
    assert point.step == 1
    assert point.value == pytest.approx(vae.history_[0]["validation/elbo"])


def test_a_missing_tensorboard_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uncollapse.training.tensorboard.find_spec", lambda _: None)
    vae = TextVAE.from_recipe("vae", overrides=[*TINY, "training.tensorboard=true"])
    with pytest.raises(UserError, match=r"uncollapse\[tensorboard\]"):
        vae.fit(TEXTS, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
