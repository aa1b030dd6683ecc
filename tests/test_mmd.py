"""Maximum mean discrepancy and the Riemannian regulariser, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import make_batch, random_sentences, small_model
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from uncollapse.config import MMDConfig
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.distributions.transformed import Transformed
from uncollapse.latents import Inference
from uncollapse.latents.divergences import build_divergence
from uncollapse.latents.divergences.clusters import RunningClusters
from uncollapse.latents.divergences.mmd import (
    KERNELS,
    MMD,
    SCALES,
    gaussian,
    inverse_multiquadratic,
    squared_mmd,
)
from uncollapse.latents.flows import PlanarFlow
from uncollapse.latents.priors import StandardNormal

FEATURES = torch.zeros(1, 1)


def inference_of(z: Tensor, posterior: DiagonalGaussian | Transformed | None = None) -> Inference:
    q = posterior or DiagonalGaussian(z.detach(), torch.zeros_like(z))
    return Inference(q, FEATURES, StandardNormal(z.shape[1]), z=z, log_prob=q.log_prob(z))


def divergence_of(dim: int, **settings: object) -> MMD:
    config = MMDConfig.model_validate({"kind": "mmd", **settings})
    found = build_divergence(config, 1, dim)
    assert isinstance(found, MMD)
    return found


def estimates(count: int, dim: int, mean: float, scale: float, kernel: str) -> Tensor:
    """MMD² of N(mean, scale²) and N(0, I), from many samples of ``count`` points."""
    torch.manual_seed(count)
    repeats = 1_000
    x = mean + scale * torch.randn(repeats, count, dim).double()
    y = torch.randn(repeats, count, dim).double()
    return torch.stack([squared_mmd(a, b, KERNELS[kernel]) for a, b in zip(x, y, strict=True)])


def closed_form(dim: int, mean: float, scale: float) -> float:
    """MMD² under exp(−‖x − y‖² / 2ℓ²): E of it over a difference of Gaussians, three times."""
    width = dim**2 / 20  # ℓ²

    def similarity(shift: float, variance: float) -> float:
        ratio = width / (width + variance)
        return ratio ** (dim / 2) * math.exp(-dim * shift**2 / (2 * (width + variance)))

    return similarity(0, 2 * scale**2) + similarity(0, 2) - 2 * similarity(mean, 1 + scale**2)


# --- the estimate -------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 5, 40])  # whatever the size of the batch
@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.0), (0.7, 1.0), (0.3, 0.4)])
def test_gaussian_kernel_has_its_closed_form_in_expectation(
    count: int, mean: float, scale: float
) -> None:
    found = estimates(count, 6, mean, scale, "gaussian")
    error = float(found.std()) / math.sqrt(len(found))
    assert abs(float(found.mean()) - closed_form(6, mean, scale)) < 4 * error
    if mean == 0 and scale == 1:
        assert closed_form(6, mean, scale) == pytest.approx(0, abs=1e-12)
        assert (found < 0).any()  # an unbiased estimate of 0


@pytest.mark.parametrize("count", [2, 30])
def test_inverse_multiquadratic_is_unbiased_at_equality(count: int) -> None:
    same = estimates(count, 4, 0.0, 1.0, "inverse-multiquadratic")
    assert abs(same.mean()) < 4 * same.std() / math.sqrt(len(same))
    other = estimates(count, 4, 0.6, 1.0, "inverse-multiquadratic")
    assert other.mean() > 8 * other.std() / math.sqrt(len(other))


@given(st.integers(2, 9), st.integers(1, 5), st.integers(0, 1000), st.sampled_from([*KERNELS]))
def test_mmd_is_the_sum_over_pairs(count: int, dim: int, seed: int, name: str) -> None:
    torch.manual_seed(seed)
    x, y = (3 * torch.randn(2, count, dim).double()).unbind()

    def k(a: Tensor, b: Tensor) -> float:
        squared = float((a - b).square().sum())
        if name == "gaussian":
            return math.exp(-10 * squared / dim**2)
        return sum(2 * dim * s / (2 * dim * s + squared) for s in SCALES)

    pairs = [(i, j) for i in range(count) for j in range(count)]
    within = sum(k(x[i], x[j]) + k(y[i], y[j]) for i, j in pairs if i != j)
    between = sum(k(x[i], y[j]) for i, j in pairs)
    expected = within / (count * (count - 1)) - 2 * between / count**2
    assert float(squared_mmd(x, y, KERNELS[name])) == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("name", [*KERNELS])
def test_gradient_of_mmd(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(5, 3).double()
    assert torch.autograd.gradcheck(lambda x: squared_mmd(x, y, KERNELS[name]), (x,))


# --- the divergence -----------------------------------------------------------------------


def test_every_sentence_gets_the_batch_s_estimate() -> None:
    divergence = divergence_of(3, weight=5.0, kernel="gaussian")
    z = torch.randn(7, 3) + 2
    torch.manual_seed(3)
    found = divergence(inference_of(z))
    torch.manual_seed(3)
    other = torch.randn(7, 3)
    assert found.shape == (7,)
    torch.testing.assert_close(found, 5 * squared_mmd(z, other, gaussian).expand(7))


def test_a_sentence_alone_has_no_discrepancy() -> None:
    assert divergence_of(3)(inference_of(torch.randn(1, 3))).tolist() == [0]
    with_kl = divergence_of(3, kl=0.5)
    inference = inference_of(torch.randn(1, 3))
    assert isinstance(inference.posterior, DiagonalGaussian)
    expected = 0.5 * inference.posterior.kl_standard().sum(1)
    torch.testing.assert_close(with_kl(inference), expected)


def test_kl_beside_it_is_each_sentence_s_own() -> None:
    z, flow = torch.randn(6, 3), PlanarFlow(3, 2)
    q = Transformed(DiagonalGaussian(torch.randn(6, 3), torch.zeros(6, 3)), flow)
    inference = inference_of(z, q)
    found = []
    for kl in (0.0, 0.8):
        torch.manual_seed(0)
        found.append(divergence_of(3, kl=kl)(inference))
    expected = 0.8 * (q.log_prob(z) - inference.prior.log_prob(z))
    torch.testing.assert_close(found[1] - found[0], expected, atol=1e-4, rtol=1e-4)


def test_lowering_mmd_brings_the_codes_to_the_prior() -> None:
    torch.manual_seed(0)
    mean, log_scale = torch.full((2,), 2.0), torch.full((2,), -1.5)
    optimizer = torch.optim.Adam([mean.requires_grad_(), log_scale.requires_grad_()], lr=0.05)
    divergence = divergence_of(2)
    for _ in range(200):
        optimizer.zero_grad()
        z = mean + log_scale.exp() * torch.randn(64, 2)
        divergence(inference_of(z)).mean().backward()
        optimizer.step()
    torch.testing.assert_close(mean.detach(), torch.zeros(2), atol=0.2, rtol=0)
    torch.testing.assert_close(log_scale.detach(), torch.zeros(2), atol=0.2, rtol=0)


# --- clusters and metric ------------------------------------------------------------------


def test_centres_find_the_clusters() -> None:
    torch.manual_seed(0)
    means = torch.tensor([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    clusters = RunningClusters(3, 2)
    for _ in range(400):
        clusters.update(means[torch.randint(3, (32,))] + 0.3 * torch.randn(32, 2))
    nearest = torch.cdist(means, clusters.centers).min(1)
    assert sorted(nearest.indices.tolist()) == [0, 1, 2]
    assert nearest.values.max() < 0.1
    assert clusters.sizes.sum() == pytest.approx(32, rel=0.05)


def test_centres_follow_codes_that_move_away() -> None:
    torch.manual_seed(0)
    clusters = RunningClusters(4, 2)
    for place in (0.0, 50.0):
        for _ in range(600):
            clusters.update(torch.randn(16, 2) + place)
    assert (clusters.centers - 50).norm(dim=1).max() < 5


def test_centres_without_codes_are_not_there() -> None:
    clusters = RunningClusters(5, 2)
    z = torch.randn(4, 2)
    assert clusters.distance(z).isinf().all()
    clusters.update(z[:1])
    assert int((clusters.sizes > 0).sum()) == 1
    torch.testing.assert_close(clusters.distance(z), (z - z[0]).square().sum(1))
    assert clusters.centers.isfinite().all()


def test_every_process_takes_in_the_codes_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    own, other = torch.randn(5, 2), torch.randn(4, 2)
    alone, shared = RunningClusters(3, 2), RunningClusters(3, 2)
    alone.update(torch.cat([own, other]))

    def add_theirs(value: Tensor) -> None:
        theirs = torch.tensor([0, 4]) if value.dim() == 1 else F.pad(other, (0, 0, 5, 0))
        value += theirs

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "all_reduce", add_theirs)
    shared.update(own)
    assert torch.equal(shared.centers, alone.centers)
    assert torch.equal(shared.sizes, alone.sizes)


def test_metric_is_charged_at_every_layer_s_input() -> None:
    torch.manual_seed(0)
    flow, dim = PlanarFlow(3, 2), 3
    q = Transformed(DiagonalGaussian(torch.randn(6, dim), torch.zeros(6, dim)), flow)
    start = torch.randn(6, dim)
    divergence = divergence_of(dim, curvature=0.5, centers=2).eval()
    assert divergence.clusters is not None
    divergence.clusters.centers.copy_(torch.randn(2, dim))
    divergence.clusters.sizes.fill_(1)
    first, _ = flow.layers[0](start)
    inference = inference_of(flow(start)[0], q)
    expected = torch.zeros(6)
    for point in (start, first):
        nearest = torch.cdist(point, divergence.clusters.centers).amin(1).square()
        expected += (
            torch.stack([2 * dim * s / (2 * dim * s + nearest) for s in SCALES]).sum(0).log()
        )
    plain = divergence_of(dim)
    torch.manual_seed(1)
    found = divergence(inference)
    torch.manual_seed(1)
    found = found - plain(inference)
    torch.testing.assert_close(found, 0.5 * expected, atol=1e-3, rtol=1e-3)


def test_metric_pushes_codes_off_the_centres_and_centres_rest_in_evaluation() -> None:
    torch.manual_seed(0)
    divergence = divergence_of(2, curvature=0.5, centers=1)
    z = torch.randn(8, 2, requires_grad=True)
    untrained = divergence.eval()(inference_of(z))
    assert untrained.isfinite().all()  # no centre yet: nothing to pay
    assert torch.autograd.grad(untrained.sum(), z)[0].isfinite().all()
    clusters = divergence.train().clusters
    assert clusters is not None
    for _ in range(50):
        divergence(inference_of(z))
    centre = clusters.centers.clone()
    divergence.eval()(inference_of(z + 9))
    assert torch.equal(clusters.centers, centre)
    charge = inverse_multiquadratic(clusters.distance(z), 2).log().sum()
    (gradient,) = torch.autograd.grad(charge, z)
    away = z.detach() - centre
    assert ((-gradient * away).sum(1) > 0).all()
    torch.testing.assert_close(clusters.centers[0], z.detach().mean(0), atol=0.5, rtol=0)


def test_the_system_learns() -> None:
    model = small_model("wae-rnf").train()
    batch = make_batch(random_sentences(12))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    history = []
    for _ in range(30):
        terms = model(batch)
        loss = (terms.divergence["z"] - terms.reconstruction).mean()
        history.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sum(history[-5:]) < sum(history[:5])
    assert all(parameter.grad is not None for parameter in model.latents.parameters())
