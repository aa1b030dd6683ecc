"""What the discrete variables of a model say: values of sentences, clusters, their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from uncollapse.errors import UserError, unknown_name
from uncollapse.evaluation.codes import check_index, choose_variable
from uncollapse.loading import Data
from uncollapse.names import check_names, merged_names, names_at, read_names
from uncollapse.trained_model import TrainedModel

if TYPE_CHECKING:
    from uncollapse.evaluation.clusters import Clusters


@dataclass(frozen=True)
class Target:
    """What is predicted: a discrete variable, one of its indexes, or the classes of a column."""

    variable: str
    index: int | None
    classes: list[str] | None


class Interpreter(TrainedModel):
    """The verbs of a trained model that are about its discrete variables."""

    def predict_proba(
        self,
        texts: Data,
        variable: str | None = None,
        index: int | None = None,
        *,
        batch_size: int = 128,
    ) -> np.ndarray:
        """Probabilities q(c|x) of the values of a discrete variable, in the order of ``texts``.

        Of dialogues, q(c|x, context) of every response.

        Parameters
        ----------
        texts : path, hub data set name or sequence of str or of mappings
            Sentences or dialogues; see `TextVAE.fit`.
        variable : str, optional
            The name of a discrete variable (by default the first), such as ``"c"`` or
            ``"z.component"``, or of a supervised column.
        index : int, optional
            Which of the variable's indexes; all of them if not given.

        Returns
        -------
        ndarray
            ``(N, K)`` of one index; ``(N, M, K)`` of a variable with several; of a supervised
            column ``(N, number of classes)`` in the order of `classes`, given that the sentence
            has one of them: values beyond the classes, which no label supervised, are left out,
            and the rows sum to 1 without them.

        Raises
        ------
        UserError
            For an unknown variable or index, a model without any, or an empty sentence.
        """
        target = self._target(variable, index)
        parts, order = [], []
        with torch.no_grad():
            for batch in self._batches(texts, batch_size):
                found = self.model.variables(self.model.infer(batch))
                parts.append(found[target.variable].cpu())
                order.append(batch.index.cpu())
        log_probs = torch.cat(parts)[torch.cat(order).argsort()].double()  # (N, M, K)
        if target.index is not None:
            log_probs = log_probs[:, target.index]  # (N, K)
        if target.classes is not None:
            log_probs = log_probs[:, : len(target.classes)].log_softmax(-1)
        return log_probs.exp().numpy()

    def predict(
        self,
        texts: Data,
        variable: str | None = None,
        index: int | None = None,
        *,
        batch_size: int = 128,
    ) -> np.ndarray:
        """The most probable values; parameters and errors as for `predict_proba`.

        Returns
        -------
        ndarray
            int64, ``(N,)`` of one index, ``(N, M)`` of a variable with several; of a supervised
            column ``(N,)`` names of classes.
        """
        classes = self._target(variable, index).classes
        probabilities = self.predict_proba(texts, variable, index, batch_size=batch_size)
        values = probabilities.argmax(-1)
        return values if classes is None else np.array(classes, dtype=object)[values]

    def clusters(
        self,
        data: Data,
        variable: str | None = None,
        index: int | None = None,
        label_column: str | None = None,
        examples: int = 5,
        words: int = 8,
    ) -> Clusters:
        """What the values of a discrete variable stand for: sentences, words and labels of each.

        Parameters
        ----------
        data : path, hub data set name or sequence of str or of mappings
            The sentences; of dialogues the responses, clustered in their contexts.
        variable : str, optional
            By default the first: components of a mixture before codes.
        index : int, optional
            Tell sentences apart by this index alone, not by all of the variable together.
        label_column : str, optional
            Labels to compare with; by default the recipe's, or the first column of labels that
            the model was told of and the data has.
        examples : int
            Sentences of each cluster, typical ones and confident ones.
        words : int
            Words that set a cluster apart.

        Raises
        ------
        UserError
            For an unknown variable, index or column, a model without discrete variables, or so
            many codes that an index must be chosen.
        """
        from uncollapse.evaluation.clusters import find_clusters

        self._require_latent()
        variable = choose_variable(self.model, variable)
        size = self.model.variable_sizes()[variable]
        check_index(index, size, variable)
        corpus = self._corpus(data, label_column)
        if label_column is not None and label_column not in corpus.columns:
            raise UserError(f"these sentences have no column {label_column!r}: they are bare texts")
        return find_clusters(
            self.model,
            corpus,
            self.tokenizer,
            variable=variable,
            index=index,
            names=names_at(self._names.get(variable, {}), size, index),
            examples=examples,
            words=words,
        )

    def name_components(
        self, names: Mapping[str, Mapping[Any, str]] | str | Path, *, index: int | None = None
    ) -> None:
        """Give clusters names.

        `clusters`, `sample`, `respond` and a saved model know them from then on.

        Names that are there already stay, but for those of the same codes.

        Parameters
        ----------
        names : mapping or path
            ``{variable: {code: name}}``, or a YAML file of such. A code is what `clusters`
            prints, ``"3"`` or ``"2-0-4"``.
        index : int, optional
            To which of a variable's indexes codes of one value belong; as for `clusters`.

        Raises
        ------
        UserError
            For an unknown variable, a code that it cannot have, a name that is empty, looks
            like a code or belongs to another cluster already. No name has changed then.
        """
        sizes = self.model.variable_sizes()
        if isinstance(names, str | Path):
            given, where = read_names(Path(names)), str(names)
        else:
            given, where = names, "names"
        found = check_names(given, sizes, where, index)
        if not any(found.values()):
            raise UserError(f"{where}: there is no name, write {{variable: {{code: name}}}}")
        self._names = merged_names(self._names, found, where)

    def _target(self, variable: str | None, index: int | None) -> Target:
        """Find what a name stands for; a variable's name comes before that of a column."""
        self._require_latent()
        sizes = self.model.variable_sizes()
        supervision = {part.column: part for part in self.recipe.objective.supervision}
        if variable in supervision and variable not in sizes:
            part = supervision[variable]
            if index is not None:
                raise UserError(f"column {variable!r} has an index of its own; leave out {index}")
            return Target(part.variable, part.index, self._classes[variable])
        if variable is not None and sizes and variable not in sizes:
            raise unknown_name("discrete variable or column", variable, [*sizes, *supervision])
        variable = choose_variable(self.model, variable)
        check_index(index, sizes[variable], variable)
        indexes, _ = sizes[variable]
        return Target(variable, 0 if indexes == 1 else index, None)
