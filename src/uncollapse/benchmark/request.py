"""What a comparison is asked to measure, checked before anything is trained."""

from __future__ import annotations

from pathlib import Path

import torch

from uncollapse.benchmark.summary import Measurement
from uncollapse.config import Recipe
from uncollapse.data.sources import Rows
from uncollapse.data.tokenizer import SPECIAL_TOKENS
from uncollapse.device import find_device
from uncollapse.errors import UserError
from uncollapse.evaluation.classifier import SUPERVISED
from uncollapse.evaluation.representation import REPRESENTATION
from uncollapse.evaluation.suite import check_request
from uncollapse.loading import Data
from uncollapse.model import Model


def require_sentences(name: str, data: Data | None, text_column: str) -> None:
    """Refuse data without a single sentence; ``name`` says what it is, e.g. ``training``.

    Raises
    ------
    UserError
    """
    if data is None:
        return
    source = isinstance(data, str | Path)
    texts = (text for text, _ in Rows(data, text_column)) if source else iter(data)
    if not any(text.split() for text in texts):
        raise UserError(f"the {name} data has no sentences")


def check_measurement(
    recipe: Recipe, wanted: Measurement, train: Data, test: Data, device: str
) -> None:
    """Refuse figures that a recipe has not, labels that the data lacks, and unknown devices.

    Parameters
    ----------
    recipe : Recipe
    wanted : Measurement
    train, test : path, hub data set name or sequence of str
    device : str

    Raises
    ------
    UserError
    """
    find_device(device)
    with torch.random.fork_rng():
        model = Model(recipe, len(SPECIAL_TOKENS) + 1)  # which figures it has depends on no word
    names = check_request(model, wanted.metrics, samples=wanted.samples, generated=wanted.generated)
    need_labels = {*SUPERVISED, *(REPRESENTATION if recipe.latents else ())}
    asked = sorted(names & need_labels)
    column = wanted.label_column or recipe.data.label_column
    if asked and column is None:
        raise UserError(f"{asked[0]} needs labels; name their column with --label-column")
    for data in (train, test):
        if column is not None and isinstance(data, str | Path):
            # reads as far as the first label; without any, to where a missing column is known
            rows = Rows(data, recipe.data.text_column, column)
            if not any(label is not None for _, label in rows) and asked:
                raise UserError(f"{asked[0]} needs labels; {data} has none in column {column!r}")
        elif asked and not isinstance(data, str | Path):
            raise UserError(f"{asked[0]} needs labels, which a list of sentences has not")
