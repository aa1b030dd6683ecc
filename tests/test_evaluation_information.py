"""Mutual information and active units against closed forms; BLEU against sacrebleu."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU

from uncollapse.data.batches import sequential_batches
from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.errors import UserError
from uncollapse.evaluation import information
from uncollapse.evaluation.information import active_units, kl_per_dimension, mutual_information
from uncollapse.evaluation.passes import posterior_pass
from uncollapse.evaluation.posterior_draws import streams
from uncollapse.evaluation.reconstruction import corpus_bleu, reconstruction_bleu
from uncollapse.latents.priors import UniformSphere
from uncollapse.model import Model
from uncollapse.recipes import load_recipe


def gaussians(count: int, dim: int, spread: float, sigma: float, seed: int = 0) -> DiagonalGaussian:
    generator = torch.Generator().manual_seed(seed)
    mean = spread * torch.randn(count, dim, generator=generator)
    return DiagonalGaussian(mean, torch.full_like(mean, 2 * math.log(sigma)))


def value(posterior: DiagonalGaussian, seed: int = 0) -> float:
    found = mutual_information(posterior, seed=seed).value
    assert found is not None
    return found


def test_well_separated_posteriors_reach_the_ceiling() -> None:
    found = mutual_information(gaussians(700, 32, 10.0, 0.01))
    assert found.value == pytest.approx(math.log(700), abs=1e-6)
    assert found.samples == 700
    assert "N = 700" in found.estimator


def test_equal_posteriors_tell_nothing() -> None:
    mean = torch.randn(8).expand(300, -1)
    assert value(DiagonalGaussian(mean, torch.zeros(300, 8))) == pytest.approx(0, abs=1e-6)


def test_gaussian_channel() -> None:
    """μ ~ N(0, s²), z ~ N(μ, σ²): I = ½ ln(1 + s²/σ²) a dimension."""
    for spread, dim in ((0.5, 2), (1.0, 3)):
        found = mutual_information(gaussians(4000, dim, spread, 1.0))
        exact = 0.5 * dim * math.log(1 + spread**2)
        assert found.value is not None
        assert found.standard_error is not None
        assert abs(found.value - exact) < 4 * found.standard_error
        assert found.standard_error < 0.05


def test_two_components_by_numerical_integration() -> None:
    mean = torch.tensor([[-1.0], [1.5]]).repeat(1500, 1)
    log_variance = torch.tensor([[0.2], [-0.7]]).repeat(1500, 1)
    z = np.linspace(-12, 12, 20_001)
    step = z[1] - z[0]

    def density(m: float, lv: float) -> np.ndarray:
        return np.exp(-0.5 * ((z - m) ** 2 / math.exp(lv) + lv + math.log(2 * math.pi)))

    first, second = density(-1.0, 0.2), density(1.5, -0.7)
    mixture = (first + second) / 2
    exact = sum(np.sum(q * np.log((q + 1e-300) / mixture)) * step / 2 for q in (first, second))
    found = mutual_information(DiagonalGaussian(mean, log_variance))
    assert found.standard_error is not None
    assert found.value == pytest.approx(exact, abs=4 * found.standard_error)


def test_the_standard_error_is_that_of_repetition() -> None:
    runs = [mutual_information(gaussians(400, 2, 1.0, 1.0, seed=s), seed=s) for s in range(60)]
    spread = np.std([run.value for run in runs])
    claimed = np.mean([run.standard_error for run in runs])  # type: ignore[type-var]
    assert claimed == pytest.approx(spread, rel=0.35)


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 40),
    dim=st.integers(1, 5),
    spread=st.floats(0, 100),
    sigma=st.floats(1e-3, 10),
    seed=st.integers(0, 99),
)
def test_blocks_agree_with_densities_and_respect_the_ceiling(
    count: int, dim: int, spread: float, sigma: float, seed: int
) -> None:
    posterior = gaussians(count, dim, spread, sigma, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(information, "BLOCK", 7)
        found = value(posterior, seed)
    assert found <= math.log(count) + 1e-6
    wide = DiagonalGaussian(posterior.mean.double(), posterior.log_variance.double())
    z = wide.draw(streams(seed, torch.arange(count)), 1)[:, 0]
    density = torch.stack([wide.log_prob(row) for row in z])  # (N, N)
    aggregate = density.logsumexp(1) - math.log(count)
    assert found == pytest.approx(float((density.diagonal() - aggregate).mean()), abs=1e-4)


def test_negative_estimates_are_reported() -> None:
    runs = [value(gaussians(10, 1, 0.05, 1.0), seed) for seed in range(40)]
    assert min(runs) < 0
    with pytest.raises(UserError):
        mutual_information(gaussians(3, 1, 1.0, 1.0), seed=-1)


def test_active_units() -> None:
    random = torch.Generator().manual_seed(0)
    scale = torch.tensor([0.0, 0.05, 0.2, 3.0])
    means = 1000 + scale * torch.randn(500, 4, generator=random, dtype=torch.float64)
    found = active_units(means)
    assert (found.value, found.standard_error) == (2.0, 0.0)
    assert "0.01" in found.estimator
    assert found.samples == 500
    assert active_units(means, threshold=1.0).value == 1
    # a unit at the threshold is uncertain
    edge = 0.1 * (means[:, 3:] - 1000) / (means[:, 3:]).std()
    assert active_units(edge).standard_error > 0.2  # type: ignore[operator]
    assert active_units(means[:1]).value is None


def test_unbiased_variance_at_the_threshold() -> None:
    pair = torch.tensor([[0.0], [1.0]])  # unbiased variance 1/2, biased 1/4
    assert active_units(pair, threshold=0.5).value == 1
    assert active_units(pair, threshold=0.51).value == 0


def test_corpus_bleu_is_that_of_sacrebleu_with_an_error() -> None:
    references = ["the cat sat on the mat", "a dog ran far away today", "no", "it rains again now"]
    outputs = ["the cat sat on a mat", "a dog ran far away", "yes", "it rains again now"]
    found, error, signature = corpus_bleu(outputs, references)
    assert found == BLEU(tokenize="none", force=True).corpus_score(outputs, [references]).score
    assert error is not None
    assert error > 0
    assert "tok:none" in signature
    assert corpus_bleu(references, references)[0] == pytest.approx(100)


@pytest.fixture
def trained() -> tuple[Model, Corpus, Tokenizer]:
    """An autoencoder that has learned four sentences by heart."""
    texts = ["a b c d e", "e d c b a", "b b a a c", "d e d e d"]
    tokenizer = Tokenizer.train(texts, "whitespace", None)
    corpus = Corpus.from_texts(texts * 2, tokenizer)
    sizes = [f"{part}.{size}=24" for part in ("encoder", "decoder")
             for size in ("hidden_dim", "embedding_dim")]  # fmt: skip
    noise = ["decoder.embedding_dropout=0", "decoder.output_dropout=0", "latents.z.dim=8"]
    noise += ["encoder.init_scale=null", "decoder.init_scale=null"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Model(load_recipe("autoencoder", [*sizes, *noise]), len(tokenizer))
        optimizer = torch.optim.Adam(model.parameters(), 2e-2)
        for _ in range(120):
            for batch in sequential_batches(corpus, 8):
                optimizer.zero_grad()
                (-model(batch).reconstruction.mean()).backward()
                optimizer.step()
    return model, corpus, tokenizer


def test_a_perfect_autoencoder_has_bleu_100(trained: tuple[Model, Corpus, Tokenizer]) -> None:
    model, corpus, tokenizer = trained
    found = posterior_pass(model, corpus)
    assert found is not None
    bleu = reconstruction_bleu(model, corpus, tokenizer, found)
    assert bleu.value == pytest.approx(100)
    assert "tok:none" in bleu.estimator


def test_kl_per_dimension(trained: tuple[Model, Corpus, Tokenizer]) -> None:
    model, corpus, tokenizer = trained
    with pytest.raises(UserError, match="no KL"):
        kl_per_dimension(model, corpus)
    gaussian = Model(load_recipe("vae", ["latents.z.dim=3"]), len(tokenizer))
    found = kl_per_dimension(gaussian, corpus)
    passed = posterior_pass(gaussian, corpus, batch_size=3)
    assert passed is not None
    np.testing.assert_allclose(found, passed.posterior.kl_standard().mean(0), atol=1e-6)


def test_units_of_a_sphere_are_active_in_its_own_measure() -> None:
    """On a sphere of many dimensions no coordinate can vary as much as under N(0, 1)."""
    torch.manual_seed(0)
    dim = 64
    means = 0.3 * torch.nn.functional.normalize(torch.randn(500, dim), dim=-1)
    assert active_units(means).value == 0
    assert active_units(means, UniformSphere(dim).deviation).value == dim
    assert active_units(0 * means, UniformSphere(dim).deviation).value == 0
    assert UniformSphere(dim).deviation.tolist() == pytest.approx([dim**-0.5] * dim)
    drawn = UniformSphere(dim).sample(20_000, torch.Generator().manual_seed(0))
    assert float(drawn.std(0).mean()) == pytest.approx(dim**-0.5, rel=0.01)
