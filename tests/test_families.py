"""Every exponential family: its identities, and those of mixtures of it."""

from __future__ import annotations

import family_cases as cases
import numpy as np
import pytest
import torch
from family_cases import (
    FAMILIES,
    SPHERES,
    close,
    every_family,
    few,
    naturals,
    scales,
    seeds,
    weights,
)
from hypothesis import given
from torch import Tensor, distributions

from uncollapse.distributions.exponential import ExponentialFamily, FiniteFamily, Member
from uncollapse.distributions.families import Categorical, Gaussian, VonMisesFisherFamily
from uncollapse.distributions.families.free import bounded
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.distributions.von_mises_fisher import VonMisesFisher

# --- one family --------------------------------------------------------------------------


@every_family
@few
@given(seeds, scales)
def test_expectation_is_the_gradient_of_the_log_partition(
    name: str, seed: int, scale: float
) -> None:
    family = FAMILIES[name]
    natural = naturals(name, 8, seed=seed, scale=scale).requires_grad_()
    (gradient,) = torch.autograd.grad(family.log_partition(natural).sum(), natural)
    assert close(family.expectation(natural), gradient)
    assert bool(family.feasible(natural).all())


@every_family
@few
@given(seeds, scales)
def test_the_curvature_is_symmetric_and_positive(name: str, seed: int, scale: float) -> None:
    """A is convex, and twice differentiable by autograd."""
    natural = naturals(name, seed=seed, scale=scale)
    curvature = torch.autograd.functional.jacobian(FAMILIES[name].expectation, natural)
    assert isinstance(curvature, Tensor)
    assert close(curvature, curvature.t(), 1e-7, 1e-12)
    unit = curvature.diagonal().sqrt()
    assert torch.linalg.eigvalsh(curvature / unit / unit[:, None]).min() > -1e-7


@every_family
@few
@given(seeds, scales)
def test_densities_agree_with_other_libraries(name: str, seed: int, scale: float) -> None:
    family = FAMILIES[name]
    natural = naturals(name, 8, seed=seed, scale=scale)
    value = torch.from_numpy(family.simulate(natural.numpy(), np.random.default_rng(seed)))
    expected = cases.log_prob(name, value, natural)
    # SciPy's sphere has lost digits of κ cos θ − ln I(κ)
    assert close(family.log_prob(value, natural), expected, 1e-9, 1e-7)


@every_family
@few
@given(seeds, scales)
def test_entropies_and_moments_agree_with_other_libraries(
    name: str, seed: int, scale: float
) -> None:
    family = FAMILIES[name]
    natural = naturals(name, 4, seed=seed, scale=scale)
    assert close(family.entropy(natural), cases.entropy(name, natural), 1e-7, 1e-7)
    if name in SPHERES:
        curvature = torch.autograd.functional.jacobian(family.expectation, natural[0])
        assert isinstance(curvature, Tensor)
        assert close(family.variance(natural[0]), curvature.diagonal())
        return
    other = cases.reference(name, natural)
    shape = family.mean(natural).shape
    assert close(family.mean(natural), other.mean.view(shape))
    assert close(family.variance(natural), other.variance.view(shape))


@every_family
@few
@given(seeds, scales)
def test_kl_agrees_with_closed_forms(name: str, seed: int, scale: float) -> None:
    q, p = naturals(name, 2, 8, seed=seed, scale=scale)
    kl = FAMILIES[name].kl(q, p)
    assert bool((kl >= 0).all())
    assert float(FAMILIES[name].kl(q, q).max()) < 1e-9
    if name not in SPHERES:
        pair = cases.reference(name, q), cases.reference(name, p)
        assert close(kl, distributions.kl_divergence(*pair), 1e-9, 1e-9)


