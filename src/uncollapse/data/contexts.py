"""What was said before each sentence of a corpus, and the same as padded batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from uncollapse.data.places import Turns
from uncollapse.data.tokenizer import BOS, EOS, PAD


@dataclass(frozen=True)
class Contexts:
    """The turns before each of N sentences, oldest first, as ranges of U utterances.

    Attributes
    ----------
    tokens : (sum of lengths,) uint16 or uint32
        All utterances, one after the other, without ``<s>`` and ``</s>``.
    offsets : (U + 1,) int64
        Utterance u is ``tokens[offsets[u]:offsets[u + 1]]``.
    first, last : (N,) int64
        The context of sentence i is the utterances ``first[i]``, …, ``last[i] - 1``.
    speakers : (U,) int32
        Number of each utterance's speaker within its dialogue, -1 unknown.
    speaker : (N,) int32
        The same of each sentence.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    first: np.ndarray
    last: np.ndarray
    speakers: np.ndarray
    speaker: np.ndarray

    @classmethod
    def of(cls, tokens: np.ndarray, offsets: np.ndarray, turns: Turns, window: int) -> Contexts:
        """Up to `window` turns before each response; the utterances are not copied."""
        last = np.flatnonzero(turns.response)
        whole = last - turns.turn[last]
        speakers = turns.speaker
        return cls(tokens, offsets, whole, last, speakers, speakers[last]).window(window)

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, rows: np.ndarray | slice) -> Contexts:
        """The contexts of some sentences; the utterances are shared, not copied."""
        chosen = {name: getattr(self, name)[rows] for name in ("first", "last", "speaker")}
        return replace(self, **chosen)

    @property
    def turns(self) -> np.ndarray:
        """(N,) int64: turns in each context."""
        return self.last - self.first

    def window(self, turns: int) -> Contexts:
        """The last `turns` turns of each context."""
        return replace(self, first=np.maximum(self.first, self.last - turns))

    def batch(self, rows: np.ndarray) -> ContextBatch:
        """The contexts of some sentences, padded; an utterance that they share is there once."""
        first, turns = self.first[rows], self.turns[rows]
        steps = np.arange(turns.max(initial=0))
        here = steps < turns[:, None]  # (B, U)
        utterances = (first[:, None] + steps)[here]
        used, places = np.unique(utterances, return_inverse=True)
        index = np.full(here.shape, -1, np.int64)  # (B, U)
        index[here] = places
        speaker = np.broadcast_to(self.speaker[rows][:, None], here.shape)[here]
        known = (self.speakers[utterances] >= 0) & (speaker >= 0)
        same_speaker = np.full(here.shape, -1, np.int64)  # (B, U)
        same_speaker[here] = np.where(known, self.speakers[utterances] == speaker, -1)
        tokens, lengths = padded(self.tokens, self.offsets, used)
        parts = map(torch.from_numpy, (tokens, lengths, index, same_speaker))
        return ContextBatch(*parts)


@dataclass
class ContextBatch:
    """Padded contexts of B sentences. C different utterances, T tokens, U turns at most.

    Attributes
    ----------
    tokens : (C, T) int64
        ``<s> w1 … wn </s>``, then ``<pad>``; T is 2 where there is no utterance.
    lengths : (C,) int64
        n + 2: ``<s>`` and ``</s>`` are counted.
    rows : (B, U) int64
        Which utterances each context has, oldest first, then -1.
    same_speaker : (B, U) int64
        1 for a turn of the speaker of the sentence itself, 0 for another's, -1 where either is
        unknown and where there is no turn.
    """

    tokens: Tensor
    lengths: Tensor
    rows: Tensor
    same_speaker: Tensor

    @property
    def size(self) -> int:
        """Sentences that these are the contexts of, B."""
        return self.rows.shape[0]

    @property
    def mask(self) -> Tensor:
        """(B, U) bool: True on every turn."""
        return self.rows >= 0

    def to(self, device: torch.device | str) -> ContextBatch:
        """The same contexts on another device."""
        return self._map(lambda part: part.to(device), utterances=True)

    def repeat(self, times: int) -> ContextBatch:
        """All contexts so many times, one after the other; the utterances stay as they are."""
        return self._map(lambda part: part.repeat(times, 1))

    def select(self, rows: Tensor) -> ContextBatch:
        """The contexts of some of the sentences, without what only the others need.

        Parameters
        ----------
        rows : (B',) int64, or (B,) bool
        """
        chosen = self._map(lambda part: part[rows])
        turns = int(chosen.mask.sum(1).max()) if chosen.size else 0
        index, same_speaker = chosen.rows[:, :turns], chosen.same_speaker[:, :turns]
        here = index >= 0
        used, places = torch.unique(index[here], return_inverse=True)
        index = index.masked_scatter(here, places)
        lengths = self.lengths[used]
        longest = int(lengths.max()) if len(used) else 2
        return ContextBatch(self.tokens[used, :longest], lengths, index, same_speaker)

    def _map(self, change: Callable[[Tensor], Tensor], utterances: bool = False) -> ContextBatch:
        """Change what is there per sentence, and what is there per utterance if asked to."""
        tokens, lengths = self.tokens, self.lengths
        if utterances:
            tokens, lengths = change(tokens), change(lengths)
        return ContextBatch(tokens, lengths, change(self.rows), change(self.same_speaker))


def padded(
    tokens: np.ndarray, offsets: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gather sentences into one padded array, without a loop over them.

    Parameters
    ----------
    tokens, offsets
        All sentences: i is ``tokens[offsets[i]:offsets[i + 1]]``.
    rows : (B,) int64

    Returns
    -------
    tokens : (B, T) int64
        ``<s> w1 … wn </s>``, then ``<pad>``.
    lengths : (B,) int64
        n + 2.
    """
    starts = offsets[rows]
    lengths = offsets[rows + 1] - starts  # (B,) words
    steps = np.arange(lengths.max(initial=0))
    word = steps < lengths[:, None]  # (B, T-2)
    places = np.minimum(starts[:, None] + steps, len(tokens) - 1)
    result = np.full((len(rows), len(steps) + 2), PAD, np.int64)  # (B, T)
    result[:, 0] = BOS
    result[:, 1:-1] = np.where(word, tokens[places], PAD)
    result[np.arange(len(rows)), lengths + 1] = EOS
    return result, lengths + 2
