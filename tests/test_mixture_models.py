"""Models under mixture priors: likelihood, draws, several samples a sentence, and who learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import SENTENCES, VOCABULARY, make_batch, random_sentences, small_model
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.evaluation.likelihood import score_sentences
from uncollapse.evaluation.passes import posterior_pass, prior_scale
from uncollapse.latents.divergences.aggregated_kl import aggregated_kl
from uncollapse.recipes import load_recipe, recipe_names

STILL = ["decoder.embedding_dropout=0", "decoder.output_dropout=0"]
MIXTURES = [
    name
    for name in recipe_names()
    if any(part.prior.kind == "mixture" for part in load_recipe(name).latents.values())
]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    words = [f"w{number}" for number in range(VOCABULARY - 4)]
    texts = [" ".join(words[word - 4] for word in sentence) for sentence in SENTENCES]
    return Corpus.from_texts(texts, Tokenizer.train([" ".join(words)], "whitespace", None))


# --- likelihood ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "start", "end"), [("gm-vae", -25, 25), ("gamma-mixture-vae", 1e-6, 25)]
)
def test_importance_weighted_likelihood_is_the_integral_over_z(
    name: str, start: float, end: float, corpus: Corpus
) -> None:
    model = small_model(name, ["latents.z.groups=1", "latents.z.dim=1"])
    prior = model.latents["z"].prior
    with torch.no_grad():
        if name == "gm-vae":  # apart: a density with several tops
            prior.free[..., 0] = torch.tensor([-1.5, 0.0, 2.0])
        else:
            prior.free.add_(1.5)
    found = score_sentences(model, corpus, samples=4000)
    z = torch.linspace(start, end, 8001, dtype=torch.float64)[:, None]
    log_prior = model.log_prior(z)
    assert torch.trapezoid(log_prior.exp(), z[:, 0]).item() == pytest.approx(1, abs=1e-3)
    with torch.no_grad():
        for row in range(len(corpus)):
            batch = make_batch([corpus.sentence(row).tolist()])
            score = model.decoder.log_prob_samples(z[None].float(), batch)[0].double()
            exact = torch.trapezoid((score + log_prior).exp(), z[:, 0]).log().item()
            assert found.log_likelihood is not None
            assert found.log_likelihood[row] == pytest.approx(exact, abs=0.05)


@pytest.mark.parametrize("name", ["gm-vae", "dgm-vae-mi", "gamma-mixture-vae"])
def test_reported_kl_bounds_that_to_the_mixture(name: str, corpus: Corpus) -> None:
    """The evaluation's is to the mixture itself, by draws; a training step's is a bound on it."""
    model = small_model(name)
    found = posterior_pass(model, corpus)
    assert found is not None
    assert found.kl is not None
    assert found.kl_samples == 10
    for row in range(len(corpus)):
        terms = model(make_batch([corpus.sentence(row).tolist()]))
        joint = terms.kl["z"].sum().item()
        parts = terms.mixtures["z"]
        whole = sum(part.sum().item() for part in vars(parts).values())
        assert joint == pytest.approx(whole, rel=1e-5)
        q = terms.posteriors["z"]
        z = q.draw([np.random.default_rng(row)], 4000)
        ratio = q.log_prob(z)[0].double() - model.log_prior(z)[0]
        assert ratio.mean().item() < joint + 4.5 * ratio.std().item() / 4000**0.5
        assert found.kl[row].sum().item() == pytest.approx(
            ratio.mean().item(), abs=5 * ratio.std().item() / 10**0.5
        )


def test_mutual_information_is_not_charged() -> None:
    batch = make_batch(random_sentences(10))
    paid, free = (small_model(name)(batch) for name in ("dgm-vae", "dgm-vae-mi"))
    log_probs = paid.variables["z.component"]
    assert torch.equal(free.variables["z.component"], log_probs)
    charged = paid.mixtures["z"].component.sum(1).mean() - aggregated_kl(log_probs).sum()
    torch.testing.assert_close(free.divergence["z"].mean(), paid.divergence["z"].mean() - charged)
    assert charged > 0.01


def test_the_scale_of_priors_of_which_some_are_on_a_gpu() -> None:
    """A standard normal has nothing that moves with the model; a uniform code has its values."""
    model = small_model("semi-vae")
    prior = model.latents["c"].prior
    mode = FakeTensorMode()
    prior.values = FakeTensor(mode, prior.values.to("meta"), torch.device("cuda:0"))
    with mode:
        scale = prior_scale(model)
    assert (scale.device.type, tuple(scale.shape)) == ("cpu", (model.latent_dim,))


# --- draws --------------------------------------------------------------------------------


def test_chosen_components_stand_behind_the_draws() -> None:
    model = small_model("gm-vae")
    prior = model.latents["z"].prior
    with torch.no_grad():
        prior.free[..., 0] = 30 * torch.arange(3)
    chosen = torch.tensor([[2, -1], [0, 1], [-1, -1]]).repeat(20, 1)
    generator = torch.Generator().manual_seed(0)
    z = model.sample_prior(60, generator, {"z.component": chosen})
    found = prior.component_log_prob(z).argmax(-1)
    assert torch.equal(found[chosen >= 0], chosen[chosen >= 0])
    assert len(found[chosen < 0].unique()) == 3


def test_several_samples_a_sentence_are_averaged_in_training_alone() -> None:
    one, many = (small_model("gm-vae", [*STILL, f"objective.samples={count}"]) for count in (1, 20))
    batch = make_batch(random_sentences(5))
    rows: list[int] = []

    states = many.decoder.states

    def counted(z: Tensor | None, inputs: Tensor, *others: Any) -> Tensor:
        rows.append(len(inputs))
        return states(z, inputs, *others)

    many.decoder.states = counted
    with torch.no_grad():
        torch.manual_seed(0)
        in_evaluation = [model.eval()(batch).reconstruction for model in (many,)]
        torch.manual_seed(0)
        assert torch.equal(in_evaluation[0], one.eval()(batch).reconstruction)
        assert rows == [5]
        torch.manual_seed(1)
        first = many.train()(batch)
        torch.manual_seed(1)
        assert torch.equal(many(batch).reconstruction, first.reconstruction)
        assert rows[1:] == [100, 100]
        assert first.reconstruction.shape == first.tokens.shape == (5,)
        averaged = torch.stack([many(batch).reconstruction for _ in range(40)])
        single = torch.stack([one.train()(batch).reconstruction for _ in range(800)])
    error = (single.var(0) / 800 + averaged.var(0) / 40).sqrt()
    assert ((single.mean(0) - averaged.mean(0)).abs() < 4.5 * error).all()
    ratio = (single.var(0) / averaged.var(0)).mean()  # of a mean of 20
    assert 12 < ratio < 33


def test_several_samples_have_the_gradient_of_their_mean() -> None:
    model = small_model("gm-vae", [*STILL, "objective.samples=3"]).train()
    batch = make_batch(SENTENCES)
    torch.manual_seed(0)
    noise = torch.randn(3, 4, 4)
    torch.manual_seed(0)
    model(batch).reconstruction.sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    q = model.infer(batch)["z"].posterior
    sum(model.decoder.log_prob(q.rsample(own), batch).sum() for own in noise).div(3).backward()
    again = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    # all but the components and what says which one it is
    still = {name for name, _ in model.named_parameters()} - found.keys()
    assert still
    assert all(name.startswith(("latents.z.prior", "latents.z.classifier")) for name in still)
    assert again.keys() == found.keys()
    for name, gradient in again.items():
        torch.testing.assert_close(gradient, found[name], rtol=1e-3, atol=1e-5)


# --- players ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MIXTURES)
def test_classifiers_infer_and_components_generate(name: str) -> None:
    model = small_model(name)
    latent = model.latents["z"]
    players = {key: {id(p) for p in part} for key, part in model.players().items()}
    assert players.keys() == {"inference", "generation", "prior"}
    for part in (latent.posterior, latent.classifier, model.encoder):
        assert {id(parameter) for parameter in part.parameters()} <= players["inference"]
    assert {id(parameter) for parameter in model.decoder.parameters()} <= players["generation"]
    assert players["prior"] == {id(latent.prior.free)}
    assert not players["inference"] & (players["generation"] | players["prior"])
    sizes = model.variable_sizes()
    variables = model.variables(model.infer(make_batch(SENTENCES)))
    assert {key: tuple(part.shape[1:]) for key, part in variables.items()} == sizes


@pytest.mark.parametrize(
    "posterior",
    [
        "{kind: gaussian}",
        "{kind: known-variance-gaussian, deviation: 0.5}",
        "{kind: von-mises-fisher}",
        "{kind: categorical, categories: 3}",
        "{kind: bernoulli, hidden: tanh}",
        "{kind: poisson}",
        "{kind: gamma}",
        "{kind: exponential}",
        "{kind: beta}",
        "{kind: dirichlet, categories: 3}",
    ],
)
def test_mixture_of_every_family_learns_and_is_measured(posterior: str, corpus: Corpus) -> None:
    sizes = ["latents.z.groups=1", "latents.z.dim=3"]
    model = small_model("dgm-vae-mi", [*sizes, f"latents.z.posterior={posterior}"]).train()
    batch = make_batch(random_sentences(8))
    torch.manual_seed(0)
    terms = model(batch)
    (terms.divergence["z"] - terms.reconstruction).mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any(), name
    assert (terms.kl["z"] >= 0).all()
    z = model.sample_prior(6, torch.Generator().manual_seed(0))
    assert z is not None
    assert z.shape == (6, model.latent_dim)
    assert model.log_prior(z).isfinite().all()
    torch.testing.assert_close(model.in_support(z), z)
    found = posterior_pass(model, corpus)
    assert found is not None
    assert found.kl is not None
    assert found.kl.isfinite().all()
    scores = score_sentences(model, corpus, samples=30)
    assert scores.log_likelihood is not None
    assert (scores.log_likelihood < 0).all()
