"""A training run: from data and a recipe to a finished run folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from uncollapse import saving
from uncollapse.config import Recipe
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.device import check_seed, find_device
from uncollapse.errors import UserError
from uncollapse.evaluation.standard import evaluate
from uncollapse.loading import Data, corpus_of, learn_tokenizer
from uncollapse.model import Model
from uncollapse.model_card import model_card
from uncollapse.objectives import Objective
from uncollapse.training.fit import fit
from uncollapse.training.tensorboard import require_tensorboard

HELD_OUT = 0.05  # share of the training sentences that validate, where nothing else does
MOST_HELD_OUT = 2_000
CARD_METRICS = ("reconstruction", "kl", "elbo", "ppl_elbo", "mi", "active_units")


def train_run(
    recipe: Recipe,
    train: Data,
    validation: Data | None,
    folder: Path,
    *,
    seed: int,
    device: str,
    resume: bool,
    progress: bool,
    say: Callable[[str], None] | None,
) -> tuple[Model, Tokenizer, list[dict[str, Any]]]:
    """Train a recipe in ``folder``; parameters and errors as for `TextVAE.fit`.

    All input is read and checked before the folder is made.

    Returns
    -------
    model : Model
        With the weights of the best epoch, in evaluation mode.
    tokenizer : Tokenizer
    history : list of dict
        One row an epoch.
    """
    say = say or _nobody
    check_seed(seed)
    place = find_device(device)
    if recipe.training.tensorboard:
        require_tensorboard()
    first = os.environ.get("RANK", "0") == "0"  # of several processes, one writes
    if first and resume and saving.read_config(folder)["finished"]:
        raise UserError(f"the run in {folder} has finished; there is nothing to resume")
    if first and not resume:
        saving.require_empty(folder)
    tokenizer = learn_tokenizer(train, recipe.data)
    training = corpus_of(train, tokenizer, recipe.data)
    if validation is None:
        training, validating = training.hold_out(HELD_OUT, MOST_HELD_OUT)
        say(f"no validation data: {len(validating):,} training sentences held out")
    else:
        validating = corpus_of(validation, tokenizer, recipe.data)
    say(f"training: {training.report.summary()}")
    say(f"validation: {validating.report.summary()}")
    facts = {
        "train": str(train) if isinstance(train, str | Path) else "a list of sentences",
        "train_sentences": len(training),
        "validation_sentences": len(validating),
        "vocabulary": tokenizer.fingerprint[:16],
        "seed": seed,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Model(recipe, len(tokenizer))
    if first and resume:
        saving.check_resumable(folder, recipe, facts)
    elif first:
        saving.start_run(folder, recipe, tokenizer, facts)
    history = fit(
        model,
        Objective(recipe.objective),
        recipe,
        training,
        validating,
        folder,
        seed=seed,
        device=device,
        resume=resume,
        show_progress=progress,
    )
    if history.pretraining:
        seconds = sum(row["seconds"] or 0 for row in history.pretraining)
        say(f"pretraining: {len(history.pretraining)} epochs in {seconds:,.0f} s")
    if first:
        metrics = evaluate(model.to(place), validating, tokenizer, metrics=CARD_METRICS)
        figures = {name: metric.to_dict() for name, metric in metrics.items()}
        saving.finish_run(folder, model.cpu(), figures, model_card(recipe, facts, figures))
    return model, tokenizer, history.rows


def _nobody(_line: str) -> None:
    pass