@every_family
def test_values_that_can_occur(name: str) -> None:
    family = FAMILIES[name]
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float64):
        far = 3 * torch.randn(200, family.width, generator=generator, dtype=dtype)
        far[0] = 0
        near = family.nearest(far)
        assert near.dtype == dtype
        assert close(family.nearest(near), near, 1e-6, 1e-6)
        natural = naturals(name, 200, dtype=dtype)
        assert bool(family.log_prob(near, natural).isfinite().all())
        stream = np.random.default_rng(0)
        drawn = torch.from_numpy(family.simulate(natural.double().numpy(), stream))
        assert close(family.nearest(drawn), drawn, 1e-14, 1e-14)
    if isinstance(family, FiniteFamily):
        values = family.values()
        assert torch.equal(family.nearest(values), values)
        total = family.log_prob(values.double(), naturals(name)).logsumexp(0)
        assert float(total) == pytest.approx(0, abs=1e-12)
        by_value = family.log_prob(values.double()[:, None], naturals(name, 5)).t()
        assert close(family.log_probs(naturals(name, 5)), by_value, 1e-12, 1e-12)


@every_family
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1.0, 30.0, 1e3, 1e6])
def test_any_real_numbers_become_feasible_parameters(
    name: str, dtype: torch.dtype, size: float
) -> None:
    family = FAMILIES[name]
    generator = torch.Generator().manual_seed(0)
    free = torch.rand(500, family.parameters, generator=generator, dtype=dtype) * 2 - 1
    free[0], free[1], free[2] = 0, 1, -1
    free = (size * free).requires_grad_()
    natural = family.natural(free)
    assert natural.dtype == dtype
    assert bool(family.feasible(natural).all())
    kl = family.kl(natural, natural.roll(1, 0))
    found = [family.mean(natural), family.variance(natural), family.entropy(natural), kl]
    (gradient,) = torch.autograd.grad(torch.stack([part.sum() for part in found]).sum(), free)
    sample = family.rsample(natural)
    found += [family.log_prob(sample, natural), family.weighted_variance(free[:, 0] * 0, natural)]
    for part in [*found, gradient, sample]:
        assert part.dtype == dtype
        assert bool(part.isfinite().all())


def test_bounded_numbers_are_smooth_and_unchanged_within() -> None:
    free = torch.linspace(-1e3, 1e3, 20001, dtype=torch.float64).requires_grad_()
    found = bounded(free, 10, 14)
    (slope,) = torch.autograd.grad(found.sum(), free)
    assert torch.equal(found[free.abs() <= 10], free[free.abs() <= 10])
    assert float(found.detach().abs().max()) <= 14
    assert bool((found.diff() >= 0).all())
    assert float(slope.diff().abs().max()) < 0.03  # no kink at steps of 0.1


# --- mixtures ----------------------------------------------------------------------------


@every_family
@few
@given(seeds, scales)
def test_the_mean_kl_is_that_from_the_average_plus_dispersion(
    name: str, seed: int, scale: float
) -> None:
    """Shi et al. 2020: Σ_k w_k KL(q ‖ p_k) = KL(q ‖ p_η̄) + L_d."""
    family = FAMILIES[name]
    w, components = weights(6, 5, seed=seed), naturals(name, 5, seed=seed, scale=scale)
    q = naturals(name, 6, seed=seed + 1, scale=scale)
    each = family.kl(q[:, None], components)  # (6, 5)
    average = family.average(w, components)
    assert bool(family.feasible(average).all())
    together = family.kl(q, average) + family.dispersion(w, components)
    assert close((w * each).sum(-1), together, 1e-8, 1e-9)
    spread = (w * family.log_partition(components)).sum(-1) - family.log_partition(average)
    assert close(family.dispersion(w, components), spread, 1e-8, 1e-7)


@every_family
@few
@given(seeds, scales)
def test_dispersion_and_variance_vanish_at_collapse_alone(
    name: str, seed: int, scale: float
) -> None:
    family = FAMILIES[name]
    w, components = weights(6, 5, seed=seed), naturals(name, 5, seed=seed, scale=scale)
    for measure in (family.dispersion, family.weighted_variance):
        assert bool((measure(w, components) > 0).all())
        size = float(components.square().sum(-1).max())
        equal = components[:1].expand(5, -1)
        assert float(measure(w, equal).max()) < 1e-12 * (1 + size)
        assert float(measure(torch.eye(5).double(), components).max()) < 1e-12 * (1 + size)
        # float32 weights do not quite sum to 1
        assert float(measure(w.float(), equal).max()) < 1e-6 * (1 + size)


