"""Generator against discriminator: what each of them learns from a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from uncollapse.config import AdversarialConfig
from uncollapse.data.batches import Batch
from uncollapse.decoders.rollouts import Rollouts, as_responses, sample_with_rollouts
from uncollapse.dropout import no_dropout
from uncollapse.encoders.context import Condition
from uncollapse.model import Model
from uncollapse.training.critic import Critic
from uncollapse.training.policy_gradient import above_the_others, action_values, reinforce


class AdversarialCritic(Critic):
    """Teaches a discriminator to tell the responses of a batch from sampled ones.

    Parameters
    ----------
    model : Model
        With a discriminator.
    config : AdversarialConfig
    """

    def __init__(self, model: Model, config: AdversarialConfig) -> None:
        assert model.discriminator is not None
        super().__init__(model, model.discriminator.critic)
        self.discriminator = model.discriminator
        self.max_length = config.max_length

    @torch.no_grad()
    def lesson(self, batch: Batch) -> Callable[[], Tensor]:
        """−log D(real) − log(1 − D(sampled)), ``(B,)``; responses are sampled once."""
        condition = self.model.read(batch)
        z = draw_prior(self.model, batch.size, condition)
        found = draw_responses(self.model, batch.size, z, condition, self.max_length)
        sampled = as_responses(found.tokens)
        vector = None if condition is None else condition.vector
        return lambda: self.discriminator.loss(batch, sampled, vector)


def adversarial_terms(
    model: Model,
    condition: Condition | None,
    rows: int,
    config: AdversarialConfig,
    *,
    listens: bool,
) -> dict[str, Tensor]:
    """What the generator adds to the terms of a batch, ``{name: (B,)}``.

    Parameters
    ----------
    model : Model
        With a discriminator.
    condition : Condition or None
        The contexts that are answered, as the model has read them; None for one that reads none.
        A latent variable is drawn from its prior, which learns nothing from this.
    rows : int
        Responses, one a context.
    config : AdversarialConfig
    listens : bool
        Whether the generator already learns from the discriminator.

    Returns
    -------
    dict of str to Tensor
        ``reward``: D of a sampled response. ``adversarial``, if the generator listens: what
        has the policy gradient as its gradient; its value means nothing.

    References
    ----------
    Yu et al. 2017, "SeqGAN: Sequence Generative Adversarial Nets with Policy Gradient", eqs.
    4–8; Li et al. 2017, "Adversarial Learning for Neural Dialogue Generation", section 3.
    """
    judge = model.discriminator
    assert judge is not None
    z = draw_prior(model, rows, condition)
    rollouts = config.rollouts if listens else 0
    found = draw_responses(model, rows, z, condition, config.max_length, rollouts)

    def reward(texts: Batch, owners: Tensor) -> Tensor:
        return judge.probability(texts, None if condition is None else condition.vector[owners])

    values = action_values(found, reward)  # (B, T)
    last = found.mask.sum(1, keepdim=True) - 1  # (B, 1)
    terms = {"reward": values.gather(1, last).squeeze(1)}
    if listens:
        advantages = above_the_others(values, found.mask)
        with no_dropout(model.decoder):  # as the responses were sampled
            terms["adversarial"] = reinforce(model.decoder, z, condition, found.tokens, advantages)
    return terms


@torch.no_grad()
def draw_prior(model: Model, rows: int, condition: Condition | None) -> Tensor | None:
    """z of sampled responses, ``(B, D)``; None for a model without a latent."""
    z = model.sample_prior(rows, condition=condition)
    return None if z is None else z.to(model.decoder.output.weight)


def draw_responses(
    model: Model,
    rows: int,
    z: Tensor | None,
    condition: Condition | None,
    max_length: int,
    rollouts: int = 0,
) -> Rollouts:
    """Sample a response a row, the decoder's dropout off, and go on from its beginnings."""
    with no_dropout(model.decoder):
        return sample_with_rollouts(
            model.decoder, z, rows, condition, rollouts=rollouts, max_length=max_length
        )
