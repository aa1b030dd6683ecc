"""Geometry probes on cases whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from uncollapse.data.batches import Batch, sequential_batches
from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.encoders import Encoded
from uncollapse.errors import UserError
from uncollapse.evaluation.aggregate import aggregate_kl, aggregate_posterior
from uncollapse.evaluation.geometry import (
    GEOMETRY,
    cosine_similarity,
    geometry_probes,
    sentence_features,
)
from uncollapse.evaluation.interpolation import (
    ROUGE,
    Interpolation,
    common_subsequence,
    interpolate_pairs,
    rouge_l,
    rouge_metric,
    rouge_n,
)
from uncollapse.evaluation.lagging import obstacle, posterior_gap, posterior_means
from uncollapse.evaluation.passes import PosteriorPass, posterior_pass
from uncollapse.evaluation.standard import evaluate
from uncollapse.evaluation.word_order import nll_shuffled, shuffle_words, shuffled_likelihood
from uncollapse.latents import Latent
from uncollapse.model import Model
from uncollapse.recipes import load_recipe

TEXTS = ["a", "b a", "c a b", "a a a a", "c c", "b", "d a c b a", "a b c d"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, "whitespace", None)


@pytest.fixture(scope="module")
def corpus(tokenizer: Tokenizer) -> Corpus:
    return Corpus.from_texts(TEXTS, tokenizer)


def small_model(tokenizer: Tokenizer, name: str = "vae", *overrides: str, dim: int = 1) -> Model:
    """A random model whose decoder listens to z."""
    sizes = ["decoder.hidden_dim=6", "decoder.embedding_dim=5", "decoder.init_scale=1.5"]
    if name != "lstm-lm":
        sizes += ["encoder.hidden_dim=6", "encoder.embedding_dim=5", "encoder.init_scale=0.8"]
        sizes += [f"latents.z.dim={dim}"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Model(load_recipe(name, [*sizes, *overrides]), len(tokenizer))


# --- ROUGE ------------------------------------------------------------------------------------


def test_rouge_by_hand() -> None:
    reference = ["the", "cat", "sat", "on", "the", "mat"]
    written = ["the", "cat", "sat"]
    assert rouge_n(written, reference, 1) == pytest.approx(2 * 3 / (3 + 6))
    assert rouge_n(written, reference, 2) == pytest.approx(2 * 2 / (2 + 5))
    assert rouge_l(written, reference) == pytest.approx(2 * 3 / (3 + 6))
    # a word counts as often as both have it
    assert rouge_n(["the", "the", "the"], ["the", "cat"], 1) == pytest.approx(2 * 1 / (3 + 2))
    # order matters to the longest common subsequence alone, gaps do not
    swapped = ["mat", "the", "on", "sat", "cat", "the"]
    assert rouge_n(swapped, reference, 1) == 1
    assert rouge_n(swapped, reference, 2) == 0
    assert rouge_l(swapped, reference) == pytest.approx(2 * 3 / 12)  # the … sat … the
    assert rouge_l(["the", "x", "sat", "y", "the"], reference) == pytest.approx(2 * 3 / 11)


def test_rouge_of_nothing() -> None:
    assert rouge_n([], ["a"], 1) == rouge_n(["a"], [], 1) == rouge_n([], [], 1) == 0
    assert rouge_l([], ["a"]) == rouge_l(["a"], []) == rouge_l([], []) == 0
    assert rouge_n(["a"], ["a"], 2) == 0  # no bigram to share


@given(a=st.lists(st.integers(0, 3), max_size=80), b=st.lists(st.integers(0, 3), max_size=80))
def test_common_subsequence_is_that_of_the_dynamic_programme(a: list[int], b: list[int]) -> None:
    longest = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, left in enumerate(a, 1):
        for j, right in enumerate(b, 1):
            longest[i, j] = (
                longest[i - 1, j - 1] + 1
                if left == right
                else max(longest[i - 1, j], longest[i, j - 1])
            )
    assert common_subsequence(a, b) == longest[-1, -1]


# --- interpolation ----------------------------------------------------------------------------


def test_rouge_metric_weighs_the_nearer_end() -> None:
    shares = np.array([0.0, 0.5, 1.0])
    scores = np.array([[[100.0, 50, 0], [0, 50, 100]], [[100, 0, 0], [0, 0, 100]]])  # (P, 2, A)
    found = Interpolation(shares, dict.fromkeys(ROUGE, scores), 5)
    metric = rouge_metric(found, "1")
    # of the pairs: (100 + 50 + 100) / 3 and (100 + 0 + 100) / 3
    assert metric.value == pytest.approx(75)
    assert metric.standard_error == pytest.approx(25 / 3)
    assert metric.samples == 2
    np.testing.assert_allclose(found.curves("1"), [[100, 25, 0], [0, 25, 100]])
    np.testing.assert_allclose(found.errors("1"), [[0, 25, 0], [0, 25, 0]])


def test_an_autoencoder_goes_from_one_sentence_to_the_other() -> None:
    texts = ["a b c d e", "e d c b a", "b b a a c", "d e d e d"]
    tokenizer = Tokenizer.train(texts, "whitespace", None)
    corpus = Corpus.from_texts(texts, tokenizer)
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
    found = interpolate_pairs(model, corpus, tokenizer)
    assert found.pairs == 2
    assert len(found.shares) == 11
    for name in ROUGE:
        curves = found.curves(name)
        np.testing.assert_allclose([curves[0, 0], curves[1, -1]], 100)
        assert curves[1, 0] < 70
        assert curves[0, -1] < 70
        assert 50 < (rouge_metric(found, name).value or 0) < 100


def test_no_sentence_is_in_two_pairs(
    tokenizer: Tokenizer, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[np.ndarray] = []
    select = Corpus.select

    def spy(self: Corpus, rows: np.ndarray) -> Corpus:
        chosen.append(rows)
        return select(self, rows)

    monkeypatch.setattr(Corpus, "select", spy)
    model = small_model(tokenizer)
    few = interpolate_pairs(model, corpus, tokenizer, pairs=3)
    assert few.pairs == 3
    assert interpolate_pairs(model, corpus, tokenizer, pairs=300).pairs == len(TEXTS) // 2
    assert all(len(set(rows.tolist())) == len(rows) for rows in chosen)


# --- features ---------------------------------------------------------------------------------


def test_identical_features_have_cosine_one_and_orthogonal_ones_zero() -> None:
    same = cosine_similarity(torch.randn(7).expand(30, -1) * torch.rand(30, 1), "z")
    assert (same.value, same.standard_error) == (pytest.approx(1), pytest.approx(0, abs=1e-7))
    apart = cosine_similarity(3 * torch.eye(12), "z")
    assert (apart.value, apart.standard_error) == (pytest.approx(0), pytest.approx(0, abs=1e-7))
    opposite = cosine_similarity(torch.tensor([[2.0, 1], [-4, -2]]), "z")
    assert (opposite.value, opposite.standard_error) == (pytest.approx(-1), None)
    assert cosine_similarity(torch.ones(1, 3), "z").value is None


def test_cosine_and_its_jackknife_over_all_pairs() -> None:
    features = torch.randn(9, 4, generator=torch.Generator().manual_seed(1)) + 0.5
    features[3] = 0  # has no direction: its cosines count as 0

    def by_pairs(rows: Tensor) -> float:
        unit = rows.double() / rows.double().norm(dim=1, keepdim=True).clamp(min=1e-12)
        count = len(rows)
        return float(((unit @ unit.t()).sum() - unit.square().sum()) / (count * (count - 1)))

    without = [by_pairs(features[torch.arange(9) != left]) for left in range(9)]
    found = cosine_similarity(features, "z")
    assert found.value == pytest.approx(by_pairs(features))
    assert found.standard_error == pytest.approx(math.sqrt(8 * np.var(without)))
    assert "N = 9" in found.estimator


def test_the_error_of_the_cosine_is_that_of_repetition() -> None:
    random = torch.Generator().manual_seed(0)
    runs = [cosine_similarity(0.4 + torch.randn(60, 5, generator=random), "z") for _ in range(80)]
    claimed = np.mean([run.standard_error for run in runs])  # type: ignore[type-var]
    spread = np.std([run.value or 0 for run in runs])
    assert claimed == pytest.approx(spread, rel=0.25)


@pytest.mark.parametrize("name", ["vae", "max-pool-vae", "twr-vae"])
def test_features_are_what_the_posterior_reads(
    tokenizer: Tokenizer, corpus: Corpus, name: str
) -> None:
    model = small_model(tokenizer, name)
    found = sentence_features(model, corpus, batch_size=3)
    assert found is not None
    assert found[1] == "z"
    for batch in sequential_batches(corpus, 1):
        with torch.no_grad():
            expected = model.eval().infer(batch)["z"].features
        torch.testing.assert_close(found[0][batch.index], expected)


# --- word order -------------------------------------------------------------------------------


def test_shuffling_keeps_the_words_of_every_sentence(corpus: Corpus) -> None:
    shuffled = shuffle_words(corpus, seed=3)
    assert (shuffled.offsets == corpus.offsets).all()
    for row in range(len(corpus)):
        assert sorted(shuffled.sentence(row)) == sorted(corpus.sentence(row))
    assert (shuffled.tokens != corpus.tokens).any()
    assert (shuffled.tokens == shuffle_words(corpus, seed=3).tokens).all()
    assert (shuffled.tokens != shuffle_words(corpus, seed=4).tokens).any()
    head = shuffle_words(corpus.head(4), seed=3)
    assert (head.tokens == shuffled.tokens[: len(head.tokens)]).all()


def test_every_order_is_as_likely(tokenizer: Tokenizer) -> None:
    corpus = Corpus.from_texts(["a b c"] * 3000, tokenizer)
    shuffled = shuffle_words(corpus).tokens.reshape(-1, 3)
    _, counts = np.unique(shuffled, axis=0, return_counts=True)
    assert len(counts) == 6
    assert np.abs(counts - 500).max() < 100


class BagOfWords(nn.Module):
    """An encoder that cannot tell the order of words."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)

    def forward(self, batch: Batch) -> Encoded:
        states = self.embedding(batch.tokens)
        summary = (states * batch.mask[:, :, None]).sum(1)
        return Encoded(states, summary, batch.mask)