@every_family
@few
@given(seeds, scales)
def test_the_weighted_variance_is_the_sum_of_squares(name: str, seed: int, scale: float) -> None:
    family = FAMILIES[name]
    w, components = weights(6, 5, seed=seed), naturals(name, 5, seed=seed, scale=scale)
    gap = components - family.average(w, components)[:, None]
    direct = (w[..., None] * gap.square()).sum((-1, -2))
    size = float(components.square().sum(-1).max())
    assert close(family.weighted_variance(w, components), direct, 1e-9, 1e-13 * size)


@every_family
@few
@given(seeds, scales)
def test_less_dispersion_is_less_variance(name: str, seed: int, scale: float) -> None:
    """∇L_d · ∇Var ≥ 0 with respect to each component's η, at fixed weights (Shi et al. 2020).

    w_k (∇A(η_k) − ∇A(η̄)) · 2 w_k (η_k − η̄) is not negative, for A is convex.
    """
    family = FAMILIES[name]
    w = weights(5, seed=seed)
    components = naturals(name, 5, seed=seed, scale=scale).requires_grad_()
    (down,) = torch.autograd.grad(family.dispersion(w, components), components)
    (closer,) = torch.autograd.grad(family.weighted_variance(w, components), components)
    average = family.average(w, components)
    expected = w[:, None] * (family.expectation(components) - family.expectation(average))
    assert close(down, expected, 1e-6, 1e-8 * float(expected.detach().abs().max()))
    assert close(closer, 2 * w[:, None] * (components - average), 1e-8, 1e-12)
    product = (down * closer).sum(-1)
    assert bool((product > -1e-9 * down.norm(dim=-1) * closer.norm(dim=-1)).all())
    assert float(product.sum().detach()) > 0


# --- distributions of units --------------------------------------------------------------


@every_family
def test_members(name: str) -> None:
    family = FAMILIES[name]
    member = Member(family, naturals(name, 3, 2))  # a batch of 3, two units each
    assert member.mean.shape == (3, 2 * family.width)
    streams = [np.random.default_rng(seed) for seed in (1, 2, 3)]
    z = member.draw(streams, 7)
    assert z.shape == (3, 7, 2 * family.width)
    again = member[1:2].draw([np.random.default_rng(2)], 7)
    assert torch.equal(again[0], z[1])
    density = member.log_prob(z)  # (3, 7)
    assert density.shape == (3, 7)
    assert close(member.log_prob(z[:, 4]), density[:, 4])
    units = z[:, 4].unflatten(-1, (2, family.width))
    assert close(family.log_prob(units, member.natural).sum(-1), density[:, 4])
    # under every x, up to what depends on z alone
    pairwise = member.pairwise_log_prob(z[0])  # (7, 3)
    all_pairs = torch.stack(
        [member[torch.tensor([j, j])].log_prob(z[0][None].expand(2, -1, -1))[0] for j in range(3)]
    )
    gap = pairwise - all_pairs.t()
    assert close(gap, gap[:, :1].expand(-1, 3))
    mapped = member.map(lambda natural: natural[:1])
    assert torch.equal(mapped.natural, member.natural[:1])
    assert member.rsample().shape == (3, 2 * family.width)


def test_other_distributions_as_natural_parameters() -> None:
    posterior = DiagonalGaussian(torch.randn(3, 4), torch.randn(3, 4) - 60)
    family: ExponentialFamily = Gaussian()
    natural = family.of(posterior)
    assert natural.shape == (3, 4, 2)
    assert close(family.mean(natural)[..., 0], posterior.mean.double())
    assert close(family.variance(natural)[..., 0].log(), posterior.log_variance.double())
    direction = torch.nn.functional.normalize(torch.randn(3, 5), dim=-1)
    sphere = VonMisesFisher(direction, 7.0)
    natural = VonMisesFisherFamily(5).of(sphere)
    assert natural.shape == (3, 1, 5)
    family = VonMisesFisherFamily(5)
    assert close(family.entropy(natural)[:, 0], sphere.entropy(), 1e-6)
    uniform = family.kl(natural, torch.zeros(5, dtype=torch.float64))
    assert close(uniform, sphere.kl_uniform(), 1e-6)
    member = Member(Categorical(3), torch.randn(3, 2, 2))
    assert member.family.of(member) is member.natural
