"""Two stages: a frozen VAE of responses, the policy, attribute forcing, and what may not learn."""

from __future__ import annotations

import math
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SENTENCES, VOCABULARY, make_batch, random_sentences, small_recipe
from lightning.pytorch import Callback, Trainer
from safetensors.torch import load_file
from training_support import SignalAt, fitted, last_payload, new_model, same, without_times

from uncollapse.attribute_forcing import AttributeForcing, CodesInContext, code_loss
from uncollapse.config import ConstantScheduleConfig, Recipe
from uncollapse.data.corpus import Corpus
from uncollapse.data.sentences import Sentences
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.encoders.context import Condition
from uncollapse.encoders.recurrent import RecurrentEncoder
from uncollapse.errors import UserError
from uncollapse.freezing import frozen
from uncollapse.model import Model
from uncollapse.objectives import Objective
from uncollapse.strategies import build_stages
from uncollapse.training.fit import NEW_DECODER
from uncollapse.training.history import History
from uncollapse.training.module import TrainingModule
from uncollapse.training.signals import Interrupted
from uncollapse.training.state import derived_seed

RECIPES = ["dgm-vae-dialogue", "di-vae-dialogue"]
every_recipe = pytest.mark.parametrize("name", RECIPES)
CONTEXTS = [random_sentences(count, seed=count) for count in (3, 1, 0, 2)]
FAST = ["strategy.epochs=2", "training.max_epochs=2", "training.batch_size=16"]
FAST += ["training.precision=f32", "training.learning_rate=0.02", "training.plateau=null"]


def toy(name: str, *overrides: str) -> Recipe:
    return small_recipe(name, [*FAST, "condition.encoder.bidirectional=false", *overrides])


def toy_model(name: str, *overrides: str) -> Model:
    """In evaluation mode, with weights far from 0."""
    torch.manual_seed(0)
    model = Model(toy(name, *overrides), VOCABULARY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.7, 0.7)
    return model.eval()


def corpora() -> tuple[Corpus, Corpus, int]:
    """Dialogues in which the answer follows from the question."""
    draw = random.Random(0)
    topics = [[f"{letter}{number}" for number in range(4)] for letter in "abc"]
    dialogues = []
    for _ in range(40):
        turns = []
        for _ in range(2):
            words = draw.choice(topics)
            for speaker in ("user", "system"):
                text = " ".join(draw.choices(words, k=draw.randint(1, 4)))
                turns.append({"speaker": speaker, "text": text})
        dialogues.append({"turns": turns})
    texts = [turn["text"] for dialogue in dialogues for turn in dialogue["turns"]]
    tokenizer = Tokenizer.train(texts, "whitespace", None)
    train, validation = (
        Corpus.from_records(Sentences(part), tokenizer, context_turns=3)
        for part in (dialogues[:30], dialogues[30:])
    )
    return train, validation, len(tokenizer)


def train(
    folder: Path, recipe: Recipe, *, resume: bool = False, callbacks: Any = ()
) -> tuple[Model, History]:
    training, validation, vocabulary = corpora()
    model = new_model(recipe, vocabulary)
    return model, fitted(
        model, recipe, training, validation, folder, resume=resume, callbacks=callbacks
    )


# --- stages -------------------------------------------------------------------------------


def test_stages() -> None:
    recipe = toy("dgm-vae-dialogue", "strategy.learning_rate=0.5")
    first, last = build_stages(recipe)
    assert (first.name, last.name) == ("pretraining", "")
    assert (first.blank, last.blank) == (True, False)
    assert (first.restart, last.restart) == (False, True)
    assert (first.learning, last.learning) == (None, ("generation",))
    assert (first.training.max_epochs, first.training.learning_rate) == (2, 0.5)
    assert first.objective.weight == recipe.objective.weight
    assert (first.objective.policy, first.objective.attribute_forcing) == (0, 0)
    assert last.objective.weight == ConstantScheduleConfig(value=0)
    assert (last.objective.policy, last.objective.attribute_forcing) == (1.0, 0.1)
    assert last.training == recipe.training


