"""A prior that can be drawn from and has no density, given a context (DialogWAE)."""

from __future__ import annotations

from copy import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uncollapse.config import ConditionalImplicitConfig
from uncollapse.distributions.base import Distribution
from uncollapse.distributions.implicit import MEAN_DRAWS
from uncollapse.encoders.context import Condition
from uncollapse.latents.generators import generator, noise_network
from uncollapse.latents.priors.base import Prior, draw_codes

TEMPERATURE = 0.1  # of the Gumbel-softmax, the paper's
DEVIATION_DRAWS = 4096


class Noise(NamedTuple):
    """Mixtures of K Gaussians, one a row."""

    log_weights: Tensor  # (B, K)
    mean: Tensor  # (B, K, E)
    log_variance: Tensor  # (B, K, E)


class ConditionalImplicit(Prior):
    """z = G(ε), ε ~ Σ_k π_k(context) N(μ_k(context), diag σ_k²(context)).

    Without a context ε ~ N(0, I). In training, gradients reach π through straight-through
    Gumbel-softmax samples of the component; in evaluation components are drawn.

    References
    ----------
    Gu et al. 2019, "DialogWAE: Multimodal Response Generation with Conditional Wasserstein
    Auto-Encoder", sections 4.1 (one component) and 4.2 (DialogWAE-GMP).

    Parameters
    ----------
    config : ConditionalImplicitConfig
    condition_dim, dim : int
        C and D.
    """

    has_density = False
    noise: Noise | None = None  # once contexts are given

    def __init__(self, config: ConditionalImplicitConfig, condition_dim: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.components = config.components
        self.noise_dim = config.noise_dim or dim
        weights = self.components if self.components > 1 else 0  # a single one has none to learn
        outputs = weights + 2 * self.components * self.noise_dim
        self.network = noise_network(condition_dim, config.hidden_dim, outputs)
        self.generator = generator(self.noise_dim, config.hidden_dim, dim)

    @property
    def deviation(self) -> Tensor:
        """That without a context, ``(D,)``, of draws that are always the same."""
        alike = copy(self)
        alike.noise = None
        return alike.sample(DEVIATION_DRAWS, torch.Generator().manual_seed(0)).std(0)

    def given(self, condition: Condition | None) -> ConditionalImplicit:
        """The prior of the rows of a condition."""
        if condition is None:
            return self
        with torch.autocast(condition.vector.device.type, enabled=False):
            found = self.network(condition.vector.float())
        own = copy(self)  # shares the networks
        # all 0 where there is no context: components that are all N(0, I)
        own.noise = self._noise(found * condition.present[:, None])
        return own

    def rsample(self, n: int) -> Tensor:
        """Draw ``(n, D)`` from PyTorch's global random state, with gradients."""
        noise = self._of_rows(n)
        if self.training and self.components > 1:
            soft = F.gumbel_softmax(noise.log_weights, TEMPERATURE)  # (n, K)
            hard = F.one_hot(soft.argmax(-1), self.components).to(soft)
            # exact where it counts: soft − soft would leave rounding in the code
            chosen = hard + (soft - soft.detach())
        else:
            chosen = self._components(noise.log_weights, None)
        return self._generate(noise, chosen, torch.randn_like(noise.mean[:, 0]))

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        codes: Tensor | None = None,
    ) -> Tensor:
        """Draw ``(n, D)`` on the CPU, one a row of the condition where there is one."""
        assert codes is None
        with torch.no_grad():
            noise = self._of_rows(n)
            chosen = self._components(noise.log_weights, generator)
            draws = torch.randn(n, self.noise_dim, generator=generator).to(noise.mean)
            return self._generate(noise, chosen, draws).float().cpu()

    def relative_points(self, z: Tensor) -> Tensor:
        """From the prior's mean in the context on, in its deviations there times `deviation`."""
        mean, deviation = self._moments(len(z))
        return (z - mean.to(z)) * (self.deviation.to(z) / deviation.to(z))

    @torch.no_grad()
    def _moments(self, rows: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of every row ``(n, D)``, over the same noise for all."""
        noise = self._of_rows(rows)
        half = torch.randn(
            MEAN_DRAWS, self.noise_dim, generator=torch.Generator().manual_seed(0)
        ).to(noise.mean)
        weights = noise.log_weights.double().exp()[..., None]  # (n, K, 1)
        mean = square = torch.zeros((), dtype=weights.dtype, device=weights.device)
        for draw in torch.cat([half, -half]):  # as the mean of an implicit posterior
            z = self.generator(noise.mean + (0.5 * noise.log_variance).exp() * draw).double()
            mean = mean + (weights * z).sum(1) / (2 * MEAN_DRAWS)  # (n, D)
            square = square + (weights * z.square()).sum(1) / (2 * MEAN_DRAWS)
        smallest = torch.finfo(torch.float32).eps * mean.abs() + torch.finfo(torch.float32).tiny
        return mean, torch.maximum((square - mean.square()).clamp(min=0).sqrt(), smallest)

    def log_prob(self, z: Tensor) -> Tensor:  # noqa: ARG002
        """There is none: whoever needs one must ask `has_density` first."""
        raise TypeError("a conditional-implicit prior has no density")

    def kl(self, posterior: Distribution) -> Tensor | None:  # noqa: ARG002
        """None: without a density it is unknown, and no sample tells it."""
        return None

    def _noise(self, parameters: Tensor) -> Noise:
        """From the network's outputs ``(B, ...)``, 0 for the standard normal."""
        sizes = [self.components * self.noise_dim] * 2
        logits, mean, log_variance = parameters.split([parameters.shape[1] - sum(sizes), *sizes], 1)
        if self.components == 1:
            logits = parameters.new_zeros(len(parameters), 1)
        shape = -1, self.components, self.noise_dim
        return Noise(logits.log_softmax(-1), mean.reshape(shape), log_variance.reshape(shape))

    def _of_rows(self, n: int) -> Noise:
        if self.noise is not None:
            assert len(self.noise.mean) == n, "one draw a row of the condition"
            return self.noise
        output = self.network[-1]
        assert isinstance(output, nn.Linear)
        return self._noise(output.weight.new_zeros(n, output.out_features))

    def _components(self, log_weights: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draw a component a row of ``(n, K)`` log-probabilities, ``(n, K)``, one-hot."""
        if self.components == 1:
            return torch.ones_like(log_weights)
        size = 1, self.components
        codes = draw_codes(len(log_weights), size, generator, None, log_weights[:, None])  # (n, 1)
        return F.one_hot(codes[:, 0], self.components).to(log_weights)

    def _generate(self, noise: Noise, chosen: Tensor, draws: Tensor) -> Tensor:
        """z ``(n, D)`` of components ``(n, K)``, one-hot, and standard normal draws ``(n, E)``."""
        mean = torch.einsum("nk,nke->ne", chosen, noise.mean)
        deviation = torch.einsum("nk,nke->ne", chosen, (0.5 * noise.log_variance).exp())
        with torch.autocast(mean.device.type, enabled=False):
            return self.generator(mean + deviation * draws)
