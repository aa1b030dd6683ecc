"""Semi-amortised inference: a few steps of gradient descent from the encoder's guess (SA-VAE)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from uncollapse.config import RefinedPosteriorConfig
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.latents.posteriors.base import Posterior
from uncollapse.latents.posteriors.gaussian import GaussianPosterior
from uncollapse.latents.priors.base import Prior

LogLikelihood = Callable[[Tensor], Tensor]  # from z (B, D) to log p(x|z) (B,), dropout drawn once
NOISE_SEED = 30_000  # in evaluation, every sentence is refined with the same noise


class RefinedPosterior(Posterior):
    """A Gaussian posterior, refined for every sentence by descent on its own −ELBO.

    The gradient flows back through the steps, to the encoder (where they start) and to the
    decoder (whose likelihood they climb). Second derivatives are central differences of
    gradients, as in the official code, so any decoder will do.

    References
    ----------
    Kim et al. 2018, "Semi-Amortized Variational Autoencoders", Algorithms 1 and 2.

    Parameters
    ----------
    config : RefinedPosteriorConfig
        The posterior to start from, and the descent.
    feature_dim, dim : int
        H and D.
    """

    def __init__(self, config: RefinedPosteriorConfig, feature_dim: int, dim: int) -> None:
        super().__init__()
        self.config = config
        self.base = GaussianPosterior(config.base, feature_dim, dim)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> DiagonalGaussian:
        """Where the descent starts, ``(B, D)``."""
        return self.base(features, mask)

    def refine(
        self,
        start: DiagonalGaussian,
        log_likelihood: LogLikelihood,
        parameters: Sequence[Tensor],
        prior: Prior,
        weight: float,
    ) -> DiagonalGaussian:
        """Descend from ``start`` ``(B, D)``.

        Parameters
        ----------
        log_likelihood : callable
            From z ``(B, D)`` to log p(x|z) ``(B,)``; calls with the same z must agree.
        parameters : sequence of Tensor
            Of the decoder: they get the gradient that reaches them through the descent.
        prior : Prior
            With a closed-form KL from a Gaussian.
        weight : float
            Of the KL, as in the objective.
        """
        noise = self._noise(start.mean)
        problem = _Problem(log_likelihood, prior, weight, noise, tuple(parameters), self.config)
        learned = [p for p in parameters if p.requires_grad]
        found = _Descent.apply(problem, start.mean, start.log_variance, *learned)
        assert isinstance(found, tuple)
        return DiagonalGaussian(*found)

    def _noise(self, like: Tensor) -> Tensor:
        """A draw for every step, ``(K, B, D)``."""
        steps = self.config.steps
        if self.training:
            return torch.randn(steps, *like.shape, device=like.device, dtype=like.dtype)
        generator = torch.Generator().manual_seed(NOISE_SEED)
        # one draw for all sentences: what is found depends on the sentence alone
        return torch.randn(steps, 1, like.shape[-1], generator=generator).to(like)


@dataclass
class _Problem:
    """What is descended upon: −log p(x|z) + weight · KL, for each sentence by itself."""

    log_likelihood: LogLikelihood
    prior: Prior
    weight: float
    noise: Tensor  # (K, B, D)
    parameters: tuple[Tensor, ...]
    config: RefinedPosteriorConfig

    def loss(self, step: int, mean: Tensor, log_variance: Tensor) -> Tensor:
        """−ELBO of every sentence at one draw, ``(B,)``."""
        q = DiagonalGaussian(mean, log_variance)
        kl = self.prior.kl(q)
        assert kl is not None
        return self.weight * kl.sum(-1) - self.log_likelihood(q.rsample(self.noise[step]))

    def gradient(self, step: int, place: Tensor) -> Tensor:
        """Of every sentence's loss with respect to its own place, ``(B, 2D)``."""
        with torch.enable_grad(), _fixed(self.parameters):
            place = place.detach().requires_grad_()
            loss = self.loss(step, *place.chunk(2, -1)).sum()
            return torch.autograd.grad(loss, place)[0]

    def clipped(self, gradient: Tensor) -> Tensor:
        """Each sentence's gradient, no longer than ``clip_norm``."""
        if self.config.clip_norm is None:
            return gradient
        norm = gradient.norm(dim=-1, keepdim=True)
        return gradient * (self.config.clip_norm / norm.clamp(min=self.config.clip_norm))

    def clipped_back(self, gradient: Tensor, arriving: Tensor) -> Tensor:
        """The product of ``arriving`` with the Jacobian of `clipped`."""
        with torch.enable_grad():
            gradient = gradient.detach().requires_grad_()
            result = self.clipped(gradient)
        return torch.autograd.grad(result, gradient, arriving)[0]

    def second(
        self, step: int, place: Tensor, direction: Tensor, learned: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Derivatives of ⟨∇loss, direction⟩ with respect to place and parameters.

        Central differences, with the step that balances rounding and curvature.
        """
        size = torch.finfo(place.dtype).eps ** (1 / 3) * (1 + place.norm(dim=-1, keepdim=True))
        length = direction.norm(dim=-1, keepdim=True)
        reach = size / length.clamp(min=torch.finfo(place.dtype).tiny)  # (B, 1)
        total: list[Tensor] = []
        for sign in (1, -1):
            with torch.enable_grad():
                moved = (place + sign * reach * direction).detach().requires_grad_()
                # a sentence without a direction has no part, whatever its reach
                share = torch.where(length > 0, 1 / (2 * reach), 0).squeeze(-1)  # (B,)
                loss = (share * self.loss(step, *moved.chunk(2, -1))).sum()
            found = torch.autograd.grad(loss, [moved, *learned], allow_unused=True)
            parts = [
                torch.zeros_like(of) if part is None else part
                for part, of in zip(found, [moved, *learned], strict=True)
            ]
            total = parts if not total else [a - b for a, b in zip(total, parts, strict=True)]
        return tuple(total)


@contextmanager
def _fixed(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Ask for no gradient of these: much of the softmax layer's work."""
    learned = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)


