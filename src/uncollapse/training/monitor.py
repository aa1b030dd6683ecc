"""Tells the user when a latent is dying, has died, or lives again."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from lightning.pytorch import Callback, Trainer

from uncollapse.latents import Latent
from uncollapse.objectives.schedules import final_weight
from uncollapse.training.module import TrainingModule
from uncollapse.training.verdict import verdict

FIRST_BATCHES = 500  # a model that has learned nothing yet is not a collapsed one


class CollapseMonitor(Callback):
    """Judges every latent after each epoch and speaks when its state changes.

    Parameters
    ----------
    say : callable
        Takes one line for the user.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say

    def on_train_epoch_end(self, trainer: Trainer, module: TrainingModule) -> None:
        state = module.state
        if state.batches_seen < FIRST_BATCHES:
            return
        row = state.rows[-1]
        final = final_weight(module.objective.schedule)
        for name, latent in module.model.latents.items():
            course = [past.get(f"validation/kl/{name}") for past in state.rows]
            found = verdict(
                row.get(f"validation/kl/{name}"),
                row.get(f"validation/mi/{name}"),
                row.get(f"validation/active_units/{name}"),
                cast(Latent, latent).dim,
                weight=module.kl_weight / final if final else 1.0,
                previous_kl=[value for value in course[:-1] if value is not None],
            )
            before = state.warned.get(name, "alive")
            state.warned[name] = found.state
            if found.state == before or not trainer.is_global_zero:
                continue
            line = f"epoch {row['epoch']}: latent {name} is {found.state} ({found.evidence})"
            self.say(f"{line}; {found.advice}" if found.advice else line)
