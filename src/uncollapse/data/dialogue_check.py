"""What the dialogues of a corpus file are like: turns, speakers, contexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uncollapse.data.places import Places, Turns
from uncollapse.data.rows import Chunk, Row


@dataclass
class DialogueReport:
    """Dialogues without their empty turns, and the sentences that have a context.

    Attributes
    ----------
    dialogues : int
        Those with a word in them.
    turns : dict
        Turns of a dialogue, those that are context alone counted: ``min``, ``mean``, ``max``.
    one_turn : int
        Dialogues of a single turn.
    responses : int
        Turns that are sentences of the corpus, as all are but those that are context alone.
    without_context : int
        Sentences before which nothing was said.
    known_speakers : float
        Share of the turns whose speaker is known.
    context_turns : int or None
        The window that was asked about.
    longer_contexts : int or None
        Sentences with more turns before them than the window has.
    """

    dialogues: int
    turns: dict[str, float]
    one_turn: int
    responses: int
    without_context: int
    known_speakers: float
    context_turns: int | None
    longer_contexts: int | None

    def facts(self) -> list[tuple[str, str]]:
        """Names and values for a person."""
        turns = " · ".join(f"{name} {value:g}" for name, value in self.turns.items())
        facts = [
            ("dialogues", f"{self.dialogues:,} ({self.one_turn:,} of one turn)"),
            ("turns", turns),
            ("speakers", f"known for {100 * self.known_speakers:.1f} % of the turns"),
            ("without context", f"{self.without_context:,} of {self.responses:,} responses"),
        ]
        if self.context_turns is not None:
            name = f"over {self.context_turns} turns"
            facts.append((name, f"{self.longer_contexts:,} contexts are longer"))
        return facts


class DialogueCounts:
    """Gathers the rows of a file, 9 bytes each."""

    def __init__(self) -> None:
        self._places = Places()
        self._turns: list[Turns] = []

    def add(self, rows: Sequence[Row], kept: np.ndarray) -> None:
        """Take in the next rows; `kept` (rows,) bool is False for those without a word."""
        turns = self._places.add(Chunk(*zip(*rows, strict=True)), kept)
        assert turns is not None  # they are rows of dialogues
        self._turns.append(turns)

    def report(self, context_turns: int | None) -> DialogueReport:
        """Sum up, with the contexts that a window of so many turns would cut."""
        turns = Turns.joined(self._turns)
        sizes = np.bincount(turns.dialogue)
        before = turns.turn[turns.response > 0]
        longer = None if context_turns is None else int(np.count_nonzero(before > context_turns))
        return DialogueReport(
            dialogues=len(sizes),
            turns={
                "min": int(sizes.min()),
                "mean": round(float(sizes.mean()), 2),
                "max": int(sizes.max()),
            },
            one_turn=int(np.count_nonzero(sizes == 1)),
            responses=len(before),
            without_context=int(np.count_nonzero(before == 0)),
            known_speakers=float(np.mean(turns.speaker >= 0)),
            context_turns=context_turns,
            longer_contexts=longer,
        )
