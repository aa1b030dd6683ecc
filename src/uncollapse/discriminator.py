"""The discriminator: whether a response in its context is real or sampled."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uncollapse.config import DiscriminatorConfig
from uncollapse.data.batches import Batch
from uncollapse.encoders import build_encoder

RESPONSES = 1024  # that are judged at once


class Discriminator(nn.Module):
    """D(context, response), the probability that a person wrote the response.

    References
    ----------
    Yu et al. 2017, "SeqGAN: Sequence Generative Adversarial Nets with Policy Gradient"; Li et
    al. 2017, "Adversarial Learning for Neural Dialogue Generation" (given a context).

    Parameters
    ----------
    config : DiscriminatorConfig
    vocabulary_size : int
        V.
    context_dim : int
        C, the width of a context's vector; 0 for a model that knows no contexts.
    """

    def __init__(
        self, config: DiscriminatorConfig, vocabulary_size: int, context_dim: int = 0
    ) -> None:
        super().__init__()
        self.critic = config.critic
        self.encoder = build_encoder(config.encoder, vocabulary_size)
        self.judge = nn.Sequential(
            nn.Linear(self.encoder.output_dim + context_dim, config.hidden_dim),
            nn.Tanh(),
            nn.Linear(config.hidden_dim, 1),
        )

    def forward(self, responses: Batch, vector: Tensor | None = None) -> Tensor:
        """The logit of D of every response, ``(B,)``.

        Parameters
        ----------
        responses : Batch
        vector : Tensor, optional
            ``(B, C)``: their contexts, which get no gradient.
        """
        summary = self.encoder(responses).summary  # (B, H)
        with torch.autocast(summary.device.type, enabled=False):
            parts = [summary.float() if summary.dtype.itemsize < 4 else summary]
            if vector is not None:
                parts.append(vector.detach().to(parts[0]))
            return self.judge(torch.cat(parts, -1)).squeeze(-1)

    def loss(self, real: Batch, sampled: Batch, vector: Tensor | None = None) -> Tensor:
        """−log D(real) − log(1 − D(sampled)), ``(B,)`` nats; 2 ln 2 is knowing nothing."""
        return F.softplus(-self(real, vector)) + F.softplus(self(sampled, vector))

    @torch.no_grad()
    def probability(self, responses: Batch, vector: Tensor | None = None) -> Tensor:
        """D of every response, ``(B,)``, dropout off; arguments as above."""
        training = self.training
        self.eval()
        found = next(self.parameters()).new_empty(responses.size)
        # those of similar length together: little is padded
        for rows in responses.lengths.argsort().split(RESPONSES):
            tokens, lengths = responses.tokens[rows], responses.lengths[rows]
            part = Batch(tokens[:, : int(lengths[-1])], lengths, rows, {}, responses.total)
            logits = self(part, None if vector is None else vector[rows])
            found[rows] = logits.sigmoid()
        self.train(training)
        return found
