"""The stop rule, the verdict on a latent, and the optimisers, each against hand-worked numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from uncollapse.config import PlateauConfig, TrainingConfig
from uncollapse.strategies.joint import Joint
from uncollapse.strategies.optimizers import build_optimizer, step_scaled
from uncollapse.training.advice import Kind
from uncollapse.training.plateau import Plateau
from uncollapse.training.verdict import code_verdict, verdict, worst, worst_latent


def actions(scores: list[float], config: PlateauConfig | None) -> list[str]:
    rule = Plateau()
    return [rule.update(score, epoch, config) for epoch, score in enumerate(scores)]


def test_plateau_by_hand() -> None:
    config = PlateauConfig(patience=2, factor=0.5, max_decays=3, start_epoch=4)
    # epoch      0  1  2  3  4  5  6  7  8  9  10 11
    scores = [9, 8, 8, 9, 9, 7, 8, 9, 10, 9, 11, 12.0]
    # 0-2 improve or equal 8; 3, 4 are worse: decay at 4, reference 9; 5 improves to 7;
    # 6, 7 are worse: decay, reference 9; 8 is worse than 9, 9 equals it, 10 and 11 are worse: stop
    expected = ["go on"] * 4 + ["decay"] + ["go on"] * 2 + ["decay"] + ["go on"] * 3 + ["stop"]
    assert actions(scores, config) == expected


def test_plateau_waits_for_its_first_epoch_but_counts_before_it() -> None:
    config = PlateauConfig(patience=2, factor=0.5, max_decays=5, start_epoch=5)
    assert actions([1, 2, 2, 2, 2, 2], config) == ["go on"] * 5 + ["decay"]


def test_no_decays_is_early_stopping() -> None:
    config = PlateauConfig(patience=3, factor=0.5, max_decays=0, start_epoch=0)
    assert actions([5, 4, 6, 6, 6], config) == ["go on"] * 4 + ["stop"]


def test_no_rule_never_stops() -> None:
    assert set(actions([1.0] + [2.0] * 50, None)) == {"go on"}


@pytest.mark.parametrize(
    ("kl", "mi", "active", "dim", "weight", "previous", "state"),
    [
        (7.2, 6.9, 20, 32, 1.0, [], "alive"),
        (0.001, 0.0, 0, 32, 1.0, [], "collapsed"),
        (0.001, 0.0, 0, 32, 0.3, [], "dying"),  # the weight still rises
        (0.3, 0.2, 1, 32, 1.0, [], "dying"),
        (0.3, 0.2, 1, 32, 0.5, [], "alive"),
        (2.0, 1.5, 4, 32, 1.0, [8.0, 6.0, 4.0], "dying"),
        (2.0, 1.5, 4, 32, 1.0, [8.0, 6.0, 1.0], "alive"),  # it rises again
        (3.5, 1.5, 4, 32, 1.0, [4.0, 3.9, 3.8], "alive"),  # settling
        (3.2, 0.0, 0, 32, 1.0, [], "collapsed"),  # a KL paid for nothing
        (None, 3.0, 32, 32, 1.0, [], "alive"),  # a point posterior
        (None, 0.0, 0, 32, 1.0, [], "collapsed"),
        (None, None, 0, 32, 1.0, [], "collapsed"),  # an autoencoder, whose z stands still
        (None, None, 5, 32, 1.0, [], "alive"),
        (0.9, 0.3, 0, 32, 1.0, [], "dying"),  # most of the KL is paid for nothing
        (0.9, 0.3, 3, 32, 1.0, [], "alive"),
        (0.9, 0.3, 0, 32, 0.5, [], "alive"),
        (2.0, 1.5, 0, 32, 1.0, [], "alive"),  # many weak units, or variances, say it
        (None, None, None, 0, 1.0, [], "no latent"),
    ],
)
def test_verdict(kl, mi, active, dim, weight, previous, state) -> None:
    found = verdict(kl, mi, active, dim, weight=weight, previous_kl=previous)
    assert found.state == state
    assert bool(found.advice) == (state in ("dying", "collapsed"))
    assert found.evidence


@pytest.mark.parametrize("weight", [0.2, 1.0])
def test_advice_fits_what_the_latent_is_made_of(weight: float) -> None:
    def advice(kind: Kind) -> str:
        return verdict(0.0, 0.0, 0, 4, weight=weight, kind=kind).advice

    assert "bn-vae" in advice("continuous")
    for recipe in ("bn-cvae", "free-bits-cvae", "max-pool-bn-cvae", "cvae-bow"):
        assert recipe in advice("conditional")
    assert "bn-vae" not in advice("conditional")  # it reads no context
    assert "di-vae" in advice("discrete")
    assert "dgm-vae-mi" in advice("mixture")
    assert "KL" not in advice("uncharged")
    assert "word_dropout" in advice("uncharged")


@pytest.mark.parametrize(
    ("mi", "usage", "components", "kept", "weight", "state"),
    [
        (0.6, 4.0, 3.5, 0.8, 1.0, "alive"),
        (0.0, 4.0, 1.0, 0.0, 1.0, "mode collapse"),
        (0.6, 4.0, 1.4, 0.8, 1.0, "mode collapse"),
        (0.6, 4.0, 1.6, 0.8, 1.0, "alive"),
        (0.6, 4.0, 1.0, 0.8, 0.5, "dying"),  # the weight still rises
        (0.0, 4.0, 3.5, 0.0, 1.0, "codes ignored"),
        (0.0, 1.0, 1.0, 0.0, 1.0, "codes ignored"),  # one component in use has not melted
        (0.0, 4.0, 3.5, 0.0, 0.5, "alive"),
        (0.6, 4.0, 3.5, 0.05, 1.0, "z ignores c"),
        (0.6, 4.0, 3.5, 0.15, 1.0, "alive"),
        (0.6, 4.0, 3.5, 0.05, 0.5, "alive"),
        (0.6, 4.0, 3.5, None, 1.0, "alive"),
        (0.04, 4.0, None, None, 1.0, "codes ignored"),  # units of a discrete latent
        (0.06, 4.0, None, None, 1.0, "alive"),
    ],
)
def test_verdict_on_codes(mi, usage, components, kept, weight, state) -> None:
    found = code_verdict(
        "z.component", (2, 4), mi, usage, components=components, kept=kept, weight=weight
    )
    assert found.state == state
    assert bool(found.advice) == (state != "alive")
    assert "z.component" in found.evidence


def test_mutual_information_that_is_there_is_no_advice() -> None:
    def advice(informed: bool) -> str:
        return code_verdict(
            "z.component", (1, 4), 0.0, 4.0, components=4.0, informed=informed
        ).advice

    assert "mutual_information: true" in advice(False)
    assert "mutual_information" not in advice(True)
    assert "decoder.word_dropout" in advice(True)


def test_codes_that_say_little_each_can_say_enough_together() -> None:
    assert code_verdict("c", (10, 2), 0.04, 2.0).state == "codes ignored"
    assert code_verdict("c", (20, 2), 0.04, 2.0).state == "alive"


def test_the_worst_verdict_speaks() -> None:
    alive = verdict(3.0, 2.5, 4, 8)
    melted = code_verdict("z.component", (1, 4), 0.0, 4.0, components=1.0)
    dead = verdict(0.0, 0.0, 0, 8)
    assert worst([alive, melted]).state == "mode collapse"
    assert worst([alive, melted]).advice == melted.advice
    assert worst([alive, melted]).evidence == f"{alive.evidence}; {melted.evidence}"
    assert worst([dead, melted]).state == "collapsed"  # then components are no question
    assert worst_latent({"z": alive}) == alive
    both = worst_latent({"z": alive, "c": dead})
    assert (both.state, both.evidence) == ("collapsed", f"latent c: {dead.evidence}")
    assert worst_latent({}).state == "no latent"


def reference_adam(p, grads, lr, eps, decay):
    """Adam with coupled weight decay, in float64, as published."""
    m = v = torch.zeros_like(p)
    for step, grad in enumerate(grads, 1):
        g = grad + decay * p
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        p = p - lr * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + eps)
    return p


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-8])
@pytest.mark.parametrize(("eps", "decay"), [(1e-8, 0.0), (1e-6, 1e-5)])
def test_adam_is_exact_on_the_parameters(scale: float, eps: float, decay: float) -> None:
    torch.manual_seed(0)
    module = nn.Embedding(50, 16)
    start = module.weight.detach().double()
    config = TrainingConfig(
        optimizer="adam", learning_rate=1e-2, epsilon=eps, weight_decay=decay, plateau=None
    )
    optimizer = build_optimizer(config, module.parameters())
    grads = []
    for step in range(40):
        grad = scale * torch.randn(50, 16)
        grad[step % 50 :: 7] = 0  # rows that a batch does not touch still move
        grads.append(grad.double())
        module.weight.grad = grad
        optimizer.step()
    moved = module.weight.detach().double() - start
    expected = reference_adam(start, grads, 1e-2, eps, decay) - start
    assert (moved - expected).norm() / expected.norm() < 2e-5


def test_sgd_is_exact_and_plain() -> None:
    torch.manual_seed(0)
    module = nn.Linear(5, 4, bias=False)
    expected = module.weight.detach().double()
    config = TrainingConfig(optimizer="sgd", learning_rate=0.5)
    optimizer = build_optimizer(config, module.parameters())
    for _ in range(10):
        module.weight.grad = torch.randn(4, 5)
        expected = expected - 0.5 * module.weight.grad.double()
        optimizer.step()
    torch.testing.assert_close(module.weight.detach().double(), expected, rtol=1e-5, atol=1e-6)


def test_frozen_parameters_are_left_out() -> None:
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    (group,) = build_optimizer(TrainingConfig(), module.parameters()).param_groups
    assert group["params"] == [module.weight]


def test_learning_rate_halves_and_follows_the_cosine() -> None:
    config = TrainingConfig(learning_rate=1.0, cosine_period_epochs=10)
    joint = Joint(config)
    assert joint.learning_rate(0, 0) == 1.0
    assert joint.learning_rate(5, 0) == pytest.approx(0.5)
    assert joint.learning_rate(10, 2) == pytest.approx(0.25)
    assert joint.learning_rate(19, 0) == pytest.approx(0.5 * (1 + math.cos(0.9 * math.pi)))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("fused", [True, False])
def test_a_scaled_step_is_that_of_scaled_gradients(optimizer: str, fused: bool) -> None:
    modules = []
    for scaled in (True, False):
        torch.manual_seed(0)
        module = nn.Linear(5, 4, bias=False)
        # a large ε, for Adam forgets scales else
        config = TrainingConfig(optimizer=optimizer, learning_rate=0.1, epsilon=1e-2)  # type: ignore[arg-type]
        learner = build_optimizer(config, module.parameters())
        for group in [learner.defaults, *learner.param_groups]:
            group["fused"] = fused
        for factor in (0.3, 1.0, 0.01, 1.0):
            module.weight.grad = torch.randn(4, 5)
            if scaled:
                step_scaled(learner, factor)
            else:
                module.weight.grad *= factor
                learner.step()
        modules.append(module)
    torch.testing.assert_close(modules[0].weight, modules[1].weight, rtol=1e-6, atol=1e-7)