class Watch(Callback):
    """What each stage begins with, who is frozen during it, and the loss of its first batch."""

    def __init__(self) -> None:
        self.starts: list[dict[str, torch.Tensor]] = []
        self.still: list[set[str]] = []
        self.modes: list[dict[str, bool]] = []
        self.extra: list[set[str]] = []
        self.present: list[bool] = []

    def on_train_start(self, _trainer: Trainer, module: TrainingModule) -> None:
        model = module.model
        self.starts.append({name: v.clone() for name, v in model.state_dict().items()})
        self.still.append({n for n, p in model.named_parameters() if not p.requires_grad})
        ask = module.loss

        def watched(batch: Any) -> Any:
            found = ask(batch)
            # after validation too: Lightning puts modes back
            self.modes.append({name: part.training for name, part in model.named_children()})
            self.extra.append(set(found.terms.extra))
            condition = model.read(batch)
            assert condition is not None
            self.present.append(bool(condition.present.any()))
            return found

        module.loss = watched


def players_by_name(model: Model) -> dict[str, str]:
    player = {id(p): name for name, own in model.players().items() for p in own}
    return {name: player[id(p)] for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("dgm-vae-dialogue", []),
        ("di-vae-dialogue", []),
        # running statistics stay, and so does the shift
        ("dgm-vae-dialogue", ["latents.z.posterior.batch_norm={scale: 0.7}"]),
        ("dgm-vae-dialogue", ["encoder.embedding_dropout=0.3", "condition.encoder=null"]),
    ],
)
def test_the_second_stage_trains_generation_alone(
    name: str, overrides: list[str], tmp_path: Path
) -> None:
    recipe, watch = toy(name, *overrides), Watch()
    model, history = train(tmp_path, recipe, callbacks=[watch])
    best = load_file(tmp_path / "pretraining" / "training" / "best" / "model.safetensors")
    who = players_by_name(model)
    assert watch.still == [set(), {name for name, player in who.items() if player != "generation"}]
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(3, 2, NEW_DECODER))
        fresh = Model(recipe, corpora()[2]).state_dict()
    begun, end = watch.starts[1], model.state_dict()
    for key, value in end.items():
        if who.get(key) == "generation":
            assert torch.equal(begun[key], fresh[key])
            assert not torch.equal(value, begun[key]), key
        else:
            assert torch.equal(value, begun[key]), key
            if "running" not in key:  # the statistics of the corpus, once the stage has ended
                assert torch.equal(value, best[key]), key
    assert all(p.requires_grad for p in model.parameters())
    assert not model.blank
    # the first stage knows of no context, whatever it is told
    half = len(watch.modes) // 2
    assert not any(watch.present[:half])
    assert all(watch.present[half:])
    assert set.union(*watch.extra[:half]) == set()
    assert all(found == {"policy", "attribute forcing"} for found in watch.extra[half:])
    # evaluation mode for what is frozen, after a validation too
    for modes in watch.modes[half:]:
        assert modes["decoder"]
        assert modes["context"]
        assert not modes["encoder"]
    weights = [row["kl_weight"] for row in history.pretraining]
    assert all(weight is not None and weight > 0 for weight in weights)
    assert [row["kl_weight"] for row in history.rows] == [0, 0]


def test_an_utterance_vae_knows_no_dialogue() -> None:
    """The first stage computes what an unconditional model of the same weights would."""
    model = toy_model("dgm-vae-dialogue")
    told = make_batch(SENTENCES, contexts=CONTEXTS)
    model.blank = True
    torch.manual_seed(1)
    blank = model(told)
    model.blank = False
    torch.manual_seed(1)
    lone = model(make_batch(SENTENCES))
    for key in ("reconstruction", "elbo"):
        torch.testing.assert_close(getattr(blank, key), getattr(lone, key))
    torch.testing.assert_close(blank.kl, lone.kl)
    assert blank.extra == {}
    assert blank.policy_hits == {}
    # what a response means does not depend on its context
    means = [model.infer(batch)["z"].posterior.mean for batch in (told, make_batch(SENTENCES))]
    assert torch.equal(*means)


