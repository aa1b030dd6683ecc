"""The von Mises–Fisher latent against numerical integration, mpmath and its own samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import SENTENCES, make_batch, small_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from uncollapse.config import VonMisesFisherConfig
from uncollapse.distributions.bessel import bessel_i_ratio, log_reduced_bessel_i
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.distributions.von_mises_fisher import VonMisesFisher, log_sphere_area, turn
from uncollapse.errors import UserError
from uncollapse.latents.posteriors.von_mises_fisher import VonMisesFisherPosterior
from uncollapse.latents.priors.uniform_sphere import UniformSphere
from uncollapse.recipes import load_recipe

DIMS = [2, 3, 4, 32, 500, 5000]
KAPPAS = [1e-3, 0.3, 1.0, 13.0, 100.0, 1e4]
dims = st.integers(2, 6000)
kappas = st.floats(-3, 5).map(lambda exponent: 10**exponent)


def directions(*shape: int, seed: int = 0) -> Tensor:
    """Random unit vectors, float64."""
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(noise, dim=-1)


def single(dim: int, kappa: float) -> VonMisesFisher:
    return VonMisesFisher(directions(1, dim), kappa)


def streams(*seeds: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in seeds]


def log_cosine_weight(dim: int, cosine: Tensor) -> Tensor:
    """ln of the area of the sphere of D dimensions per unit of cosine: a circle in D = 3."""
    rest = math.log(2) if dim == 2 else log_sphere_area(dim - 1)
    return rest + (dim - 3) / 2 * torch.log1p(-cosine.square())


# --- Bessel functions ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dim", "kappa"),
    # without the pair that takes arbitrary precision ten seconds
    [(dim, kappa) for dim in DIMS for kappa in (*KAPPAS, 1e5) if dim * kappa < 1e8],
)
def test_bessel_functions_agree_with_arbitrary_precision(dim: int, kappa: float) -> None:
    mpmath = pytest.importorskip("mpmath")
    order = dim / 2 - 1
    with mpmath.workdps(30):
        x = mpmath.mpf(kappa)
        # I_ν(x) = (x/2)^ν / Γ(ν + 1) · 0F1(ν + 1; x²/4)
        reduced = mpmath.hyp0f1(order + 1, x**2 / 4, maxterms=10**6)
        above = mpmath.hyp0f1(order + 2, x**2 / 4, maxterms=10**6)
        ratio = above / reduced * x / 2 / (order + 1)
        log_reduced = mpmath.log(reduced)
        kl = float(x * ratio - log_reduced)
        ratio, log_reduced = float(ratio), float(log_reduced)
    assert bessel_i_ratio(order, kappa) == pytest.approx(ratio, rel=1e-14)
    assert log_reduced_bessel_i(order, kappa) == pytest.approx(log_reduced, rel=2e-12)
    assert single(dim, kappa).kl_uniform().item() == pytest.approx(kl, rel=5e-11)


@given(dims, kappas)
def test_bessel_ratios_obey_their_recurrence(dim: int, kappa: float) -> None:
    """I_{ν−1} − I_{ν+1} = 2ν/x · I_ν, divided by I_ν."""
    order = dim / 2
    below, above = bessel_i_ratio(order - 1, kappa), bessel_i_ratio(order, kappa)
    assert 0 < above < below < 1
    assert 1 / below == pytest.approx(above + 2 * order / kappa, rel=1e-13)


@given(dims, kappas)
def test_bessel_logarithms_and_ratios_agree(dim: int, kappa: float) -> None:
    """I_{ν+1} / I_ν from two logarithms."""
    order = dim / 2 - 1
    difference = log_reduced_bessel_i(order + 1, kappa) - log_reduced_bessel_i(order, kappa)
    ratio = math.exp(difference) * kappa / 2 / (order + 1)
    assert bessel_i_ratio(order, kappa) == pytest.approx(ratio, rel=1e-9)


def test_bessel_functions_in_three_dimensions_are_elementary() -> None:
    for kappa in (1e-6, 1e-3, 0.5, 13.0, 600.0):
        log_reduced = math.log(math.sinh(kappa) / kappa)
        assert log_reduced_bessel_i(0.5, kappa) == pytest.approx(log_reduced, rel=1e-13, abs=1e-15)
    assert bessel_i_ratio(0.5, 1e8) == pytest.approx(1 - 1e-8, rel=1e-15)
    assert log_reduced_bessel_i(0.5, 1e-8) == pytest.approx(1e-16 / 6, rel=1e-13)


# --- densities, exact figures -------------------------------------------------------------


def test_areas_of_spheres() -> None:
    areas = [math.exp(log_sphere_area(dim)) for dim in (2, 3, 4)]
    assert areas == pytest.approx([2 * math.pi, 4 * math.pi, 2 * math.pi**2], rel=1e-14)


@pytest.mark.parametrize("kappa", [1e-3, 1.0, 13.0, 200.0])
def test_circle_by_integration(kappa: float) -> None:
    """On a circle the trapezoid rule is exact to the last digits."""
    angles = torch.arange(2000, dtype=torch.float64) * (2 * math.pi / 2000)
    z = torch.stack([angles.cos(), angles.sin()], -1)
    area = 2 * math.pi / 2000
    _agrees_with_integration(VonMisesFisher(directions(1, 2), kappa), z, z.new_full((2000,), area))


@pytest.mark.parametrize("kappa", [1e-3, 1.0, 13.0, 200.0])
def test_sphere_by_integration(kappa: float) -> None:
    """Gauss–Legendre in the height, the trapezoid rule about the axis."""
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(150))
    angles = torch.arange(300, dtype=torch.float64) * (2 * math.pi / 300)
    radius = (1 - nodes.square()).sqrt()[:, None]
    circle = torch.stack([radius * angles.cos(), radius * angles.sin()], -1)
    z = torch.cat([circle, nodes[:, None, None].expand(-1, 300, 1)], -1).flatten(0, 1)
    area = (weights[:, None] * (2 * math.pi / 300)).expand(-1, 300).flatten()
    _agrees_with_integration(VonMisesFisher(directions(1, 3), kappa), z, area)


def _agrees_with_integration(q: VonMisesFisher, z: Tensor, area: Tensor) -> None:
    prior = UniformSphere(q.dim)
    log_q = q.log_prob(z[None])[0]
    mass = log_q.exp() * area
    kl = mass @ (log_q - prior.log_prob(z))
    assert mass.sum().item() == pytest.approx(1, rel=1e-12)
    torch.testing.assert_close(mass @ z, q.mean[0], rtol=1e-10, atol=1e-13)
    assert q.entropy().item() == pytest.approx(-(mass @ log_q).item(), rel=1e-11, abs=1e-12)
    assert q.kl_uniform().item() == pytest.approx(kl.item(), rel=1e-11, abs=1e-13)


@pytest.mark.parametrize(("dim", "kappa"), [(5, 2.0), (32, 13.0), (300, 40.0), (4096, 1e3)])
def test_any_dimension_by_integration_over_the_cosine(dim: int, kappa: float) -> None:
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(1000))
    q = VonMisesFisher(torch.eye(dim, dtype=torch.float64)[:1], kappa)
    z = torch.zeros(1, 1000, dim, dtype=torch.float64)
    z[0, :, 0], z[0, :, 1] = nodes, (1 - nodes.square()).sqrt()
    log_q = q.log_prob(z)[0]
    mass = (log_q + log_cosine_weight(dim, nodes)).exp() * weights
    kl = mass @ (log_q + log_sphere_area(dim))
    assert mass.sum().item() == pytest.approx(1, rel=1e-9)
    assert (mass @ nodes).item() == pytest.approx(q.mean[0, 0].item(), rel=1e-9)
    assert kl.item() == pytest.approx(q.kl_uniform().item(), rel=1e-9)


def test_published_kl() -> None:
    """Exact, not the 2.08 that most tables print."""
    kl = VonMisesFisher(directions(4, 32), 13.0).kl_uniform()
    assert kl.shape == (4, 1)
    assert kl.tolist() == [[pytest.approx(2.1726, abs=1e-4)]] * 4


@given(dims, kappas, st.floats(1.01, 3))
def test_kl_is_positive_and_grows_with_kappa(dim: int, kappa: float, factor: float) -> None:
    kl = single(dim, kappa).kl_uniform().item()
    assert 0 < kl < single(dim, factor * kappa).kl_uniform().item()


# --- samples ------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("kappa", KAPPAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_are_unit_vectors_at_every_size(dim: int, kappa: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    q = VonMisesFisher(directions(3, 2, dim).to(dtype), kappa)
    z = q.rsample()
    assert z.shape == (3, 2, dim)
    assert z.dtype == dtype
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(3, 2, dtype=dtype))
    drawn = q[0].draw(streams(1, 2), 5)
    assert drawn.shape == (2, 5, dim)
    torch.testing.assert_close(drawn.norm(dim=-1), torch.ones(2, 5).double())
    for figure in (q.log_prob(z), q.mean, q.kl_uniform(), q.entropy(), q[0].log_prob(drawn)):
        assert torch.isfinite(figure).all()


@pytest.mark.parametrize("source", ["rsample", "draw"])
@pytest.mark.parametrize(
    ("dim", "kappa"), [(2, 0.01), (2, 5.0), (3, 13.0), (32, 13.0), (32, 1e4), (1000, 50.0)]
)
def test_cosines_follow_their_density(source: str, dim: int, kappa: float) -> None:
    """Kolmogorov–Smirnov: 2/√n is passed by chance once in 1,500."""
    torch.manual_seed(1)
    count = 4000
    q = single(dim, kappa)
    if source == "rsample":
        z = VonMisesFisher(q.direction.expand(count, dim), kappa).rsample()
    else:
        z = q.draw(streams(1), count)[0]
    angle = torch.acos((z @ q.direction[0]).clamp(-1, 1)).sort().values
    # the density of the angle is smooth where that of the cosine has poles; sin^(D−2) e^(κ cos)
    grid = torch.linspace(0, math.pi, 400_001, dtype=torch.float64)[1:-1]
    density = torch.softmax((dim - 2) * grid.sin().log() + kappa * grid.cos(), 0)
    exact = density.cumsum(0)[torch.searchsorted(grid, angle).clamp(max=len(grid) - 1)]
    empirical = (torch.arange(count) + 0.5) / count
    assert (exact - empirical).abs().max() < 2 / math.sqrt(count)


@pytest.mark.parametrize(("dim", "kappa"), [(2, 1.0), (3, 10.0), (32, 13.0), (200, 300.0)])
def test_moments_of_samples(dim: int, kappa: float) -> None:
    """The mean is A·μ, and across the direction the samples are spread evenly."""
    torch.manual_seed(2)
    count = 20_000
    q = single(dim, kappa)
    z = VonMisesFisher(q.direction.expand(count, dim), kappa).rsample()
    error = (z.mean(0) - q.mean[0]) / (z.std(0) / math.sqrt(count))  # standard errors, (D,)
    assert error.abs().max() < 4.5
    # E z zᵀ = (A/κ) I + (1 − D·A/κ) μμᵀ
    along = q.mean[0] @ q.direction[0] / kappa
    direction = q.direction[0]
    expected = along * torch.eye(dim) + (1 - dim * along) * torch.outer(direction, direction)
    second = z.T @ z / count
    fourth = z.square().T @ z.square() / count
    error = (second - expected) / ((fourth - second.square()) / count).sqrt()
    assert error.abs().max() < 5.5


def test_kl_against_the_density_of_samples() -> None:
    torch.manual_seed(3)
    q = VonMisesFisher(directions(1, 32).expand(20_000, 32), 13.0)
    z = q.rsample()
    estimate = q.log_prob(z) - UniformSphere(32).log_prob(z)
    error = estimate.std() / math.sqrt(len(z))
    assert abs(estimate.mean() - q.kl_uniform()[0, 0]) < 4 * error
    z, log_prob = q[:5].rsample_with_log_prob()
    torch.testing.assert_close(log_prob, q[:5].log_prob(z))


@pytest.mark.parametrize("dim", [2, 3, 7])
def test_gradient_of_samples(dim: int) -> None:
    """Through the direction alone, against finite differences with the same noise."""
    raw = (3 * directions(4, dim)).requires_grad_()

    def sample(vectors: Tensor) -> Tensor:
        torch.manual_seed(4)
        return VonMisesFisher(torch.nn.functional.normalize(vectors, dim=-1), 3.0).rsample()

    assert gradcheck(sample, (raw,))


@given(st.integers(2, 6), st.integers(0, 1000), st.sampled_from([1.0, 1e-9, 0.0, -1e-9, -1.0]))
@settings(max_examples=50)
def test_turning_keeps_lengths_and_carries_the_first_axis(dim: int, seed: int, to: float) -> None:
    """Also where the direction is the axis, or its opposite, or between."""
    direction = directions(dim, seed=seed)
    direction[0] = to
    direction[1:] *= math.sqrt(1 - to * to) / direction[1:].norm()
    direction.requires_grad_()
    noise = directions(dim, seed=seed + 1)
    turned = turn(noise, direction)
    torch.testing.assert_close(turned.norm(), torch.ones(()).double())
    torch.testing.assert_close(turn(torch.eye(dim).double()[0], direction), direction)
    torch.testing.assert_close(turned @ direction, noise[0])
    (gradient,) = torch.autograd.grad(turned.sum(), direction)
    assert gradient.norm() < 10 * dim


def test_drawing_depends_on_its_own_stream_alone() -> None:
    q = VonMisesFisher(directions(3, 8), 13.0)
    alone = q[1:2].draw(streams(7), 50)
    among = q.draw(streams(5, 7, 9), 50)
    assert torch.equal(alone[0], among[1])
    assert torch.equal(among, q.draw(streams(5, 7, 9), 50))
    assert not torch.equal(among[0], among[2])
    single_precision = q.map(Tensor.float).draw(streams(5, 7, 9), 50)
    assert single_precision.dtype == torch.float64
    torch.testing.assert_close(single_precision, among, rtol=0, atol=1e-6)


def test_log_density_of_several_shapes() -> None:
    q = VonMisesFisher(directions(3, 4), 2.0)
    z = directions(5, 4, seed=1)
    pairs = q.pairwise_log_prob(z)  # (5, 3)
    assert pairs.dtype == torch.float64
    several = q.log_prob(z.expand(3, 5, 4))
    torch.testing.assert_close(several, pairs.T)
    torch.testing.assert_close(q.log_prob(z[:3]), pairs[:3].diagonal())
    torch.testing.assert_close(q[2].log_prob(z[4]), pairs[4, 2])
    torch.testing.assert_close(q[torch.tensor([2, 0])].direction, q.direction[[2, 0]])
    assert q.entropy().shape == (3,)
    assert VonMisesFisher(q.direction[:0], 2.0).rsample().shape == (0, 4)


# --- the prior and the posterior ----------------------------------------------------------


def test_uniform_prior() -> None:
    prior = UniformSphere(3)
    z = prior.sample(20_000, torch.Generator().manual_seed(0))
    assert torch.equal(z, prior.sample(20_000, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(len(z)))
    # Archimedes: in three dimensions every coordinate is uniform, of variance 1/3
    torch.testing.assert_close(z.T @ z / len(z), torch.eye(3) / 3, rtol=0, atol=0.01)
    assert z.mean(0).abs().max() < 0.02
    height = (z[:, 2].sort().values + 1) / 2
    assert (height - torch.linspace(0, 1, len(z))).abs().max() < 2 / math.sqrt(len(z))
    assert prior.log_prob(z[:4]).tolist() == [pytest.approx(-math.log(4 * math.pi))] * 4


def test_kl_from_the_prior_has_a_closed_form_for_its_own_kind_alone() -> None:
    prior = UniformSphere(32)
    kl = prior.kl(VonMisesFisher(directions(2, 32), 13.0))
    assert kl is not None
    assert kl.tolist() == [[pytest.approx(2.1726, abs=1e-4)]] * 2
    assert prior.kl(DiagonalGaussian(torch.zeros(2, 32), torch.zeros(2, 32))) is None


def test_a_sphere_of_one_dimension_is_refused() -> None:
    message = "a sphere needs at least 2 dimensions, not 1"
    with pytest.raises(UserError, match=message):
        UniformSphere(1)
    with pytest.raises(UserError, match=message):
        VonMisesFisherPosterior(VonMisesFisherConfig(kind="von-mises-fisher"), 5, 1)


def test_posterior_directions() -> None:
    torch.manual_seed(5)
    config = VonMisesFisherConfig(kind="von-mises-fisher", kappa=7.0)
    posterior = VonMisesFisherPosterior(config, 6, 4)
    assert [name for name, _ in posterior.named_parameters()] == ["linear.weight"]
    features = torch.randn(2, 5, 6)
    features[0, 1] = 0  # what a sentence of padding might be
    features.requires_grad_()
    q = posterior(features)
    assert q.kappa == 7.0
    torch.testing.assert_close(q.direction.norm(dim=-1), torch.ones(2, 5))
    raw = features @ posterior.linear.weight.T
    cosine = torch.nn.functional.cosine_similarity(raw, q.direction, dim=-1)
    torch.testing.assert_close(cosine[1], torch.ones(5))
    q.rsample().sum().backward()
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()
    assert (features.grad[0, 1] == 0).all()
    assert (features.grad[1] != 0).any(-1).all()
    weight_gradient = posterior.linear.weight.grad
    assert weight_gradient is not None
    assert torch.isfinite(weight_gradient).all()


def test_what_is_decoded_lies_on_the_sphere() -> None:
    """E z lies inside, and so do points between two of them: the decoder saw none such."""
    model = small_model("vmf-vae")
    with torch.no_grad():
        means = model.posterior(make_batch(SENTENCES)).mean
    assert (means.norm(dim=-1) < 0.99).all()
    there = model.in_support(means)
    torch.testing.assert_close(there.norm(dim=-1), torch.ones(len(means)))
    torch.testing.assert_close(there, means / means.norm(dim=-1, keepdim=True))
    between = model.in_support((there[0] + there[1]) / 2)
    torch.testing.assert_close(between.norm(), torch.tensor(1.0))


@pytest.mark.parametrize("name", ["vmf-vae", "bn-flow-vae"])
def test_no_floor_under_a_kl_that_has_no_slope_of_its_own(name: str) -> None:
    with pytest.raises(UserError, match=r"divergence\.floor"):
        load_recipe(name, ["latents.z.divergence.floor={per: total, nats: 4}"])
