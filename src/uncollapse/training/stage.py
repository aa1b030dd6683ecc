"""One stage of a run: the Lightning Trainer, with all that watches over it."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, Trainer

from uncollapse.data.batches import Batch, BucketedBatches, sequential_batches
from uncollapse.freezing import frozen
from uncollapse.training.checkpoint import CheckpointStore
from uncollapse.training.epochs import Epochs
from uncollapse.training.module import TrainingModule
from uncollapse.training.monitor import CollapseMonitor
from uncollapse.training.placement import Placement
from uncollapse.training.processes import on_first_process, share_weights
from uncollapse.training.progress import Progress
from uncollapse.training.resume import Checkpoints, resumed_state
from uncollapse.training.snapshots import Snapshots
from uncollapse.training.state import RunState
from uncollapse.training.tensorboard import TensorBoardHistory
from uncollapse.training.validation import Validation

if TYPE_CHECKING:
    from uncollapse.data.corpus import Corpus
    from uncollapse.model import Model
    from uncollapse.objectives.objective import Objective
    from uncollapse.strategies import Stage

# training sentences whose statistics take the place of moving averages: those of so many are
# known to a thousandth of a standard deviation
RECALIBRATING = 1_000_000


@dataclass(frozen=True)
class Surroundings:
    """What the stages of a run share.

    Attributes
    ----------
    train, validation : Corpus
    pool : int
        Batches that are sorted together.
    placement : Placement
    show_progress : bool
    callbacks : sequence of lightning.pytorch.Callback
    """

    train: Corpus
    validation: Corpus
    pool: int
    placement: Placement
    show_progress: bool
    callbacks: Sequence[Callback]


def run_stage(
    stage: Stage,
    model: Model,
    objective: Objective,
    surroundings: Surroundings,
    store: CheckpointStore,
    payload: dict[str, Any] | None,
    seed: int,
) -> RunState:
    """Train ``model`` in place and leave it with the weights of the stage's best epoch.

    Parameters
    ----------
    stage : Stage
    model, objective
    surroundings : Surroundings
    store : CheckpointStore
        Of the stage; the history goes into the folder that holds it.
    payload : dict or None
        A checkpoint to go on from. A stage that has ended is only read.
    seed : int
        Order of the sentences and noise are functions of it.
    """
    config, place = stage.training, surroundings.placement
    train, validation = surroundings.train, surroundings.validation
    batches = BucketedBatches(
        train,
        config.batch_size,
        pool=surroundings.pool,
        seed=seed,
        rank=place.rank,
        world=place.world,
    )
    epoch = config.epoch_batches or len(batches)
    state = RunState(seed, len(train), epoch, len(batches), place.world)
    if payload is not None:
        state = resumed_state(payload, state, place.rank)
        model.load_state_dict(payload["model"])
        stage.strategy.load_state_dict(state.strategy)
        if state.epoch < config.max_epochs and state.stopped and "max_epochs" in state.stopped:
            state.stopped = None  # the limit was raised since
    folder = store.folder.parent
    progress = Progress(surroundings.show_progress and place.rank == 0, stage.name)
    # of the run itself: a stage before it has a name, and a language model no latent
    snapshots = config.snapshots if model.latent_dim and not stage.name else ()
    trainer = Trainer(
        # at weight 0 or without contexts, no loss asks for them
        **place.for_trainer(
            unused_parameters=model.learns_by_divergence or model.context is not None
        ),
        precision="bf16-mixed" if config.precision == "bf16" else "32-true",
        max_epochs=config.max_epochs - state.epoch,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        inference_mode=False,  # tensors that a model caches must stay usable in training
        default_root_dir=folder,
        callbacks=[
            Epochs(store, folder),
            progress,
            CollapseMonitor(progress.say),
            *([TensorBoardHistory(folder)] if config.tensorboard else []),
            Snapshots(folder, snapshots, validation),
            *surroundings.callbacks,
            Checkpoints(store, config.checkpoint_every_minutes, payload),
        ],
    )
    if state.stopped is None:
        module = TrainingModule(
            model,
            objective,
            stage.strategy,
            config,
            state,
            batches,
            Validation(objective, len(validation), config.select_on, model),
        )
        with _as_in(stage, model):
            trainer.fit(
                module,
                _Loader(lambda: batches.onward(*state.place, epoch - state.batch)),
                _Loader(
                    lambda: sequential_batches(
                        validation, config.batch_size, rank=place.rank, world=place.world
                    )
                ),
            )
    root = trainer.strategy.root_device
    model.to(root)  # where processes can talk about it
    on_first_process(lambda: store.load_best(model))
    share_weights(model)
    if stage.learning is None or "inference" in stage.learning:
        model.recalibrate(
            lambda: (
                batch.to(root)
                for batch in sequential_batches(
                    train.sample(RECALIBRATING),
                    config.batch_size,
                    rank=place.rank,
                    world=place.world,
                )
            )
        )
    return state


@contextlib.contextmanager
def _as_in(stage: Stage, model: Model) -> Iterator[None]:
    """In training mode, but for what the stage freezes, and told of contexts if it is to be."""
    idle: set[str] = set()
    if stage.learning is not None:
        idle = {"inference", "generation", "prior", "critic"}.difference(stage.learning)
    parameters = [p for name, own in model.players().items() if name in idle for p in own]
    modules = [part for name, own in model.pieces().items() if name in idle for part in own]
    model.train()
    model.blank = stage.blank
    try:
        with frozen(parameters, modules):
            yield
    finally:
        model.blank = False


class _Loader:
    """Batches as Lightning wants them: something that can be iterated anew each epoch."""

    def __init__(self, start: Callable[[], Iterator[Batch]]) -> None:
        self._start = start

    def __iter__(self) -> Iterator[Batch]:
        return self._start()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
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
