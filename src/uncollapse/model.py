"""The model: encoder → latents → decoder, and the terms that they give."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from uncollapse.config import Recipe
from uncollapse.data.batches import Batch
from uncollapse.decoders import build_decoder
from uncollapse.distributions.gaussian import DiagonalGaussian, concatenate
from uncollapse.encoders import build_encoder
from uncollapse.errors import UserError
from uncollapse.initialisation import initialise
from uncollapse.latents import Inference, Latent
from uncollapse.latents.posteriors.batch_norm import MeanBatchNorm


@dataclass
class Terms:
    """What one forward pass says of each sentence, in nats, unweighted.

    Parameters
    ----------
    reconstruction : Tensor
        ``(B,)``: log p(x|z) at one posterior sample.
    divergence : dict of str to Tensor
        ``{latent: (B,)}``: what the objective penalises, floors and step means applied.
    kl : dict of str to Tensor
        ``{latent: (B, D)}``: KL(q ‖ p) of the z that the decoder saw, per dimension.
    tokens : Tensor
        ``(B,)``: predicted tokens, words and ``</s>``.
    posteriors : dict of str to DiagonalGaussian
        ``{latent: (B, D)}``.
    """

    reconstruction: Tensor
    divergence: dict[str, Tensor]
    kl: dict[str, Tensor]
    tokens: Tensor
    posteriors: dict[str, DiagonalGaussian]

    @property
    def elbo(self) -> Tensor:
        """The evidence lower bound of every sentence, ``(B,)``."""
        return self.reconstruction - sum(kl.sum(-1) for kl in self.kl.values())


class Model(nn.Module):
    """Any system of the toolkit: the pieces that its recipe names, and nothing else.

    Parameters
    ----------
    recipe : Recipe
        The pieces.
    vocabulary_size : int
        V, specials included.
    """

    def __init__(self, recipe: Recipe, vocabulary_size: int) -> None:
        super().__init__()
        self.encoder = None
        latents: dict[str, Latent] = {}
        if recipe.encoder is not None:
            self.encoder = build_encoder(recipe.encoder, vocabulary_size)
            for name, config in recipe.latents.items():
                if hasattr(nn.ModuleDict(), name):  # PyTorch would refuse it with a traceback
                    raise UserError(f"latents: {name!r} is a name that PyTorch reserves")
                latents[name] = Latent(config, self.encoder.output_dim)
                initialise(latents[name], recipe.encoder.init_scale, None)
        self.latents = nn.ModuleDict(latents)
        self.latent_dim = sum(latent.dim for latent in latents.values())
        self.decoder = build_decoder(recipe.decoder, vocabulary_size, self.latent_dim)

    @property
    def has_density(self) -> bool:
        """Whether the model has a likelihood (an autoencoder has none)."""
        return all(latent.has_density for latent in self._latents().values())

    def forward(self, batch: Batch) -> Terms:
        """All terms of a batch, with one posterior sample a sentence."""
        found = self.infer(batch)
        posteriors = {name: inference.posterior for name, inference in found.items()}
        z = None
        if posteriors:
            z = torch.cat([posterior.rsample() for posterior in posteriors.values()], -1)  # (B, D)
        dense = {name: latent for name, latent in self._latents().items() if latent.has_density}
        return Terms(
            reconstruction=self.decoder.log_prob(z, batch),
            divergence={name: dense[name].penalty(found[name]) for name in dense},
            kl={name: dense[name].kl(found[name]) for name in dense},
            tokens=batch.lengths - 1,
            posteriors=posteriors,
        )

    def infer(self, batch: Batch) -> dict[str, Inference]:
        """What inference finds out about every latent."""
        if self.encoder is None:
            return {}
        encoded = self.encoder(batch)
        return {name: latent.infer(encoded) for name, latent in self._latents().items()}

    def posterior(self, batch: Batch) -> DiagonalGaussian | None:
        """q(z|x) of all latents together, ``(B, D)``; None for a language model."""
        found = [inference.posterior for inference in self.infer(batch).values()]
        return concatenate(found) if found else None

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z) of ``z`` ``(..., D)``, all latents together, ``(...)``."""
        latents = self._latents().values()
        parts = z.split([latent.dim for latent in latents], -1)
        pairs = zip(latents, parts, strict=True)
        return torch.stack([latent.prior.log_prob(part) for latent, part in pairs]).sum(0)

    def sample_prior(self, n: int, generator: torch.Generator | None = None) -> Tensor | None:
        """Draw z ``(n, D)`` of all latents from the prior; None for a language model."""
        parts = [latent.prior.sample(n, generator) for latent in self._latents().values()]
        return torch.cat(parts, -1) if parts else None

    @torch.no_grad()
    def recalibrate(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """Replace moving averages of batch norms by the statistics of a whole corpus.

        Moving averages lag behind the weights; with them, the variance of μ in evaluation
        would not be the one that training imposed. Nothing happens, and ``batches`` is not
        called, where no piece keeps such averages.
        """
        norms = [part for part in self.modules() if isinstance(part, MeanBatchNorm)]
        if not norms:
            return
        self.eval()
        for norm in norms:
            norm.start_recalibration()
        for batch in batches():
            self.infer(batch)
        for norm in norms:
            norm.finish_recalibration()

    def _latents(self) -> dict[str, Latent]:
        return {name: part for name, part in self.latents.items() if isinstance(part, Latent)}
