"""Keeps the latent space as it was after chosen batches, for pictures of how it came about."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, Trainer

from uncollapse.evaluation.snapshot import FOLDER, snapshot_path, take_snapshot, write_snapshot
from uncollapse.training.processes import on_first_process
from uncollapse.training.state import capture_random, restore_random

if TYPE_CHECKING:
    from uncollapse.data.corpus import Corpus
    from uncollapse.training.module import TrainingModule


class Snapshots(Callback):
    """Writes ``RUN/snapshots/step-000200.npz`` and its like; training goes on as without.

    One that is there already stays: a run that was stopped and goes on may come by again.

    Parameters
    ----------
    run_folder : Path
    steps : collection of int
        Batches after which to look; 0 is before training.
    validation : Corpus
        The sentences to look at, at most 1,000 of them.
    """

    def __init__(self, run_folder: Path, steps: Collection[int], validation: Corpus) -> None:
        self.folder = run_folder / FOLDER
        self.steps = frozenset(steps)
        self.validation = validation

    def on_train_start(self, _trainer: Trainer, module: TrainingModule) -> None:
        self._keep(module)

    def on_train_batch_end(self, _trainer: Trainer, module: TrainingModule, *_: Any) -> None:
        self._keep(module)

    def _keep(self, module: TrainingModule) -> None:
        step = module.state.batches_seen
        if step not in self.steps:
            return

        def keep() -> None:
            path = snapshot_path(self.folder, step)
            if not path.exists():
                found = take_snapshot(module.model, self.validation, step, model_means=True)
                write_snapshot(found, path)

        # a posterior that is refined draws what the other latents are held at
        random = capture_random(module.device)
        try:
            on_first_process(keep)
        finally:
            restore_random(random, module.device)
