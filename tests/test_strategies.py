"""Who learns when: players, the encoder's head start, pretraining, and the critic."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from safetensors.torch import load_file
from training_support import (
    SignalAt,
    corpora,
    last_payload,
    same,
    small_recipe,
    train,
    without_times,
)

from uncollapse.config import ObjectiveConfig, Recipe, TrainingConfig
from uncollapse.errors import RunError, UserError
from uncollapse.model import Model
from uncollapse.objectives import Loss, Objective, Progress
from uncollapse.recipes import load_recipe
from uncollapse.strategies import Pass, build_stages
from uncollapse.strategies.aggressive import Aggressive, catch_up
from uncollapse.terms import Terms
from uncollapse.training import validation
from uncollapse.training.fit import NEW_DECODER
from uncollapse.training.guard import find_nonfinite
from uncollapse.training.module import TrainingModule
from uncollapse.training.signals import Interrupted
from uncollapse.training.state import derived_seed

# three batches an epoch
FEW = ["training.batch_size=34", "training.max_epochs=2"]
AGGRESSIVE = [*FEW, "strategy={kind: aggressive}"]
PRETRAINED = [
    *FEW,
    "strategy={kind: pretrained, epochs: 3, plateau: {patience: 1, start_epoch: 0}}",
]
BOTH = [*FEW, "strategy={kind: pretrained, epochs: 2, then: {kind: aggressive}}"]


def implicit_recipe(*overrides: str) -> Recipe:
    """iVAE at the size of these tests, with a critic whose steps can be seen."""
    sizes = ["encoder.embedding_dim=6", "encoder.hidden_dim=8", "latents.z.dim=3"]
    critic = ["latents.z.divergence.hidden_dim=5", "latents.z.divergence.critic.learning_rate=1e-2"]
    return small_recipe(*sizes, *critic, *FEW, *overrides, name="ivae")


class Watch(Callback):
    """Writes down who changed in every update, and in every lesson of the critic."""

    def __init__(self) -> None:
        self.updates: list[tuple[tuple[str, ...], set[str]]] = []
        self.lessons: list[set[str]] = []

    def on_train_start(self, _trainer: Trainer, module: TrainingModule) -> None:
        update = module.update

        def watched(optimizers: Any, found: Pass) -> None:
            changed = self.changed(module.model, lambda: update(optimizers, found))
            self.updates.append((tuple(optimizers), changed))

        module.update = watched
        if module.critic is not None:
            learn = module.critic.learn

            def lesson(batch: Any) -> bool:
                self.lessons.append(self.changed(module.model, lambda: learn(batch)))
                return True

            module.critic.learn = lesson

    @staticmethod
    def changed(model: Model, action: Callable[[], object]) -> set[str]:
        players = model.players()
        before = {name: [p.detach().clone() for p in ps] for name, ps in players.items()}
        action()
        return {name for name, ps in players.items() if not same(before[name], ps)}


def test_in_aggressive_training_each_step_changes_its_player_alone(tmp_path: Path) -> None:
    watch = Watch()
    _, history = train(tmp_path, small_recipe(*BOTH), callbacks=[watch])
    both, alone = {"inference", "generation"}, {("inference",), ("generation",)}
    for names, changed in watch.updates:
        assert changed == (both if names == ("joint",) else set(names))
    assert alone <= {names for names, _ in watch.updates}
    ahead = sum(3 * float(row["inner_steps"] or 0) for row in history.rows)
    assert sum(names == ("inference",) for names, _ in watch.updates) == pytest.approx(ahead)


def test_the_critic_learns_in_its_own_steps_alone(tmp_path: Path) -> None:
    watch = Watch()
    train(tmp_path, implicit_recipe(), callbacks=[watch])
    assert watch.lessons == [{"critic"}] * 6
    assert watch.updates == [(("joint",), {"inference", "generation"})] * 6
    assert set(last_payload(tmp_path)["optimizers"]) == {"joint", "critic"}


def test_the_critic_learns_before_each_step_of_the_encoder_too(tmp_path: Path) -> None:
    watch = Watch()
    critic = "{kind: dual, hidden_dim: 5, critic: {learning_rate: 1e-2}}"
    recipe = small_recipe(*AGGRESSIVE, f"latents.z.divergence={critic}")
    train(tmp_path, recipe, callbacks=[watch])
    assert {names for names, _ in watch.updates} >= {("inference",), ("generation",)}
    assert watch.lessons == [{"critic"}] * len(watch.updates)


def test_processes_exchange_numbers_and_no_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network of another process's is on that process's device."""
    sent: list[Any] = []

    def gather(value: Any) -> list[Any]:
        sent.append(value)
        return [value]

    monkeypatch.setattr(validation, "gather_objects", gather)
    train(tmp_path, implicit_recipe())
    assert sent

    def leaves(value: Any) -> list[Any]:
        if not isinstance(value, list | tuple):
            return [value]
        return [leaf for part in value for leaf in leaves(part)]

    assert all(type(leaf) is torch.Tensor for value in sent for leaf in leaves(value))