class _Descent(torch.autograd.Function):
    """Gradient descent with momentum, and the exact adjoint of each of its steps."""

    @staticmethod
    def forward(
        ctx: Any, problem: _Problem, mean: Tensor, log_variance: Tensor, *learned: Tensor
    ) -> tuple[Tensor, Tensor]:
        config = problem.config
        place = torch.cat([mean, log_variance], -1)  # (B, 2D)
        velocity = torch.zeros_like(place)
        places, gradients = [], []
        for step in range(config.steps):
            gradient = problem.gradient(step, place)
            places.append(place)
            gradients.append(gradient)
            velocity = config.momentum * velocity + problem.clipped(gradient)
            place = place - config.learning_rate * velocity
        ctx.problem, ctx.places, ctx.gradients, ctx.learned = problem, places, gradients, learned
        ended, spread = place.chunk(2, -1)
        return ended.contiguous(), spread.contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_mean: Tensor, of_log_variance: Tensor) -> tuple[Tensor | None, ...]:
        problem: _Problem = ctx.problem
        config = problem.config
        place = torch.cat([of_mean, of_log_variance], -1)  # the loss's gradient there
        velocity = torch.zeros_like(place)
        totals = [torch.zeros_like(parameter) for parameter in ctx.learned]
        for step in reversed(range(config.steps)):
            velocity = velocity - config.learning_rate * place
            arriving = problem.clipped_back(ctx.gradients[step], velocity)
            here, *others = problem.second(step, ctx.places[step], arriving, ctx.learned)
            place = place + here
            for total, other in zip(totals, others, strict=True):
                total += other
            velocity = config.momentum * velocity
        mean, log_variance = place.chunk(2, -1)
        return None, mean, log_variance, *totals
