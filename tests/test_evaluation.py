"""Likelihood figures: against exact marginals, and independent of how they are computed."""

from __future__ import annotations

import json
import math
from functools import cache

import numpy as np
import pytest
import torch

from uncollapse.data.batches import BucketedBatches, sequential_batches
from uncollapse.data.corpus import Corpus
from uncollapse.data.grammar import assistant_grammar
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.errors import RunError, UserError
from uncollapse.evaluation import likelihood, likelihood_figures
from uncollapse.evaluation.likelihood import score_sentences
from uncollapse.evaluation.metric import Metric, ratio_over_sentences
from uncollapse.evaluation.passes import posterior_pass
from uncollapse.evaluation.posterior_draws import SentenceDraws
from uncollapse.evaluation.standard import STANDARD, evaluate, metric_names
from uncollapse.model import Model
from uncollapse.recipes import load_recipe

TEXTS = ["a", "b a", "c a b", "a a a a", "c c", "b", "d a c b a", "a zebra"]


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS[:-1], "whitespace", None)


def corpus(texts: list[str] = TEXTS) -> Corpus:
    return Corpus.from_texts(texts, tokenizer())


def small_model(name: str = "vae", *overrides: str, dim: int = 1, seed: int = 0) -> Model:
    """A random model whose decoder listens to z."""
    sizes = ["decoder.hidden_dim=6", "decoder.embedding_dim=5", "decoder.init_scale=1.5"]
    if name != "lstm-lm":
        sizes += ["encoder.hidden_dim=6", "encoder.embedding_dim=5", "encoder.init_scale=0.8"]
        sizes += [f"latents.z.dim={dim}"]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Model(load_recipe(name, [*sizes, *overrides]), len(tokenizer()))


def by_quadrature(model: Model, data: Corpus) -> np.ndarray:
    """log ∫ p(z) p(x|z) dz over a one-dimensional z, (N,)."""
    model.eval()
    grid = torch.linspace(-9, 9, 1801)
    log_prior = -0.5 * (grid.double().square() + math.log(2 * math.pi))
    result = np.empty(len(data))
    for batch in sequential_batches(data, 4):
        z = grid[None, :, None].expand(batch.size, -1, -1)
        joint = model.decoder.log_prob_samples(z, batch).double() + log_prior
        result[batch.index.numpy()] = joint.logsumexp(1).numpy() + math.log(18 / 1800)
    return result


def test_importance_weighting_finds_the_exact_marginal() -> None:
    model, data = small_model(), corpus()
    exact = by_quadrature(model, data)
    found = score_sentences(model, data, samples=20_000).log_likelihood
    assert found is not None
    np.testing.assert_allclose(found, exact, atol=0.02)


def test_posterior_of_the_mean_of_steps_gives_the_same_marginal() -> None:
    """The density in the weights must be that of the z that the decoder saw."""
    model, data = small_model("twr-vae-mean"), corpus()
    found = score_sentences(model, data, samples=20_000).log_likelihood
    np.testing.assert_allclose(found, by_quadrature(model, data), atol=0.1)  # type: ignore[arg-type]


def test_more_samples_tighten_the_bound() -> None:
    model, data = small_model(), corpus()

    def mean_bound(samples: int) -> float:
        runs = [score_sentences(model, data, samples=samples, seed=s) for s in range(40)]
        return float(np.mean([run.log_likelihood for run in runs]))

    exact = by_quadrature(model, data).mean()
    one, four, many = mean_bound(1), mean_bound(4), mean_bound(64)
    assert one < four < many < exact + 0.02
    # one sample is the ELBO in expectation
    found = posterior_pass(model, data)
    assert found is not None
    assert found.kl is not None
    rec = np.mean([score_sentences(model, data, seed=s).reconstruction for s in range(40)])
    assert one == pytest.approx(rec - float(found.kl.sum(1).mean()), abs=0.1)