def test_order_is_worth_nothing_to_a_bag_of_words(tokenizer: Tokenizer, corpus: Corpus) -> None:
    model = small_model(tokenizer, dim=3)
    ordered = shuffled_likelihood(model, corpus, samples=20)
    assert np.abs(ordered.shuffled - ordered.original).max() > 1e-3
    model.encoder = BagOfWords(len(tokenizer), 6)  # type: ignore[assignment]
    blind = shuffled_likelihood(model, corpus, samples=20)
    np.testing.assert_allclose(blind.shuffled, blind.original, atol=1e-4)
    metric = nll_shuffled(blind)
    assert metric.value == pytest.approx(
        evaluate(model, corpus, tokenizer, metrics=["nll"], samples=20)["nll"].value, abs=1e-4
    )
    assert "S = 20" in metric.estimator
    assert f"in place {blind.original.mean():.4f}" in metric.estimator


def test_the_posterior_of_shuffled_words_still_gives_the_likelihood(
    tokenizer: Tokenizer, corpus: Corpus
) -> None:
    """A worse proposal, and the same marginal."""
    found = shuffled_likelihood(small_model(tokenizer), corpus, samples=10_000)
    np.testing.assert_allclose(found.shuffled, found.original, atol=0.05)


# --- inference against generation -------------------------------------------------------------


