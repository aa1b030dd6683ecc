"""The learned Wasserstein distance: its critic, its penalty, and who learns from it."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import training_support
from helpers import SENTENCES, VOCABULARY, make_batch, random_sentences, small_model
from torch import Tensor, nn
from training_support import SignalAt, last_payload, new_model, same, train

from uncollapse.config import WassersteinConfig, parse_recipe
from uncollapse.data.corpus import Corpus
from uncollapse.data.sentences import Sentences
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.encoders.context import Condition
from uncollapse.errors import UserError
from uncollapse.latents import Inference, Latent
from uncollapse.latents.divergences import build_divergence
from uncollapse.latents.divergences.wasserstein import Wasserstein
from uncollapse.latents.priors import StandardNormal
from uncollapse.model import Model
from uncollapse.recipes import load_recipe
from uncollapse.training.critic import Critic
from uncollapse.training.signals import Interrupted

CONTEXTS = [random_sentences(3, seed=1), random_sentences(1, seed=2), [], random_sentences(2)]
READER = {"kind": "gru", "embedding_dim": 5, "hidden_dim": 6}
LATENT: dict[str, Any] = {
    "dim": 4,
    "posterior": {"kind": "implicit", "generator": {"hidden_dim": 6}},
    "prior": {"kind": "conditional-implicit", "hidden_dim": 6},
    "divergence": {"kind": "wasserstein", "hidden_dim": 8},
}


def model_of(select_on: str = "objective", **changes: Any) -> Model:
    """A small conditional model, in training mode."""
    values = {
        "name": "test",
        "summary": "-",
        "source": "-",
        "data": {"context_turns": 9},
        "encoder": READER,
        "condition": {"hidden_dim": 7},
        "latents": {"z": LATENT | changes},
        "decoder": READER | {"every_input": False, "initial_state": "hidden"},
        "training": {"select_on": select_on},
    }
    torch.manual_seed(0)
    return Model(parse_recipe(values), VOCABULARY)


def latent_of(model: Model) -> Latent:
    return model.named_latents()["z"]


def lean(divergence: nn.Module) -> None:
    """A critic starts flat, where its slope has no direction."""
    for parameter in divergence.parameters():
        nn.init.normal_(parameter)


def wasserstein(dim: int, condition_dim: int = 0, **settings: object) -> Wasserstein:
    config = WassersteinConfig.model_validate({"kind": "wasserstein", **settings})
    found = build_divergence(config, 1, dim, condition_dim)
    assert isinstance(found, Wasserstein)
    return found


def inference_of(mean: Tensor, deviation: float, condition: Condition | None = None) -> Inference:
    q = DiagonalGaussian(mean, torch.full_like(mean, 2 * math.log(deviation)))
    return Inference(q, torch.zeros(len(mean), 1), StandardNormal(mean.shape[1]), condition)


def condition_of(vector: Tensor) -> Condition:
    rows = len(vector)
    nothing, mask = vector.new_zeros(rows, 0, 2), torch.zeros(rows, 0, dtype=torch.bool)
    return Condition(vector, nothing, mask, torch.ones(rows, dtype=torch.bool))


# --- the penalty ---------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 5, 64])
@pytest.mark.parametrize("context_dim", [0, 2])
def test_penalty_of_a_linear_critic_is_known_whatever_the_batch(
    rows: int, context_dim: int
) -> None:
    """D = a·z + b·c: (|a| − 1)² for each row; averaged before, it would be (|a|/B − 1)²."""
    divergence = wasserstein(3, context_dim)
    linear = nn.Linear(3 + context_dim, 1).double()
    with torch.no_grad():
        weights = torch.tensor([2.0, -1.0, 2.0, 9.0, -9.0]).double()  # |a| = 3
        linear.weight.copy_(weights[: 3 + context_dim])
    divergence.network = nn.Sequential(linear)
    z, other = torch.randn(2, rows, 3).double().unbind()
    context = torch.randn(rows, context_dim).double() if context_dim else None
    found = divergence.gradient_penalty(z, other, context)
    torch.testing.assert_close(found, torch.full((rows,), 4.0).double())


def test_gradients_of_the_critic_s_loss_are_those_of_differences() -> None:
    torch.manual_seed(0)
    divergence = wasserstein(2, 3, hidden_dim=4, penalty=0.7).double()
    lean(divergence)
    condition = condition_of(torch.randn(5, 3).double())
    inference = inference_of(torch.randn(5, 2).double(), 0.6, condition)
    z = inference.draw()
    other, context = torch.randn_like(z), torch.randn(5, 3).double()
    names, values = zip(*divergence.named_parameters(), strict=True)

    def loss(*parameters: Tensor) -> Tensor:
        changed = dict(zip(names, parameters, strict=True))
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return torch.func.functional_call(_Loss(divergence), changed, (z, other, context))

    inputs = tuple(value.detach().requires_grad_() for value in values)
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-7, atol=1e-5)


class _Loss(nn.Module):
    """The critic's loss at given draws, with the critic's own parameter names."""

    def __init__(self, divergence: Wasserstein) -> None:
        super().__init__()
        self.network = divergence.network
        self.divergence = [divergence]  # not a part: its parameters have their names already

    def forward(self, z: Tensor, other: Tensor, context: Tensor) -> Tensor:
        divergence = self.divergence[0]
        penalty = divergence.gradient_penalty(z, other, context)
        return divergence.penalty * penalty - divergence._difference(z, other, context)


# --- what is learned -----------------------------------------------------------------------


def learned_distance(mean: Tensor, steps: int = 300) -> float:
    """Between N(mean, I) and N(0, I), after some hundred steps of the critic."""
    torch.manual_seed(0)
    divergence = wasserstein(len(mean), hidden_dim=32)
    optimizer = torch.optim.Adam(divergence.parameters(), 3e-3, betas=(0.5, 0.9))
    for _ in range(steps):
        optimizer.zero_grad()
        divergence.critic_loss(inference_of(mean.expand(256, -1), 1.0)).mean().backward()
        optimizer.step()
    with torch.no_grad():
        return float(divergence(inference_of(mean.expand(20_000, -1), 1.0)).mean())


@pytest.mark.parametrize("mean", [[2.0], [-1.5], [0.6], [0.8, -1.2, 0.0]])
def test_the_critic_approaches_the_known_distance(mean: list[float]) -> None:
    """W₁ of Gaussians that differ in their means is the distance d of these.

    A slope of 1 + d / 20 is what the penalty of 10 leaves: it is overestimated by that share.
    """
    exact = math.hypot(*mean)
    found = learned_distance(torch.tensor(mean))
    assert found == pytest.approx(exact * (1 + exact / 20), rel=0.1)


def test_weight_is_of_what_is_charged_alone() -> None:
    found = {}
    for weight in (1.0, 3.0):
        torch.manual_seed(0)
        divergence = wasserstein(2, weight=weight)
        inference = inference_of(torch.ones(4, 2), 1.0)
        inference.draw()
        torch.manual_seed(1)
        found[weight] = divergence(inference), divergence.critic_loss(inference)
    torch.testing.assert_close(found[3.0][0], 3 * found[1.0][0])
    torch.testing.assert_close(found[3.0][1], found[1.0][1])


def test_players_lower_what_the_critic_raises() -> None:
    """A posterior that follows the gradient comes to the prior."""
    torch.manual_seed(0)
    divergence = wasserstein(3, hidden_dim=16)
    mean = torch.tensor([[2.0, 0.0, -1.0]], requires_grad=True)
    critic = torch.optim.Adam(divergence.parameters(), 1e-2, betas=(0.5, 0.9))
    player = torch.optim.SGD([mean], 0.03)
    for _ in range(150):
        for _ in range(5):
            critic.zero_grad()
            divergence.critic_loss(inference_of(mean.expand(64, -1), 1.0)).mean().backward()
            critic.step()
        player.zero_grad()
        divergence(inference_of(mean.expand(64, -1), 1.0)).mean().backward()
        player.step()
    assert mean.norm() < 0.6


# --- in a model ----------------------------------------------------------------------------


@pytest.mark.parametrize("components", [1, 3])
def test_both_sides_learn_from_the_distance(components: int) -> None:
    model = model_of(prior={**LATENT["prior"], "components": components})
    latent, batch = latent_of(model), make_batch(SENTENCES, contexts=CONTEXTS)
    lean(latent.divergence)
    terms = model(batch)
    assert set(terms.divergence) == {"z"}
    assert terms.kl == {}
    terms.divergence["z"].mean().backward()
    for part in (latent.posterior, latent.prior, model.encoder, model.context):
        assert part is not None
        gradients = [p.grad for p in part.parameters() if p.grad is not None]
        assert any(bool(gradient.any()) for gradient in gradients)
    assert all(p.grad is not None for p in latent.prior.parameters())


def test_the_critic_alone_learns_from_its_loss() -> None:
    model = model_of()
    model.critic_loss(model.infer(make_batch(SENTENCES, contexts=CONTEXTS))).mean().backward()
    players = model.players()
    assert all(p.grad is not None for p in players.pop("critic"))
    assert all(p.grad is None for parameters in players.values() for p in parameters)


def test_the_trainer_s_critic_widens_the_difference() -> None:
    model, batch = model_of(), make_batch(SENTENCES, contexts=CONTEXTS)
    settings = model.critic_settings()
    assert settings is not None
    assert settings.steps == 5
    critic = Critic(model, settings.model_copy(update={"steps": 100, "learning_rate": 1e-2}))

    def difference() -> float:
        torch.manual_seed(0)
        with torch.no_grad():
            return float(model(batch.repeat(50)).divergence["z"].mean())

    before = difference()
    assert critic.learn(batch)
    assert difference() > before + 0.05


@pytest.mark.parametrize("kind", ["wasserstein", "dual", "mmd"])
def test_a_conditional_gaussian_prior_learns_from_samples_too(kind: str) -> None:
    prior = {"kind": "conditional-gaussian", "hidden_dim": 5}
    model = model_of(prior=prior, divergence={"kind": kind}, posterior={"kind": "gaussian"})
    model(make_batch(SENTENCES, contexts=CONTEXTS)).divergence["z"].mean().backward()
    assert all(p.grad is not None for p in latent_of(model).prior.parameters())


def test_it_needs_no_context() -> None:
    model = small_model("vae", ["latents.z.divergence={kind: wasserstein, hidden_dim: 4}"])
    terms = model.train()(make_batch(SENTENCES))
    assert terms.divergence["z"].shape == (4,)
    assert set(terms.kl) == {"z"}  # the posterior has a density, so its KL is known


SMALL = [
    "data.vocabulary_size=null",
    "encoder.embedding_dim=6",
    "encoder.hidden_dim=8",
    "condition.hidden_dim=7",
    "latents.z.dim=3",
    "latents.z.posterior.generator.hidden_dim=6",
    "latents.z.prior.hidden_dim=6",
    "latents.z.divergence.hidden_dim=8",
    "decoder.embedding_dim=6",
    "decoder.hidden_dim=8",
    "training.max_epochs=3",
    "training.batch_size=16",
    "training.precision=f32",
]


def dialogue_corpora() -> tuple[Corpus, Corpus, int]:
    """Training and validation dialogues of random words, and the vocabulary size."""
    draw = random.Random(0)
    words = [f"w{number}" for number in range(20)]
    dialogues = []
    for _ in range(30):
        turns = [" ".join(draw.choices(words, k=draw.randint(1, 5))) for _ in range(4)]
        spoken = [{"speaker": "AB"[place % 2], "text": text} for place, text in enumerate(turns)]
        dialogues.append({"turns": spoken})
    tokenizer = Tokenizer.train([" ".join(words)], "whitespace", None)
    parts = (dialogues[:22], dialogues[22:])  # 6 batches of 16, the last one of 8
    training, validation = (
        Corpus.from_records(Sentences(part), tokenizer, context_turns=9) for part in parts
    )
    return training, validation, len(tokenizer)


@pytest.mark.parametrize("name", ["dialog-wae", "dialog-wae-gmp", "ivae-dialogue"])
def test_a_run_that_stops_goes_on_as_if_it_had_not(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_support, "corpora", lambda **_: dialogue_corpora())
    recipe = load_recipe(name, SMALL)
    whole, history = train(tmp_path / "whole", recipe)
    assert "kl" not in history.rows[-1]
    with pytest.raises(Interrupted):
        train(tmp_path / "cut", recipe, callbacks=[SignalAt(9, 15)])
    parts, _ = train(tmp_path / "cut", recipe, resume=True)
    assert same(whole.state_dict(), parts.state_dict())
    assert same(last_payload(tmp_path / "whole"), last_payload(tmp_path / "cut"))
    start = new_model(recipe, dialogue_corpora()[2]).state_dict()
    moved = {key for key, value in whole.state_dict().items() if not same(value, start[key])}
    for part in ("prior.network", "prior.generator", "posterior.noise", "divergence"):
        assert any(key.startswith(f"latents.z.{part}") for key in moved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prior": {"kind": "conditional-implicit"}, "divergence": {"kind": "kl"}}, "no density"),
        ({"divergence": {"kind": "mmd", "kl": 0.5}}, "no density for divergence.kl"),
        ({"posterior": {"kind": "refined"}}, "no density for the descent"),
        ({"posterior": {"kind": "implicit", "hidden_dim": 3, "generator": {}}}, "hidden_dim"),
        ({"posterior": {"kind": "von-mises-fisher"}}, "sphere"),
        ({"prior": {"kind": "conditional-implicit", "hidden_dim": 1}}, "hidden_dim"),
        (
            {"select_on": "elbo", "posterior": {"kind": "gaussian"}},
            "training.select_on elbo: prior conditional-implicit of latent z has no density",
        ),
        (
            {
                "posterior": {"kind": "categorical"},
                "prior": {"kind": "uniform-categorical", "policy": {}},
            },
            "prior.policy learns nothing from divergence wasserstein",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        model_of(**changes)
    assert "\n" not in str(error.value)


def test_critics_share_their_settings() -> None:
    latents = [
        f"latents.{name}={{dim: 2, divergence: {{kind: wasserstein, critic: {{steps: {steps}}}}}}}"
        for name, steps in (("x", 2), ("y", 3))
    ]
    with pytest.raises(UserError, match="all critics must have the same settings"):
        load_recipe("vae", latents)