@pytest.mark.slow
def test_it_learns_to_foretell_codes(tmp_path: Path) -> None:
    recipe = toy("di-vae-dialogue", "training.max_epochs=12", "strategy.epochs=6")
    _, history = train(tmp_path, recipe)
    first, last = history.rows[0], history.rows[-1]
    for key, better in (("objective", -1), ("policy_accuracy/c", 1)):
        before, after = (float(row[f"validation/{key}"] or 0) for row in (first, last))
        assert (after - before) * better > 0, key
    assert float(last["validation/policy_accuracy/c"] or 0) <= 1
    assert "validation/policy_accuracy/c" not in history.pretraining[0]


# --- resuming -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "epoch_batches"), [*((name, "null") for name in RECIPES), ("di-vae-dialogue", "9")]
)
def test_resuming_either_stage_changes_nothing(
    name: str, epoch_batches: str, tmp_path: Path
) -> None:
    recipe = toy(name, f"training.epoch_batches={epoch_batches}")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    model, history = train(whole, recipe)
    resume = False
    for stage in ("pretraining", ""):
        for batch in (3, 10):  # within the first epoch, and after it
            stop = SignalAt(batch, signal.SIGTERM, parts / stage)
            with pytest.raises(Interrupted):
                train(parts, recipe, resume=resume, callbacks=[stop])
            resume = True
    again, second = train(parts, recipe, resume=True)
    assert same(again.state_dict(), model.state_dict())
    assert same(last_payload(parts), last_payload(whole))
    assert without_times(second.rows) == without_times(history.rows)
    assert without_times(second.pretraining) == without_times(history.pretraining)


# --- the policy ---------------------------------------------------------------------------


def condition_of(present: list[bool]) -> Condition:
    rows = len(present)
    none = torch.zeros(rows, 0)
    return Condition(torch.ones(rows, 1), none[:, :, None], none.bool(), torch.tensor(present))


def test_policy_targets_by_hand() -> None:
    policy = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]] * 3).log().requires_grad_()
    q = torch.tensor(
        [
            [[0.2, 0.7, 0.1], [0.0, 0.1, 0.9]],
            [[0.6, 0.3, 0.1], [0.5, 0.4, 0.1]],
            [[0.6, 0.3, 0.1], [0.0, 0.1, 0.9]],
        ]
    )
    q = q.log().requires_grad_()
    codes = CodesInContext({"c": q}, {"c": policy}, condition_of([True, True, False]))
    loss = codes.policy_loss()
    expected = [-math.log(0.25 * 0.8), -math.log(0.5 * 0.1), 0.0]
    torch.testing.assert_close(loss, torch.tensor(expected))
    assert codes.hits()["c"].tolist() == [[0, 1], [1, 0], [-1, -1]]
    loss.sum().backward()
    assert q.grad is None
    assert policy.grad is not None
    assert (policy.grad != 0).sum() == 4  # of two rows, those of the two codes


