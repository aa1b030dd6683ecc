"""What every verb of a trained model starts from: its network, its tokeniser, its sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

import torch

from uncollapse.config import Recipe
from uncollapse.data.batches import Batch, sequential_batches
from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.device import find_device
from uncollapse.errors import UserError
from uncollapse.loading import Data, available_columns, corpus_of
from uncollapse.model import Model
from uncollapse.names import Names


class TrainedModel:
    """A recipe and what training has made of it.

    Parameters
    ----------
    recipe : Recipe
        The system.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._model: Model | None = None
        self._tokenizer: Tokenizer | None = None
        self._classes: dict[str, list[str]] = {}
        self._names: Names = {}

    @property
    def model(self) -> Model:
        """The network."""
        if self._model is None:
            raise UserError("the model is not trained yet; call fit or from_pretrained first")
        return self._model

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokeniser."""
        if self._tokenizer is None:
            raise UserError("the model is not trained yet; call fit or from_pretrained first")
        return self._tokenizer

    @property
    def classes(self) -> dict[str, list[str]]:
        """Of every supervised column, the classes: class k is value k of its variable."""
        return {column: list(classes) for column, classes in self._classes.items()}

    @property
    def names(self) -> Names:
        """The names of clusters, ``{variable: {code: name}}``; see `TextVAE.name_components`."""
        return {variable: dict(names) for variable, names in self._names.items()}

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.model.parameters()).device

    def to(self, device: str) -> Self:
        """Move the network, e.g. to ``"cuda"``; returns the same object."""
        self.model.to(find_device(device))
        return self

    def _require_latent(self) -> None:
        if self.model.latent_dim == 0:
            raise UserError(f"{self.recipe.name} is a language model: it has no latent variable")

    def _batches(self, texts: Data, batch_size: int) -> Iterator[Batch]:
        """Sentences whose order matters; `Batch.index` tells which they are."""
        corpus = corpus_of(texts, self.tokenizer, self.recipe.data, keep_rows=True)
        for batch in sequential_batches(corpus, batch_size):
            yield batch.to(self.device)

    def _corpus(self, data: Data, label_column: str | None) -> Corpus:
        """Sentences to measure on, with the recipe's labels as far as they have them."""
        config = self.recipe.data
        supervised = [part.column for part in self.recipe.objective.supervision]
        own = [] if config.label_column is None else [config.label_column]
        found = available_columns(data, config, [*own, *supervised])
        columns = [column for column in supervised if column in found]
        if label_column is None and not set(own) <= set(found):
            config = config.model_copy(update={"label_column": None})
        elif label_column is not None:
            config = config.model_copy(update={"label_column": label_column})
        return corpus_of(data, self.tokenizer, config, classes=self._classes, columns=columns)
