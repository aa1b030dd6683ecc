"""Planar flows and the posterior behind them, against independent mathematics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import make_batch, random_sentences, small_model, small_recipe
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from uncollapse.config import FlowPosteriorConfig
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.distributions.transformed import Transformed
from uncollapse.errors import UserError
from uncollapse.latents.flows import MIN_SLOPE, PlanarFlow, PlanarLayer, solve_height
from uncollapse.latents.posteriors.flow import FlowPosterior
from uncollapse.latents.priors import StandardNormal


def flow_of(dim: int, length: int, seed: int = 0, size: float = 1.0) -> PlanarFlow:
    torch.manual_seed(seed)
    flow = PlanarFlow(dim, length).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.copy_(size * torch.randn_like(parameter))
    return flow


def bent(dim: int, rows: int = 1, seed: int = 0, size: float = 0.6) -> Transformed:
    """Smooth enough for a grid, far enough from Gaussian to matter."""
    flow = flow_of(dim, 3, seed, size)
    mean, log_variance = torch.randn(2, rows, dim).double().unbind()
    return Transformed(DiagonalGaussian(mean, 0.3 * log_variance), flow)


def grid(dim: int, points: int, limit: float) -> tuple[Tensor, float]:
    axis = torch.linspace(-limit, limit, points, dtype=torch.float64)
    cell = float(axis[1] - axis[0]) ** dim
    return torch.cartesian_prod(*[axis] * dim), cell


# --- the map ------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 4), st.floats(0.05, 5))
def test_log_determinant_is_that_of_autograds_jacobian(
    seed: int, dim: int, length: int, size: float
) -> None:
    flow = flow_of(dim, length, seed, size)
    z = torch.randn(dim).double()
    jacobian = torch.autograd.functional.jacobian(lambda y: flow(y)[0], z)
    sign, expected = torch.linalg.slogdet(jacobian)  # type: ignore[arg-type]
    assert sign > 0  # each layer keeps orientation
    torch.testing.assert_close(flow(z)[1], expected, atol=1e-8, rtol=1e-8)


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 5), st.floats(0.05, 4))
def test_inverse_undoes_the_map(seed: int, dim: int, length: int, size: float) -> None:
    flow = flow_of(dim, length, seed, size)
    z = 3 * torch.randn(4, 7, dim).double()
    image, log_det = flow(z)
    assert log_det.shape == (4, 7)
    # a layer's smallest slope, along w, is what its inverse multiplies rounding by
    layers = [layer for layer in flow.layers if isinstance(layer, PlanarLayer)]
    slopes = [layer._constrained(z)[3].item() for layer in layers]
    worst = math.prod(max(1.0, 1 / slope) for slope in slopes) * (1 + image.abs().max().item())
    steps = flow.inputs(image)
    torch.testing.assert_close(steps[0], z, atol=1e-13 * worst, rtol=0)
    torch.testing.assert_close(flow(steps[0])[0], image, atol=1e-12 * (1 + worst**0.5), rtol=1e-12)
    for before, after, layer in zip(steps, [*steps[1:], image], flow.layers, strict=True):
        torch.testing.assert_close(layer(before)[0], after, atol=1e-10, rtol=1e-10)


@given(
    st.floats(math.log10(MIN_SLOPE), 8),
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5),
    st.integers(-12, 0),
)
def test_the_one_equation_is_solved_for_any_slope(
    log_slope: float, values: list[float], scale: int
) -> None:
    slope = torch.tensor(10**log_slope).double()
    target = torch.tensor(values).double() * 10.0**scale
    root = solve_height(target, slope)
    left = root + (slope - 1) * torch.tanh(root)
    size = root.abs() + (slope - 1).abs() * torch.tanh(root).abs() + target.abs()
    assert ((left - target).abs() <= 1e-15 * size).all()
    # the other way round, where the answer is known beforehand
    known = target.clamp(-20, 20)
    found = solve_height(known + (slope - 1) * torch.tanh(known), slope)
    conditioning = (1 + slope) / torch.tanh(known).square().clamp(min=0).add(
        slope * (1 - torch.tanh(known).square())
    )
    assert ((found - known).abs() <= 2e-15 * conditioning * (1 + known.abs())).all()


@pytest.mark.parametrize("along", [-300.0, -30.0, -1.0, 0.0, 1.0, 30.0, 300.0])
def test_a_layer_is_invertible_whatever_its_parameters(along: float) -> None:
    torch.manual_seed(0)
    layer = PlanarLayer(3)  # f32, as in training
    with torch.no_grad():
        unit = layer.normal / layer.normal.norm()
        across = torch.randn(3)
        across -= (across * unit).sum() * unit
        layer.shift.copy_(along * unit / layer.normal.norm() + across)  # w·u = along
        layer.offset.zero_()
    line = torch.linspace(-4, 4, 200)[:, None] * unit
    image, log_det = layer(line)
    assert log_det.isfinite().all()
    assert ((image @ layer.normal).diff() > 0).all()
    torch.testing.assert_close(layer(layer.inverse(image))[0], image, atol=5e-3, rtol=1e-5)
    # the paper's bound on w·û, and its value
    _, _, _, slope = layer._constrained(line)
    expected = math.log1p(math.exp(-abs(along))) + max(along, 0) + MIN_SLOPE
    assert slope.item() == pytest.approx(expected, rel=1e-4)


def test_gradients_through_the_map_its_determinant_and_its_inverse() -> None:
    flow = flow_of(3, 2, seed=3, size=0.7)
    z = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    parameters = tuple(p.detach().clone().requires_grad_() for p in flow.parameters())
    names = [name for name, _ in flow.named_parameters()]

    def call(what: str, values: tuple[Tensor, ...], z: Tensor) -> Tensor | tuple[Tensor, ...]:
        class Caller(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.flow = flow

            def forward(self, z: Tensor) -> Tensor | tuple[Tensor, ...]:
                return self.flow(z) if what == "map" else tuple(self.flow.inputs(z))

        state = {f"flow.{name}": value for name, value in zip(names, values, strict=True)}
        return torch.func.functional_call(Caller(), state, (z,))

    for what in ("map", "inverse"):
        assert torch.autograd.gradcheck(lambda z, *p, what=what: call(what, p, z), (z, *parameters))


# --- the distribution ---------------------------------------------------------------------


@pytest.mark.parametrize(("dim", "points", "limit"), [(2, 500, 14.0), (3, 90, 11.0)])
@pytest.mark.parametrize("seed", [0, 2])
def test_density_integrates_to_one(dim: int, points: int, limit: float, seed: int) -> None:
    q = bent(dim, seed=seed)
    z, cell = grid(dim, points, limit)
    with torch.no_grad():
        total = q.log_prob(z).exp().sum() * cell
    assert total.item() == pytest.approx(1, abs=1e-5)


def test_monte_carlo_kl_agrees_with_integration() -> None:
    q, prior = bent(2, seed=2), StandardNormal(2)
    z, cell = grid(2, 600, 16.0)
    torch.manual_seed(1)
    with torch.no_grad():
        log_q = q.log_prob(z)
        exact = (log_q.exp() * (log_q - prior.log_prob(z))).sum().item() * cell
        drawn, log_prob = q.map(lambda values: values.expand(100_000, -1)).rsample_with_log_prob()
    ratio = log_prob - prior.log_prob(drawn)
    assert exact > 0.3  # there is something to agree about
    assert abs(ratio.mean().item() - exact) < 4 * ratio.std().item() / math.sqrt(len(ratio))


def test_a_sample_s_own_log_prob_is_that_of_its_inverse() -> None:
    q = bent(4, rows=6)
    z, log_prob = q.rsample_with_log_prob()
    torch.testing.assert_close(q.log_prob(z), log_prob, atol=1e-9, rtol=1e-9)
    # in training's f32 too, with its gradients
    single = Transformed(q.base.map(Tensor.float), q.flow)  # type: ignore[arg-type]
    z, log_prob = single.rsample_with_log_prob()
    assert z.dtype == log_prob.dtype == torch.float32
    torch.testing.assert_close(single.log_prob(z), log_prob, atol=1e-3, rtol=1e-4)


def test_gradients_of_sample_and_log_prob() -> None:
    q = bent(3, rows=2)
    mean, log_variance = (p.clone().requires_grad_() for p in (q.base.mean, q.base.log_variance))

    def both(mean: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(5)
        return Transformed(DiagonalGaussian(mean, log_variance), q.flow).rsample_with_log_prob()

    assert torch.autograd.gradcheck(both, (mean, log_variance))
    z = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda m, v, z: Transformed(DiagonalGaussian(m, v), q.flow).log_prob(z),
        (mean, log_variance, z),
    )
    # through sample and density together, no score is left over: E ∂/∂θ log q(z) alone is 0
    torch.manual_seed(0)
    many = q.map(lambda values: values[:1].expand(40_000, -1))
    log_prob = many.log_prob(many.rsample().detach())
    assert isinstance(q.flow, PlanarFlow)
    gradients = torch.autograd.grad(log_prob.mean(), list(q.flow.parameters()))
    assert max(g.abs().max().item() for g in gradients) < 0.1


def test_shapes_of_log_prob_agree() -> None:
    q = bent(3, rows=5)
    z = torch.randn(5, 4, 3).double()
    wide = q.log_prob(z)
    assert wide.shape == (5, 4)
    for sample in range(4):
        torch.testing.assert_close(wide[:, sample], q.log_prob(z[:, sample]))
    torch.testing.assert_close(q[2].log_prob(z[2, 0]), wide[2, 0])
    assert q.log_prob(z.float()).dtype == torch.float32
    assert q[1:3].mean.shape == (2, 3)


def test_pairwise_log_prob_is_log_prob_and_information_is_the_base_s() -> None:
    q = bent(3, rows=5)
    z = q.rsample().detach()
    pairs = q.pairwise_log_prob(z)
    constant = -1.5 * math.log(2 * math.pi)  # the Gaussian's, which it leaves out
    expected = torch.stack([q[torch.full((5,), j)].log_prob(z) for j in range(5)], 1)
    torch.testing.assert_close(pairs + constant, expected.detach())
    base = q.base.pairwise_log_prob(q.flow.inputs(z)[0])
    gain = (pairs - pairs.logsumexp(1, keepdim=True)) - (base - base.logsumexp(1, keepdim=True))
    torch.testing.assert_close(gain, torch.zeros_like(gain))
    assert not pairs.requires_grad


def test_draws_are_the_base_s_and_depend_on_their_stream_alone() -> None:
    q = bent(3, rows=4)
    z = q.draw([np.random.default_rng(row) for row in range(4)], 6)
    assert (z.shape, z.dtype, z.requires_grad) == ((4, 6, 3), torch.float64, False)
    alone = q[2:3].draw([np.random.default_rng(2)], 6)
    torch.testing.assert_close(alone[0], z[2])
    base = q.base.draw([np.random.default_rng(row) for row in range(4)], 6)
    torch.testing.assert_close(q.flow.inputs(z)[0], base)


def test_mean_is_the_image_of_the_base_s() -> None:
    q = bent(3, rows=4)
    torch.testing.assert_close(q.flow.inputs(q.mean)[0], q.base.mean)


# --- the posterior ------------------------------------------------------------------------


def test_posterior_pushes_any_gaussian_through_one_flow() -> None:
    config = FlowPosteriorConfig.model_validate(
        {"kind": "flow", "base": {"kind": "gaussian", "batch_norm": {"scale": 0.6}}, "length": 2}
    )
    posterior = FlowPosterior(config, 5, 3)
    assert len(posterior.flow.layers) == 2
    q = posterior(torch.randn(8, 5))
    torch.testing.assert_close(
        q.base.mean.std(0, unbiased=False), torch.full((3,), 0.6), rtol=1e-3, atol=0
    )
    assert posterior.has_density
    q.rsample_with_log_prob()[1].sum().backward()
    for name, parameter in posterior.named_parameters():
        assert parameter.grad is not None, name


def test_length_0_is_refused() -> None:
    with pytest.raises(UserError, match=r"latents\.z\.posterior\.length: .* 1, not 0"):
        small_recipe("wae-rnf", ["latents.z.posterior.length=0"])


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 100))
def test_reported_kl_is_the_density_ratio_at_the_z_that_the_decoder_saw(seed: int) -> None:
    model = small_model("wae-rnf", seed=seed)
    batch = make_batch(random_sentences(6))
    torch.manual_seed(seed)
    terms = model(batch)
    torch.manual_seed(seed)
    q = model.infer(batch)["z"].posterior
    z = q.rsample()
    expected = q.log_prob(z) - StandardNormal(4).log_prob(z)
    torch.testing.assert_close(terms.kl["z"].squeeze(1), expected, atol=1e-3, rtol=1e-3)
