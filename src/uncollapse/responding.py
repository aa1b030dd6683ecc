"""Answers in dialogues: z from the prior given a context, and words from z and the context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uncollapse.decoders.generation import Method
from uncollapse.device import check_seed
from uncollapse.dialogues import Dialogue, OpenDialogue
from uncollapse.encoders.context import Condition
from uncollapse.errors import UserError
from uncollapse.evaluation.codes import choose_variable, write_code
from uncollapse.writing import Writer


@dataclass(frozen=True)
class Response:
    """One answer in a dialogue.

    Attributes
    ----------
    text : str
    action : str or None
        The code that a discrete variable had, drawn given the context, as `TextVAE.clusters`
        prints it; None without discrete variables.
    name : str or None
        What `TextVAE.name_components` called this code, if it did.
    """

    text: str
    action: str | None = None
    name: str | None = None


class Responder(Writer):
    """The verb of a trained model that answers."""

    def respond(
        self,
        dialogues: Sequence[Dialogue],
        *,
        n: int = 1,
        component: str | int | None = None,
        variable: str | None = None,
        index: int | None = None,
        method: Method = "sample",
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_length: int = 40,
        seed: int | None = None,
        batch_size: int = 64,
    ) -> list[list[Response]]:
        """Write ``n`` answers in each dialogue. Further options as in `sample`.

        z is drawn from the prior given the context, p(z|context): first the values of discrete
        variables, the action, and then the rest.

        Parameters
        ----------
        dialogues : sequence
            Of each the turns so far, oldest first: texts, or mappings such as
            ``{"speaker": "A", "text": "hello"}``; none is legal. The last
            ``data.context_turns`` of them count. Instead of a list of turns,
            ``{"turns": […], "speaker": "B"}`` says who answers, and can have the columns of the
            features of the recipe's condition. Without a speaker it is whoever of exactly two
            did not speak last, or else somebody unknown.
        n : int
        component : str or int, optional
            Answer with this action: hold a discrete variable at this value.
        method : {"sample", "greedy"}
            How words are chosen; z is drawn with either.
        seed : int, optional
            Of all draws. A dialogue's depend on it, on ``n``, on the dialogue's place in the
            list and on nothing else.
        batch_size : int
            Dialogues that are answered at once.

        Returns
        -------
        list of list of Response
            The answers in each dialogue.

        Raises
        ------
        UserError
            For a model that is told of no context, what is no dialogue, and a component that
            does not exist or that the model cannot hold.
        """
        self._require_condition("use sample")
        for what, number in (("n", n), ("batch_size", batch_size)):
            if number < 1:
                raise UserError(f"{what} must be at least 1, not {number}")
        variable, held, name = self._held(n, component, variable, index)
        if variable is None and self.model.variable_sizes():
            variable = choose_variable(self.model)
        given = OpenDialogue.list_of(dialogues)
        if not given:
            return []
        contexts, labels = self._contexts(given)
        generators = _generators(seed)
        answers: list[list[Response]] = []
        for some in torch.arange(len(given)).split(batch_size):
            own = [next(generators) for _ in some]
            with torch.no_grad():
                known = {column: numbers[some] for column, numbers in labels.items()}
                condition = self._condition(contexts.select(some), known)
                z, codes = self._draw(n, own, held, variable, condition)
            rows = torch.arange(len(some)).repeat_interleave(n)  # 0, 0, …, 1, 1, …
            by_row = [own[row] for row in rows.tolist()]
            texts = self._write(
                z, len(rows), method, temperature, top_p, max_length, by_row, condition.select(rows)
            )
            written = list(map(Response, texts, *self._actions(codes, len(rows), variable, name)))
            answers += [written[first : first + n] for first in range(0, len(rows), n)]
        return answers

    def _draw(
        self,
        n: int,
        generators: Sequence[torch.Generator],
        held: Mapping[str, Tensor] | None,
        variable: str | None,
        condition: Condition,
    ) -> tuple[Tensor | None, Tensor | None]:
        """z ``(B · n, D)`` and the values of a variable ``(B · n, M)``, each context for itself."""
        found, codes = [], []
        for row, generator in enumerate(generators):
            # copies of one row, so that its numbers are the same in any company
            own = condition.select(torch.full((n,), row))
            drawn = self.model.draw_codes(n, generator, held, own)
            found.append(self.model.sample_prior(n, generator, drawn, own))
            codes.append(None if variable is None else drawn[variable])
        z = None if found[0] is None else torch.cat(found)
        return z, None if variable is None else torch.cat(codes)

    def _actions(
        self, codes: Tensor | None, rows: int, variable: str | None, held: str | None
    ) -> tuple[Sequence[str | None], Sequence[str | None]]:
        """Codes as they are written, and their names; ``held`` is that of a held component."""
        if codes is None or variable is None:
            return [None] * rows, [None] * rows
        names = self._names.get(variable, {})
        written = [write_code(tuple(code)) for code in codes.tolist()]
        return written, [names.get(code, held) for code in written]


def _generators(seed: int | None) -> Iterator[torch.Generator]:
    """A source of random numbers for every dialogue, which depends on its place alone."""
    seeds = np.random.SeedSequence(None if seed is None else check_seed(seed))
    while True:
        (own,) = seeds.spawn(1)
        (start,) = own.generate_state(1, np.uint64).tolist()
        yield torch.Generator().manual_seed(start >> 1)
