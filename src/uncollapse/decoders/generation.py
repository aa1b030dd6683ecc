"""Sentences from z: greedy, ancestral, tempered or nucleus sampling, many rows at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from uncollapse.data.tokenizer import BOS, EOS, PAD
from uncollapse.decoders.base import Decoder, State
from uncollapse.decoders.token_loss import as_autocast, new_logits, write_logits
from uncollapse.encoders.context import Condition
from uncollapse.errors import UserError, unknown_name

Method = Literal["greedy", "sample"]
BLOCK = 128  # words per block of the inverse-CDF search
NUCLEUS_GUESS = 256  # words among which a nucleus is looked for first
TYPICAL_LENGTH = 16  # words of a sentence, to tell what is cheaper


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
    read: Callable[[Tensor], Tensor] = decoder.project_words
    if count * TYPICAL_LENGTH > len(weight):  # cheaper to project the vocabulary once
        vocabulary = torch.arange(len(weight), device=weight.device)
        read = decoder.project_words(vocabulary).__getitem__  # (V, G)
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
        tokens = _write(decoder, state, size, read, uniforms, temperature, top_p, max_length)
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
    rows: int,
    read: Callable[[Tensor], Tensor],
    uniforms: Tensor | None,
    temperature: float,
    top_p: float,
    max_length: int,
) -> Tensor:
    weight = as_autocast(decoder.output.weight)  # (V, H)
    device = weight.device
    tokens = torch.full((rows, max_length), EOS, device=device)
    active = torch.arange(rows, device=device)
    words = torch.full((rows,), BOS, device=device)
    # one buffer for the logits of all steps, a whole number of blocks wide
    buffer = new_logits(weight, rows, len(weight) + -len(weight) % BLOCK)
    for step in range(max_length):
        state = decoder.step(read(words), state)
        logits = fill_logits(state.features, weight, buffer)  # (N, V + padding)
        if uniforms is None:
            words = _argmax(logits)
        else:
            words = _draw(logits, uniforms[active, step], temperature, top_p)
        tokens[active, step] = words
        going = words != EOS
        if not going.all():  # finished rows cost nothing more
            active, words, state = active[going], words[going], state.select(going)
            if len(active) == 0:
                break
    return tokens


def fill_logits(features: Tensor, weight: Tensor, buffer: Tensor) -> Tensor:
    """Logits of all words that can be written, ``(N, V + padding)``, in rows of the ``buffer``."""
    logits = buffer[: len(features)]
    write_logits(features, weight, logits[:, : len(weight)])
    logits[:, len(weight) :] = -torch.inf
    logits[:, [PAD, BOS]] = -torch.inf  # never targets in training
    return logits


def _until_end(tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(EOS)] if EOS in tokens else tokens


def _argmax(logits: Tensor) -> Tensor:
    """The greatest of every row ``(N, V)``, V whole blocks, ``(N,)``; PyTorch's own is slow."""
    blocks = logits.view(len(logits), -1, BLOCK)
    block = blocks.amax(2).argmax(1)  # (N,)
    return block * BLOCK + _pick_block(blocks, block).argmax(1)


def _draw(logits: Tensor, uniforms: Tensor, temperature: float, top_p: float) -> Tensor:
    """One word a row by inversion of the distribution function, ``(N,)``; consumes logits."""
    if temperature != 1:
        logits.sub_(logits.amax(1, keepdim=True)).div_(temperature)
    weights = torch.softmax(logits, 1, out=logits)  # (N, V)
    if top_p == 1:
        return inverse_cdf(weights, uniforms)
    size = min(NUCLEUS_GUESS, weights.shape[1])
    wanted = top_p * weights.sum(1, keepdim=True)
    highest, words = weights.topk(size, 1)  # (N, size), descending
    if bool((highest.sum(1, keepdim=True) < wanted).any()):  # some nucleus is larger
        highest, words = weights.sort(1, descending=True)
    before = highest.cumsum(1) - highest
    chosen = inverse_cdf(highest.masked_fill(before >= wanted, 0), uniforms)
    return words.gather(1, chosen[:, None]).squeeze(1)


def inverse_cdf(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Draw from unnormalised weights ``(N, V)`` by one uniform number a row, ``(N,)``.

    First the block of words, then the word in its block: two short cumulative sums in place
    of one over the whole vocabulary, and no exponential per word as in
    ``torch.multinomial``.
    """
    rest = -weights.shape[1] % BLOCK
    padded = F.pad(weights, (0, rest)) if rest else weights
    blocks = padded.view(len(weights), -1, BLOCK)
    sums = blocks.sum(2).cumsum(1)  # (N, V / BLOCK)
    target = uniforms[:, None] * sums[:, -1:]
    block = torch.searchsorted(sums, target, right=True).clamp(max=sums.shape[1] - 1)  # (N, 1)
    below = torch.where(block > 0, sums.gather(1, (block - 1).clamp(min=0)), 0)
    inside = _pick_block(blocks, block.squeeze(1))
    within = torch.searchsorted(inside.cumsum(1), target - below, right=True)
    # rounding may carry the search past the last word that has any weight
    last = BLOCK - 1 - (inside > 0).flip(1).to(torch.uint8).argmax(1, keepdim=True)
    return (block * BLOCK + torch.minimum(within, last)).squeeze(1)


def _pick_block(blocks: Tensor, block: Tensor) -> Tensor:
    """Of every row of ``(N, V / BLOCK, BLOCK)`` the block asked for, ``(N, BLOCK)``."""
    return blocks[torch.arange(len(blocks), device=blocks.device), block]