def test_the_critic_has_a_step_size_of_its_own(tmp_path: Path) -> None:
    recipe = implicit_recipe("training.cosine_period_epochs=3", "training.learning_rate=0.05")
    _, history = train(tmp_path, recipe)
    rates = {
        name: optimizer["param_groups"][0]["lr"]
        for name, optimizer in last_payload(tmp_path)["optimizers"].items()
    }
    assert rates["critic"] == 1e-2
    assert rates["joint"] == history.rows[-1]["learning_rate"]
    assert rates["joint"] < 0.05


class Course:
    """A learner whose passes cost what they are told to, a word each."""

    def __init__(self, costs: list[float]) -> None:
        self.costs = iter(costs)
        self.asked: list[int] = []
        self.updated: list[list[str]] = []

    def loss(self, batch: Any) -> Any:
        total = torch.tensor(next(self.costs))
        loss = Loss(total, 1.0, {})
        return Pass(batch, SimpleNamespace(tokens=torch.tensor([1, 1])), loss)  # type: ignore[arg-type]

    def update(self, optimizers: Any, _found: Pass) -> None:
        self.updated.append(list(optimizers))

    def random_batch(self, number: int) -> Any:
        self.asked.append(number)
        return SimpleNamespace(total=2)

    def over_processes(self, values: torch.Tensor) -> list[float]:
        return values.tolist()


@pytest.mark.parametrize(
    ("windows", "updates"),
    [
        ([5, 6], 30),  # the second window is worse
        ([5, 5, 4, 4.5], 60),  # an equal one is not
        ([9, 8, 7, 6, 5, 4, 3], 99),
        ([5, 4, 3, 2, 1, 0.5, 9], 99),  # the seventh is never complete
    ],
)
def test_the_encoder_stops_when_a_window_is_worse(windows: list[float], updates: int) -> None:
    # within a window the costs go up and down: its mean is what counts
    costs = [mean + (-1) ** i * (i < 14) for mean in windows for i in range(15)]
    course = Course(costs)
    assert catch_up(course, SimpleNamespace(total=2), 99) == updates  # type: ignore[arg-type]
    assert course.updated == [["inference"]] * updates
    assert course.asked == list(range(2, updates + 1))  # the first batch is the current one


def test_the_encoder_stops_at_the_most_updates() -> None:
    course = Course([5.0] * 99)
    assert catch_up(course, SimpleNamespace(total=2), 10) == 10  # type: ignore[arg-type]
    recipe = load_recipe("lagging-vae", ["strategy.most_updates=10"])
    assert build_stages(recipe)[-1].strategy.most_updates == 10  # type: ignore[attr-defined]
    then = "strategy={kind: pretrained, then: {kind: aggressive, most_updates: 7}}"
    assert build_stages(load_recipe("vae", [then]))[-1].strategy.most_updates == 7  # type: ignore[attr-defined]


def test_aggression_ends_for_good_at_the_first_fall_of_information() -> None:
    strategy = Aggressive(TrainingConfig())
    # two latents, of which the sum counts; what is not information does not
    course = [(0.1, 0.0), (0.4, 0.5), (0.8, 0.1), (0.5, 0.3), (3.0, 3.0), (1.0, 0.0)]
    said = [
        strategy.end_epoch({"mi/z": z, "mi/c": c, "kl/z": -9.0 * i})["aggressive"]
        for i, (z, c) in enumerate(course)
    ]
    assert said == [1, 1, 1, 1, 0, 0]
    again = Aggressive(TrainingConfig())
    again.load_state_dict(strategy.state_dict())
    assert again.end_epoch({"mi/z": 9.0})["aggressive"] == 0


