"""Sentences from z: greedy, ancestral, tempered or nucleus sampling, many rows at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    weight = decoder.output.weight
    softmax = VocabularyRows(weight, count * TYPICAL_LENGTH)
    read = ProjectedWords(decoder)
    written: list[list[int]] = []
    for begin in range(0, count, batch_size):
        size = min(batch_size, count - begin)
        part = None if z is None else z[begin : begin + size].to(weight)
        context = None
        if condition is not None:
            context = condition.map(lambda own, at=slice(begin, begin + size): own[at])
        uniforms = None
        if method == "sample":
            own = generator[begin:][:size] if isinstance(generator, Sequence) else generator
            uniforms = _uniforms(size, max_length, own).to(weight.device)
        state = decoder.start(part, size, context)
        tokens = _write(
            decoder, state, read, softmax, uniforms, temperature, top_p, size, max_length
        )
        written += [_until_end(row) for row in tokens.tolist()]
    return written


def _uniforms(
    rows: int, length: int, generator: torch.Generator | Sequence[torch.Generator] | None
) -> Tensor:
    if isinstance(generator, Sequence):
        return torch.stack([torch.rand(length, generator=own) for own in generator])
    return torch.rand(rows, length, generator=generator)


def _write(
    decoder: Decoder,
    state: State,
    read: ProjectedWords,
    softmax: VocabularyRows,
    uniforms: Tensor | None,
    temperature: float,
    top_p: float,
    rows: int,
    max_length: int,
) -> Tensor:
    device = softmax.weight.device
    tokens = torch.full((rows, max_length), EOS, device=device)
    active = torch.arange(rows, device=device)
    words = torch.full((rows,), BOS, device=device)
    for step in range(max_length):
        state = decoder.step(read(words), state)
        if uniforms is None:
            words = softmax.greatest(state.features)
        else:
            words = softmax.draw(state.features, uniforms[active, step], temperature, top_p)
        tokens[active, step] = words
        going = (words != EOS).nonzero().squeeze(1)
        if len(going) < len(active):  # finished rows cost nothing more
            active, words, state = active[going], words[going], state.select(going)
            if len(active) == 0:
                break
    return tokens


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


def _until_end(tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(EOS)] if EOS in tokens else tokens
