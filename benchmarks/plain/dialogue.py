"""The conditional VAE of dialogue responses: a hierarchical encoder and a learned prior."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from plain.vae import PlainVAE, State
from uncollapse.config import ConditionalGaussianConfig, Recipe
from uncollapse.data.batches import Batch


class PlainCVAE(PlainVAE):
    """p(z|context) and q(z|x, context); both begin at GRU states of turns (Zhao et al. 2017)."""

    names: ClassVar[dict[str, str]] = {
        **PlainVAE.names,
        "context": "context.cell",
        "context_to_state": "decoder.context_to_state",
        "prior.0": "latents.z.prior.network.0",
        "prior.2": "latents.z.prior.network.2",
    }

    def __init__(self, recipe: Recipe, vocabulary_size: int) -> None:
        super().__init__(recipe, vocabulary_size)
        condition, prior = recipe.condition, recipe.latents["z"].prior
        assert condition is not None
        assert isinstance(prior, ConditionalGaussianConfig)
        # two more inputs tell whether the turn is the responder's
        self.context = nn.GRU(self.width + 2, condition.hidden_dim, batch_first=True)
        self.to_posterior = nn.Linear(
            self.width + condition.hidden_dim, 2 * self.latent_dim, bias=False
        )
        self.prior = nn.Sequential(
            nn.Linear(condition.hidden_dim, prior.hidden_dim),
            nn.Tanh(),
            nn.Linear(prior.hidden_dim, 2 * self.latent_dim),
        )
        width = recipe.decoder.hidden_dim
        self.context_to_state = nn.Linear(condition.hidden_dim, width, bias=False)

    def read_context(self, batch: Batch) -> Tensor:
        """The state after all turns, ``(B, C)``; 0 where there is none."""
        context = batch.context
        vector = torch.zeros(batch.size, self.context.hidden_size)
        if context is None or not context.mask.any():
            return vector
        mask = context.mask  # (B, U)
        # every turn of every context, as a data loader would give them
        turns = context.rows[mask]
        lengths = context.lengths[turns]
        read = self.read(context.tokens[turns, : int(lengths.max())], lengths)  # (N, H)
        same = context.same_speaker[mask]
        floor = torch.stack([same == 1, same == 0], -1).to(read)
        inputs = read.new_zeros(*mask.shape, self.width + 2)  # (B, U, H + 2)
        inputs[mask] = torch.cat([read, floor], -1)
        counts = mask.sum(1)
        some = counts > 0
        packed = pack_padded_sequence(
            inputs[some], counts[some].cpu(), batch_first=True, enforce_sorted=False
        )
        vector[some] = self.context(packed)[1][0]
        return vector

    def infer(self, batch: Batch) -> dict[str, Tensor]:
        """Posterior and prior, ``(B, D)`` each, and the context, ``(B, C)``."""
        context = self.read_context(batch)
        last = self.read(batch.tokens, batch.lengths)
        mean, log_variance = self.to_posterior(torch.cat([last, context], -1)).chunk(2, -1)
        there = torch.zeros(batch.size, 1)
        if batch.context is not None and batch.context.mask.numel():
            there = batch.context.mask.any(1, keepdim=True).float()
        prior_mean, prior_log_variance = (self.prior(context) * there).chunk(2, -1)
        return {
            "mean": mean,
            "log_variance": log_variance,
            "prior_mean": prior_mean,
            "prior_log_variance": prior_log_variance,
            "context": context,
        }

    def divergence(self, found: dict[str, Tensor]) -> Tensor:
        """KL(q(z|x, context) ‖ p(z|context)) of all responses together."""
        mean, log_variance = found["mean"], found["log_variance"]
        prior_mean, prior = found["prior_mean"], found["prior_log_variance"]
        distance = ((mean - prior_mean).square() + log_variance.exp()) / prior.exp()
        return 0.5 * (distance - 1 - log_variance + prior).sum()

    def log_ratio(self, found: dict[str, Tensor], z: Tensor) -> Tensor:
        """log p(z|context)/q(z|x, context), ``(S,)``, float64."""
        wide = {name: part.double() for name, part in found.items()}
        z = z.double()
        own, prior = wide["log_variance"], wide["prior_log_variance"]
        distance = (z - wide["mean"]).square() / own.exp() + own
        from_prior = (z - wide["prior_mean"]).square() / prior.exp() + prior
        return 0.5 * (distance - from_prior).sum(1)

    def initial_state(self, z: Tensor, found: dict[str, Tensor] | None = None) -> State:
        """Of the decoder, ``(1, B, H)``."""
        assert found is not None
        return (self.to_state(z) + self.context_to_state(found["context"]))[None]