@pytest.mark.parametrize("rows", [1, 7, 24, 100, 10_000])
def test_chunks_never_change_the_result(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    model, data = small_model(dim=3), corpus()
    expected = score_sentences(model, data, samples=25)
    monkeypatch.setattr(likelihood, "ROWS", rows)  # 25 samples are divisible by no such chunk
    found = score_sentences(model, data, samples=25)
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, atol=1e-5)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.reconstruction, expected.reconstruction, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batch_size_does_not_matter(batch_size: int) -> None:
    model, data = small_model("twr-vae-sum", dim=3), corpus()
    expected = evaluate(model, data, tokenizer(), samples=20, batch_size=5)
    found = evaluate(model, data, tokenizer(), samples=20, batch_size=batch_size)
    for name, metric in expected.items():
        assert found[name].value == pytest.approx(metric.value, abs=1e-4), name
        assert found[name].standard_error == pytest.approx(metric.standard_error, abs=1e-4), name


def test_a_sentence_does_not_feel_its_neighbours() -> None:
    model = small_model("max-pool-vae", dim=3)
    together = score_sentences(model, corpus(), samples=20)
    alone = score_sentences(model, corpus(TEXTS[:1]), samples=20)
    assert together.log_likelihood is not None
    assert alone.log_likelihood is not None
    assert together.log_likelihood[0] == pytest.approx(alone.log_likelihood[0], abs=1e-5)
    assert together.reconstruction[0] == pytest.approx(alone.reconstruction[0], abs=1e-5)


def test_a_seed_decides_everything_and_leaves_no_trace() -> None:
    model, data = small_model(dim=2), corpus()
    model.train()
    model.decoder.output_dropout.eval()  # a mode that no blanket call would restore
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr]
    first = evaluate(model, data, tokenizer(), samples=8)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # type: ignore[index]
    assert model.training
    assert model.decoder.training
    assert not model.decoder.output_dropout.training
    torch.manual_seed(2)
    assert evaluate(model, data, tokenizer(), samples=8) == first
    assert evaluate(model, data, tokenizer(), samples=8, seed=3)["nll"] != first["nll"]


def test_draws_of_fewer_samples_are_a_prefix_and_of_rows_independent() -> None:
    rows = torch.tensor([4, 0, 9])
    posterior = DiagonalGaussian(torch.randn(3, 2), torch.randn(3, 2))
    whole = SentenceDraws(posterior, 5, rows).draw(130)
    stream = SentenceDraws(posterior, 5, rows)
    assert torch.equal(torch.cat([stream.draw(4), stream.draw(126)], 1), whole)
    assert torch.equal(SentenceDraws(posterior[2:], 5, rows[2:]).draw(10)[0], whole[2, :10])
    assert not torch.equal(SentenceDraws(posterior, 6, rows).draw(130), whole)


def test_a_language_model_is_exact() -> None:
    model, data = small_model("lstm-lm"), corpus()
    scores = score_sentences(model, data, samples=500)
    model.eval()
    for batch in sequential_batches(data, 3):
        expected = model.decoder.log_prob(None, batch).detach().numpy()
        assert scores.log_likelihood is not None
        np.testing.assert_allclose(scores.log_likelihood[batch.index], expected, atol=1e-5)
    found = evaluate(model, data, tokenizer())
    assert found["nll"].estimator.startswith("exact")
    assert found["elbo"].value == pytest.approx(-found["nll"].value)  # type: ignore[operator]
    assert all(found[name].value is None for name in ("kl", "mi", "active_units", "bleu"))


def test_an_autoencoder_gets_dashes() -> None:
    found = evaluate(small_model("autoencoder", dim=2), corpus(), tokenizer())
    for name in ("kl", "elbo", "nll", "ppl", "mi", "ppl_elbo"):
        assert found[name].value is None, name
        assert found[name].format() == "–"
    for name in ("reconstruction", "active_units", "bleu", "unknown_rate"):
        assert found[name].value is not None, name


