"""The dispersed divergence: what of a mixture's KL is charged, and what that makes of it."""

from __future__ import annotations

import pytest
import torch
from family_cases import FAMILIES, NAMES
from hypothesis import given, settings
from hypothesis import strategies as st
from mixture_cases import K, M, U, inference_of, log_weights_of, mixture_of, posterior_of
from torch import distributions as td
from torch import nn

from uncollapse.config import DispersedConfig, KLConfig
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.latents.divergences import build_divergence
from uncollapse.latents.divergences.aggregated_kl import aggregated_kl
from uncollapse.latents.divergences.kl import kl_per_dimension
from uncollapse.latents.priors import Mixture


def dispersed(**settings: object) -> nn.Module:
    config = DispersedConfig.model_validate({"kind": "dispersed", **settings})
    return build_divergence(config, 1, M * U)


@pytest.mark.parametrize("name", NAMES)
def test_beta_says_how_much_of_the_dispersion_is_charged(name: str) -> None:
    prior, log_weights = mixture_of(name), log_weights_of()
    posterior = posterior_of(name, prior)
    inference = inference_of(posterior, prior, log_weights)
    parts = inference.mixture_kl()
    dispersion = parts.dispersion.flatten(1).sum(1)
    rest = parts.component.sum(1) + parts.average.flatten(1).sum(1)
    kl = build_divergence(KLConfig(), 1, M * U)(inference)
    torch.testing.assert_close(dispersed(beta=0)(inference), kl)
    torch.testing.assert_close(dispersed(beta=1)(inference), rest)
    torch.testing.assert_close(dispersed(beta=0.4)(inference), rest + 0.6 * dispersion)
    torch.testing.assert_close(kl, kl_per_dimension(inference).sum(1))


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 40))
def test_mutual_information_is_what_components_do_not_pay(seed: int, rows: int) -> None:
    """KL(c) = KL(mean q ‖ p) + L_mi in the batch, L_mi = H(mean q) − mean H(q)."""
    prior, log_weights = mixture_of("gaussian"), log_weights_of(seed, rows)
    inference = inference_of(posterior_of("gaussian", prior, seed, rows), prior, log_weights)
    q = td.Categorical(logits=log_weights)
    mean = td.Categorical(probs=log_weights.exp().mean(0))
    information = (mean.entropy() - q.entropy().mean(0)).sum()
    paid = dispersed(beta=0.8)(inference)
    free = dispersed(beta=0.8, mutual_information=True)(inference)
    assert free.shape == paid.shape == (rows,)
    torch.testing.assert_close(free.mean(), paid.mean() - information)
    component = inference.mixture_kl().component.sum(1).mean()
    torch.testing.assert_close(component, aggregated_kl(log_weights).sum() + information)


def test_floors_by_hand() -> None:
    """Shared out evenly over groups; of z's whole KL, and of the component's."""
    prior, log_weights = mixture_of("gaussian"), log_weights_of()
    inference = inference_of(posterior_of("gaussian", prior), prior, log_weights)
    parts = inference.mixture_kl()
    parts.component = torch.tensor([[0.1, 0.7], [0.6, 0.9]])
    parts.average = torch.tensor([[[1.0, 0.5], [0.2, 0.1]], [[0.0, 0.1], [4.0, 1.0]]])
    parts.dispersion = torch.full((2, 2, 2), 0.5)
    floor = {"z": 3.0, "component": 1.0}  # 1.5 and 0.5 for each of the groups
    found = dispersed(floor=floor)(inference)  # of z, 2.5, 1.3 and 1.1, 6.0
    assert found.tolist() == pytest.approx([2.5 + 1.5 + 0.5 + 0.7, 1.5 + 6.0 + 0.6 + 0.9])
    found = dispersed(floor=floor, beta=0.8)(inference)  # 1.7, 0.5 and 0.3, 5.2
    assert found.tolist() == pytest.approx([1.7 + 1.5 + 0.5 + 0.7, 1.5 + 5.2 + 0.6 + 0.9])


def test_below_a_floor_nothing_pulls() -> None:
    prior, log_weights = mixture_of("gaussian"), log_weights_of().requires_grad_()
    inference = inference_of(posterior_of("gaussian", prior), prior, log_weights)
    dispersed(floor={"z": 1e6, "component": 1e6})(inference).sum().backward()
    assert prior.free.grad is not None
    assert log_weights.grad is not None
    assert not prior.free.grad.any()
    assert not log_weights.grad.any()


def test_beta_decides_whether_components_melt() -> None:
    """From one start; a Gaussian decoder of z itself, and a posterior for each of 20 points."""
    left = {}
    for beta in (0.0, 0.9):
        torch.manual_seed(0)
        prior = Mixture(FAMILIES["gaussian"], 1, 1, K)
        places = torch.linspace(-2, 2, 20)[:, None]  # what z should say
        mean, log_variance = nn.Parameter(places.clone()), nn.Parameter(torch.zeros(20, 1))
        logits = nn.Parameter(torch.randn(20, 1, K))
        optimizer = torch.optim.Adam([mean, log_variance, logits, prior.free], 0.1)
        divergence = dispersed(beta=beta)
        for _ in range(300):
            posterior = DiagonalGaussian(mean, log_variance)
            inference = inference_of(posterior, prior, logits.log_softmax(-1))
            error = ((mean - places).square() + log_variance.exp()).sum(1)
            loss = (error / 2 + divergence(inference)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        left[beta] = prior.weighted_variance(logits.log_softmax(-1)).mean().item()
    assert left[0.0] < 0.001
    assert left[0.9] > 10
