"""Sampled sentences, and samples of how each of their beginnings might have gone on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uncollapse.data.batches import Batch
from uncollapse.data.tokenizer import BOS, EOS, PAD
from uncollapse.decoders.base import Decoder
from uncollapse.decoders.vocabulary import VocabularyRows
from uncollapse.encoders.context import Condition


@dataclass
class Rollouts:
    """B sampled sentences, and K others, each of which starts as one of them does.

    Parameters
    ----------
    tokens : Tensor
        ``(B, T)``: words, then ``</s>`` unless the sentence was cut, then padding.
    completions : Tensor
        ``(K, T)``: the same of the others.
    parent, prefix : Tensor
        ``(K,)``: the sentence that each of the others starts as, and how many words of it.
    """

    tokens: Tensor
    completions: Tensor
    parent: Tensor
    prefix: Tensor

    @property
    def mask(self) -> Tensor:
        """``(B, T)``: which tokens were drawn."""
        return self.tokens != PAD


@torch.no_grad()
def sample_with_rollouts(
    decoder: Decoder,
    z: Tensor | None,
    rows: int,
    condition: Condition | None = None,
    *,
    rollouts: int,
    max_length: int,
) -> Rollouts:
    """Sample a sentence a row, and of each of its proper beginnings so many ways to go on.

    Everything advances together, a word at a time: a sentence that goes on after a word leaves
    copies of its state, which then draw words of their own. So no state is kept, and a step
    of the decoder serves all beginnings of all sentences. Random numbers are the global ones of
    PyTorch.

    Parameters
    ----------
    decoder : Decoder
        In evaluation mode.
    z : Tensor, optional
        ``(B, D)``; None for a model without a latent.
    rows : int
        B.
    condition : Condition, optional
        Of the B rows.
    rollouts : int
        Completions of every beginning; 0: only the sentences.
    max_length : int
        Words after which a sentence is cut; T is at most this.
    """
    softmax = VocabularyRows(decoder.output.weight)
    device = softmax.weight.device
    vocabulary = torch.arange(len(softmax.weight), device=device)
    projected = decoder.project_words(vocabulary)  # (V, G)
    state = decoder.start(z, rows, condition)
    tokens = torch.full((rows, max_length), PAD, device=device)  # (B + K, T)
    parent = active = torch.arange(rows, device=device)
    prefix = torch.zeros_like(parent)
    words = torch.full((rows,), BOS, device=device)
    for step in range(max_length):
        state = decoder.step(projected[words], state)
        words = softmax.draw(state.features, torch.rand(len(state.features), device=device))
        tokens[active, step] = words
        places = (words != EOS).nonzero().squeeze(1)
        if not len(places) or step + 1 == max_length:
            tokens = tokens[:, : step + 1]
            break
        going = active[places]
        if rollouts:
            beginning = going < rows
            copied = going[beginning].repeat(rollouts)  # (n,)
            places = torch.cat([places, places[beginning].repeat(rollouts)])
            copies = len(tokens) + torch.arange(len(copied), device=device)
            going = torch.cat([going, copies])
            tokens = torch.cat([tokens, tokens[copied]])
            parent = torch.cat([parent, copied])
            prefix = torch.cat([prefix, torch.full_like(copied, step + 1)])
        active, words, state = going, words[places], state.select(places)
    return Rollouts(tokens[:rows], tokens[rows:], parent[rows:], prefix[rows:])


def as_responses(tokens: Tensor) -> Batch:
    """Sampled ``tokens`` ``(B, T)`` as a batch ``<s> w1 … wn </s>``, cut ones ended too."""
    ended = (tokens == EOS).any(1)
    lengths = (tokens != PAD).sum(1) + 2 - ended.long()  # (B,)
    edges = tokens.new_full((2, len(tokens), 1), PAD)
    edges[0] = BOS
    padded = torch.cat([edges[0], tokens, edges[1]], 1)
    rows = torch.arange(len(tokens), device=tokens.device)
    padded[rows, lengths - 1] = EOS
    return Batch(padded[:, : int(lengths.max())], lengths, rows, {}, len(tokens))
