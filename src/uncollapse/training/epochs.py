"""The book-keeping of epochs: counters, validation, stop rule, best weights, history."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from uncollapse.training.checkpoint import CheckpointStore
from uncollapse.training.history import write_history
from uncollapse.training.module import TrainingModule
from uncollapse.training.processes import on_first_process, share_weights
from uncollapse.training.state import Row, capture_random, restore_random, seed_everything
from uncollapse.training.totals import Totals

VALIDATION_SEED = 20_000  # the same posterior samples in every epoch and every run


class Epochs(Callback):
    """Keeps :class:`RunState` current. Must come first among the callbacks.

    Parameters
    ----------
    store : CheckpointStore
        Where the best weights go.
    run_folder : Path
        Where the history goes.
    """

    def __init__(self, store: CheckpointStore, run_folder: Path) -> None:
        self.store = store
        self.run_folder = run_folder
        self._random: dict[str, Any] = {}
        self._means: dict[str, float] = {}
        self._started = 0.0

    def on_train_epoch_start(self, _trainer: Trainer, module: TrainingModule) -> None:
        state = module.state
        rate = module.strategy.learning_rate(state.epoch, state.plateau.decays)
        for optimizer in module.optimizer_of.values():
            for group in optimizer.param_groups:
                group["lr"] = rate
        self._started = time.perf_counter()

    def on_train_batch_end(self, _trainer: Trainer, module: TrainingModule, *_: Any) -> None:
        state = module.state
        state.batch += 1
        state.batches_seen += 1
        now = time.perf_counter()
        state.seconds += now - self._started
        self._started = now

    def on_validation_start(self, trainer: Trainer, module: TrainingModule) -> None:
        # validation must not move the noise of training, whatever it draws
        self._random = capture_random(module.device)
        seed_everything(VALIDATION_SEED, trainer.global_rank)
        module.validation.start()

    def on_validation_end(self, _trainer: Trainer, module: TrainingModule) -> None:
        self._means = module.validation.finish()
        restore_random(self._random, module.device)

    def on_train_epoch_end(self, trainer: Trainer, module: TrainingModule) -> None:
        state, validation = module.state, module.validation
        row = self._row(module) | module.strategy.end_epoch(self._means)
        score = validation.score(self._means)
        newest = module.config.select_on == "last"
        if newest or state.best_score is None or score < state.best_score:
            state.best_epoch, state.best_score = state.epoch + 1, score
            on_first_process(lambda: self.store.save_best(module.model))
        action = state.plateau.update(score, state.epoch, module.config.plateau)
        if action == "decay":
            on_first_process(lambda: self.store.load_best(module.model))
            share_weights(module.model)
            for optimizer in trainer.optimizers:
                optimizer.state.clear()
        state.epoch += 1
        state.batch = 0
        state.seconds = 0.0
        module.totals = Totals()
        state.rows.append(row)
        if action == "stop":
            state.stopped = f"no better validation score since epoch {state.best_epoch}"
        elif state.epoch >= module.config.max_epochs:
            state.stopped = f"max_epochs ({module.config.max_epochs}) reached"
        trainer.should_stop = state.stopped is not None
        on_first_process(lambda: write_history(state.rows, self.run_folder))

    def _row(self, module: TrainingModule) -> Row:
        state = module.state
        sums = module.totals.reduced()
        sentences, tokens = sums.pop("sentences"), sums.pop("tokens")
        train = {f"train/{name}": value / sentences for name, value in sums.items()}
        train["train/kl"] = math.fsum(v for k, v in train.items() if k.startswith("train/kl/"))
        return {
            "epoch": state.epoch + 1,
            "batches_seen": state.batches_seen,
            "seconds": round(state.seconds, 3),
            "tokens_per_second": round(tokens / state.seconds, 1),
            "learning_rate": module.strategy.learning_rate(state.epoch, state.plateau.decays),
            "kl_weight": module.kl_weight,
            **train,
            **{f"validation/{name}": value for name, value in self._means.items()},
        }
