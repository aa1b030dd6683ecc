"""Where utterances stand in their dialogues, followed through a stream of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uncollapse.data.rows import Chunk


@dataclass(frozen=True)
class Turns:
    """Where each of U utterances stands in its dialogue.

    Attributes
    ----------
    turn : (U,) int32
        Place in the dialogue, from 0; the utterances of a dialogue follow one another.
    speaker : (U,) int32
        Number of the speaker within the dialogue, -1 unknown.
    response : (U,) uint8
        0 for an utterance that is nothing but context.
    """

    turn: np.ndarray
    speaker: np.ndarray
    response: np.ndarray

    @property
    def dialogue(self) -> np.ndarray:
        """(U,) int32: number of each utterance's dialogue, from 0."""
        return np.cumsum(self.turn == 0, dtype=np.int32) - 1

    @classmethod
    def joined(cls, parts: Sequence[Turns]) -> Turns:
        """Those of several parts, one after the other; there must be one."""
        names = ("turn", "speaker", "response")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    @classmethod
    def alone(cls, utterances: int) -> Turns:
        """So many utterances of unknown speakers, each without anything before it."""
        nothing = np.zeros(utterances, np.int32)
        return cls(nothing, nothing - 1, np.ones(utterances, np.uint8))


class Places:
    """Finds, a chunk of rows at a time, the `Turns` of the rows that are kept.

    Attributes
    ----------
    any_response : bool
        Whether any row so far is more than context.
    """

    def __init__(self) -> None:
        self.any_response = False
        self._dialogues = 0
        self._next = 0  # place of the next utterance that is kept in the dialogue
        self._speakers: dict[str, int] = {}  # of the dialogue, in order of their first words

    def add(self, chunk: Chunk, kept: np.ndarray) -> Turns | None:
        """Take in the next rows; None: they are lone sentences.

        Parameters
        ----------
        chunk : Chunk
        kept : (rows,) bool
            False for rows that are dropped: those after them move up.
        """
        if chunk.turns is None or chunk.speakers is None or chunk.responses is None:
            self.any_response = self.any_response or bool(kept.any())
            return None
        places, numbers = [], []
        for turn, speaker, keep in zip(chunk.turns, chunk.speakers, kept.tolist(), strict=True):
            if turn == 0:
                self._dialogues += 1
                self._next = 0
                self._speakers = {}
            if keep:
                places.append(self._next)
                self._next += 1
                known = self._speakers
                numbers.append(-1 if speaker is None else known.setdefault(speaker, len(known)))
        response = np.array(chunk.responses, np.uint8)[kept]
        self.any_response = self.any_response or bool(response.any())
        return Turns(np.array(places, np.int32), np.array(numbers, np.int32), response)

    def name(self, chunk: Chunk, row: int, before: int) -> str:
        """What an error calls a row of a chunk that has not been added yet.

        Parameters
        ----------
        chunk : Chunk
        row : int
            Place in the chunk, from 0.
        before : int
            Rows that have been added.
        """
        if chunk.turns is None:
            return f"row {before + row + 1}"
        dialogue = self._dialogues + chunk.turns[: row + 1].count(0)
        return f"dialogue {dialogue}, turn {chunk.turns[row] + 1}"
