"""Weights over the course of training, and the one place that weighs, reduces and adds."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import SENTENCES, make_batch, small_model, small_recipe
from hypothesis import given
from hypothesis import strategies as st

from uncollapse.config import (
    ConstantScheduleConfig,
    CyclicalScheduleConfig,
    LinearScheduleConfig,
    LogisticScheduleConfig,
    ObjectiveConfig,
)
from uncollapse.objectives import Objective, Progress
from uncollapse.objectives.schedules import final_weight, weight_at
from uncollapse.terms import Terms

LINEAR = LinearScheduleConfig(kind="linear", start=0.1, epochs=10)
LOGISTIC = LogisticScheduleConfig(kind="logistic", slope=0.0025, midpoint=2500)
CYCLICAL = CyclicalScheduleConfig(kind="cyclical", period_epochs=10, rising=0.45, start=0.1)


@pytest.mark.parametrize(
    ("config", "batches", "expected"),  # of 20 batches an epoch
    [
        (ConstantScheduleConfig(), 0, 1.0),
        (ConstantScheduleConfig(value=0.4), 0, 0.4),
        (ConstantScheduleConfig(value=0.4), 10**6, 0.4),
        (ConstantScheduleConfig(value=0.0), 7, 0.0),
        (LINEAR, 0, 0.1),
        (LINEAR, 1, 0.1 + 0.9 / 200),
        (LINEAR, 100, 0.55),
        (LINEAR, 200, 1.0),
        (LINEAR, 201, 1.0),
        (LINEAR, 10**6, 1.0),
        (LOGISTIC, 0, 1 / (1 + math.exp(6.25))),
        (LOGISTIC, 2500, 0.5),
        (LOGISTIC, 5000, 1 / (1 + math.exp(-6.25))),
        (LOGISTIC, 10**9, 1.0),
        (CYCLICAL, 0, 0.1),
        (CYCLICAL, 45, 0.55),
        (CYCLICAL, 89, 0.1 + 0.9 * 89 / 90),
        (CYCLICAL, 90, 1.0),
        (CYCLICAL, 91, 1.0),
        (CYCLICAL, 199, 1.0),
        (CYCLICAL, 200, 0.1),  # again from the start
        (CYCLICAL, 245, 0.55),
        (CYCLICAL, 4 * 200, 0.1),
    ],
)
def test_weight_at_the_corners(config: object, batches: int, expected: float) -> None:
    found = weight_at(config, Progress(batches, 20))  # type: ignore[arg-type]
    assert found == pytest.approx(expected, abs=1e-12)


def test_logistic_does_not_overflow() -> None:
    steep = LogisticScheduleConfig(kind="logistic", slope=1e3, midpoint=2500)
    assert weight_at(steep, Progress(0, 1)) == 0
    assert weight_at(steep, Progress(2500, 1)) == 0.5
    assert weight_at(steep, Progress(10**9, 1)) == 1


@pytest.mark.parametrize("period", [0.1, 0.3, 0.7, 1.1, 10])
def test_cycles_shorter_than_an_epoch_restart_on_time(period: float) -> None:
    config = CyclicalScheduleConfig(kind="cyclical", period_epochs=period, rising=1, start=0.25)
    for cycle in range(20):
        begin = round(cycle * period * 10)
        assert weight_at(config, Progress(begin, 10)) == pytest.approx(0.25), cycle


@given(st.sampled_from([LINEAR, LOGISTIC, CYCLICAL]), st.integers(0, 10**7), st.integers(1, 10**5))
def test_weight_stays_between_start_and_one(config: object, batches: int, per_epoch: int) -> None:
    lowest = getattr(config, "start", 0)
    assert lowest <= weight_at(config, Progress(batches, per_epoch)) <= 1  # type: ignore[arg-type]


@given(st.sampled_from([LINEAR, LOGISTIC]), st.integers(0, 10**5), st.integers(1, 1000))
def test_annealing_never_falls(config: object, batches: int, per_epoch: int) -> None:
    now, later = (
        weight_at(config, Progress(seen, per_epoch))  # type: ignore[arg-type]
        for seen in (batches, batches + 1)
    )
    assert now <= later


def test_final_weight() -> None:
    assert final_weight(ConstantScheduleConfig(value=0.4)) == 0.4
    for config in (LINEAR, LOGISTIC, CYCLICAL):
        assert final_weight(config) == 1


# --- objective ----------------------------------------------------------------------------


def make_terms() -> Terms:
    return Terms(
        reconstruction=torch.tensor([-10.0, -20.0, -30.0]),
        divergence={"z": torch.tensor([1.0, 2.0, 3.0]), "c": torch.tensor([0.5, 0.5, 4.0])},
        kl={"z": torch.tensor([[0.5], [1.0], [2.0]]), "c": torch.ones(3, 2)},
        tokens=torch.tensor([3, 4, 5]),
        posteriors={},
    )


def test_objective_by_hand() -> None:
    objective = Objective(ObjectiveConfig(weight=ConstantScheduleConfig(value=0.4)))
    terms = make_terms()
    loss = objective(terms, 5, Progress(0, 1))  # two more sentences elsewhere
    assert loss.weight == 0.4
    assert loss.total.item() == pytest.approx((60 + 0.4 * 11) / 5)
    torch.testing.assert_close(loss.parts["reconstruction"], terms.reconstruction)
    torch.testing.assert_close(loss.parts["divergence of c"], terms.divergence["c"])
    assert set(loss.parts) == {"reconstruction", "divergence of z", "divergence of c"}
    # the bound has the true KLs at weight 1, whatever the objective charges
    torch.testing.assert_close(terms.elbo, torch.tensor([-12.5, -23.0, -34.0]))


def test_objective_weighs_by_schedule_in_training_and_by_its_end_otherwise() -> None:
    objective = Objective(ObjectiveConfig(weight=LINEAR))
    terms = make_terms()
    early = objective(terms, 3, Progress(100, 20))
    assert early.weight == pytest.approx(0.55)
    assert early.total.item() == pytest.approx((60 + 0.55 * 11) / 3)
    per_sentence = objective.per_sentence(terms)
    torch.testing.assert_close(per_sentence, torch.tensor([11.5, 22.5, 37.0]))


@pytest.mark.parametrize("name", ["vae", "twr-vae-mean", "free-bits-vae", "lstm-lm"])
def test_parts_of_a_batch_add_up_to_the_whole(name: str) -> None:
    model = small_model(name)
    objective = Objective(small_recipe(name).objective)

    def loss_of(first: int, end: int) -> torch.Tensor:
        batch = make_batch(SENTENCES[first:end], total=len(SENTENCES))
        torch.manual_seed(0)
        # the whole batch's noise is drawn; each part takes its rows of it
        noise = torch.randn(len(SENTENCES), max(model.latent_dim, 1))[first:end]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "randn_like", lambda _: noise)
            return objective(model(batch), batch.total, Progress(5, 3)).total

    whole = loss_of(0, 4)
    parts = [loss_of(0, 1), loss_of(1, 4)]  # of different widths
    torch.testing.assert_close(sum(parts), whole)
    wanted = torch.autograd.grad(whole, list(model.parameters()))
    got = torch.autograd.grad(sum(parts), list(model.parameters()))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
