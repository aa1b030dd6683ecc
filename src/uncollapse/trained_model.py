"""What every verb of a trained model starts from: its network, its tokeniser, its sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

from uncollapse.config import Recipe
from uncollapse.data.batches import Batch, sequential_batches
from uncollapse.data.contexts import ContextBatch
from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import BOS, EOS, Tokenizer
from uncollapse.device import find_device
from uncollapse.dialogues import OpenDialogue
from uncollapse.encoders.context import Condition
from uncollapse.errors import UserError
from uncollapse.loading import Data, available_columns, contexts_of, corpus_of
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
        """The classes of every column of labels that the model was told of.

        In a supervised column, class k is value k of its variable.
        """
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

    def _require_condition(self, instead: str) -> None:
        if self.model.context is None:
            why = "its recipe has no condition"
            raise UserError(f"{self.recipe.name} is told of no context: {why}; {instead}")

    @property
    def _features(self) -> list[str]:
        """Columns of labels that tell of a context, beside its turns."""
        condition = self.recipe.condition
        columns = [] if condition is None else [part.column for part in condition.features]
        return [column for column in columns if column in self._classes]

    def _in_order(self, texts: Data) -> Corpus:
        """Sentences or responses whose order matters: row i is number i of them."""
        config = self.recipe.data
        columns = available_columns(texts, config, self._features)
        return corpus_of(
            texts, self.tokenizer, config, classes=self._classes, columns=columns, keep_rows=True
        )

    def _batches(self, texts: Data, batch_size: int) -> Iterator[Batch]:
        """Sentences whose order matters; `Batch.index` tells which they are."""
        for batch in sequential_batches(self._in_order(texts), batch_size):
            yield batch.to(self.device)

    def _contexts(
        self, dialogues: Sequence[OpenDialogue]
    ) -> tuple[ContextBatch, dict[str, Tensor]]:
        """What was said in dialogues, and the numbers of what else they tell by column."""
        turns = [dialogue.turns for dialogue in dialogues]
        speakers = [dialogue.speaker for dialogue in dialogues]
        contexts = contexts_of(turns, self.tokenizer, self.recipe.data, speakers)
        labels = {}
        for column in self._features:
            numbers = [dialogue.number(column, self._classes[column]) for dialogue in dialogues]
            labels[column] = torch.tensor(numbers)
        return contexts, labels

    def _condition(self, contexts: ContextBatch, labels: Mapping[str, Tensor]) -> Condition:
        """What contexts say, whatever responds to them."""
        rows = contexts.size
        tokens = torch.tensor([[BOS, EOS]]).repeat(rows, 1)  # (B, 2): nothing is said yet
        lengths = torch.full((rows,), 2)
        batch = Batch(tokens, lengths, torch.arange(rows), dict(labels), rows, contexts)
        condition = self.model.read(batch.to(self.device))
        assert condition is not None  # nobody asks a model that is told of no context
        return condition

    def _corpus(self, data: Data, label_column: str | None) -> Corpus:
        """Sentences to measure on, with the recipe's labels as far as they have them."""
        config = self.recipe.data
        supervised = [part.column for part in self.recipe.objective.supervision]
        own = [] if config.label_column is None else [config.label_column]
        wanted = list(dict.fromkeys([*supervised, *self._features]))
        found = available_columns(data, config, [*own, *wanted])
        columns = [column for column in wanted if column in found]
        if label_column is None and not set(own) <= set(found):
            config = config.model_copy(update={"label_column": None})
        elif label_column is not None:
            config = config.model_copy(update={"label_column": label_column})
        return corpus_of(data, self.tokenizer, config, classes=self._classes, columns=columns)
