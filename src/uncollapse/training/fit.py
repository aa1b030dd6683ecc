"""Train a model: the one function that the rest of the package calls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch import Callback

from uncollapse.errors import UserError
from uncollapse.objectives.objective import Objective
from uncollapse.strategies import build_stages
from uncollapse.strategies.restart import restart_decoder
from uncollapse.training.checkpoint import CheckpointStore
from uncollapse.training.history import History
from uncollapse.training.placement import Placement
from uncollapse.training.processes import from_first_process, on_first_process, process_group
from uncollapse.training.stage import Surroundings, quiet, run_stage
from uncollapse.training.state import Row, RunState, derived_seed
from uncollapse.tuning import tuned_process

if TYPE_CHECKING:
    from uncollapse.config import Recipe
    from uncollapse.data.corpus import Corpus
    from uncollapse.model import Model

# what the seeds of a stage are for
ORDER_AND_NOISE, NEW_DECODER = 1, 2


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
    alone: bool = False,
) -> History:
    """Train ``model`` in place and leave it with the weights of its best epoch.

    Writes ``history.jsonl``, ``history.csv`` and ``training/`` (checkpoints and best weights)
    under ``run_folder``; a strategy that pretrains does the same under
    ``run_folder/pretraining`` first. A run that is stopped and resumed computes, bit for bit on
    a CPU, what it would have computed without the stop. Under several processes (``WORLD_SIZE``
    set, as ``torchrun`` does) the global batch is shared out, and the result is that of one
    process up to rounding and to each process's own noise.

    Parameters
    ----------
    model, objective
        What is trained, and what is minimised; a strategy may change the latter by stages.
    recipe : Recipe
        What the model was built from. Its ``strategy``, ``training`` and ``data.bucket_pool``
        are used.
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
    alone : bool
        Train in this process, whatever others there are: each of them may train a model of its own.

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
    for name, corpus in (("training", train), ("validation", validation)):
        if len(corpus) == 0:
            raise UserError(f"the {name} corpus has no sentences")
    place = Placement.find(device, alone=alone)
    run_folder = Path(run_folder)
    stages = build_stages(recipe)
    stores = [CheckpointStore(run_folder / stage.name / "training") for stage in stages]
    surroundings = Surroundings(
        train, validation, recipe.data.bucket_pool, place, show_progress, callbacks
    )
    home = next(model.parameters()).device
    rows: list[Row] = []
    with quiet(), tuned_process(), process_group(place):
        on_first_process(lambda: run_folder.mkdir(parents=True, exist_ok=True))
        begun = from_first_process(lambda: [bool(store.existing()) for store in stores])
        if any(begun) and not resume:
            raise UserError(f"{run_folder} holds a run already; resume it or choose another folder")
        for number, (stage, store) in enumerate(zip(stages[:-1], stores[:-1], strict=True)):
            payload = from_first_process(store.load)
            if any(begun[number + 1 :]):  # the run has left this stage behind
                rows += RunState.from_dict(payload["state"]).rows if payload else []
                continue
            stage_seed = derived_seed(seed, number, ORDER_AND_NOISE)
            weighed = Objective(stage.objective)
            rows += run_stage(stage, model, weighed, surroundings, store, payload, stage_seed).rows
        payload = from_first_process(stores[-1].load)
        if stages[-1].restart and payload is None:
            fresh = derived_seed(seed, len(stages), NEW_DECODER)
            restart_decoder(model, recipe, fresh, stages[-1].learning)
        if stages[-1].objective != recipe.objective:
            objective = Objective(stages[-1].objective)
        state = run_stage(stages[-1], model, objective, surroundings, stores[-1], payload, seed)
    model.to(home).eval()
    assert state.best_epoch is not None
    assert state.best_score is not None
    assert state.stopped is not None
    return History(state.rows, state.best_epoch, state.best_score, state.stopped, rows)
