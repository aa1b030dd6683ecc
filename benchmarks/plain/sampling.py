"""Sampling as it is written first: a word at a time, all rows until the last is done."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from plain.prefixes import PlainCNN, PlainTransformer
from plain.vae import PlainVAE
from uncollapse.data.tokenizer import BOS, EOS

Method = Literal["ancestral", "greedy", "nucleus"]
TOP_P = 0.9


def choose(logits: Tensor, method: Method) -> Tensor:
    """One word a row of logits ``(N, V)``, ``(N, 1)``."""
    if method == "greedy":
        return logits.argmax(-1, keepdim=True)
    probabilities = logits.softmax(-1)
    if method == "ancestral":
        return torch.multinomial(probabilities, 1)
    ordered, words = probabilities.sort(-1, descending=True)
    outside = ordered.cumsum(-1) - ordered >= TOP_P
    chosen = torch.multinomial(ordered.masked_fill(outside, 0), 1)
    return words.gather(1, chosen)


@torch.no_grad()
def write(
    model: PlainVAE, z: Tensor, max_length: int, method: Method, *, drop_finished: bool = False
) -> list[list[int]]:
    """One sentence a row of ``z`` ``(N, D)``, without ``<s>`` and ``</s>``.

    Parameters
    ----------
    drop_finished : bool
        Whether rows leave the batch at ``</s>``. Otherwise all go on until the last is done.
    """
    written: list[list[int]] = [[] for _ in z]
    rows = torch.arange(len(z))
    going = torch.ones(len(z), dtype=torch.bool)
    words = torch.full((len(z), 1), BOS)
    state = model.initial_state(z)
    for _ in range(max_length):
        logits, state = model.logits(words, z[rows], state)
        words = choose(logits[:, 0], method)
        going &= words[:, 0] != EOS
        for row, word, goes in zip(
            rows.tolist(), words[:, 0].tolist(), going.tolist(), strict=True
        ):
            if goes:
                written[row].append(word)
        if not going.any():
            break
        if drop_finished:
            rows, words = rows[going], words[going]
            parts = state if isinstance(state, tuple) else (state,)
            kept = tuple(part[:, going] for part in parts)
            state = (kept[0], kept[1]) if isinstance(state, tuple) else kept[0]
            going = going[going]
    return written


@torch.no_grad()
def write_by_prefix(
    model: PlainCNN | PlainTransformer, z: Tensor, max_length: int, method: Method
) -> list[list[int]]:
    """The same with a decoder that keeps nothing: every step reads the whole prefix anew."""
    words = torch.full((len(z), 1), BOS)
    going = torch.ones(len(z), dtype=torch.bool)
    for _ in range(max_length):
        logits = model.output(model.states(words, z)[:, -1])
        new = choose(logits, method)
        words = torch.cat([words, new], 1)
        going &= new[:, 0] != EOS
        if not going.any():
            break
    found = words[:, 1:].tolist()
    return [row[: row.index(EOS)] if EOS in row else row for row in found]