@pytest.mark.parametrize(
    ("name", "strategy", "said"),
    [
        ("lstm-lm", "{kind: aggressive}", "strategy aggressive needs a latent"),
        ("lstm-lm", "{kind: pretrained}", "strategy pretrained needs a latent"),
        ("autoencoder", "{kind: aggressive}", "needs a posterior with a density, which the point"),
        ("ivae", "{kind: pretrained, then: {kind: aggressive}}", "implicit posterior of latent z"),
    ],
)
def test_a_strategy_that_does_not_fit_is_a_user_error(name: str, strategy: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        small_recipe(f"strategy={strategy}", name=name)


class Snapshot(Callback):
    """The weights with which the run itself begins."""

    def on_train_start(self, _trainer: Trainer, module: TrainingModule) -> None:
        self.weights = {name: v.clone() for name, v in module.model.state_dict().items()}


def test_pretraining_keeps_the_encoder_and_the_decoder_starts_anew(tmp_path: Path) -> None:
    small = [*PRETRAINED, "training.max_epochs=1", "encoder.embedding_dim=6", "latents.z.dim=3"]
    small += ["encoder.hidden_dim=8", "training.learning_rate=0.01"]
    recipe, snapshot = small_recipe(*small, name="bn-vae"), Snapshot()
    _, history = train(tmp_path, recipe, callbacks=[snapshot])
    best = load_file(tmp_path / "pretraining" / "training" / "best" / "model.safetensors")
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(3, 2, NEW_DECODER))
        fresh = Model(recipe, corpora()[2]).state_dict()
    for name, value in snapshot.weights.items():
        if name.startswith("decoder."):
            assert torch.equal(value, fresh[name])
            assert not torch.equal(value, best[name])
        elif name.endswith("shift"):
            assert best[name].abs().min() > 0
            assert value.abs().max() == 0
        elif "running" not in name:  # statistics of the whole corpus replace moving averages
            assert torch.equal(value, best[name])
    assert [row["kl_weight"] for row in history.pretraining] == [0, 0, 0]
    scores = [float(row["validation/reconstruction"] or 0) for row in history.pretraining]
    payload = last_payload(tmp_path / "pretraining")
    assert payload["state"]["best_score"] == -max(scores)
    assert (tmp_path / "pretraining" / "history.jsonl").read_text().count("\n") == 3
    assert (tmp_path / "history.jsonl").read_text().count("\n") == 1


def test_stages_of_pretraining() -> None:
    recipe = small_recipe(
        "training.cosine_period_epochs=2", "training.learning_rate=0.5", *PRETRAINED
    )
    first, last = build_stages(recipe)
    assert (first.name, last.name) == ("pretraining", "")
    assert first.training.learning_rate == 0.5
    assert first.training.cosine_period_epochs is None
    assert last.training == recipe.training
    assert last.objective == recipe.objective
    assert (first.restart, last.restart) == (False, True)


def test_at_weight_zero_a_divergence_does_not_count() -> None:
    terms = Terms(
        reconstruction=torch.tensor([-1.0, -2.0]),
        divergence={"z": torch.tensor([torch.inf, 3.0])},
        kl={"z": torch.tensor([[torch.inf], [3.0]])},
        tokens=torch.tensor([2, 2]),
        posteriors={},
    )
    weight: Any = {"kind": "constant", "value": 0.0}
    loss = Objective(ObjectiveConfig(weight=weight))(terms, 2, Progress(0, 1))
    assert float(loss.total) == 1.5
    batch: Any = SimpleNamespace(size=2)
    assert find_nonfinite(terms, loss, batch, torch.nn.Module()) is None


# --- resuming -----------------------------------------------------------------------------


class Fall(Callback):
    """Dies at the start of the run itself."""

    def on_train_start(self, trainer: Trainer, _module: TrainingModule) -> None:
        if Path(trainer.default_root_dir).name != "pretraining":
            raise KeyError("between the stages")


def assert_same(a: Path, b: Path) -> None:
    for stage in (".", "pretraining"):
        assert (a / stage).exists() == (b / stage).exists()
        if (a / stage).exists():
            assert same(last_payload(a / stage), last_payload(b / stage))


@pytest.mark.parametrize(
    "settings",
    # the last: an epoch is 5 batches of a corpus of 3, in both stages
    [AGGRESSIVE, PRETRAINED, BOTH, [*BOTH, "training.epoch_batches=5"]],
)
def test_resuming_any_stage_changes_nothing(settings: list[str], tmp_path: Path) -> None:
    recipe, whole, parts = small_recipe(*settings), tmp_path / "whole", tmp_path / "parts"
    model, history = train(whole, recipe)
    stages = [stage.name for stage in build_stages(recipe)]
    resume = False
    for stage in stages:
        for batch in (2, 4):  # within the first epoch, and after it
            stop = SignalAt(batch, signal.SIGTERM, parts / stage)
            with pytest.raises(Interrupted):
                train(parts, recipe, resume=resume, callbacks=[stop])
            resume = True
        if stage:
            with pytest.raises(KeyError):
                train(parts, recipe, resume=True, callbacks=[Fall()])
            assert not (parts / "training").exists()
    again, second = train(parts, recipe, resume=True)
    assert same(again.state_dict(), model.state_dict())
    assert_same(parts, whole)
    for found, expected in ((second.rows, history.rows), (second.pretraining, history.pretraining)):
        assert without_times(found) == without_times(expected)
    read, third = train(parts, recipe, resume=True)  # now it is only read
    assert third == second
    assert same(read.state_dict(), model.state_dict())


