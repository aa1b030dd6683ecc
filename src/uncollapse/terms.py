"""What one pass over a batch says of its sentences, before anything is weighed."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from uncollapse.distributions.base import Distribution
from uncollapse.latents.priors import MixtureKL


@dataclass
class Terms:
    """What one forward pass says of each sentence, in nats, unweighted.

    Parameters
    ----------
    reconstruction : Tensor
        ``(B,)``: log p(x|z) at a posterior sample; in training the mean over as many as asked.
    divergence : dict of str to Tensor
        ``{latent: (B,)}``: what the objective penalises, floors and step means applied.
    kl : dict of str to Tensor
        ``{latent: (B, D)}``: KL(q ‖ p) of the z that the decoder saw, per dimension, or
        ``(B, 1)`` where it does not split over dimensions. Latents whose posterior has no
        density are missing.
    tokens : Tensor
        ``(B,)``: predicted tokens, words and ``</s>``.
    posteriors : dict of str to Distribution
        ``{latent: (B, D)}``, in coordinates in which the prior is the same in every context.
    variables : dict of str to Tensor
        ``{variable: (B, M, K)}``: log-probabilities of the discrete variables.
    mixtures : dict of str to MixtureKL
        ``{latent: parts}`` of the KL of latents under a mixture.
    supervision : dict of str to Tensor
        ``{column: (B,)}``: −log q(label|x) of what is supervised, 0 without a label.
    features : Tensor or None
        ``(B, H)``: what the posterior of the first latent was read from.
    policy_hits : dict of str to Tensor
        ``{variable: (B, M)}``: 1 where a policy's most probable value is that of the sentence,
        0 where not, −1 without a context.
    extra : dict of str to Tensor
        ``{name: (B,)}``: what else the objective may add.
    """

    reconstruction: Tensor
    divergence: dict[str, Tensor]
    kl: dict[str, Tensor]
    tokens: Tensor
    posteriors: dict[str, Distribution]
    variables: dict[str, Tensor] = field(default_factory=dict)
    mixtures: dict[str, MixtureKL] = field(default_factory=dict)
    supervision: dict[str, Tensor] = field(default_factory=dict)
    features: Tensor | None = None
    policy_hits: dict[str, Tensor] = field(default_factory=dict)
    extra: dict[str, Tensor] = field(default_factory=dict)

    @property
    def elbo(self) -> Tensor:
        """The evidence lower bound of every sentence, ``(B,)``."""
        return self.reconstruction - sum(kl.sum(-1) for kl in self.kl.values())


def label_loss(log_probs: Tensor, labels: Tensor) -> Tensor:
    """−log q(label|x) of ``(B, K)`` log-probabilities, ``(B,)`` nats; 0 where a label is −1."""
    chosen = log_probs.gather(1, labels.clamp(min=0)[:, None]).squeeze(1)
    return -chosen.masked_fill(labels < 0, 0)
