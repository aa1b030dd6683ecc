"""Mixture priors and their divergences, against independent mathematics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from family_cases import FAMILIES, NAMES, SPHERES, reference
from mixture_cases import B, K, M, U, log_weights_of, mixture_of, posterior_of
from torch import Tensor, nn
from torch import distributions as td

from uncollapse.distributions.base import Distribution
from uncollapse.distributions.exponential import FiniteFamily, Member
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.distributions.von_mises_fisher import VonMisesFisher
from uncollapse.latents.priors import Mixture

every_family = pytest.mark.parametrize("name", NAMES)
known_to_pytorch = pytest.mark.parametrize("name", [n for n in NAMES if n not in SPHERES])


def component_kls(name: str, prior: Mixture, posterior: Distribution) -> Tensor:
    """KL(q_m ‖ p_mk) by PyTorch, ``(B, M, K)``."""
    natural = prior.natural.detach()  # (M, U, K, P)
    q = FAMILIES[name].of(posterior).unflatten(1, (prior.groups, prior.units))  # (B, M, U, P)
    shape = (len(q), *natural.shape)
    pair = q[:, :, :, None].expand(shape), natural[None].expand(shape)
    kl = td.kl_divergence(*[reference(name, each) for each in pair])
    return kl.sum(2)


# --- the KL and its parts -----------------------------------------------------------------


@known_to_pytorch
def test_joint_kl_is_that_of_every_component_by_its_weight(name: str) -> None:
    prior, log_weights = mixture_of(name), log_weights_of()
    posterior = posterior_of(name, prior)
    parts = prior.decompose(posterior, log_weights)
    weights = log_weights.exp()
    component = (weights * (log_weights - math.log(1 / K))).sum(-1)
    whole = (weights * component_kls(name, prior, posterior)).sum(-1) + component  # (B, M)
    torch.testing.assert_close(parts.component, component)
    torch.testing.assert_close(parts.per_dimension.sum(1), whole.sum(1))
    by_group = (parts.average + parts.dispersion).sum(-1) + parts.component
    torch.testing.assert_close(by_group, whole)
    assert parts.per_dimension.shape == (B, M * prior.units + M)
    assert all((part >= 0).all() for part in vars(parts).values())


@every_family
def test_joint_kl_is_the_kl_of_codes_and_values_and_bounds_that_to_the_mixture(name: str) -> None:
    """Both by Monte Carlo; of the second no closed form exists."""
    prior, log_weights = mixture_of(name), log_weights_of(rows=2)
    posterior = posterior_of(name, prior, rows=2)
    joint = prior.decompose(posterior, log_weights).per_dimension.sum(1)
    torch.manual_seed(0)
    draws = 4000
    streams = [np.random.default_rng(row) for row in range(2)]
    z = posterior.draw(streams, draws)  # (2, S, D)
    density = posterior.log_prob(z)  # (2, S)
    by_component = prior.component_log_prob(z)  # (2, S, M, K)
    c = td.Categorical(logits=log_weights[:, None].expand(-1, draws, -1, -1)).sample()
    chosen = by_component.gather(-1, c[..., None]).squeeze(-1) - math.log(K)
    weight = log_weights[:, None].expand(-1, draws, -1, -1).gather(-1, c[..., None]).squeeze(-1)
    ratio = density + (weight - chosen).sum(-1)
    error = ratio.std(1) / math.sqrt(draws)
    assert ((ratio.mean(1) - joint).abs() < 4.5 * error).all()
    to_mixture = density - prior.log_prob(z)
    assert (to_mixture.mean(1) < joint + 4.5 * to_mixture.std(1) / math.sqrt(draws)).all()


def test_directions_of_encoders_are_members_of_their_family() -> None:
    prior = Mixture(FAMILIES["sphere"], 1, 1, K).double()
    direction = nn.functional.normalize(torch.randn(B, 5).double(), dim=-1)
    log_weights = log_weights_of()[:, :1]
    fixed = VonMisesFisher(direction, 3.0)
    same = Member(FAMILIES["sphere"], 3.0 * direction[:, None])
    for one, other in zip(
        vars(prior.decompose(fixed, log_weights)).values(),
        vars(prior.decompose(same, log_weights)).values(),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@every_family
def test_equal_components_are_one(name: str) -> None:
    prior, log_weights = mixture_of(name), log_weights_of()
    with torch.no_grad():
        prior.free.copy_(prior.free[:, :, :1].expand_as(prior.free))
    posterior = posterior_of(name, prior)
    parts = prior.decompose(posterior, log_weights)
    zero = torch.zeros_like(parts.dispersion)
    torch.testing.assert_close(parts.dispersion, zero, atol=1e-10, rtol=0)
    torch.testing.assert_close(
        prior.weighted_variance(log_weights), zero.sum(-1), atol=1e-9, rtol=0
    )
    q = prior.family.of(posterior).unflatten(1, (M, prior.units))
    torch.testing.assert_close(parts.average, prior.family.kl(q, prior.natural[:, :, 0]))
    z = posterior.draw([np.random.default_rng(0)] * B, 7)
    alone = Member(prior.family, prior.natural[:, :, 0].flatten(0, 1)).log_prob(z)
    torch.testing.assert_close(prior.log_prob(z), alone)


@every_family
def test_variance_of_the_components_by_hand(name: str) -> None:
    prior, log_weights = mixture_of(name), log_weights_of()
    natural, weights = prior.natural.detach(), log_weights.exp()
    for row in range(B):
        for group in range(M):
            w = weights[row, group][:, None]  # (K, 1)
            eta = natural[group].transpose(0, 1).flatten(1)  # (K, U · P)
            by_hand = (w * eta**2).sum() - ((w * eta).sum(0) ** 2).sum()
            found = prior.weighted_variance(log_weights)[row, group]
            torch.testing.assert_close(found, by_hand)


def test_parts_have_the_gradient_of_the_whole() -> None:
    prior = mixture_of("gaussian")
    mean, log_variance = torch.randn(2, 2, M * U, dtype=torch.float64, requires_grad=True).unbind()
    logits = torch.randn(2, M, K, dtype=torch.float64, requires_grad=True)

    def parts(mean: Tensor, log_variance: Tensor, logits: Tensor, free: Tensor) -> Tensor:
        prior.free = free  # type: ignore[assignment]
        posterior = DiagonalGaussian(mean, log_variance)
        return prior.decompose(posterior, logits.log_softmax(-1)).per_dimension

    free = prior.free.detach().clone().requires_grad_()
    del prior.free
    assert torch.autograd.gradcheck(parts, (mean, log_variance, logits, free))


# --- density and draws --------------------------------------------------------------------


@known_to_pytorch
def test_density_is_pytorchs(name: str) -> None:
    prior = mixture_of(name)
    z = prior.sample(50, torch.Generator().manual_seed(0)).double()
    natural = prior.natural.detach().transpose(1, 2)  # (M, K, U, P)
    theirs = td.MixtureSameFamily(
        td.Categorical(torch.ones(M, K).double()),
        td.Independent(reference(name, natural), 1),
    )
    values = z.unflatten(1, (M, prior.units, prior.family.width))
    values = values if prior.family.width > 1 else values.squeeze(-1)
    torch.testing.assert_close(prior.log_prob(z), theirs.log_prob(values).sum(1))
    torch.testing.assert_close(prior.log_prob(z.view(5, 10, -1)).flatten(), prior.log_prob(z))
    assert prior.log_prob(z.float()).dtype == torch.float32


@pytest.mark.parametrize("name", ["categorical", "bernoulli"])
def test_probabilities_of_all_codes_sum_to_one(name: str) -> None:
    prior = Mixture(FAMILIES[name], 2, 2, 3)
    points = prior.points(512)
    assert points is not None
    family = FAMILIES[name]
    assert isinstance(family, FiniteFamily)
    values = family.values()
    assert len(points) == len(torch.unique(points, dim=0)) == len(values) ** 4
    assert prior.points(len(points) - 1) is None
    assert prior.log_prob(points.double()).logsumexp(0).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [("gaussian", -60, 60), ("gamma", 0, 200), ("beta", 0, 1)],
)
def test_density_integrates_to_one(name: str, start: float, end: float) -> None:
    torch.manual_seed(3)
    prior = Mixture(FAMILIES[name], 1, 1, K).double()
    with torch.no_grad():
        prior.free.add_(3)  # away from shapes below 1, whose density has no bound
    z = torch.linspace(start, end, 200_001, dtype=torch.float64)[1:-1]
    mass = torch.trapezoid(prior.log_prob(z[:, None]).exp(), z)
    assert mass.item() == pytest.approx(1, abs=2e-4)


def test_density_integrates_to_one_on_the_circle() -> None:
    prior = Mixture(FAMILIES["circle"], 1, 1, K).double()
    angle = torch.linspace(0, 2 * math.pi, 10_001).double()
    density = prior.log_prob(torch.stack([angle.cos(), angle.sin()], 1)).exp()
    assert torch.trapezoid(density, angle).item() == pytest.approx(1, abs=1e-6)


@every_family
def test_draws_have_the_prior_s_mean_and_deviation(name: str) -> None:
    prior = mixture_of(name, seed=4, scale=0.5)
    z = prior.sample(40_000, torch.Generator().manual_seed(0))
    assert (z.dtype, z.shape) == (torch.float32, (40_000, prior.dim))
    assert torch.equal(z, prior.sample(40_000, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(prior.in_support(z), z)
    mean = prior.family.mean(prior.natural.detach()).mean(2).flatten()
    error = prior.deviation / math.sqrt(len(z))
    assert ((z.double().mean(0) - mean).abs() < 5 * error).all()
    torch.testing.assert_close(z.std(0), prior.deviation, rtol=0.08, atol=1e-3)


@every_family
def test_draws_have_a_density_in_single_precision(name: str) -> None:
    """Also where components put almost all mass at the edge of what numbers can say."""
    prior = Mixture(FAMILIES[name], M, 1, K)
    for shift in (-30, 0, 30):
        with torch.no_grad():
            prior.free.fill_(shift)
        z = prior.sample(2000, torch.Generator().manual_seed(0))
        assert prior.log_prob(z).isfinite().all()


@pytest.mark.parametrize("name", ["gaussian", "categorical"])
def test_draws_of_chosen_components(name: str) -> None:
    torch.manual_seed(0)
    prior = Mixture(FAMILIES[name], M, U, K)
    with torch.no_grad():  # far apart: a draw says which it is from
        if name == "gaussian":
            prior.free[..., 0] = 40 * torch.randn(M, U, K)
        else:  # component k puts its first unit at value k
            prior.free[:, 0] = -40
            prior.free[:, 0, : K - 1] += 80 * torch.eye(K - 1)
    codes = torch.randint(-1, K, (4000, M))
    z = prior.sample(4000, torch.Generator().manual_seed(0), codes)
    found = prior.component_log_prob(z).argmax(-1)
    assert torch.equal(found[codes >= 0], codes[codes >= 0])
    free = found[codes < 0]
    shares = torch.bincount(free, minlength=K) / len(free)
    assert (shares - 1 / K).abs().max() < 4.5 * math.sqrt(1 / K / len(free))
    assert prior.code_sizes == (M, K)
