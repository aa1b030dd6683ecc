"""Training, plain and by the package's own function; and the weights that other work needs."""

from __future__ import annotations

import os
import time
from multiprocessing.connection import Connection
from typing import Any

from speed_settings import (
    SEED,
    Settings,
    build_model,
    build_plain,
    corpus,
    recipe,
    sentences,
    weights,
)
from speed_turns import Turns, start


def plain(settings: Settings, turns: Turns, *, family: str, batches: int, pool: int) -> None:
    """Adam as it comes, and the same batches as the package's; or random ones, ``pool`` 1."""
    import torch
    from plain.vae import train_step

    from uncollapse.data.batches import BucketedBatches

    model = build_plain(settings, family).train()
    config = recipe(settings, family).training
    optimizer = torch.optim.Adam(
        model.parameters(),
        config.learning_rate,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
    )
    whole = corpus(settings, family, "train")
    order = BucketedBatches(whole, config.batch_size, pool=pool, seed=SEED).epoch(0)
    torch.manual_seed(SEED)
    begin = time.perf_counter()
    train_step(model, optimizer, next(order), config.clip_norm)
    while time.perf_counter() - begin < settings.settle:
        train_step(model, optimizer, next(order), config.clip_norm)
    while turns.next():
        tokens = 0
        for _ in range(batches):
            batch = next(order)
            train_step(model, optimizer, batch, config.clip_norm)
            tokens += int((batch.lengths - 1).sum())
        turns.done(tokens)


def ours(settings: Settings, turns: Turns, *, family: str, batches: int, precision: str) -> None:
    """The package's own training, from batch assembly to the update, by its own function."""
    from lightning.pytorch import Callback

    class Rounds(Callback):
        left, tokens, begin = 0, 0, 0.0  # no round has begun

        def on_train_batch_start(self, *_: Any) -> None:
            self.begin = self.begin or time.perf_counter()

        def on_train_batch_end(self, *what: Any) -> None:
            _, _, _, batch, _ = what  # trainer, module and outputs come first
            if self.left == 0:
                if time.perf_counter() - self.begin < settings.settle:
                    return
            else:
                self.left -= 1
                self.tokens += int((batch.lengths - 1).sum())
                if self.left > 0:
                    return
                turns.done(self.tokens)
            if not turns.next():
                os._exit(0)  # there is no need to end the run well
            self.left, self.tokens = batches, 0

    _fit(settings, family, precision, Rounds())


def warm_up(settings: Settings, family: str) -> None:
    """Have a process train for a few batches and keep the weights, unless there are some."""
    if weights(settings, family).exists():
        return
    end, worker = start(_warm_up, settings, family)
    worker.join()
    end.close()
    if worker.exitcode:
        raise SystemExit(f"error: the warm-up of {family} stopped; what it said is above")


def _warm_up(settings: Settings, family: str, _connection: Connection) -> None:
    import torch
    from lightning.pytorch import Callback

    class Enough(Callback):
        def on_train_batch_end(self, *what: Any) -> None:
            _, module, _, _, number = what
            if number + 1 >= settings.warm_up:
                torch.save(module.model.state_dict(), weights(settings, family))
                os._exit(0)

    _fit(settings, family, "bf16", Enough(), samples=1)


def _fit(
    settings: Settings, family: str, precision: str, callback: Any, samples: int | None = None
) -> None:
    from uncollapse.objectives.objective import Objective
    from uncollapse.training.fit import fit

    chosen = recipe(settings, family, precision)
    if samples is not None:
        objective = chosen.objective.model_copy(update={"samples": samples})
        chosen = chosen.model_copy(update={"objective": objective})
    whole = corpus(settings, family, "train")
    fit(
        build_model(settings, family),
        Objective(chosen.objective),
        chosen,
        whole,
        sentences(whole, 0, 32),
        settings.folder / f"run-{os.getpid()}",
        seed=SEED,
        device="cpu",
        show_progress=False,
        callbacks=[callback],
    )
    raise AssertionError("the corpus has fewer batches than were asked for")
