"""Sentences from z: greedy, ancestral, tempered or nucleus sampling, many rows at once."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from uncollapse.data.tokenizer import BOS, EOS, PAD
from uncollapse.decoders.recurrent import RecurrentDecoder
from uncollapse.errors import UserError

Method = Literal["greedy", "sample"]
BLOCK = 128  # words per block of the inverse-CDF search
NUCLEUS_GUESS = 256  # words among which a nucleus is looked for first


@torch.no_grad()
def generate(
    decoder: RecurrentDecoder,
    z: Tensor | None,
    *,
    rows: int | None = None,
    method: Method = "greedy",
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_length: int = 100,
    generator: torch.Generator | None = None,
    batch_size: int = 512,
) -> list[list[int]]:
    """Write one sentence for every z.

    Parameters
    ----------
    decoder : RecurrentDecoder
        In evaluation mode.
    z : Tensor, optional
        ``(N, D)``; None for a language model, which needs ``rows``.
    rows : int, optional
        How many sentences a language model writes.
    method : {"greedy", "sample"}
        The most probable word at every step, or a draw.
    temperature : float
        Divides the logits before a draw.
    top_p : float
        Draw from the smallest set of words whose probability reaches ``top_p``.
    max_length : int
        Words after which a sentence is cut.
    generator : torch.Generator, optional
        On the CPU. One uniform number a word; a row's numbers do not depend on the others.

    Returns
    -------
    list of list of int
        Token ids, without ``<s>`` and ``</s>``.

    Raises
    ------
    UserError
        For a temperature, ``top_p`` or length out of range.
    """
    if temperature <= 0:
        raise UserError(f"temperature must be above 0, not {temperature}")
    if not 0 < top_p <= 1:
        raise UserError(f"top_p must be in (0, 1], not {top_p}")
    if max_length < 1:
        raise UserError(f"max_length must be at least 1, not {max_length}")
    count = len(z) if z is not None else rows
    assert count is not None, "a language model must be told how many sentences to write"
    vocabulary = torch.arange(decoder.output.out_features, device=decoder.output.weight.device)
    table = decoder.project_words(vocabulary)  # (V, G)
    written: list[list[int]] = []
    for begin in range(0, count, batch_size):
        size = min(batch_size, count - begin)
        part = None if z is None else z[begin : begin + size].to(table)
        uniforms = None
        if method == "sample":
            uniforms = torch.rand(size, max_length, generator=generator).to(table.device)
        tokens = _write(decoder, part, size, table, uniforms, temperature, top_p, max_length)
        written += [_until_end(row) for row in tokens.tolist()]
    return written


def _write(
    decoder: RecurrentDecoder,
    z: Tensor | None,
    rows: int,
    table: Tensor,
    uniforms: Tensor | None,
    temperature: float,
    top_p: float,
    max_length: int,
) -> Tensor:
    device = table.device
    tokens = torch.full((rows, max_length), EOS, device=device)
    active = torch.arange(rows, device=device)
    state = decoder.start(z, rows)
    words = torch.full((rows,), BOS, device=device)
    for step in range(max_length):
        state = decoder.step(table[words], state)
        logits = decoder.output(state.hidden)  # (N, V)
        logits[:, [PAD, BOS]] = -torch.inf  # never targets in training
        if uniforms is None:
            words = logits.argmax(1)
        else:
            words = _draw(logits, uniforms[active, step], temperature, top_p)
        tokens[active, step] = words
        going = words != EOS
        if not going.all():  # finished rows cost nothing more
            active, words, state = active[going], words[going], state.select(going)
            if len(active) == 0:
                break
    return tokens


def _until_end(tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(EOS)] if EOS in tokens else tokens


def _draw(logits: Tensor, uniforms: Tensor, temperature: float, top_p: float) -> Tensor:
    """One word a row by inversion of the distribution function, ``(N,)``."""
    logits = logits.float()
    weights = logits.sub_(logits.amax(1, keepdim=True)).div_(temperature).exp_()  # (N, V)
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
    rows, size = weights.shape
    padded = torch.nn.functional.pad(weights, (0, -size % BLOCK)).view(rows, -1, BLOCK)
    sums = padded.sum(2).cumsum(1)  # (N, V / BLOCK)
    target = uniforms[:, None] * sums[:, -1:]
    block = torch.searchsorted(sums, target, right=True).clamp(max=sums.shape[1] - 1)  # (N, 1)
    below = torch.where(block > 0, sums.gather(1, (block - 1).clamp(min=0)), 0)
    inside = padded.gather(1, block[:, :, None].expand(-1, -1, BLOCK)).squeeze(1)
    within = torch.searchsorted(inside.cumsum(1), target - below, right=True)
    # rounding may carry the search past the last word that has any weight
    last = BLOCK - 1 - (inside > 0).flip(1).to(torch.uint8).argmax(1, keepdim=True)
    return (block * BLOCK + torch.minimum(within, last)).squeeze(1)
