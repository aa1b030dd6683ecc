"""Train a model: the one function that the rest of the package calls."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy

from uncollapse.data.batches import Batch, BucketedBatches, sequential_batches
from uncollapse.device import find_device
from uncollapse.errors import UserError
from uncollapse.strategies import build_strategy
from uncollapse.training.checkpoint import CheckpointStore
from uncollapse.training.epochs import Epochs
from uncollapse.training.history import History
from uncollapse.training.module import TrainingModule
from uncollapse.training.monitor import CollapseMonitor
from uncollapse.training.progress import Progress
from uncollapse.training.resume import Checkpoints, resumed_state
from uncollapse.training.state import RunState
from uncollapse.training.tensorboard import TensorBoardHistory
from uncollapse.training.validation import Validation
from uncollapse.tuning import tuned_process

if TYPE_CHECKING:
    from uncollapse.config import Recipe
    from uncollapse.data.corpus import Corpus
    from uncollapse.model import Model
    from uncollapse.objectives.objective import Objective


def fit(
    model: Model,
    objective: Objective,
    recipe: Recipe,
    train: Corpus,
    validation: Corpus,
    run_folder: str | Path,
    *,
    seed: int,
    device: str = "auto",
    resume: bool = False,
    show_progress: bool = True,
    callbacks: Sequence[Callback] = (),
) -> History:
    """Train ``model`` in place and leave it with the weights of its best epoch.

    Writes ``history.jsonl``, ``history.csv`` and ``training/`` (checkpoints and best weights)
    under ``run_folder``. A run that is stopped and resumed computes, bit for bit on a CPU, what
    it would have computed without the stop. Under several processes (``WORLD_SIZE`` set, as
    ``torchrun`` does) the global batch is shared out, and the result is that of one process up
    to rounding and to each process's own noise.

    Parameters
    ----------
    model, objective
        What is trained, and what is minimised.
    recipe : Recipe
        Its ``strategy``, ``training`` and ``data.bucket_pool`` are used.
    train, validation : Corpus
    run_folder : path
    seed : int
        Order of the sentences and noise are functions of it. The model is initialised already.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    resume : bool
        Go on from the newest whole checkpoint, if there is any.
    show_progress : bool
        A progress bar, if stderr is a terminal.
    callbacks : sequence of lightning.pytorch.Callback

    Returns
    -------
    History

    Raises
    ------
    UserError
        If the folder holds a run already and ``resume`` is False, if the resumed run was
        another one, or if a corpus is empty.
    RunError
        On a non-finite step, a full disk, or when no checkpoint is whole.
    Interrupted
        On SIGINT or SIGTERM, after a checkpoint.
    """
    config = recipe.training
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    for name, corpus in (("training", train), ("validation", validation)):
        if len(corpus) == 0:
            raise UserError(f"the {name} corpus has no sentences")
    run_folder = Path(run_folder)
    run_folder.mkdir(parents=True, exist_ok=True)
    store = CheckpointStore(run_folder / "training", owner=rank == 0)
    batches = BucketedBatches(
        train,
        config.batch_size,
        pool=recipe.data.bucket_pool,
        seed=seed,
        rank=rank,
        world=world,
    )
    state = RunState(seed, len(train), len(batches), world)
    payload = _payload(store, resume)
    if payload is not None:
        state = resumed_state(payload, state, rank)
        model.load_state_dict(payload["model"])
        if state.epoch < config.max_epochs and state.stopped and "max_epochs" in state.stopped:
            state.stopped = None  # the limit was raised since
    home = next(model.parameters()).device

    progress = Progress(show_progress and rank == 0)
    with _quiet(), tuned_process():
        trainer = Trainer(
            **_placement(device, world),
            precision="bf16-mixed" if config.precision == "bf16" else "32-true",
            max_epochs=config.max_epochs - state.epoch,
            gradient_clip_val=config.clip_norm,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            inference_mode=False,  # tensors that a model caches must stay usable in training
            default_root_dir=run_folder,
            callbacks=[
                Epochs(store, run_folder),
                progress,
                CollapseMonitor(progress.say),
                *([TensorBoardHistory(run_folder)] if config.tensorboard else []),
                *callbacks,
                Checkpoints(store, config.checkpoint_every_minutes, payload),
            ],
        )
        if state.stopped is None:
            module = TrainingModule(
                model,
                objective,
                build_strategy(recipe),
                config,
                state,
                Validation(objective, len(validation), config.select_on),
            )
            model.train()
            trainer.fit(
                module,
                _Loader(lambda: batches.epoch(state.epoch, state.batch)),
                _Loader(
                    lambda: sequential_batches(
                        validation, config.batch_size, rank=rank, world=world
                    )
                ),
            )
        store.load_best(model)
        root = trainer.strategy.root_device
        model.to(root).recalibrate(
            # every process goes over the whole corpus: they must end with the same numbers
            lambda: (batch.to(root) for batch in sequential_batches(train, config.batch_size))
        )
    model.to(home).eval()
    assert state.best_epoch is not None
    assert state.best_score is not None
    assert state.stopped is not None
    return History(state.rows, state.best_epoch, state.best_score, state.stopped)


class _Loader:
    """Batches as Lightning wants them: something that can be iterated anew each epoch."""

    def __init__(self, start: Callable[[], Iterator[Batch]]) -> None:
        self._start = start

    def __iter__(self) -> Iterator[Batch]:
        return self._start()


def _payload(store: CheckpointStore, resume: bool) -> dict[str, Any] | None:
    if resume:
        return store.load()
    if store.existing():
        raise UserError(
            f"{store.folder.parent} holds a run already; resume it or choose another folder"
        )
    return None


def _placement(device: str, world: int) -> dict[str, Any]:
    """The Trainer's arguments about where it runs.

    Raises
    ------
    UserError
        For a device that does not exist here.
    """
    place = find_device(device)
    if world == 1:
        return {
            "accelerator": place.type,
            "devices": 1 if place.index is None else [place.index],
            "plugins": [LightningEnvironment()],  # no guessing from a cluster's variables
        }
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    backend = "nccl" if place.type == "cuda" else "gloo"
    return {
        "accelerator": place.type,
        "devices": local,
        "num_nodes": world // local,
        "strategy": DDPStrategy(process_group_backend=backend, gradient_as_bucket_view=True),
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's remarks off stderr; errors still come through as exceptions."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
