"""One latent variable of a model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uncollapse.config import LatentConfig, MixtureConfig
from uncollapse.distributions.base import Distribution
from uncollapse.distributions.exponential import FiniteFamily
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.distributions.point import Point
from uncollapse.encoders import Encoded
from uncollapse.encoders.context import Condition
from uncollapse.latents.discrete import unit_log_probs
from uncollapse.latents.divergences import build_divergence
from uncollapse.latents.divergences.kl import kl_per_dimension
from uncollapse.latents.inference import Inference
from uncollapse.latents.posteriors import build_posterior
from uncollapse.latents.posteriors.family import FamilyPosterior, head
from uncollapse.latents.priors import Mixture, Prior, build_prior
from uncollapse.precision import widened
from uncollapse.readouts import KINDS as READOUTS

COMPONENT = ".component"  # after the name of a latent under a mixture: that of its components


class Latent(nn.Module):
    """z: read from the encoder, drawn, and held against its prior.

    Parameters
    ----------
    config : LatentConfig
        The pieces.
    encoder_dim : int
        Width of the encoder's states, H.
    condition_dim : int
        Width of a context's vector, C; 0 without contexts.
    posterior_sees_context : bool
        Whether q(z|x, context) or, like an unconditional model's, q(z|x).

    Attributes
    ----------
    is_conditional : bool
        Whether its model reads contexts.
    """

    def __init__(
        self,
        config: LatentConfig,
        encoder_dim: int,
        condition_dim: int = 0,
        posterior_sees_context: bool = True,
    ) -> None:
        super().__init__()
        units = config.groups * config.dim
        self.is_conditional = condition_dim > 0
        self.posterior_sees_context = posterior_sees_context
        feature_dim = encoder_dim + (condition_dim if posterior_sees_context else 0)
        self.by_turn = config.readout == "turns"
        self.readout = READOUTS["last" if self.by_turn else config.readout]
        self.combine = COMBINE[config.combine]
        self.posterior = build_posterior(config.posterior, feature_dim, units)
        self.dim = units * self.posterior.width
        self.prior = build_prior(config, condition_dim)
        self.divergence = build_divergence(config.divergence, feature_dim, self.dim, condition_dim)
        self.classifier = None  # q(c|x), where the prior has components
        if isinstance(config.prior, MixtureConfig):
            size = config.groups * config.prior.components
            self.classifier = head(feature_dim, size, config.prior.hidden, encoder_dim)
            self.groups = config.groups

    @property
    def has_density(self) -> bool:
        """Whether q(z|x) and the prior have one: without, the KL is unknown."""
        return self.posterior.has_density and self.prior.has_density

    @property
    def is_random(self) -> bool:
        """Whether z is random given x: otherwise there is no likelihood."""
        return self.posterior.is_random

    @property
    def is_discrete(self) -> bool:
        """Whether z is a code."""
        return isinstance(self.posterior, FamilyPosterior) and self.posterior.family.is_discrete

    @property
    def is_charged(self) -> bool:
        """Whether the objective charges its divergence: an autoencoder's has no KL."""
        return self.has_density or not self.divergence.needs_density

    def infer(self, encoded: Encoded, condition: Condition | None = None) -> Inference:
        """The posterior of every sentence of a batch, given its context if there is any."""
        # under automatic mixed precision the states are bf16; densities are not
        with torch.autocast(encoded.states.device.type, enabled=False):
            features = widened(self.readout(encoded))
            prior = self.prior.given(condition)
            if self.by_turn:
                return self._infer_by_turn(features, prior, condition)
            if condition is not None and self.posterior_sees_context:
                vector = widened(condition.vector)
                if features.dim() == 3:
                    vector = vector[:, None].expand(-1, features.shape[1], -1)
                features = torch.cat([features, vector], -1)
            if features.dim() == 2:  # (B, H + C)
                found = Inference(self.posterior(features), features, prior, condition)
                if self.classifier is not None:
                    logits = self.classifier(features).unflatten(-1, (self.groups, -1))
                    found.log_weights = logits.log_softmax(-1)  # (B, M, K)
                return found
            steps = self.posterior(features, encoded.mask)  # (B, T, D)
            last = features[_last_step(encoded.mask)]  # (B, H + C)
            combined = self.combine(steps, encoded.mask)
            return Inference(combined, last, prior, condition, steps, mask=encoded.mask)

    def _infer_by_turn(
        self, features: Tensor, prior: Prior, condition: Condition | None
    ) -> Inference:
        """A posterior after every turn of the context; z is that after the last one."""
        assert condition is not None
        vectors, mask = condition.turns()  # (B, U, C), (B, U)
        read = features[:, None].expand(-1, vectors.shape[1], -1)
        features = torch.cat([read, widened(vectors)], -1)  # (B, U, H + C)
        steps = self.posterior(features, mask)  # (B, U, D)
        last = _last_step(mask)
        step_prior = self.prior.given_turns(condition)
        return Inference(steps[last], features[last], prior, condition, steps, step_prior, mask)

    def variables(self, name: str, inference: Inference) -> dict[str, Tensor]:
        """Log-probabilities of the values of the discrete variables, ``{name: (B, M, K)}``.

        The units of a discrete latent go by the latent's ``name``, the components of a
        mixture by ``NAME.component``.
        """
        found: dict[str, Tensor] = {}
        units = unit_log_probs(inference.posterior)
        if units is not None:
            found[name] = units
        if inference.log_weights is not None:
            found[f"{name}{COMPONENT}"] = inference.log_weights
        return found

    def variable_sizes(self, name: str) -> dict[str, tuple[int, int]]:
        """How many indexes M with how many values K each of `variables` has."""
        sizes: dict[str, tuple[int, int]] = {}
        if isinstance(self.posterior, FamilyPosterior):
            family = self.posterior.family
            if isinstance(family, FiniteFamily):
                sizes[name] = (self.dim // family.width, len(family.values()))
        if isinstance(self.prior, Mixture):
            sizes[f"{name}{COMPONENT}"] = self.prior.code_sizes
        return sizes

    def drawn_variable(self, name: str) -> str:
        """The variable whose values a draw from the prior can be given."""
        return f"{name}{COMPONENT}" if isinstance(self.prior, Mixture) else name

    def penalty(self, inference: Inference) -> Tensor:
        """What the objective charges, nats per sentence, ``(B,)``."""
        return self.divergence(inference)

    def kl(self, inference: Inference) -> Tensor:
        """KL(q ‖ p) of the z that the decoder sees, per dimension, ``(B, D)`` or ``(B, 1)``."""
        return kl_per_dimension(inference)


def _last_step(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the last real step of every sentence."""
    return torch.arange(mask.shape[0], device=mask.device), mask.sum(1) - 1


def _last(steps: Distribution, mask: Tensor) -> Distribution:
    return steps[_last_step(mask)]


def _sum(steps: Distribution, mask: Tensor) -> Distribution:
    """The sum of independent Gaussians is one: means and variances add."""
    padding = ~mask[:, :, None]
    mean = steps.mean.masked_fill(padding, 0).sum(1)  # (B, D)
    if isinstance(steps, Point):
        return Point(mean)
    assert isinstance(steps, DiagonalGaussian)
    log_variance = steps.log_variance.masked_fill(padding, -torch.inf).logsumexp(1)
    return DiagonalGaussian(mean, log_variance)


def _mean(steps: Distribution, mask: Tensor) -> Distribution:
    total = _sum(steps, mask)
    length = mask.sum(1, keepdim=True).to(total.mean.dtype)  # (B, 1)
    if isinstance(total, DiagonalGaussian):
        return DiagonalGaussian(total.mean / length, total.log_variance - 2 * length.log())
    return Point(total.mean / length)


COMBINE = {"last": _last, "mean": _mean, "sum": _sum}
