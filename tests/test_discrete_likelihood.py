"""Models whose z is a code: exact likelihoods, and figures that batches do not move."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from helpers import SENTENCES, VOCABULARY, make_batch, small_model
from torch.nn import functional as F

from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.evaluation import likelihood
from uncollapse.evaluation.likelihood import score_sentences
from uncollapse.evaluation.likelihood_figures import elbo, nll, ppl_elbo
from uncollapse.evaluation.passes import posterior_pass
from uncollapse.model import Model


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    words = [f"w{number}" for number in range(VOCABULARY - 4)]
    texts = [" ".join(words[word - 4] for word in sentence) for sentence in SENTENCES]
    tokenizer = Tokenizer.train([" ".join(words), *texts], "whitespace", None)
    assert len(tokenizer) == VOCABULARY
    return Corpus.from_texts(texts, tokenizer)


ENUMERABLE = {
    "discrete-vae": [],
    "supervised-dvae": ["latents.z.dim=2"],
    "dbm-vae": ["latents.z.groups=2", "latents.z.dim=2"],
    "cm-vae": ["latents.z.dim=2"],
}


@torch.no_grad()
def by_hand(model: Model, corpus: Corpus, row: int) -> tuple[float, float, float, float]:
    """Of one sentence, code by code: log p(x) and E_q log p(x|z), and standard deviations.

    Those of an importance weight p(x, z) / q(z|x), as a share of its mean p(x), and of log p(x|z).
    """
    latent = next(iter(model.latents.values()))
    batch = make_batch([corpus.sentence(row).tolist()])
    q, family = model.posterior(batch), latent.posterior.family
    assert q is not None
    log_q, joint, scores = [], [], []
    for code in itertools.product(range(len(family.values())), repeat=latent.dim // family.width):
        z = family.values()[list(code)].flatten()[None]
        scores.append(model.decoder.log_prob(z, batch).item())
        joint.append(scores[-1] + latent.prior.log_prob(z).item())
        log_q.append(q.log_prob(z).item())
    share, score = np.exp(log_q), np.array(scores)
    exact, expected = np.logaddexp.reduce(joint), (share * score).sum()
    weight = np.exp(np.array(joint) - log_q - exact)
    spread = (share * np.square(weight)).sum() - 1
    return exact, expected, spread**0.5, (share * (score - expected) ** 2).sum() ** 0.5


@pytest.mark.parametrize("name", list(ENUMERABLE))
def test_likelihood_of_few_codes_is_exact(
    name: str, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model(name, ENUMERABLE[name])
    found = score_sentences(model, corpus, samples=7)
    assert found.codes == len(model.every_point(512)) > 0  # type: ignore[arg-type]
    assert found.samples == found.reconstruction_samples == 0
    assert found.log_likelihood is not None
    rows = [by_hand(model, corpus, row) for row in range(len(corpus))]
    exact, expected, weight_spread, score_spread = np.array(rows).T
    np.testing.assert_allclose(found.log_likelihood, exact, rtol=1e-5)
    np.testing.assert_allclose(found.reconstruction, expected, rtol=1e-5)
    # importance sampling, a bound, comes to the same, and so does the mean of reconstructions
    monkeypatch.setattr(likelihood, "ENUMERATED", 1)
    monkeypatch.setattr(likelihood, "ELBO_SAMPLES", 4000)
    sampled = score_sentences(model, corpus, samples=4000, batch_size=2)
    assert sampled.codes == 0
    assert sampled.log_likelihood is not None
    error = weight_spread / 4000**0.5
    assert error.max() < 0.1
    assert (np.abs(np.expm1(sampled.log_likelihood - exact)) < 4.5 * error + 1e-5).all()
    error = score_spread / 4000**0.5
    assert (np.abs(sampled.reconstruction - expected) < 4.5 * error + 1e-5).all()


def test_figures_say_what_is_summed_over_and_what_is_drawn(corpus: Corpus) -> None:
    model = small_model("dbm-vae", ENUMERABLE["dbm-vae"])  # the KL to a mixture is drawn
    scores, found = score_sentences(model, corpus), posterior_pass(model, corpus)
    assert found is not None
    assert found.kl is not None
    kl = found.kl.double().sum(1).numpy()
    assert nll(scores).estimator.startswith("exact, a sum over all 16 values of z;")
    for metric in (elbo(scores, kl, 10), ppl_elbo(scores, kl, 10)):
        assert "16 values of z; KL by 10 posterior samples" in metric.estimator
        assert metric.samples == 10
    assert elbo(scores, kl).samples == len(corpus)


def test_a_continuous_latent_beside_codes_is_sampled(corpus: Corpus) -> None:
    model = small_model("semi-vae")
    assert model.every_point(10**6) is None
    found = score_sentences(model, corpus, samples=20)
    assert (found.codes, found.samples) == (0, 20)


def test_two_latents_of_codes_are_summed_over_together(corpus: Corpus) -> None:
    extra = "{dim: 1, posterior: {kind: bernoulli}, prior: {kind: uniform-categorical}}"
    model = small_model("discrete-vae", [f"latents.d={extra}"])
    points = model.every_point(512)
    assert points is not None
    assert len(torch.unique(points, dim=0)) == len(points) == 50
    assert model.every_point(49) is None
    assert model.log_prior(points.double()).logsumexp(0).item() == pytest.approx(0, abs=1e-6)
    assert score_sentences(model, corpus).codes == 50


@pytest.mark.parametrize(
    "name", ["gm-vae", "dcm-vae", "dbm-vae", "di-vae", "semi-vae", "gamma-mixture-vae"]
)
def test_figures_do_not_depend_on_the_batch_size(name: str, corpus: Corpus) -> None:
    model = small_model(name).train()
    passes = [posterior_pass(model, corpus, batch_size=size) for size in (1, 3)]
    scores = [score_sentences(model, corpus, samples=12, batch_size=size) for size in (1, 3)]
    assert model.training
    np.testing.assert_allclose(scores[0].log_likelihood, scores[1].log_likelihood, rtol=1e-5)
    np.testing.assert_allclose(scores[0].reconstruction, scores[1].reconstruction, rtol=1e-5)
    one, other = passes
    assert one is not None
    assert other is not None
    torch.testing.assert_close(one.kl, other.kl, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one.means, other.means)
    assert one.variables.keys() == other.variables.keys() == model.variable_sizes().keys()
    for variable, log_probs in one.variables.items():
        assert log_probs.shape == (len(corpus), *model.variable_sizes()[variable])
        torch.testing.assert_close(log_probs, other.variables[variable], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(log_probs.logsumexp(-1), torch.zeros(log_probs.shape[:-1]))


def test_chosen_codes_stand_in_the_draws_of_the_prior() -> None:
    model = small_model("semi-vae")
    chosen = torch.tensor([[2, -1], [0, 4], [-1, -1]])
    z = model.sample_prior(3, torch.Generator().manual_seed(0), {"c": chosen})
    assert z is not None
    codes = z[:, 4:].unflatten(1, (2, 5))
    assert torch.equal(codes, F.one_hot(codes.argmax(-1), 5).float())
    assert torch.equal(codes.argmax(-1)[chosen >= 0], chosen[chosen >= 0])
