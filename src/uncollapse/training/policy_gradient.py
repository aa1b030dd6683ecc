"""The policy gradient of a decoder: sentences that are rewarded become more probable.

References
----------
Williams 1992, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
Learning" (REINFORCE); Yu et al. 2017, "SeqGAN: Sequence Generative Adversarial Nets with Policy
Gradient", eqs. 4–8 (roll-outs).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from uncollapse.data.batches import Batch
from uncollapse.data.tokenizer import BOS, EOS, PAD
from uncollapse.decoders.base import Decoder
from uncollapse.decoders.rollouts import Rollouts, as_responses
from uncollapse.decoders.token_loss import token_nll
from uncollapse.encoders.context import Condition

Reward = Callable[[Batch, Tensor], Tensor]  # of sentences (N), in the contexts of rows (N,)


def action_values(found: Rollouts, reward: Reward) -> Tensor:
    """Q_t of every token that was drawn, ``(B, T)``, 0 at padding and without roll-outs.

    The last token of a response has the reward of the response itself, each other one the mean
    over the roll-outs of what begins with it.
    """
    rows, steps = found.tokens.shape
    owners = torch.arange(rows, device=found.tokens.device)
    texts = as_responses(torch.cat([found.tokens, found.completions]))
    rewards = reward(texts, torch.cat([owners, found.parent]))  # (B + K,)
    own, others = rewards[:rows], rewards[rows:]
    place = found.parent * steps + found.prefix - 1  # (K,)
    total = others.new_zeros(rows * steps).index_add_(0, place, others)
    count = others.new_zeros(rows * steps).index_add_(0, place, torch.ones_like(others))
    values = (total / count.clamp(min=1)).view(rows, steps)
    last = found.mask.sum(1, keepdim=True) - 1  # (B, 1)
    return values.scatter(1, last, own[:, None])


def above_the_others(values: Tensor, mask: Tensor) -> Tensor:
    """Q_t − b_t, ``(B, T)``: b_t is a mean over the other responses that have a t-th token.

    One that counts the response itself would shrink the gradient by its share.
    """
    values = values.masked_fill(~mask, 0)
    others = mask.sum(0) - mask.long()  # (B, T)
    baseline = (values.sum(0) - values) / others.clamp(min=1)
    return (values - baseline).masked_fill(~mask, 0)


def reinforce(
    decoder: Decoder,
    z: Tensor | None,
    condition: Condition | None,
    tokens: Tensor,
    advantages: Tensor,
) -> Tensor:
    """−Σ_t (Q_t − b_t) log p(w_t|w_<t, z, context), ``(B,)``, p as it is sampled from.

    Parameters
    ----------
    decoder : Decoder
        Without dropout.
    z, condition
        What the responses were sampled from.
    tokens, advantages : Tensor
        ``(B, T)``: the responses, padded, and Q_t − b_t of their tokens.
    """
    mask = tokens != PAD
    inputs = torch.cat([torch.full_like(tokens[:, :1], BOS), tokens[:, :-1]], 1)
    states = decoder.states(z, inputs, condition)  # (B, T, H)
    # neither <pad> nor <s> is ever drawn
    weight = decoder.output.weight
    drawable = torch.cat([weight[PAD + 1 : BOS], weight[EOS:]])  # (V - 2, H)
    targets = tokens[mask]
    targets = targets - 1 - (targets > BOS).long()
    nll = token_nll(states[mask], drawable, targets)
    return nll.new_zeros(mask.shape).masked_scatter(mask, nll * advantages[mask]).sum(1)
