"""Posteriors without a density: samples, learned divergence, and the honest proposal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import SENTENCES, make_batch, random_sentences, small_model
from torch import nn

from uncollapse.config import DualConfig, LatentConfig
from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.distributions.implicit import Implicit
from uncollapse.distributions.multivariate import MultivariateGaussian
from uncollapse.distributions.product import Product
from uncollapse.evaluation.likelihood import score_sentences
from uncollapse.evaluation.paper_variants import ivae
from uncollapse.evaluation.standard import evaluate
from uncollapse.latents.divergences.dual import DualDivergence
from uncollapse.latents.inference import Inference
from uncollapse.latents.priors import build_prior


def full_gaussian(rows: int, dim: int, seed: int = 0) -> MultivariateGaussian:
    torch.manual_seed(seed)
    factor = torch.randn(rows, dim, dim, dtype=torch.float64).tril()
    factor.diagonal(dim1=-2, dim2=-1).abs_().add_(0.3)
    return MultivariateGaussian(torch.randn(rows, dim, dtype=torch.float64), factor)


def streams(rows: int) -> list[np.random.Generator]:
    return [np.random.default_rng((3, row)) for row in range(rows)]


# --- the full Gaussian ----------------------------------------------------------------------


def test_full_gaussian_agrees_with_torch() -> None:
    q = full_gaussian(4, 3)
    theirs = torch.distributions.MultivariateNormal(q.mean, scale_tril=q.factor)
    z = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(q.log_prob(z), theirs.log_prob(z))
    many = q.draw(streams(4), 6)  # (B, S, D)
    torch.testing.assert_close(q.log_prob(many), theirs.log_prob(many.transpose(0, 1)).t())
    pairs = torch.stack([theirs.log_prob(point) for point in z])  # (M, N)
    torch.testing.assert_close(q.pairwise_log_prob(z), pairs)
    standard = torch.distributions.MultivariateNormal(
        torch.zeros(3).double(), torch.eye(3).double()
    )
    kl = torch.distributions.kl_divergence(theirs, standard)
    torch.testing.assert_close(q.kl_standard().squeeze(-1), kl)


def test_fit_finds_mean_and_covariance() -> None:
    q = full_gaussian(2, 3)
    found = MultivariateGaussian.fit(q.draw(streams(2), 200_000))
    torch.testing.assert_close(found.mean, q.mean, atol=0.02, rtol=0)
    torch.testing.assert_close(found.covariance, q.covariance, atol=0.05, rtol=0.02)


def test_fit_of_constant_samples_is_still_a_density() -> None:
    found = MultivariateGaussian.fit(torch.zeros(2, 10, 3))
    assert found.log_prob(torch.zeros(2, 3)).isfinite().all()


def test_fit_of_broken_samples_says_so_and_spares_the_others() -> None:
    samples = torch.randn(2, 50, 3)
    samples[0, 0, 0] = torch.inf
    broken, whole = MultivariateGaussian.fit(samples).factor
    assert broken.isnan().all()
    assert whole.isfinite().all()


def test_product_of_unlike_parts() -> None:
    torch.manual_seed(0)
    parts = [full_gaussian(4, 2), DiagonalGaussian(*torch.randn(2, 4, 3).double())]
    both = Product(list(parts))
    z = both.draw(streams(4), 5)  # (B, S, D)
    total = parts[0].log_prob(z[..., :2]) + parts[1].log_prob(z[..., 2:])
    torch.testing.assert_close(both.log_prob(z), total)
    torch.testing.assert_close(both[1:3].mean, both.mean[1:3])
    assert both.pairwise_log_prob(z[:, 0]).shape == (4, 4)


# --- drawing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", ["null", "6"])
def test_implicit_mean_is_that_of_its_samples(hidden: str) -> None:
    model = small_model("ivae", [f"latents.z.posterior.hidden_dim={hidden}"])
    with torch.no_grad():
        q = model.posterior(make_batch(SENTENCES))
        drawn = q.draw(streams(4), 20_000)
    assert not q.has_density
    # the mean itself is over 128 draws, exact where z is linear in the noise
    error = 4 * drawn.std(1) / (128 if hidden == "6" else 20_000) ** 0.5
    assert ((drawn.mean(1) - q.mean).abs() < 1.2 * error).all()
    with pytest.raises(TypeError, match="no density"):
        q.log_prob(q.mean)


# --- the learned divergence ----------------------------------------------------------------


def test_what_is_drawn_follows_the_features_and_not_the_network() -> None:
    model, batch = small_model("ivae"), make_batch(SENTENCES)
    with torch.no_grad():
        posterior = model.posterior(batch)
        assert isinstance(posterior, Implicit)
        wide = posterior.map(torch.Tensor.double)
        assert wide.mean.dtype == torch.float64
        torch.testing.assert_close(wide.mean.float(), posterior.mean)


def trained_dual(q: DiagonalGaussian, steps: int = 1500) -> tuple[float, float]:
    """Both learned divergences of posteriors that depend on a one-hot sentence."""
    rows, dim = q.mean.shape
    torch.manual_seed(0)
    divergence = DualDivergence(DualConfig(kind="dual", hidden_dim=32), rows, dim)
    prior, features = build_prior(LatentConfig(dim=dim), 0), torch.eye(rows)
    optimizer = torch.optim.Adam(divergence.parameters(), 3e-3)
    many = q.map(lambda values: values.repeat(64, 1))
    for _ in range(steps):
        optimizer.zero_grad()
        divergence.critic_loss(Inference(many, features.repeat(64, 1), prior)).mean().backward()
        optimizer.step()
    large = q.map(lambda values: values.repeat(4000, 1))
    with torch.no_grad():
        found = divergence.estimates(
            large.rsample(), prior.sample(len(large.mean)), features.repeat(4000, 1)
        )
    return float(found[0].mean()), float(found[1].mean())


@pytest.mark.slow
def test_dual_form_learns_the_divergence_from_below() -> None:
    mean = torch.tensor([[1.2], [-1.2]])
    q = DiagonalGaussian(mean, torch.full((2, 1), -0.5))
    conditional, aggregate = trained_dual(q)
    true = float(q.kl_standard().sum(-1).mean())
    grid = torch.linspace(-12, 12, 20_001, dtype=torch.float64)[:, None]
    log_aggregate = q.map(torch.Tensor.double).pairwise_log_prob(grid).logsumexp(1) - np.log(2)
    log_aggregate = log_aggregate - 0.5 * np.log(2 * np.pi)
    log_prior = -0.5 * (grid.squeeze(1).square() + np.log(2 * np.pi))
    density = log_aggregate.exp()
    exact = float(torch.trapezoid(density * (log_aggregate - log_prior), grid.squeeze(1)))
    assert true - 0.1 < conditional < true + 0.05
    assert exact - 0.1 < aggregate < exact + 0.05


def test_what_is_learned_starts_at_a_bound_that_nothing_was_learned_for() -> None:
    """With ν = 0 the dual form is 0, whatever the posterior."""
    divergence = DualDivergence(DualConfig(kind="dual", hidden_dim=8), 4, 3)
    for part in (divergence.conditional, divergence.aggregate):
        nn.init.zeros_(part[-1].weight)
        nn.init.zeros_(part[-1].bias)
    found = divergence(
        Inference(
            DiagonalGaussian(torch.randn(5, 3), torch.zeros(5, 3)),
            torch.randn(5, 4),
            build_prior(LatentConfig(dim=3), 0),
        )
    )
    assert torch.equal(found, torch.zeros(5))


def test_critic_alone_learns_from_its_loss() -> None:
    model = small_model("ivae").train()
    model.critic_loss(model.infer(make_batch(SENTENCES))).mean().backward()
    players = model.players()
    assert set(players) == {"inference", "generation", "critic"}
    assert all(p.grad is not None for p in players["critic"])
    assert all(p.grad is None for p in players["inference"] + players["generation"])


# --- honest figures ------------------------------------------------------------------------


def test_nll_of_the_fitted_proposal_is_that_of_the_same_gaussian_posterior() -> None:
    """A linear sampler is a Gaussian in disguise: both ways must give one likelihood."""
    model = small_model("ivae")
    linear = model.latents["z"].posterior.network
    width = linear.weight.shape[1] - 4
    with torch.no_grad():
        # about as wide as the prior: a good proposal, so that both estimates are close
        linear.weight.mul_(0.2)[:, width:] += 0.9 * torch.eye(4)
    words = [chr(97 + i) for i in range(26)]
    tokenizer = Tokenizer.train([" ".join(words)], "whitespace", None)
    texts = [" ".join(words[i - 4] for i in row) for row in random_sentences(6)]
    corpus = Corpus.from_texts(texts, tokenizer)
    found = score_sentences(model, corpus, samples=2000)
    assert found.fitted
    assert found.log_likelihood is not None
    factor = torch.linalg.cholesky(
        (linear.weight[:, width:] @ linear.weight[:, width:].t()).double()
    )
    for row in range(len(corpus)):
        batch = make_batch([corpus.sentence(row).tolist()])
        with torch.no_grad():
            q = MultivariateGaussian(model.posterior(batch).mean.double(), factor[None].detach())
            z = q.draw(streams(1), 4000)
            weights = model.decoder.log_prob_samples(z.float(), batch).double()
            weights = weights + model.log_prior(z) - q.log_prob(z)
        exact = float(weights.logsumexp(1) - np.log(4000))
        assert found.log_likelihood[row] == pytest.approx(exact, abs=0.3)


def test_latents_of_one_sentence_take_noise_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    latent = "{dim: 4, posterior: {kind: implicit}, divergence: {kind: dual, hidden_dim: 4}}"
    model = small_model("ivae", [f"latents.y={latent}"])
    model.latents["y"].load_state_dict(model.latents["z"].state_dict())
    tokenizer = Tokenizer.train(["a b c d"], "whitespace", None)
    seen: list[torch.Tensor] = []
    plain = model.decoder.log_prob_samples

    def watched(z: torch.Tensor, *given: Any) -> torch.Tensor:
        seen.append(z)
        return plain(z, *given)

    monkeypatch.setattr(model.decoder, "log_prob_samples", watched)
    ivae(model, Corpus.from_texts(["a b c", "d"], tokenizer))
    for z in seen:  # (B, 1, 4 + 4)
        one, other = z.squeeze(1).chunk(2, -1)
        assert not torch.isclose(one, other).any()


def test_figures_of_an_implicit_posterior_say_what_they_are() -> None:
    model = small_model("ivae")
    words = [chr(97 + i) for i in range(26)]
    tokenizer = Tokenizer.train([" ".join(words)], "whitespace", None)
    corpus = Corpus.from_texts(["a b c", "d e", "f g h i", "b d"], tokenizer)
    found = evaluate(model, corpus, tokenizer, samples=20)
    for name in ("nll", "kl", "elbo", "mi"):
        assert found[name].value is not None
        assert "fitted" in found[name].estimator
    for name in ("nll_ivae", "kl_ivae", "mi_ivae"):
        assert found[name].value is not None
    assert "not a bound" in found["nll_ivae"].definition
    again = evaluate(model, corpus, tokenizer, samples=20, batch_size=1)
    for name, metric in found.items():
        assert again[name].value == pytest.approx(metric.value, abs=1e-4), name