def test_resuming_with_a_critic_changes_nothing(tmp_path: Path) -> None:
    recipe = implicit_recipe()
    model, _ = train(tmp_path / "whole", recipe)
    with pytest.raises(Interrupted):
        train(tmp_path / "parts", recipe, callbacks=[SignalAt(5, signal.SIGTERM)])
    again, _ = train(tmp_path / "parts", recipe, resume=True)
    assert same(again.state_dict(), model.state_dict())
    assert_same(tmp_path / "parts", tmp_path / "whole")


def test_a_run_that_only_pretrained_is_not_overwritten(tmp_path: Path) -> None:
    recipe = small_recipe(*PRETRAINED)
    with pytest.raises(KeyError):
        train(tmp_path, recipe, callbacks=[Fall()])
    with pytest.raises(UserError, match="holds a run already"):
        train(tmp_path, recipe)


def test_pretraining_is_not_taken_up_again_once_the_run_has_begun(tmp_path: Path) -> None:
    train(tmp_path, small_recipe(*PRETRAINED, "training.max_epochs=1"))
    _, history = train(tmp_path, small_recipe(*PRETRAINED, "strategy.epochs=5"), resume=True)
    assert (len(history.pretraining), len(history.rows)) == (3, 2)


# --- numbers ------------------------------------------------------------------------------


class Spoil(Callback):
    """Spoils the KL of one pass, or the loss of the critic; keeps the weights of before."""

    def __init__(self, at: int, what: str) -> None:
        self.at = at
        self.what = what
        self.passes = 0
        self.before: list[torch.Tensor] = []

    def on_train_start(self, _trainer: Trainer, module: TrainingModule) -> None:
        self.model = module.model
        name = "critic_loss" if self.what == "critic" else "forward"
        ask = getattr(module.model, name)

        def spoiled(*arguments: Any) -> Any:
            found = ask(*arguments)
            self.passes += 1
            if self.passes == self.at:
                self.before = [p.detach().clone() for p in self.model.parameters()]
                (found if self.what == "critic" else found.divergence["z"])[1] *= torch.nan
            return found

        setattr(module.model, name, spoiled)


@pytest.mark.parametrize(
    ("what", "settings", "said"),
    [
        # the fifth update of the encoder alone, on a batch of its own
        ("divergence", AGGRESSIVE, "non-finite divergence of z, sentences [0-9]+ in batch 1 "),
        ("critic", [], r"non-finite loss of the critic in batch 1 \(epoch 1\)"),
    ],
)
def test_a_nonfinite_step_of_any_player_is_not_taken(
    what: str, settings: list[str], said: str, tmp_path: Path
) -> None:
    recipe = implicit_recipe() if what == "critic" else small_recipe(*settings)
    spoil = Spoil(5, what)
    with pytest.raises(RunError, match=said) as error:
        train(tmp_path, recipe, callbacks=[spoil])
    assert "\n" not in str(error.value)
    assert same(spoil.before, list(spoil.model.parameters()))


class Stale(Callback):
    """After updates within a batch, compares a pass with one without any memory of casts."""

    def __init__(self) -> None:
        self.pairs: list[tuple[torch.Tensor, torch.Tensor]] = []

    def on_train_start(self, _trainer: Trainer, module: TrainingModule) -> None:
        update = module.update

        def followed(optimizers: Any, found: Pass) -> None:
            update(optimizers, found)
            if len(self.pairs) < 5:
                self.pairs.append((self.cost(module, found), self.cost(module, found)))

        module.update = followed

    @staticmethod
    def cost(module: TrainingModule, found: Pass) -> torch.Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            cost = module.model(found.batch).reconstruction.detach()
        torch.clear_autocast_cache()
        return cost


def test_bf16_passes_within_a_batch_see_the_weights_of_after_the_update(tmp_path: Path) -> None:
    stale = Stale()
    recipe = small_recipe(*AGGRESSIVE, "training.max_epochs=1", "training.precision=bf16")
    train(tmp_path, recipe, callbacks=[stale])
    assert len(stale.pairs) == 5
    assert all(torch.equal(a, b) for a, b in stale.pairs)