class Channel(nn.Module):
    """A model whose posterior is known: "x" is y(x) = gain · z + noise, z ~ N(centre, spread²)."""

    latent_dim = 1
    has_likelihood = True

    def __init__(self, gain: float, noise: float, centre: float = 0.0, spread: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.gain, self.noise, self.centre, self.spread = gain, noise, centre, spread
        self.answer: Callable[[Tensor], Tensor] = self.mean

    @property
    def decoder(self) -> Channel:
        return self

    @staticmethod
    def observed(batch: Batch) -> Tensor:
        return 0.5 * batch.tokens[:, 1].double() - 3  # (B,)

    def mean(self, observed: Tensor) -> Tensor:
        precision = self.spread**-2 + (self.gain / self.noise) ** 2
        pull = self.centre / self.spread**2 + self.gain * observed / self.noise**2
        return pull / precision

    @staticmethod
    def named_latents() -> dict[str, Latent]:
        return {}

    def read(self, _batch: Batch) -> None:
        return None

    def log_prob_samples(self, z: Tensor, batch: Batch, _condition: None) -> Tensor:
        residual = self.observed(batch)[:, None] - self.gain * z[:, :, 0].double()
        return -0.5 * (residual / self.noise).square()

    def log_prior(self, z: Tensor, _condition: None = None) -> Tensor:
        standard = (z[..., 0] - self.centre) / self.spread
        return -0.5 * standard.square() - math.log(self.spread * math.sqrt(2 * math.pi))

    @staticmethod
    def in_support(z: Tensor) -> Tensor:
        return z

    def posterior(self, batch: Batch) -> DiagonalGaussian:
        mean = self.answer(self.observed(batch))[:, None]
        return DiagonalGaussian(mean, torch.zeros_like(mean))


@pytest.mark.parametrize(
    ("gain", "noise", "centre", "spread"),
    [
        (1.0, 1.0, 0.0, 1.0),
        (0.0, 1.0, 0.0, 1.0),  # z unused
        (1.0, 0.01, 0.0, 1.0),  # far narrower than a step of the first grid
        (2.0, 0.5, 4.0, 2.0),
        (1.0, 0.1, -20.0, 3.0),  # sentences are far from the prior
    ],
)
def test_posterior_means_of_a_gaussian_channel(
    corpus: Corpus, gain: float, noise: float, centre: float, spread: float
) -> None:
    model: Any = Channel(gain, noise, centre, spread)
    found = posterior_means(model, corpus, batch_size=3)
    np.testing.assert_allclose(found.model, found.approximate, atol=2e-4 * spread)
    assert found.deviation == pytest.approx(spread, rel=1e-5)
    assert posterior_gap(found).value == pytest.approx(0, abs=2e-4)


def test_the_gap_is_in_prior_standard_deviations(corpus: Corpus) -> None:
    model: Any = Channel(1.0, 1.0, 0.0, 2.0)
    model.answer = lambda observed: model.mean(observed) + 0.5
    found = posterior_means(model, corpus)
    metric = posterior_gap(found)
    assert metric.value == pytest.approx(0.25, abs=1e-4)
    assert metric.standard_error == pytest.approx(0, abs=1e-4)
    assert metric.unit == "prior standard deviations"


def test_both_modes_count(corpus: Corpus) -> None:
    """z² is observed: the posterior is symmetric, its mean 0."""
    model: Any = Channel(1.0, 0.05)

    def of_the_square(z: Tensor, batch: Batch, condition: None) -> Tensor:
        return Channel.log_prob_samples(model, z.double().square(), batch, condition)

    model.log_prob_samples = of_the_square
    np.testing.assert_allclose(posterior_means(model, corpus).model, 0, atol=1e-6)


def test_posterior_means_of_a_model_by_brute_force(tokenizer: Tokenizer, corpus: Corpus) -> None:
    model = small_model(tokenizer)
    found = posterior_means(model, corpus, batch_size=3)
    grid = torch.linspace(-9, 9, 4001)
    for batch in sequential_batches(corpus, 1):
        joint = model.eval().decoder.log_prob_samples(grid[None, :, None], batch).double()
        weights = (joint - 0.5 * grid.double().square()).softmax(1)
        assert found.model[int(batch.index)] == pytest.approx(float(weights[0] @ grid.double()))
        with torch.no_grad():
            posterior = model.posterior(batch)
        assert posterior is not None
        assert found.approximate[int(batch.index)] == pytest.approx(float(posterior.mean))
    some = posterior_means(model, corpus, sentences=3)
    np.testing.assert_allclose(some.model, found.model[[0, 4, 7]], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gm-vae", None),
        ("gamma-mixture-vae", "none: needs a latent that can be any number"),
        ("dbm-vae", "none: needs a latent that can be any number"),
    ],
)
def test_a_gap_is_measured_where_z_can_be_any_number(
    name: str, reason: str | None, tokenizer: Tokenizer
) -> None:
    one = ("latents.z.groups=1", "decoder.tied_softmax=false")
    assert obstacle(small_model(tokenizer, name, *one)) == reason


