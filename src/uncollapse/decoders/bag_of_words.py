"""The words of a sentence without their order, from z and the context."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uncollapse.config import BagOfWordsConfig
from uncollapse.data.batches import Batch
from uncollapse.decoders.token_loss import token_nll
from uncollapse.encoders.context import Condition


class BagOfWords(nn.Module):
    """−Σ_t log p(w_t|z, context), one distribution for all words of a sentence.

    References
    ----------
    Zhao et al. 2017, "Learning Discourse-level Diversity for Neural Dialog Models using
    Conditional Variational Autoencoders", eq. 7.

    Parameters
    ----------
    config : BagOfWordsConfig
    latent_dim, context_dim, vocabulary_size : int
        D, C and V.
    """

    def __init__(
        self, config: BagOfWordsConfig, latent_dim: int, context_dim: int, vocabulary_size: int
    ) -> None:
        super().__init__()
        self.context_dim = context_dim
        self.hidden = nn.Linear(latent_dim + context_dim, config.hidden_dim)
        self.output = nn.Linear(config.hidden_dim, vocabulary_size, bias=False)

    def forward(self, z: Tensor, batch: Batch, condition: Condition | None) -> Tensor:
        """Nats per sentence, ``(B,)``; ``</s>`` is a word, as in the decoder's likelihood."""
        context = z.new_zeros(len(z), self.context_dim)
        if condition is not None:
            context = condition.vector.to(z.dtype)
        hidden = self.hidden(torch.cat([z, context], -1)).tanh()  # (B, H)
        mask = batch.target_mask
        rows = mask.nonzero()[:, 0]  # the sentence of each word
        nll = token_nll(hidden[rows], self.output.weight, batch.targets[mask])
        return nll.new_zeros(mask.shape).masked_scatter(mask, nll).sum(1)
