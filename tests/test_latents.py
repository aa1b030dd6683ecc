"""Posteriors, divergences and the Gaussian below them, against independent mathematics."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import make_batch, random_sentences, small_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from uncollapse.config import (
    FreeBitsConfig,
    GaussianPosteriorConfig,
    KLConfig,
    LatentConfig,
    TimestepMeanConfig,
)
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.distributions.product import side_by_side
from uncollapse.latents import Inference
from uncollapse.latents.divergences import build_divergence
from uncollapse.latents.divergences.free_bits import with_floor
from uncollapse.latents.divergences.timestep_mean import step_weights
from uncollapse.latents.latent import COMBINE
from uncollapse.latents.posteriors.batch_norm import MeanBatchNorm
from uncollapse.latents.posteriors.gaussian import GaussianPosterior, committed, variance_limits
from uncollapse.latents.priors import build_prior

PRIOR = build_prior(LatentConfig(dim=3), 0)
NO_FEATURES = torch.empty(0)
means = st.lists(st.floats(-20, 20), min_size=3, max_size=3).map(torch.tensor).map(Tensor.double)
log_variances = (
    st.lists(st.floats(-12, 6), min_size=3, max_size=3).map(torch.tensor).map(Tensor.double)
)


def mask_of(lengths: list[int], width: int = 0) -> Tensor:
    return torch.arange(max(*lengths, width)) < torch.tensor(lengths)[:, None]


# --- the diagonal Gaussian ----------------------------------------------------------------


@given(means, log_variances, means)
def test_gaussian_agrees_with_torch_distributions(mean: Tensor, log_v: Tensor, z: Tensor) -> None:
    ours = DiagonalGaussian(mean, log_v)
    theirs = Normal(mean, (log_v / 2).exp())
    standard = Normal(torch.zeros(3).double(), torch.ones(3).double())
    torch.testing.assert_close(ours.log_prob(z), theirs.log_prob(z).sum())
    torch.testing.assert_close(ours.entropy(), theirs.entropy().sum())
    torch.testing.assert_close(ours.kl_standard(), kl_divergence(theirs, standard))
    torch.testing.assert_close(PRIOR.kl(ours), ours.kl_standard())
    torch.testing.assert_close(PRIOR.log_prob(z), standard.log_prob(z).sum())


@given(st.floats(-1e-3, 1e-3), st.floats(-1e-3, 1e-3))
def test_kl_is_never_negative_beside_the_prior(mean: float, log_variance: float) -> None:
    near = DiagonalGaussian(torch.tensor([mean]), torch.tensor([log_variance]))  # f32
    assert near.kl_standard().item() >= 0


def test_kl_and_entropy_agree_with_monte_carlo() -> None:
    torch.manual_seed(0)
    q = DiagonalGaussian(torch.tensor([0.5, -1.0, 0.0]), torch.tensor([-1.0, 0.5, 0.0]))
    z = q.rsample(torch.randn(200_000, 3))
    for estimates, exact in (
        (q.log_prob(z) - PRIOR.log_prob(z), q.kl_standard().sum()),
        (-q.log_prob(z), q.entropy()),
    ):
        error = estimates.std() / math.sqrt(len(z))
        assert abs(estimates.mean() - exact) < 4 * error
    torch.testing.assert_close(z.mean(0), q.mean, atol=0.02, rtol=0)
    torch.testing.assert_close(z.var(0), q.variance, atol=0.02, rtol=0)


def test_gaussian_gradients() -> None:
    torch.manual_seed(0)
    mean, log_v, z = torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True).unbind()
    noise = torch.randn(2, 3).double()
    for function in (
        lambda m, v, z: DiagonalGaussian(m, v).log_prob(z),
        lambda m, v, z: DiagonalGaussian(m, v).kl_standard() + z,
        lambda m, v, z: DiagonalGaussian(m, v).entropy() + z.sum(),
        lambda m, v, z: DiagonalGaussian(m, v).rsample(noise) * z,
    ):
        assert torch.autograd.gradcheck(function, (mean, log_v, z))


def test_concatenated_gaussian_is_the_product() -> None:
    a, b = (DiagonalGaussian(*torch.randn(2, 5, d).unbind()) for d in (2, 3))
    z = torch.randn(5, 5)
    both = side_by_side([a, b])
    torch.testing.assert_close(both.log_prob(z), a.log_prob(z[:, :2]) + b.log_prob(z[:, 2:]))
    torch.testing.assert_close(both[1:3].mean, both.mean[1:3])


# --- batch-normalised means ---------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
def test_batch_norm_is_pytorchs_on_the_real_positions(masked: bool) -> None:
    torch.manual_seed(0)
    values = torch.randn(5, 6, 3) * 2 + 1
    mask = mask_of([6, 2, 4, 1, 5]) if masked else None
    real = values[mask] if mask is not None else values.flatten(0, 1)
    ours, theirs = MeanBatchNorm(3, scale=0.7), nn.BatchNorm1d(3)
    with torch.no_grad():
        theirs.weight.fill_(0.7)
        ours.shift.copy_(torch.tensor([0.1, -0.2, 0.3]))
        theirs.bias.copy_(ours.shift)
    for _ in range(3):
        out = ours(values, mask)
        out = out[mask] if mask is not None else out.flatten(0, 1)
        torch.testing.assert_close(out, theirs(real))
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_variance, theirs.running_var)
    ours.eval(), theirs.eval()
    out = ours(values, mask)
    out = out[mask] if mask is not None else out.flatten(0, 1)
    torch.testing.assert_close(out, theirs(real))


def test_batch_norm_gradients_are_pytorchs_and_stop_at_padding() -> None:
    torch.manual_seed(0)
    values = torch.randn(4, 5, 2, dtype=torch.float64, requires_grad=True)
    mask = mask_of([5, 2, 3, 1])
    weights = torch.randn(int(mask.sum()), 2).double()
    ours, theirs = MeanBatchNorm(2, scale=0.6).double(), nn.BatchNorm1d(2).double()
    nn.init.constant_(theirs.weight, 0.6)
    (found,) = torch.autograd.grad((ours(values, mask)[mask] * weights).sum(), values)
    (wanted,) = torch.autograd.grad((theirs(values[mask]) * weights).sum(), values)
    torch.testing.assert_close(found, wanted)
    assert not found[~mask].any()


def test_batch_norm_freezes_the_scale_and_learns_the_shift() -> None:
    posterior = GaussianPosterior(
        GaussianPosteriorConfig.model_validate({"kind": "gaussian", "batch_norm": {"scale": 0.6}}),
        feature_dim=4,
        dim=3,
    )
    assert {name for name, _ in posterior.named_parameters()} == {
        "linear.weight",
        "batch_norm.shift",
    }


@given(
    st.floats(0.1, 2),
    st.floats(-3, 3),
    st.floats(-4, 1),
    st.integers(2, 20),
    st.integers(0, 2**31 - 1),
)
def test_batch_norm_bounds_the_kl_from_below(
    scale: float, shift: float, log_spread: float, rows: int, seed: int
) -> None:
    torch.manual_seed(seed)
    dim = 3
    norm = MeanBatchNorm(dim, scale).double()
    nn.init.constant_(norm.shift, shift)
    raw = torch.randn(rows, dim).double() * 10**log_spread + torch.randn(dim)
    posterior = DiagonalGaussian(norm(raw), torch.randn(rows, dim).double())
    mean_kl = posterior.kl_standard().sum(1).mean()
    # ε takes its share of the spread: the variance of μ is γ² v / (v + ε), not γ²
    v = raw.var(0, unbiased=False)
    bound = (scale**2 * v / (v + norm.epsilon) + shift**2).sum() / 2
    assert mean_kl >= bound - 1e-9
    # where v ≫ ε this is the bound of the paper
    if bool((v > 1e3 * norm.epsilon).all()):
        assert mean_kl >= dim * (scale**2 + shift**2) / 2 * (1 - 1e-3)


def test_recalibration_makes_evaluation_agree_with_training() -> None:
    model = small_model("bn-vae")
    with torch.no_grad():  # raw variances far above ε, which else takes its share
        model.latents["z"].posterior.linear.weight.mul_(30)
    batches = [
        make_batch(random_sentences(40, seed=seed, longest=3 + 4 * seed)) for seed in range(4)
    ]

    def variance(train: bool) -> Tensor:
        model.train(train)
        with torch.no_grad():
            found = [model.infer(batch)["z"].posterior.mean for batch in batches]
        return torch.cat(found).var(0, unbiased=False)

    gamma2 = 0.7**2
    for _ in range(2):
        imposed = variance(train=True)
        torch.testing.assert_close(imposed, torch.full_like(imposed, gamma2), rtol=1e-3, atol=0)
    # two epochs of moving averages from (0, 1) are not there yet
    assert (variance(train=False) / gamma2 - 1).abs().max() > 0.05
    model.train().recalibrate(lambda: batches)
    assert not model.training
    recalibrated = variance(train=False)
    torch.testing.assert_close(recalibrated, imposed, rtol=1e-3, atol=0)
    # the statistics are the corpus's, every sentence counted once
    raw = {}
    norm = model.latents["z"].posterior.batch_norm
    norm.register_forward_hook(lambda _, inputs, __: raw.setdefault(len(raw), inputs[0]))
    variance(train=False)
    values = torch.cat(list(raw.values()))
    torch.testing.assert_close(norm.running_mean, values.mean(0))
    torch.testing.assert_close(norm.running_variance, values.var(0, unbiased=False))


def test_recalibration_asks_for_no_batch_without_batch_norm() -> None:
    small_model("vae").recalibrate(lambda: pytest.fail("batches were asked for"))


# --- δ-VAE --------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "low", "high"), [(0.1, 0.493, 1.772), (0.15, 0.411, 1.986)])
def test_variance_limits_are_the_published_roots(rate: float, low: float, high: float) -> None:
    assert variance_limits(rate) == pytest.approx((low, high), abs=6e-4)


@given(st.floats(1e-4, 3))
def test_variance_limits_are_roots(rate: float) -> None:
    low, high = variance_limits(rate)
    assert low < 1 < high
    for v in (low, high):
        assert math.log(v) - v + 2 * rate + 1 == pytest.approx(0, abs=1e-9)


def test_committed_deviation_stays_between_the_limits() -> None:
    low, high = (v**0.5 for v in variance_limits(0.1))
    spread = torch.tensor([-1e3, 0.0, 1e3]).double()
    posterior = committed(torch.full((3,), -1.0).double(), spread, 0.1)
    # the official code keeps the share of the way to the upper limit at 1/50 or more
    expected = torch.tensor([low + (high - low) / 50, (low + high) / 2, high]).double()
    torch.testing.assert_close((posterior.log_variance / 2).exp(), expected)
    # without features to add, μ makes the rate up to the nat (and the 1e-6 of its root)
    rates = torch.full((3,), 0.1 + 5e-7).double()
    torch.testing.assert_close(posterior.kl_standard(), rates, atol=1e-9, rtol=0)


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.floats(0.01, 2))
def test_committed_rate_holds_for_any_features(mean: float, spread: float, rate: float) -> None:
    raw = torch.tensor([mean, spread], dtype=torch.float64, requires_grad=True)
    posterior = committed(raw[0], raw[1], rate)
    kl = posterior.kl_standard()
    assert kl.item() >= rate
    kl.backward()
    assert raw.grad is not None
    assert raw.grad.isfinite().all()


@given(st.integers(0, 2**31 - 1), st.floats(0.01, 30))
def test_committed_rate_holds_in_f32_per_dimension(seed: int, size: float) -> None:
    torch.manual_seed(seed)
    config = GaussianPosteriorConfig(kind="gaussian", floor=0.1)
    posterior = GaussianPosterior(config, feature_dim=5, dim=4)
    features = (torch.randn(8, 5) * size).requires_grad_()
    found = posterior(features)
    assert found.kl_standard().min() > 0.1 - 5e-7  # half of it is what f32 rounds away
    (found.mean.sum() + found.log_variance.sum()).backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


# --- timestep-wise regularisation ---------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "counts"),  # of sentences of 1, 2, 5, 6, 8 and 10 steps
    [
        (0.25, [1, 1, 1, 2, 2, 2]),  # 1.25 → 1, 1.5 → 2, 2.5 → 2: halves to even
        (0.5, [1, 1, 2, 3, 4, 5]),
        (0.75, [1, 2, 4, 4, 6, 8]),  # 0.75 → 1, 1.5 → 2, 3.75 → 4, 4.5 → 4, 7.5 → 8
        (1.0, [1, 2, 5, 6, 8, 10]),
    ],
)
def test_step_weights_average_over_the_last_real_steps(last: float, counts: list[int]) -> None:
    lengths = [1, 2, 5, 6, 8, 10]
    weights = step_weights(mask_of(lengths, width=12), last)
    expected = torch.zeros(6, 12)
    for row, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        expected[row, length - count : length] = 1 / count
    torch.testing.assert_close(weights, expected)


def steps_of(lengths: list[int], seed: int = 0) -> tuple[DiagonalGaussian, Tensor]:
    torch.manual_seed(seed)
    mask = mask_of(lengths)
    mean, log_variance = torch.randn(2, *mask.shape, 3).unbind()
    # what stands at padded steps must not matter, whatever it is
    mean[~mask], log_variance[~mask] = 1e30, torch.inf
    return DiagonalGaussian(mean, log_variance), mask


@pytest.mark.parametrize("last", [0.25, 0.5, 1.0])
def test_timestep_mean_is_the_plain_mean_of_the_steps(last: float) -> None:
    lengths = [8, 4, 1]
    steps, mask = steps_of(lengths)
    divergence = build_divergence(TimestepMeanConfig(kind="timestep-mean", last=last), 1, 3)
    found = divergence(
        Inference(COMBINE["last"](steps, mask), NO_FEATURES, PRIOR, steps=steps, mask=mask)
    )
    kl = steps.kl_standard().sum(-1)
    for row, length in enumerate(lengths):
        first = length - max(1, round(last * length))
        torch.testing.assert_close(found[row], kl[row, first:length].mean())


@pytest.mark.parametrize("combine", ["mean", "sum"])
def test_combined_posterior_is_that_of_independent_steps(combine: str) -> None:
    lengths = [5, 2, 1]
    steps, mask = steps_of(lengths)
    found = COMBINE[combine](steps, mask)
    for row, length in enumerate(lengths):
        draws = steps[row][:length].rsample(torch.randn(100_000, length, 3)).sum(1)
        draws = draws / length if combine == "mean" else draws
        error = (draws.var(0) / len(draws)).sqrt()
        assert ((draws.mean(0) - found.mean[row]).abs() < 4.5 * error).all()
        # the variance of a sample variance of normals is 2 σ⁴ / N
        ratio = draws.var(0) / found.variance[row]
        assert ((ratio - 1).abs() < 4.5 * math.sqrt(2 / len(draws))).all()


def test_last_posterior_is_that_of_the_last_real_step() -> None:
    lengths = [5, 2, 1]
    steps, mask = steps_of(lengths)
    found = COMBINE["last"](steps, mask)
    for row, length in enumerate(lengths):
        assert torch.equal(found.mean[row], steps.mean[row, length - 1])
        assert torch.equal(found.log_variance[row], steps.log_variance[row, length - 1])


@pytest.mark.parametrize("name", ["twr-vae", "twr-vae-mean", "twr-vae-sum"])
def test_reported_kl_is_that_of_the_z_that_the_decoder_saw(name: str) -> None:
    model = small_model(name)
    batch = make_batch(random_sentences(6))
    terms = model(batch)
    posterior = model.posterior(batch)
    assert posterior is not None
    torch.testing.assert_close(terms.kl["z"], posterior.kl_standard())
    torch.testing.assert_close(terms.elbo, terms.reconstruction - terms.kl["z"].sum(1))
    assert not torch.allclose(terms.divergence["z"], terms.kl["z"].sum(1))


# --- free bits ----------------------------------------------------------------------------


@pytest.mark.parametrize("per", ["dimension", "total"])
def test_free_bits_by_hand(per: str) -> None:
    kl = torch.tensor([[0.1, 2.0, 0.5], [0.1, 0.2, 0.3], [3.0, 4.0, 5.0]], requires_grad=True)
    found = with_floor(kl, FreeBitsConfig.model_validate({"per": per, "nats": 1.5}))
    gradient = torch.autograd.grad(found.sum(), kl)[0]
    if per == "dimension":  # 0.5 nats each
        values, pulled = [3.0, 1.5, 12.0], kl > 0.49
    else:
        values, pulled = [2.6, 1.5, 12.0], torch.tensor([[True], [False], [True]]).expand(3, 3)
    torch.testing.assert_close(found, torch.tensor(values))
    assert torch.equal(gradient, pulled.float())


@settings(max_examples=50)
@given(st.sampled_from(["dimension", "total"]), st.floats(0.1, 20), st.integers(0, 1000))
def test_free_bits_have_the_gradient_of_the_official_mask(per: str, nats: float, seed: int) -> None:
    torch.manual_seed(seed)
    mean, log_variance = torch.randn(2, 5, 4, requires_grad=True).unbind()
    q = DiagonalGaussian(mean, log_variance)
    config = KLConfig(floor=FreeBitsConfig.model_validate({"per": per, "nats": nats}))
    prior = build_prior(LatentConfig(dim=4), 0)
    found = build_divergence(config, 1, 4)(Inference(q, NO_FEATURES, prior))
    kl = q.kl_standard()
    if per == "dimension":
        official = (kl * (kl > nats / 4)).sum(-1)
    else:
        official = kl.sum(-1) * (kl.sum(-1) > nats)
    assert (found >= nats * (1 - 1e-6)).all()
    for wanted, got in zip(
        torch.autograd.grad(official.sum(), (mean, log_variance), retain_graph=True),
        torch.autograd.grad(found.sum(), (mean, log_variance)),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted)


def test_a_single_sentence_has_no_batch_statistics() -> None:
    norm = MeanBatchNorm(3, 0.7).train()
    norm.running_mean += 1
    value = torch.tensor([[2.0, 1.0, 0.0]])
    expected = 0.7 * (value - 1) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(norm(value), expected)
    assert norm.running_variance.tolist() == [1, 1, 1]
