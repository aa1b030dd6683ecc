"""Other posteriors and priors of the plain VAE: every step, the sphere, mixtures."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import ive
from torch import Tensor, nn

from plain.vae import PlainVAE
from uncollapse.config import DispersedConfig, MixtureConfig, Recipe, VonMisesFisherConfig
from uncollapse.data.batches import Batch
from uncollapse.data.tokenizer import PAD


class PlainTWR(PlainVAE):
    """A posterior at every step, all charged; z is that of the last (TWR-VAE)."""

    def infer(self, batch: Batch) -> dict[str, Tensor]:
        """Of every step, ``(B, T, D)`` each, and of the last, ``(B, D)`` each."""
        embedded = self.encoder_dropout(self.encoder_embedding(batch.tokens))  # (B, T, E)
        states, _ = self.encoder(embedded)
        means, log_variances = self.to_posterior(states).chunk(2, -1)  # (B, T, D) each
        last = torch.arange(batch.size), batch.lengths - 1
        return {
            "mean": means[last],
            "log_variance": log_variances[last],
            "means": means,
            "log_variances": log_variances,
            "mask": batch.mask,
        }

    def divergence(self, found: dict[str, Tensor]) -> Tensor:
        """The mean over the real steps of each sentence, summed over sentences."""
        means, log_variances, mask = found["means"], found["log_variances"], found["mask"]
        kl = 0.5 * (means.square() + log_variances.exp() - log_variances - 1).sum(-1)  # (B, T)
        return ((kl * mask).sum(1) / mask.sum(1)).sum()


class PlainSphere(PlainVAE):
    """A von Mises–Fisher posterior of fixed κ under the uniform prior on the sphere."""

    def __init__(self, recipe: Recipe, vocabulary_size: int) -> None:
        super().__init__(recipe, vocabulary_size)
        posterior = recipe.latents["z"].posterior
        assert isinstance(posterior, VonMisesFisherConfig)
        self.kappa = posterior.kappa
        self.to_posterior = nn.Linear(self.width, self.latent_dim, bias=False)

    def infer(self, batch: Batch) -> dict[str, Tensor]:
        """The direction, ``(B, D)``."""
        last = self.read(batch.tokens, batch.lengths)
        return {"mean": F.normalize(self.to_posterior(last), dim=-1)}

    @torch.no_grad()
    def sample(self, found: dict[str, Tensor], count: int, random: np.random.Generator) -> Tensor:
        """Draw ``(S, D)`` float64 for one sentence, by Wood's rejection (1994)."""
        direction = found["mean"][0].double().numpy()
        size, kappa = self.latent_dim, self.kappa
        b = (size - 1) / (2 * kappa + math.sqrt(4 * kappa**2 + (size - 1) ** 2))
        x = (1 - b) / (1 + b)
        c = kappa * x + (size - 1) * math.log(1 - x**2)
        cosines: list[float] = []
        while len(cosines) < count:
            epsilon = random.beta((size - 1) / 2, (size - 1) / 2)
            w = (1 - (1 + b) * epsilon) / (1 - (1 - b) * epsilon)
            judged = kappa * w + (size - 1) * math.log(1 - x * w) - c
            if judged >= math.log(random.random()):
                cosines.append(w)
        cosine = np.array(cosines)[:, None]
        tangent = random.standard_normal((count, size))
        tangent -= (tangent @ direction)[:, None] * direction
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
        return torch.from_numpy(cosine * direction + np.sqrt(1 - cosine**2) * tangent)

    def log_ratio(self, found: dict[str, Tensor], z: Tensor) -> Tensor:
        """log p(z)/q(z|x), ``(S,)``, float64."""
        order, kappa = self.latent_dim / 2 - 1, self.kappa
        log_bessel = math.log(ive(order, kappa)) + kappa
        log_constant = order * math.log(kappa) - (order + 1) * math.log(2 * math.pi) - log_bessel
        log_area = math.log(2) + (order + 1) * math.log(math.pi) - math.lgamma(order + 1)
        return -log_area - log_constant - kappa * (z.double() @ found["mean"][0].double())


