"""Priors without a density: their draws, and the bound that draws alone give."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from helpers import SENTENCES, VOCABULARY, make_batch, random_sentences
from torch import Tensor, nn

from uncollapse.config import ConditionalImplicitConfig, parse_recipe
from uncollapse.data.batches import Batch, sequential_batches
from uncollapse.data.corpus import Corpus
from uncollapse.data.sentences import Sentences
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.encoders.context import Condition
from uncollapse.evaluation import likelihood_figures
from uncollapse.evaluation.likelihood import score_sentences
from uncollapse.evaluation.paper_variants import ivae
from uncollapse.evaluation.passes import posterior_pass
from uncollapse.evaluation.standard import evaluate
from uncollapse.latents.divergences import DualDivergence
from uncollapse.latents.priors import ConditionalImplicit
from uncollapse.model import Model

C, D, ROWS = 3, 4, 5
CONTEXTS = [random_sentences(3, seed=1), random_sentences(1, seed=2), [], random_sentences(2)]


def prior_of(dim: int = D, seed: int = 0, **settings: object) -> ConditionalImplicit:
    """In evaluation mode, with weights far from 0."""
    config = ConditionalImplicitConfig.model_validate(
        {"kind": "conditional-implicit", "hidden_dim": 12, **settings}
    )
    torch.manual_seed(seed)
    prior = ConditionalImplicit(config, C, dim)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.normal_()
    return prior.eval()


def condition_of(vector: Tensor, present: list[bool] | None = None) -> Condition:
    rows = len(vector)
    here = torch.ones(rows, dtype=torch.bool) if present is None else torch.tensor(present)
    mask = torch.zeros(rows, 0, dtype=torch.bool)
    return Condition(vector * here[:, None], vector.new_zeros(rows, 0, 2), mask, here)


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the prior -----------------------------------------------------------------------------


@pytest.mark.parametrize("components", [1, 3])
def test_without_a_context_it_is_standard_noise_through_the_generator(components: int) -> None:
    prior = prior_of(components=components)
    context = condition_of(torch.randn(ROWS, C), [True, False, True, False, True])
    found, plain = prior.given(context).sample(ROWS, seeded()), prior.sample(ROWS, seeded())
    absent = ~context.present
    assert torch.equal(found[absent], plain[absent])
    assert not torch.isclose(found[~absent], plain[~absent]).all(1).any()
    single = prior_of(components=1)
    noise = torch.randn(3, D, generator=seeded())
    with torch.no_grad():
        torch.testing.assert_close(single.sample(3, seeded()), single.generator(noise))


@pytest.mark.parametrize("components", [1, 3])
def test_a_row_depends_on_its_own_context_alone(components: int) -> None:
    prior, vector = prior_of(components=components), torch.randn(ROWS, C)
    other = vector.clone()
    other[2:] = torch.randn(ROWS - 2, C)
    for training in (False, True):
        prior.train(training)
        one = prior.given(condition_of(vector)).sample(ROWS, seeded())
        two = prior.given(condition_of(other)).sample(ROWS, seeded())
        torch.testing.assert_close(one[:2], two[:2])
        assert not torch.isclose(one[2:], two[2:]).all(1).any()


def test_noise_is_what_the_context_says() -> None:
    """With no generator in the way: frequencies of components, means and variances."""
    prior = prior_of(components=3)
    prior.generator = nn.Sequential()
    context = condition_of(0.3 * torch.randn(1, C)).repeat(60_000)
    noise = prior.given(context).noise
    assert noise is not None
    weights, mean = noise.log_weights[0].exp(), noise.mean[0]  # (K,), (K, E)
    assert weights.max() < 0.99
    expected = weights @ mean
    second = weights @ (mean.square() + noise.log_variance[0].exp())
    for drawn in (
        prior.given(context).sample(60_000, seeded()),
        prior.given(context).rsample(60_000).detach(),
        prior.train().given(context).rsample(60_000).detach(),
    ):
        error = (second - expected.square()).sqrt() / math.sqrt(60_000)
        assert ((drawn.mean(0) - expected).abs() < 5 * error).all()
        torch.testing.assert_close(drawn.square().mean(0), second, rtol=0.05, atol=0.02)


def test_components_are_codes_in_training_and_pass_gradients_on() -> None:
    prior = prior_of(components=3).train()
    prior.generator = nn.Sequential()
    given = prior.given(condition_of(torch.randn(ROWS, C)))
    assert given.noise is not None
    given.noise = given.noise._replace(log_variance=torch.full((ROWS, 3, D), -80.0))
    drawn = given.rsample(ROWS)  # (B, E): a component's mean, exactly
    distance = (drawn[:, None] - given.noise.mean).abs().amax(-1).amin(-1)
    assert (distance < 1e-6).all()
    drawn.sum().backward()
    output = prior.network[-1]
    assert isinstance(output, nn.Linear)
    assert output.weight.grad is not None
    assert output.weight.grad[:3].any()  # those of the components' weights


def test_it_has_no_density_and_says_so() -> None:
    prior = prior_of()
    assert not prior.has_density
    assert prior.kl(DiagonalGaussian(torch.zeros(2, D), torch.zeros(2, D))) is None
    with pytest.raises(TypeError, match="no density"):
        prior.log_prob(torch.zeros(2, D))
    assert prior.deviation.shape == (D,)
    assert torch.equal(prior.deviation, prior.given(condition_of(torch.randn(2, C))).deviation)


# --- in a model ----------------------------------------------------------------------------


READER = {"kind": "gru", "embedding_dim": 5, "hidden_dim": 6}
IMPLICIT = {"kind": "implicit", "generator": {"hidden_dim": 6}}
WASSERSTEIN = {"kind": "wasserstein", "hidden_dim": 5}
DUAL = {"kind": "dual", "of": "aggregate", "hidden_dim": 4}


def model_of(
    posterior: dict[str, Any] = IMPLICIT,
    divergence: dict[str, Any] = WASSERSTEIN,
    vocabulary: int = VOCABULARY,
    **prior: Any,
) -> Model:
    """A small conditional model in evaluation mode, with weights far from 0."""
    latent = {
        "dim": D,
        "posterior": posterior,
        "prior": {"kind": "conditional-implicit", "hidden_dim": 6} | prior,
        "divergence": divergence,
    }
    values = {
        "name": "test",
        "summary": "-",
        "source": "-",
        "data": {"context_turns": 9},
        "encoder": READER,
        "condition": {"hidden_dim": 7},
        "latents": {"z": latent},
        "decoder": READER | {"every_input": False, "initial_state": "hidden"},
        "training": {"select_on": "objective"},
    }
    torch.manual_seed(1)
    model = Model(parse_recipe(values), vocabulary)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.9, 0.9)
    return model.eval()


def corpus_of(tokenizer: Tokenizer) -> Corpus:
    turns = ["a b c", "d", "b b a d", "c a", "d c b a"]
    spoken = [{"speaker": "AB"[place % 2], "text": text} for place, text in enumerate(turns)]
    dialogues = [{"turns": spoken[:count]} for count in (5, 3, 1)]
    return Corpus.from_records(Sentences(dialogues, "text", ()), tokenizer, context_turns=9)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["a b c d"], "whitespace", None)


def exact_moments(model: Model, batch: Batch) -> Tensor:
    """By the trapezoidal rule over ε, of p = p(x | G(μ + σ ε), context), for every sentence.

    Returns
    -------
    Tensor
        ``(B, 3)`` float64: ln E p, E ln p, and the standard deviation of p over E p.
    """
    grid = torch.linspace(-9, 9, 2001, dtype=torch.float64)
    log_weight = -0.5 * (grid.square() + math.log(2 * math.pi)) + math.log(float(grid[1] - grid[0]))
    with torch.no_grad():
        condition = model.read(batch)
        assert condition is not None
        prior = model.named_latents()["z"].prior.given(condition)
        assert isinstance(prior, ConditionalImplicit)
        assert prior.noise is not None
        mean, log_variance = prior.noise.mean[:, 0], prior.noise.log_variance[:, 0]  # (B, 1)
        points = mean + (0.5 * log_variance).exp() * grid.float()  # (B, S)
        z = prior.generator(points[:, :, None])  # (B, S, D)
        scores = model.decoder.log_prob_samples(z, batch, condition).double()
    exact = (scores + log_weight).logsumexp(1)
    square = (2 * scores + log_weight).logsumexp(1)
    expected = (log_weight.exp() * scores).sum(1)
    return torch.stack([exact, expected, (square - 2 * exact).expm1().clamp(min=0).sqrt()], 1)


@pytest.mark.parametrize("posterior", [IMPLICIT, {"kind": "gaussian"}], ids=lambda p: p["kind"])
def test_draws_from_the_prior_bound_the_likelihood(
    posterior: dict[str, Any], tokenizer: Tokenizer
) -> None:
    corpus = corpus_of(tokenizer)
    model = model_of(posterior, noise_dim=1, hidden_dim=12, vocabulary=len(tokenizer))
    prior = model.named_latents()["z"].prior
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in prior.parameters():  # the same for either posterior
            parameter.uniform_(-1.5, 1.5)
    moments = torch.zeros(len(corpus), 3, dtype=torch.float64)
    for batch in sequential_batches(corpus, 4):
        moments[batch.index] = exact_moments(model, batch)
    exact, of_one_draw, deviation = moments.unbind(1)
    assert (exact > of_one_draw + 0.02).any()  # z matters

    found = score_sentences(model, corpus, samples=5000)
    assert found.from_prior
    assert not found.fitted
    assert found.log_likelihood is not None
    error = deviation / math.sqrt(found.samples)
    known = error < 0.02  # rare z would need more draws
    assert known.any()
    difference = torch.from_numpy(found.log_likelihood) - exact
    assert (difference.abs() < 4 * error + 1e-3)[known].all()

    seeds = [score_sentences(model, corpus, samples=1, seed=seed) for seed in range(100)]
    single = np.stack([own.log_likelihood for own in seeds if own.log_likelihood is not None])
    error = single.std(0) / math.sqrt(len(single))
    assert (np.abs(single.mean(0) - of_one_draw.numpy()) < 4 * error + 1e-3).all()


def test_figures_depend_on_neither_batches_nor_further_samples(tokenizer: Tokenizer) -> None:
    model, corpus = model_of(vocabulary=len(tokenizer), components=2), corpus_of(tokenizer)
    one, other = (score_sentences(model, corpus, samples=60, batch_size=b) for b in (1, 8))
    assert one.log_likelihood is not None
    assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-5)
    assert one.reconstruction == pytest.approx(other.reconstruction, abs=1e-5)
    # without its context, a response is another
    bare = score_sentences(model, Corpus.from_texts(["c a"], tokenizer), samples=60)
    assert bare.log_likelihood is not None
    assert abs(bare.log_likelihood - one.log_likelihood[3]) > 1e-4
    state = torch.random.get_rng_state()
    score_sentences(model, corpus, samples=3)
    assert torch.equal(state, torch.random.get_rng_state())


def test_reconstruction_is_of_the_posterior(tokenizer: Tokenizer) -> None:
    """With a posterior that is a point, it does not vary; what the prior draws does."""
    model, corpus = model_of({"kind": "gaussian"}, vocabulary=len(tokenizer)), corpus_of(tokenizer)
    linear = model.named_latents()["z"].posterior.linear
    assert isinstance(linear, nn.Linear)
    with torch.no_grad():
        linear.weight[D:] = 0
    linear.register_parameter("bias", nn.Parameter(torch.tensor([0.0] * D + [-60.0] * D)))
    one, other = (score_sentences(model, corpus, samples=20, seed=s) for s in (0, 1))
    assert one.reconstruction == pytest.approx(other.reconstruction, abs=1e-5)
    assert one.log_likelihood != pytest.approx(other.log_likelihood, abs=1e-3)


def test_figures_say_what_they_are(tokenizer: Tokenizer) -> None:
    model, corpus = model_of(vocabulary=len(tokenizer)), corpus_of(tokenizer)
    found = evaluate(model, corpus, tokenizer, samples=5)
    assert "upper bound, loose: S = 5 prior samples" in found["nll"].estimator
    assert "posterior samples" in found["reconstruction"].estimator
    for name in ("kl", "elbo", "ppl_elbo", "mi"):
        assert found[name].value is None
        assert found[name].estimator == "none: the prior has no density"
    assert found["nll"].value is not None
    assert found["active_units"].value is not None
    assert found["bleu"].value is not None
    scores = score_sentences(model, corpus, samples=5)
    assert likelihood_figures.ppl(scores).value == found["ppl"].value
    seen = posterior_pass(model, corpus)
    assert seen is not None
    assert seen.kls == {}
    assert not seen.fitted


def test_the_learned_divergence_is_from_each_context_s_prior(tokenizer: Tokenizer) -> None:
    model, corpus = model_of(divergence=DUAL, vocabulary=len(tokenizer)), corpus_of(tokenizer)
    one, other = (ivae(model, corpus, batch_size=size) for size in (1, 8))
    for name, metric in one.items():
        assert metric.value == pytest.approx(other[name].value, abs=1e-4)
    divergence = model.named_latents()["z"].divergence
    assert isinstance(divergence, DualDivergence)
    first = divergence.aggregate[0]
    assert isinstance(first, nn.Linear)
    assert first.in_features == D + 7  # the context is beside z
    with torch.no_grad():
        first.weight[:, D:] = 0  # no longer
    changed = ivae(model, corpus)
    assert changed["kl_ivae"].value == pytest.approx(one["kl_ivae"].value, abs=1e-4)
    assert changed["mi_ivae"].value != pytest.approx(one["mi_ivae"].value, abs=1e-4)


def test_a_generator_s_posterior_reads_its_noise_from_the_sentence() -> None:
    model = model_of()
    batch = make_batch(SENTENCES, contexts=CONTEXTS)
    with torch.no_grad():
        posterior = model.posterior(batch)
        assert posterior is not None
        assert not posterior.has_density
        mean = posterior.mean
        together = torch.stack([posterior.rsample() for _ in range(4000)])
        alone = model.posterior(make_batch(SENTENCES[:1], contexts=CONTEXTS[:1]))
        assert alone is not None
        torch.testing.assert_close(alone.mean[0], mean[0], atol=1e-5, rtol=1e-4)
    error = together.std(0) / math.sqrt(64)
    assert ((together.mean(0) - mean).abs() < 5 * error).all()
    assert together.std(0).min() > 0