# --- the aggregate ----------------------------------------------------------------------------


def passed(mean: Tensor, log_variance: Tensor) -> PosteriorPass:
    posterior = DiagonalGaussian(mean, log_variance)
    kls = {"z": posterior.kl_standard()}
    return PosteriorPass(posterior, posterior, mean, mean, kls, 0, False, None)


def test_a_posterior_that_is_the_prior_has_no_aggregate_kl() -> None:
    metric = aggregate_kl(passed(torch.zeros(300, 4), torch.zeros(300, 4)))
    assert (metric.value, metric.standard_error) == (pytest.approx(0), pytest.approx(0))
    assert "N = 300" in metric.estimator
    assert f"{math.log(300):.2f}" in metric.estimator


def test_the_aggregate_of_a_gaussian_channel_is_gaussian() -> None:
    """μ ~ N(m, s²) and z ~ N(μ, σ²): q(z) = N(m, s² + σ²)."""
    random = torch.Generator().manual_seed(0)
    for spread, sigma, shift in ((0.6, 0.8, 0.0), (0.0, 1.0, 1.0), (0.5, 0.5, 0.7)):
        mean = shift + spread * torch.randn(4000, 2, generator=random)
        metric = aggregate_kl(passed(mean, torch.full_like(mean, 2 * math.log(sigma))))
        total = spread**2 + sigma**2
        exact = shift**2 + total - 1 - math.log(total)  # of both dimensions
        assert metric.value is not None
        assert metric.standard_error is not None
        assert abs(metric.value - exact) < 4 * metric.standard_error + 0.01
        assert metric.standard_error < 0.05


