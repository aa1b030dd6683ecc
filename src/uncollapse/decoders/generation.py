"""Sentences from z: greedy, ancestral, tempered or nucleus sampling, many rows at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from uncollapse.data.tokenizer import BOS, EOS
from uncollapse.decoders.base import Decoder, State
from uncollapse.decoders.vocabulary import VocabularyRows
from uncollapse.encoders.context import Condition
from uncollapse.errors import UserError, unknown_name

Method = Literal["greedy", "sample"]
TYPICAL_LENGTH = 16  # words of a sentence, to tell what pays


@torch.no_grad()
def generate(
    decoder: Decoder,
    z: Tensor | None,
    *,
    rows: int | None = None,
    condition: Condition | None = None,
    method: Method = "greedy",
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_length: int = 100,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    batch_size: int = 512,
) -> list[list[int]]:
    """Write one sentence for every z.

    Parameters
    ----------
    decoder : Decoder
        In evaluation mode.
    z : Tensor, optional
        ``(N, D)``; None for a language model, which needs ``rows``.
    rows : int, optional
        How many sentences a language model writes.
    condition : Condition, optional
        The context of each of them; without it, they have none.
    method : {"greedy", "sample"}
        The most probable word at every step, or a draw.
    temperature : float
        Divides the logits before a draw.
    top_p : float
        Draw from the smallest set of words whose probability reaches ``top_p``.
    max_length : int
        Words after which a sentence is cut.
    generator : torch.Generator or sequence of torch.Generator, optional
        On the CPU; one for all sentences, or for each of them the one that it draws from, which
        several may share. One uniform number a word; a row's numbers do not depend on the words
        of the others.

    Returns
    -------
    list of list of int
        Token ids, without ``<s>`` and ``</s>``.

    Raises
    ------
    UserError
        For an unknown method, or a temperature, ``top_p`` or length out of range.
    """
    if method not in get_args(Method):
        raise unknown_name("method", method, get_args(Method))
    if not 0 < temperature < math.inf:
        raise UserError(f"temperature must be above 0 and finite, not {temperature}")
    if not 0 < top_p <= 1:
        raise UserError(f"top_p must be in (0, 1], not {top_p}")
    if max_length < 1:
        raise UserError(f"max_length must be at least 1, not {max_length}")
    count = len(z) if z is not None else rows
    assert count is not None, "a language model must be told how many sentences to write"
    softmax = VocabularyRows(decoder.output.weight, count * TYPICAL_LENGTH)

    def choose(features: Tensor, uniforms: Tensor | None) -> Tensor:
        if uniforms is None:
            return softmax.greatest(features)
        return softmax.draw(features, uniforms, temperature, top_p)

    written: list[list[int]] = [[] for _ in range(count)]
    draws = max_length if method == "sample" else None
    starts = _starts(decoder, z, count, condition, draws, generator, batch_size)
    _write(decoder, starts, choose, written, max_length)
    return written


@dataclass
class _Start:
    """Sentences before their first word."""

    first: int  # of them, among all
    state: State
    uniforms: Tensor | None  # (n, most words)
    taken: int = 0  # those before it have been begun

    @property
    def left(self) -> int:
        return len(self.state.features) - self.taken


def _starts(
    decoder: Decoder,
    z: Tensor | None,
    count: int,
    condition: Condition | None,
    draws: int | None,
    generator: torch.Generator | Sequence[torch.Generator] | None,
    batch_size: int,
) -> Iterator[_Start]:
    """All sentences, so many at a time; with so many uniform numbers each, if any."""
    weight = decoder.output.weight
    for begin in range(0, count, batch_size):
        size = min(batch_size, count - begin)
        part = None if z is None else z[begin : begin + size].to(weight)
        context = None
        if condition is not None:
            context = condition.map(lambda own, at=slice(begin, begin + size): own[at])
        uniforms = None
        if draws is not None:
            own = generator[begin:][:size] if isinstance(generator, Sequence) else generator
            uniforms = _uniforms(size, draws, own).to(weight.device)
        yield _Start(begin, decoder.start(part, size, context), uniforms)


def _uniforms(
    rows: int, length: int, generator: torch.Generator | Sequence[torch.Generator] | None
) -> Tensor:
    if isinstance(generator, Sequence):
        return torch.stack([torch.rand(length, generator=own) for own in generator])
    return torch.rand(rows, length, generator=generator)


def _write(
    decoder: Decoder,
    starts: Iterator[_Start],
    choose: Callable[[Tensor, Tensor | None], Tensor],
    written: list[list[int]],
    max_length: int,
) -> None:
    """Write all sentences; where one ends, the next that waits takes its row.

    So most steps are of a full batch: a step has a price that few rows pay as well.
    """
    begun = next(starts, None)
    if begun is None:
        return
    state, uniforms, waiting = begun.state, begun.uniforms, next(starts, None)
    read = ProjectedWords(decoder)
    owners: list[int | None] = list(range(begun.left))  # the sentence of every row, if any
    rows = torch.arange(begun.left, device=state.features.device)
    words, lengths = torch.full_like(rows, BOS), torch.zeros_like(rows)
    tokens = rows.new_empty(len(rows), max_length)
    while True:
        state = decoder.step(read(words), state)
        at = lengths.clamp(max=max_length - 1)  # rows without a sentence go further
        words = choose(state.features, None if uniforms is None else uniforms[rows, at])
        tokens[rows, at] = words
        lengths += 1
        ends = ((words == EOS) | (lengths == max_length)).nonzero().squeeze(1).tolist()
        free = [row for row in ends if owners[row] is not None]
        if not free:
            continue
        for row, found in zip(free, tokens[free].tolist(), strict=True):
            owner, owners[row] = owners[row], None
            assert owner is not None
            written[owner] = found[: found.index(EOS)] if EOS in found else found
        while free and waiting is not None:
            places, free = free[: waiting.left], free[waiting.left :]
            own = slice(waiting.taken, waiting.taken + len(places))
            state.replace(rows[places], waiting.state, rows.new_tensor(range(own.start, own.stop)))
            if uniforms is not None and waiting.uniforms is not None:
                uniforms[places] = waiting.uniforms[own]
            words[places], lengths[places] = BOS, 0
            for row, sentence in zip(places, range(own.start, own.stop), strict=True):
                owners[row] = waiting.first + sentence
            waiting.taken = own.stop
            if not waiting.left:
                waiting = next(starts, None)
        if not free:
            continue
        going = len(owners) - owners.count(None)
        if not going:
            return
        if _rounded(going) < len(owners):  # rows without a sentence cost nothing more
            spare = _rounded(going) - going
            idle = [row for row, owner in enumerate(owners) if owner is None][:spare]
            kept = sorted(idle + [row for row, owner in enumerate(owners) if owner is not None])
            owners, keep = [owners[row] for row in kept], rows[kept]
            rows = rows[: len(kept)]
            state, words, lengths = state.select(keep), words[keep], lengths[keep]
            tokens = tokens[keep]
            uniforms = None if uniforms is None else uniforms[keep]


def _rounded(rows: int) -> int:
    """The next of few numbers, at most a quarter larger: products of a new size start slowly."""
    step = 1 << max(0, rows.bit_length() - 3)
    return -(-rows // step) * step


class ProjectedWords:
    """What words add to a decoder's first layer; each type is projected when it is first written.

    Parameters
    ----------
    decoder : Decoder
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        weight, self._bias = decoder.input_layer
        # few rows are multiplied at a time: in this order it is twice as fast
        self._across = weight[:, : decoder.embedding.embedding_dim].t().contiguous()  # (E, G)
        types = len(decoder.output.weight)
        self._known = torch.zeros(types, dtype=torch.bool, device=weight.device)
        # as long as a row is not written, it takes no memory on a CPU
        self._rows = weight.new_empty(types, len(weight))  # (V, G)

    def __call__(self, words: Tensor) -> Tensor:
        """Rows of ``words`` ``(N,)``, ``(N, G)``."""
        missing = words[~self._known[words]]
        if len(missing):
            missing = missing.unique()
            with self._decoder.full_precision():
                embedded = self._decoder.embed(missing)  # (n, E)
                self._rows[missing] = torch.addmm(self._bias, embedded, self._across)
            self._known[missing] = True
        return self._rows.index_select(0, words)
