"""The history of a run for TensorBoard, where it is installed and asked for."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from lightning.pytorch import Callback, Trainer

from uncollapse.errors import UserError
from uncollapse.training.module import TrainingModule


def require_tensorboard() -> None:
    """Check that TensorBoard is there, before anything is written.

    Raises
    ------
    UserError
        If it is not installed.
    """
    if find_spec("tensorboard") is None:
        raise UserError(
            "training.tensorboard needs TensorBoard: pip install 'uncollapse[tensorboard]'"
        )


class TensorBoardHistory(Callback):
    """Writes every row of the history as scalars, by epoch, under ``RUN/tensorboard``.

    Parameters
    ----------
    folder : Path
        The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "tensorboard"

    def on_train_epoch_end(self, trainer: Trainer, module: TrainingModule) -> None:
        if not trainer.is_global_zero:
            return
        from torch.utils.tensorboard.writer import SummaryWriter

        row = module.state.rows[-1]
        with SummaryWriter(
            str(self.folder)
        ) as writer:  # one file an epoch: a stopped run loses nothing
            for name, value in row.items():
                if value is not None:
                    writer.add_scalar(name, value, int(row["epoch"] or 0))