def test_huge_log_weights_neither_overflow_nor_vanish(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = small_model(dim=2), corpus()
    expected = score_sentences(model, data, samples=30).log_likelihood
    exact = model.decoder.log_prob_samples
    for shift in (-1e5, 1e5):  # exp of either is no float64
        monkeypatch.setattr(
            model.decoder, "log_prob_samples", lambda z, b, c, s=shift: exact(z, b, c) + s
        )
        found = score_sentences(model, data, samples=30).log_likelihood
        np.testing.assert_allclose(found - shift, expected, atol=1e-5)  # type: ignore[operator,arg-type]


def test_a_non_finite_score_is_an_error() -> None:
    model = small_model()
    with torch.no_grad():
        model.decoder.output.weight.fill_(torch.nan)
    with pytest.raises(RunError, match="sentence 1 is nan"):
        score_sentences(model, corpus(), samples=2)


def test_perplexity_and_its_error() -> None:
    nats, tokens = np.array([3.0, 5.0, 10.0, 2.0]), np.array([2, 2, 5, 1])
    found = likelihood_figures.perplexity(nats, tokens, "e", "d", 7)
    assert found.value == pytest.approx(math.exp(2.0))
    random = np.random.default_rng(0)
    tokens = random.integers(2, 40, 3000)
    nats = 4.5 * tokens + random.normal(0, 5, 3000)
    rate, error = ratio_over_sentences(nats, tokens)
    resampled = []
    for _ in range(300):
        rows = random.integers(0, 3000, 3000)
        resampled.append(nats[rows].sum() / tokens[rows].sum())
    assert error == pytest.approx(np.std(resampled), rel=0.15)
    found = likelihood_figures.perplexity(nats, tokens, "e", "d", 7)
    assert found.standard_error == pytest.approx(math.exp(rate) * error)  # type: ignore[operator]


def test_figures_agree_with_one_another() -> None:
    data = corpus()
    found = evaluate(small_model(dim=2), data, tokenizer(), samples=300)
    assert tuple(found) == STANDARD
    value = {name: metric.value for name, metric in found.items()}
    assert value["elbo"] == pytest.approx(value["reconstruction"] - value["kl"])  # type: ignore[operator]
    assert value["nll"] < -value["elbo"]  # type: ignore[operator]
    rate = value["nll"] * len(data) / (data.lengths + 1).sum()  # type: ignore[operator]
    assert value["ppl"] == pytest.approx(math.exp(rate))
    assert value["ppl"] < value["ppl_elbo"]  # type: ignore[operator]
    assert value["unknown_rate"] == pytest.approx(1 / data.lengths.sum())
    assert found["nll"].samples == 300
    for name, metric in found.items():
        assert metric.standard_error is not None, name
        assert set(json.loads(json.dumps(metric.to_dict()))) == {
            "value", "unit", "standard_error", "estimator", "samples", "definition",
        }  # fmt: skip


def test_a_figure_is_the_same_alone_and_among_others() -> None:
    model, data = small_model("twr-vae", dim=2), corpus()
    everything = evaluate(model, data, tokenizer(), samples=20)
    for name in metric_names(model):
        alone = evaluate(model, data, tokenizer(), samples=20, metrics=[name])
        assert list(alone) == [name]
        assert alone[name].value == pytest.approx(everything[name].value, abs=1e-6), name
        assert alone[name].samples == everything[name].samples


def test_bad_requests_are_refused_by_name() -> None:
    model, data = small_model(), corpus()
    with pytest.raises(UserError, match=r"'nlll'.*'nll'"):
        evaluate(model, data, tokenizer(), metrics=["nlll"])
    with pytest.raises(UserError, match="nll_twr"):
        evaluate(model, data, tokenizer(), metrics=["nll_twr"])
    for wrong in ({"samples": 0}, {"sentences": 0}, {"seed": -1}, {"batch_size": 0}):
        with pytest.raises(UserError):
            evaluate(model, data, tokenizer(), **wrong)


def test_only_the_first_sentences() -> None:
    model = small_model()
    part = evaluate(model, corpus(), tokenizer(), samples=5, sentences=3)
    assert part["nll"] == evaluate(model, corpus(TEXTS[:3]), tokenizer(), samples=5)["nll"]
    single = evaluate(model, corpus(), tokenizer(), samples=5, sentences=1)
    assert single["nll"].value is not None
    assert single["nll"].standard_error is None


def test_twr_by_hand() -> None:
    model, data = small_model("twr-vae-mean", "latents.z.divergence.last=0.5", dim=2), corpus()
    found = evaluate(model, data, tokenizer(), metrics=["nll_twr", "ppl_twr"])
    model.eval()
    expected = []
    for i in range(len(data)):
        batch = next(iter(sequential_batches(corpus([TEXTS[i]]), 1)))
        inference = model.infer(batch)["z"]
        assert inference.steps is not None
        kl = inference.steps.kl_standard().sum(-1)[0].detach()  # (T,)
        last = max(1, round(len(kl) * 0.5))
        log_prob = model.decoder.log_prob(inference.posterior.mean, batch).detach()
        expected.append(float(kl[-last:].mean() - log_prob[0]))
    assert found["nll_twr"].value == pytest.approx(np.mean(expected), rel=1e-5)
    rate = np.sum(expected) / (data.lengths + 2).sum()
    assert found["ppl_twr"].value == pytest.approx(math.exp(rate), rel=1e-5)


def test_several_latents_are_one() -> None:
    second = "latents.c={dim: 2, readout: mean}"
    model, data = small_model("vae", second), corpus()
    found = evaluate(model, data, tokenizer(), samples=10)
    model.eval()
    (batch,) = sequential_batches(data, 100)
    terms = model(batch)
    expected = sum(kl.sum(-1) for kl in terms.kl.values()).mean()  # type: ignore[union-attr]
    assert found["kl"].value == pytest.approx(float(expected.detach()), rel=1e-5)
    passed = posterior_pass(model, data)
    assert passed is not None
    assert passed.posterior.mean.shape == (len(data), 3)


@pytest.mark.slow
def test_no_bound_passes_the_entropy_of_the_grammar() -> None:
    """A model that has learned the grammar a little stays above its exact entropy."""
    grammar = assistant_grammar()
    train, test = grammar.sample(1000, seed=1), grammar.sample(100, seed=2)
    words = Tokenizer.train([" ".join(grammar.vocabulary)], "whitespace", None)
    sizes = ["encoder.hidden_dim=32", "encoder.embedding_dim=32", "decoder.embedding_dropout=0"]
    sizes += ["decoder.hidden_dim=48", "decoder.embedding_dim=48", "decoder.output_dropout=0"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        wide = ["encoder.init_scale=null", "decoder.init_scale=null", "latents.z.dim=4"]
        model = Model(load_recipe("vae", [*sizes, *wide]), len(words))
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        batches = BucketedBatches(Corpus.from_texts([s.text for s in train], words), 32)
        for epoch in range(3):
            for batch in batches.epoch(epoch):
                loss = -model(batch).elbo.mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    data = Corpus.from_texts([s.text for s in test], words)
    found = score_sentences(model, data, samples=20).log_likelihood
    assert found is not None
    excess = np.array([s.log_prob for s in test]) - found  # mean: KL(grammar ‖ model) ≥ 0
    assert excess.mean() > -3 * excess.std() / math.sqrt(len(excess))
    assert -found.mean() < 3 * grammar.entropy()  # it did learn


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (100.26, 0.43, "100.3 ± 0.4"),
        (59.44, 1.26, "59.4 ± 1.3"),
        (0.01234, 0.0021, "0.012 ± 0.002"),
        (17.0, 0.0, "17"),
        (2.34567, None, "2.346"),
        (None, None, "–"),
    ],
)
def test_format(value: float | None, error: float | None, text: str) -> None:
    assert Metric(value, "nats", error, "", 1, "").format() == text