def test_kl_is_mutual_information_plus_aggregate_kl(tokenizer: Tokenizer, corpus: Corpus) -> None:
    model = small_model(tokenizer, dim=3)
    found = evaluate(model, corpus, tokenizer, metrics=["kl", "mi"], seed=5)
    rest = geometry_probes(model, corpus, tokenizer, metrics=["aggregate_kl"], seed=5)
    total = (found["mi"].value or 0) + (rest["aggregate_kl"].value or 0)
    assert total == pytest.approx(found["kl"].value, abs=1e-5)


def test_draws_of_aggregate_and_prior(tokenizer: Tokenizer, corpus: Corpus) -> None:
    model = small_model(tokenizer, dim=3)
    found = aggregate_posterior(model, corpus, seed=1)
    assert found.samples.shape == found.prior.shape == (10_000, 3)
    np.testing.assert_allclose(found.prior.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(found.prior.std(0), 1, atol=0.05)
    again = aggregate_posterior(model, corpus, seed=1, batch_size=3)
    np.testing.assert_allclose(again.samples, found.samples, atol=1e-5)
    passed_over = posterior_pass(model, corpus)
    assert passed_over is not None
    np.testing.assert_allclose(found.samples.mean(0), passed_over.means.mean(0), atol=0.05)


# --- all of them ------------------------------------------------------------------------------


def test_every_probe_has_a_figure(tokenizer: Tokenizer, corpus: Corpus) -> None:
    model = small_model(tokenizer).train()
    state = torch.random.get_rng_state()
    last: dict[str, tuple[int, int]] = {}
    found = geometry_probes(
        model,
        corpus,
        tokenizer,
        samples=10,
        progress=lambda what, done, total: last.update({what: (done, total)}),
    )
    assert tuple(found) == GEOMETRY
    assert set(last) == {"interpolation", "features", "likelihood", "posterior gap", "posteriors"}
    assert all(done == total for done, total in last.values())
    for metric in found.values():
        assert metric.value is not None
        assert math.isfinite(metric.value)
        assert metric.standard_error is not None
    # nothing outside is changed, and nothing but the seed matters
    assert model.training
    assert (torch.random.get_rng_state() == state).all()
    for name in GEOMETRY:
        alone = geometry_probes(model, corpus, tokenizer, metrics=[name], samples=10, batch_size=3)
        assert list(alone) == [name]
        assert alone[name].value == pytest.approx(found[name].value, abs=1e-4), name


def test_what_a_system_does_not_have_is_a_dash(tokenizer: Tokenizer, corpus: Corpus) -> None:
    found = geometry_probes(small_model(tokenizer, "lstm-lm"), corpus, tokenizer)
    assert [metric.value for metric in found.values()] == [None] * len(GEOMETRY)
    assert all("no latent" in metric.estimator for metric in found.values())
    found = geometry_probes(small_model(tokenizer, "autoencoder"), corpus, tokenizer)
    missing = {name for name, metric in found.items() if metric.value is None}
    assert missing == {"nll_shuffled", "posterior_gap", "aggregate_kl"}
    found = geometry_probes(small_model(tokenizer, dim=2), corpus, tokenizer, samples=2)
    assert found["posterior_gap"].value is None
    assert "1 dimension" in found["posterior_gap"].estimator
    single = corpus.head(1)
    found = geometry_probes(small_model(tokenizer), single, tokenizer, samples=2)
    assert found["cosine"].value is found["interpolation_rouge_1"].value is None


def test_mistakes_are_named(tokenizer: Tokenizer, corpus: Corpus) -> None:
    model, language_model = small_model(tokenizer, dim=2), small_model(tokenizer, "lstm-lm")
    with pytest.raises(UserError, match="did you mean 'cosine'"):
        geometry_probes(model, corpus, tokenizer, metrics=["cosines"])
    with pytest.raises(UserError, match="samples"):
        geometry_probes(model, corpus, tokenizer, samples=0)
    with pytest.raises(UserError, match="seed"):
        geometry_probes(model, corpus, tokenizer, seed=-1)
    with pytest.raises(UserError, match="1 dimension"):
        posterior_means(model, corpus)
    for probe in (posterior_means, aggregate_posterior, shuffled_likelihood):
        with pytest.raises(UserError, match="no latent variable"):
            probe(language_model, corpus)
    with pytest.raises(UserError, match="language model"):
        interpolate_pairs(language_model, corpus, tokenizer)
    with pytest.raises(UserError, match="pair"):
        interpolate_pairs(model, corpus.head(1), tokenizer)


@pytest.mark.parametrize("name", ["vmf-vae", "ivae", "twr-vae-sum"])
def test_other_posteriors(tokenizer: Tokenizer, corpus: Corpus, name: str) -> None:
    model = small_model(tokenizer, name, dim=3)
    for metric_name, metric in geometry_probes(model, corpus, tokenizer, samples=5).items():
        if metric_name != "posterior_gap":
            assert metric.value is not None, metric_name
            assert math.isfinite(metric.value), metric_name
