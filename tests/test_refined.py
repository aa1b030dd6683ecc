"""Semi-amortised inference: the gradient through the descent, and what it finds."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from helpers import SENTENCES, make_batch, small_model
from torch import Tensor

from uncollapse.config import LatentConfig, RefinedPosteriorConfig
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.errors import UserError
from uncollapse.latents.posteriors.refined import RefinedPosterior
from uncollapse.latents.priors import build_prior
from uncollapse.recipes import load_recipe

DIM, ROWS = 3, 5
PRIOR = build_prior(LatentConfig(dim=DIM), 0)


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Start of the descent, and a likelihood's parameters, float64."""
    torch.manual_seed(seed)
    start = torch.randn(2, ROWS, DIM, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(DIM, 4, dtype=torch.float64, requires_grad=True)
    offsets = torch.randn(ROWS, 4, dtype=torch.float64, requires_grad=True)
    return start, weights, offsets


def log_likelihood(weights: Tensor, offsets: Tensor):
    """Smooth, curved, and of another shape for every sentence."""
    return lambda z: -((z @ weights).tanh() - offsets).square().sum(-1) - (z.sum(-1)).cosh().log()


def unrolled(config: RefinedPosteriorConfig, start: Tensor, noise: Tensor, likelihood, weight):
    """The same descent, with autograd through every step."""
    place, velocity = torch.cat([*start], -1), 0.0
    for step in range(config.steps):
        q = DiagonalGaussian(*place.chunk(2, -1))
        loss = weight * q.kl_standard().sum(-1) - likelihood(q.rsample(noise[step]))
        gradient = torch.autograd.grad(loss.sum(), place, create_graph=True)[0]
        if config.clip_norm is not None:
            norm = gradient.norm(dim=-1, keepdim=True)
            gradient = gradient * (config.clip_norm / norm.clamp(min=config.clip_norm))
        velocity = config.momentum * velocity + gradient
        place = place - config.learning_rate * velocity
    return place.chunk(2, -1)


@pytest.mark.parametrize("clip", [None, 30.0, 0.8])
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_gradient_is_that_of_the_unrolled_descent(clip: float | None, weight: float) -> None:
    config = RefinedPosteriorConfig(kind="refined", steps=6, learning_rate=0.1, clip_norm=clip)
    posterior = RefinedPosterior(config, 4, DIM).double()
    start, weights, offsets = problem()
    inputs = (start, weights, offsets)
    torch.manual_seed(1)
    found = posterior.refine(
        DiagonalGaussian(*start), log_likelihood(weights, offsets), inputs[1:], PRIOR, weight
    )
    torch.manual_seed(1)
    noise = torch.randn(config.steps, ROWS, DIM, dtype=torch.float64)
    mean, log_variance = unrolled(config, start, noise, log_likelihood(weights, offsets), weight)
    torch.testing.assert_close(found.mean, mean)
    torch.testing.assert_close(found.log_variance, log_variance)

    def score(mean: Tensor, log_variance: Tensor) -> Tensor:
        return (mean.sin() + log_variance.square()).sum()

    ours = torch.autograd.grad(score(found.mean, found.log_variance), inputs)
    theirs = torch.autograd.grad(score(mean, log_variance), inputs)
    for got, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-7)


def test_refinement_raises_the_elbo_and_is_the_same_in_any_company() -> None:
    model = small_model("sa-vae", ["latents.z.posterior.steps=30"])
    batch = make_batch(SENTENCES)
    with torch.no_grad():
        refined = model.posterior(batch)
        start = model.latents["z"].posterior(model.encoder(batch).summary)
        alone = [model.posterior(make_batch([sentence])) for sentence in SENTENCES]

        def elbo(q: DiagonalGaussian) -> Tensor:
            torch.manual_seed(0)
            z = q.rsample(torch.randn(2000, *q.mean.shape))  # (S, B, D)
            scores = model.decoder.log_prob_samples(z.transpose(0, 1), batch).mean(1)
            return scores - q.kl_standard().sum(-1)

        assert (elbo(refined) > elbo(start)).all()
    for row, single in enumerate(alone):
        torch.testing.assert_close(single.mean[0], refined.mean[row], atol=1e-4, rtol=1e-4)


def test_a_pass_leaves_nothing_behind() -> None:
    """A graph that holds what holds it is out of the garbage collector's reach."""
    model, batch = small_model("sa-vae").train(), make_batch(SENTENCES)
    posteriors = []
    for _ in range(3):
        terms = model(batch)
        terms.elbo.sum().backward()
        posteriors.append(weakref.ref(terms.posteriors["z"]))
        del terms
    gc.collect()
    assert [posterior() for posterior in posteriors] == [None] * 3


def test_the_cell_is_in_training_mode_where_a_gradient_is_wanted() -> None:
    """In evaluation, cuDNN would not keep what the descent's gradients need."""
    model, batch = small_model("sa-vae"), make_batch(SENTENCES)
    seen: list[tuple[bool, bool]] = []
    model.decoder.cell.register_forward_pre_hook(
        lambda cell, _: seen.append((cell.training, torch.is_grad_enabled()))
    )
    with torch.no_grad():
        model.decoder.log_prob(model.posterior(batch).mean, batch)
    assert (True, True) in seen
    assert seen[-1] == (False, False)
    assert all(training == wanted for training, wanted in seen)


def test_evaluation_leaves_the_random_state_alone() -> None:
    model, batch = small_model("sa-vae"), make_batch(SENTENCES)
    before = torch.get_rng_state()
    with torch.no_grad():
        model.posterior(batch)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_step_drops_the_same_units() -> None:
    """With dropout drawn anew in each step, two likelihoods of one z would differ."""
    model, batch = (
        small_model("sa-vae", ["decoder.output_dropout=0.5"]).train(),
        make_batch(SENTENCES),
    )
    seen: list[Tensor] = []
    plain = model.decoder.log_prob

    def recorded(z: Tensor, *given: Any) -> Tensor:
        result = plain(torch.zeros_like(z), *given)
        seen.append(result.detach())
        return result + 0 * z.sum(-1)

    model.decoder.log_prob = recorded  # type: ignore[method-assign]
    model.infer(batch)
    assert len(seen) == model.latents["z"].posterior.config.steps
    assert all(torch.equal(seen[0], other) for other in seen[1:])


def test_decoder_and_encoder_learn_through_the_descent() -> None:
    model, batch = small_model("sa-vae").train(), make_batch(SENTENCES)
    terms = model(batch, 0.5)
    (-terms.elbo.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_refined_needs_a_readout_of_the_whole_sentence() -> None:
    with pytest.raises(UserError, match="posterior refined is one a sentence"):
        load_recipe("sa-vae", ["latents.z.readout=every"])
