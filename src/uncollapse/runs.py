"""A training run: from data and a recipe to a finished run folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from uncollapse import saving
from uncollapse.config import Recipe, SupervisionConfig, check_components
from uncollapse.data.corpus import LabelColumn
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.device import check_seed, find_device
from uncollapse.errors import UserError, unknown_name
from uncollapse.evaluation.standard import evaluate
from uncollapse.loading import Data, corpus_of, learn_tokenizer
from uncollapse.model import Model
from uncollapse.model_card import model_card
from uncollapse.objectives import Objective
from uncollapse.training.fit import fit
from uncollapse.training.tensorboard import require_tensorboard
from uncollapse.word_vectors import start_from_vectors

HELD_OUT = 0.05  # share of the training sentences that validate, where nothing else does
MOST_HELD_OUT = 2_000
CARD_METRICS = ("reconstruction", "kl", "elbo", "ppl_elbo", "mi", "active_units")


@dataclass(frozen=True)
class Trained:
    """What a training run comes to.

    Attributes
    ----------
    model : Model
        With the weights of the best epoch, in evaluation mode.
    tokenizer : Tokenizer
    history : list of dict
        One row an epoch.
    classes : dict of str to list of str
        By column of labels that the recipe names, the classes. In one that supervises, class k
        is value k of the variable.
    """

    model: Model
    tokenizer: Tokenizer
    history: list[dict[str, Any]]
    classes: dict[str, list[str]]


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
) -> Trained:
    """Train a recipe in ``folder``; parameters and errors as for `TextVAE.fit`.

    All input is read and checked before the folder is made.
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
    supervision = recipe.objective.supervision
    columns = label_columns(recipe)
    training = corpus_of(train, tokenizer, recipe.data, columns=columns)
    classes = {column: training.columns[column].names for column in columns}
    if validation is None:
        training, validating = training.hold_out(HELD_OUT, MOST_HELD_OUT)
        say(f"no validation data: {len(validating):,} training sentences held out")
    else:
        validating = corpus_of(validation, tokenizer, recipe.data, classes=classes, columns=columns)
    check_components(recipe, len(training))
    say(f"training: {training.summary()}")
    say(f"validation: {validating.summary()}")
    if recipe.condition is not None and not training.report.context_turns:
        say(
            f"no training sentence has a context for {recipe.name} to read: "
            "dialogues have 'turns', or 'context' and 'response'"
        )
    facts = {
        "train": str(train) if isinstance(train, str | Path) else "a list of sentences",
        "train_sentences": len(training),
        "validation_sentences": len(validating),
        "vocabulary": tokenizer.fingerprint[:16],
        "seed": seed,
    }
    if columns:
        found = [f"{column}: {training.columns[column].summary()}" for column in columns]
        facts["labels"] = "; ".join(found)
    check_features(recipe, classes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Model(recipe, len(tokenizer))
    if recipe.data.vectors is not None:
        found = start_from_vectors(model, tokenizer, recipe.data.vectors)
        say(f"vectors: {found:,} of {len(tokenizer):,} words start from {recipe.data.vectors}")
    if supervision:
        check_supervision(supervision, model.variable_sizes(), training.columns)
    if first and resume:
        saving.check_resumable(folder, recipe, facts, classes)
    elif first:
        saving.start_run(folder, recipe, tokenizer, facts, classes)
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
        count = len(history.pretraining)
        say(f"pretraining: {count} epoch{'' if count == 1 else 's'} in {seconds:,.0f} s")
    if first:
        metrics = evaluate(model.to(place), validating, tokenizer, metrics=CARD_METRICS)
        figures = {name: metric.to_dict() for name, metric in metrics.items()}
        saving.finish_run(folder, model.cpu(), figures, model_card(recipe, facts, figures))
    return Trained(model, tokenizer, history.rows, classes)


def label_columns(recipe: Recipe) -> list[str]:
    """Columns of labels that a recipe needs: those that supervise, and a context's features."""
    features = [] if recipe.condition is None else recipe.condition.features
    columns = [part.column for part in (*recipe.objective.supervision, *features)]
    return list(dict.fromkeys(columns))


def check_features(recipe: Recipe, classes: Mapping[str, list[str]]) -> None:
    """Refuse a feature that has more classes than its table has rows.

    Raises
    ------
    UserError
        One line that names the column.
    """
    for feature in () if recipe.condition is None else recipe.condition.features:
        found = len(classes[feature.column])
        if found > feature.values:
            raise UserError(
                f"condition.features: column {feature.column!r} has {found} classes, but values "
                f"is {feature.values}"
            )


def check_supervision(
    supervision: Sequence[SupervisionConfig],
    sizes: Mapping[str, tuple[int, int]],
    columns: Mapping[str, LabelColumn],
) -> None:
    """Refuse labels that cannot supervise, and variables that cannot tell them.

    Parameters
    ----------
    supervision : sequence of SupervisionConfig
    sizes : mapping
        Of the model: variable to its number of indexes M, and of values K.
    columns : mapping
        Labels of the training sentences, by column.

    Raises
    ------
    UserError
        If a variable or its index does not exist or has fewer values than its column classes,
        or no training sentence has a label.
    """
    for part in supervision:
        column, name = part.column, part.variable
        if not sizes:
            raise UserError(f"labels {column!r} supervise {name!r}, but no variable is discrete")
        if name not in sizes:
            raise unknown_name("discrete variable", name, sizes)
        indexes, values = sizes[name]
        if part.index >= indexes:
            there = "only index 0" if indexes == 1 else f"indexes 0 to {indexes - 1}"
            raise UserError(f"variable {name!r} has no index {part.index}, {there}")
        if not columns[column].labelled:
            raise UserError(f"no training sentence has a label in column {column!r}")
        classes = len(columns[column].names)
        if values < classes:
            raise UserError(f"{classes} classes {column!r}, but {name!r} has {values} values only")


def _nobody(_line: str) -> None:
    pass
