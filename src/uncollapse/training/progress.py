"""A progress bar on stderr, and a way to say something above it."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from uncollapse.training.module import TrainingModule

REFRESH_SECONDS = 0.5  # reading the running sums waits for the device


class Progress(Callback):
    """Shows the batches of the running epoch, with its loss, KL and speed so far.

    Parameters
    ----------
    show : bool
        Whether to draw a bar; it is drawn only if stderr is a terminal.
    stage : str
        Name of a stage before the run itself.
    """

    def __init__(self, show: bool, stage: str = "") -> None:
        self.stage = stage
        self.console = Console(stderr=True, highlight=False)
        self._bar: Bar | None = None
        if show and self.console.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[numbers]}"),
                console=self.console,
                transient=True,
            )
        self._drawn = 0.0

    def say(self, line: str) -> None:
        """Write one line to stderr, above the bar if there is one."""
        self.console.print(line, markup=False, soft_wrap=True)

    def on_train_start(self, _trainer: Trainer, module: TrainingModule) -> None:
        if self._bar is not None:
            self._bar.add_task("", total=module.state.batches_per_epoch, numbers="")
            self._bar.start()

    def on_train_batch_end(self, _trainer: Trainer, module: TrainingModule, *_: Any) -> None:
        if self._bar is None or time.monotonic() - self._drawn < REFRESH_SECONDS:
            return
        self._drawn = time.monotonic()
        state = module.state
        sums = module.totals.to_dict()
        sentences = sums["sentences"]
        kl = sum(value for name, value in sums.items() if name.startswith("kl/")) / sentences
        last = state.rows[-1] if state.rows else {}
        information = sum(v or 0 for k, v in last.items() if k.startswith("validation/mi/"))
        self._bar.update(
            self._bar.task_ids[0],
            completed=state.batch,
            description=f"{self.stage} epoch {state.epoch + 1}".lstrip(),
            numbers=f"loss {sums['loss'] / sentences:.2f}  KL {kl:.2f}  MI {information:.2f}  "
            f"{sums['tokens'] / max(state.seconds, 1e-9):,.0f} tokens/s",
        )

    def on_train_end(self, *_: Any) -> None:
        self._stop()

    def on_exception(self, *_: Any) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
