"""Passes over a corpus in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from uncollapse.config import TimestepMeanConfig
from uncollapse.data.batches import Batch, sequential_batches
from uncollapse.data.corpus import Corpus
from uncollapse.distributions.base import Distribution, join
from uncollapse.distributions.product import side_by_side
from uncollapse.encoders.context import Condition
from uncollapse.errors import UserError, unknown_name
from uncollapse.evaluation.posterior_draws import SentenceDraws, with_density
from uncollapse.latents import Inference, Latent
from uncollapse.latents.divergences import TimestepMean
from uncollapse.latents.priors import Mixture, Prior, UniformCategorical
from uncollapse.model import Model
from uncollapse.tuning import tuned_process

KL_SAMPLES = 10  # a sentence, where a KL has no closed form

Precision = Literal["f32", "bf16"]  # of the decoder's matrix products
Progress = Callable[[str, int, int], None]  # what is computed, sentences done, sentences in all


@contextmanager
def evaluating(model: Model) -> Iterator[torch.device]:
    """Dropout off, moving averages frozen, f32, no gradients; puts everything back.

    Yields the device of the model.
    """
    device = next(model.parameters()).device
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        # figures are f32, also inside a mixed-precision run
        with tuned_process(), torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield device
    finally:
        for part, mode in modes:
            part.training = mode


def check_seed(seed: int) -> None:
    """Refuse a negative seed with a UserError."""
    if seed < 0:
        raise UserError(f"the seed must not be negative, but is {seed}")


def check_precision(precision: str) -> None:
    """Refuse an unknown precision with a UserError."""
    if precision not in get_args(Precision):
        raise unknown_name("precision", precision, get_args(Precision))


def decoder_scores(
    model: Model,
    z: Tensor | None,
    batch: Batch,
    condition: Condition | None,
    precision: Precision,
) -> Tensor:
    """log p(x|z) of ``z`` ``(B, S, D)``, ``(B, S)`` float64."""
    weight = model.decoder.output.weight
    with torch.autocast(weight.device.type, torch.bfloat16, enabled=precision == "bf16"):
        points = None if z is None else z.to(weight.dtype)
        return model.decoder.log_prob_samples(points, batch, condition).double()


@dataclass(frozen=True)
class PosteriorPass:
    """Posteriors of a whole corpus, in its order.

    Attributes
    ----------
    posterior : Distribution
        ``(N, D)``, of the z that the decoder sees, all latents side by side; where it has no
        density although z is random and the prior has one, the Gaussian fitted to its samples.
    relative : Distribution
        The same in coordinates in which the prior is the same in every context.
    means, relative_means : Tensor
        ``(N, D)``: posterior means, and those of ``relative``.
    kls : dict of str to Tensor
        ``{latent: (N, D)}``: KL(q ‖ p), nats; ``(N, 1)`` where it does not split over
        dimensions. Empty for an autoencoder, and where a prior has no density.
    kl_samples : int
        Draws behind each KL; 0: closed form.
    fitted : bool
        Whether a Gaussian stands in for a posterior without a density.
    step_kl : Tensor or None
        ``(N,)``: mean KL of the steps that a timestep-mean divergence looks at, plus the KL of
        the other latents; None where no latent has that divergence.
    latents : dict of str to Distribution
        ``{latent: (N, D)}``: those of ``relative`` one by one.
    variables : dict of str to Tensor
        ``{variable: (N, M, K)}``: log-probabilities of the values of the discrete variables.
    prior_has_density : bool
        Whether p(z) has one; without, no latent has a KL.
    policies : dict of str to Tensor
        ``{variable: (N, M, K)}``: log p(c|context) of the discrete variables that have a policy.
    """

    posterior: Distribution
    relative: Distribution
    means: Tensor
    relative_means: Tensor
    kls: dict[str, Tensor]
    kl_samples: int
    fitted: bool
    step_kl: Tensor | None
    latents: dict[str, Distribution] = field(default_factory=dict)
    variables: dict[str, Tensor] = field(default_factory=dict)
    prior_has_density: bool = True
    policies: dict[str, Tensor] = field(default_factory=dict)

    @property
    def kl(self) -> Tensor | None:
        """The KLs of all latents side by side; None where there are none."""
        return torch.cat(list(self.kls.values()), 1) if self.kls else None


def posterior_pass(
    model: Model,
    corpus: Corpus,
    *,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress | None = None,
) -> PosteriorPass | None:
    """Encode every sentence; None for a language model.

    ``seed`` is that of the draws, where a posterior's KL or density takes any.
    """
    named = model.named_latents()
    if not named:
        return None
    latents = list(named.values())
    stepwise = has_step_divergence(model)
    measurable = model.has_likelihood and prior_has_density(model)
    posteriors: list[list[Distribution]] = []
    relatives: list[list[Distribution]] = []
    variables: dict[str, list[Tensor]] = {}
    policies: dict[str, list[Tensor]] = {}
    means: list[Tensor] = []
    relative_means: list[Tensor] = []
    kls: dict[str, list[Tensor]] = {}
    step_kls: list[Tensor] = []
    index: list[Tensor] = []
    kl_samples = 0
    done = 0
    with evaluating(model) as device:
        for batch in sequential_batches(corpus, batch_size):
            inferences = model.infer(batch.to(device))
            for name, values in model.variables(inferences).items():
                variables.setdefault(name, []).append(values.cpu())
            found = list(inferences.values())
            index.append(batch.index)
            parts = [inference.posterior for inference in found]
            means.append(torch.cat([part.mean for part in parts], -1).float().cpu())
            own = [one.prior.relative_points(one.posterior.mean) for one in found]
            relative_means.append(torch.cat(own, -1).float().cpu())
            for name, latent in named.items():
                prior = inferences[name].prior
                coded = isinstance(prior, Mixture | UniformCategorical)
                if coded and prior.log_weights is not None:
                    known = policies.setdefault(latent.drawn_variable(name), [])
                    known.append(prior.log_weights.cpu())
            if measurable:
                parts = [with_density(part, seed, batch.index) for part in parts]
                charged = []
                for (name, inference), part in zip(inferences.items(), parts, strict=True):
                    kl, samples = _kl(part, inference.prior, seed, batch.index)
                    charged.append(kl)
                    kls.setdefault(name, []).append(kl.float().cpu())
                    kl_samples = max(kl_samples, samples)
                if stepwise:
                    pairs = zip(latents, found, charged, strict=True)
                    step_kls.append(torch.stack([_charged(*pair) for pair in pairs]).sum(0).cpu())
            posteriors.append(parts)
            pairs = zip(found, parts, strict=True)
            relatives.append([inference.prior.relative(part) for inference, part in pairs])
            done += batch.size
            if progress is not None:
                progress("posteriors", done, len(corpus))
    order = torch.cat(index).argsort()
    joined = [join(column)[order] for column in zip(*posteriors, strict=True)]
    relative = [join(column)[order] for column in zip(*relatives, strict=True)]
    return PosteriorPass(
        side_by_side(joined),
        side_by_side(relative),
        torch.cat(means)[order],
        torch.cat(relative_means)[order],
        {name: torch.cat(own)[order] for name, own in kls.items()},
        kl_samples,
        measurable and not model.has_density,
        torch.cat(step_kls)[order] if step_kls else None,
        dict(zip(named, relative, strict=True)),
        {name: torch.cat(parts)[order] for name, parts in variables.items()},
        prior_has_density(model),
        {name: torch.cat(parts)[order] for name, parts in policies.items()},
    )


def context_vectors(model: Model, corpus: Corpus, *, batch_size: int = 32) -> Condition | None:
    """The contexts of a whole corpus, in its order; without what came after each turn.

    None for a model that is told of none.
    """
    if model.context is None:
        return None
    vectors, present, index = [], [], []
    with evaluating(model) as device:
        for batch in sequential_batches(corpus, batch_size):
            found = model.read(batch.to(device))
            assert found is not None
            vectors.append(found.vector)
            present.append(found.present)
            index.append(batch.index)
    order = torch.cat(index).argsort()
    found, known = torch.cat(vectors)[order], torch.cat(present)[order]
    return without_turns(found, known, model.context.memory_dim)


def without_turns(vector: Tensor, present: Tensor, memory_dim: int) -> Condition:
    """Contexts ``(B, C)`` without what came after each of their turns."""
    nothing = vector.new_zeros(len(vector), 0, memory_dim)
    mask = torch.zeros(len(vector), 0, dtype=torch.bool, device=vector.device)
    return Condition(vector, nothing, mask, present)


def prior_scale(model: Model) -> Tensor:
    """Standard deviation of the prior in every dimension of z, ``(D,)`` float64."""
    # one by one: priors without parameters do not know the model's device
    return torch.cat([scale.double().cpu() for scale in model.prior_deviations().values()])


def has_step_divergence(model: Model) -> bool:
    """Whether a latent is trained with the mean KL of its steps (TWR-VAE), and all have a KL."""
    latents = model.named_latents().values()
    stepwise = any(isinstance(latent.divergence, TimestepMean) for latent in latents)
    return stepwise and prior_has_density(model)


def prior_has_density(model: Model) -> bool:
    """Whether p(z) has one: without, there is a likelihood but neither a KL nor an ELBO."""
    return all(latent.prior.has_density for latent in model.named_latents().values())


def _kl(posterior: Distribution, prior: Prior, seed: int, index: Tensor) -> tuple[Tensor, int]:
    """KL ``(B, D)`` or ``(B, 1)``, and the draws behind it."""
    closed = prior.kl(posterior)
    if closed is not None:
        return closed, 0
    z = SentenceDraws(posterior, seed, index).draw(KL_SAMPLES)  # (B, S, D)
    ratio = posterior.log_prob(z) - prior.log_prob(z)  # (B, S)
    return ratio.mean(1, keepdim=True), KL_SAMPLES


def _charged(latent: Latent, inference: Inference, kl: Tensor) -> Tensor:
    """The divergence that the latent's objective is about, without floors, ``(B,)``."""
    if not isinstance(latent.divergence, TimestepMean):
        return kl.sum(-1)
    config = TimestepMeanConfig(kind="timestep-mean", last=latent.divergence.last)
    return TimestepMean(config)(inference)