@pytest.mark.parametrize("reader", ["own", "shared"])
@every_recipe
def test_the_policy_s_loss_reaches_the_policy_and_the_context_alone(name: str, reader: str) -> None:
    overrides = ["condition.encoder=null"] if reader == "shared" else []
    model = toy_model(name, *overrides).train()
    model(make_batch(SENTENCES, contexts=CONTEXTS)).extra["policy"].sum().backward()
    reached = {key for key, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    allowed = ("context.", f"latents.{next(iter(model.latents))}.prior.policy")
    allowed += ("encoder.",) if reader == "shared" else ()
    assert {key.split(".")[0] for key in reached} >= {"context", "latents"}
    assert all(key.startswith(allowed) for key in reached)


def test_rows_without_a_context_cost_nothing() -> None:
    terms = toy_model("dgm-vae-dialogue")(make_batch(SENTENCES, contexts=CONTEXTS))
    for name in ("policy", "attribute forcing"):
        assert (terms.extra[name] > 0).tolist() == [True, True, False, True]
    assert terms.policy_hits["z.component"][2].tolist() == [-1, -1]


def test_the_objective_weighs_them_by_name() -> None:
    recipe = toy("dgm-vae-dialogue", "objective.policy=2.0", "objective.attribute_forcing=0.5")
    model = toy_model("dgm-vae-dialogue")
    terms = model(make_batch(SENTENCES, contexts=CONTEXTS))
    per_sentence = Objective(build_stages(recipe)[1].objective).per_sentence(terms)
    extra = 2 * terms.extra["policy"] + 0.5 * terms.extra["attribute forcing"]
    torch.testing.assert_close(per_sentence, extra - terms.reconstruction)


def test_weights_of_zero_leave_nothing_to_compute() -> None:
    model = toy_model(
        "dgm-vae-dialogue",
        "strategy={kind: joint}",
        "objective.policy=0",
        "objective.attribute_forcing=0",
        "latents.z.divergence.mutual_information=false",  # or nothing would teach the policy
    )
    assert model(make_batch(SENTENCES, contexts=CONTEXTS)).extra == {}


# --- attribute forcing --------------------------------------------------------------------


def forcing_of(model: Model) -> tuple[AttributeForcing, Any]:
    """The forcing of a batch at a fixed z."""
    batch = make_batch(SENTENCES, contexts=CONTEXTS)
    z = torch.linspace(-1, 1, 4 * model.latent_dim).view(4, -1)
    forcing = AttributeForcing(model.encoder, model.decoder, model.named_latents())  # type: ignore[arg-type]

    def loss(dtype: torch.dtype = torch.float32) -> torch.Tensor:
        condition = model.read(batch)
        found = model.infer(batch, condition=condition)
        given = model.variables(found)
        name = model.named_latents()["z"].drawn_variable("z")
        assert condition is not None
        codes = CodesInContext({name: given[name]}, {}, condition)
        return forcing(z.to(dtype), batch, codes)

    return forcing, loss


@every_recipe
def test_forcing_reaches_the_decoder_and_never_the_encoder(name: str) -> None:
    model = toy_model(name).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    encoder_modes = [part.training for part in model.encoder.modules()]  # type: ignore[union-attr]
    # under `joint` nothing else freezes the encoder, so that this is the loss's own doing
    z = torch.zeros(4, model.latent_dim)
    batch = make_batch(SENTENCES, contexts=CONTEXTS)
    condition = model.read(batch)
    variables = model.variables(model.infer(batch, condition=condition))
    forcing = AttributeForcing(model.encoder, model.decoder, model.named_latents())  # type: ignore[arg-type]
    assert condition is not None
    forcing(z, batch, CodesInContext(variables, {}, condition)).sum().backward()
    reached = {key for key, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"decoder.output.weight", "decoder.embedding.weight"} <= reached
    assert all(key.startswith(("decoder.", "context.")) for key in reached)
    assert same(dict(model.state_dict()), before)
    assert [part.training for part in model.encoder.modules()] == encoder_modes  # type: ignore[union-attr]
    assert all(p.requires_grad for p in model.parameters())


def test_forcing_s_gradient_is_that_of_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)  # float64 throughout
    model = toy_model("dgm-vae-dialogue").double()
    _, loss = forcing_of(model)
    loss(torch.float64).sum().backward()
    step = 1e-6
    for key, parameter in model.decoder.named_parameters():
        assert parameter.grad is not None, key
        # the word of the largest gradient, and a corner
        for place in {int(parameter.grad.abs().argmax()), 0}:
            with torch.no_grad():
                values = parameter.view(-1)
                start = float(values[place])
                at = []
                for shift in (step, -step):
                    values[place] = start + shift
                    at.append(float(loss(torch.float64).sum()))
                values[place] = start
            found = float(parameter.grad.view(-1)[place])
            assert found == pytest.approx((at[0] - at[1]) / (2 * step), rel=1e-4, abs=1e-7), key


