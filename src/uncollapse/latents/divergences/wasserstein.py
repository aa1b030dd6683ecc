"""The Wasserstein-1 distance of posterior and prior, as a critic learns it (WAE-GAN)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uncollapse.config import WassersteinConfig
from uncollapse.latents.divergences.base import Divergence, beside, context_vector
from uncollapse.latents.inference import Inference

SLOPE = 0.2  # of the leaky ReLUs, the official code's


class Wasserstein(Divergence):
    """weight · (D(z, c) − D(z′, c)), z ~ q(z|x, c), z′ ~ p(z|c), c the context if there is any.

    W₁(q, p) = sup E_q D − E_p D over D of slope at most 1. The critic D raises the difference,
    posterior and prior lower it: D is high where posteriors are and the prior is not (the
    official code's has the other sign). Its slope is held at 1 by a penalty on
    (‖∇_ẑ D(ẑ, c)‖ − 1)², ẑ uniform between z and z′.

    The penalty is each row's own. The official code averages D over the batch before it
    differentiates, which drives every norm to the number of rows B, and the distance with it.
    D has no batch norm, which the penalty rules out. Over rows of one context each, the mean is
    the distance of the joint distributions of (z, c), moved along z alone: no bound on a KL.

    References
    ----------
    Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", eq. 3 and section 4; Gu et
    al. 2019, "DialogWAE: Multimodal Response Generation with Conditional Wasserstein
    Auto-Encoder", section 4.1.

    Parameters
    ----------
    config : WassersteinConfig
    dim, condition_dim : int
        D and, 0 without contexts, C.
    """

    needs_density = False

    def __init__(self, config: WassersteinConfig, dim: int, condition_dim: int) -> None:
        super().__init__()
        self.weight = config.weight
        self.penalty = config.penalty
        self.critic = config.critic
        hidden = config.hidden_dim
        self.network = nn.Sequential(
            nn.Linear(dim + condition_dim, hidden),
            nn.LeakyReLU(SLOPE),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(SLOPE),
            output := nn.Linear(hidden, 1, bias=False),  # of differences: a bias would be idle
        )
        # flat, so that the data decide which way it first leans: the penalty holds a slope of 1
        # whichever way it leans, and in one dimension no way leads round to the other
        nn.init.zeros_(output.weight)

    def forward(self, inference: Inference) -> Tensor:
        """The learned distance, ``(B,)``; its mean is what it estimates."""
        z = inference.draw()  # (B, D)
        other = inference.prior.rsample(len(z)).to(z)
        return self.weight * self._difference(z, other, context_vector(inference.condition))

    def critic_loss(self, inference: Inference) -> Tensor:
        """What the critic lowers, ``(B,)``: the penalty less the distance."""
        with torch.no_grad():
            z = inference.draw()
            other = inference.prior.rsample(len(z)).to(z)
        context = context_vector(inference.condition)
        penalty = self.gradient_penalty(z, other, context)
        return self.penalty * penalty - self._difference(z, other, context)

    def gradient_penalty(self, z: Tensor, other: Tensor, context: Tensor | None = None) -> Tensor:
        """(‖∇_ẑ D(ẑ, c)‖ − 1)² of every row at a point between its two draws, ``(B,)``.

        Parameters
        ----------
        z, other : Tensor
            ``(B, D)``: drawn from the posteriors and from the prior.
        context : Tensor, optional
            ``(B, C)``.
        """
        share = torch.rand_like(z[:, :1])  # (B, 1)
        between = (share * z + (1 - share) * other).detach().requires_grad_()
        with torch.autocast(z.device.type, enabled=False):
            values = self.network(beside(between, context))  # (B, 1)
            # rows do not see each other: the gradient of the sum is that of each
            (gradient,) = torch.autograd.grad(values.sum(), between, create_graph=True)
        return (torch.linalg.vector_norm(gradient, dim=-1) - 1).square()

    def _difference(self, z: Tensor, other: Tensor, context: Tensor | None) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            return (
                self.network(beside(z, context)) - self.network(beside(other, context))
            ).squeeze(-1)
