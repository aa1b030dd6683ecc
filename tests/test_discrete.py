"""Discrete latents: their divergences, their relaxation, and their exact likelihood."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from helpers import make_batch, random_sentences, small_model
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from uncollapse.config import RelaxationConfig
from uncollapse.distributions.exponential import FiniteFamily, Member
from uncollapse.distributions.families import Bernoulli, Categorical
from uncollapse.latents.discrete import unit_log_probs
from uncollapse.latents.divergences.aggregated_kl import aggregated_kl
from uncollapse.latents.posteriors.relaxation import GumbelSoftmax
from uncollapse.latents.priors import UniformCategorical

CODES: dict[str, FiniteFamily] = {"categorical": Categorical(3), "bernoulli": Bernoulli()}
UNITS, ROWS = 3, 4
every_code_family = pytest.mark.parametrize("name", list(CODES))


def posterior_of(name: str, seed: int = 0, rows: int = ROWS) -> Member:
    torch.manual_seed(seed)
    family = CODES[name]
    return Member(family, 2 * torch.randn(rows, UNITS, family.parameters, dtype=torch.float64))


# --- divergences --------------------------------------------------------------------------


@every_code_family
def test_kl_and_probabilities_agree_with_enumeration(name: str) -> None:
    q, prior = posterior_of(name), UniformCategorical(CODES[name], UNITS)
    points = prior.points(512)
    assert points is not None
    z = points.double().expand(ROWS, -1, -1)  # (B, C, D)
    log_q, log_p = q.log_prob(z), prior.log_prob(z)
    torch.testing.assert_close(log_q.logsumexp(1), torch.zeros(ROWS).double())
    torch.testing.assert_close(log_p.logsumexp(1), torch.zeros(ROWS).double())
    kl = prior.kl(q)
    assert kl is not None
    assert kl.shape == (ROWS, UNITS)
    torch.testing.assert_close(kl.sum(1), (log_q.exp() * (log_q - log_p)).sum(1))
    units = unit_log_probs(q)
    assert units is not None
    for row in range(ROWS):
        values = CODES[name].values()
        for code in itertools.product(range(len(values)), repeat=UNITS):
            point = values[list(code)].flatten()
            by_unit = sum(units[row, unit, value] for unit, value in enumerate(code))
            torch.testing.assert_close(q[row].log_prob(point.double()), by_unit)


@given(st.integers(0, 1000), st.integers(1, 30), st.sampled_from(list(CODES)))
def test_kl_is_that_of_the_mean_and_the_mutual_information(seed: int, rows: int, name: str) -> None:
    q = posterior_of(name, seed, rows)
    log_probs = unit_log_probs(q)
    kl = UniformCategorical(CODES[name], UNITS).kl(q)
    assert log_probs is not None
    assert kl is not None
    probs = log_probs.exp()
    mean = probs.mean(0)
    entropy_of_mean = -(mean * mean.log()).sum(-1)  # (M,)
    information = entropy_of_mean + (probs * log_probs).sum(-1).mean(0)
    assert (information > -1e-12).all()
    torch.testing.assert_close(kl.mean(0), aggregated_kl(log_probs) + information)


def test_a_value_that_nobody_uses_has_finite_gradients() -> None:
    logits = torch.tensor([[[0.0, 0.0, -1e4]]]).repeat(5, 2, 1).requires_grad_()
    value = aggregated_kl(logits.log_softmax(-1)).sum()
    value.backward()
    assert value.item() == pytest.approx(2 * math.log(3 / 2), rel=1e-6)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_di_vae_charges_all_but_the_mutual_information() -> None:
    batch = make_batch(random_sentences(12))
    charged = {}
    for name in ("di-vae", "discrete-vae"):
        model = small_model(name)
        torch.manual_seed(3)
        terms = model(batch)
        charged[name] = terms.divergence["c"]
        probs = terms.variables["c"].exp()
        torch.testing.assert_close(terms.elbo, terms.reconstruction - terms.kl["c"].sum(1))
    mean = probs.mean(0)
    entropies = -(probs * probs.log()).sum((1, 2))
    information = -(mean * mean.log()).sum() - entropies.mean()
    torch.testing.assert_close(
        charged["di-vae"].mean(), charged["discrete-vae"].mean() - information
    )
    assert (charged["di-vae"] == charged["di-vae"][0]).all()


# --- relaxation ---------------------------------------------------------------------------


def relaxation(name: str, **settings: object) -> GumbelSoftmax:
    return GumbelSoftmax(CODES[name], RelaxationConfig.model_validate(settings))


@every_code_family
@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_relaxed_draws_are_nearest_to_codes_as_often_as_these_are_likely(
    name: str, temperature: float
) -> None:
    q = posterior_of(name, rows=1)
    draws = 40_000
    natural = q.natural.expand(draws, -1, -1)
    torch.manual_seed(0)
    soft = relaxation(name, temperature=temperature)(natural)  # (S, U, E)
    assert ((soft >= 0) & (soft <= 1)).all()
    hard = CODES[name].nearest(soft)
    mean = CODES[name].mean(q.natural[0])
    error = (mean * (1 - mean) / draws).sqrt()
    assert ((hard.mean(0) - mean).abs() < 4.5 * error).all()
    if name == "categorical":
        torch.testing.assert_close(soft.sum(-1), torch.ones(draws, UNITS).double())


@every_code_family
def test_straight_through_gives_codes_and_the_gradient_of_relaxed_draws(name: str) -> None:
    family = CODES[name]
    natural = posterior_of(name, rows=50).natural.requires_grad_()
    weight = torch.randn(50, UNITS, family.width, dtype=torch.float64)
    found = {}
    for straight_through in (False, True):
        torch.manual_seed(1)
        drawn = relaxation(name, temperature=0.7, straight_through=straight_through)(natural)
        (gradient,) = torch.autograd.grad((drawn * weight).sum(), natural)
        found[straight_through] = drawn.detach(), gradient
    soft, code = found[False][0], found[True][0]
    assert torch.equal(code, family.nearest(soft))
    values = family.values()
    assert all(
        any(torch.equal(one, value) for value in values.double()) for one in code.flatten(0, 1)
    )
    assert torch.equal(found[True][1], found[False][1])


@every_code_family
def test_relaxed_draws_have_the_gradient_of_their_function(name: str) -> None:
    def draw(natural: Tensor) -> Tensor:
        torch.manual_seed(2)
        return relaxation(name, temperature=0.7)(natural)

    assert torch.autograd.gradcheck(draw, posterior_of(name).natural.requires_grad_())


@every_code_family
def test_relaxed_draws_in_single_precision_are_finite_at_the_edges(name: str) -> None:
    natural = posterior_of(name, rows=2000).natural.float() * 40
    natural.requires_grad_()
    drawn = relaxation(name, temperature=0.05, straight_through=True)(natural)
    drawn.sum().backward()
    assert drawn.isfinite().all()
    assert natural.grad is not None
    assert natural.grad.isfinite().all()


def test_temperature_falls_geometrically_and_stays() -> None:
    falling = relaxation("categorical", temperature=2.0, final=0.5, epochs=4)
    found = []
    for epochs in (0, 1, 2, 3.5, 4, 9):
        falling.schedule(epochs)
        found.append(falling.temperature)
    assert found == pytest.approx([2, 2 * 0.25**0.25, 1, 2 * 0.25**0.875, 0.5, 0.5])
    constant = relaxation("categorical", temperature=2.0)
    constant.schedule(7)
    assert constant.temperature == 2


def test_training_relaxes_and_evaluation_does_not() -> None:
    model = small_model("discrete-vae", ["latents.c.posterior.relaxation={final: 0.1, epochs: 2}"])
    batch = make_batch(random_sentences(30))
    family = model.latents["c"].posterior.family
    for training in (True, False):
        z = model.train(training).infer(batch)["c"].draw().unflatten(1, (-1, 5))
        assert torch.equal(family.nearest(z), z) == (not training)
    posterior = model.posterior(batch)
    assert posterior is not None
    drawn = posterior.draw([np.random.default_rng(row) for row in range(30)], 6)
    drawn = drawn.unflatten(-1, (-1, 5))
    assert torch.equal(family.nearest(drawn), drawn)
    model.schedule(1)
    assert model.latents["c"].posterior.relaxation.temperature == pytest.approx(0.1**0.5)
