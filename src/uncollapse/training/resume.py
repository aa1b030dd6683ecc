"""Checkpoints at the right moments, and going on from one as if nothing had happened."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, Trainer

from uncollapse.errors import UserError
from uncollapse.training.checkpoint import CheckpointStore
from uncollapse.training.module import TrainingModule
from uncollapse.training.processes import any_process, gather_objects, on_first_process
from uncollapse.training.signals import Interrupted, SignalWatch
from uncollapse.training.state import RunState, capture_random, restore_random, seed_everything


class Checkpoints(Callback):
    """Saves at every epoch's end, every few minutes, and when a signal asks to stop.

    Must come last among the callbacks, because it saves what the others have decided.

    Parameters
    ----------
    store : CheckpointStore
    every_minutes : float
        Between checkpoints within an epoch.
    payload : dict or None
        A checkpoint to go on from; the weights and the run state are restored by the caller,
        the optimisers and the random states here.
    """

    def __init__(
        self, store: CheckpointStore, every_minutes: float, payload: dict[str, Any] | None
    ) -> None:
        self.store = store
        self.every_seconds = 60 * every_minutes
        self.payload = payload
        self.watch = SignalWatch()
        self._saved = time.monotonic()
        self._first = True

    def on_train_start(self, _trainer: Trainer, module: TrainingModule) -> None:
        self.watch.install()
        if self.payload is not None:
            for name, optimizer in module.every_optimizer().items():
                optimizer.load_state_dict(self.payload["optimizers"][name])

    def on_train_batch_start(self, trainer: Trainer, module: TrainingModule, *_: Any) -> None:
        if not self._first:
            return
        # only now: the set-up before the first batch may have drawn from the random states
        self._first = False
        if self.payload is None:
            seed_everything(module.state.seed, trainer.global_rank)
        else:
            restore_random(self.payload["random"][trainer.global_rank], module.device)
            self.payload = None

    def on_train_batch_end(self, _trainer: Trainer, module: TrainingModule, *_: Any) -> None:
        if module.state.batch == module.state.batches_per_epoch:
            return  # the epoch's end is a few moments away and saves its own
        late = time.monotonic() - self._saved > self.every_seconds
        stop, late = any_process([self.watch.received is not None, late], module.device)
        if stop or late:
            self._save(module)
        if stop:
            self._leave()

    def on_train_epoch_end(self, _trainer: Trainer, module: TrainingModule) -> None:
        self._save(module)
        if any_process([self.watch.received is not None], module.device)[0]:
            self._leave()

    def on_train_end(self, *_: Any) -> None:
        self.watch.restore()

    def on_exception(self, *_: Any) -> None:
        self.watch.restore()

    def _save(self, module: TrainingModule) -> None:
        module.state.totals = module.totals.to_dict()
        module.state.strategy = module.strategy.state_dict()
        # every process draws its own noise and has its own running sums
        random = gather_objects(capture_random(module.device))
        totals = gather_objects(module.state.totals)
        payload = {
            "model": module.model.state_dict(),
            "optimizers": {
                name: optimizer.state_dict() for name, optimizer in module.every_optimizer().items()
            },
            "state": module.state.to_dict(),
            "random": random,
            "totals": totals,
        }
        on_first_process(lambda: self.store.save(payload, module.state.batches_seen))
        self._saved = time.monotonic()

    def _leave(self) -> None:
        # a process that was not signalled itself leaves with the one that was
        numbers = [number for number in gather_objects(self.watch.received) if number]
        raise Interrupted(numbers[0])


def resumed_state(payload: dict[str, Any], fresh: RunState, rank: int) -> RunState:
    """The run state of a checkpoint, provided that it belongs to the same run.

    Raises
    ------
    UserError
        If seed, training set, size of batch or epoch, or number of processes differ.
    """
    state = RunState.from_dict(payload["state"])
    for name in ("seed", "sentences", "batches_per_epoch", "batches_per_pass", "processes"):
        was, now = getattr(state, name), getattr(fresh, name)
        if was != now:
            raise UserError(f"cannot resume: {name} was {was} and is now {now}")
    state.totals = payload["totals"][rank]
    return state