class PlainMixture(PlainVAE):
    """Groups of Gaussian mixtures as the prior, their dispersion charged in part (DEM-VAE).

    Trains as the official code does: a whole pass of the decoder for every posterior sample,
    and the log-softmax of all words of each kept for the gradient.
    """

    names: ClassVar[dict[str, str]] = {
        **PlainVAE.names,
        "classifier.0": "latents.z.classifier.0",
        "classifier.2": "latents.z.classifier.2",
        "": "latents.z.prior",
    }

    def __init__(self, recipe: Recipe, vocabulary_size: int) -> None:
        super().__init__(recipe, vocabulary_size)
        latent = recipe.latents["z"]
        assert isinstance(latent.prior, MixtureConfig)
        assert isinstance(latent.divergence, DispersedConfig)
        self.groups, self.components = latent.groups, latent.prior.components
        self.charged = 1 - latent.divergence.beta
        self.samples = recipe.objective.samples
        self.classifier = nn.Sequential(
            nn.Linear(self.width, self.width),
            nn.ReLU(),
            nn.Linear(self.width, self.groups * self.components),
        )
        # mean and log-variance of every component
        self.free = nn.Parameter(torch.randn(self.groups, latent.dim, self.components, 2))

    def infer(self, batch: Batch) -> dict[str, Tensor]:
        """Mean and log-variance ``(B, D)`` of q(z|x), and log q(c|x) ``(B, M, K)``."""
        last = self.read(batch.tokens, batch.lengths)
        mean, log_variance = self.to_posterior(last).chunk(2, -1)
        logits = self.classifier(last).unflatten(-1, (self.groups, self.components))
        return {
            "mean": mean,
            "log_variance": log_variance,
            "log_weights": logits.log_softmax(-1),
        }

    def divergence(self, found: dict[str, Tensor]) -> Tensor:
        """KL of c, KL of z to the averaged component, and the charged share of dispersion."""
        log_weights = found["log_weights"]
        weights = log_weights.exp()  # (B, M, K)
        component = (weights * (log_weights + math.log(self.components))).sum()
        precision = (-self.free[..., 1]).exp()  # (M, U, K)
        first, second = self.free[..., 0] * precision, -0.5 * precision
        log_partition = -first.square() / (4 * second) - 0.5 * (-2 * second).log()
        # the component of averaged natural parameters
        first = torch.einsum("bmk,muk->bmu", weights, first)
        second = torch.einsum("bmk,muk->bmu", weights, second)
        average = -first.square() / (4 * second) - 0.5 * (-2 * second).log()
        dispersion = (torch.einsum("bmk,muk->bmu", weights, log_partition) - average).sum()
        variance, mean = -0.5 / second, -0.5 * first / second  # (B, M, U)
        own_mean = found["mean"].view_as(mean)
        own_log_variance = found["log_variance"].view_as(mean)
        distance = ((own_mean - mean).square() + own_log_variance.exp()) / variance
        kl = 0.5 * (distance - 1 - own_log_variance + variance.log()).sum()
        return component + kl + self.charged * dispersion

    def loss(self, batch: Batch) -> Tensor:
        """The objective, mean over the batch; the reconstruction is a mean over samples."""
        found = self.infer(batch)
        reconstruction = torch.zeros(())
        for _ in range(self.samples):
            z = self.draw(found, torch.randn(batch.size, self.latent_dim))
            log_probs = self.predict(batch.inputs, z, found).log_softmax(-1)
            reconstruction = reconstruction + F.nll_loss(
                log_probs.flatten(0, 1),
                batch.targets.flatten(),
                ignore_index=PAD,
                reduction="sum",
            )
        return (reconstruction / self.samples + self.divergence(found)) / batch.size

    def log_ratio(self, found: dict[str, Tensor], z: Tensor) -> Tensor:
        """log p(z)/q(z|x), ``(S,)``, float64; components are summed over."""
        z = z.double()
        mean, log_variance = self.free.detach().double().unbind(-1)  # (M, U, K) each
        value = z.view(len(z), *mean.shape[:2], 1)  # (S, M, U, 1)
        distance = (value - mean).square() / log_variance.exp()
        by_component = -0.5 * (distance + log_variance + math.log(2 * math.pi)).sum(2)
        prior = (by_component.logsumexp(-1) - math.log(self.components)).sum(1)
        own_mean, own = found["mean"].double(), found["log_variance"].double()
        density = (z - own_mean).square() / own.exp() + own + math.log(2 * math.pi)
        return prior + 0.5 * density.sum(1)
