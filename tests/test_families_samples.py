"""Samples of every exponential family, and the gradients through them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from family_cases import CONTINUOUS, FAMILIES, NAMES, naturals
from torch import Tensor

from uncollapse.distributions.families import Poisson, VonMisesFisherFamily

SAMPLES = 20_000
DEVIATIONS = 5  # of a Monte Carlo mean, which one test in a million passes


def assert_mean(samples: Tensor, expected: Tensor, relative: float = 1e-9) -> None:
    """Whether the mean over the first axis is what it should be, to its own precision."""
    error = samples.std(0) / len(samples) ** 0.5
    gap = (samples.mean(0) - expected).abs()
    assert bool((gap <= DEVIATIONS * error + relative * (1 + expected.abs())).all())


def draws(name: str, natural: Tensor, sampler: str, seed: int = 0) -> Tensor:
    """``(n, U, E)`` of natural parameters ``(U, P)``."""
    wide = natural.expand(SAMPLES, *natural.shape)
    if sampler == "simulate":
        return torch.from_numpy(FAMILIES[name].simulate(wide.numpy(), np.random.default_rng(seed)))
    torch.manual_seed(seed)
    return FAMILIES[name].rsample(wide)


@pytest.mark.parametrize("sampler", ["simulate", "rsample"])
@pytest.mark.parametrize("name", NAMES)
def test_moments_of_samples(name: str, sampler: str) -> None:
    family = FAMILIES[name]
    natural = naturals(name, 3, seed=1)
    value = draws(name, natural, sampler)
    assert_mean(value, family.mean(natural))
    assert_mean((value - family.mean(natural)).square(), family.variance(natural))
    assert_mean(family.statistics(value), family.expectation(natural))
    assert_mean(family.log_base(value), family.expected_log_base(natural))


@pytest.mark.parametrize("name", NAMES)
def test_divergences_of_samples(name: str) -> None:
    family = FAMILIES[name]
    q, p = naturals(name, 3, seed=1), naturals(name, 3, seed=2)
    value = draws(name, q, "simulate")
    log_q, log_p = family.log_prob(value, q), family.log_prob(value, p)
    assert_mean(log_q - log_p, family.kl(q, p))
    assert_mean(-log_q, family.entropy(q))


@pytest.mark.parametrize("name", CONTINUOUS)
def test_gradients_through_samples(name: str) -> None:
    """d E f(z)/dη by samples against that by finite differences of known expectations."""
    family = FAMILIES[name]
    natural = naturals(name, seed=3)
    wide = natural.expand(SAMPLES, -1).clone().requires_grad_()  # a gradient for each sample
    torch.manual_seed(0)
    value = family.rsample(wide)

    def second_moment(n: Tensor) -> Tensor:
        return (family.mean(n).square() + family.variance(n)).sum(-1)

    functions = [
        (value.square().sum(-1), second_moment),
        (family.statistics(value)[:, 0], lambda n: family.expectation(n)[..., 0]),
        (family.statistics(value)[:, -1], lambda n: family.expectation(n)[..., -1]),
    ]
    for found, expectation in functions:
        (each,) = torch.autograd.grad(found.sum(), wide, retain_graph=True)
        step = 1e-5 * torch.eye(len(natural), dtype=torch.float64)
        slope = (expectation(natural + step) - expectation(natural - step)) / 2e-5
        # PyTorch's implicit gradients are fits, good to three digits
        assert_mean(each, slope, relative=5e-3)


@pytest.mark.parametrize("dim", [2, 3, 40])
@pytest.mark.parametrize("kappa", [0.0, 0.01, 1.0, 30.0, 1e4])
def test_gradients_through_directions(dim: int, kappa: float) -> None:
    """Along η and across it, from the uniform distribution to a needle."""
    family = VonMisesFisherFamily(dim)
    generator = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(
        torch.randn(dim, generator=generator, dtype=torch.float64), dim=0
    )
    natural = kappa * direction
    other = torch.randn(dim, generator=generator, dtype=torch.float64)
    wide = natural.expand(SAMPLES, -1).clone().requires_grad_()
    torch.manual_seed(0)
    value = family.rsample(wide)
    assert float((value.detach().norm(dim=-1) - 1).abs().max()) < 1e-13
    (each,) = torch.autograd.grad((value @ other).sum(), wide)
    slope = torch.autograd.functional.jacobian(lambda n: family.expectation(n) @ other, natural)
    assert isinstance(slope, Tensor)
    assert_mean(each, slope, relative=1e-12)
    # nothing explodes where the direction is lost: sideways, z moves no faster than 2/(D − 1)
    limit = 2 / (dim - 1) * other.norm()
    across = each - (each @ direction)[:, None] * direction
    assert float(across.norm(dim=-1).max()) <= float(limit) * (1 + 1e-9)


def test_straight_through_counts() -> None:
    natural = torch.tensor([[0.3], [3.0], [9.0]]).expand(100, 3, 1).clone().requires_grad_()
    value = Poisson().rsample(natural)
    assert torch.equal(value, value.detach().round())
    value.sum().backward()
    assert natural.grad is not None
    torch.testing.assert_close(natural.grad, natural.detach().exp())


@pytest.mark.parametrize("name", ["gamma", "beta", "dirichlet"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_near_the_border_keep_finite_statistics(name: str, dtype: torch.dtype) -> None:
    family = FAMILIES[name]
    natural = torch.full((5000, family.parameters), 1e-3, dtype=dtype)
    if name == "gamma":
        natural[:, 1] = -1
    natural.requires_grad_()
    value = family.rsample(natural)
    assert bool(family.statistics(value).isfinite().all())
    (gradient,) = torch.autograd.grad(value.sum(), natural)
    assert bool(gradient.isfinite().all())
    drawn = family.simulate(natural.detach().double().numpy(), np.random.default_rng(0))
    assert bool(family.statistics(torch.from_numpy(drawn)).isfinite().all())