def test_a_decoder_that_is_sure_is_read_like_its_words() -> None:
    """One word that is certain is embedded as that word; padding is not read."""
    model = toy_model("dgm-vae-dialogue")
    sentences = [[5] * len(sentence) for sentence in SENTENCES]
    batch = make_batch(SENTENCES, contexts=CONTEXTS)
    features = torch.ones(4, batch.inputs.shape[1], 8)
    with torch.no_grad():
        model.decoder.output.weight.fill_(0)[5] = 100
    model.decoder.states = lambda *_: features  # type: ignore[method-assign]
    sure = make_batch(sentences)
    sure.tokens[:, 1:].masked_fill_(sure.target_mask, 5)  # </s> is foretold by nothing
    condition = model.read(batch)
    given = model.variables(model.infer(batch))
    expected = code_loss(model.variables(model.infer(sure))["z.component"], given["z.component"])
    forcing = AttributeForcing(model.encoder, model.decoder, model.named_latents())  # type: ignore[arg-type]
    assert condition is not None
    found = forcing(torch.zeros(4, 4), batch, CodesInContext(given, {}, condition))
    torch.testing.assert_close(found, expected * condition.present)


@pytest.mark.parametrize("directions", ["false", "true"])
def test_reading_embeddings_is_reading_words(directions: str) -> None:
    model = toy_model("dgm-vae-dialogue", f"encoder.bidirectional={directions}")
    batch, encoder = make_batch(SENTENCES), model.encoder
    assert isinstance(encoder, RecurrentEncoder)
    words = encoder(batch)
    again = encoder.read(encoder.embedding(batch.tokens), batch.lengths, batch.mask)
    assert torch.equal(words.states, again.states)
    assert torch.equal(words.summary, again.summary)


def test_frozen_ends_where_it_began() -> None:
    model = toy_model("dgm-vae-dialogue").train()
    model.encoder.dropout.eval()  # type: ignore[union-attr]
    model.decoder.embedding.weight.requires_grad_(False)
    with frozen(model.parameters(), [model]):
        assert not any(p.requires_grad for p in model.parameters())
        assert not any(part.training for part in model.modules())
    assert [name for name, part in model.named_modules() if not part.training] == [
        "encoder.dropout"
    ]
    still = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert still == ["decoder.embedding.weight"]


# --- what does not fit --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("lstm-lm", ["strategy={kind: two-stage}"], "strategy two-stage needs a latent"),
        ("vae", ["strategy={kind: two-stage}"], "needs a condition with posterior: false"),
        (
            "cvae",
            ["strategy={kind: two-stage}"],
            "strategy two-stage needs a condition with posterior: false",
        ),
        (
            "cvae",
            ["strategy={kind: two-stage}", "condition.posterior=false"],
            "cannot have prior conditional-gaussian of latent z",
        ),
        ("twr-cvae", ["condition.posterior=false"], "readout turns of latent z needs condition"),
        ("vae", ["objective.policy=1"], "objective.policy needs a latent with prior.policy"),
        ("cvae", ["objective.attribute_forcing=1"], "attribute_forcing needs a latent with prior"),
        (
            "dgm-vae-dialogue",
            ["encoder={kind: transformer}"],
            "objective.attribute_forcing needs a recurrent encoder",
        ),
        ("dgm-vae-dialogue", ["objective.policy=0"], "does not train prior.policy: set objective"),
        ("dgm-vae-dialogue", ["strategy.epochs=0"], "strategy.epochs"),
    ],
)
def test_what_does_not_fit_is_a_user_error(name: str, overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        small_recipe(name, overrides)
    assert "\n" not in str(error.value)
