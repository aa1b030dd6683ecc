"""Sentences into vectors, and vectors into sentences; in dialogues, each in its context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uncollapse.decoders.generation import Method, generate
from uncollapse.device import check_seed
from uncollapse.dialogues import Dialogue, OpenDialogue
from uncollapse.distributions.base import Distribution, join
from uncollapse.encoders.context import Condition
from uncollapse.errors import UserError
from uncollapse.evaluation.codes import write_code
from uncollapse.loading import Data
from uncollapse.names import find_code
from uncollapse.trained_model import TrainedModel

Draws = int | torch.Generator | Sequence[torch.Generator] | None  # a seed, or what it starts
ROWS = 512  # sentences whose contexts are in memory at once


class Writer(TrainedModel):
    """The verbs of a trained model that encode and write."""

    def posterior(
        self, texts: Data, *, context: Dialogue | None = None, batch_size: int = 128
    ) -> Distribution:
        """q(z|x) of every sentence, ``(N, D)`` on the CPU, in the order of ``texts``.

        Of dialogues, q(z|x, context) of every response: a model that is told of contexts reads
        the turns before it. Lone sentences have an empty context.

        Parameters
        ----------
        texts : path, hub data set name or sequence of str or of mappings
            Sentences or dialogues; see `TextVAE.fit`.
        context : sequence or mapping, optional
            The dialogue in which all of them are said, as for `TextVAE.respond`.
        batch_size : int

        Raises
        ------
        UserError
            For a model without a latent, an empty sentence, or a context where the model is
            told of none.
        """
        self._require_latent()
        condition = None if context is None else self._read_one(context)
        parts, index = [], []
        with torch.no_grad():
            for batch in self._batches(texts, batch_size):
                own = None if condition is None else condition.repeat(batch.size)
                posterior = self.model.posterior(batch, own)
                assert posterior is not None
                parts.append(posterior.map(Tensor.cpu))
                index.append(batch.index.cpu())
        return join(parts)[torch.cat(index).argsort()]

    def encode(
        self, texts: Data, *, context: Dialogue | None = None, batch_size: int = 128
    ) -> np.ndarray:
        """Posterior means of sentences, ``(N, D)``; parameters and errors as for `posterior`."""
        found = self.posterior(texts, context=context, batch_size=batch_size)
        return found.mean.detach().numpy()

    def decode(
        self,
        z: np.ndarray,
        *,
        context: Dialogue | None = None,
        method: Method = "greedy",
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_length: int = 100,
        seed: int | None = None,
    ) -> list[str]:
        """Write a sentence for every row of ``z`` ``(N, D)``.

        For the point nearest to it that the prior can give: one of the sphere, or a code.

        Parameters
        ----------
        z : ndarray
            Latents.
        context : sequence or mapping, optional
            The dialogue in which all of them are said, as for `TextVAE.respond`.
        method : {"greedy", "sample"}
            Most probable words, or draws (with ``temperature``, and ``top_p`` for a nucleus).
        max_length : int
            Words after which a sentence is cut.
        seed : int, optional
            Of the draws.

        Raises
        ------
        UserError
            For latents of another shape, or a context where the model is told of none.
        """
        latents = self._latents(z)
        count = len(latents)
        condition = None if context is None else self._read_one(context).repeat(count)
        return self._write(latents, count, method, temperature, top_p, max_length, seed, condition)

    def reconstruct(
        self,
        texts: Data,
        *,
        method: Method = "greedy",
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_length: int = 100,
        seed: int | None = None,
    ) -> list[str]:
        """Encode and decode: what is left of a sentence in z. Options as in `decode`.

        Of dialogues, every response is decoded in its own context.
        """
        latents = self._latents(self.encode(texts))
        how = (method, temperature, top_p, max_length, _generator(seed))
        if self.model.context is None:
            return self._write(latents, len(latents), *how)
        corpus = self._in_order(texts)
        assert corpus.contexts is not None  # the recipe sees to it
        written: list[str] = []
        for begin in range(0, len(latents), ROWS):
            rows = np.arange(begin, min(begin + ROWS, len(latents)))
            labels = {name: column.ids[rows] for name, column in corpus.columns.items()}
            numbers = {name: torch.from_numpy(ids.astype(np.int64)) for name, ids in labels.items()}
            with torch.no_grad():
                condition = self._condition(corpus.contexts.batch(rows), numbers)
            written += self._write(latents[rows], len(rows), *how, condition)
        return written

    def interpolate(
        self, a: str, b: str, steps: int = 7, *, context: Dialogue | None = None, **how: Any
    ) -> list[str]:
        """Sentences on the straight line between two posterior means, ends included.

        In a ``context`` both are responses to it, and so is what lies between. Options as in
        `decode`.
        """
        if steps < 2:
            raise UserError(f"steps must be at least 2, not {steps}")
        start, end = self.encode([a, b], context=context)
        share = np.linspace(0, 1, steps)[:, None]
        return self.decode((1 - share) * start + share * end, context=context, **how)

    def sample(
        self,
        n: int,
        *,
        component: str | int | None = None,
        variable: str | None = None,
        index: int | None = None,
        method: Method = "sample",
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_length: int = 100,
        seed: int | None = None,
    ) -> list[str]:
        """Write ``n`` sentences from the prior. Further options as in `decode`.

        A model that is told of contexts writes for an empty one, as for the first words of a
        dialogue; see `TextVAE.respond`.

        Parameters
        ----------
        n : int
        component : str or int, optional
            Hold a discrete variable at this value, and draw the rest: the same action in
            different words. A code as `clusters` prints it (``"3"``, ``"2-0-4"``; ``"2-*-4"``
            leaves the second index free), or a name that `name_components` gave.
        variable : str, optional
            What the component is of, e.g. ``"z.component"``; by default the one that has the
            name, or else the first.
        index : int, optional
            Hold this index of the variable alone; the component is then one value.

        Raises
        ------
        UserError
            For a component that does not exist, or that the model cannot hold.
        """
        if n < 1:
            raise UserError(f"the number of samples must be at least 1, not {n}")
        _, codes, _ = self._held(n, component, variable, index)
        generator = _generator(seed)
        z = self.model.sample_prior(n, generator, codes)
        return self._write(z, n, method, temperature, top_p, max_length, generator)

    def _held(
        self, n: int, component: str | int | None, variable: str | None, index: int | None
    ) -> tuple[str | None, dict[str, Tensor] | None, str | None]:
        """The variable that a component holds, its values for n rows, and its name."""
        if component is None:
            if variable is not None or index is not None:
                raise UserError("a variable or an index is of use with a component only")
            return None, None, None
        self._require_latent()
        variable, code = find_code(self.model, self._names, component, variable, index)
        name = self._names.get(variable, {}).get(write_code(code))
        return variable, {variable: torch.tensor([code]).repeat(n, 1)}, name  # (n, M)

    def _latents(self, z: np.ndarray) -> Tensor:
        """The points nearest to ``z`` that the prior can give, ``(N, D)``."""
        self._require_latent()
        latents = torch.as_tensor(np.asarray(z), dtype=torch.float32)
        if latents.dim() != 2 or latents.shape[1] != self.model.latent_dim:
            wanted = f"(N, {self.model.latent_dim})"
            raise UserError(f"z must have shape {wanted}, not {tuple(latents.shape)}")
        return self.model.in_support(latents)

    def _read_one(self, context: Dialogue) -> Condition:
        """What one context says."""
        self._require_condition("leave the context out")
        with torch.no_grad():
            return self._condition(*self._contexts([OpenDialogue.of(context, "the context")]))

    def _write(
        self,
        z: torch.Tensor | None,
        rows: int,
        method: Method,
        temperature: float,
        top_p: float,
        max_length: int,
        seed: Draws,
        condition: Condition | None = None,
    ) -> list[str]:
        tokens = generate(
            self.model.decoder,
            None if z is None else z.to(self.device),
            rows=rows,
            condition=condition,
            method=method,
            temperature=temperature,
            top_p=top_p,
            max_length=max_length,
            generator=seed if isinstance(seed, Sequence) else _generator(seed),
        )
        return [self.tokenizer.decode(row) for row in tokens]


def _generator(seed: int | torch.Generator | None) -> torch.Generator:
    if isinstance(seed, torch.Generator):
        return seed
    generator = torch.Generator()
    if seed is None:
        generator.seed()
        return generator
    return generator.manual_seed(check_seed(seed))
