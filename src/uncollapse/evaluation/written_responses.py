"""Responses that a model writes to the contexts of a corpus, and those that people gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uncollapse.data.batches import sequential_batches
from uncollapse.data.corpus import Corpus
from uncollapse.decoders.generation import generate
from uncollapse.encoders.context import Condition
from uncollapse.errors import UserError
from uncollapse.evaluation.codes import choose_variable
from uncollapse.evaluation.passes import Progress, evaluating
from uncollapse.evaluation.prior_draws import generator_of, row_conditions
from uncollapse.model import Model

SAMPLES = 10  # responses to a context, as in the papers
LONGEST = 40  # words at most, as in the papers
NO_DIALOGUES = "no response of the test data has a context: give dialogues"


@dataclass(frozen=True)
class AnsweredContexts:
    """Different contexts of a corpus, and all of its responses to each.

    Contexts are the same if their turns are, and if each turn is by whoever responds in both
    or in neither. Other features of a context, such as a topic, are those of its first row.

    Attributes
    ----------
    rows : ndarray
        ``(C,)`` int64: the first response to each context, in the order of the corpus.
    references : list of ndarray
        Of each context the rows of all responses, the first one included.
    total : int
        Contexts that there are in all.
    """

    rows: np.ndarray
    references: list[np.ndarray]
    total: int

    @classmethod
    def of(cls, corpus: Corpus, most: int) -> AnsweredContexts:
        """At most so many contexts, spread evenly over the corpus.

        Responses without a context, the first turns, are left out.

        Raises
        ------
        UserError
            If there are only such.
        """
        contexts = corpus.contexts
        if contexts is None or not contexts.turns.any():
            raise UserError(NO_DIALOGUES)
        groups: dict[tuple[bytes, ...], list[int]] = {}
        for row in np.flatnonzero(contexts.turns).tolist():
            begin, end = contexts.first[row], contexts.last[row]
            bounds = contexts.offsets[begin : end + 1]
            speakers, speaker = contexts.speakers[begin:end], contexts.speaker[row]
            known = (speakers >= 0) & (speaker >= 0)
            key = (
                contexts.tokens[bounds[0] : bounds[-1]].tobytes(),
                np.diff(bounds).tobytes(),
                np.where(known, speakers == speaker, -1).tobytes(),
            )
            groups.setdefault(key, []).append(row)
        found = [np.array(rows) for rows in groups.values()]
        chosen = np.unique(np.linspace(0, len(found) - 1, min(most, len(found))).astype(int))
        references = [found[number] for number in chosen]
        return cls(np.array([own[0] for own in references]), references, len(found))

    @property
    def answers(self) -> np.ndarray:
        """Rows of all responses to these contexts, in the order of the corpus."""
        return np.sort(np.concatenate(self.references))

    def describe(self) -> str:
        """How many, and how many references each has, in words."""
        count = len(self.rows)
        some = f"{count:,}" if count == self.total else f"{count:,} of {self.total:,}"
        mean = sum(map(len, self.references)) / count
        return f"{some} contexts, {mean:.2f} references each on average"


@dataclass(frozen=True)
class WrittenResponses:
    """What a model writes to C contexts.

    Attributes
    ----------
    tokens : list of list of list of int
        Contexts × `SAMPLES` × token ids.
    variable : str or None
        The discrete variable that the model acts by, if it has one.
    codes : ndarray or None
        ``(C, SAMPLES, M)`` int64: the values of that variable which were drawn.
    origin : str
        How they were written, in words.
    """

    tokens: list[list[list[int]]]
    variable: str | None
    codes: np.ndarray | None
    origin: str


def write_responses(
    model: Model,
    corpus: Corpus,
    rows: np.ndarray,
    *,
    max_length: int = LONGEST,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> WrittenResponses:
    """Respond to the contexts of some rows of a corpus, `SAMPLES` times to each.

    z is drawn from p(z|context), and the words are then the most probable ones. A model without
    a latent draws its words instead. What is drawn depends on ``seed`` and on the row alone.

    Parameters
    ----------
    model : Model
        One that is told of contexts.
    corpus : Corpus
    rows : ndarray
        ``(C,)``.
    max_length : int
        Words after which a response is cut.
    batch_size : int
        Contexts that are answered together.
    progress : callable, optional
        Told of contexts.
    """
    variable = choose_variable(model) if model.variable_sizes() else None
    tokens: list[list[list[int]]] = [[] for _ in rows]
    codes: list[Tensor | None] = [None] * len(rows)
    done = 0
    with evaluating(model) as device:
        for batch in sequential_batches(corpus.select(rows), batch_size):
            condition = model.read(batch.to(device))
            assert condition is not None
            places = batch.index.tolist()
            generators = [generator_of(seed, int(rows[place])) for place in places]
            z, drawn = _draw(model, condition, generators, variable)
            copies = torch.arange(batch.size, device=device).repeat_interleave(SAMPLES)
            written = generate(
                model.decoder,
                z,
                rows=len(copies),
                condition=condition.select(copies),
                method="sample" if z is None else "greedy",
                max_length=max_length,
                generator=[generators[row] for row in copies.tolist()],
            )
            for number, place in enumerate(places):
                tokens[place] = written[number * SAMPLES : (number + 1) * SAMPLES]
                codes[place] = drawn[number]
            done += batch.size
            if progress is not None:
                progress("responses", done, len(rows))
    how = (
        "words drawn one by one from p(x|context), as the model has no latent"
        if model.latent_dim == 0
        else "z drawn from p(z|context), the most probable words"
    )
    known = [own for own in codes if own is not None]
    return WrittenResponses(
        tokens,
        variable,
        torch.stack(known).cpu().numpy() if known else None,
        f"{SAMPLES} responses a context, {how}, at most {max_length} of them, seed {seed}",
    )


def _draw(
    model: Model,
    condition: Condition,
    generators: Sequence[torch.Generator],
    variable: str | None,
) -> tuple[Tensor | None, list[Tensor | None]]:
    """z ``(B · SAMPLES, D)``, and of each context the values of a variable ``(SAMPLES, M)``."""
    found, codes = [], []
    for generator, context in zip(
        generators, row_conditions(condition, len(generators)), strict=True
    ):
        own = None if context is None else context.repeat(SAMPLES)
        drawn = model.draw_codes(SAMPLES, generator, condition=own)
        found.append(model.sample_prior(SAMPLES, generator, drawn, own))
        codes.append(None if variable is None else drawn.get(variable))
    z = [own for own in found if own is not None]
    return torch.cat(z) if z else None, codes
