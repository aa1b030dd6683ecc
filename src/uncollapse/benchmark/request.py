"""What a comparison is asked to measure, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from uncollapse.benchmark.measuring import Measurement
from uncollapse.config import MixtureConfig, Recipe, Section, check_components
from uncollapse.data.tokenizer import SPECIAL_TOKENS
from uncollapse.errors import UserError
from uncollapse.evaluation.agreement import CLUSTERS
from uncollapse.evaluation.classifier import SUPERVISED
from uncollapse.evaluation.dialogue_figures import DIALOGUE, LABELS
from uncollapse.evaluation.representation import REPRESENTATION
from uncollapse.evaluation.suite import check_request
from uncollapse.evaluation.written_responses import NO_DIALOGUES
from uncollapse.loading import Data, has_columns, rows_of
from uncollapse.model import Model


def require_sentences(name: str, data: Data | None, text_column: str) -> None:
    """Refuse data without a single sentence; ``name`` says what it is, e.g. ``training``.

    Raises
    ------
    UserError
    """
    if data is None:
        return
    if not any(row.response and row.text.split() for row in rows_of(data, text_column)):
        raise UserError(f"the {name} data has no sentences")


def check_portable(recipe: Recipe) -> None:
    """Refuse a recipe with a piece that is defined where no other process finds it.

    Raises
    ------
    UserError
    """
    for part in _parts(recipe):
        if type(part).__module__ == "__main__":
            kind = getattr(part, "kind", type(part).__name__)
            raise UserError(
                f"{recipe.name}: {kind} is a piece of the running script, which processes of their "
                "own do not run; move it into a module that the script imports, or leave out jobs"
            )


def _parts(value: Any) -> Iterator[Section]:
    """All sections of a recipe, itself included."""
    if isinstance(value, Section):
        yield value
        value = dict(value)  # its fields
    inner = value.values() if isinstance(value, Mapping) else value
    if isinstance(inner, Iterable) and not isinstance(inner, str):
        for part in inner:
            yield from _parts(part)


def check_measurement(recipe: Recipe, wanted: Measurement, train: Data, test: Data) -> None:
    """Refuse what could not be measured or trained in the end.

    Figures that a recipe has not, labels that the data lacks, and more components than there are
    training sentences.

    The labels are those that figures need, and those that supervise the training.

    Parameters
    ----------
    recipe : Recipe
    wanted : Measurement
    train, test : path, hub data set name or sequence of str

    Raises
    ------
    UserError
    """
    with torch.random.fork_rng():
        model = Model(recipe, len(SPECIAL_TOKENS) + 1)  # which figures it has depends on no word
    names = check_request(
        model,
        wanted.metrics,
        samples=wanted.samples,
        generated=wanted.generated,
        vectors=wanted.vectors,
    )
    need_labels = {*SUPERVISED, *(REPRESENTATION if recipe.latents else ())}
    need_labels |= set(CLUSTERS if model.variable_sizes() else ())
    if recipe.condition is not None and names & set(DIALOGUE):
        rows = rows_of(test, recipe.data.text_column)
        if not any(row.response and row.turn > 0 and row.text.split() for row in rows):
            raise UserError(NO_DIALOGUES)
        # as one of the whole group, a figure without labels is a dash
        need_labels |= set(LABELS) & set(wanted.metrics)
    asked = sorted(names & need_labels)
    column = wanted.label_column or recipe.data.label_column
    if asked and column is None:
        raise UserError(f"{asked[0]} needs labels; name their column with --label-column")
    for data in (train, test):
        is_source = isinstance(data, str | Path)
        if column is not None and (is_source or has_columns(data)):
            # reads as far as the first label; without any, to where a missing column is known
            rows = rows_of(data, recipe.data.text_column, [column])
            if not any(row.labels[0] is not None for row in rows) and asked:
                what = f"{asked[0]} needs labels"
                raise UserError(f"{what}; {rows.source} has none in column {column!r}")
        elif asked:
            raise UserError(f"{asked[0]} needs labels, which a list of bare sentences has not")
    for part in recipe.objective.supervision:
        rows = rows_of(train, recipe.data.text_column, [part.column])
        if not any(row.labels[0] is not None for row in rows):
            raise UserError(
                f"{recipe.name} learns from labels; the training data has none in column "
                f"{part.column!r}"
            )
    priors = [latent.prior for latent in recipe.latents.values()]
    sizes = [prior.components for prior in priors if isinstance(prior, MixtureConfig)]
    rows = rows_of(train, recipe.data.text_column)
    found = (row for row in rows if row.response and row.text.split())
    check_components(recipe, sum(1 for _ in islice(found, max(sizes, default=0))))
